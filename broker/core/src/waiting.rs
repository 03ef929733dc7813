//! How tasks come to wait, stop waiting, and are paid for by those whose turn it was.

use crate::event::Body;
use crate::fair::{COST_MAX, COST_MIN};
use crate::outbox::Outbox;
use crate::slab::{FlowKey, GroupKey, Key, TaskKey};
use crate::state::State;
use crate::task::{NO_FLOW, TaskState};
use crate::time::Span;

/// Who pays for an attempt, and how much was charged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    /// Nanoseconds; 0: nobody pays, because nobody had to wait for it.
    cost: u64,
    group: GroupKey,
    /// Of the group: the service in its class.
    member: u32,
    /// The client in its class of the service.
    flow: FlowKey,
}

impl Charge {
    pub(crate) const NONE: Self = Self { cost: 0, group: GroupKey(0), member: 0, flow: FlowKey(0) };
}

/// What a task of the service should cost, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    /// A moving average of what its tasks did cost.
    mean: u64,
    /// What 95 of 100 were away for at most, from being sent to their end: what a worker held before
    /// them counts. Up by 19 steps where one was away longer, down by one where it was not.
    away_p95: u64,
}

impl Estimate {
    pub(crate) const UNKNOWN: Self = Self { mean: 0, away_p95: 0 };

    /// The least where nothing is known.
    #[inline]
    pub(crate) const fn value(self) -> u64 {
        if self.mean > COST_MIN { self.mean } else { COST_MIN }
    }

    pub(crate) const fn away_p95(self) -> u64 {
        self.away_p95
    }

    /// One of its tasks has cost that, and was away for so long.
    #[inline]
    pub(crate) const fn add(&mut self, cost: u64, away: u64) {
        if self.mean == 0 {
            (self.mean, self.away_p95) = (cost, away);
            return;
        }
        if cost > self.mean {
            self.mean += (cost - self.mean) / 8;
        } else {
            self.mean -= (self.mean - cost) / 8;
        }
        let step = self.away_p95 / 256;
        if away > self.away_p95 {
            self.away_p95 = self.away_p95.saturating_add(19 * step + 1);
        } else {
            self.away_p95 -= step;
        }
    }
}

impl<B: Body> State<B> {
    /// A new task: it goes to a worker at once, or waits for one.
    #[inline]
    pub(crate) fn enqueue(&mut self, key: TaskKey, out: &mut impl Outbox<B>) {
        if self.is_sent_at_once(key, out) {
            return;
        }
        let service = self.tasks.at(key.index()).service;
        self.wait(key, false);
        self.dispatch_service(service, out);
        self.watch_service(service);
    }

    /// A task stands in its queue from now on: as the latest, or, if it `is_back`, by its age.
    #[inline]
    pub(crate) fn wait(&mut self, key: TaskKey, is_back: bool) {
        let task = self.tasks.at(key.index());
        let (service_key, class) = (task.service, task.class());
        let service = self.services.at_mut(service_key);
        let slabs = (&mut self.tasks, &mut self.flows);
        let is_first = service.waiting.insert(slabs, service_key, key.index(), is_back, self.now);
        if is_first && service.is_in_turn {
            for serving in &service.groups {
                self.groups.at_mut(serving.group.index()).enter(serving.place, class);
            }
        }
    }

    /// Takes a task out of its queue, or from those that are delayed, if it stands there.
    #[inline]
    pub(crate) fn unqueue(&mut self, key: TaskKey) {
        let task = self.tasks.at(key.index());
        if task.flow == NO_FLOW {
            self.delayed -= u64::from(task.state == TaskState::Delayed);
            return;
        }
        let class = task.class();
        let service = self.services.at_mut(task.service);
        let is_last = service.waiting.remove((&mut self.tasks, &mut self.flows), key.index());
        if is_last && service.is_in_turn {
            for serving in &service.groups {
                self.groups.at_mut(serving.group.index()).leave(serving.place, class);
            }
        }
        if service.waiting.len() == 0
            && let Some(timer) = service.timer.take()
        {
            self.timers.cancel(timer);
        }
    }

    /// A task whose turn it was goes to a worker of the group: its class, its service there and its
    /// client are charged what it should cost.
    #[inline]
    pub(crate) fn charge(&mut self, key: TaskKey, group_key: GroupKey, place: u32) {
        let task = self.tasks.at_mut(key.index());
        let (class, flow) = (task.class(), task.flow);
        let service = self.services.at_mut(task.service);
        let cost = service.estimate.value();
        let member = self.groups.at_mut(group_key.index()).charge(place, class, cost);
        service.waiting.ring_mut(class).charge(&mut self.flows.all, flow, cost);
        self.flows.all.at_mut(flow).pace.on_sent(self.now);
        let flow = self.flows.all.key_at(flow);
        task.charge = Charge { cost, group: group_key, member, flow };
    }

    /// An attempt has ended after so many nanoseconds with its worker and in its handler.
    #[inline]
    pub(crate) fn settle(&mut self, key: TaskKey, residence_ns: u64, service_ns: u64) {
        let now = self.now;
        let task = self.tasks.at_mut(key.index());
        let (service, class) = (task.service, task.class());
        let charge = core::mem::replace(&mut task.charge, Charge::NONE);
        // Whatever a worker says, it was not longer than it was away.
        let away = now.since(task.dispatched_at).0;
        let took = service_ns.min(away);
        let cost = took.clamp(COST_MIN, COST_MAX);
        let Some(service) = self.services.get_mut(service) else { return };
        if task.occupies
            && let Some(worker) = self.workers.get_mut(task.worker)
            && service.is_served_by(worker.group, task.offered)
        {
            let on_its_way = Span(away.saturating_sub(residence_ns));
            worker.learn(task.offered, Span(took), on_its_way, task.is_probe);
        }
        service.estimate.add(cost, away);
        if charge.cost == 0 {
            return;
        }
        if let Some(group) = self.groups.get_mut(charge.group) {
            group.correct(charge.member, class, charge.cost, cost);
        }
        if self.flows.all.get(charge.flow).is_some() {
            let ring = service.waiting.ring_mut(class);
            ring.correct(&mut self.flows.all, charge.flow.index(), charge.cost, cost);
        }
    }

    /// An attempt comes back: whoever paid for it has that back.
    pub(crate) fn refund(&mut self, key: TaskKey) {
        let task = self.tasks.at_mut(key.index());
        let (service, class) = (task.service, task.class());
        let charge = core::mem::replace(&mut task.charge, Charge::NONE);
        if charge.cost == 0 {
            return;
        }
        if let Some(group) = self.groups.get_mut(charge.group) {
            group.refund(charge.member, class, charge.cost);
        }
        if self.flows.all.get(charge.flow).is_some() {
            let ring = self.services.at_mut(service).waiting.ring_mut(class);
            ring.refund(&mut self.flows.all, charge.flow.index(), charge.cost);
        }
    }
}
