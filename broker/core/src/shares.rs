//! What each class gets of a group of workers: deficit round robin over the ten priorities, with
//! quanta in proportion to 1.5^(p - 1). In a round every class that has tasks may use its quantum,
//! the most urgent first: so an urgent task waits for nothing but what runs and for those that are
//! as urgent, while its class keeps within its share, and a class of priority 1 is served in every
//! round. With all ten backlogged priority 10 gets 33.9 % and priority 1 gets 0.88 %.
//!
//! As in [`crate::fair`], a debt counts up to two quanta, rounds in which nobody would have credit
//! are skipped by arithmetic, and quanta follow the cost of tasks: that of the class whose tasks are
//! the longest for its weight is about one task.

use crate::fair::{COST_MIN, Mean, QUANTA_MAX};

/// Priorities.
pub(crate) const CLASSES: usize = 10;
/// 1.5^(p - 1) in units of 1/1024, rounded; priority 1 first.
const WEIGHTS: [u64; CLASSES] =
    [1_024, 1_536, 2_304, 3_456, 5_184, 7_776, 11_664, 17_496, 26_244, 39_366];
/// Binary digits behind the point of a quantum for each unit of weight.
const POINT: u32 = 16;

/// One class.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Nanoseconds.
    credit: i64,
    /// The round of which it has had its quantum.
    round: u64,
    mean: Mean,
}

/// See the module. Classes by place: that of priority 1 is 0.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    classes: [Share; CLASSES],
    /// A bit for each that has tasks.
    ready: u16,
    /// A bit for each that has credit.
    funded: u16,
    round: u64,
    /// A quantum for each unit of weight.
    unit: u64,
}

impl Shares {
    pub(crate) const fn new() -> Self {
        let share = Share { credit: 0, round: 0, mean: Mean::UNKNOWN };
        let unit = (COST_MIN << POINT) / WEIGHTS[0];
        Self { classes: [share; CLASSES], ready: 0, funded: 0, round: 1, unit }
    }

    pub(crate) const fn is_ready(&self, class: usize) -> bool {
        self.ready & 1 << class != 0
    }

    /// The class whose turn it is; `is_strict`: the most urgent one, whatever it has used.
    #[inline]
    pub(crate) fn first(&mut self, is_strict: bool) -> Option<usize> {
        if self.ready == 0 {
            return None;
        }
        if is_strict {
            return Some(top(self.ready));
        }
        if self.ready & self.funded == 0 {
            self.begin_round();
        }
        Some(top(self.ready & self.funded))
    }

    /// It has tasks. What it did not use while it had none is worth a quantum at most.
    #[inline]
    pub(crate) fn enter(&mut self, class: usize) {
        self.ready |= 1 << class;
        let missed = self.round - self.classes[class].round;
        if missed > 0 {
            let quantum = self.quantum(class);
            let share = &mut self.classes[class];
            let paid = share.credit + missed.min(ROUNDS_MAX) as i64 * quantum;
            share.credit = paid.clamp(-QUANTA_MAX * quantum, quantum);
            share.round = self.round;
            self.note_funds(class);
        }
    }

    /// It has none any more.
    #[inline]
    pub(crate) fn leave(&mut self, class: usize) {
        self.ready &= !(1 << class);
    }

    /// A task of it was sent, which should cost so much.
    #[inline]
    pub(crate) fn charge(&mut self, class: usize, cost: u64) {
        self.classes[class].mean.guess(cost);
        self.pay(class, -(cost as i64));
    }

    /// It has cost that instead.
    #[inline]
    pub(crate) fn correct(&mut self, class: usize, charged: u64, cost: u64) {
        self.classes[class].mean.add(cost);
        self.pay(class, charged as i64 - cost as i64);
    }

    /// It was not run after all.
    pub(crate) fn refund(&mut self, class: usize, charged: u64) {
        self.pay(class, charged as i64);
    }

    #[inline]
    fn pay(&mut self, class: usize, amount: i64) {
        let most = QUANTA_MAX * self.quantum(class);
        let credit = &mut self.classes[class].credit;
        *credit = (*credit + amount).clamp(-most, most);
        self.note_funds(class);
    }

    #[inline]
    fn note_funds(&mut self, class: usize) {
        let is_funded = u16::from(self.classes[class].credit > 0);
        self.funded = self.funded & !(1 << class) | is_funded << class;
    }

    #[inline]
    fn quantum(&self, class: usize) -> i64 {
        ((self.unit * WEIGHTS[class]) >> POINT).max(1) as i64
    }

    /// The next round in which one of those that have tasks has credit.
    fn begin_round(&mut self) {
        let ready = self.ready;
        let all = move || (0..CLASSES).filter(move |class| ready & 1 << class != 0);
        let unit_of = |class: usize| (self.classes[class].mean.value() << POINT) / WEIGHTS[class];
        self.unit = all().map(unit_of).max().unwrap_or(self.unit);
        let least = |class: usize| {
            let quantum = self.quantum(class);
            1 + -self.classes[class].credit.max(-QUANTA_MAX * quantum) / quantum
        };
        let rounds = all().map(least).min().unwrap_or(1);
        self.round += rounds as u64;
        for class in all() {
            let quantum = self.quantum(class);
            let most = QUANTA_MAX * quantum;
            let share = &mut self.classes[class];
            share.credit = (share.credit.max(-most) + rounds * quantum).min(most);
            share.round = self.round;
            self.note_funds(class);
        }
    }
}

/// Rounds after which every debt is paid.
const ROUNDS_MAX: u64 = QUANTA_MAX as u64 + 1;

#[inline]
const fn top(classes: u16) -> usize {
    15 - classes.leading_zeros() as usize
}
