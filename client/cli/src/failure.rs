//! What ends the command early, and with which exit code.

use std::io;
use std::path::Path;

use pinmesh_client::Error;

pub(crate) const OK: u8 = 0;
pub(crate) const TASK_FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const UNREACHABLE: u8 = 3;
pub(crate) const OUTPUT: u8 = 4;
/// `result`: the task has not ended.
pub(crate) const NOT_ENDED: u8 = 5;
/// `result`: no broker knows the key.
pub(crate) const UNKNOWN_KEY: u8 = 6;
pub(crate) const INTERRUPTED: u8 = 130;

/// A message for standard error and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: USAGE }
    }

    pub(crate) fn task(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: TASK_FAILED }
    }

    /// Standard output is gone or full.
    pub(crate) fn output(error: &io::Error) -> Self {
        Self::write("standard output", error)
    }

    /// Standard output is a terminal, which shows no such output.
    pub(crate) fn terminal(bytes: usize) -> Self {
        let message = format!(
            "an output of {bytes} bytes is no text, and standard output is a terminal: write it \
             to a file, or give --force"
        );
        Self { message, code: OUTPUT }
    }

    /// Somebody wanted it.
    pub(crate) fn interrupted(message: String) -> Self {
        Self { message, code: INTERRUPTED }
    }

    /// A file that was asked for cannot be written.
    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        Self::write(&format!("`{}`", path.display()), error)
    }

    fn write(what: &str, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::BrokenPipe => "its reader has closed it; let it read to the end",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room, or write to another file system"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "check its permissions, or write elsewhere"
            }
            io::ErrorKind::NotFound => "check the folder that it is to be in",
            _ => "see where it leads",
        };
        Self { message: format!("cannot write to {what}: {error}: {remedy}"), code: OUTPUT }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Unreachable { .. } | Error::SessionRefused { .. } => UNREACHABLE,
            Error::Invalid { .. } => USAGE,
            Error::NotEnded => NOT_ENDED,
            Error::UnknownKey => UNKNOWN_KEY,
            Error::Transport(_) | Error::System { .. } => UNREACHABLE,
            _ => TASK_FAILED,
        };
        Self { message: error.to_string(), code }
    }
}
