//! Every command, one enum a direction. PROTOCOL.md describes each field; the order of the fields
//! here is the order on the wire.

use alloc::vec::Vec;

use crate::id::{
    AttemptId, ContentType, Dispatch, Epoch, Incarnation, PeerId, Priority, RequestId, Slot,
    Submission, TaskId,
};
use crate::status::{
    EndStatus, FetchState, HeldState, LossKind, ProgressKind, RefusedCode, Role, Status,
};

/// Numbers of the commands: the first field of each array.
#[expect(missing_docs, reason = "each is the command of its name")]
pub mod op {
    pub const HELLO: u8 = 1;
    pub const WELCOME: u8 = 2;
    pub const REFUSED: u8 = 3;
    pub const NO_SESSION: u8 = 4;
    pub const HEARTBEAT: u8 = 5;
    pub const GOODBYE: u8 = 6;
    pub const ACK: u8 = 7;
    pub const WINDOW: u8 = 8;
    pub const SERVICE: u8 = 9;
    pub const SUBMIT: u8 = 16;
    pub const CANCEL: u8 = 17;
    pub const FETCH: u8 = 18;
    pub const RESULT: u8 = 24;
    pub const ACCEPTED: u8 = 25;
    pub const FETCHED: u8 = 26;
    pub const TASK: u8 = 32;
    pub const DONE: u8 = 33;
    pub const READY: u8 = 34;
    pub const RETURN: u8 = 35;
    pub const PROGRESS: u8 = 36;
    pub const DRAIN: u8 = 37;
    pub const HOST: u8 = 48;
    pub const LOST: u8 = 49;
    pub const RECALL: u8 = 50;
    pub const RECALLED: u8 = 51;
    /// The first op that a receiver which does not know it may ignore.
    pub const IGNORABLE: u8 = 128;
}

/// Where the bytes of a payload are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    /// In the command itself, as a bin.
    Inline(&'a [u8]),
    /// In frames of the same message, uncopied.
    Frames(FrameSpan),
}

/// Frames of a message that together are one payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameSpan {
    /// Index of the first one; the frame with the commands is 0, so this is 1 or more.
    pub first: u32,
    /// How many, at least 1.
    pub frames: u32,
    /// Their bytes together.
    pub bytes: u64,
}

impl Payload<'_> {
    /// Bytes of the payload.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Frames(span) => span.bytes,
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A service, by name or by a number that stands for it in this session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceRef<'a> {
    /// By name.
    Name(&'a str),
    /// By number, below [`crate::limits::SERVICES_MAX`]: in SUBMIT the alias that SERVICE set, in
    /// TASK the index in the worker's READY.
    Alias(u32),
}

/// HELLO: opens a session and ends the peer's earlier one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// Lowest version that the peer speaks.
    pub version_min: u32,
    /// Highest version that the peer speaks.
    pub version_max: u32,
    /// Who it is.
    pub role: Role,
    /// Which process it is.
    pub peer_id: PeerId,
    /// For people, and what fairness goes by: `program@host`.
    pub name: &'a str,
    /// Random; WELCOME echoes it, so that a late WELCOME is not taken for this session's.
    pub nonce: u64,
    /// Bits of optional abilities; none is defined in version 1.
    pub features: u64,
}

/// WELCOME: the session is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The version that both speak from here on.
    pub version: u32,
    /// HELLO's.
    pub nonce: u64,
    /// This life of the broker.
    pub epoch: Epoch,
    /// How often each side sends HEARTBEAT.
    pub heartbeat_ns: u64,
    /// How long a host may go on without hearing from the broker.
    pub lease_ns: u64,
    /// Heartbeats in a row that may be missed before a session is dead.
    pub liveness: u32,
    /// The most tasks that the peer may have unfinished here (client); 0 for other roles.
    pub window_tasks: u32,
    /// The most bytes of them.
    pub window_bytes: u64,
    /// The longest payload taken, bytes.
    pub payload_bytes_max: u64,
    /// The longest header taken, bytes.
    pub header_bytes_max: u32,
    /// How long the broker keeps the tasks and results of a client that is away.
    pub kept_ns: u64,
}

/// HEARTBEAT, and the broker's echo of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Counts up within a session; the echo repeats it.
    pub sequence: u64,
    /// A long payload follows: do not judge this peer for so long.
    pub silence_ns: Option<u64>,
}

/// REFUSED: the session is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused<'a> {
    /// For programs.
    pub code: RefusedCode,
    /// For people.
    pub reason: &'a str,
}

/// WINDOW: "you may have at most this many unfinished with me".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Tasks.
    pub tasks: u32,
    /// Bytes of payload.
    pub bytes: u64,
}

/// SERVICE: a short number for a name, for this session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceAlias<'a> {
    /// The number, below [`crate::limits::SERVICES_MAX`].
    pub alias: u32,
    /// The name.
    pub name: &'a str,
}

