//! Clients: their requests, what they have unfinished, and the results that they have yet to take.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};

use hashbrown::HashTable;
use pinmesh_protocol::id::{PeerId, RequestId};

use crate::event::Conn;
use crate::flow::Account;
use crate::slab::{TaskKey, TimerKey, UpdateKey};

/// One client process.
pub(crate) struct Client {
    pub(crate) peer_id: PeerId,
    /// Of its HELLO, for people.
    pub(crate) name: Box<str>,
    pub(crate) account: Account,
    pub(crate) conn: Option<Conn>,
    pub(crate) is_full: bool,
    /// Unfinished: accepted and its end not yet acknowledged.
    pub(crate) tasks: u32,
    pub(crate) bytes: u64,
    pub(crate) results: Results,
    /// Bytes of updates of kind `stream` among them.
    pub(crate) stream_bytes: u64,
    /// Tasks of which an update of kind `latest` waits until it can be told.
    pub(crate) latest: BTreeSet<TaskKey>,
    /// Runs while it has no session.
    pub(crate) lost_timer: Option<TimerKey>,
    requests: HashTable<(RequestId, TaskKey)>,
    /// Unknown to the client, who chooses the request ids.
    seed: u64,
}

/// What a client is told and acknowledges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InLine {
    /// No task stands behind it (BUSY, REFUSED); a reconnect drops it.
    Answer,
    /// The RESULT of a task.
    Result(TaskKey),
    /// A PROGRESS of kind `stream`.
    Update(UpdateKey),
}

/// Results and updates in the order in which they are sent; acknowledged from the front.
pub(crate) struct Results {
    queue: VecDeque<InLine>,
    /// How many of `queue` are updates.
    updates: usize,
    /// How many of `queue` have been sent in this session.
    sent: usize,
    /// How many were acknowledged in this session.
    acknowledged: u64,
    /// Bytes of those that were sent in this session and are not acknowledged.
    ahead_bytes: u64,
}

impl Client {
    pub(crate) fn new(peer_id: PeerId, name: &str, seed: u64) -> Self {
        Self {
            peer_id,
            name: name.into(),
            account: Account::of(name, seed),
            conn: None,
            is_full: false,
            tasks: 0,
            bytes: 0,
            results: Results {
                queue: VecDeque::new(),
                updates: 0,
                sent: 0,
                acknowledged: 0,
                ahead_bytes: 0,
            },
            stream_bytes: 0,
            latest: BTreeSet::new(),
            lost_timer: None,
            requests: HashTable::new(),
            seed,
        }
    }

    #[inline]
    pub(crate) fn request(&self, id: RequestId) -> Option<TaskKey> {
        self.requests.find(hash(id, self.seed), |entry| entry.0 == id).map(|entry| entry.1)
    }

    #[inline]
    pub(crate) fn insert_request(&mut self, id: RequestId, task: TaskKey) {
        let seed = self.seed;
        self.requests.insert_unique(hash(id, seed), (id, task), |entry| hash(entry.0, seed));
    }

    /// Forgets the request, if it still stands for this task.
    #[inline]
    pub(crate) fn remove_request(&mut self, id: RequestId, task: TaskKey) {
        let hash = hash(id, self.seed);
        if let Ok(entry) = self.requests.find_entry(hash, |entry| *entry == (id, task)) {
            entry.remove();
        }
    }

    /// Tasks of every request, oldest key first.
    pub(crate) fn tasks_sorted(&self) -> alloc::vec::Vec<TaskKey> {
        let mut tasks: alloc::vec::Vec<_> = self.requests.iter().map(|entry| entry.1).collect();
        tasks.sort_unstable();
        tasks
    }
}

impl Results {
    /// Those that are no updates.
    pub(crate) fn len(&self) -> usize {
        self.queue.len() - self.updates
    }

    #[inline]
    pub(crate) fn push(&mut self, next: InLine) {
        self.updates += usize::from(matches!(next, InLine::Update(_)));
        self.queue.push_back(next);
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn is_all_sent(&self) -> bool {
        self.sent == self.queue.len()
    }

    /// Notes an answer that is sent ahead of what waits unsent.
    pub(crate) fn push_sent(&mut self) {
        self.queue.insert(self.sent, InLine::Answer);
        self.sent += 1;
    }

    /// The next one to send; counts it as sent.
    #[inline]
    pub(crate) fn next_unsent(&mut self) -> Option<InLine> {
        let next = self.queue.get(self.sent).copied()?;
        self.sent += 1;
        Some(next)
    }

    /// The one after those that have been sent.
    #[inline]
    pub(crate) fn first_unsent(&self) -> Option<InLine> {
        self.queue.get(self.sent).copied()
    }

    /// Whether a result of so many bytes may go out before earlier ones are acknowledged; one at a
    /// time always may.
    #[inline]
    pub(crate) const fn may_send(&self, bytes: u64, ahead_bytes_max: u64) -> bool {
        self.ahead_bytes == 0 || self.ahead_bytes.saturating_add(bytes) <= ahead_bytes_max
    }

    /// So many bytes went out.
    #[inline]
    pub(crate) const fn add_ahead(&mut self, bytes: u64) {
        self.ahead_bytes += bytes;
    }

    /// So many were acknowledged.
    #[inline]
    pub(crate) const fn remove_ahead(&mut self, bytes: u64) {
        self.ahead_bytes -= bytes;
    }

    /// Takes `ACK count`: the next acknowledged one, or `None` when all of those are taken.
    /// A count beyond what was sent takes what was sent.
    #[inline]
    pub(crate) fn next_acknowledged(&mut self, count: u64) -> Option<InLine> {
        if self.acknowledged >= count || self.sent == 0 {
            return None;
        }
        self.acknowledged += 1;
        self.sent -= 1;
        let next = self.queue.pop_front();
        self.updates -= usize::from(matches!(next, Some(InLine::Update(_))));
        next
    }

    /// A new session: everything that a task stands behind is to be sent again.
    pub(crate) fn restart(&mut self) {
        self.queue.retain(|next| *next != InLine::Answer);
        self.sent = 0;
        self.acknowledged = 0;
        self.ahead_bytes = 0;
    }
}

/// One multiplication spreads consecutive ids over the table's groups; its halves are folded, so that
/// high bits count as much as low ones. Without the seed nobody can choose ids that collide.
#[inline]
fn hash(id: RequestId, seed: u64) -> u64 {
    let product = u128::from(id.0 ^ seed) * 0x9e37_79b9_7f4a_7c15_u128;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    #[test]
    fn request_ids_spread_over_both_ends_of_the_hash_wherever_they_count() {
        for shift in [0, 8, 20, 32, 44, 52] {
            for seed in [0, 0x0123_4567_89ab_cdef] {
                let hashes = (0..4_096_u64).map(|n| hash(RequestId(n << shift), seed));
                let low: BTreeSet<_> = hashes.clone().map(|hash| hash & 0xfff).collect();
                let high: BTreeSet<_> = hashes.map(|hash| hash >> 57).collect();
                let spread = (low.len(), high.len());
                assert!(low.len() > 2_048 && high.len() > 64, "{shift} {seed}: {spread:?}");
            }
        }
    }

    #[test]
    fn ids_that_collide_under_one_seed_do_not_under_another() {
        let collide = |seed| (0..1 << 20).filter(move |n| hash(RequestId(*n), seed) & 0xfff == 0);
        let chosen: Vec<u64> = collide(1).collect();
        let still = chosen.iter().filter(|n| hash(RequestId(**n), 0xdead_beef) & 0xfff == 0);
        assert!(chosen.len() > 100 && still.count() < chosen.len() / 8);
    }
}
