//! All that can happen to a broker.

use alloc::boxed::Box;

use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::{
    Attempts, CancelRequest, Fetch, Heartbeat, Hello, Host, Lost, Ready, ServiceAlias, ServiceRef,
    Window,
};
use pinmesh_protocol::id::{AttemptId, ContentType, Priority, RequestId, Submission};
use pinmesh_protocol::status::{EndStatus, ProgressKind, RefusedCode};

/// The shell's number for one peer's socket. The shell never uses a number again while the core has
/// a session for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conn(pub u32);

/// Which of the broker's two sockets a peer speaks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Clients.
    Frontend,
    /// Workers and supervisors.
    Backend,
}

/// The body of a task or a result: the core keeps it and knows its length, nothing else.
pub trait Body {
    /// Bytes of payload, which windows count.
    fn payload_bytes(&self) -> u64;

    /// Bytes of memory that it keeps, payload included, which the memory budget counts.
    fn kept_bytes(&self) -> u64 {
        self.payload_bytes()
    }

    /// A copy of the beginning of its payload, so many bytes at most.
    fn excerpt(&self, bytes_max: usize) -> Excerpt;
}

/// The beginning of a payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Excerpt {
    /// What the payload is encoded in.
    pub content_type: ContentType,
    /// The beginning.
    pub bytes: Box<[u8]>,
    /// How many bytes the whole has.
    pub of_bytes: u64,
}

/// SUBMIT with its options decoded and its payload owned.
#[derive(Clone, Debug)]
pub struct SubmitEvent<'a, B> {
    /// The client's number for it.
    pub request_id: RequestId,
    /// Which handing-in of it.
    pub submission: Submission,
    /// Who is to run it.
    pub service: ServiceRef<'a>,
    /// Its urgency.
    pub priority: Priority,
    /// Time left, nanoseconds.
    pub deadline_ns: Option<u64>,
    /// Its options; an error ends the task REFUSED with that text.
    pub options: Result<TaskOptions, &'static str>,
    /// Content type, options as they came, payload.
    pub body: B,
}

/// DONE with its payload owned.
#[derive(Clone, Debug)]
pub struct DoneEvent<B> {
    /// The attempt.
    pub attempt: AttemptId,
    /// How it ended.
    pub status: EndStatus,
    /// From receipt to end, nanoseconds.
    pub residence_ns: u64,
    /// From start to end of the handler, nanoseconds.
    pub service_ns: u64,
    /// Content type and payload.
    pub body: B,
}

/// PROGRESS with its payload owned.
#[derive(Clone, Debug)]
pub struct ProgressEvent<B> {
    /// The attempt.
    pub attempt: AttemptId,
    /// Counts up within the attempt, from 1.
    pub sequence: u64,
    /// How it is delivered.
    pub kind: ProgressKind,
    /// Content type and payload.
    pub body: B,
}

/// What happened, and to whose socket.
#[derive(Clone, Debug)]
pub enum Event<'a, B> {
    /// HELLO on the given side, and the name of the key by which the socket was let in; `None`: it
    /// has none.
    Hello(Conn, Side, Hello<'a>, Option<&'a str>),
    /// GOODBYE.
    Goodbye(Conn),
    /// HEARTBEAT.
    Heartbeat(Conn, Heartbeat),
    /// ACK.
    Ack(Conn, u64),
    /// SERVICE.
    Service(Conn, ServiceAlias<'a>),
    /// WINDOW from a worker.
    Window(Conn, Window),
    /// SUBMIT.
    Submit(Conn, SubmitEvent<'a, B>),
    /// CANCEL from a client.
    Cancel(Conn, CancelRequest),
    /// FETCH from a client.
    Fetch(Conn, Fetch<'a>),
    /// READY.
    Ready(Conn, Ready<'a>),
    /// DONE.
    Done(Conn, DoneEvent<B>),
    /// RETURN.
    Return(Conn, AttemptId),
    /// HOST.
    Host(Conn, Host),
    /// LOST.
    Lost(Conn, Lost),
    /// RECALLED.
    Recalled(Conn, Attempts),
    /// PROGRESS.
    Progress(Conn, ProgressEvent<B>),
    /// Bytes that are not a command, or a command that its sender may not send: the session is
    /// refused and closed. Commands before it in the batch stand.
    Malformed(Conn, RefusedCode, &'a str),
    /// The message of this peer has been read to its end: time to acknowledge.
    BatchEnd(Conn),
    /// The peer's batch could not be sent; feed it no more until `Sendable`.
    Full(Conn),
    /// The peer's batch has gone out after all.
    Sendable(Conn),
    /// The socket is gone: nothing can be sent to it any more.
    Gone(Conn),
    /// Time has passed.
    Tick,
    /// Accept nothing new, finish what is held.
    Drain,
}

impl<B> Event<'_, B> {
    /// Whose socket it happened to; `None`: nobody's.
    pub const fn conn(&self) -> Option<Conn> {
        match self {
            Self::Hello(conn, ..)
            | Self::Goodbye(conn)
            | Self::Heartbeat(conn, _)
            | Self::Ack(conn, _)
            | Self::Service(conn, _)
            | Self::Window(conn, _)
            | Self::Submit(conn, _)
            | Self::Cancel(conn, _)
            | Self::Fetch(conn, _)
            | Self::Ready(conn, _)
            | Self::Done(conn, _)
            | Self::Return(conn, _)
            | Self::Host(conn, _)
            | Self::Lost(conn, _)
            | Self::Recalled(conn, _)
            | Self::Malformed(conn, ..)
            | Self::Progress(conn, _)
            | Self::BatchEnd(conn)
            | Self::Full(conn)
            | Self::Sendable(conn)
            | Self::Gone(conn) => Some(*conn),
            Self::Tick | Self::Drain => None,
        }
    }
}