/// SUBMIT: a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Submit<'a> {
    /// The client's number for it.
    pub request_id: RequestId,
    /// Which handing-in of it.
    pub submission: Submission,
    /// Who is to run it.
    pub service: ServiceRef<'a>,
    /// Its urgency.
    pub priority: Priority,
    /// Time left, nanoseconds; nil: none.
    pub deadline_ns: Option<u64>,
    /// Encoding of the payload.
    pub content_type: ContentType,
    /// The MessagePack map of [`crate::TaskOptions`], undecoded; nil: all default.
    pub options: Option<&'a [u8]>,
    /// The handler's input.
    pub payload: Payload<'a>,
}

/// CANCEL from a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CancelRequest {
    /// The request.
    pub request_id: RequestId,
    /// The submission that is to be cancelled.
    pub submission: Submission,
    /// Kill it rather than ask it, where it runs.
    pub is_hard: bool,
}

/// Times of a request inside the mesh, nanoseconds. Each is measured on one clock; their sum is the
/// time from the broker's receipt of SUBMIT to its RESULT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StageTimes {
    /// In the broker, waiting for a worker.
    pub broker_wait_ns: u64,
    /// Dispatch and return together: what is neither broker wait, worker wait nor service.
    pub transit_ns: u64,
    /// In the worker, waiting for its thread.
    pub worker_wait_ns: u64,
    /// In the handler.
    pub service_ns: u64,
}

/// RESULT: the one final word on a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskResult<'a> {
    /// The request.
    pub request_id: RequestId,
    /// The submission that this is the answer to.
    pub submission: Submission,
    /// How it ended.
    pub status: Status,
    /// Starts that ended badly.
    pub tries: u32,
    /// Stage times; nil where the task never ran.
    pub stages: Option<StageTimes>,
    /// Encoding of the payload; [`ContentType::TEXT`] for errors of the mesh.
    pub content_type: ContentType,
    /// The handler's output, or the error message.
    pub payload: Payload<'a>,
    /// BUSY only: when to try again, nanoseconds from now.
    pub retry_after_ns: Option<u64>,
}

/// ACCEPTED: the broker has the task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// The request.
    pub request_id: RequestId,
    /// The broker's number for it.
    pub task: TaskId,
}

/// FETCH: the outcome of the task that has a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetch<'a> {
    /// The client's number for it, among those of its SUBMITs.
    pub request_id: RequestId,
    /// Which asking for it.
    pub submission: Submission,
    /// The idempotency key.
    pub key: &'a [u8],
    /// Answered when the task ends, rather than at once.
    pub waits: bool,
}

/// Answer to FETCH where there is no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// FETCH's.
    pub request_id: RequestId,
    /// FETCH's.
    pub submission: Submission,
    /// Why there is none.
    pub state: FetchState,
}

/// An update of a running task, on its way to the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerProgress<'a> {
    /// The attempt.
    pub attempt: AttemptId,
    /// Counts up within the attempt, from 1.
    pub sequence: u64,
    /// How it is delivered.
    pub kind: ProgressKind,
    /// Encoding of the payload.
    pub content_type: ContentType,
    /// The update.
    pub payload: Payload<'a>,
}

/// An update of a running task, on its way to the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientProgress<'a> {
    /// The request.
    pub request_id: RequestId,
    /// The submission.
    pub submission: Submission,
    /// The broker's number for it: where it has forgotten the request, its task is another one.
    pub task: TaskId,
    /// The attempt's dispatch, so that updates of a repeated attempt are told apart.
    pub dispatch: Dispatch,
    /// Counts up within the attempt, from 1.
    pub sequence: u64,
    /// How it is delivered.
    pub kind: ProgressKind,
    /// Encoding of the payload.
    pub content_type: ContentType,
    /// The update.
    pub payload: Payload<'a>,
}

/// An attempt that a worker holds (READY).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The attempt.
    pub attempt: AttemptId,
    /// Whose request.
    pub client_id: PeerId,
    /// Which request.
    pub request_id: RequestId,
    /// Which submission.
    pub submission: Submission,
    /// Where it stands.
    pub state: HeldState,
}

/// READY: what a worker serves and holds. In parts if the list is long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ready<'a> {
    /// `peer_id` of its supervisor; nil: it has none and heartbeats for itself.
    pub host: Option<PeerId>,
    /// Its place there.
    pub slot: Slot,
    /// Its life there.
    pub incarnation: Incarnation,
    /// Services that it serves.
    pub services: Vec<&'a str>,
    /// What it offers beside them to tasks that require it; see [`crate::selector`].
    pub labels: Vec<&'a str>,
    /// The most tasks it will hold; the broker's window for it is never larger.
    pub window_tasks: u32,
    /// The most bytes of payload it will hold.
    pub window_bytes: u64,
    /// Attempts that it holds, ended but unacknowledged ones included.
    pub held: Vec<Held>,
    /// This part, from 0.
    pub part: u32,
    /// Parts in all, at least 1.
    pub parts: u32,
}

