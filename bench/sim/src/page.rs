//! A worker's status page, in one process instead of shared memory: the same words, and the same
//! transitions on them. What two processes do at the same instant happens here one after the
//! other, in either order.

use std::collections::BTreeMap;

use pinmesh_protocol::id::{AttemptId, Epoch};
use pinmesh_session::Time;
use pinmesh_session::slots::{
    AttemptWords, BrokerIndex, Flip, Glance, HeldSlot, Lease, Running, RunningWord, SlotState,
    SlotWord, is_refusal_reusable,
};

/// Slots for each broker's attempts; more than any window of the simulation.
const STRIDE: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Refusal {
    words: AttemptWords,
    broker: BrokerIndex,
    entered: u64,
}

#[derive(Clone, Copy, Debug)]
struct LeaseEntry {
    epoch: Epoch,
    until: u64,
    term: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Page {
    turn: u64,
    unended: u32,
    sessions: usize,
    running: RunningWord,
    started: Time,
    max_runtime_ns: u64,
    leases: Vec<LeaseEntry>,
    slots: Vec<(SlotWord, AttemptWords)>,
    refusals: BTreeMap<usize, Vec<Refusal>>,
    /// Buckets and ways of the refusal table: a small one fills up.
    refusal_size: (usize, usize),
}

impl Page {
    /// A page for so many brokers, with a refusal table of so many buckets and ways.
    pub fn new(brokers: usize, refusal_size: (usize, usize)) -> Self {
        Self {
            turn: 0,
            unended: 0,
            sessions: 0,
            running: RunningWord::NONE,
            started: Time(0),
            max_runtime_ns: 0,
            leases: vec![LeaseEntry { epoch: Epoch(0), until: 0, term: 0 }; brokers],
            slots: vec![(SlotWord::FREE, AttemptWords { task: 0, fence: 0 }); brokers * STRIDE],
            refusals: BTreeMap::new(),
            refusal_size,
        }
    }

    /// The slot of a worker's place.
    pub fn slot(broker: usize, index: u32) -> usize {
        assert!((index as usize) < STRIDE, "a worker holds no more than its window");
        broker * STRIDE + index as usize
    }

    /// The word of a slot.
    pub fn word(&self, slot: usize) -> SlotWord {
        self.slots[slot].0
    }
}

/// What the worker does.
impl Page {
    /// The next pass of the loop.
    pub fn turn(&mut self, unended: usize, sessions: usize) {
        self.unended = unended as u32;
        self.sessions = sessions;
        self.turn += 1;
    }

    /// What the broker's lease is now.
    pub fn lease(&self, broker: usize) -> Lease {
        let LeaseEntry { epoch, until, term } = self.leases[broker];
        Lease { epoch, until: Time(until), term }
    }

    /// An attempt has come in. `false`: the slot is in use, which must not be.
    #[must_use]
    pub fn publish(&mut self, slot: usize, broker: usize, attempt: AttemptId) -> bool {
        let Some(next) = self.word(slot).publish(BrokerIndex(broker as u16)) else { return false };
        self.slots[slot] = (next, AttemptWords::new(attempt));
        true
    }

    /// Whether the supervisor has refused what was just published in this slot.
    pub fn is_refused(&mut self, slot: usize, broker: usize, attempt: AttemptId) -> bool {
        let words = AttemptWords::new(attempt);
        let bucket = self.refusals.entry(words.bucket() % self.refusal_size.0).or_default();
        let is_it = |entry: &Refusal| entry.words == words && usize::from(entry.broker.0) == broker;
        let Some(at) = bucket.iter().position(is_it) else { return false };
        bucket.remove(at);
        if let Some(next) = self.word(slot).recall() {
            self.slots[slot].0 = next;
        }
        true
    }

