//! What workers do: READY, WINDOW, DONE, RETURN, and being gone.

use pinmesh_protocol::command::{CancelAttempt, FromBroker, Held, Ready, StageTimes, Window};
use pinmesh_protocol::id::AttemptId;
use pinmesh_protocol::status::{EndStatus, HeldState, RefusedCode};

use crate::dead::DeathCause;
use crate::event::{Body, Conn, DoneEvent};
use crate::group::LEVELS;
use crate::outbox::Outbox;
use crate::session::Peer;
use crate::slab::{Key, TaskKey, WorkerKey};
use crate::state::{State, Wake};
use crate::task::{EndBody, TaskState};
use crate::time::Span;
use crate::worker::WorkerState;

impl<B: Body> State<B> {
    pub(crate) fn on_ready(&mut self, conn: Conn, ready: &Ready<'_>, out: &mut impl Outbox<B>) {
        let Some(key) = self.worker_of(conn, "READY", out) else { return };
        if ready.part != self.workers.at(key.index()).next_part || ready.part >= ready.parts {
            let reason = "READY: parts come in order, from 0 to parts - 1, once a session";
            return self.refuse_session(conn, RefusedCode::Malformed, reason, out);
        }
        if ready.part == 0 {
            if let Err((code, reason)) = self.take_place(key, ready) {
                return self.refuse_session(conn, code, reason, out);
            }
            if self.workers.at(key.index()).state == WorkerState::Dead {
                self.worker_gone(key, None, out);
            }
        }
        if self.workers.at(key.index()).state != WorkerState::Dead {
            for held in &ready.held {
                self.take_held(conn, key, held, out);
            }
        }
        let worker = self.workers.at_mut(key.index());
        let is_last = ready.part + 1 == ready.parts;
        // Behind the last one there is none.
        worker.next_part = if is_last { u32::MAX } else { ready.part + 1 };
        if is_last && worker.state == WorkerState::Greeting {
            worker.state = WorkerState::Serving;
            self.forget_unlisted(key);
            self.requeue_unlisted(key, out);
            if self.workers.at(key.index()).host.is_none() {
                self.repeat_cancels(key, out);
            }
            self.list(key.index());
            self.feed(key, out);
        } else if !self.inherited.is_empty() {
            // What it lists of an earlier epoch may have been noted as another's.
            self.dispatch_all(out);
        }
    }

    /// The first part of READY: who the worker is and what it serves.
    fn take_place(
        &mut self,
        key: WorkerKey,
        ready: &Ready<'_>,
    ) -> Result<(), (RefusedCode, &'static str)> {
        let place = ready.host.map(|host| (host, ready.slot, ready.incarnation));
        if place.and_then(|place| self.places.get(&place)).is_some_and(|other| *other != key) {
            let reason = "READY: another worker has this host, slot and incarnation";
            return Err((RefusedCode::NotAllowed, reason));
        }
        let services = self.services_offered(ready)?;
        self.bury(key.index());
        let worker = self.workers.at_mut(key.index());
        worker.state = WorkerState::Greeting;
        worker.is_recalled = false;
        worker.host = ready.host;
        worker.slot = ready.slot;
        worker.incarnation = ready.incarnation;
        worker.turn = self.turns;
        worker.services = services;
        if let Some(place) = worker.place() {
            if self.is_gone(&place) {
                self.workers.at_mut(key.index()).state = WorkerState::Dead;
                return Ok(());
            }
            self.places.insert(place, key);
        }
        self.set_window(key, ready.window_tasks, ready.window_bytes);
        let has_lease = self.has_lease(ready.host);
        self.workers.at_mut(key.index()).has_lease = has_lease;
        self.join_group(key, &ready.labels);
        Ok(())
    }

    fn set_window(&mut self, key: WorkerKey, tasks: u32, bytes: u64) {
        let worker = self.workers.at_mut(key.index());
        worker.own_window = (tasks, bytes);
        worker.window_tasks = tasks.min(self.config.worker_window_tasks).min(LEVELS as u32);
        worker.window_bytes = bytes.min(self.config.worker_window_bytes);
    }

