//! The status page: shared memory in which a worker says what it holds and runs, and its supervisor
//! says what it may start. It lets the supervisor act while the worker's one thread is inside a
//! handler. The crate's one unsafe module.
//!
//! A page belongs to one incarnation of one worker and is never used again, so that a dying worker
//! cannot write on its successor's.

mod supervisor_side;
mod worker_side;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use pinmesh_protocol::id::AttemptId;
use pinmesh_session::slots::{
    AttemptWords, BrokerIndex, REFUSAL_BUCKETS, REFUSAL_WAYS, SLOTS, SlotWord,
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

/// Written by the worker alone, on cache lines of its own.
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

#[cfg(test)]
mod tests;
