//! Taking back what waits behind a long task. A worker runs its tasks in order, so one that takes much
//! longer than it should keeps those behind it waiting, maybe while another worker has nothing to do:
//! the supervisor is asked to give them back, and the worker is sent nothing until it moves.

use alloc::vec::Vec;

use pinmesh_protocol::command::{Attempts, FromBroker};
use pinmesh_protocol::id::AttemptId;
use pinmesh_protocol::limits::LIST_MAX;

use crate::event::Body;
use crate::list::List;
use crate::outbox::Outbox;
use crate::slab::{Key, WorkerKey};
use crate::state::{State, Wake};
use crate::time::Span;

/// A task is not late before that, beside twice what it should take.
const LATE_MIN: Span = Span::from_millis(5);

impl<B: Body> State<B> {
    /// A worker was sent something behind what it runs: its first task is looked at in a while. One
    /// without a supervisor can give nothing back while it runs something.
    #[inline]
    pub(crate) fn watch_head(&mut self, index: u32) {
        let worker = self.workers.at(index);
        let is_watched = worker.has_head_timer || worker.host.is_none() || !self.config.recalls;
        if worker.in_flight.len() < 2 || is_watched {
            return;
        }
        let at = self.now.after(self.patience(index));
        self.set_head_timer(index, at);
    }

    fn set_head_timer(&mut self, index: u32, at: crate::time::Time) {
        self.workers.at_mut(index).has_head_timer = true;
        self.timers.set(at, Wake::Head(self.workers.key_at(index)));
    }

    /// How long the worker may run its first task before that is late.
    fn patience(&self, index: u32) -> Span {
        let head = self.workers.at(index).in_flight.first();
        let work = head.map_or(0, |head| {
            let task = self.tasks.at(head);
            // An attempt may outlive its task, and the task its service.
            let estimate = || self.services.get(task.service).map_or(0, |it| it.estimate.value());
            if task.work > 0 { task.work } else { estimate() }
        });
        Span(LATE_MIN.0.saturating_add(work.saturating_mul(2)))
    }

    /// Whether the worker's first task is late, and what waits behind it better were elsewhere.
    pub(crate) fn on_head_timer(&mut self, key: WorkerKey, out: &mut impl Outbox<B>) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        worker.has_head_timer = false;
        if worker.in_flight.len() < 2 || worker.is_recalled {
            return;
        }
        let (held, since, group) = (worker.held(), worker.head_since, worker.group);
        let patience = self.patience(key.index());
        let due = since.after(patience);
        if due > self.now {
            return self.set_head_timer(key.index(), due);
        }
        let best = group.and_then(|group| self.groups.get(group)?.best());
        let is_better =
            best.is_some_and(|(other, level)| other != key.index() && (level as u32) + 1 < held);
        if !is_better || !self.recall(key, out) {
            self.set_head_timer(key.index(), self.now.after(patience));
        }
    }

    /// Asks for all but the first. `false`: there is nobody to ask.
    fn recall(&mut self, key: WorkerKey, out: &mut impl Outbox<B>) -> bool {
        let Some(conn) = self.overseer_conn(key) else { return false };
        let worker = self.workers.at(key.index());
        let slot = worker.slot;
        let first = worker.in_flight.first();
        let behind =
            core::iter::successors(first, |index| List::after(&self.tasks, *index)).skip(1);
        let behind = behind.map(|index| self.attempt_of(self.tasks.key_at(index)));
        let attempts: Vec<AttemptId> = behind.take(LIST_MAX).collect();
        self.unlist(key.index());
        self.workers.at_mut(key.index()).is_recalled = true;
        out.send(conn, FromBroker::Recall(Attempts { slot, attempts }));
        true
    }
}
