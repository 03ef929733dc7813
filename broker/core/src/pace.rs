//! How long a task will wait that is the last of its flow. Not computed from workers, classes and
//! clients, of which each may change at any time, but measured where all of them show: in how fast the
//! flow's tasks leave it while others of it wait. So another client's million tasks count for what
//! they really take away, and no more.

use crate::time::{Span, Time};

/// Tasks that leave between two looks, and time that passes, at least: they leave in bursts, as ends
/// come in, and a burst says nothing.
const LOOK_EVERY: u32 = 16;
const LOOK_AFTER: Span = Span(50_000_000);
/// Tasks that must have left before anything is said of a flow that has not been looked at.
const KNOWN_AFTER: u32 = 4;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Nanoseconds from one to the next; 0: nobody knows.
    each: u64,
    /// Since this moment the flow has not been empty, or since the latest look.
    since: Time,
    /// Those that have left since then.
    left: u32,
    /// When the latest did.
    left_at: Time,
}

impl Pace {
    /// The first task comes to wait where none did. What was seen before counts without the time
    /// in which none waited, so that a flow whose tasks come few at a time does not stay as slow as
    /// it once was.
    #[inline]
    pub(crate) fn begin(&mut self, now: Time) {
        if self.left > 0 {
            self.look();
        }
        (self.since, self.left) = (now, 0);
    }

    /// A task was sent to a worker.
    #[inline]
    pub(crate) fn on_sent(&mut self, now: Time) {
        self.left += 1;
        self.left_at = now;
        if self.left >= LOOK_EVERY && now.since(self.since) >= LOOK_AFTER {
            self.begin(now);
        }
    }

    fn look(&mut self) {
        let each = (self.left_at.since(self.since).0 / u64::from(self.left)).max(1);
        self.each = match self.each {
            0 => each,
            before if each > before => before + (each - before) / 4,
            before => before - (before - each) / 4,
        };
    }

    /// How long one waits behind so many; `None`: nobody knows.
    pub(crate) fn wait(&self, ahead: u64, now: Time) -> Option<Span> {
        // A flow that has stood still for longer than it should is as slow as that.
        let at_least = now.since(self.since).0 / u64::from(self.left + 1);
        let each = match self.each {
            0 if self.left < KNOWN_AFTER => return None,
            each => each.max(at_least),
        };
        Some(Span(each.saturating_mul(ahead)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn paced(each: u64, count: u64) -> (Pace, Time) {
        let mut pace = Pace::default();
        pace.begin(Time(0));
        (1..=count).for_each(|number| pace.on_sent(Time(number * each)));
        (pace, Time(each * count))
    }

    #[test]
    fn nothing_is_said_of_what_has_hardly_moved() {
        let (pace, now) = paced(MS, 3);
        assert_eq!(pace.wait(10, now), None);
    }

    #[test]
    fn the_wait_is_the_pace_times_those_ahead() {
        for count in [17, 20, 170] {
            let (pace, now) = paced(3 * MS, count);
            assert_eq!(pace.wait(10, now), Some(Span(30 * MS)), "{count}");
            assert_eq!(pace.wait(0, now), Some(Span(0)));
        }
    }

    #[test]
    fn tasks_that_leave_many_at_a_time_count_as_many() {
        let mut pace = Pace::default();
        pace.begin(Time(0));
        for batch in 1..=8_u64 {
            (0..8).for_each(|_| pace.on_sent(Time(batch * 8 * MS)));
        }
        let wait = pace.wait(10, Time(64 * MS)).map_or(0, |wait| wait.0);
        assert!((10 * MS..12 * MS).contains(&wait), "{wait}");
    }

    #[test]
    fn what_stands_still_is_as_slow_as_that() {
        let (pace, now) = paced(MS, 50);
        assert_eq!(pace.wait(2, now.after(Span(500 * MS))), Some(Span(1_000 * MS)));
    }

    #[test]
    fn what_was_slow_once_is_forgotten_though_few_come_at_a_time() {
        let (mut pace, mut now) = paced(1_000 * MS, 16);
        for _ in 0..40 {
            now = now.after(Span(60_000 * MS));
            pace.begin(now);
            (0..2).for_each(|_| {
                now = now.after(Span(MS));
                pace.on_sent(now);
            });
        }
        pace.begin(now);
        assert!(pace.wait(1, now).is_some_and(|wait| wait < Span(2 * MS)), "{pace:?}");
    }

    #[test]
    fn an_empty_time_does_not_count() {
        let (mut pace, now) = paced(MS, 50);
        let later = now.after(Span(60_000 * MS));
        pace.begin(later);
        assert_eq!(pace.wait(10, later), Some(Span(10 * MS)));
    }
}
