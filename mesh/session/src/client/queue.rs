//! Requests that wait to be handed in, by id, in the order of their coming.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use pinmesh_protocol::id::RequestId;

use super::table::{Place, Table};

/// Entries of requests that were resolved while they waited are skipped when they come to the front.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<RequestId>);

impl Queue {
    pub(super) fn push<B>(&mut self, id: RequestId, table: &Table<B>) {
        // Behind a front that does not move, skipped entries must not pile up.
        if self.0.len() > 2 * table.len() + 64 {
            let is_queued = |id: &RequestId| {
                table.request(*id).is_some_and(|request| request.place == Place::Queued)
            };
            self.0.retain(is_queued);
        }
        self.0.push_back(id);
    }

    /// Puts these before all others, in their order.
    pub(super) fn prepend(&mut self, ids: Vec<RequestId>) {
        let mut all = VecDeque::from(ids);
        all.append(&mut self.0);
        self.0 = all;
    }

    pub(super) fn front(&self) -> Option<RequestId> {
        self.0.front().copied()
    }

    pub(super) fn pop(&mut self) -> Option<RequestId> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RequestId> {
        self.0.iter()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> impl Iterator<Item = RequestId> {
        core::mem::take(&mut self.0).into_iter()
    }
}