    /// An attempt that the worker says it holds.
    fn take_held(&mut self, conn: Conn, key: WorkerKey, held: &Held, out: &mut impl Outbox<B>) {
        if let Some((task_key, dispatch)) = self.resolve(held.attempt)
            && let Some(task) = self.tasks.get_mut(task_key)
            && (task.dispatch, task.worker) == (dispatch, key)
        {
            if task.occupies {
                task.is_listed = true;
                return;
            }
            if task.is_open() {
                task.is_listed = true;
                self.unqueue(task_key);
                self.stop_awaiting(task_key);
                self.occupy(task_key, key.index());
                return;
            }
        }
        if held.attempt.epoch != self.config.epoch && self.inherit(key, held) {
            return;
        }
        if held.state == HeldState::Ended {
            return;
        }
        // Superseded or unknown here.
        let worker = self.workers.at(key.index());
        let to = if worker.host.is_some() { self.overseer_conn(key) } else { Some(conn) };
        let slot = self.workers.at(key.index()).slot;
        if let Some(to) = to {
            let attempt = held.attempt;
            out.send(to, FromBroker::Cancel(CancelAttempt { slot, attempt, is_hard: true }));
        }
    }

    /// After the last part of READY: what the broker believed there and was not listed goes back.
    fn requeue_unlisted(&mut self, key: WorkerKey, out: &mut impl Outbox<B>) {
        for task_key in self.held_by(key.index()).into_iter().rev() {
            let task = self.tasks.at_mut(task_key.index());
            if !core::mem::take(&mut task.is_listed) {
                self.requeue(task_key, out);
            }
        }
        self.dispatch_all(out);
    }

    pub(crate) fn on_window(&mut self, conn: Conn, window: Window, out: &mut impl Outbox<B>) {
        let Some(key) = self.worker_of(conn, "WINDOW", out) else { return };
        self.unlist(key.index());
        self.set_window(key, window.tasks, window.bytes);
        self.list(key.index());
        self.feed(key, out);
    }

    #[inline]
    pub(crate) fn on_done(&mut self, conn: Conn, done: DoneEvent<B>, out: &mut impl Outbox<B>) {
        let Some(key) = self.worker_of(conn, "DONE", out) else { return };
        let Some(done) = (match done.attempt.epoch == self.config.epoch {
            true => Some(done),
            false => self.keep_end(conn, key, done),
        }) else {
            return self.feed(key, out);
        };
        let Some(task_key) = self.take_end(conn, key, done.attempt) else {
            return self.feed(key, out);
        };
        self.settle(task_key, done.residence_ns, done.service_ns);
        self.release(task_key);
        let task = self.tasks.at(task_key.index());
        if task.state == TaskState::Ended {
            self.forget_if_over(task_key);
        } else {
            self.end_by_handler(task_key, done, out);
        }
        self.feed(key, out);
    }

    /// The handler's end is the task's.
    #[inline]
    pub(crate) fn end_by_handler(
        &mut self,
        task_key: TaskKey,
        done: DoneEvent<B>,
        out: &mut impl Outbox<B>,
    ) {
        let task = self.tasks.at(task_key.index());
        let broker_wait = task.dispatched_at.since(task.received_at);
        let away = self.now.since(task.dispatched_at);
        let stages = StageTimes {
            broker_wait_ns: broker_wait.0,
            transit_ns: away.0.saturating_sub(done.residence_ns),
            worker_wait_ns: done.residence_ns.saturating_sub(done.service_ns),
            service_ns: done.service_ns,
        };
        let (status, body) = match self.objection_to_result(&done.body) {
            None => (done.status, EndBody::Handler(done.body)),
            // Another try would most likely bring as much.
            Some(text) => (EndStatus::FailedFinal, EndBody::Fixed(text)),
        };
        match status {
            EndStatus::Ok | EndStatus::Cancelled => {
                self.finish(task_key, status.into(), Some(stages), body, out);
            }
            EndStatus::Failed | EndStatus::FailedFinal => {
                self.tasks.at_mut(task_key.index()).tries += 1;
                if status == EndStatus::FailedFinal || !self.retry(task_key) {
                    self.die(task_key, DeathCause::Failed, Some(stages), body, out);
                }
            }
        }
    }

