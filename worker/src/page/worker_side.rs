//! What the worker does to its page. One thread calls these.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use pinmesh_protocol::id::{AttemptId, Epoch};
use pinmesh_session::Time;
use pinmesh_session::slots::{AttemptWords, BrokerIndex, Lease, RunningWord};

use super::{StatusPage, WorkerCounts};

impl StatusPage {
    /// An attempt has come in: shows it in a free slot. After the last one of a message, call
    /// [`StatusPage::settle`].
    pub fn publish(&self, index: usize, broker: BrokerIndex, attempt: AttemptId) {
        let slot = &self.layout().slots[index];
        let Some(next) = self.word(index).publish(broker) else {
            debug_assert!(false, "slot {index} is in use");
            return;
        };
        let words = AttemptWords::new(attempt);
        // A reader that sees a new attempt must also see that the old word is gone.
        fence(Release);
        slot.task.store(words.task, Relaxed);
        slot.fence.store(words.fence, Relaxed);
        slot.word.store(next.to_bits(), Release);
    }

    /// Orders what was published before against the refusals that are read after: of a worker that
    /// publishes and a supervisor that refuses the same attempt, at least one sees the other.
    /// Returns whether there is any refusal to ask for.
    pub fn settle(&self) -> bool {
        fence(SeqCst);
        self.layout().refused_ever.load(Relaxed) != 0
    }

    /// Whether the supervisor has refused the attempt that was just published in this slot; it is
    /// recalled then, and the refusal used up.
    pub fn is_refused(&self, index: usize, broker: BrokerIndex, attempt: AttemptId) -> bool {
        let words = AttemptWords::new(attempt);
        let bucket = &self.layout().refusals[words.bucket()];
        let entry = bucket.iter().find(|entry| {
            let is_match = entry.fence.load(Acquire) == words.fence
                && entry.task.load(Relaxed) == words.task
                && entry.broker.load(Relaxed) == u64::from(broker.0);
            fence(Acquire);
            // Read again: the supervisor may just now overwrite an old entry.
            is_match && entry.fence.load(Relaxed) == words.fence
        });
        let Some(entry) = entry else { return false };
        let word = self.word(index);
        if let Some(next) = word.recall() {
            // Where this fails the supervisor has flipped the slot itself, which is the same.
            let _ = self.swap(index, word, next);
        }
        let _ = entry.fence.compare_exchange(words.fence, 0, AcqRel, Relaxed);
        true
    }

    /// The attempt in this slot starts now. `false`: it was recalled.
    pub fn claim(&self, index: usize, started: Time, max_runtime_ns: u64) -> bool {
        let word = self.word(index);
        let Some(next) = word.claim() else { return false };
        if !self.swap(index, word, next) {
            return false;
        }
        let part = &self.layout().worker;
        part.running.store(RunningWord::NONE.to_bits(), Relaxed);
        fence(Release);
        part.started.store(started.0, Relaxed);
        part.max_runtime.store(max_runtime_ns, Relaxed);
        part.running.store(RunningWord::new(index, next).to_bits(), Release);
        true
    }

    /// The attempt in this slot has left the handler.
    pub fn end(&self, index: usize) {
        let mut word = self.word(index);
        // A cancel may come in between; only that can make the swap fail, and only once.
        while let Some(next) = word.end() {
            if self.swap(index, word, next) {
                return;
            }
            word = self.word(index);
        }
    }

    /// The slot is needed no more.
    pub fn free(&self, index: usize) {
        let mut word = self.word(index);
        while !self.swap(index, word, word.free()) {
            word = self.word(index);
        }
    }

    /// Whether the attempt in this slot is to stop.
    pub fn is_cancelled(&self, index: usize) -> bool {
        self.word(index).is_cancelled()
    }

    /// Begins the next pass of the loop, with so many attempts waiting or running.
    pub fn turn(&self, unended: usize) {
        let part = &self.layout().worker;
        part.unended.store(unended as u64, Relaxed);
        part.turn.store(part.turn.load(Relaxed).wrapping_add(1), Release);
    }

    /// What the broker's lease is now.
    pub fn lease(&self, broker: BrokerIndex) -> Lease {
        let entry = self.lease_entry(broker);
        loop {
            let epoch = entry.epoch.load(Acquire);
            let until = entry.until.load(Acquire);
            let term = entry.term.load(Acquire);
            if entry.epoch.load(Acquire) == epoch {
                return Lease { epoch: Epoch(epoch as u32), until: Time(until), term };
            }
        }
    }

    /// Shows the counters.
    pub fn set_counts(&self, counts: WorkerCounts) {
        let part = &self.layout().worker;
        part.tasks_ok.store(counts.tasks_ok, Relaxed);
        part.tasks_failed.store(counts.tasks_failed, Relaxed);
        part.sessions.store(counts.sessions, Relaxed);
    }
}
