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
use crate::time::Span;

/// Why a task may not come in.
pub(crate) struct Rejection {
    status: Status,
    text: &'static str,
    /// BUSY: when to try again; `None`: after the usual time.
    retry_after: Option<Span>,
}

impl Rejection {
    pub(crate) const fn refused(text: &'static str) -> Self {
        Self { status: Status::Refused, text, retry_after: None }
    }

    pub(crate) const fn busy(text: &'static str) -> Self {
        Self { status: Status::Busy, text, retry_after: None }
    }
}

/// The shortest and the longest after which a task that would be late may be tried again.
const RETRY_AFTER_MIN: Span = Span(1_000_000);
const RETRY_AFTER_MAX: Span = Span::from_secs(10);

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
            Err(text) => return Some(Rejection::refused(text)),
        };
        if bytes > self.config.payload_bytes_max {
            let text = "payload longer than payload_bytes_max of WELCOME";
            return Some(Rejection::refused(text));
        }
        if let Some(text) = self.refusal_of_key(service, options, key) {
            return Some(Rejection::refused(text));
        }
        if let Some(text) = self.busy_with_key(key) {
            return Some(Rejection::busy(text));
        }
        if self.is_draining && !joins {
            return Some(Rejection::busy("the broker is draining; submit to another one"));
        }
        if client.tasks >= self.config.client_window_tasks {
            return Some(Rejection::busy("client window of tasks exceeded"));
        }
        if client.tasks > 0 && client.bytes + bytes > self.config.client_window_bytes {
            return Some(Rejection::busy("client window of bytes exceeded"));
        }
        if joins {
            return self.objection_to_memory(kept);
        }
        self.objection_to_bytes(service, bytes, kept)
            .or_else(|| self.objection_to_wait(client, service, submit))
    }

    /// Whether there is no memory for a task of which so many bytes are kept.
    pub(crate) fn objection_to_memory(&self, kept: u64) -> Option<Rejection> {
        (self.bytes + kept + TASK_OVERHEAD_BYTES > self.config.memory_bytes_max)
            .then(|| Rejection::busy("memory budget of the broker exceeded"))
    }

    /// Whether there is no room for a task of so many bytes of payload, and kept in all.
    #[inline]
    pub(crate) fn objection_to_bytes(
        &self,
        service: ServiceKey,
        bytes: u64,
        kept: u64,
    ) -> Option<Rejection> {
        if let Some(rejection) = self.objection_to_memory(kept) {
            return Some(rejection);
        }
        let queue = self.services.at(service);
        if queue.waiting.len() >= queue.limits.pending_max {
            return Some(Rejection::busy("pending_max of the service reached"));
        }
        if queue.tasks > 0 && queue.bytes.saturating_add(bytes) > queue.limits.bytes_max {
            return Some(Rejection::busy("bytes_max of the service exceeded"));
        }
        None
    }

    /// A task that would end too late is better told so at once: it keeps nobody waiting, and its
    /// client may go elsewhere. What waits in its own flow counts, nobody else's tasks.
    fn objection_to_wait(
        &self,
        client: &Client,
        service: ServiceKey,
        submit: &SubmitEvent<'_, B>,
    ) -> Option<Rejection> {
        let left = submit.deadline_ns?;
        if submit.options.as_ref().is_ok_and(|options| options.start_after_ns.is_some()) {
            return None;
        }
        let class = usize::from(submit.priority.value()) - 1;
        let flow = self.flows.busy(service, class, client.account)?;
        let wait = flow.pace.wait(flow.len() + 1, self.now)?.0;
        // A quarter more than expected, and the time that all but few are away for: to be late is to
        // have worked for nothing, while workers that have a queue lose nothing by its being shorter.
        let away = self.services.at(service).estimate.away_p95();
        let needed = wait.saturating_add(wait / 4).saturating_add(away);
        (needed > left).then(|| Rejection {
            status: Status::Busy,
            text: "so many of your tasks wait that this one would end after its deadline",
            // A client holds back all that it has for the service: no longer than it must.
            retry_after: Some(Span(needed - left).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)),
        })
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
        rejection: Rejection,
        out: &mut impl Outbox<B>,
    ) {
        let is_busy = rejection.status == Status::Busy;
        *(if is_busy { &mut self.ledger.busy } else { &mut self.ledger.refused }) += 1;
        self.answer(key, (submit.request_id, submit.submission), rejection, out);
    }

    /// Answers a request that nothing becomes of.
    pub(crate) fn answer(
        &mut self,
        key: ClientKey,
        (request_id, submission): (RequestId, Submission),
        Rejection { status, text, retry_after }: Rejection,
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
            retry_after_ns: is_busy.then_some(retry_after.unwrap_or(self.config.retry_after).0),
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
