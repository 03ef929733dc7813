//! What can go wrong in a worker, outside its handlers.

use crate::page::BROKERS_MAX;

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
