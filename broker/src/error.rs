//! The error of this crate.

use std::{fmt, io};

use pinmesh_histogram::HistogramError;
use pinmesh_host::HostError;
use pinmesh_transport::TransportError;

/// Why a broker does not start, or ends without being told to.
#[derive(Debug)]
#[non_exhaustive]
pub enum BrokerError {
    /// A socket.
    Transport {
        /// Which: "frontend", "backend", "the event loop".
        what: &'static str,
        /// Why.
        source: TransportError,
    },
    /// Another socket is bound where one of the broker's is to be.
    Taken {
        /// `--frontend`, `--backend` or `--http`.
        flag: &'static str,
        /// Its endpoint.
        endpoint: String,
    },
    /// The admin API.
    Http {
        /// `--http`'s value.
        listen: String,
        /// Why.
        source: io::Error,
    },
    /// The CPUs of the event loop or of the IO threads.
    Cpu {
        /// The setting: `[cpu] pin (--cpu)`, ...
        setting: &'static str,
        /// Why.
        source: HostError,
    },
    /// The latency log.
    LatencyLog(HistogramError),
    /// The operating system.
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport { what, source } => write!(f, "{what}: {source}"),
            Self::Taken { flag, endpoint } => write!(
                f,
                "{flag} {endpoint}: this port is taken, perhaps by another broker: stop its process \
                 (`ss -ltnp` names it), or choose another port with {flag}, and tell it to those \
                 who connect{}",
                if *flag == "--http" { "; `--http off` does without" } else { "" }
            ),
            Self::Http { listen, source } => write!(
                f,
                "--http {listen}: {source}; name a loopback address and port that can be had, \
                 unix:/PATH in a folder of this user, or off"
            ),
            Self::Cpu { setting, source } => write!(f, "{setting}: {source}"),
            Self::LatencyLog(source) => write!(f, "[log] latency (--latency-log): {source}"),
            Self::System { action, source } => write!(f, "cannot {action}: {source}"),
        }
    }
}

impl std::error::Error for BrokerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Transport { source, .. } => Some(source),
            Self::Taken { .. } => None,
            Self::Http { source, .. } => Some(source),
            Self::Cpu { source, .. } => Some(source),
            Self::LatencyLog(source) => Some(source),
            Self::System { source, .. } => Some(source),
        }
    }
}
