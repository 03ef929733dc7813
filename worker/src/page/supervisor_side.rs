//! What the supervisor reads on a page and does to it.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use pinmesh_protocol::id::{AttemptId, Epoch};
use pinmesh_session::Time;
use pinmesh_session::slots::{
    AttemptWords, BrokerIndex, Flip, Glance, HeldSlot, Running, RunningWord, SLOTS, SlotState,
    SlotWord, is_refusal_reusable,
};

use super::{StatusPage, WorkerCounts};

impl StatusPage {
    /// Turn counter, load and running attempt.
    pub fn glance(&self) -> Glance {
        let part = &self.layout().worker;
        Glance {
            turn: part.turn.load(Acquire),
            unended: u32::try_from(part.unended.load(Relaxed)).unwrap_or(u32::MAX),
            running: self.running(),
        }
    }

    /// The counters.
    pub fn counts(&self) -> WorkerCounts {
        let part = &self.layout().worker;
        WorkerCounts {
            tasks_ok: part.tasks_ok.load(Relaxed),
            tasks_failed: part.tasks_failed.load(Relaxed),
            sessions: part.sessions.load(Relaxed),
        }
    }

    /// The attempt in the handler; `None` between two, and while the worker moves from one to the
    /// next. Of a worker that was stopped before the call, the answer stays true until it goes on.
    pub fn running(&self) -> Option<Running> {
        let part = &self.layout().worker;
        let running = part.running.load(Acquire);
        let index = RunningWord::from_bits(running).index()?;
        let (started, max_runtime_ns) =
            (part.started.load(Relaxed), part.max_runtime.load(Relaxed));
        fence(Acquire);
        let word = self.word(index);
        let attempt = self.attempt_of(index)?;
        fence(Acquire);
        let is_same = part.running.load(Relaxed) == running
            && self.word(index).generation() == word.generation();
        (is_same && RunningWord::from_bits(running).is_running(word)).then_some(Running {
            broker: word.broker(),
            attempt,
            started: Time(started),
            max_runtime_ns,
        })
    }

    /// Every attempt that has a slot.
    pub fn held(&self) -> Vec<HeldSlot> {
        (0..SLOTS).filter_map(|index| self.held_in(index).map(|(_, held)| held)).collect()
    }

    fn held_in(&self, index: usize) -> Option<(SlotWord, HeldSlot)> {
        loop {
            let word = self.word(index);
            if word.state() == SlotState::Free {
                return None;
            }
            let attempt = self.attempt_of(index);
            fence(Acquire);
            let again = self.word(index);
            if again.generation() == word.generation() && again.state() != SlotState::Free {
                let (broker, state) = (again.broker(), again.state());
                return attempt.map(|attempt| (again, HeldSlot { broker, attempt, state }));
            }
        }
    }

    fn find(&self, broker: BrokerIndex, attempt: AttemptId) -> Option<(usize, SlotWord)> {
        let words = AttemptWords::new(attempt);
        (0..SLOTS).find_map(|index| {
            let slot = &self.layout().slots[index];
            // Most slots fall out here, without the ordered reads.
            if slot.fence.load(Relaxed) != words.fence || slot.task.load(Relaxed) != words.task {
                return None;
            }
            let (word, held) = self.held_in(index)?;
            (held.attempt == attempt && held.broker == broker).then_some((index, word))
        })
    }

    /// Takes an attempt back if it has not started.
    pub fn flip(&self, broker: BrokerIndex, attempt: AttemptId) -> Flip {
        // A refusal or an earlier publication by the worker must be seen: see `settle`.
        fence(SeqCst);
        loop {
            let Some((index, word)) = self.find(broker, attempt) else { return Flip::Absent };
            match word.state() {
                SlotState::Free => return Flip::Absent,
                SlotState::Claimed => return Flip::Claimed,
                SlotState::Ended => return Flip::Ended,
                SlotState::Recalled => return Flip::AlreadyRecalled,
                SlotState::Waiting => {
                    if word.recall().is_some_and(|next| self.swap(index, word, next)) {
                        return Flip::Recalled;
                    }
                }
            }
        }
    }

    /// Enters an attempt that has no slot yet, so that the worker gives it up when it reads it.
    /// `false`: there is no room, and the attempt runs. After `true`, [`StatusPage::flip`] again:
    /// it is given back only if it is `Absent`, `Recalled` or `AlreadyRecalled` then.
    pub fn refuse(&self, broker: BrokerIndex, attempt: AttemptId, now: Time) -> bool {
        let words = AttemptWords::new(attempt);
        let bucket = &self.layout().refusals[words.bucket()];
        let entry = bucket.iter().find(|entry| {
            is_refusal_reusable(entry.fence.load(Acquire), entry.entered.load(Relaxed), now.0)
        });
        let Some(entry) = entry else { return false };
        entry.fence.store(0, Release);
        fence(Release);
        entry.task.store(words.task, Relaxed);
        entry.broker.store(u64::from(broker.0), Relaxed);
        entry.entered.store(now.0, Relaxed);
        entry.fence.store(words.fence, Release);
        self.layout().refused_ever.store(1, Relaxed);
        fence(SeqCst);
        true
    }

    /// Asks the handler of exactly this attempt to stop. `false`: it is not in a handler.
    pub fn cancel(&self, broker: BrokerIndex, attempt: AttemptId) -> bool {
        while let Some((index, word)) = self.find(broker, attempt) {
            let Some(next) = word.cancel() else { return false };
            if self.swap(index, word, next) {
                return true;
            }
        }
        false
    }

    /// Shows a broker's lease; `until` of 0 ends it and begins a new term, upon which the worker
    /// opens a new session. A lease that has run out must be ended before it is given again.
    pub fn set_lease(&self, broker: BrokerIndex, epoch: Epoch, until: Time) {
        let entry = self.lease_entry(broker);
        if until.0 == 0 {
            if entry.until.swap(0, AcqRel) != 0 {
                entry.term.fetch_add(1, AcqRel);
            }
            return;
        }
        if entry.epoch.load(Relaxed) != u64::from(epoch.0) {
            entry.until.store(0, Release);
            entry.epoch.store(u64::from(epoch.0), Release);
        }
        entry.until.store(until.0, Release);
    }
}
