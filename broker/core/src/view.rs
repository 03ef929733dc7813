//! What a broker holds, task by task, for tests and for people who ask about a task.

use pinmesh_protocol::id::{Dispatch, PeerId, RequestId, Submission, TaskId};
use pinmesh_protocol::status::Status;

use crate::broker::Broker;
use crate::event::Body;
use crate::slab::Key;
use crate::task::{Task, TaskState};

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskStanding {
    /// It waits for a worker.
    Pending,
    /// A worker has it.
    InFlight,
    /// Its worker is gone after it had started; its end may yet come (at-most-once only).
    AwaitingEnd,
    /// It has its outcome, which its client has not acknowledged, or its worker not let go.
    Ended(Status),
}

/// One task of a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskView {
    /// The broker's number for it.
    pub task: TaskId,
    /// Who waits for it; `None`: nobody any more.
    pub client_id: Option<PeerId>,
    /// The client's number for it.
    pub request_id: RequestId,
    /// The latest submission of it.
    pub submission: Submission,
    /// Where it stands.
    pub standing: TaskStanding,
    /// Whom it keeps busy at the moment, even if it has ended.
    pub worker: Option<PeerId>,
    /// Its sendings to workers so far.
    pub dispatch: Dispatch,
    /// Its starts that ended badly.
    pub tries: u32,
}

impl<B: Body> Broker<B> {
    /// Every task, in no particular order. Takes time linear in what is held.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView> {
        let state = &self.state;
        state.tasks.iter().map(|(key, task)| TaskView {
            task: TaskId(key.bits()),
            client_id: task.client.and_then(|key| Some(state.clients.get(key)?.peer_id)),
            request_id: task.request_id,
            submission: task.submission,
            standing: standing(task),
            worker: task
                .occupies
                .then(|| state.workers.get(task.worker).map(|worker| worker.peer_id))
                .flatten(),
            dispatch: task.dispatch,
            tries: task.tries,
        })
    }
}

fn standing<B>(task: &Task<B>) -> TaskStanding {
    match (task.state, &task.end) {
        (TaskState::Pending, _) => TaskStanding::Pending,
        (TaskState::InFlight, _) => TaskStanding::InFlight,
        (TaskState::AwaitingEnd, _) => TaskStanding::AwaitingEnd,
        (TaskState::Ended, Some(end)) => TaskStanding::Ended(end.status),
        (TaskState::Ended, None) => unreachable!("an ended task has its end"),
    }
}
