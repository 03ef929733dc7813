//! Groups of workers that serve the same services, and which of them has the fewest in flight.

use alloc::vec::Vec;

use crate::list::List;
use crate::slab::{ServiceKey, Slab, WorkerKey};
use crate::worker::Worker;

/// In-flight counts that are told apart; a window is never larger.
pub(crate) const LEVELS: usize = 1024;
const WORDS: usize = LEVELS / 64;

/// See the module.
pub(crate) struct Group {
    pub(crate) services: Vec<ServiceKey>,
    /// Workers in it, with credit or without.
    pub(crate) workers: u32,
    /// Where the next choice among equals begins.
    pub(crate) next_service: usize,
    levels: Levels,
}

/// A stack of workers for each in-flight count; the top is the one most recently idle.
struct Levels {
    stacks: Vec<List>,
    occupied: [u64; WORDS],
}

impl Group {
    pub(crate) fn new(services: Vec<ServiceKey>) -> Self {
        let levels = Levels { stacks: alloc::vec![List::EMPTY; LEVELS], occupied: [0; WORDS] };
        Self { services, workers: 0, next_service: 0, levels }
    }

    /// The worker with credit that has the fewest in flight, and how many those are.
    #[inline]
    pub(crate) fn best(&self) -> Option<(u32, usize)> {
        let word = self.levels.occupied.iter().position(|word| *word != 0)?;
        let level = word * 64 + self.levels.occupied[word].trailing_zeros() as usize;
        Some((self.levels.stacks[level].first()?, level))
    }

    /// Which of its services comes first among equals this time.
    pub(crate) fn rotation(&self) -> impl Iterator<Item = (usize, ServiceKey)> {
        let count = self.services.len();
        (0..count).map(move |step| {
            let place = (self.next_service + step) % count;
            (place, self.services[place])
        })
    }

    /// Offers a worker's credit. Its level is how many it holds.
    #[inline]
    pub(crate) fn list(&mut self, workers: &mut Slab<WorkerKey, Worker>, index: u32) {
        let worker = workers.at_mut(index);
        debug_assert!(worker.level.is_none(), "listed once at most");
        let level = (worker.held() as usize).min(LEVELS - 1);
        worker.level = Some(level as u16);
        self.levels.stacks[level].push_front(workers, index);
        self.levels.occupied[level / 64] |= 1 << (level % 64);
    }

    /// Takes the offer back, if there is one.
    #[inline]
    pub(crate) fn unlist(&mut self, workers: &mut Slab<WorkerKey, Worker>, index: u32) {
        let Some(level) = workers.at_mut(index).level.take() else { return };
        let level = usize::from(level);
        self.levels.stacks[level].remove(workers, index);
        if self.levels.stacks[level].is_empty() {
            self.levels.occupied[level / 64] &= !(1 << (level % 64));
        }
    }
}
