//! Equal turns by deficit round robin (Shreedhar and Varghese, 1995), in nanoseconds of service, in
//! constant time whatever stands in the ring.
//!
//! A turn is worth a quantum. Who takes its task is charged what it should cost; when it has run, what
//! it did cost. Who has used up its credit waits for the round in which it has some again: that round
//! is computed, not searched for, and nobody waits for more than three, because a debt counts up to
//! two quanta only. The quantum follows the cost of the tasks, so that a turn is about one task:
//! smaller, and debts would be forgiven that are none of the exceptions they are forgiven for;
//! larger, and turns would come in bursts.

use crate::list::{Linked, List};
use crate::slab::{Key, Slab};

/// What a task costs at least, nanoseconds: one that takes no time keeps others waiting all the same.
pub(crate) const COST_MIN: u64 = 1_000;
/// What a task costs at most, nanoseconds: 18 minutes. Keeps every product within 64 bits.
pub(crate) const COST_MAX: u64 = 1 << 40;
/// Credit and debt count up to so many quanta.
pub(crate) const QUANTA_MAX: i64 = 2;
/// The round at hand and those in which a debtor of two quanta has credit again.
const ROUNDS: usize = QUANTA_MAX as usize + 2;

/// The mean cost of a nanosecond's task: a moving average in which each cost weighs as much as it
/// is long, because that is how long turns must be. One outlier counts as eight times the mean.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mean(u64);

impl Mean {
    pub(crate) const UNKNOWN: Self = Self(0);
    /// A cost weighs at least 1/1024 and at most 1/4, that of the mean 1/32.
    const ONE: u64 = 1 << 17;
    const USUAL: u64 = Self::ONE >> 5;
    const LEAST: u64 = Self::ONE >> 10;
    const OUTLIER: u64 = 8;

    /// Nanoseconds.
    #[inline]
    pub(crate) const fn value(self) -> u64 {
        if self.0 > COST_MIN { self.0 } else { COST_MIN }
    }

    /// Taken as the mean where nothing better is known; that a task costs the least says nothing.
    #[inline]
    pub(crate) fn guess(&mut self, cost: u64) {
        if self.0 == 0 && cost > COST_MIN {
            self.0 = cost.min(COST_MAX);
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, cost: u64) {
        let cost = cost.clamp(COST_MIN, COST_MAX);
        self.guess(cost);
        self.0 = self.0.max(COST_MIN);
        let cost = cost.min(self.0 * Self::OUTLIER);
        let weight = (cost * Self::USUAL / self.0).max(Self::LEAST);
        let change = cost.abs_diff(self.0) * weight / Self::ONE;
        self.0 = if cost > self.0 { self.0 + change } else { self.0 - change };
    }
}

/// One that takes turns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    /// What it may still use in `round`, nanoseconds.
    credit: i64,
    /// In which it may go on. One that is over: it may begin anew whenever it comes back.
    round: u64,
    /// It has tasks, and stands in the list of its round.
    is_ready: bool,
}

/// Something that stands in a [`Ring`].
pub(crate) trait InTurn: Linked {
    fn turn(&self) -> &Turn;
    fn turn_mut(&mut self) -> &mut Turn;
}

/// Who is ready, by the round in which it has credit.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    rounds: [List; ROUNDS],
    ready: u32,
    round: u64,
    quantum: i64,
    mean: Mean,
}

impl Ring {
    pub(crate) const fn new() -> Self {
        Self {
            rounds: [List::EMPTY; ROUNDS],
            ready: 0,
            round: 1,
            quantum: COST_MIN as i64,
            mean: Mean::UNKNOWN,
        }
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.ready == 0
    }

    /// Whose turn it is.
    #[inline]
    pub(crate) fn first(&mut self) -> Option<u32> {
        if self.ready == 0 {
            return None;
        }
        loop {
            if let Some(index) = self.rounds[place(self.round)].first() {
                return Some(index);
            }
            // At most three times: nobody waits for longer.
            self.round += 1;
            self.quantum = self.mean.value() as i64;
        }
    }

