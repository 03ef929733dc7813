//! Where reports go.

use std::{fs::File, io::Write, path::PathBuf};

use crate::error::BenchError;

/// Where JSON goes. A file is opened before anything is measured, so that a wrong path costs no run.
#[derive(Debug)]
pub(crate) struct JsonOutput(Option<(PathBuf, Option<File>)>);

impl JsonOutput {
    /// `-` is stdout.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self, BenchError> {
        let Some(path) = path else { return Ok(Self(None)) };
        if path.as_os_str() == "-" {
            return Ok(Self(Some((path, None))));
        }
        match File::create(&path) {
            Ok(file) => Ok(Self(Some((path, Some(file))))),
            Err(source) => Err(BenchError::Write { path, source }),
        }
    }

    /// Writes both reports: the table to stdout, or to stderr if JSON goes there.
    pub(crate) fn write(&mut self, table: &str, json: &str) -> Result<(), BenchError> {
        match &mut self.0 {
            None => print(table),
            Some((_, None)) => {
                eprint!("{table}");
                print(json)
            }
            Some((path, Some(file))) => {
                print(table)?;
                file.write_all(json.as_bytes())
                    .map_err(|source| BenchError::Write { path: path.clone(), source })
            }
        }
    }
}

fn print(text: &str) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| BenchError::Write { path: "stdout".into(), source })
}
