//! The status page: shared memory in which a worker says what it holds and runs, and its supervisor
//! says what it may start. It lets the supervisor act while the worker's one thread is inside a
//! handler. The crate's one unsafe module.
//!
//! A page belongs to one incarnation of one worker and is never used again, so that a dying worker
//! cannot write on its successor's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use pinmesh_protocol::id::{AttemptId, Epoch};
use pinmesh_session::Time;
use pinmesh_session::slots::{
    AttemptWords, BrokerIndex, Flip, Glance, HeldSlot, Lease, REFUSAL_BUCKETS, REFUSAL_WAYS,
    Running, RunningWord, SLOTS, SlotState, SlotWord, is_refusal_reusable,
};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::error::PageError;

/// The most brokers that one worker serves.
pub const BROKERS_MAX: usize = 16;

const MAGIC: u64 = u64::from_le_bytes(*b"pinmesh\0");
/// Counts the layouts of the page. Supervisor and worker are one executable, but one that was
/// replaced on disk while the supervisor runs must not misread it.
const VERSION: u64 = 1;
const SIZE: usize = size_of::<Layout>();

#[repr(C, align(64))]
struct Layout {
    magic: AtomicU64,
    version: AtomicU64,
    size: AtomicU64,
    brokers: AtomicU64,
    worker: WorkerPart,
    leases: [LeaseEntry; BROKERS_MAX],
    refused_ever: AtomicU64,
    slots: [SlotEntry; SLOTS],
    refusals: [[RefusalEntry; REFUSAL_WAYS]; REFUSAL_BUCKETS],
}

/// Written by the worker alone, on a cache line of its own.
#[repr(C, align(64))]
struct WorkerPart {
    turn: AtomicU64,
    unended: AtomicU64,
    running: AtomicU64,
    started: AtomicU64,
    max_runtime: AtomicU64,
    tasks_ok: AtomicU64,
    tasks_failed: AtomicU64,
    sessions: AtomicU64,
}

/// Written by the supervisor alone.
#[repr(C)]
struct LeaseEntry {
    epoch: AtomicU64,
    until: AtomicU64,
    term: AtomicU64,
}

#[repr(C)]
struct SlotEntry {
    word: AtomicU64,
    task: AtomicU64,
    fence: AtomicU64,
}

/// Entered by the supervisor, cleared by the worker that meets it.
#[repr(C)]
struct RefusalEntry {
    task: AtomicU64,
    fence: AtomicU64,
    broker: AtomicU64,
    entered: AtomicU64,
}

/// Counters of a worker, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WorkerCounts {
    /// Attempts that ended OK or cancelled.
    pub tasks_ok: u64,
    /// Attempts that ended FAILED.
    pub tasks_failed: u64,
    /// Sessions with brokers that are open now.
    pub sessions: u64,
}

/// One mapping of a status page.
#[derive(Debug)]
pub struct StatusPage {
    layout: NonNull<Layout>,
    fd: OwnedFd,
}

// SAFETY: the mapping is owned by this value alone, and all that is behind it are atomics.
unsafe impl Send for StatusPage {}
// SAFETY: as above; every method takes &self and only uses the atomics.
unsafe impl Sync for StatusPage {}

impl Drop for StatusPage {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` with this size, and no reference into it outlives
        // `self`. It cannot fail for such a range.
        let _ = unsafe { rustix::mm::munmap(self.layout.as_ptr().cast(), SIZE) };
    }
}

impl StatusPage {
    /// A new page for a worker of so many brokers.
    ///
    /// # Errors
    /// More than [`BROKERS_MAX`] brokers, or the system refuses the memory.
    pub fn create(brokers: usize) -> Result<Self, PageError> {
        if brokers > BROKERS_MAX {
            return Err(PageError::Brokers(brokers));
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("pinmesh-status", flags).map_err(PageError::System)?;
        rustix::fs::ftruncate(&fd, SIZE as u64).map_err(PageError::System)?;
        // Without the seals either side could shrink the file, and the other would die of SIGBUS.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals).map_err(PageError::System)?;
        let page = Self::map(fd)?;
        let layout = page.layout();
        layout.version.store(VERSION, Relaxed);
        layout.size.store(SIZE as u64, Relaxed);
        layout.brokers.store(brokers as u64, Relaxed);
        layout.magic.store(MAGIC, Release);
        Ok(page)
    }

    /// The page that a supervisor made.
    ///
    /// # Errors
    /// The file is no status page of this version and size, or cannot be mapped.
    pub fn open(fd: OwnedFd) -> Result<Self, PageError> {
        let size = rustix::fs::fstat(&fd).map_err(PageError::System)?.st_size;
        if size != SIZE as i64 {
            return Err(PageError::Foreign { what: "size", found: size as u64, want: SIZE as u64 });
        }
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(PageError::System)?;
        if !seals.contains(SealFlags::SHRINK) {
            let found = u64::from(seals.bits());
            let want = u64::from(SealFlags::SHRINK.bits());
            return Err(PageError::Foreign { what: "seals", found, want });
        }
        let page = Self::map(fd)?;
        let layout = page.layout();
        let checks = [
            ("magic", layout.magic.load(Acquire), MAGIC),
            ("version", layout.version.load(Relaxed), VERSION),
            ("size", layout.size.load(Relaxed), SIZE as u64),
        ];
        for (what, found, want) in checks {
            if found != want {
                return Err(PageError::Foreign { what, found, want });
            }
        }
        Ok(page)
    }

    fn map(fd: OwnedFd) -> Result<Self, PageError> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; it overlaps nothing.
        let address = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), SIZE, protection, MapFlags::SHARED, &fd, 0)
        };
        let address = address.map_err(PageError::System)?.cast();
        let layout = NonNull::new(address).expect("mmap does not map address 0 unless asked to");
        Ok(Self { layout, fd })
    }

    fn layout(&self) -> &Layout {
        // SAFETY: mapped readable and writable with Layout's size for the life of self, aligned to
        // a memory page; every bit pattern is a valid Layout, which is atomics throughout; the
        // file is sealed against shrinking.
        unsafe { self.layout.as_ref() }
    }

    /// The memory, to be handed to the worker.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn lease_entry(&self, broker: BrokerIndex) -> &LeaseEntry {
        &self.layout().leases[usize::from(broker.0) % BROKERS_MAX]
    }

    /// The word of a slot, as it is now.
    ///
    /// # Panics
    /// `index` is not below [`SLOTS`]; so too for every method with an index.
    pub fn word(&self, index: usize) -> SlotWord {
        SlotWord::from_bits(self.layout().slots[index].word.load(Acquire))
    }

    fn attempt_of(&self, index: usize) -> Option<AttemptId> {
        let slot = &self.layout().slots[index];
        AttemptWords { task: slot.task.load(Relaxed), fence: slot.fence.load(Relaxed) }.attempt()
    }

    fn swap(&self, index: usize, from: SlotWord, to: SlotWord) -> bool {
        let word = &self.layout().slots[index].word;
        word.compare_exchange(from.to_bits(), to.to_bits(), AcqRel, Acquire).is_ok()
    }
}

/// The worker's side. One thread calls these.
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

/// The supervisor's side.
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

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
