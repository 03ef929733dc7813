//! What can happen to a client's machine, and what it may cause.

use alloc::boxed::Box;
use alloc::sync::Arc;

use pinmesh_protocol::command::{
    Accepted, ClientProgress, FromBroker, ServiceRef, TaskResult, ToBroker,
};
use pinmesh_protocol::id::{ContentType, Epoch, PeerId, Priority, RequestId, Submission};
#[cfg(doc)]
use pinmesh_protocol::rendezvous;
use pinmesh_protocol::status::RefusedCode;

use crate::Time;

/// One of the brokers that the client was given, by its place in that list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u16);

/// A service name that the machine was told with [`ClientEvent::Service`]: counts from 0 in the
/// order of telling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceId(pub u32);

/// What a client's machine is made with.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The client id of its tasks: random, for the life of the process.
    pub peer_id: PeerId,
    /// For people, and what fairness goes by.
    pub name: Box<str>,
    /// Start of its nonces and jitter; random in a shell, the seed of the run in a simulation.
    pub seed: u64,
    /// Brokers that it is given, 1 or more: the [`rendezvous::hash`] of each one's endpoint, by
    /// which tasks with a key choose among them.
    pub brokers: Box<[u64]>,
    /// The most requests that it keeps unresolved, queued ones included; more end
    /// [`LocalEnd::Full`].
    pub unresolved_max: usize,
}

/// A request that is handed in. Its id is 1 for the first, 2 for the second, and so on.
#[derive(Clone, Debug)]
pub struct NewRequest<B> {
    /// Kept until the request is resolved, then given back.
    pub body: B,
    /// Bytes of the payload.
    pub bytes: u64,
    /// Who is to run it; must have been told before.
    pub service: ServiceId,
    /// Its urgency.
    pub priority: Priority,
    /// After this moment nobody wants the result; [`Time::NEVER`]: none.
    pub deadline: Time,
    /// Not to be started before this moment; `None`: at once.
    pub start_at: Option<Time>,
    /// Encoding of the payload.
    pub content_type: ContentType,
    /// Encoded [`pinmesh_protocol::TaskOptions`] but for the time until its start; `None`: all default.
    pub options: Option<Arc<[u8]>>,
    /// What those options say: never handed in again where it may already have run.
    pub is_at_most_once: bool,
    /// BUSY is an end of the request rather than a reason to wait.
    pub shows_busy: bool,
    /// The [`rendezvous::hash`] of its key: it goes to the broker that is the key's. `None`: to the
    /// one with the fewest outstanding.
    pub key: Option<u64>,
    /// That key is an idempotency key: while its broker is BUSY it waits, because another one would
    /// run it as well.
    pub keeps_to_key: bool,
    /// It asks for an outcome instead of handing a task in; body, service and options say nothing
    /// then.
    pub fetch: Option<FetchOf>,
}

/// What a FETCH asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchOf {
    /// The idempotency key.
    pub key: Arc<[u8]>,
    /// The answer is to wait until the task has ended.
    pub waits: bool,
}

/// How a request is to be stopped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cancel {
    /// Its handler is asked, and may go on.
    Soft,
    /// What runs is killed, where its worker has a supervisor.
    Hard,
}

