//! How many tasks a worker is to hold: as few as keep it busy, so that the others wait where any
//! worker can take them.
//!
//! A worker with `n` credits, a round trip R and a mean service time S is busy for
//! `1 - ErlangB(n, R / S)` of the time: a closed network of one server and a delay. The least `n` that
//! loses at most 2 % is its credit for the service. R is measured from tasks that were sent to it
//! while it held nothing, as what DONE came later than the worker's own time for the task; others may
//! have waited unread for the one before, so that they say how long it is at most: a worker that is
//! never idle would else keep the round trip of the moment when it last was. S is what the worker says.

use crate::time::Span;

/// Work that is lost for want of a task, at most.
const LOSS_MAX: f64 = 0.02;
/// Tasks before anything is known of a service at this worker.
pub(crate) const CREDIT_START: u32 = 4;
/// A round trip counts as long at least: what waking up a loop may take.
const ROUND_TRIP_MIN: Span = Span(100_000);
/// Ends between two looks at the credit of a service.
const LOOK_EVERY: u32 = 32;

/// One service of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credit {
    /// How many of these keep the worker busy.
    tasks: u32,
    service: Span,
    /// Ends since the last look.
    ends: u32,
}

impl Credit {
    pub(crate) const START: Self = Self { tasks: CREDIT_START, service: Span(0), ends: 0 };

    /// Whether one more may be sent to a worker that holds so many tasks, which should take it so long
    /// (nanoseconds). Counted in time, so that short tasks are not sent behind a long one.
    #[inline]
    pub(crate) const fn allows(&self, held: u32, work: u64) -> bool {
        if self.service.0 == 0 {
            return held < CREDIT_START;
        }
        work.saturating_add(self.service.0) <= self.work_max()
    }

    /// What as many tasks as it allows should take, nanoseconds.
    pub(crate) const fn work_max(&self) -> u64 {
        self.service.0.saturating_mul(self.tasks as u64)
    }

    /// What a task of it should take, nanoseconds; 0: nobody knows.
    pub(crate) const fn work(&self) -> u64 {
        self.service.0
    }

    /// A task of it took so long in its handler. `true`: the credit was looked at anew.
    #[inline]
    pub(crate) fn on_end(&mut self, took: Span, round_trip: Span, cap: u32) -> bool {
        let is_first = self.service.0 == 0;
        let took = took.0.max(1);
        self.service.0 = if is_first { took } else { moved(self.service.0, took) };
        self.ends += 1;
        if !is_first && self.ends < LOOK_EVERY {
            return false;
        }
        self.ends = 0;
        self.tasks = least_credit(round_trip.0.max(ROUND_TRIP_MIN.0), self.service.0, cap);
        true
    }
}

/// The round trip to a worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrip(Span);

impl RoundTrip {
    pub(crate) const fn value(self) -> Span {
        self.0
    }

    #[inline]
    pub(crate) fn add(&mut self, took: Span) {
        self.0.0 = if self.0.0 == 0 { took.0 } else { moved(self.0.0, took.0) };
    }
}

/// A moving average, by 1/16.
const fn moved(mean: u64, sample: u64) -> u64 {
    if sample > mean { mean + (sample - mean) / 16 } else { mean - (mean - sample) / 16 }
}

/// The least `n` up to `cap` with ErlangB(n, round trip / service) <= 2 %, by the recursion
/// B(n) = a B(n - 1) / (n + a B(n - 1)), B(0) = 1.
fn least_credit(round_trip: u64, service: u64, cap: u32) -> u32 {
    let load = round_trip as f64 / service as f64;
    let mut loss = 1.0;
    for credit in 1..cap {
        loss = load * loss / (f64::from(credit) + load * loss);
        if loss <= LOSS_MAX {
            return credit;
        }
    }
    cap.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credit_is_the_least_that_loses_two_percent() {
        let table = [(0.02, 1), (0.1, 2), (0.5, 3), (1.0, 4), (2.0, 6), (5.0, 10), (10.0, 17)];
        for (load, credit) in table {
            let service = 1_000_000;
            let round_trip = (load * service as f64) as u64;
            assert_eq!(least_credit(round_trip, service, 1_024), credit, "R/S = {load}");
        }
        assert_eq!(least_credit(1 << 40, 1, 1_024), 1_024, "the cap");
        assert_eq!(least_credit(1 << 40, 1, 0), 1, "one task always");
    }

    #[test]
    fn the_credit_follows_what_is_measured() {
        let mut credit = Credit::START;
        let trip = Span(1_000_000);
        assert!(credit.on_end(Span(1_000_000), trip, 1_024), "known after the first task");
        assert_eq!(credit.tasks, 4, "R = S");
        (0..400).for_each(|_| {
            credit.on_end(Span(100_000_000), trip, 1_024);
        });
        assert_eq!(credit.tasks, 1, "long tasks");
        (0..4_000).for_each(|_| {
            credit.on_end(Span(10_000), trip, 1_024);
        });
        assert!(credit.tasks > 100, "short ones: {}", credit.tasks);
    }
}
