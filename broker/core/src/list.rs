//! Doubly linked lists through the things of a slab: no allocation, removal from the middle in
//! constant time. A thing is in at most one list a link.

use crate::slab::{Key, Slab};

const NIL: u32 = u32::MAX;

/// A thing's neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Links {
    prev: u32,
    next: u32,
}

impl Links {
    pub(crate) const NONE: Self = Self { prev: NIL, next: NIL };
}

/// Something that can stand in a [`List`].
pub(crate) trait Linked {
    fn links(&self) -> Links;
    fn links_mut(&mut self) -> &mut Links;
}

/// Head, tail and length; the rest is in the things themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl List {
    pub(crate) const EMPTY: Self = Self { head: NIL, tail: NIL, len: 0 };

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    pub(crate) fn last(&self) -> Option<u32> {
        (self.tail != NIL).then_some(self.tail)
    }

    /// The one after `index`.
    pub(crate) fn after<K: Key, T: Linked>(slab: &Slab<K, T>, index: u32) -> Option<u32> {
        let next = slab.at(index).links().next;
        (next != NIL).then_some(next)
    }

    #[inline]
    pub(crate) fn push_back<K: Key, T: Linked>(&mut self, slab: &mut Slab<K, T>, index: u32) {
        debug_assert_eq!(slab.at(index).links(), Links::NONE, "in one list at most");
        *slab.at_mut(index).links_mut() = Links { prev: self.tail, next: NIL };
        match self.last() {
            Some(tail) => slab.at_mut(tail).links_mut().next = index,
            None => self.head = index,
        }
        self.tail = index;
        self.len += 1;
    }

    #[inline]
    pub(crate) fn push_front<K: Key, T: Linked>(&mut self, slab: &mut Slab<K, T>, index: u32) {
        debug_assert_eq!(slab.at(index).links(), Links::NONE, "in one list at most");
        *slab.at_mut(index).links_mut() = Links { prev: NIL, next: self.head };
        match self.first() {
            Some(head) => slab.at_mut(head).links_mut().prev = index,
            None => self.tail = index,
        }
        self.head = index;
        self.len += 1;
    }

    #[inline]
    pub(crate) fn remove<K: Key, T: Linked>(&mut self, slab: &mut Slab<K, T>, index: u32) {
        let Links { prev, next } = slab.at(index).links();
        if prev == NIL {
            debug_assert_eq!(self.head, index, "a thing without a predecessor is the head");
            self.head = next;
        } else {
            slab.at_mut(prev).links_mut().next = next;
        }
        if next == NIL {
            debug_assert_eq!(self.tail, index, "a thing without a successor is the tail");
            self.tail = prev;
        } else {
            slab.at_mut(next).links_mut().prev = prev;
        }
        *slab.at_mut(index).links_mut() = Links::NONE;
        self.len -= 1;
    }
}
