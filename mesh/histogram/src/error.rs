//! What may go wrong with logs. Recording itself cannot fail.

use std::{fmt, io, path::PathBuf};

/// An error of a latency log.
#[derive(Debug)]
pub enum HistogramError {
    /// The log could not be created.
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log could not be written. Nothing more is written to it; recording goes on.
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread that writes the log could not be started, or has ended too early.
    WriterThread {
        /// Why, if the operating system said so.
        source: Option<io::Error>,
    },
    /// The log could not be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the log is none that an interval log may have.
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for HistogramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { path, source } => write!(
                f,
                "cannot create the latency log {}: {source}; give a file in a folder that exists \
                 and that this process may write to",
                path.display()
            ),
            Self::Write { path, source } => write!(
                f,
                "cannot write the latency log {}: {source}; it ends here, recording goes on \
                 without it",
                path.display()
            ),
            Self::WriterThread { source: Some(source) } => {
                write!(f, "cannot start the thread that writes the latency log: {source}")
            }
            Self::WriterThread { source: None } => f.write_str(
                "the thread that writes the latency log has ended; recording goes on without it",
            ),
            Self::Read { path, source } => {
                write!(f, "cannot read the latency log {}: {source}", path.display())
            }
            Self::Malformed { path, line, reason } => {
                write!(f, "{}:{line}: not a line of a latency log: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for HistogramError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Create { source, .. }
            | Self::Write { source, .. }
            | Self::Read { source, .. } => Some(source),
            Self::WriterThread { source } => source.as_ref().map(|source| source as _),
            Self::Malformed { .. } => None,
        }
    }
}