/// Everything that can happen.
#[derive(Debug)]
pub enum ClientEvent<'a, B> {
    /// The first event: opens a session with every broker.
    Start,
    /// A service name gets the next [`ServiceId`].
    Service(&'a str),
    /// A request.
    Submit(NewRequest<B>),
    /// A request is no longer wanted. Unknown ids have been resolved before and are ignored.
    Cancel(RequestId, Cancel),
    /// The caller has no room for more updates, or has again: meanwhile nothing is acknowledged, so
    /// that brokers hold up the handlers that say more.
    Hold(bool),
    /// Measure a round trip; the number comes back with [`ClientOutbox::pong`].
    Ping(u64),
    /// A command came.
    Received(LinkId, FromBroker<'a>),
    /// Bytes came that are no command; the rest of their message was discarded.
    Malformed(LinkId, RefusedCode),
    /// All commands of one message have been given; acknowledgements and queued requests go out.
    BatchEnd(LinkId),
    /// The socket can be used no longer.
    SocketLost(LinkId),
    /// [`super::Client::next_wakeup`] has come.
    Wakeup {
        /// Every socket has been read empty since the time of this event: silence may be judged.
        is_emptied: bool,
    },
    /// The last event: sessions end and every unresolved request ends [`LocalEnd::Closed`].
    Close,
}

/// A SUBMIT without its payload, which is the body's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubmitHeader<'a> {
    /// The request.
    pub request_id: RequestId,
    /// Which handing-in of it.
    pub submission: Submission,
    /// Who is to run it.
    pub service: ServiceRef<'a>,
    /// Its urgency.
    pub priority: Priority,
    /// Time left, nanoseconds.
    pub deadline_ns: Option<u64>,
    /// Encoding of the payload.
    pub content_type: ContentType,
    /// Options, encoded.
    pub options: Option<&'a [u8]>,
    /// What they are to say beside that, `start_after_ns`: see [`pinmesh_protocol::TaskOptions`].
    pub start_after_ns: Option<u64>,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome<'a> {
    /// In the broker's words.
    Result(TaskResult<'a>),
    /// Here.
    Local(LocalEnd),
}

/// Ends that no broker spoke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalEnd {
    /// The deadline passed while no broker could be asked. Unknown whether it ran, unless it was
    /// never handed in.
    Expired,
    /// It is to show BUSY, and no broker that could take it is to be asked for that service before
    /// then. It was never handed in.
    Busy {
        /// How long it is until then, nanoseconds.
        retry_after_ns: u64,
    },
    /// Cancelled before a broker had it, or when the broker that had it was gone.
    Cancelled,
    /// An at-most-once task whose broker was lost: it may or may not have run.
    Lost,
    /// The client was closed first. Unknown whether it ran.
    Closed,
    /// FETCH: the task has not ended.
    NotEnded,
    /// FETCH: no broker that can be asked knows the key.
    UnknownKey,
    /// As many requests as allowed are unresolved.
    Full,
    /// The payload is longer than any broker takes, bytes.
    PayloadTooLarge {
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Options and service name are longer than any broker takes, bytes.
    HeaderTooLarge {
        /// Their length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
}

/// Answer to [`ClientEvent::Ping`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pong {
    /// The ping's number.
    pub token: u64,
    /// From HEARTBEAT to its echo, nanoseconds.
    pub round_trip_ns: u64,
    /// The broker's life.
    pub epoch: Epoch,
}

/// Why a session, or an attempt at one, ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason<'a> {
    /// No answer to HELLO.
    Unreachable,
    /// Nothing was heard for the missed-heartbeat budget.
    Silent,
    /// The broker does not know the session.
    NoSession,
    /// The broker refused, or was refused for what it sent.
    Refused(RefusedCode, &'a str),
    /// The broker leaves.
    Goodbye,
    /// The socket failed.
    SocketLost,
}

/// News of a link, for logs and for who waits for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkNews<'a> {
    /// A session is open.
    Opened(Epoch),
    /// It, or the attempt to open one, ended.
    Closed(CloseReason<'a>),
}

/// Everything that the machine may cause. Sending never fails here: a socket that can be used no
/// longer is a [`ClientEvent::SocketLost`] of a later turn.
pub trait ClientOutbox<B> {
    /// Opens a new socket to that broker, after closing the one before with what it still holds.
    fn connect(&mut self, link: LinkId);
    /// Closes the socket to that broker; what was sent before may still go out.
    fn disconnect(&mut self, link: LinkId);
    /// Sends a command without payload.
    fn send(&mut self, link: LinkId, command: &ToBroker<'_>);
    /// Sends a request. The body is mutable so that its bytes can be shared instead of copied.
    fn submit(&mut self, link: LinkId, header: &SubmitHeader<'_>, body: &mut B);
    /// A request has ended: told exactly once for each.
    fn resolve(&mut self, request_id: RequestId, body: B, outcome: Outcome<'_>);
    /// The answer to a ping.
    fn pong(&mut self, pong: Pong);
    /// A session opened or closed.
    fn link_news(&mut self, link: LinkId, news: LinkNews<'_>);
    /// A broker has the task.
    fn accepted(&mut self, accepted: Accepted, body: &B) {
        let _ = (accepted, body);
    }
    /// An update of a running task.
    fn progress(&mut self, progress: ClientProgress<'_>, body: &B) {
        let _ = (progress, body);
    }
}

/// Why the machine wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WakeReason {
    /// Open a session again.
    Reconnect,
    /// HELLO has not been answered.
    Greeting,
    /// Send HEARTBEAT and judge silence.
    Heartbeat,
    /// Hand in again what was BUSY.
    Retry,
    /// Look for deadlines that passed while no broker could be asked.
    Expiry,
    /// Give what a lost broker held, or what waits for one, to the others.
    Move,
}

/// What the machine has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientCounters {
    /// Requests handed in by the caller.
    pub requests: u64,
    /// SUBMITs sent, repeated ones included.
    pub submits: u64,
    /// RESULTs taken.
    pub results: u64,
    /// RESULTs of requests or submissions that are over; acknowledged and dropped.
    pub stale: u64,
    /// Updates of running tasks, told to the caller.
    pub updates: u64,
    /// BUSY answers that were waited out.
    pub busy: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Commands that a client does not use.
    pub ignored: u64,
}