    pub(crate) fn on_return(&mut self, conn: Conn, attempt: AttemptId, out: &mut impl Outbox<B>) {
        let Some(key) = self.worker_of(conn, "RETURN", out) else { return };
        let Some(task_key) = self.take_end(conn, key, attempt) else {
            return self.feed(key, out);
        };
        // What is over does not come back: its worker need not wait for others to take it.
        let task = self.tasks.at(task_key.index());
        let is_over = task.state == TaskState::Ended
            || task.cancel.is_some()
            || task.deadline.is_some_and(|deadline| deadline <= self.now);
        if !is_over {
            self.park(key);
        }
        self.give_back(task_key, out);
    }

    /// An attempt goes back unstarted, or is already back.
    pub(crate) fn give_back(&mut self, key: TaskKey, out: &mut impl Outbox<B>) {
        let task = self.tasks.at(key.index());
        let (service, worker) = (task.service, task.worker);
        match task.state {
            TaskState::Pending | TaskState::Delayed | TaskState::Following(_) => {}
            TaskState::Ended => {
                // Its service may be known no more.
                self.requeue(key, out);
                self.feed(worker, out);
            }
            TaskState::InFlight | TaskState::AwaitingEnd => {
                self.requeue(key, out);
                self.feed(worker, out);
                self.dispatch_service(service, out);
            }
        }
    }

    /// A worker that gave something back is fed no more for one heartbeat, so that a task cannot go
    /// to and fro between them.
    fn park(&mut self, key: WorkerKey) {
        let until = self.now.after(self.config.heartbeat);
        self.unlist(key.index());
        let worker = self.workers.at_mut(key.index());
        if worker.parked_until.replace(until).is_none() {
            self.timers.set(until, Wake::Unpark(key));
        }
    }

