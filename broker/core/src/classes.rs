//! What waits for a service: ten priorities, in each of them a flow for every client, which take
//! equal turns, in each flow the oldest task first.

use crate::fair::Ring;
use crate::flow::Flows;
use crate::shares::CLASSES;
use crate::slab::{ServiceKey, Slab, TaskKey};
use crate::task::{NO_FLOW, Task};
use crate::time::Time;

/// Tasks that wait, by priority.
pub(crate) struct Classes {
    rings: [Ring; CLASSES],
    /// How many of each priority wait.
    counts: [u32; CLASSES],
    len: u32,
}

impl Classes {
    pub(crate) const fn new() -> Self {
        Self { rings: [const { Ring::new() }; CLASSES], counts: [0; CLASSES], len: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// How many of each priority wait, priority 1 first.
    pub(crate) fn counts(&self) -> [u32; CLASSES] {
        self.counts
    }

    pub(crate) const fn has(&self, class: usize) -> bool {
        !self.rings[class].is_empty()
    }

    /// The flows of a class.
    pub(crate) fn ring(&self, class: usize) -> &Ring {
        &self.rings[class]
    }

    /// See above.
    #[inline]
    pub(crate) fn ring_mut(&mut self, class: usize) -> &mut Ring {
        &mut self.rings[class]
    }

    /// A task comes to wait: behind the others of its flow, or, if it was with a worker, among them
    /// by its age. `true`: it is the only one of its class.
    #[inline]
    pub(crate) fn insert<B>(
        &mut self,
        (tasks, flows): (&mut Slab<TaskKey, Task<B>>, &mut Flows),
        service: ServiceKey,
        index: u32,
        is_back: bool,
        now: Time,
    ) -> bool {
        let task = tasks.at_mut(index);
        let class = task.class();
        let at = flows.opened(service, class, task.account);
        task.flow = at;
        self.counts[class] += 1;
        self.len += 1;
        let flow = flows.all.at_mut(at);
        let was_empty = flow.is_empty();
        if is_back {
            flow.put_back(tasks, index);
        } else {
            flow.push_back(tasks, index);
        }
        if !was_empty {
            return false;
        }
        flow.pace.begin(now);
        let ring = &mut self.rings[class];
        let is_first = ring.is_empty();
        ring.enter(&mut flows.all, at);
        is_first
    }

    /// A task waits no more. `true`: it was the last one of its class.
    #[inline]
    pub(crate) fn remove<B>(
        &mut self,
        (tasks, flows): (&mut Slab<TaskKey, Task<B>>, &mut Flows),
        index: u32,
    ) -> bool {
        self.len -= 1;
        let task = tasks.at_mut(index);
        let (class, at) = (task.class(), core::mem::replace(&mut task.flow, NO_FLOW));
        self.counts[class] -= 1;
        let flow = flows.all.at_mut(at);
        flow.remove(tasks, index);
        if !flow.is_empty() {
            return false;
        }
        let ring = &mut self.rings[class];
        ring.leave(&mut flows.all, at);
        flows.close(at);
        ring.is_empty()
    }

    /// The next one of a class.
    #[inline]
    pub(crate) fn first<B>(
        &mut self,
        tasks: &Slab<TaskKey, Task<B>>,
        flows: &Flows,
        class: usize,
    ) -> Option<u32> {
        flows.all.at(self.rings[class].first()?).first(tasks)
    }

    /// Those of the same flow as one that waits, the oldest first.
    pub(crate) fn beside<'a, B>(
        &'a self,
        tasks: &'a Slab<TaskKey, Task<B>>,
        flows: &'a Flows,
        index: u32,
    ) -> impl Iterator<Item = u32> + 'a {
        flows.all.at(tasks.at(index).flow).iter(tasks)
    }

    /// Every flow, of whichever class, the oldest task first in each.
    pub(crate) fn flows<'a, B>(
        &'a self,
        tasks: &'a Slab<TaskKey, Task<B>>,
        flows: &'a Flows,
    ) -> impl Iterator<Item = impl Iterator<Item = u32> + 'a> + 'a {
        let all = self.rings.iter().flat_map(|ring| ring.iter(&flows.all));
        all.map(|index| flows.all.at(index).iter(tasks))
    }
}
