//! All that a broker's machine may cause.

use pinmesh_protocol::command::{FromBroker, StageTimes};
use pinmesh_protocol::id::{Dispatch, PeerId, RequestId, Submission, TaskId};
use pinmesh_protocol::status::{ProgressKind, Status};

use crate::event::Conn;

/// TASK without its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskHead {
    /// The task.
    pub task: TaskId,
    /// Which sending of it.
    pub dispatch: Dispatch,
    /// Whose request.
    pub client_id: PeerId,
    /// Which request.
    pub request_id: RequestId,
    /// Which submission.
    pub submission: Submission,
    /// Index of the service in the worker's READY.
    pub service_alias: u32,
    /// Starts that ended badly so far.
    pub tries: u32,
    /// Time left, nanoseconds.
    pub deadline_ns: Option<u64>,
    /// The longest that the attempt may run, nanoseconds.
    pub max_runtime_ns: u64,
}

/// RESULT without its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResultHead {
    /// The request.
    pub request_id: RequestId,
    /// The submission that it answers.
    pub submission: Submission,
    /// How it ended.
    pub status: Status,
    /// Starts that ended badly.
    pub tries: u32,
    /// Stage times, where an attempt ended the task.
    pub stages: Option<StageTimes>,
    /// BUSY: when to try again, nanoseconds.
    pub retry_after_ns: Option<u64>,
}

/// PROGRESS without its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgressHead {
    /// The request.
    pub request_id: RequestId,
    /// The submission.
    pub submission: Submission,
    /// The task.
    pub task: TaskId,
    /// Which sending of the task says it.
    pub dispatch: Dispatch,
    /// Counts up within the attempt.
    pub sequence: u64,
    /// How it is delivered.
    pub kind: ProgressKind,
}

/// The payload of a RESULT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResultBody<'a, B> {
    /// The handler's.
    Handler(&'a B),
    /// The mesh's, for people.
    Text(&'a str),
}

/// Where effects go. In the broker each encodes straight into the peer's batch; in tests it records;
/// in the simulator it feeds virtual links. Nothing here can fail: a batch that cannot be sent is an
/// event of the next turn.
pub trait Outbox<B> {
    /// An attempt, to a worker.
    fn task(&mut self, to: Conn, head: &TaskHead, body: &B);

    /// The final word on a request, to its client.
    fn result(&mut self, to: Conn, head: &ResultHead, body: ResultBody<'_, B>);

    /// An update of a running task, to its client.
    fn progress(&mut self, to: Conn, head: &ProgressHead, body: &B);

    /// Any other command.
    fn send(&mut self, to: Conn, command: FromBroker<'_>);

    /// The session of this socket is closed: what is in its batch goes out, then the shell may
    /// forget it. Later commands from it are answered NO_SESSION by the core.
    fn close(&mut self, conn: Conn);

    /// The stage times of an attempt that ended its task.
    fn stages(&mut self, stages: &StageTimes);
}
