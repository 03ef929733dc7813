//! The inputs of a map that have failed: which, how, and why.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use pinmesh_client::Error;
use serde_json::json;

use crate::failure::Failure;

/// The status of tasks that nobody serves.
pub(crate) const NO_SERVICE: &str = "NO_SERVICE";

/// How an input failed.
#[derive(Debug)]
pub(crate) struct Fault {
    /// One word for programs.
    pub(crate) status: &'static str,
    pub(crate) message: String,
}

impl Fault {
    /// It could not be read or encoded.
    pub(crate) fn input(message: String) -> Self {
        Self { status: "INPUT", message }
    }

    /// Its result could not be shown or written.
    pub(crate) fn output(message: String) -> Self {
        Self { status: "OUTPUT", message }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Failed { .. } => "FAILED",
            Error::Expired { .. } => "EXPIRED",
            Error::TimedOut { .. } => "TIMED_OUT",
            Error::Crashed { .. } => "CRASHED",
            Error::Cancelled { .. } => "CANCELLED",
            Error::Busy { .. } => "BUSY",
            Error::NoService { .. } => NO_SERVICE,
            Error::Refused { .. } => "REFUSED",
            Error::Lost { .. } => "LOST",
            Error::TooLarge { .. } => "INPUT",
            _ => "CLIENT",
        };
        Self { status, message: error.to_string() }
    }
}

/// A file of them, one JSON object a line.
#[derive(Debug)]
pub(crate) struct ErrorLog {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
}

impl ErrorLog {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| Failure::file(path, &error))?;
        Ok(Self { path: path.to_owned(), file, buffer: Vec::new() })
    }

    pub(crate) fn note(&mut self, index: u64, name: &[u8], fault: &Fault) {
        let line = json!({
            "index": index,
            "input": String::from_utf8_lossy(name),
            "status": fault.status,
            "message": fault.message,
        });
        self.buffer.extend_from_slice(line.to_string().as_bytes());
        self.buffer.push(b'\n');
    }

    pub(crate) fn commit(&mut self) -> Result<(), Failure> {
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|error| Failure::file(&self.path, &error))
    }
}
