//! Where each attempt of a worker stands, packed into words that a worker and its supervisor share.
//!
//! The words live on the worker's status page, and both sides change them by compare-and-swap; the
//! transitions themselves are here, pure, so that the simulator and the processes share them. A
//! generation in every word makes a swap fail when the slot has meanwhile been freed and used
//! again, so that nobody recalls or cancels an attempt that it did not mean.

use pinmesh_protocol::id::{AttemptId, Dispatch, Epoch, TaskId};

use crate::Time;

/// Slots of a status page: the widest window (1,024 tasks), and what is recalled but not yet
/// swept while the broker already counts it as gone.
pub const SLOTS: usize = 1024 + 256;
/// Entries that one bucket of the refusal table has.
pub const REFUSAL_WAYS: usize = 8;
/// Buckets of the refusal table, a power of two.
pub const REFUSAL_BUCKETS: usize = 256;
/// How long a refusal stands, nanoseconds. A task that is still unread after this is gone with its
/// socket; most entries outlive their attempt because that had ended before the recall came.
pub const REFUSAL_KEPT_NS: u64 = 60_000_000_000;

/// A broker's place in the list of backends that a supervisor and all its workers were given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BrokerIndex(pub u16);

/// Where an attempt stands on its worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotState {
    /// No attempt.
    Free,
    /// Received, not started; may be recalled.
    Waiting,
    /// Started; only a cancel or a kill can reach it.
    Claimed,
    /// Ended; kept until the broker has acknowledged the end.
    Ended,
    /// Given back by the supervisor; the worker skips and frees it.
    Recalled,
}

/// An attempt that a worker holds, as its supervisor reads it from the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldSlot {
    /// Whose task it is.
    pub broker: BrokerIndex,
    /// The attempt.
    pub attempt: AttemptId,
    /// Where it stands; never free.
    pub state: SlotState,
}

/// The attempt in the handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Running {
    /// Whose task it is.
    pub broker: BrokerIndex,
    /// The attempt.
    pub attempt: AttemptId,
    /// When it started.
    pub started: Time,
    /// How long it may run, nanoseconds.
    pub max_runtime_ns: u64,
}

/// What a supervisor looks at again and again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Glance {
    /// Passes of the worker's loop; 0: it has not begun.
    pub turn: u64,
    /// Attempts that wait or run.
    pub unended: u32,
    /// The attempt in the handler; `None` between two of them.
    pub running: Option<Running>,
}

/// What a supervisor found and did when it took an attempt back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flip {
    /// It was waiting and is now recalled.
    Recalled,
    /// It had started.
    Claimed,
    /// It had ended.
    Ended,
    /// It was recalled before.
    AlreadyRecalled,
    /// No slot has it: unread, or acknowledged.
    Absent,
}

/// What the page says about the lease that a broker gave the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Which life of the broker gave it.
    pub epoch: Epoch,
    /// When it ends; [`Time`] 0: there is none.
    pub until: Time,
    /// Counts the leases that have lapsed. When it moves, the broker may have requeued what is
    /// still unread in the worker's socket, so the worker gives that session up.
    pub term: u64,
}

impl Lease {
    /// Whether there is one. It may have run out, which its supervisor has not seen yet.
    pub const fn is_given(self) -> bool {
        self.until.0 != 0
    }
}

const STATE_MASK: u64 = 0xff;
const CANCELLED: u64 = 1 << 8;
const BROKER_SHIFT: u32 = 16;
const GENERATION_SHIFT: u32 = 32;

/// State of one slot: state, cancel flag, broker, and the generation that counts its attempts.
///
/// Every transition returns the new word, or `None` where it is not allowed from this state.
///
/// ```
/// use pinmesh_session::slots::{BrokerIndex, SlotState, SlotWord};
///
/// let waiting = SlotWord::FREE.publish(BrokerIndex(0)).unwrap();
/// assert_eq!(waiting.claim().unwrap().state(), SlotState::Claimed);
/// assert_eq!(waiting.recall().unwrap().claim(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotWord(u64);

impl SlotWord {
    /// A slot that never held anything.
    pub const FREE: Self = Self(0);

