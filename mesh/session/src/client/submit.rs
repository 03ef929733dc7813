//! From a request to a SUBMIT: the queue, the choice of a broker, the sending.

use pinmesh_protocol::command::{Fetch, Heartbeat, ServiceAlias, ServiceRef, ToBroker};
use pinmesh_protocol::id::{RequestId, Submission};
use pinmesh_protocol::limits::FRAME_BYTES_MAX;
use pinmesh_protocol::rendezvous;

use super::event::{ClientOutbox, FetchOf, LinkId, LocalEnd, NewRequest, Outcome, SubmitHeader};
use super::link::{Ask, Verdict};
use super::table::{Place, Request};
use super::{Client, link};
use crate::Time;

/// Most bytes of a SUBMIT's fixed fields: array head, op, eight fields at full width.
const HEADER_BYTES_FIXED: u64 = 64;

/// Most bytes of the time until its start in a SUBMIT's options: their map's head, key and value.
const START_AFTER_BYTES_MAX: u64 = 1 + 15 + 9;

/// How often what no open broker takes is held out to one that was away, nanoseconds.
const ABSENT_NS: u64 = 1_000_000_000;

/// Where a request may go now.
enum Choice {
    /// To that broker.
    Link(LinkId),
    /// To that broker, which is its key's, as soon as it can take it.
    Line(LinkId),
    /// Nowhere until a window opens or a session does.
    Wait,
    /// Nowhere until then: every broker is BUSY with its service.
    Busy(Time),
    /// Nowhere until then: the brokers that are there take none so long, or are BUSY or full.
    Later(Time),
    /// Nowhere, ever.
    Never(LocalEnd),
}

