//! Which task goes to which worker. Join-bounded-shortest-queue: tasks wait in the broker, a worker
//! holds at most its window, and the one with the fewest in flight is chosen, the most recently idle
//! among equals. Among tasks: class, then service, then client, each by deficit round robin; then the
//! oldest first.

use pinmesh_protocol::command::FromBroker;
use pinmesh_protocol::id::TaskId;

use crate::event::Body;
use crate::group::{Group, Served};
use crate::list::List;
use crate::outbox::{Outbox, TaskHead};
use crate::service::Serving;
use crate::slab::{GroupKey, Key, ServiceKey, TaskKey};
use crate::state::State;

impl<B: Body> State<B> {
    /// A new task may go to a worker that has credit without waiting: nothing else waits for that
    /// worker then, so it was nobody's turn, and nobody is charged.
    #[inline]
    pub(crate) fn is_sent_at_once(&mut self, key: TaskKey, out: &mut impl Outbox<B>) -> bool {
        let task = self.tasks.at(key.index());
        let service = self.services.at(task.service);
        if service.waiting.len() > 0 || !service.is_in_turn {
            return false;
        }
        let Some((serving, worker)) = self.best_for(task.service) else { return false };
        let is_over = task.deadline.is_some_and(|deadline| deadline <= self.now);
        if is_over || !self.workers.at(worker).fits(task.payload_bytes, serving.offered) {
            return false;
        }
        self.send_task(key, worker, serving.offered, out);
        true
    }

    /// Of the workers with credit that serve it the one with the fewest in flight.
    #[inline]
    fn best_for(&self, service: ServiceKey) -> Option<(Serving, u32)> {
        let groups = self.services.at(service).groups.iter();
        let best = groups
            .filter_map(|serving| Some((*serving, self.groups.get(serving.group)?.best()?)))
            .min_by_key(|(_, (_, level))| *level);
        best.map(|(serving, (worker, _))| (serving, worker))
    }

    /// A task came to wait for `service`.
    #[inline]
    pub(crate) fn dispatch_service(&mut self, service: ServiceKey, out: &mut impl Outbox<B>) {
        loop {
            let queue = self.services.at(service);
            if queue.waiting.len() == 0 || !queue.is_in_turn {
                return;
            }
            let Some((serving, worker)) = self.best_for(service) else { return };
            let Some((task, serving)) = self.next_task(serving.group) else { return };
            self.offer(task, worker, serving, out);
        }
    }

    /// A worker of `group` has credit.
    #[inline]
    pub(crate) fn dispatch_group(&mut self, key: GroupKey, out: &mut impl Outbox<B>) {
        while let Some((worker, _)) = self.groups.get(key).and_then(Group::best) {
            let Some((task, serving)) = self.next_task(key) else { return };
            self.offer(task, worker, serving, out);
        }
    }

    /// The task whose turn it is in the group, and how that serves it.
    #[inline]
    fn next_task(&mut self, key: GroupKey) -> Option<(u32, Serving)> {
        let group = self.groups.get_mut(key)?;
        let (place, class) = group.next(self.config.is_strict)?;
        let Served { service, offered } = group.served[place as usize];
        let service = self.services.at_mut(service);
        let task = service.waiting.first(&self.tasks, &self.flows, class)?;
        Some((task, Serving { group: key, place, offered }))
    }

    /// Sends the task to the worker, or, where it does not fit the worker's bytes or its credit, takes
    /// the worker off the list until it has finished something.
    #[inline]
    fn offer(&mut self, task: u32, worker: u32, serving: Serving, out: &mut impl Outbox<B>) {
        let key: TaskKey = self.tasks.key_at(task);
        let waiting = self.tasks.at(task);
        if waiting.deadline.is_some_and(|deadline| deadline <= self.now) {
            self.expire(key, out);
        } else if self.workers.at(worker).fits(waiting.payload_bytes, serving.offered) {
            self.charge(key, serving.group, serving.place);
            self.unqueue(key);
            self.send_task(key, worker, serving.offered, out);
        } else {
            self.unlist(worker);
        }
    }

    #[inline]
    fn send_task(
        &mut self,
        key: TaskKey,
        worker_index: u32,
        offered: u32,
        out: &mut impl Outbox<B>,
    ) {
        let worker = self.workers.at(worker_index);
        let (work, is_probe) = (worker.credits[offered as usize].work(), worker.held() == 0);
        let task = self.tasks.at_mut(key.index());
        (task.offered, task.work, task.is_probe) = (offered, work, is_probe);
        self.occupy(key, worker_index);
        self.ledger.dispatched += 1;
        self.charge_rate(self.tasks.at(key.index()).service);
        self.acknowledge_first(worker_index, out);
        let now = self.now;
        let client_id = self.client_id(self.tasks.at(key.index()));
        let task = self.tasks.at_mut(key.index());
        task.dispatch.0 += 1;
        task.is_closed = false;
        task.dispatched_at = now;
        let worker = self.workers.at(worker_index);
        let head = TaskHead {
            task: TaskId(key.bits()),
            dispatch: task.dispatch,
            client_id: client_id.unwrap_or_default(),
            request_id: task.request_id,
            submission: task.submission,
            service_alias: worker.aliases[offered as usize],
            tries: task.tries,
            deadline_ns: task.deadline.map(|deadline| deadline.since(now).0),
            max_runtime_ns: task.max_runtime.0,
        };
        let (Some(conn), Some(body)) = (worker.conn, task.body.as_ref()) else {
            unreachable!("a worker with credit has a session, a task that waits has its body")
        };
        out.task(conn, &head, body);
    }

    /// A worker counts its ends in its window until they are acknowledged: one that is full by its
    /// own count must read the ACK before the next TASK, or it would give that back.
    #[inline]
    fn acknowledge_first(&mut self, worker: u32, out: &mut impl Outbox<B>) {
        let worker = self.workers.at(worker);
        let Some(conn) = worker.conn else { return };
        let Some(session) = self.sessions.get_mut(conn) else { return };
        let (tasks, bytes) = worker.own_window;
        let held = u64::from(worker.in_flight.len()) + session.unacknowledged();
        let held_bytes = worker.in_flight_bytes.saturating_add(session.unacknowledged_bytes);
        if (held > u64::from(tasks) || held_bytes > bytes)
            && let Some(taken) = session.acknowledge()
        {
            out.send(conn, FromBroker::Ack(taken));
        }
    }

    /// Every group takes what waits for it: after changes to many workers at once.
    pub(crate) fn dispatch_all(&mut self, out: &mut impl Outbox<B>) {
        let groups: alloc::vec::Vec<_> = self.groups.iter().map(|(key, _)| key).collect();
        for group in groups {
            self.dispatch_group(group, out);
        }
    }

    /// Keys of what a worker holds, in the order in which it was sent.
    pub(crate) fn held_by(&self, worker: u32) -> alloc::vec::Vec<TaskKey> {
        let mut held = alloc::vec::Vec::new();
        let mut next = self.workers.at(worker).in_flight.first();
        while let Some(index) = next {
            held.push(self.tasks.key_at(index));
            next = List::after(&self.tasks, index);
        }
        held
    }
}