    /// The word for bits read from the page. Unknown states, which only a damaged page has, count
    /// as free: such a slot can be neither claimed nor recalled.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits for the page.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Where the attempt stands.
    pub const fn state(self) -> SlotState {
        match self.0 & STATE_MASK {
            1 => SlotState::Waiting,
            2 => SlotState::Claimed,
            3 => SlotState::Ended,
            4 => SlotState::Recalled,
            _ => SlotState::Free,
        }
    }

    /// Whose task it is.
    pub const fn broker(self) -> BrokerIndex {
        BrokerIndex((self.0 >> BROKER_SHIFT) as u16)
    }

    /// Counts the attempts that this slot has held, wrapping.
    pub const fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    /// Whether the supervisor has asked the handler to stop.
    pub const fn is_cancelled(self) -> bool {
        self.0 & CANCELLED != 0
    }

    /// Worker: an attempt has come in. Free to waiting, with the next generation.
    pub const fn publish(self, broker: BrokerIndex) -> Option<Self> {
        match self.state() {
            SlotState::Free => {
                let generation = (self.generation().wrapping_add(1) as u64) << GENERATION_SHIFT;
                Some(Self(generation | (broker.0 as u64) << BROKER_SHIFT | 1))
            }
            _ => None,
        }
    }

    /// Worker: the attempt starts. Waiting to claimed; a recalled slot cannot be claimed.
    pub const fn claim(self) -> Option<Self> {
        match self.state() {
            SlotState::Waiting => Some(self.with_state(2)),
            _ => None,
        }
    }

    /// Worker: the attempt has ended. Claimed to ended; the cancel flag goes, it came too late.
    pub const fn end(self) -> Option<Self> {
        match self.state() {
            SlotState::Claimed => Some(self.with_state(3)),
            _ => None,
        }
    }

    /// Worker: the slot is needed no more. Anything to free.
    pub const fn free(self) -> Self {
        self.with_state(0)
    }

    /// Supervisor, or a worker that finds a refusal: the attempt goes back. Waiting to recalled.
    pub const fn recall(self) -> Option<Self> {
        match self.state() {
            SlotState::Waiting => Some(self.with_state(4)),
            _ => None,
        }
    }

    /// Supervisor: the handler is asked to stop. Sets the flag of a claimed slot.
    pub const fn cancel(self) -> Option<Self> {
        match self.state() {
            SlotState::Claimed => Some(Self(self.0 | CANCELLED)),
            _ => None,
        }
    }

    const fn with_state(self, state: u64) -> Self {
        Self(self.0 & !(STATE_MASK | CANCELLED) | state)
    }
}

/// Which slot is in the handler: index and generation in one word, so that a reader who finds the
/// same word twice, and the slot claimed in that generation, has read one attempt and not two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunningWord(u64);

impl RunningWord {
    /// Nothing runs, or the worker is between two attempts.
    pub const NONE: Self = Self(0);

    /// The word for a claimed slot.
    pub const fn new(index: usize, word: SlotWord) -> Self {
        Self((word.generation() as u64) << GENERATION_SHIFT | (index as u64 + 1))
    }

    /// The word for bits read from the page.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits for the page.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Index of the slot; `None` where nothing runs.
    pub const fn index(self) -> Option<usize> {
        let index = self.0 & 0xffff_ffff;
        if index == 0 || index > SLOTS as u64 { None } else { Some(index as usize - 1) }
    }

    /// Whether this names the attempt that `word`, read from the slot of [`Self::index`], is in
    /// the middle of.
    pub const fn is_running(self, word: SlotWord) -> bool {
        matches!(word.state(), SlotState::Claimed)
            && (self.0 >> GENERATION_SHIFT) as u32 == word.generation()
    }
}

/// An attempt as the two words that the page has for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttemptWords {
    /// The task.
    pub task: u64,
    /// Epoch above, dispatch below; 0 is no attempt, because dispatches count from 1.
    pub fence: u64,
}

impl AttemptWords {
    /// Packs an attempt.
    pub const fn new(attempt: AttemptId) -> Self {
        Self {
            task: attempt.task.0,
            fence: (attempt.epoch.0 as u64) << 32 | attempt.dispatch.0 as u64,
        }
    }

    /// Unpacks it; `None` for the words of no attempt.
    pub const fn attempt(self) -> Option<AttemptId> {
        if self.fence as u32 == 0 {
            return None;
        }
        Some(AttemptId {
            epoch: Epoch((self.fence >> 32) as u32),
            task: TaskId(self.task),
            dispatch: Dispatch(self.fence as u32),
        })
    }

