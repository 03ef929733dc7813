//! The unresolved requests, by id.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use pinmesh_protocol::command::ClientProgress;
use pinmesh_protocol::id::{ContentType, Dispatch, Epoch, Priority, RequestId, Submission, TaskId};

use super::event::{Cancel, FetchOf, LinkId, NewRequest, ServiceId};
use crate::Time;

/// Where a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In the queue, or a broker's line: no broker has its latest submission.
    Queued,
    /// Waits until then: BUSY.
    Delayed(Time),
    /// Handed to that broker, whose session may be down for the moment.
    Held(LinkId),
}

/// An earlier submission that a broker may still hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Earlier {
    pub(super) link: LinkId,
    pub(super) epoch: Epoch,
    pub(super) submission: Submission,
}

/// The number of an update: of which attempt, and which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Heard {
    epoch: Epoch,
    task: TaskId,
    dispatch: Dispatch,
    sequence: u64,
}

impl Heard {
    /// Takes the next update; `false`: it was heard before, or is of an attempt before.
    pub(super) fn take(&mut self, epoch: Epoch, progress: &ClientProgress<'_>) -> bool {
        let ClientProgress { task, dispatch, sequence, .. } = *progress;
        let next = Self { epoch, task, dispatch, sequence };
        // A broker that had forgotten the request begins anew, with another task.
        let is_new = (epoch, task) != (self.epoch, self.task)
            || (dispatch, sequence) > (self.dispatch, self.sequence);
        if is_new {
            *self = next;
        }
        is_new
    }
}

/// An unresolved request.
#[derive(Debug)]
pub(super) struct Request<B> {
    pub(super) body: B,
    pub(super) bytes: u64,
    pub(super) deadline: Time,
    pub(super) start_at: Option<Time>,
    pub(super) options: Option<Arc<[u8]>>,
    pub(super) service: ServiceId,
    pub(super) content_type: ContentType,
    /// The latest one, sent or about to be.
    pub(super) submission: Submission,
    pub(super) place: Place,
    pub(super) priority: Priority,
    pub(super) is_at_most_once: bool,
    pub(super) shows_busy: bool,
    /// Its caller wants it no longer.
    pub(super) cancel: Option<Cancel>,
    pub(super) key: Option<u64>,
    pub(super) keeps_to_key: bool,
    pub(super) fetch: Option<FetchOf>,
    /// Brokers that do not know what it fetches.
    pub(super) unknown_to: Vec<LinkId>,
    /// The latest update of it.
    pub(super) heard: Heard,
    /// Empty but for requests that moved from a lost broker to another.
    pub(super) earlier: Vec<Earlier>,
}

impl<B> From<NewRequest<B>> for Request<B> {
    fn from(new: NewRequest<B>) -> Self {
        Self {
            body: new.body,
            bytes: new.bytes,
            deadline: new.deadline,
            start_at: new.start_at,
            options: new.options,
            service: new.service,
            content_type: new.content_type,
            submission: Submission(1),
            place: Place::Queued,
            priority: new.priority,
            is_at_most_once: new.is_at_most_once,
            shows_busy: new.shows_busy,
            cancel: None,
            key: new.key,
            keeps_to_key: new.keeps_to_key,
            fetch: new.fetch,
            unknown_to: Vec::new(),
            heard: Heard::default(),
            earlier: Vec::new(),
        }
    }
}

/// Ids are consecutive, so a ring indexed by id needs no hashing. A request that outlives
/// `ring_max` younger ones moves to a map, so that it does not make the ring grow.
#[derive(Debug)]
pub(super) struct Table<B> {
    /// Id of the ring's first slot.
    base: u64,
    ring: VecDeque<Option<Request<B>>>,
    ring_max: usize,
    stragglers: BTreeMap<u64, Request<B>>,
    len: usize,
}

