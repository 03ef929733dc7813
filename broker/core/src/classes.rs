//! Ten priorities: a first-in-first-out list each, and a bitmap of those that are not empty.

use pinmesh_protocol::id::Priority;

use crate::list::{Linked, List};
use crate::slab::{Key, Slab};

const CLASSES: usize = 10;

/// Tasks that wait, by priority.
#[derive(Debug)]
pub(crate) struct Classes {
    lists: [List; CLASSES],
    /// Bit `p - 1` is set where priority `p` has a task.
    ready: u16,
    len: u32,
}

impl Classes {
    pub(crate) const fn new() -> Self {
        Self { lists: [List::EMPTY; CLASSES], ready: 0, len: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The most urgent priority with a task.
    #[inline]
    pub(crate) fn top(&self) -> Option<Priority> {
        (self.ready != 0).then(|| {
            let value = 16 - self.ready.leading_zeros();
            Priority::new(value as u8).expect("only bits 0 to 9 are ever set")
        })
    }

    #[inline]
    pub(crate) fn push_back<K: Key, T: Linked>(
        &mut self,
        slab: &mut Slab<K, T>,
        index: u32,
        priority: Priority,
    ) {
        self.lists[slot(priority)].push_back(slab, index);
        self.added(priority);
    }

    pub(crate) fn push_front<K: Key, T: Linked>(
        &mut self,
        slab: &mut Slab<K, T>,
        index: u32,
        priority: Priority,
    ) {
        self.lists[slot(priority)].push_front(slab, index);
        self.added(priority);
    }

    #[inline]
    pub(crate) fn remove<K: Key, T: Linked>(
        &mut self,
        slab: &mut Slab<K, T>,
        index: u32,
        priority: Priority,
    ) {
        let list = &mut self.lists[slot(priority)];
        list.remove(slab, index);
        if list.is_empty() {
            self.ready &= !(1 << slot(priority));
        }
        self.len -= 1;
    }

    /// The oldest of a priority.
    #[inline]
    pub(crate) fn first(&self, priority: Priority) -> Option<u32> {
        self.lists[slot(priority)].first()
    }

    /// Every list, from priority 1 up.
    pub(crate) fn lists(&self) -> &[List] {
        &self.lists
    }

    fn added(&mut self, priority: Priority) {
        self.ready |= 1 << slot(priority);
        self.len += 1;
    }
}

fn slot(priority: Priority) -> usize {
    usize::from(priority.value() - 1)
}