/// TASK: an attempt to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Task<'a> {
    /// The task; the epoch is the session's.
    pub task: TaskId,
    /// Which sending of it.
    pub dispatch: Dispatch,
    /// Whose request.
    pub client_id: PeerId,
    /// Which request.
    pub request_id: RequestId,
    /// Which submission.
    pub submission: Submission,
    /// Which handler.
    pub service: ServiceRef<'a>,
    /// Starts that ended badly so far.
    pub tries: u32,
    /// Time left, nanoseconds.
    pub deadline_ns: Option<u64>,
    /// The longest that this attempt may run, nanoseconds.
    pub max_runtime_ns: u64,
    /// Encoding of the payload.
    pub content_type: ContentType,
    /// The client's options, as they came.
    pub options: Option<&'a [u8]>,
    /// The handler's input.
    pub payload: Payload<'a>,
}

/// DONE: an attempt ended in the handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done<'a> {
    /// The attempt.
    pub attempt: AttemptId,
    /// How it ended.
    pub status: EndStatus,
    /// From receipt to end, nanoseconds.
    pub residence_ns: u64,
    /// From start to end of the handler, nanoseconds.
    pub service_ns: u64,
    /// Encoding of the payload.
    pub content_type: ContentType,
    /// The handler's output, or its error.
    pub payload: Payload<'a>,
}

/// A worker on its host (HOST).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostWorker {
    /// Its place.
    pub slot: Slot,
    /// Its life there.
    pub incarnation: Incarnation,
    /// The CPU that it is pinned to; nil: none.
    pub cpu: Option<u16>,
    /// Attempts that it has claimed, of any epoch.
    pub claimed: Vec<AttemptId>,
}

/// HOST: a supervisor's workers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// CPUs that the host may use for workers.
    pub cpus: Vec<u16>,
    /// Its workers that are alive.
    pub workers: Vec<HostWorker>,
}

/// LOST: a worker process is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Its place.
    pub slot: Slot,
    /// Its life there.
    pub incarnation: Incarnation,
    /// Why.
    pub cause: LossKind,
    /// Exit code or signal number.
    pub detail: i32,
    /// The attempt that was in the handler.
    pub running: Option<AttemptId>,
    /// Attempts claimed and not acknowledged, without the running one.
    pub started: Vec<AttemptId>,
}

/// RECALL and RECALLED: attempts that are (to be) given back unstarted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempts {
    /// The worker's place on its host.
    pub slot: Slot,
    /// The attempts.
    pub attempts: Vec<AttemptId>,
}

/// CANCEL from the broker, to the supervisor, or to the worker where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CancelAttempt {
    /// The worker's place on its host.
    pub slot: Slot,
    /// The attempt.
    pub attempt: AttemptId,
    /// Kill it rather than ask it.
    pub is_hard: bool,
}

/// Everything that a peer may say to a broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToBroker<'a> {
    /// Opens a session.
    Hello(Hello<'a>),
    /// The peer does not understand the broker and closes.
    Refused(Refused<'a>),
    /// I am here.
    Heartbeat(Heartbeat),
    /// Ends the session in peace.
    Goodbye,
    /// "I have taken the first n of your ends in this session."
    Ack(u64),
    /// Towards a broker only from workers: a smaller or larger window than READY said.
    Window(Window),
    /// A short number for a name.
    Service(ServiceAlias<'a>),
    /// Client: a task.
    Submit(Submit<'a>),
    /// Client: no longer wanted.
    Cancel(CancelRequest),
    /// Client: an outcome, by key.
    Fetch(Fetch<'a>),
    /// Worker: what it serves and holds.
    Ready(Ready<'a>),
    /// Worker: an attempt ended.
    Done(Done<'a>),
    /// Worker: an attempt goes back unstarted.
    Return(AttemptId),
    /// Worker: an update.
    Progress(WorkerProgress<'a>),
    /// Supervisor: its workers.
    Host(Host),
    /// Supervisor: a worker is gone.
    Lost(Lost),
    /// Supervisor, or a worker without one: given back unstarted.
    Recalled(Attempts),
}

/// Everything that a broker may say to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromBroker<'a> {
    /// The session is open.
    Welcome(Welcome),
    /// The session is closed, and why.
    Refused(Refused<'a>),
    /// There is no session: open another socket and say HELLO.
    NoSession,
    /// Echo.
    Heartbeat(Heartbeat),
    /// The broker leaves.
    Goodbye,
    /// "I have taken the first n of your ends in this session."
    Ack(u64),
    /// The peer's window.
    Window(Window),
    /// A short number for a name.
    Service(ServiceAlias<'a>),
    /// Client: the one final word.
    Result(TaskResult<'a>),
    /// Client: the broker has it.
    Accepted(Accepted),
    /// Client: there is no such result.
    Fetched(Fetched),
    /// Client: an update.
    Progress(ClientProgress<'a>),
    /// Worker: an attempt to run.
    Task(Task<'a>),
    /// Worker, supervisor: take no more, finish what is held, leave.
    Drain,
    /// Supervisor, or a worker without one: give these back if unstarted.
    Recall(Attempts),
    /// Supervisor, or a worker without one: stop this one.
    Cancel(CancelAttempt),
}