    /// The attempt in this slot starts now. `false`: it was recalled.
    pub fn claim(&mut self, slot: usize, started: Time, max_runtime_ns: u64) -> bool {
        let Some(next) = self.word(slot).claim() else { return false };
        self.slots[slot].0 = next;
        self.started = started;
        self.max_runtime_ns = max_runtime_ns;
        self.running = RunningWord::new(slot, next);
        true
    }

    /// The attempt in this slot has left the handler.
    pub fn end(&mut self, slot: usize) {
        if let Some(next) = self.word(slot).end() {
            self.slots[slot].0 = next;
        }
    }

    /// The slot is needed no more.
    pub fn free(&mut self, slot: usize) {
        self.slots[slot].0 = self.word(slot).free();
    }
}

/// What the supervisor does.
impl Page {
    /// Turn counter, load and running attempt.
    pub fn glance(&self) -> Glance {
        Glance { turn: self.turn, unended: self.unended, running: self.running() }
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    fn running(&self) -> Option<Running> {
        let (word, words) = self.slots[self.running.index()?];
        self.running.is_running(word).then_some(Running {
            broker: word.broker(),
            attempt: words.attempt()?,
            started: self.started,
            max_runtime_ns: self.max_runtime_ns,
        })
    }

    /// Every attempt that has a slot.
    pub fn held(&self) -> Vec<HeldSlot> {
        let used = self.slots.iter().filter(|(word, _)| word.state() != SlotState::Free);
        used.filter_map(|(word, words)| {
            let attempt = words.attempt()?;
            Some(HeldSlot { broker: word.broker(), attempt, state: word.state() })
        })
        .collect()
    }

    fn find(&self, broker: BrokerIndex, attempt: AttemptId) -> Option<usize> {
        let words = AttemptWords::new(attempt);
        self.slots.iter().position(|(word, of)| {
            *of == words && word.broker() == broker && word.state() != SlotState::Free
        })
    }

    /// Takes an attempt back if it has not started.
    pub fn flip(&mut self, broker: BrokerIndex, attempt: AttemptId) -> Flip {
        let Some(slot) = self.find(broker, attempt) else { return Flip::Absent };
        match self.word(slot).state() {
            SlotState::Free => Flip::Absent,
            SlotState::Claimed => Flip::Claimed,
            SlotState::Ended => Flip::Ended,
            SlotState::Recalled => Flip::AlreadyRecalled,
            SlotState::Waiting => match self.word(slot).recall() {
                Some(next) => {
                    self.slots[slot].0 = next;
                    Flip::Recalled
                }
                None => Flip::Absent,
            },
        }
    }

    /// Enters an attempt that has no slot yet. `false`: there is no room.
    pub fn refuse(&mut self, broker: BrokerIndex, attempt: AttemptId, now: Time) -> bool {
        let words = AttemptWords::new(attempt);
        let (buckets, ways) = self.refusal_size;
        let bucket = self.refusals.entry(words.bucket() % buckets).or_default();
        bucket.retain(|entry| !is_refusal_reusable(entry.words.fence, entry.entered, now.0));
        if bucket.len() >= ways {
            return false;
        }
        bucket.push(Refusal { words, broker, entered: now.0 });
        true
    }

    /// Sets the cancel flag of exactly this attempt, if it is in a handler.
    pub fn cancel(&mut self, broker: BrokerIndex, attempt: AttemptId) -> bool {
        let Some(slot) = self.find(broker, attempt) else { return false };
        let Some(next) = self.word(slot).cancel() else { return false };
        self.slots[slot].0 = next;
        true
    }

    /// Shows a broker's lease; 0 ends it and begins a new term.
    pub fn set_lease(&mut self, broker: BrokerIndex, epoch: Epoch, until: Time) {
        let entry = &mut self.leases[usize::from(broker.0)];
        if until.0 == 0 {
            if std::mem::replace(&mut entry.until, 0) != 0 {
                entry.term += 1;
            }
            return;
        }
        entry.epoch = epoch;
        entry.until = until.0;
    }
}
