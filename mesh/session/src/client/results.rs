//! From a RESULT to the one end of a request.

use pinmesh_protocol::command::{CancelRequest, ClientProgress, Fetched, TaskResult, ToBroker};
use pinmesh_protocol::id::{RequestId, Submission};
use pinmesh_protocol::status::{FetchState, ProgressKind, Status};

use super::event::{Cancel, ClientOutbox, LinkId, LocalEnd, Outcome};
use super::table::{Place, Request};
use super::{Client, Link};
use crate::Time;

/// Bounds of a broker's `retry_after_ns`: neither a storm nor for ever.
const RETRY_AFTER_NS: (u64, u64) = (1_000_000, 60_000_000_000);

/// Whether that end counts only for the latest submission. Of the others the first one that comes
/// is the request's.
const fn is_about_latest(status: Status) -> bool {
    match status {
        Status::Busy | Status::Cancelled | Status::Refused | Status::NoService | Status::Lost => {
            true
        }
        Status::Ok | Status::Failed | Status::Expired | Status::TimedOut | Status::Crashed => false,
    }
}

impl<B> Client<B> {
    pub(super) fn on_result<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        from: LinkId,
        result: TaskResult<'_>,
        outbox: &mut O,
    ) {
        self.counters.results += 1;
        let entry = &mut self.links[usize::from(from.0)];
        entry.settle();
        if let Some(session) = entry.session_mut() {
            session.taken += 1;
        }
        let Some(request) = self.table.request_mut(result.request_id) else {
            self.counters.stale += 1;
            return;
        };
        let is_latest = result.submission == request.submission;
        let is_of_ours = result.submission <= request.submission;
        if !is_of_ours || (is_about_latest(result.status) && !is_latest) {
            self.counters.stale += 1;
            return;
        }
        if result.status == Status::Busy && request.place == Place::Held(from) {
            self.on_busy(now, from, result, outbox);
            return;
        }
        self.finish(result.request_id, Outcome::Result(result), outbox);
    }

    fn on_busy<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        from: LinkId,
        result: TaskResult<'_>,
        outbox: &mut O,
    ) {
        let request_id = result.request_id;
        let Some(request) = self.table.request_mut(request_id) else { return };
        let after_ns = result.retry_after_ns.unwrap_or(RETRY_AFTER_NS.0);
        let retry_at = now.after(after_ns.clamp(RETRY_AFTER_NS.0, RETRY_AFTER_NS.1));
        let is_too_late = request.deadline <= retry_at;
        let link = &mut self.links[usize::from(from.0)];
        link.note_busy(request.service, retry_at);
        if request.shows_busy || request.cancel.is_some() || is_too_late {
            self.finish(request_id, Outcome::Result(result), outbox);
            return;
        }
        self.counters.busy += 1;
        link.window.give_back(request.bytes);
        Self::advance(request);
        // Another broker may take it at once; with none that can, it waits for this one.
        if self.links.len() > 1 {
            request.place = Place::Queued;
            self.enqueue(request_id);
        } else {
            self.delay(request_id, retry_at);
        }
    }

    /// There is no RESULT of what a FETCH asks for. Where a broker does not know the key another one
    /// may, which had it before.
    pub(super) fn on_fetched<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        from: LinkId,
        fetched: Fetched,
        outbox: &mut O,
    ) {
        let Fetched { request_id, submission, state } = fetched;
        let request = self.table.request_mut(request_id);
        let is_its = |request: &&mut Request<B>| {
            let is_latest = request.submission == submission && request.fetch.is_some();
            is_latest && request.place == Place::Held(from)
        };
        let Some(request) = request.filter(is_its) else {
            self.counters.stale += 1;
            return;
        };
        match state {
            FetchState::Pending => {
                self.finish(request_id, Outcome::Local(LocalEnd::NotEnded), outbox);
            }
            FetchState::Unknown => {
                request.unknown_to.push(from);
                request.place = Place::Queued;
                Self::advance(request);
                self.links[usize::from(from.0)].window.give_back(request.bytes);
                if !self.place(now, request_id, outbox) {
                    self.enqueue(request_id);
                }
            }
        }
    }

    pub(super) fn on_progress<O: ClientOutbox<B>>(
        &mut self,
        from: LinkId,
        progress: ClientProgress<'_>,
        outbox: &mut O,
    ) {
        if progress.kind == ProgressKind::Stream
            && let Some(session) = self.links[usize::from(from.0)].session_mut()
        {
            session.taken += 1;
        }
        let epoch = self.links[usize::from(from.0)].epoch;
        let request = self.table.request_mut(progress.request_id);
        // Once another broker has it that one's attempt speaks.
        let request = request.filter(|request| match request.place {
            Place::Held(link) => link == from,
            Place::Queued | Place::Delayed(_) => true,
        });
        let Some((request, epoch)) = request.zip(epoch) else {
            self.counters.stale += 1;
            return;
        };
        if request.heard.take(epoch, &progress) {
            self.counters.updates += 1;
            outbox.progress(progress, &request.body);
        } else {
            self.counters.stale += 1;
        }
    }

    /// Ends a request: takes it out of the table and its window, and cancels what other brokers may
    /// still do about it.
    pub(super) fn finish<O: ClientOutbox<B>>(
        &mut self,
        request_id: RequestId,
        outcome: Outcome<'_>,
        outbox: &mut O,
    ) {
        let Some(request) = self.table.remove(request_id) else { return };
        self.deadlines -= usize::from(request.deadline < Time::NEVER);
        let answered = match outcome {
            Outcome::Result(result) => Some(result.submission),
            Outcome::Local(_) => None,
        };
        match request.place {
            Place::Queued => {}
            Place::Delayed(until) => {
                self.delayed.remove(&(until, request_id));
            }
            Place::Held(link) => {
                let entry = &mut self.links[usize::from(link.0)];
                if entry.session().is_some() {
                    entry.window.give_back(request.bytes);
                }
            }
        }
        if !request.earlier.is_empty() || answered.is_some_and(|it| it != request.submission) {
            self.cancel_others(request_id, &request, answered, outbox);
        }
        outbox.resolve(request_id, request.body, outcome);
    }

    fn cancel_others<O: ClientOutbox<B>>(
        &mut self,
        request_id: RequestId,
        request: &Request<B>,
        answered: Option<Submission>,
        outbox: &mut O,
    ) {
        let latest = match request.place {
            Place::Held(link) => self.links[usize::from(link.0)].epoch.map(|epoch| (link, epoch)),
            Place::Queued | Place::Delayed(_) => None,
        };
        let latest = latest.map(|(link, epoch)| (link, epoch, request.submission));
        let earlier = request.earlier.iter().map(|it| (it.link, it.epoch, it.submission));
        for (to, epoch, submission) in earlier.chain(latest) {
            let entry: &Link = &self.links[usize::from(to.0)];
            let is_there = entry.session().is_some() && entry.epoch == Some(epoch);
            if is_there && answered != Some(submission) {
                let is_hard = request.cancel == Some(Cancel::Hard);
                let cancel = CancelRequest { request_id, submission, is_hard };
                outbox.send(to, &ToBroker::Cancel(cancel));
            }
        }
    }
}