impl<B> Client<B> {
    pub(super) fn on_submit<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        new: NewRequest<B>,
        outbox: &mut O,
    ) {
        let is_known = new.fetch.is_some() || (new.service.0 as usize) < self.services.len();
        assert!(is_known, "the caller tells a service before it is used");
        self.counters.requests += 1;
        if self.is_closed || self.table.len() >= self.config.unresolved_max {
            let end = if self.is_closed { LocalEnd::Closed } else { LocalEnd::Full };
            let request_id = self.table.skip();
            outbox.resolve(request_id, new.body, Outcome::Local(end));
            return;
        }
        self.deadlines += usize::from(new.deadline < Time::NEVER);
        let request_id = self.table.insert(Request::from(new));
        if !self.queue.is_empty() || !self.place(now, request_id, outbox) {
            self.enqueue(request_id);
        }
    }

    /// Puts a request at the end of the queue.
    pub(super) fn enqueue(&mut self, request_id: RequestId) {
        self.queue.push(request_id, &self.table);
    }

    /// Sends a queued request, or puts it where it has to wait; `false`: that is the queue.
    pub(super) fn place<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        request_id: RequestId,
        outbox: &mut O,
    ) -> bool {
        let Some(request) = self.table.request(request_id) else { return true };
        if request.place != Place::Queued {
            return true;
        }
        let shows_busy = request.shows_busy && request.submission == Submission(1);
        match self.choose(now, request_id) {
            Choice::Link(link) => self.send_submit(now, request_id, link, outbox),
            Choice::Line(link) => {
                self.links[usize::from(link.0)].line.push(request_id, &self.table);
            }
            Choice::Wait => return false,
            // One that was handed in before may have been run.
            Choice::Busy(until) if shows_busy => {
                let retry_after_ns = until.since(now);
                self.finish(request_id, Outcome::Local(LocalEnd::Busy { retry_after_ns }), outbox);
            }
            Choice::Busy(until) | Choice::Later(until) => self.delay(request_id, until),
            Choice::Never(end) => self.finish(request_id, Outcome::Local(end), outbox),
        }
        true
    }

    /// Of the brokers that can take the request now the one with the fewest outstanding; with a
    /// key, the first for the key of those that can take it soon.
    fn choose(&mut self, now: Time, request_id: RequestId) -> Choice {
        let Some(request) = self.table.request(request_id) else { return Choice::Wait };
        let key = request.key.filter(|_| self.links.len() > 1);
        let (keeps_to_key, unknown_to) = (request.keeps_to_key, &request.unknown_to);
        // A FETCH has a key, which every broker takes, instead of a service.
        let name_bytes = self.services.get(request.service.0 as usize).map_or(0, |name| name.len());
        let name_bytes = name_bytes as u64;
        let options_bytes = request.options.as_ref().map_or(0, |options| options.len() as u64)
            + if request.start_at.is_some() { START_AFTER_BYTES_MAX } else { 0 };
        let ask = Ask {
            id: request_id,
            service: request.service,
            bytes: request.bytes,
            header_bytes: HEADER_BYTES_FIXED + name_bytes + options_bytes,
        };
        let mut best: Option<(u64, LinkId, Verdict)> = None;
        let (mut is_full, mut is_away, mut busy, mut never) = (false, false, Time::NEVER, None);
        for (at, link) in (0..).zip(&mut self.links) {
            if unknown_to.contains(&LinkId(at)) {
                never = Some(LocalEnd::UnknownKey);
                continue;
            }
            let verdict = link.verdict(now, &ask);
            match verdict {
                Verdict::Never(end) => never = Some(end),
                Verdict::Busy(until) if !keeps_to_key => busy = busy.min(until),
                Verdict::Full if key.is_none() => is_full = true,
                Verdict::Away if key.is_none() || link.is_lost(now) => is_away = true,
                Verdict::Busy(_) | Verdict::Free | Verdict::Full | Verdict::Away => {
                    let fewest = u64::from(link.window.tasks());
                    // The greatest weight is the first.
                    let rank = key.map_or(fewest, |key| !rendezvous::weight(key, link.hash));
                    if best.is_none_or(|(first, ..)| rank < first) {
                        best = Some((rank, LinkId(at), verdict));
                    }
                }
            }
        }
        match (best, never) {
            (Some((_, link, Verdict::Free)), _) => Choice::Link(link),
            (Some((_, _, Verdict::Busy(until))), _) => Choice::Busy(until),
            (Some((_, link, _)), _) => Choice::Line(link),
            // One that is merely full takes it before long.
            (None, _) if busy < Time::NEVER && is_full => Choice::Later(busy),
            (None, _) if busy < Time::NEVER => Choice::Busy(busy),
            (None, Some(end)) if end == LocalEnd::UnknownKey => Choice::Never(end),
            (None, Some(_)) if is_away && !is_full => Choice::Later(now.after(ABSENT_NS)),
            (None, Some(end)) if !is_full => Choice::Never(end),
            (None, _) => Choice::Wait,
        }
    }

    /// Takes the request out of the queue's reach until then.
    pub(super) fn delay(&mut self, request_id: RequestId, until: Time) {
        let Some(request) = self.table.request_mut(request_id) else { return };
        request.place = Place::Delayed(until);
        self.delayed.insert((until, request_id));
    }

    /// Queues again what was BUSY long enough.
    pub(super) fn retry_delayed(&mut self, now: Time) {
        while let Some(&(at, request_id)) = self.delayed.first() {
            if at > now {
                return;
            }
            self.delayed.pop_first();
            if let Some(request) = self.table.request_mut(request_id) {
                request.place = Place::Queued;
                self.enqueue(request_id);
            }
        }
    }

    /// Sends the latest submission of a request to a broker whose session is open, and counts it
    /// in that session's window.
    pub(super) fn send_submit<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        request_id: RequestId,
        to: LinkId,
        outbox: &mut O,
    ) {
        let link = &mut self.links[usize::from(to.0)];
        let link::State::Open(session) = &mut link.state else { return };
        let Some(request) = self.table.request_mut(request_id) else { return };
        if request.deadline <= now {
            request.place = Place::Queued;
            self.finish(request_id, Outcome::Local(LocalEnd::Expired), outbox);
            return;
        }
        request.place = Place::Held(to);
        link.window.take(request.bytes);
        if let Some(FetchOf { key, waits }) = &request.fetch {
            let submission = request.submission;
            let fetch = Fetch { request_id, submission, key, waits: *waits };
            return outbox.send(to, &ToBroker::Fetch(fetch));
        }
        self.counters.submits += 1;
        let name = &*self.services[request.service.0 as usize];
        let service = match session.alias(request.service) {
            None => ServiceRef::Name(name),
            Some(is_new) => {
                let alias = request.service.0;
                if is_new {
                    outbox.send(to, &ToBroker::Service(ServiceAlias { alias, name }));
                }
                ServiceRef::Alias(alias)
            }
        };
        if request.bytes > FRAME_BYTES_MAX as u64 {
            let silence_ns = Some(session.expect_silence(now, request.bytes));
            let sequence = session.next_sequence();
            outbox.send(to, &ToBroker::Heartbeat(Heartbeat { sequence, silence_ns }));
        }
        let has_deadline = request.deadline < Time::NEVER;
        // As with the deadline, what is left of the time: this may be a later submission.
        let start_at = request.start_at.filter(|at| *at > now);
        let header = SubmitHeader {
            request_id,
            submission: request.submission,
            service,
            priority: request.priority,
            deadline_ns: has_deadline.then(|| request.deadline.since(now)),
            content_type: request.content_type,
            options: request.options.as_deref(),
            start_after_ns: start_at.map(|at| at.since(now)),
        };
        outbox.submit(to, &header, &mut request.body);
    }

    /// The submission after the latest: the request is handed in under a new meaning.
    pub(super) fn advance(request: &mut Request<B>) {
        request.submission = Submission(request.submission.0.saturating_add(1));
    }
}
