//! Ten priorities: a first-in-first-out list each, and a bitmap of those that are not empty. Tasks
//! that came back from a worker wait beside the lists, in order of age; the oldest of both is first.

use alloc::collections::BTreeMap;

use pinmesh_protocol::id::Priority;

use crate::list::List;
use crate::slab::{Slab, TaskKey};
use crate::task::Task;

const CLASSES: usize = 10;

/// Tasks that wait, by priority.
#[derive(Debug)]
pub(crate) struct Classes {
    lists: [List; CLASSES],
    /// Bit `p - 1` is set where priority `p` has a task.
    ready: u16,
    /// Those that came back, by priority and age.
    returned: BTreeMap<(Priority, u64), u32>,
    /// How many of each priority wait.
    counts: [u32; CLASSES],
    len: u32,
}

impl Classes {
    pub(crate) const fn new() -> Self {
        Self {
            lists: [List::EMPTY; CLASSES],
            ready: 0,
            returned: BTreeMap::new(),
            counts: [0; CLASSES],
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// How many of each priority wait, priority 1 first.
    pub(crate) fn counts(&self) -> [u32; CLASSES] {
        self.counts
    }

    /// The most urgent priority with a task.
    #[inline]
    pub(crate) fn top(&self) -> Option<Priority> {
        let waiting = (self.ready != 0).then(|| {
            let value = 16 - self.ready.leading_zeros();
            Priority::new(value as u8).expect("only bits 0 to 9 are ever set")
        });
        waiting.max(self.returned.last_key_value().map(|((priority, _), _)| *priority))
    }

    /// A task that has just come in.
    #[inline]
    pub(crate) fn push_back<B>(&mut self, tasks: &mut Slab<TaskKey, Task<B>>, index: u32) {
        let priority = tasks.at(index).priority;
        self.lists[slot(priority)].push_back(tasks, index);
        self.ready |= 1 << slot(priority);
        self.counts[slot(priority)] += 1;
        self.len += 1;
    }

    /// A task that was with a worker.
    pub(crate) fn put_back<B>(&mut self, tasks: &mut Slab<TaskKey, Task<B>>, index: u32) {
        let task = tasks.at_mut(index);
        task.has_returned = true;
        self.returned.insert((task.priority, task.age), index);
        self.counts[slot(task.priority)] += 1;
        self.len += 1;
    }

    #[inline]
    pub(crate) fn remove<B>(&mut self, tasks: &mut Slab<TaskKey, Task<B>>, index: u32) {
        self.len -= 1;
        let task = tasks.at_mut(index);
        let priority = task.priority;
        self.counts[slot(priority)] -= 1;
        if core::mem::take(&mut task.has_returned) {
            self.returned.remove(&(priority, task.age));
            return;
        }
        let list = &mut self.lists[slot(priority)];
        list.remove(tasks, index);
        if list.is_empty() {
            self.ready &= !(1 << slot(priority));
        }
    }

    /// The oldest of a priority.
    #[inline]
    pub(crate) fn first<B>(
        &self,
        tasks: &Slab<TaskKey, Task<B>>,
        priority: Priority,
    ) -> Option<u32> {
        let listed = self.lists[slot(priority)].first();
        if self.returned.is_empty() {
            return listed;
        }
        // Most often whatever was sent was older than all that waited on, but for a task that took
        // over an attempt of an earlier epoch.
        let returned = self.returned_of(priority).next();
        returned.into_iter().chain(listed).min_by_key(|index| tasks.at(*index).age)
    }

    /// Every class, from priority 1 up, the oldest first in each.
    pub(crate) fn classes<'a, B>(
        &'a self,
        tasks: &'a Slab<TaskKey, Task<B>>,
    ) -> impl Iterator<Item = impl Iterator<Item = u32> + 'a> + 'a {
        let priorities = (1..=CLASSES as u8).filter_map(Priority::new);
        priorities.map(move |priority| {
            let first = self.lists[slot(priority)].first();
            let listed = core::iter::successors(first, |index| List::after(tasks, *index));
            let mut listed = listed.peekable();
            let mut returned = self.returned_of(priority).peekable();
            core::iter::from_fn(move || match (returned.peek(), listed.peek()) {
                (Some(left), Some(right)) if tasks.at(*right).age < tasks.at(*left).age => {
                    listed.next()
                }
                (Some(_), _) => returned.next(),
                (None, _) => listed.next(),
            })
        })
    }

    fn returned_of(&self, priority: Priority) -> impl Iterator<Item = u32> {
        self.returned.range((priority, 0)..=(priority, u64::MAX)).map(|(_, index)| *index)
    }
}

fn slot(priority: Priority) -> usize {
    usize::from(priority.value() - 1)
}
