//! May this task come in? Windows and budgets; past them BUSY, never a silent drop.

use pinmesh_protocol::id::{RequestId, Submission};
use pinmesh_protocol::status::Status;

use crate::client::Client;
use crate::event::{Body, SubmitEvent};
use crate::follow::KeyOf;
use crate::outbox::{Outbox, ResultBody, ResultHead};
use crate::slab::{ClientKey, Key, ServiceKey};
use crate::state::State;
use crate::task::TASK_OVERHEAD_BYTES;

/// Why a task may not come in.
pub(crate) type Rejection = (Status, &'static str);

impl<B: Body> State<B> {
    #[inline]
    pub(crate) fn objection_to(
        &self,
        client: &Client,
        service: ServiceKey,
        submit: &SubmitEvent<'_, B>,
        key: KeyOf,
    ) -> Option<Rejection> {
        let joins = matches!(key, KeyOf::Known(_));
        // The body of a request that joins a task is dropped.
        let bytes = submit.body.payload_bytes();
        let kept = if joins { 0 } else { submit.body.kept_bytes() };
        let options = match &submit.options {
            Ok(options) => options,
            Err(text) => return Some((Status::Refused, text)),
        };
        if bytes > self.config.payload_bytes_max {
            let text = "payload longer than payload_bytes_max of WELCOME";
            return Some((Status::Refused, text));
        }
        if let Some(text) = self.refusal_of_key(service, options, key) {
            return Some((Status::Refused, text));
        }
        if let Some(text) = self.busy_with_key(key) {
            return Some((Status::Busy, text));
        }
        if self.is_draining && !joins {
            return Some((Status::Busy, "the broker is draining; submit to another one"));
        }
        if client.tasks >= self.config.client_window_tasks {
            return Some((Status::Busy, "client window of tasks exceeded"));
        }
        if client.tasks > 0 && client.bytes + bytes > self.config.client_window_bytes {
            return Some((Status::Busy, "client window of bytes exceeded"));
        }
        if self.bytes + kept + TASK_OVERHEAD_BYTES > self.config.memory_bytes_max {
            return Some((Status::Busy, "memory budget of the broker exceeded"));
        }
        if joins {
            return None;
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
        self.answer(key, (submit.request_id, submit.submission), (status, text), out);
    }

    /// Answers a request that nothing becomes of.
    pub(crate) fn answer(
        &mut self,
        key: ClientKey,
        (request_id, submission): (RequestId, Submission),
        (status, text): Rejection,
        out: &mut impl Outbox<B>,
    ) {
        let is_busy = status == Status::Busy;
        let client = self.clients.at_mut(key.index());
        client.results.push_sent();
        let Some(conn) = client.conn else { return };
        let head = ResultHead {
            request_id,
            submission,
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
