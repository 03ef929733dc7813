//! The error of this crate.

use std::path::PathBuf;
use std::{fmt, io};

/// What can go wrong at the transport. Each message names the value and the remedy.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransportError {
    /// An endpoint that is malformed, or cannot be used this way.
    Endpoint {
        /// The endpoint as it was given.
        endpoint: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// A bind that other hosts could reach, without keys and without `insecure = true`.
    NotLocal {
        /// The endpoint as it was given.
        endpoint: String,
    },
    /// An ipc endpoint that another socket is bound to.
    InUse {
        /// The endpoint as it was given.
        endpoint: String,
        /// The file whose lock the other one holds, or the socket on which it answers.
        holder: PathBuf,
    },
    /// A file or folder could not be used.
    File {
        /// What was tried: "open", "lock", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An option outside its range.
    Option {
        /// The option's name.
        name: &'static str,
        /// The value that was given.
        value: String,
        /// The range, or the remedy.
        reason: String,
    },
    /// libzmq refused a call.
    Zmq {
        /// The call of libzmq.
        call: &'static str,
        /// The endpoint, option or peer that it was about.
        subject: String,
        /// The error number.
        errno: i32,
        /// libzmq's words for it.
        message: String,
    },
    /// Keys are asked for, and this libzmq has no CURVE.
    CurveMissing,
    /// Text that is no key.
    Key {
        /// What is wrong with it. Never the key.
        reason: String,
    },
    /// A file of keys that is not to be trusted, or not understood.
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1, if it is about one.
        line: Option<usize>,
        /// What is wrong with it.
        reason: String,
    },
    /// Keys that are used in the wrong place, or a self-test that failed.
    Security {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// mio or the operating system refused to register or to wait.
    Poll {
        /// What was tried: "register a socket", "wait", ...
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { endpoint, reason } => write!(f, "endpoint `{endpoint}`: {reason}"),
            Self::NotLocal { endpoint } => write!(
                f,
                "endpoint `{endpoint}` can be reached from other hosts and has no keys: bind to \
                 127.0.0.1, [::1] or ipc://, set up CURVE keys, or set `insecure = true` if \
                 everyone on that network may submit and run tasks"
            ),
            Self::InUse { endpoint, holder } => write!(
                f,
                "endpoint `{endpoint}` is already bound: `{}` is held by another socket; stop its \
                 process or choose another path",
                holder.display()
            ),
            Self::File { action, path, source } => {
                write!(f, "cannot {action} `{}`: {source}", path.display())
            }
            Self::Option { name, value, reason } => write!(f, "{name} = {value}: {reason}"),
            Self::Zmq { call, subject, message, .. } => write!(f, "{call} {subject}: {message}"),
            Self::CurveMissing => f.write_str(
                "keys are set, but this libzmq was built without CURVE: build with the CXXFLAGS of \
                 pinmesh's .cargo/config.toml and libsodium, or leave the keys out and stay on \
                 loopback or ipc",
            ),
            Self::Key { reason } => f.write_str(reason),
            Self::KeyFile { path, line: None, reason } => {
                write!(f, "key file `{}`: {reason}", path.display())
            }
            Self::KeyFile { path, line: Some(line), reason } => {
                write!(f, "key file `{}` line {line}: {reason}", path.display())
            }
            Self::Security { reason } => write!(f, "security: {reason}"),
            Self::Poll { action, source } => write!(f, "cannot {action}: {source}"),
        }
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::Poll { source, .. } => Some(source),
            _ => None,
        }
    }
}
