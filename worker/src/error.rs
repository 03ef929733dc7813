//! What can go wrong in a worker, outside its handlers.

use pinmesh_histogram::HistogramError;
use pinmesh_host::HostError;
use pinmesh_protocol::limits::{LABELS_MAX, SERVICE_BYTES_MAX, SERVICES_MAX};
use pinmesh_protocol::selector::NameError;
use pinmesh_transport::TransportError;

use crate::page::BROKERS_MAX;
use crate::process::ProcessError;
use crate::supervisor::SupervisorError;

/// Why a worker could not start or go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkerError {
    /// A flag or argument has a value that cannot be.
    Flag {
        /// Which.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// No service, or too many.
    ServiceCount(usize),
    /// A service's name is empty or too long, or has braces.
    ServiceName(String),
    /// A label is none.
    Label(String),
    /// Too many labels.
    LabelCount(usize),
    /// Two services have one name.
    ServiceTwice(String),
    /// The CPUs cannot be had.
    Cpus(HostError),
    /// The keys cannot be used.
    Keys(TransportError),
    /// The process does not know what it is.
    Process(ProcessError),
    /// The supervisor failed.
    Supervisor(SupervisorError),
    /// The status page is of no use.
    Page(PageError),
    /// The latency log cannot be written.
    LatencyLog(HistogramError),
    /// A socket failed.
    Transport(TransportError),
    /// A system call failed.
    System(std::io::Error),
}

impl WorkerError {
    /// What a program exits with: 2 if its configuration is at fault, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Flag { .. }
            | Self::ServiceCount(_)
            | Self::ServiceName(_)
            | Self::Label(_)
            | Self::LabelCount(_)
            | Self::ServiceTwice(_)
            | Self::Cpus(_)
            | Self::Keys(_)
            | Self::LatencyLog(_)
            | Self::Supervisor(SupervisorError::Config { .. }) => 2,
            Self::Process(_)
            | Self::Supervisor(_)
            | Self::Page(_)
            | Self::Transport(_)
            | Self::System(_) => 1,
        }
    }
}

impl std::fmt::Display for WorkerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag { flag, value, reason } => write!(f, "{flag} `{value}`: {reason}"),
            Self::ServiceCount(0) => write!(
                f,
                "the worker serves no service; add one with Worker::service, or name one that \
                 exists in --services"
            ),
            Self::ServiceCount(count) => write!(
                f,
                "the worker serves {count} services, at most {SERVICES_MAX} are allowed; divide \
                 them among several programs"
            ),
            Self::ServiceName(name) => write!(
                f,
                "service `{name}` has a name of {} bytes; give it 1 to {SERVICE_BYTES_MAX} without \
                 braces (the labels that a worker has are said beside its services)",
                name.len()
            ),
            Self::Label(label) => write!(f, "label `{label}`: {}", NameError::Label),
            Self::LabelCount(count) => {
                write!(
                    f,
                    "the worker has {count} labels, at most {LABELS_MAX} are allowed; leave some out"
                )
            }
            Self::ServiceTwice(name) => {
                write!(f, "service `{name}` was given twice; remove one or rename it")
            }
            Self::Cpus(error) => write!(f, "--cpus: {error}"),
            Self::Keys(error) => write!(f, "keys (--key, --broker-key): {error}"),
            Self::Process(error) => error.fmt(f),
            Self::Supervisor(error) => error.fmt(f),
            Self::Page(error) => error.fmt(f),
            Self::LatencyLog(error) => write!(f, "--latency-log: {error}"),
            Self::Transport(error) => error.fmt(f),
            Self::System(error) => write!(
                f,
                "the system refused a descriptor, thread or signal handler: {error}; raise the \
                 limits (ulimit -n, ulimit -u)"
            ),
        }
    }
}

impl std::error::Error for WorkerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Flag { .. }
            | Self::ServiceCount(_)
            | Self::ServiceName(_)
            | Self::Label(_)
            | Self::LabelCount(_)
            | Self::ServiceTwice(_) => None,
            Self::Cpus(error) => Some(error),
            Self::Keys(error) => Some(error),
            Self::Process(error) => Some(error),
            Self::Supervisor(error) => Some(error),
            Self::Page(error) => Some(error),
            Self::LatencyLog(error) => Some(error),
            Self::Transport(error) => Some(error),
            Self::System(error) => Some(error),
        }
    }
}

/// The status page cannot be made or used.
#[derive(Debug)]
#[non_exhaustive]
pub enum PageError {
    /// A system call failed.
    System(rustix::io::Errno),
    /// More brokers than the page has leases for.
    Brokers(usize),
    /// What was handed over is no page of this version.
    Foreign {
        /// Which check failed.
        what: &'static str,
        /// What was found.
        found: u64,
        /// What should have been there.
        want: u64,
    },
}

impl std::fmt::Display for PageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System(error) => write!(
                f,
                "the status page could not be mapped: {error}; check the memory limit (ulimit -v) \
                 and that memfd_create is allowed"
            ),
            Self::Brokers(count) => write!(
                f,
                "--backend was given {count} times, a worker serves at most {BROKERS_MAX}; \
                 start a second supervisor for the rest"
            ),
            Self::Foreign { what, found, want } => write!(
                f,
                "the status page has {what} {found:#x}, this worker expects {want:#x}; the \
                 executable was replaced while its supervisor runs: restart the supervisor"
            ),
        }
    }
}

impl std::error::Error for PageError {}
