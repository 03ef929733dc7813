//! What workers do: READY, WINDOW, DONE, RETURN; and what becomes of one that is gone.

use pinmesh_core::{Body as _, Conn, DoneEvent};
use pinmesh_protocol::command::{Held, Ready, StageTimes, Window};
use pinmesh_protocol::id::AttemptId;
use pinmesh_protocol::status::{EndStatus, HeldState, RefusedCode, Status};

use super::book::{Age, Presence, State, Who, WorkerNo};
use super::{Oracle, names};
use crate::record::{Body, Said};

impl Oracle {
    /// The worker of a session; a session of anybody else is refused.
    pub(super) fn worker_of(&mut self, conn: Conn) -> Option<WorkerNo> {
        match self.sessions.get(&conn)?.who {
            Who::Worker(number) => Some(number),
            Who::Client(_) | Who::Host(_) => {
                self.refuse_session(conn, RefusedCode::NotAllowed);
                None
            }
        }
    }

    pub(super) fn on_ready(&mut self, conn: Conn, ready: &Ready<'_>) {
        let Some(number) = self.worker_of(conn) else { return };
        if Some(ready.part) != self.workers[&number].next_part || ready.part >= ready.parts {
            return self.refuse_session(conn, RefusedCode::Malformed);
        }
        if ready.part == 0 {
            if let Some(code) = self.objection_to_ready(number, ready) {
                return self.refuse_session(conn, code);
            }
            self.place(number, ready);
        }
        if self.workers[&number].presence != Presence::Dead {
            for held in &ready.held {
                self.take_held(number, held);
            }
        }
        let Some(worker) = self.workers.get_mut(&number) else { return };
        let is_last = ready.part + 1 == ready.parts;
        worker.next_part = (!is_last).then_some(ready.part + 1);
        if is_last && worker.presence == Presence::Greeting {
            worker.presence = Presence::Serving;
            self.forget_unlisted(number);
            for age in self.workers[&number].holds.clone() {
                let is_listed =
                    self.tasks.get_mut(&age).map(|task| std::mem::take(&mut task.is_listed));
                if is_listed == Some(false) {
                    self.requeue(age);
                }
            }
            if self.workers[&number].host.is_none() {
                self.cancel_again(number);
            }
        }
    }

    fn objection_to_ready(&self, number: WorkerNo, ready: &Ready<'_>) -> Option<RefusedCode> {
        let place = ready.host.map(|host| (host, ready.slot, ready.incarnation));
        let is_taken = self.workers.iter().any(|(other, worker)| {
            let of_other = worker.host.map(|host| (host, worker.slot, worker.incarnation));
            *other != number && worker.is_placed && of_other.is_some() && of_other == place
        });
        if is_taken {
            return Some(RefusedCode::NotAllowed);
        }
        let is_plain = |name: &&str| names::read(name).is_ok_and(|(_, labels)| labels.is_empty());
        let is_label = |label: &&str| names::read(&format!("x{{{label}}}")).is_ok();
        let is_offer = ready.services.iter().all(is_plain) && ready.labels.iter().all(is_label);
        if ready.services.is_empty() || !is_offer || ready.labels.len() > 32 {
            return Some(RefusedCode::Malformed);
        }
        let has_room = |name: &&str| self.has_room_for(name, self.config.services_max);
        (!ready.services.iter().all(has_room)).then_some(RefusedCode::Full)
    }

    /// The first part of READY: who it is, and what it serves from now on.
    fn place(&mut self, number: WorkerNo, ready: &Ready<'_>) {
        self.bury(number);
        let host = ready.host.and_then(|host| self.hosts.get(&host));
        let gone = host.and_then(|host| host.gone.get(&ready.slot));
        let is_gone = gone.is_some_and(|gone| *gone >= ready.incarnation);
        let event = self.event;
        let Some(worker) = self.workers.get_mut(&number) else { return };
        worker.host = ready.host;
        worker.slot = ready.slot;
        worker.incarnation = ready.incarnation;
        worker.ready_at = event;
        worker.services = ready.services.iter().map(|name| (*name).to_owned()).collect();
        worker.labels = ready.labels.iter().map(|label| (*label).to_owned()).collect();
        worker.is_passed_over = false;
        worker.is_recalled = false;
        if is_gone {
            return self.lose_worker(number, None);
        }
        worker.presence = Presence::Greeting;
        worker.is_placed = true;
        worker.own_window = (ready.window_tasks, ready.window_bytes);
    }

    /// An attempt that the worker says it holds.
    fn take_held(&mut self, number: WorkerNo, held: &Held) {
        let is_its = |age: &Age| self.tasks[age].sent_to == Some(number);
        if let Some(age) = self.task_of(held.attempt).filter(is_its) {
            let task = &self.tasks[&age];
            if task.holder.is_none() && task.is_open() {
                self.hold(age, number);
            }
            if let Some(task) = self.tasks.get_mut(&age).filter(|task| task.holder.is_some()) {
                task.is_listed = true;
                return;
            }
        }
        if held.attempt.epoch != self.config.epoch && self.inherit(number, held) {
            return;
        }
        if held.state != HeldState::Ended {
            self.expect_cancel(number, held.attempt, true);
        }
    }

