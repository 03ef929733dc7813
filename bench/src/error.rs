//! Why a benchmark could not be run. A run that was made and is not valid is no error: its report
//! says so.

use std::{fmt, io, path::PathBuf, process::ExitStatus, time::Duration};

/// The one error of this crate.
#[derive(Debug)]
pub(crate) enum BenchError {
    /// A program of the mesh is neither beside this one nor in PATH.
    ProgramMissing { program: &'static str, beside: PathBuf },
    /// A program could not be started.
    Spawn { program: PathBuf, source: io::Error },
    /// A program ended before it was told to.
    Ended { program: &'static str, status: ExitStatus, stderr: String },
    /// A program did not say in time that it is ready.
    NotReady { program: &'static str, waited: Duration, stderr: String },
    /// What a program said when it was ready is not understood.
    ReadyLine { program: &'static str, line: String },
    /// Keys could not be read or made.
    Keys { source: pinmesh_client::TransportError },
    /// The client could not connect.
    Connect { broker: String, source: pinmesh_client::Error },
    /// A client's task could not be handed in.
    Submit { source: pinmesh_client::Error },
    /// The machine could not be described, or a CPU is not to be had.
    Host(pinmesh_host::HostError),
    /// Latency logs of the mesh could not be read.
    Log(pinmesh_histogram::HistogramError),
    /// A file could not be written.
    Write { path: PathBuf, source: io::Error },
    /// A thread or a signal handler could not be had.
    System { action: &'static str, source: io::Error },
    /// Flags that contradict each other, or ask for too much.
    Flags(String),
    /// SIGINT or SIGTERM came before there was anything to report.
    Interrupted,
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProgramMissing { program, beside } => write!(
                f,
                "{program} is neither in {} nor in PATH: build it with `cargo build --release`, or \
                 give a mesh that runs already with --broker",
                beside.display()
            ),
            Self::Spawn { program, source } => {
                write!(f, "cannot start {}: {source}", program.display())
            }
            Self::Ended { program, status, stderr } => {
                write!(f, "{program} ended too early ({status}); it said:\n{stderr}")
            }
            Self::NotReady { program, waited, stderr } => write!(
                f,
                "{program} was not ready after {}; it said:\n{stderr}",
                humantime::format_duration(*waited)
            ),
            Self::ReadyLine { program, line } => write!(
                f,
                "{program} printed `{line}` instead of its readiness: is it of another version?"
            ),
            Self::Keys { source } => write!(f, "keys (--key, --broker-key, --curve): {source}"),
            Self::Connect { broker, source } => write!(f, "cannot connect to {broker}: {source}"),
            Self::Submit { source } => write!(f, "a task could not be handed in: {source}"),
            Self::Host(source) => source.fmt(f),
            Self::Log(source) => source.fmt(f),
            Self::Write { path, source } => write!(
                f,
                "cannot write {}: {source}; give a file in a folder that exists",
                path.display()
            ),
            Self::System { action, source } => write!(f, "cannot {action}: {source}"),
            Self::Flags(problem) => f.write_str(problem),
            Self::Interrupted => f.write_str("interrupted before anything was measured"),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<pinmesh_host::HostError> for BenchError {
    fn from(error: pinmesh_host::HostError) -> Self {
        Self::Host(error)
    }
}

impl From<pinmesh_histogram::HistogramError> for BenchError {
    fn from(error: pinmesh_histogram::HistogramError) -> Self {
        Self::Log(error)
    }
}
