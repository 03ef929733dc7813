//! What must never happen, whatever does.

use std::collections::{BTreeMap, BTreeSet};

use pinmesh_core::ResultHead;
use pinmesh_protocol::id::{PeerId, TaskId};
use pinmesh_protocol::status::Status;

use super::clients::Request;
use super::world::World;
use crate::support::{Said, TaskSent};

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Oracle {
    /// The highest dispatch of each task.
    dispatches: BTreeMap<TaskId, u32>,
    /// Whose request, and which, each output belongs to.
    outputs: BTreeMap<u64, (PeerId, u64)>,
    /// Tasks that may run once and have started.
    started_once: BTreeSet<TaskId>,
    tokens: u64,
}

impl Oracle {
    /// A handler's output that has not been seen before.
    pub(crate) fn output(&mut self, task: &TaskSent) -> u64 {
        self.tokens += 1;
        self.outputs.insert(self.tokens, (task.head.client_id, task.head.request_id.0));
        self.tokens
    }

    /// A handler starts.
    pub(crate) fn on_start(&mut self, task: &TaskSent, is_at_most_once: bool) {
        if is_at_most_once {
            let is_first = self.started_once.insert(task.head.task);
            assert!(is_first, "an at-most-once task starts a second time: {task:?}");
        }
    }

    /// A client reads a result.
    pub(crate) fn on_result(
        &self,
        client: PeerId,
        request: &Request,
        head: &ResultHead,
        body: &Said,
    ) {
        assert!(
            head.submission.0 <= request.ask.submission,
            "a submission of the future: {head:?}"
        );
        if let Said::Handler(body) = body {
            let owner = self.outputs.get(&body.tag);
            assert_eq!(owner, Some(&(client, head.request_id.0)), "an output of somebody else");
            assert!(head.stages.is_some());
        }
        let is_possible = match head.status {
            Status::Ok | Status::Failed => matches!(body, Said::Handler(_)),
            Status::Expired => request.ask.deadline.is_some(),
            Status::Lost => request.is_at_most_once(),
            Status::Busy => head.retry_after_ns.is_some(),
            Status::Crashed => head.tries > 0,
            Status::TimedOut | Status::Cancelled | Status::NoService => true,
            Status::Refused => false,
        };
        assert!(is_possible, "{head:?} of {request:?}");
        if let Some((status, said)) = &request.outcome
            && head.submission.0 == request.ask.submission
        {
            assert_eq!((status, said), (&head.status, body), "two outcomes of {request:?}");
        }
    }
}

impl World {
    /// The broker sends an attempt: no other attempt of the task may be on any worker that the broker
    /// must take to be alive.
    pub(crate) fn check_dispatch(&mut self, task: &TaskSent) {
        let last = self.oracle.dispatches.entry(task.head.task).or_default();
        assert!(task.head.dispatch.0 > *last, "dispatch {} again: {task:?}", *last);
        *last = task.head.dispatch.0;
        for worker in &self.workers {
            let is_held = worker.holds.iter().any(|hold| hold.task.head.task == task.head.task);
            let is_known = worker.link.is_some_and(|link| !self.links[link].is_closed);
            let must_be_known = worker.supervisor.is_some() || (worker.is_settled && is_known);
            assert!(
                !(worker.is_alive && is_held && must_be_known),
                "{task:?} is sent while {worker:?} has an earlier attempt"
            );
        }
    }
}
