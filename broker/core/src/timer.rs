//! A hierarchical timer wheel: six levels of 64 slots, about 1 ms a tick. Setting and cancelling
//! take constant time. A timer never goes off early, and at most a tick late.
//!
//! The levels follow Varghese and Lauck (1987), scheme 7, with the level chosen by the highest bit
//! in which the due tick differs from the current one.

use alloc::vec::Vec;

use crate::list::{Linked, Links, List};
use crate::slab::{Key, Slab, TimerKey};
use crate::time::Time;

const TICK_BITS: u32 = 20;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 6;
/// Timers further away than this wait in the last slot of the top level and are placed anew from there.
/// One slot less than the wheel, so that none lands in the slot that the wheel stands at.
const SPAN_TICKS: u64 = (SLOTS as u64 - 1) << (SLOT_BITS * (LEVELS as u32 - 1));

struct Timer<W> {
    wake: W,
    tick: u64,
    place: Place,
    links: Links,
}

#[derive(Clone, Copy)]
enum Place {
    Slot { level: usize, slot: usize },
    Due,
}

impl<W> Linked for Timer<W> {
    fn links(&self) -> Links {
        self.links
    }
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// Timers that each carry the reason of their wake-up.
pub(crate) struct TimerWheel<W> {
    timers: Slab<TimerKey, Timer<W>>,
    levels: Vec<[List; SLOTS]>,
    /// A bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    due: List,
    now: u64,
}

impl<W: Copy> TimerWheel<W> {
    pub(crate) fn new() -> Self {
        Self {
            timers: Slab::new(),
            levels: alloc::vec![[List::EMPTY; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            due: List::EMPTY,
            now: 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }

    /// Sets a timer; one for the past is due at once.
    pub(crate) fn set(&mut self, at: Time, wake: W) -> TimerKey {
        let tick = at.0.div_ceil(1 << TICK_BITS);
        let key = self.timers.insert(Timer { wake, tick, place: Place::Due, links: Links::NONE });
        self.place(key.index());
        key
    }

    /// Cancels a timer; one that has gone off already is no error.
    pub(crate) fn cancel(&mut self, key: TimerKey) {
        let Some(timer) = self.timers.get(key) else { return };
        match timer.place {
            Place::Due => self.due.remove(&mut self.timers, key.index()),
            Place::Slot { level, slot } => {
                let list = &mut self.levels[level][slot];
                list.remove(&mut self.timers, key.index());
                if list.is_empty() {
                    self.occupied[level] &= !(1 << slot);
                }
            }
        }
        self.timers.remove(key);
    }

    /// The next timer that is due; call until `None`.
    pub(crate) fn pop(&mut self, now: Time) -> Option<W> {
        let now_tick = now.0 >> TICK_BITS;
        loop {
            if let Some(index) = self.due.first() {
                self.due.remove(&mut self.timers, index);
                let timer = self.timers.remove(self.timers.key_at(index));
                return timer.map(|timer| timer.wake);
            }
            let Some((level, slot, tick)) = self.next_slot().filter(|next| next.2 <= now_tick)
            else {
                self.now = self.now.max(now_tick);
                return None;
            };
            self.now = self.now.max(tick);
            while let Some(index) = self.levels[level][slot].first() {
                self.levels[level][slot].remove(&mut self.timers, index);
                self.occupied[level] &= !(1 << slot);
                self.place(index);
            }
        }
    }

    /// When to call [`Self::pop`] next; never later than the next timer.
    pub(crate) fn next_wakeup(&self) -> Option<Time> {
        if !self.due.is_empty() {
            return Some(Time(self.now << TICK_BITS));
        }
        self.next_slot().map(|(_, _, tick)| Time(tick << TICK_BITS))
    }

    fn place(&mut self, index: u32) {
        let tick = self.timers.at(index).tick;
        if tick <= self.now {
            self.timers.at_mut(index).place = Place::Due;
            self.due.push_back(&mut self.timers, index);
            return;
        }
        let tick = tick.min(self.now.saturating_add(SPAN_TICKS));
        let differing = (tick ^ self.now) | (SLOTS as u64 - 1);
        let level = (((63 - differing.leading_zeros()) / SLOT_BITS) as usize).min(LEVELS - 1);
        let slot = (tick >> (level as u32 * SLOT_BITS)) as usize % SLOTS;
        self.timers.at_mut(index).place = Place::Slot { level, slot };
        self.levels[level][slot].push_back(&mut self.timers, index);
        self.occupied[level] |= 1 << slot;
    }

    /// The first slot that is not empty, and the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = (0..LEVELS).find(|&level| self.occupied[level] != 0)?;
        let shift = level as u32 * SLOT_BITS;
        let current = (self.now >> shift) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(current).trailing_zeros();
        let slot = (current + ahead) as usize % SLOTS;
        let turn = 1_u64 << (shift + SLOT_BITS);
        let mut tick = (self.now & !(turn - 1)) + ((slot as u64) << shift);
        if tick <= self.now && level == LEVELS - 1 {
            tick += turn;
        }
        Some((level, slot, tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const TICK: u64 = 1 << TICK_BITS;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u64),
        Cancel(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let span = prop_oneof![0..TICK * 3, 0..TICK * 200, 0..TICK * 300_000, 0..TICK << 37];
        prop_oneof![
            4 => span.clone().prop_map(Step::Set),
            1 => any::<usize>().prop_map(Step::Cancel),
            3 => span.prop_map(Step::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn a_timer_goes_off_once_never_early_and_within_a_tick(
            steps in prop::collection::vec(step(), 1..80)
        ) {
            let mut wheel = TimerWheel::new();
            let mut naive: Vec<(u64, usize, TimerKey)> = Vec::new();
            let mut now = 12_345_678_u64;
            while wheel.pop(Time(now)).is_some() {}
            for (id, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Set(span) => {
                        let key = wheel.set(Time(now + span), id);
                        naive.push((now + span, id, key));
                    }
                    Step::Cancel(which) if !naive.is_empty() => {
                        let (_, _, key) = naive.remove(which % naive.len());
                        wheel.cancel(key);
                    }
                    Step::Cancel(_) => {}
                    Step::Pass(span) => now += span,
                }
                let earliest = naive.iter().map(|timer| timer.0).min();
                if let (Some(wakeup), Some(earliest)) = (wheel.next_wakeup(), earliest) {
                    prop_assert!(wakeup.0 <= earliest.max(now) + TICK);
                }
                while let Some(id) = wheel.pop(Time(now)) {
                    let at = naive.iter().position(|timer| timer.1 == id);
                    let (due, _, _) = naive.remove(at.expect("set, not cancelled, not yet gone off"));
                    prop_assert!(due <= now, "early by {}", due - now);
                }
                for timer in &naive {
                    prop_assert!(timer.0 + TICK > now, "late by {}", now - timer.0);
                }
                prop_assert_eq!(wheel.len(), naive.len());
                prop_assert_eq!(wheel.next_wakeup().is_some(), !naive.is_empty());
            }
        }
    }
}