    pub(crate) fn on_unpark(&mut self, key: WorkerKey, out: &mut impl Outbox<B>) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        match worker.parked_until {
            Some(until) if until > self.now => {
                self.timers.set(until, Wake::Unpark(key));
            }
            _ => {
                worker.parked_until = None;
                self.list(key.index());
                self.feed(key, out);
            }
        }
    }

    /// Counts an end and checks that its sender may still give it.
    #[inline]
    fn take_end(&mut self, conn: Conn, key: WorkerKey, attempt: AttemptId) -> Option<TaskKey> {
        let resolved = self.resolve(attempt);
        let found = resolved.and_then(|(task_key, dispatch)| {
            let task = self.tasks.get(task_key).filter(|task| task.dispatch == dispatch)?;
            Some((task_key, task))
        });
        if let Some(session) = self.sessions.get_mut(conn) {
            // Nobody knows how long the task of a stale end was.
            session.take_end(found.map_or(u64::MAX, |(_, task)| task.payload_bytes));
        }
        let Some((task_key, task)) = found else {
            self.ledger.stale_ends += 1;
            self.end_inherited(key, attempt);
            return None;
        };
        if task.dispatch.0 == 0 || task.worker != key {
            self.ledger.foreign_ends += 1;
            return None;
        }
        if !task.is_open() && !task.occupies {
            self.ledger.stale_ends += 1;
            return None;
        }
        Some(task_key)
    }

    /// The worker may have credit: its group takes what waits.
    #[inline]
    pub(crate) fn feed(&mut self, key: WorkerKey, out: &mut impl Outbox<B>) {
        if let Some(group) = self.workers.get(key).and_then(|worker| worker.group) {
            self.dispatch_group(group, out);
        }
    }

    /// A worker's session ended.
    pub(crate) fn worker_left(&mut self, key: WorkerKey) {
        self.unlist(key.index());
        for task in self.held_by(key.index()) {
            self.tasks.at_mut(task.index()).is_listed = false;
        }
        self.inherited.unmark(key);
        let worker = self.workers.at_mut(key.index());
        worker.conn = None;
        if worker.state != WorkerState::Dead {
            worker.state = WorkerState::Away;
        }
        self.watch_away(key);
    }

    /// From now on a worker without a session may stay away for as long as what it holds allows.
    pub(crate) fn watch_away(&mut self, key: WorkerKey) {
        let limit = self.worker_silence_max(key).unwrap_or_else(|| self.silence_max());
        let timer = self.timers.set(self.now.after(limit), Wake::WorkerAway(key));
        if let Some(earlier) = self.workers.at_mut(key.index()).away_timer.replace(timer) {
            self.timers.cancel(earlier);
        }
    }

    /// How long a worker may say nothing: `None` while its supervisor speaks for it.
    pub(crate) fn worker_silence_max(&self, key: WorkerKey) -> Option<Span> {
        let worker = self.workers.at(key.index());
        if worker.state == WorkerState::Dead {
            return Some(self.silence_max());
        }
        let is_idle = worker.held() == 0;
        match worker.host {
            Some(host) => match self.peers.get(&host) {
                Some(Peer::Host(_)) => None,
                None if is_idle => Some(self.silence_max()),
                // Its supervisor may still have the lease of an earlier life of this broker.
                None => Some(self.silence_max().max(self.config.host_requeue())),
                Some(Peer::Client(_) | Peer::Worker(_)) => Some(self.silence_max()),
            },
            None if is_idle => Some(self.silence_max()),
            // Nobody knows how long what it brought along may run, only how long it matters.
            None if worker.in_flight.is_empty() => Some(self.config.client_kept),
            None => {
                let held = self.held_by(key.index()).into_iter();
                let runtimes = held.map(|task| self.tasks.at(task.index()).max_runtime);
                let longest = runtimes.max().unwrap_or_default();
                Some(Span(longest.0.saturating_add(self.config.grace.0)))
            }
        }
    }

    /// A worker that had no session for as long as it may.
    pub(crate) fn on_worker_away(&mut self, key: WorkerKey, out: &mut impl Outbox<B>) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        worker.away_timer = None;
        if worker.conn.is_some() {
            return;
        }
        if self.worker_silence_max(key).is_none() {
            return self.watch_away(key);
        }
        self.worker_silent(key, out);
    }

    /// The worker counts as dead by its silence; what it was sent first is charged, because a worker
    /// runs its tasks in order.
    pub(crate) fn worker_silent(&mut self, key: WorkerKey, out: &mut impl Outbox<B>) {
        let worker = self.workers.at(key.index());
        let charged = if worker.host.is_none() { worker.in_flight.first() } else { None };
        let charged = charged.map(|index| self.tasks.key_at(index));
        self.worker_gone(key, charged, out);
    }

    #[inline]
    pub(crate) fn worker_of(
        &mut self,
        conn: Conn,
        command: &str,
        out: &mut impl Outbox<B>,
    ) -> Option<WorkerKey> {
        match self.sessions.get(conn)?.peer {
            Peer::Worker(key) => Some(key),
            Peer::Client(_) | Peer::Host(_) => {
                let reason = alloc::format!("{command} is for workers");
                self.refuse_session(conn, RefusedCode::NotAllowed, &reason, out);
                None
            }
        }
    }

    /// Who acts on a worker's running attempt: its supervisor, or itself where there is none.
    pub(crate) fn overseer_conn(&self, key: WorkerKey) -> Option<Conn> {
        let worker = self.workers.get(key)?;
        match worker.host {
            None => worker.conn,
            Some(host) => match self.peers.get(&host)? {
                Peer::Host(host) => self.hosts.get(*host)?.conn,
                Peer::Client(_) | Peer::Worker(_) => None,
            },
        }
    }
}