impl<B> Table<B> {
    /// The first id is 1.
    pub(super) fn new(ring_max: usize) -> Self {
        assert!(ring_max > 0, "the ring has at least one slot");
        let (ring, stragglers) = (VecDeque::new(), BTreeMap::new());
        Self { base: 1, ring, ring_max, stragglers, len: 0 }
    }

    /// Unresolved requests.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What [`Table::insert`] will give next.
    pub(super) fn next_id(&self) -> RequestId {
        RequestId(self.base + self.ring.len() as u64)
    }

    pub(super) fn insert(&mut self, request: Request<B>) -> RequestId {
        if self.ring.len() == self.ring_max {
            if let Some(Some(straggler)) = self.ring.pop_front() {
                self.stragglers.insert(self.base, straggler);
            }
            self.base += 1;
        }
        let id = self.next_id();
        self.ring.push_back(Some(request));
        self.len += 1;
        id
    }

    /// Skips an id: it was never unresolved.
    pub(super) fn skip(&mut self) -> RequestId {
        let id = self.next_id();
        if self.ring.is_empty() {
            self.base += 1;
        } else {
            if self.ring.len() == self.ring_max {
                if let Some(Some(straggler)) = self.ring.pop_front() {
                    self.stragglers.insert(self.base, straggler);
                }
                self.base += 1;
            }
            self.ring.push_back(None);
        }
        id
    }

    pub(super) fn request(&self, id: RequestId) -> Option<&Request<B>> {
        match id.0.checked_sub(self.base) {
            Some(index) => self.ring.get(usize::try_from(index).ok()?)?.as_ref(),
            None => self.stragglers.get(&id.0),
        }
    }

    pub(super) fn request_mut(&mut self, id: RequestId) -> Option<&mut Request<B>> {
        match id.0.checked_sub(self.base) {
            Some(index) => self.ring.get_mut(usize::try_from(index).ok()?)?.as_mut(),
            None => self.stragglers.get_mut(&id.0),
        }
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<Request<B>> {
        let removed = match id.0.checked_sub(self.base) {
            Some(index) => self.ring.get_mut(usize::try_from(index).ok()?)?.take(),
            None => self.stragglers.remove(&id.0),
        }?;
        self.len -= 1;
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.base += 1;
        }
        Some(removed)
    }

    /// Ids of the requests for which `is_wanted` holds, oldest first.
    pub(super) fn ids(&self, is_wanted: impl Fn(&Request<B>) -> bool) -> Vec<RequestId> {
        let old = self.stragglers.iter().map(|(&id, request)| (id, request));
        let ring = (self.base..).zip(&self.ring);
        let young = ring.filter_map(|(id, slot)| slot.as_ref().map(|request| (id, request)));
        let wanted = old.chain(young).filter(|(_, request)| is_wanted(request));
        wanted.map(|(id, _)| RequestId(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{RequestId, Table};
    use crate::client::tests::request;

    #[test]
    fn a_straggler_does_not_make_the_ring_grow() {
        let mut table = Table::new(8);
        let straggler = table.insert(request(0).into());
        for body in 1..1000 {
            let id = table.insert(request(body).into());
            assert_eq!(id, RequestId(u64::from(body) + 1));
            assert_eq!(table.remove(id).map(|request| request.body), Some(body));
            assert!(table.ring.len() <= 8);
        }
        assert_eq!(table.request(straggler).map(|request| request.body), Some(0));
        assert_eq!(table.ids(|_| true), [straggler]);
        assert!(table.remove(straggler).is_some());
        assert_eq!(table.len(), 0);
        assert!(table.remove(straggler).is_none());
    }

    #[test]
    fn ids_are_never_used_twice() {
        let mut table = Table::new(4);
        assert_eq!(table.skip(), RequestId(1));
        assert_eq!(table.insert(request(0).into()), RequestId(2));
        assert_eq!(table.skip(), RequestId(3));
        assert!(table.remove(RequestId(2)).is_some());
        assert_eq!(table.insert(request(0).into()), RequestId(4));
        assert!(table.request(RequestId(u64::MAX)).is_none());
    }
}