    /// It has tasks: behind those whose turn is in the same round.
    #[inline]
    pub(crate) fn enter<K: Key, T: InTurn>(&mut self, slab: &mut Slab<K, T>, index: u32) {
        let turn = slab.at_mut(index).turn_mut();
        debug_assert!(!turn.is_ready, "it stands in the ring once");
        turn.is_ready = true;
        if turn.round < self.round {
            turn.round = self.round;
            turn.credit = self.quantum;
        }
        let round = turn.round;
        self.rounds[place(round)].push_back(slab, index);
        self.ready += 1;
    }

    /// It has none any more. Its debt is kept for as long as it counts.
    #[inline]
    pub(crate) fn leave<K: Key, T: InTurn>(&mut self, slab: &mut Slab<K, T>, index: u32) {
        let turn = slab.at_mut(index).turn_mut();
        debug_assert!(turn.is_ready, "it stands in the ring");
        turn.is_ready = false;
        let round = turn.round;
        self.rounds[place(round)].remove(slab, index);
        self.ready -= 1;
    }

    /// A task of it was sent, which should cost so much.
    #[inline]
    pub(crate) fn charge<K: Key, T: InTurn>(
        &mut self,
        slab: &mut Slab<K, T>,
        index: u32,
        cost: u64,
    ) {
        self.mean.guess(cost);
        self.pay(slab, index, -(cost as i64));
    }

    /// It has cost that instead.
    #[inline]
    pub(crate) fn correct<K: Key, T: InTurn>(
        &mut self,
        slab: &mut Slab<K, T>,
        index: u32,
        charged: u64,
        cost: u64,
    ) {
        self.mean.add(cost);
        self.pay(slab, index, charged as i64 - cost as i64);
    }

    /// It was not run after all.
    pub(crate) fn refund<K: Key, T: InTurn>(
        &mut self,
        slab: &mut Slab<K, T>,
        index: u32,
        charged: u64,
    ) {
        self.pay(slab, index, charged as i64);
    }

    #[inline]
    fn pay<K: Key, T: InTurn>(&mut self, slab: &mut Slab<K, T>, index: u32, amount: i64) {
        let (round, quantum) = (self.round, self.quantum);
        let turn = slab.at_mut(index).turn_mut();
        let (before, is_ready) = (turn.round, turn.is_ready);
        // What it would have if it went on now.
        let balance = match before.checked_sub(round) {
            Some(ahead) => turn.credit - ahead as i64 * quantum,
            None => quantum,
        };
        let most = QUANTA_MAX * quantum;
        let balance = (balance + amount).clamp(-most, most);
        let wait = if balance > 0 { 0 } else { 1 + -balance / quantum };
        turn.credit = balance + wait * quantum;
        turn.round = round + wait as u64;
        let after = turn.round;
        if is_ready && before != after {
            self.rounds[place(before)].remove(slab, index);
            self.rounds[place(after)].push_back(slab, index);
        }
    }

    /// All who are ready, in the order of their rounds.
    pub(crate) fn iter<'a, K: Key, T: InTurn>(
        &'a self,
        slab: &'a Slab<K, T>,
    ) -> impl Iterator<Item = u32> + 'a {
        let lists = (0..ROUNDS as u64).map(|ahead| &self.rounds[place(self.round + ahead)]);
        lists.flat_map(move |list| {
            core::iter::successors(list.first(), move |index| List::after(slab, *index))
        })
    }

    /// What is wrong with one of it, if anything is.
    pub(crate) fn fault(&self, turn: &Turn) -> Option<&'static str> {
        let most = QUANTA_MAX.saturating_mul(self.quantum.max(self.mean.value() as i64));
        if turn.is_ready && !(self.round..self.round + ROUNDS as u64).contains(&turn.round) {
            Some("its round is over, or too far away")
        } else if turn.is_ready && turn.credit <= 0 {
            Some("it has no credit in its round")
        } else if most <= 0 {
            Some("a quantum is worth nothing")
        } else {
            None
        }
    }
}

impl Turn {
    pub(crate) const fn is_ready(&self) -> bool {
        self.is_ready
    }
}

const fn place(round: u64) -> usize {
    (round % ROUNDS as u64) as usize
}