    pub(super) fn on_window(&mut self, conn: Conn, window: Window) {
        let Some(number) = self.worker_of(conn) else { return };
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.own_window = (window.tasks, window.bytes);
            worker.is_passed_over = false;
        }
    }

    pub(super) fn on_done(&mut self, conn: Conn, done: &DoneEvent<Body>) {
        let Some(number) = self.worker_of(conn) else { return };
        let is_of_before = done.attempt.epoch != self.config.epoch;
        if is_of_before && self.keep_end(conn, number, done) {
            return;
        }
        let Some(age) = self.take_end(conn, number, done.attempt) else { return };
        self.release(age);
        if self.tasks[&age].state == State::Ended {
            return self.forget_if_over(age);
        }
        self.end_by_handler(age, done);
    }

    pub(super) fn end_by_handler(&mut self, age: Age, done: &DoneEvent<Body>) {
        let task = &self.tasks[&age];
        let stages = StageTimes {
            broker_wait_ns: task.sent_at.saturating_sub(task.received_at),
            transit_ns: (self.now - task.sent_at).saturating_sub(done.residence_ns),
            worker_wait_ns: done.residence_ns.saturating_sub(done.service_ns),
            service_ns: done.service_ns,
        };
        let (status, said) = match self.is_too_much(&done.body) {
            true => (EndStatus::FailedFinal, None),
            false => (done.status, Some(Said::Handler(done.body.payload.clone()))),
        };
        let is_failed = matches!(status, EndStatus::Failed | EndStatus::FailedFinal);
        if let Some(task) = self.tasks.get_mut(&age).filter(|_| is_failed) {
            task.tries += 1;
        }
        let end = (Some(stages), said);
        match status {
            EndStatus::Failed => self.try_again(age, Status::Failed, end),
            _ => self.finish(age, status.into(), end),
        }
    }

    /// Whether there is no room for a result: accepted tasks fill the budget once, their results
    /// once more.
    pub(super) fn is_too_much(&self, body: &Body) -> bool {
        let bytes = body.payload_bytes();
        bytes > self.config.payload_bytes_max
            || self.counts.bytes + bytes > self.config.memory_bytes_max.saturating_mul(2)
    }

    pub(super) fn on_return(&mut self, conn: Conn, attempt: AttemptId) {
        let Some(number) = self.worker_of(conn) else { return };
        let Some(age) = self.take_end(conn, number, attempt) else { return };
        let until = self.now.saturating_add(self.config.heartbeat.0);
        // One that is over goes to nobody else.
        let task = &self.tasks[&age];
        let is_over =
            task.state == State::Ended || task.cancelled.is_some() || self.is_past_deadline(age);
        if let Some(worker) = self.workers.get_mut(&number) {
            if !is_over {
                worker.parked_until = Some(until);
            }
            worker.is_passed_over = false;
        }
        self.give_back(age);
    }

    /// An attempt goes back unstarted, or is already back.
    pub(super) fn give_back(&mut self, age: Age) {
        if self.tasks[&age].state != State::Pending {
            self.requeue(age);
        }
    }

    /// Counts an end. Only the latest attempt of a task may end it, only its own worker may say
    /// so, and only while it is open; one that is not may still free its worker.
    fn take_end(&mut self, conn: Conn, number: WorkerNo, attempt: AttemptId) -> Option<Age> {
        let found = self.task_of(attempt);
        let bytes = found.map_or(0, |age| self.tasks[&age].bytes);
        self.count_end(conn, bytes);
        let Some(age) = found else {
            self.ledger.stale_ends += 1;
            self.end_inherited(number, attempt);
            return None;
        };
        let task = &self.tasks[&age];
        if task.sent_to != Some(number) {
            self.ledger.foreign_ends += 1;
            return None;
        }
        if !task.is_open() && task.holder.is_none() {
            self.ledger.stale_ends += 1;
            return None;
        }
        Some(age)
    }

    pub(super) fn count_end(&mut self, conn: Conn, bytes: u64) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.taken += 1;
            session.unacknowledged_bytes += bytes;
        }
    }

    /// Its process is gone: it serves nothing any more. What it holds is yet to be dealt with.
    pub(super) fn bury(&mut self, number: WorkerNo) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        worker.presence = Presence::Dead;
        if !std::mem::take(&mut worker.is_placed) {
            return;
        }
        let lost = worker.clone();
        let known: Vec<String> = self.known().into_iter().map(str::to_owned).collect();
        for service in known.into_iter().filter(|service| lost.serves(service)) {
            if !self.is_served(&service) {
                self.unserved_since.insert(service, self.now);
            }
        }
    }

    /// Whether a worker that is not gone has said READY for it.
    pub(super) fn is_served(&self, service: &str) -> bool {
        let mut placed = self.workers.values().filter(|worker| worker.is_placed);
        placed.any(|worker| worker.serves(service))
    }

    /// A dead worker is forgotten once its session has ended.
    pub(super) fn forget_worker(&mut self, number: WorkerNo) {
        let is_over =
            |worker: &super::Worker| worker.presence == Presence::Dead && worker.conn.is_none();
        if self.workers.get(&number).is_some_and(is_over) {
            self.workers.remove(&number);
            self.forget_inherited_of(number);
        }
    }
}
