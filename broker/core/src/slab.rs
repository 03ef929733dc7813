//! Things by number: a slab whose keys carry a generation, so that an old key finds nothing.

use alloc::vec::Vec;
use core::marker::PhantomData;

/// A key: index in the low half, generation in the high half.
pub(crate) trait Key: Copy {
    /// From the packed form.
    fn from_bits(bits: u64) -> Self;
    /// The packed form.
    fn bits(self) -> u64;

    /// Where the thing stands.
    fn index(self) -> u32 {
        self.bits() as u32
    }
}

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident),+) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub(crate) struct $name(pub(crate) u64);

        impl Key for $name {
            fn from_bits(bits: u64) -> Self { Self(bits) }
            fn bits(self) -> u64 { self.0 }
        }
    )+ };
}

keys! {
    /// A task.
    TaskKey,
    /// A client.
    ClientKey,
    /// A worker.
    WorkerKey,
    /// A host.
    HostKey,
    /// A service.
    ServiceKey,
    /// A group of workers.
    GroupKey,
    /// A timer.
    TimerKey,
    /// What waits in one class of a service for one client.
    FlowKey,
    /// One class of a service in a group of workers.
    MemberKey,
    /// An update of a running task.
    UpdateKey
}

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// See the module.
pub(crate) struct Slab<K, T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    len: usize,
    key: PhantomData<K>,
}

impl<K: Key, T> Slab<K, T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), len: 0, key: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> K {
        self.len += 1;
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            debug_assert!(entry.value.is_none(), "a free entry is empty");
            entry.value = Some(value);
            return Self::key(index, entry.generation);
        }
        let index = self.entries.len() as u32;
        assert!(index < u32::MAX, "fewer than 2^32 things");
        self.entries.push(Entry { generation: 0, value: Some(value) });
        Self::key(index, 0)
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let entry = self.entries.get_mut(key.index() as usize)?;
        if entry.generation != (key.bits() >> 32) as u32 {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.index());
        self.len -= 1;
        Some(value)
    }

    /// Drops the thing where it stands.
    #[inline]
    pub(crate) fn discard(&mut self, key: K) {
        let Some(entry) = self.entries.get_mut(key.index() as usize) else { return };
        if entry.generation == (key.bits() >> 32) as u32 && entry.value.is_some() {
            entry.value = None;
            entry.generation = entry.generation.wrapping_add(1);
            self.free.push(key.index());
            self.len -= 1;
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        let entry = self.entries.get(key.index() as usize)?;
        if entry.generation == (key.bits() >> 32) as u32 { entry.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index() as usize)?;
        if entry.generation == (key.bits() >> 32) as u32 { entry.value.as_mut() } else { None }
    }

    /// The thing of a key or list link that is known to be alive.
    #[inline]
    pub(crate) fn at(&self, index: u32) -> &T {
        self.entries[index as usize]
            .value
            .as_ref()
            .expect("the core keeps links to live things only")
    }

    /// See [`Self::at`].
    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut T {
        self.entries[index as usize]
            .value
            .as_mut()
            .expect("the core keeps links to live things only")
    }

    /// The key of the live thing at this index.
    #[inline]
    pub(crate) fn key_at(&self, index: u32) -> K {
        Self::key(index, self.entries[index as usize].generation)
    }

    /// Every live thing, in the order of its index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            Some((Self::key(index as u32, entry.generation), entry.value.as_ref()?))
        })
    }

    /// The live things among so many places from one on, and where the next page begins; `None`: there
    /// is nothing behind this one. What stays between two pages is on one of them.
    pub(crate) fn page(
        &self,
        from: u32,
        visits: u32,
    ) -> (impl Iterator<Item = (K, &T)>, Option<u32>) {
        let end = (from as usize).saturating_add(visits.max(1) as usize);
        let next = (end < self.entries.len()).then_some(end as u32);
        let range = (from as usize).min(self.entries.len())..end.min(self.entries.len());
        let page = (range.start as u32..).zip(&self.entries[range]).filter_map(|(index, entry)| {
            Some((Self::key(index, entry.generation), entry.value.as_ref()?))
        });
        (page, next)
    }

    fn key(index: u32, generation: u32) -> K {
        K::from_bits(u64::from(generation) << 32 | u64::from(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nothing_after_its_place_was_given_away() {
        let mut slab: Slab<TaskKey, u32> = Slab::new();
        let first = slab.insert(1);
        assert_eq!(slab.remove(first), Some(1));
        let second = slab.insert(2);
        assert_eq!(first.index(), second.index());
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&2));
        assert_eq!(slab.len(), 1);
    }
}