    /// Bucket of the refusal table that an entry for this attempt stands in.
    pub const fn bucket(self) -> usize {
        // Fibonacci hashing: task ids differ in their lowest bits, buckets are the highest.
        let mixed = (self.task ^ self.fence).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize % REFUSAL_BUCKETS
    }
}

/// Whether an entry of the refusal table may be overwritten: it is empty, or so old that its
/// attempt cannot come any more. A bucket without such an entry is full: then the supervisor does
/// not answer RECALLED, and the attempt runs where it is.
pub const fn is_refusal_reusable(fence: u64, entered_ns: u64, now_ns: u64) -> bool {
    fence == 0 || now_ns.saturating_sub(entered_ns) > REFUSAL_KEPT_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(task: u64, dispatch: u32) -> AttemptId {
        AttemptId { epoch: Epoch(7), task: TaskId(task), dispatch: Dispatch(dispatch) }
    }

    #[test]
    fn a_slot_goes_round_and_its_generation_counts() {
        let waiting = SlotWord::FREE.publish(BrokerIndex(3)).unwrap();
        let ended = waiting.claim().unwrap().end().unwrap();
        assert_eq!(ended.state(), SlotState::Ended);
        let again = ended.free().publish(BrokerIndex(3)).unwrap();
        assert_eq!((waiting.generation(), again.generation()), (1, 2));
        assert_ne!(waiting, again);
    }

    #[test]
    fn a_claimed_slot_cannot_be_recalled_and_a_recalled_one_not_claimed() {
        let waiting = SlotWord::FREE.publish(BrokerIndex(3)).unwrap();
        assert_eq!(waiting.claim().unwrap().recall(), None);
        assert_eq!(waiting.recall().unwrap().claim(), None);
        assert_eq!(waiting.recall().unwrap().free().state(), SlotState::Free);
    }

    #[test]
    fn only_a_claimed_slot_takes_the_cancel_flag_and_its_end_clears_it() {
        let waiting = SlotWord::FREE.publish(BrokerIndex(3)).unwrap();
        assert_eq!(waiting.cancel(), None);
        let cancelled = waiting.claim().unwrap().cancel().unwrap();
        assert!(cancelled.is_cancelled());
        assert_eq!(cancelled.state(), SlotState::Claimed);
        assert!(!cancelled.end().unwrap().is_cancelled());
    }

    #[test]
    fn a_running_word_fits_only_its_own_generation() {
        let claimed = SlotWord::FREE.publish(BrokerIndex(3)).unwrap().claim().unwrap();
        let running = RunningWord::new(SLOTS - 1, claimed);
        assert_eq!(running.index(), Some(SLOTS - 1));
        assert!(running.is_running(claimed));
        assert!(!running.is_running(claimed.end().unwrap()));
        let next = claimed.free().publish(BrokerIndex(3)).unwrap().claim().unwrap();
        assert!(!running.is_running(next));
        assert_eq!(RunningWord::NONE.index(), None);
        assert_eq!(RunningWord::from_bits(u64::MAX).index(), None);
    }

    #[test]
    fn an_attempt_survives_packing_and_zero_is_none() {
        let words = AttemptWords::new(attempt(u64::MAX, 9));
        assert_eq!(words.attempt(), Some(attempt(u64::MAX, 9)));
        assert_eq!(AttemptWords { task: 0, fence: 0 }.attempt(), None);
        assert!(words.bucket() < REFUSAL_BUCKETS);
    }

    #[test]
    fn neighbouring_tasks_spread_over_the_buckets() {
        let mut hit = [0u32; REFUSAL_BUCKETS];
        for task in 0..1024 {
            hit[AttemptWords::new(attempt(task, 1)).bucket()] += 1;
        }
        assert!(hit.iter().all(|&n| n <= REFUSAL_WAYS as u32), "{hit:?}");
    }

    #[test]
    fn a_refusal_is_reusable_when_empty_or_old() {
        assert!(is_refusal_reusable(0, 5, 5));
        assert!(!is_refusal_reusable(1, 5, 5 + REFUSAL_KEPT_NS));
        assert!(is_refusal_reusable(1, 5, 6 + REFUSAL_KEPT_NS));
    }
}
