//! The one error of this crate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pinmesh_transport::TransportError;

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a task, or a call on the client, did not give what was asked for.
///
/// Those down to [`Error::Lost`] are ends of a task in the words of the mesh; the others come from
/// this process. [`Error::is_outcome_unknown`] tells whether the task may have run, or may run yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The handler returned an error.
    Failed {
        /// The task's service.
        service: Arc<str>,
        /// The handler's words.
        message: String,
    },
    /// The deadline passed before the task ended.
    Expired {
        /// The task's service.
        service: Arc<str>,
    },
    /// The attempt ran longer than its max runtime and was killed.
    TimedOut {
        /// The task's service.
        service: Arc<str>,
        /// The broker's words.
        message: String,
    },
    /// The workers that ran it died, as often as it may be tried.
    Crashed {
        /// The task's service.
        service: Arc<str>,
        /// Starts that ended badly.
        tries: u32,
        /// The broker's words.
        message: String,
    },
    /// It was cancelled, by this client or by an operator.
    Cancelled {
        /// The task's service.
        service: Arc<str>,
    },
    /// The broker has no room. Seen only by who asked for it, or if the deadline comes first.
    Busy {
        /// The task's service.
        service: Arc<str>,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// No worker served the service for as long as the broker waits for one.
    NoService {
        /// The task's service.
        service: Arc<str>,
    },
    /// A limit or a permission of the broker stands against the task.
    Refused {
        /// The task's service.
        service: Arc<str>,
        /// The broker's words.
        message: String,
    },
    /// An at-most-once task whose worker or broker was lost: it may or may not have run.
    Lost {
        /// The task's service.
        service: Arc<str>,
    },
    /// The wait ended before the task did. The task goes on and its handle stays good; a `call`
    /// cancels it.
    WaitTimedOut {
        /// How long the wait was.
        waited: Duration,
    },
    /// As many tasks or bytes as the client may have are unresolved.
    Full {
        /// The limit in tasks.
        tasks: u32,
        /// The limit in bytes.
        bytes: u64,
    },
    /// A callback waits for a task: it runs on the client's own thread, on which that would wait for
    /// ever. The task goes on.
    InCallback,
    /// The client was closed before the task ended: unknown whether it ran.
    Closed,
    /// No session with any broker could be opened in time.
    Unreachable {
        /// The brokers that were tried.
        endpoints: String,
        /// For how long.
        waited: Duration,
        /// What happened last.
        reason: String,
    },
    /// The broker refused the session.
    SessionRefused {
        /// The broker.
        endpoint: String,
        /// Why, in the broker's words.
        reason: String,
    },
    /// A payload, or what goes before it, is longer than the mesh takes.
    TooLarge {
        /// What is.
        what: &'static str,
        /// Its length, bytes.
        bytes: u64,
        /// The limit, bytes.
        bytes_max: u64,
    },
    /// The input could not be encoded.
    Encode {
        /// Why.
        reason: String,
    },
    /// The output is not what was asked for.
    Decode {
        /// The type that was asked for.
        expected: &'static str,
        /// Why not.
        reason: String,
    },
    /// An argument out of its range.
    Invalid {
        /// Which.
        what: &'static str,
        /// Its value.
        value: String,
        /// The range, or the remedy.
        remedy: String,
    },
    /// The task of a fetched key has not ended.
    NotEnded,
    /// No broker that could be asked knows the fetched key, or none does any more.
    UnknownKey,
    /// The result was taken from this handle before.
    Taken,
    /// The socket library or the system refused.
    Transport(Arc<TransportError>),
    /// The system refused.
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// Whether the task may have run, or may run yet: handing it in again may run it twice.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::Expired { .. }
                | Self::Lost { .. }
                | Self::WaitTimedOut { .. }
                | Self::Closed
                | Self::TimedOut { .. }
                | Self::Crashed { .. }
                | Self::Cancelled { .. }
        )
    }

    pub(crate) fn invalid(what: &'static str, value: impl ToString, remedy: &str) -> Self {
        Self::Invalid { what, value: value.to_string(), remedy: remedy.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { service, message } => write!(f, "service `{service}` failed: {message}"),
            Self::Expired { service } => write!(
                f,
                "the deadline of a task for `{service}` passed first: give it longer, or see \
                 whether enough workers serve it"
            ),
            Self::TimedOut { service, message } => write!(
                f,
                "a task for `{service}` ran longer than its max runtime and was killed \
                 ({message}): set a longer max runtime, or divide the task"
            ),
            Self::Crashed { service, tries, message } => write!(
                f,
                "the worker of a task for `{service}` died, {tries} times in all ({message}): the \
                 worker's log says how"
            ),
            Self::Cancelled { service } => write!(f, "a task for `{service}` was cancelled"),
            Self::Busy { service, retry_after } => {
                write!(f, "the broker has no room for tasks for `{service}`: try again")?;
                match retry_after {
                    Some(after) => write!(f, " in {after:?}"),
                    None => f.write_str(" later"),
                }
            }
            Self::NoService { service } => write!(
                f,
                "no worker serves `{service}`: check the name, or start a worker that serves it"
            ),
            Self::Refused { service, message } => {
                write!(f, "the broker refused a task for `{service}`: {message}")
            }
            Self::Lost { service } => write!(
                f,
                "an at-most-once task for `{service}` was lost with its worker or broker: it may \
                 or may not have run"
            ),
            Self::WaitTimedOut { waited } => {
                write!(f, "the task has not ended after {waited:?}: wait longer, or set a deadline")
            }
            Self::Full { tasks, bytes } => write!(
                f,
                "the client's window is full ({tasks} tasks, {bytes} bytes unresolved): wait for \
                 results, or connect with a larger `window`"
            ),
            Self::InCallback => f.write_str(
                "a callback waits for a task, which would never end: the client's own thread, which \
                 runs callbacks, has to hear of it; wait elsewhere, or give that task a callback too",
            ),
            Self::Closed => f.write_str(
                "the client was closed before the task ended: wait for results before it is \
                 dropped, or close it with a timeout",
            ),
            Self::Unreachable { endpoints, waited, reason } => write!(
                f,
                "no broker at {endpoints} after {waited:?} ({reason}): start `pinmesh-broker`, or \
                 check the endpoint, and the keys if it asks for any"
            ),
            Self::SessionRefused { endpoint, reason } => {
                write!(f, "the broker at {endpoint} refused the session: {reason}")
            }
            Self::TooLarge { what, bytes, bytes_max } => write!(
                f,
                "{what} has {bytes} bytes, at most {bytes_max} are taken: divide it, or pass a \
                 reference to it"
            ),
            Self::Encode { reason } => write!(f, "the input cannot be encoded: {reason}"),
            Self::Decode { expected, reason } => {
                write!(f, "the output is no {expected}: {reason}")
            }
            Self::Invalid { what, value, remedy } => write!(f, "{what} = {value}: {remedy}"),
            Self::NotEnded => f.write_str("the task of that key has not ended: wait for it"),
            Self::UnknownKey => f.write_str(
                "no broker knows that key: it was never given, or its retention has passed",
            ),
            Self::Taken => f.write_str("the result was taken from this handle before"),
            Self::Transport(error) => error.fmt(f),
            Self::System { action, reason } => write!(f, "cannot {action}: {reason}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Transport(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<TransportError> for Error {
    fn from(error: TransportError) -> Self {
        Self::Transport(Arc::new(error))
    }
}
