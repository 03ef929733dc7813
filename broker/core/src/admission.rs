//! May this task come in? Windows and budgets; past them BUSY, never a silent drop.

use alloc::boxed::Box;

use pinmesh_protocol::id::{Dispatch, Priority, RequestId, Submission};
use pinmesh_protocol::status::Status;

use crate::client::Client;
use crate::dead::Origin;
use crate::event::{Body, SubmitEvent};
use crate::flow::Account;
use crate::list::Links;
use crate::outbox::{Outbox, ResultBody, ResultHead};
use crate::slab::{ClientKey, Key, ServiceKey, TaskKey, WorkerKey};
use crate::state::{State, Wake};
use crate::task::{NO_FLOW, Owner, TASK_OVERHEAD_BYTES, Task, TaskState, Terms};
use crate::time::Time;
use crate::waiting::Charge;

/// Why a task may not come in.
pub(crate) type Rejection = (Status, &'static str);

/// A task that comes in.
pub(crate) struct NewTask<B> {
    pub(crate) owner: Owner,
    pub(crate) runs_on: bool,
    pub(crate) origin: Option<Box<Origin>>,
    pub(crate) request_id: RequestId,
    pub(crate) submission: Submission,
    pub(crate) service: ServiceKey,
    pub(crate) account: Account,
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Time>,
    pub(crate) terms: Terms,
    pub(crate) body: B,
}

impl<B: Body> State<B> {
    /// A task is held from now on. It stands nowhere yet.
    #[inline]
    pub(crate) fn admit(&mut self, new: NewTask<B>) -> TaskKey {
        self.ledger.held += 1;
        self.arrivals += 1;
        let (bytes, kept) = (new.body.payload_bytes(), new.body.kept_bytes());
        let task = self.tasks.insert(Task {
            owner: new.owner,
            runs_on: new.runs_on,
            origin: new.origin,
            request_id: new.request_id,
            submission: new.submission,
            service: new.service,
            account: new.account,
            flow: NO_FLOW,
            place: 0,
            work: 0,
            is_probe: false,
            charge: Charge::NONE,
            age: self.arrivals,
            has_returned: false,
            priority: new.priority,
            is_at_most_once: new.terms.is_at_most_once,
            cancel: None,
            is_closed: false,
            is_listed: false,
            state: TaskState::Pending,
            occupies: false,
            dispatch: Dispatch(0),
            tries: 0,
            crashes: 0,
            tries_max: new.terms.tries_max,
            backoff: new.terms.backoff,
            backoff_max: new.terms.backoff_max,
            worker: WorkerKey(0),
            received_at: self.now,
            queued_at: self.now,
            start_at: self.now,
            dispatched_at: self.now,
            deadline: new.deadline,
            max_runtime: new.terms.max_runtime,
            timer: None,
            payload_bytes: bytes,
            body: Some(new.body),
            end: None,
            links: Links::NONE,
        });
        if let Some(deadline) = new.deadline {
            let timer = self.timers.set(deadline, Wake::Task(task));
            self.tasks.at_mut(task.index()).timer = Some(timer);
        }
        self.bytes += kept + TASK_OVERHEAD_BYTES;
        let queue = self.services.at_mut(new.service);
        queue.tasks += 1;
        queue.bytes += bytes;
        task
    }

    #[inline]
    pub(crate) fn objection_to(
        &self,
        client: &Client,
        service: ServiceKey,
        submit: &SubmitEvent<'_, B>,
    ) -> Option<Rejection> {
        let (bytes, kept) = (submit.body.payload_bytes(), submit.body.kept_bytes());
        if let Err(text) = submit.options {
            return Some((Status::Refused, text));
        }
        if bytes > self.config.payload_bytes_max {
            let text = "payload longer than payload_bytes_max of WELCOME";
            return Some((Status::Refused, text));
        }
        if self.is_draining {
            return Some((Status::Busy, "the broker is draining; submit to another one"));
        }
        if client.tasks >= self.config.client_window_tasks {
            return Some((Status::Busy, "client window of tasks exceeded"));
        }
        if client.tasks > 0 && client.bytes + bytes > self.config.client_window_bytes {
            return Some((Status::Busy, "client window of bytes exceeded"));
        }
        self.objection_to_bytes(service, bytes, kept)
    }

    /// Whether there is no room for a task of so many bytes of payload, and kept in all.
    #[inline]
    pub(crate) fn objection_to_bytes(
        &self,
        service: ServiceKey,
        bytes: u64,
        kept: u64,
    ) -> Option<Rejection> {
        if self.bytes + kept + TASK_OVERHEAD_BYTES > self.config.memory_bytes_max {
            return Some((Status::Busy, "memory budget of the broker exceeded"));
        }
        let queue = self.services.at(service);
        if queue.waiting.len() >= queue.limits.pending_max {
            return Some((Status::Busy, "pending_max of the service reached"));
        }
        if queue.tasks > 0 && queue.bytes.saturating_add(bytes) > queue.limits.bytes_max {
            return Some((Status::Busy, "bytes_max of the service exceeded"));
        }
        None
    }

    /// Why a result may not be kept. Accepted tasks fill the budget at most once, so their results
    /// have as much room again.
    #[inline]
    pub(crate) fn objection_to_result(&self, body: &B) -> Option<&'static str> {
        if body.payload_bytes() > self.config.payload_bytes_max {
            return Some("its result was dropped: longer than payload_bytes_max of WELCOME");
        }
        let max = self.config.memory_bytes_max.saturating_mul(2);
        (self.bytes.saturating_add(body.kept_bytes()) > max).then_some(
            "its result was dropped: results that nobody acknowledges fill the broker's memory; \
             read them sooner, or raise limits.memory",
        )
    }

    /// Answers a submission that does not become a task. The answer counts among the client's
    /// results, and is not sent again after a reconnect: the client submits again, and is answered.
    pub(crate) fn reject(
        &mut self,
        key: ClientKey,
        submit: &SubmitEvent<'_, B>,
        (status, text): Rejection,
        out: &mut impl Outbox<B>,
    ) {
        let is_busy = status == Status::Busy;
        *(if is_busy { &mut self.ledger.busy } else { &mut self.ledger.refused }) += 1;
        let client = self.clients.at_mut(key.index());
        client.results.push_sent();
        let Some(conn) = client.conn else { return };
        let head = ResultHead {
            request_id: submit.request_id,
            submission: submit.submission,
            status,
            tries: 0,
            stages: None,
            retry_after_ns: is_busy.then_some(self.config.retry_after.0),
        };
        out.result(conn, &head, ResultBody::Text(text));
    }

    /// Answers that no task stands behind may pile up unacknowledged only so far.
    pub(crate) fn has_room_for_answers(&self, client: &Client) -> bool {
        client.results.len() <= 2 * self.config.client_window_tasks as usize + 1024
    }

    /// A request that the broker no longer holds under that number.
    pub(crate) fn unmap(&mut self, key: ClientKey, id: RequestId) {
        let client = self.clients.at_mut(key.index());
        if let Some(task) = client.request(id) {
            client.remove_request(id, task);
        }
    }
}
