//! Idempotency keys: requests that name the same one stand for one task, and get its outcome.
//!
//! The task of a key is its own, and nobody's. Each request that names the key follows it: a
//! follower counts in its client's window, waits, and is told how the task has ended. The outcome
//! is kept until the key's time is over and every follower has acknowledged it; followers share it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use pinmesh_protocol::status::Status;

use crate::slab::TaskKey;
use crate::time::Span;

/// What a key costs beside its own bytes and its task, bytes.
pub(crate) const KEY_OVERHEAD_BYTES: u64 = 256;

/// The key of one task.
pub(crate) struct Lead {
    key: Box<[u8]>,
    /// A name, because services are forgotten sooner.
    pub(crate) service: Box<str>,
    /// Requests may still join it, or get what it has ended with.
    is_listed: bool,
    /// How long its outcome is kept.
    pub(crate) kept: Span,
    /// Who waits for it; `true`: by SUBMIT, so that the task goes with the last of them. Those that
    /// FETCH it keep nothing going.
    waiting: BTreeMap<TaskKey, bool>,
    /// Those that have ended with it and are not acknowledged.
    pub(crate) told: u32,
    /// Bytes of its outcome.
    end_bytes: u64,
}

impl Lead {
    fn is_wanted(&self) -> bool {
        self.waiting.values().any(|is_submitted| *is_submitted)
    }

    fn bytes(&self) -> u64 {
        KEY_OVERHEAD_BYTES + self.key.len() as u64 + self.service.len() as u64
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Keys {
    by_key: BTreeMap<Box<[u8]>, TaskKey>,
    leads: BTreeMap<TaskKey, Lead>,
    /// Of the keys themselves, which the memory budget counts beside their tasks.
    bytes: u64,
    /// Of outcomes.
    end_bytes: u64,
}

impl Keys {
    pub(crate) fn find(&self, key: &[u8]) -> Option<TaskKey> {
        self.by_key.get(key).copied()
    }

    /// Tasks that have a key.
    pub(crate) fn len(&self) -> usize {
        self.leads.len()
    }

    pub(crate) fn lead(&self, task: TaskKey) -> Option<&Lead> {
        self.leads.get(&task)
    }

    /// Whether one more may come in.
    pub(crate) fn has_room(&self, count_max: u32, bytes_max: u64) -> bool {
        self.leads.len() < count_max as usize
            && self.bytes.saturating_add(self.end_bytes) < bytes_max
    }

    /// A task of its own has come in for a key. Bytes that it costs.
    pub(crate) fn insert(
        &mut self,
        task: TaskKey,
        key: Box<[u8]>,
        service: Box<str>,
        kept: Span,
    ) -> u64 {
        self.by_key.insert(key.clone(), task);
        let lead = Lead {
            key,
            service,
            is_listed: true,
            kept,
            waiting: BTreeMap::new(),
            told: 0,
            end_bytes: 0,
        };
        let bytes = lead.bytes();
        self.leads.insert(task, lead);
        self.bytes += bytes;
        bytes
    }

    /// A request waits for the task from now on.
    pub(crate) fn join(&mut self, task: TaskKey, follower: TaskKey, is_submitted: bool) {
        if let Some(lead) = self.leads.get_mut(&task) {
            lead.waiting.insert(follower, is_submitted);
        }
    }

    /// The outcome is kept for as long as the longest that any of its requests asked for.
    pub(crate) fn keep_for(&mut self, task: TaskKey, kept: Span) {
        if let Some(lead) = self.leads.get_mut(&task) {
            lead.kept = lead.kept.max(kept);
        }
    }

    /// A request waits no longer. Whether the task was wanted for its sake alone.
    pub(crate) fn leave(&mut self, task: TaskKey, follower: TaskKey) -> bool {
        let Some(lead) = self.leads.get_mut(&task) else { return false };
        lead.waiting.remove(&follower) == Some(true) && !lead.is_wanted()
    }

    /// Whether a request that was handed in waits for it.
    pub(crate) fn is_waited_for(&self, task: TaskKey) -> bool {
        self.leads.get(&task).is_some_and(Lead::is_wanted)
    }

    /// The task has ended: who is to be told.
    pub(crate) fn end(&mut self, task: TaskKey, end_bytes: u64) -> Vec<TaskKey> {
        let Some(lead) = self.leads.get_mut(&task) else { return Vec::new() };
        lead.end_bytes = end_bytes;
        self.end_bytes += end_bytes;
        core::mem::take(&mut lead.waiting).into_keys().collect()
    }

    /// A request is told the outcome, which is kept for it.
    pub(crate) fn tell(&mut self, task: TaskKey) {
        if let Some(lead) = self.leads.get_mut(&task) {
            lead.told += 1;
        }
    }

    /// One that was told has acknowledged it, or is gone. Whether the key is over.
    pub(crate) fn acknowledge(&mut self, task: TaskKey) -> bool {
        let Some(lead) = self.leads.get_mut(&task) else { return false };
        lead.told -= 1;
        lead.told == 0 && !lead.is_listed
    }

    /// The next request with this key is for another task. Whether the key is over.
    pub(crate) fn unlist(&mut self, task: TaskKey) -> bool {
        let Some(lead) = self.leads.get_mut(&task) else { return false };
        if core::mem::take(&mut lead.is_listed) {
            self.by_key.remove(&lead.key);
        }
        lead.told == 0
    }

    /// Forgets a key that is over. The bytes that it cost.
    pub(crate) fn remove(&mut self, task: TaskKey) -> u64 {
        let Some(lead) = self.leads.remove(&task) else { return 0 };
        let bytes = lead.bytes();
        self.bytes -= bytes;
        self.end_bytes -= lead.end_bytes;
        bytes
    }

    /// Whether the task is held for requests that may come, and for nothing else.
    pub(crate) fn is_in_store(&self, task: TaskKey) -> bool {
        self.leads.get(&task).is_some_and(|lead| lead.told == 0)
    }

    /// For the cross-check.
    pub(crate) fn leads(&self) -> impl Iterator<Item = (TaskKey, &Lead)> {
        self.leads.iter().map(|(task, lead)| (*task, lead))
    }

    /// For the cross-check: who waits for that task.
    pub(crate) fn waiting_for(&self, task: TaskKey) -> impl Iterator<Item = TaskKey> {
        self.leads.get(&task).into_iter().flat_map(|lead| lead.waiting.keys().copied())
    }

    /// For the cross-check: bytes of the keys, and whether the two tables and sums agree.
    pub(crate) fn sums(&self) -> (u64, bool) {
        let bytes: u64 = self.leads.values().map(Lead::bytes).sum();
        let end_bytes: u64 = self.leads.values().map(|lead| lead.end_bytes).sum();
        let listed = self.leads.iter().filter(|(_, lead)| lead.is_listed);
        let listed: Vec<_> = listed.map(|(task, lead)| (lead.key.clone(), *task)).collect();
        let is_sound = listed.len() == self.by_key.len()
            && listed.iter().all(|(key, task)| self.by_key.get(key) == Some(task));
        (bytes, is_sound && (bytes, end_bytes) == (self.bytes, self.end_bytes))
    }
}

/// Whether an end is the task's own, so that it is what a later request with its key gets. What was
/// cancelled, or had nobody to run it, has not been tried: the next request is a new task.
pub(crate) const fn is_kept(status: Status) -> bool {
    match status {
        Status::Ok
        | Status::Failed
        | Status::Expired
        | Status::TimedOut
        | Status::Crashed
        | Status::Lost => true,
        Status::Cancelled | Status::NoService | Status::Busy | Status::Refused => false,
    }
}
