//! The calls of every task: taken, started, ended.

use pinmesh_protocol::command::{Heartbeat, ServiceRef, Task, ToBroker};
use pinmesh_protocol::id::{AttemptId, Epoch};
use pinmesh_protocol::limits::{
    FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX, LIST_MAX, SILENCE_BYTES_PER_S,
};
use pinmesh_protocol::status::{HeldState, RefusedCode};

use super::held::HeldTask;
use super::link::Link;
use super::{Kept, LEASE_WAIT_NS, Start, WorkerOutbox, WorkerSession};
use crate::Time;
use crate::slots::Lease;

impl<E> WorkerSession<E> {
    /// TASK. The index of its place, or `None` if it goes back or the session has ended over it.
    pub fn take(
        &mut self,
        now: Time,
        task: &Task<'_>,
        out: &mut impl WorkerOutbox<E>,
    ) -> Option<u32> {
        let Link::Open(open) = &mut self.link else { return None };
        open.on_word();
        let attempt = AttemptId { epoch: open.epoch, task: task.task, dispatch: task.dispatch };
        let services = &self.config.services;
        let service = match task.service {
            ServiceRef::Alias(alias) => Some(alias).filter(|&a| (a as usize) < services.len()),
            ServiceRef::Name(name) => {
                services.iter().position(|s| s == name).map(|position| position as u32)
            }
        };
        let Some(service) = service else {
            self.refuse(now, RefusedCode::NotAllowed, "TASK of a service not in READY", out);
            return None;
        };
        if self.is_draining || !self.held.admits(task.payload.len()) {
            self.send_return(now, attempt, out);
            return None;
        }
        Some(self.held.put(HeldTask::new(attempt, service, task, now)))
    }

    fn send_return(&mut self, now: Time, attempt: AttemptId, out: &mut impl WorkerOutbox<E>) {
        if !matches!(self.link, Link::Open(_)) {
            return;
        }
        let returns = self.acks.len().saturating_sub(self.held.len() + self.updates.count);
        if returns > 2 * self.config.window_tasks as usize + LIST_MAX {
            return self.refuse(now, RefusedCode::Window, "TASKs far beyond READY's window", out);
        }
        out.send(&ToBroker::Return(attempt));
        self.acks.push(Kept::Back);
    }

    /// Whether the task of this index may start now; the caller still has to claim its slot.
    pub fn start(&mut self, now: Time, index: u32, out: &mut impl WorkerOutbox<E>) -> Start {
        self.waits_for_lease = false;
        let Some(task) = self.held.task(index) else { return Start::GivenBack };
        if task.deadline.is_some_and(|deadline| now >= deadline) {
            // Nobody wants it any more: the broker tells its client so.
            self.give_back(index, out);
            return Start::GivenBack;
        }
        if !self.acks.is_empty() && self.ends_bytes >= self.config.window_bytes {
            return Start::NotYet;
        }
        let epoch = match &self.link {
            Link::Open(open) => Some(open.epoch),
            Link::Closed { .. } | Link::Greeting { .. } | Link::Left => None,
        };
        if self.config.host.is_none() {
            // Without a supervisor the session is the only lease. While it is away, tasks wait:
            // READY lists them, and the broker takes back what it has given to others.
            return if epoch.is_some() { self.run(index) } else { Start::NotYet };
        }
        let given = self
            .lease
            .filter(|lease| lease.is_given() && is_named(*lease, task.attempt.epoch, epoch));
        match given {
            Some(lease) if now < lease.until && lease.term == self.term => return self.run(index),
            None if now.since(task.received) < LEASE_WAIT_NS => {
                self.waits_for_lease = true;
                return Start::NotYet;
            }
            Some(_) | None => {}
        }
        self.give_back(index, out);
        Start::GivenBack
    }

    fn run(&mut self, index: u32) -> Start {
        self.held.set_state(index, HeldState::Claimed);
        Start::Run
    }

    /// The task has ended; `bytes` is the length of the end as it is kept.
    pub fn end(
        &mut self,
        now: Time,
        index: u32,
        mut end: E,
        bytes: u64,
        out: &mut impl WorkerOutbox<E>,
    ) {
        self.held.set_state(index, HeldState::Ended);
        self.send_latest(now, out);
        if matches!(self.link, Link::Open(_)) {
            self.announce(now, bytes, out);
            out.send_end(&mut end);
        }
        self.ends_bytes += bytes;
        self.acks.push(Kept::Done { index, bytes, end });
    }

    /// Ends longer than this broker takes, of a time without it or of one that took more: it would
    /// end every session over them. READY does not list their tasks, which run again and then fail
    /// with the limit.
    pub(super) fn let_go_too_long(
        &mut self,
        payload_bytes_max: u64,
        out: &mut impl WorkerOutbox<E>,
    ) {
        let bytes_max = payload_bytes_max.saturating_add(FIRST_FRAME_BYTES_MAX as u64);
        let mut kept = core::mem::take(&mut self.acks);
        kept.take(kept.len() as u64, |kept| match kept {
            Kept::Done { index, bytes, end } if bytes > bytes_max => {
                self.held.remove(index);
                self.ends_bytes -= bytes;
                out.forget(index, Some(end));
            }
            Kept::Update { bytes, update } if bytes > bytes_max => {
                self.updates.remove(bytes);
                out.drop_update(update);
            }
            Kept::Done { .. } | Kept::Update { .. } | Kept::Back => self.acks.push(kept),
        });
    }

    /// Before a long end: says for how long there will be nothing else to hear.
    pub(super) fn announce(&mut self, now: Time, bytes: u64, out: &mut impl WorkerOutbox<E>) {
        let Link::Open(open) = &mut self.link else { return };
        if bytes > FRAME_BYTES_MAX as u64 {
            let ns = bytes.saturating_mul(1_000_000_000) / SILENCE_BYTES_PER_S;
            let sequence = open.next_sequence(now);
            open.on_silence(now, ns);
            out.send(&ToBroker::Heartbeat(Heartbeat { sequence, silence_ns: Some(ns) }));
        }
    }

    /// Gives a task back that has not started.
    pub fn give_back(&mut self, index: u32, out: &mut impl WorkerOutbox<E>) {
        if let Some(task) = self.held.remove(index) {
            if matches!(self.link, Link::Open(_)) {
                out.send(&ToBroker::Return(task.attempt));
                self.acks.push(Kept::Back);
            }
            out.forget(index, None);
        }
    }

    /// The supervisor has recalled the task; it tells the broker itself.
    pub fn recalled(&mut self, index: u32, out: &mut impl WorkerOutbox<E>) {
        if self.held.remove(index).is_some() {
            out.forget(index, None);
        }
        self.leave_if_drained(out);
    }
}

/// A lease covers the attempts of its own epoch, and those of an earlier life of the same broker
/// once the session is with the life that gave it: READY has listed them.
fn is_named(lease: Lease, attempt: Epoch, session: Option<Epoch>) -> bool {
    lease.epoch == attempt || Some(lease.epoch) == session
}
