//! The times of an open loop, by interval of the *intended* send: a stall is charged to everyone
//! whom it delayed, and nothing is corrected afterwards.

use std::time::Duration;

use pinmesh_client::StageTimes;
use pinmesh_histogram::{Precision, Stage, StageHistograms};

use crate::warmup::{BATCH, Cut, mser};

/// Intervals of a run that is not too short for seconds, at the least.
const INTERVALS_MIN: u64 = 10;
/// With every stage in use an interval takes 1.8 MB.
const INTERVALS_MAX: u64 = 60;
/// A cut below this share of the measured interval is none: MSER leaves a few batches out of any
/// noise, and whole intervals would go with them.
const CUT_SHARE_MIN: f64 = 0.01;

/// When what is to be sent, and which part of it is measured. Times are ns from the start.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Intended sends, ascending.
    pub(crate) sends_ns: Vec<u64>,
    /// Where measuring starts.
    pub(crate) warmup_ns: u64,
    /// Where it ends.
    pub(crate) end_ns: u64,
    /// The first send that is measured.
    first_measured: usize,
    interval_ns: u64,
}

impl Schedule {
    /// Of a plan that ends with the measured interval.
    pub(crate) fn new(sends_ns: Vec<u64>, warmup: Duration, duration: Duration) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (warmup_ns, duration_ns) = (ns(warmup), ns(duration).max(1));
        let first_measured = sends_ns.partition_point(|send| *send < warmup_ns);
        let intervals = duration.as_secs().clamp(INTERVALS_MIN, INTERVALS_MAX);
        let interval_ns = duration_ns.div_ceil(intervals);
        let end_ns = warmup_ns.saturating_add(duration_ns);
        Self { sends_ns, warmup_ns, end_ns, first_measured, interval_ns }
    }

    /// The length of an interval.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval_ns)
    }

    /// The interval of a moment; `None`: it is not measured.
    fn interval_of(&self, at_ns: u64) -> Option<usize> {
        let since = at_ns.checked_sub(self.warmup_ns)?;
        (at_ns < self.end_ns).then_some((since / self.interval_ns) as usize)
    }

    /// Measured sends from an interval on.
    fn planned_from(&self, interval: usize) -> u64 {
        let from_ns = self.warmup_ns + interval as u64 * self.interval_ns;
        let first = self.sends_ns.partition_point(|send| *send < from_ns);
        (self.sends_ns.len() - first) as u64
    }

    /// Measured sends.
    pub(crate) fn planned(&self) -> u64 {
        (self.sends_ns.len() - self.first_measured) as u64
    }
}

/// What was recorded of one interval.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    /// Of the tasks that were to be sent in it.
    pub(crate) stages: StageHistograms,
    /// Tasks that were sent in it, whenever they were to be.
    sent: u64,
}

/// The times of the measured part of a run.
#[derive(Debug)]
pub(crate) struct Timeline {
    intervals: Vec<Interval>,
    /// Response times, summed by five successive sends.
    batches: Vec<f64>,
}

/// The steady part of a run.
#[derive(Debug)]
pub(crate) struct Steady {
    /// Intervals left out at the beginning.
    pub(crate) intervals_cut: usize,
    /// Whether the run has settled; if not, nothing is cut.
    pub(crate) has_settled: bool,
    /// Times by stage.
    pub(crate) stages: StageHistograms,
    /// The longest response that was cut, ns.
    pub(crate) response_max_cut_ns: u64,
    /// Its length.
    pub(crate) length: Duration,
    /// Sends that were planned for it.
    pub(crate) planned: u64,
    /// Sends made in it.
    pub(crate) sent: u64,
}

impl Timeline {
    /// Without a task.
    pub(crate) fn new(schedule: &Schedule) -> Self {
        let length_ns = schedule.end_ns - schedule.warmup_ns;
        let count = length_ns.div_ceil(schedule.interval_ns) as usize;
        let empty = Interval { stages: StageHistograms::new(Precision::Bench), sent: 0 };
        let batches = schedule.planned() as usize / BATCH;
        Self { intervals: vec![empty; count], batches: vec![0.0; batches] }
    }

    /// Records a task by its number in the plan. Response is what a user feels who wanted it sent
    /// as planned: the lag of the send and the round trip.
    pub(crate) fn record(
        &mut self,
        schedule: &Schedule,
        number: usize,
        lag_ns: u64,
        round_trip_ns: u64,
        stages: Option<&StageTimes>,
    ) {
        let intended_ns = schedule.sends_ns[number];
        let sent_ns = intended_ns.saturating_add(lag_ns);
        if let Some(sent_in) = schedule.interval_of(sent_ns) {
            self.intervals[sent_in].sent += 1;
        }
        let Some(interval) = schedule.interval_of(intended_ns) else { return };
        let response_ns = lag_ns.saturating_add(round_trip_ns);
        let batch = (number - schedule.first_measured) / BATCH;
        if let Some(batch) = self.batches.get_mut(batch) {
            *batch += response_ns as f64 / BATCH as f64;
        }
        let recorder = &mut self.intervals[interval].stages;
        recorder.record(Stage::SendLag, lag_ns);
        recorder.record(Stage::RoundTrip, round_trip_ns);
        recorder.record(Stage::Response, response_ns);
        let Some(stages) = stages else { return };
        record_stages(recorder, round_trip_ns, stages);
    }

    /// The intervals from one on.
    pub(crate) fn intervals_from(&self, first: usize) -> &[Interval] {
        self.intervals.get(first..).unwrap_or_default()
    }

    /// What is left when the warm-up that MSER-5 finds has been cut, in whole intervals. `sent`:
    /// how many of the planned sends were made.
    pub(crate) fn steady(&self, schedule: &Schedule, sent: u64) -> Steady {
        let sent = (sent as usize).saturating_sub(schedule.first_measured);
        let batches = &self.batches[..self.batches.len().min(sent / BATCH)];
        let (intervals_cut, has_settled) = match mser(batches) {
            Cut::NotSettled => (0, false),
            Cut::Batches(0) => (0, true),
            Cut::Batches(batches) => {
                let number = schedule.first_measured + batches * BATCH;
                let at_ns = schedule.sends_ns[number] - schedule.warmup_ns;
                let length_ns = schedule.end_ns - schedule.warmup_ns;
                let is_noise = (at_ns as f64) < length_ns as f64 * CUT_SHARE_MIN;
                (if is_noise { 0 } else { at_ns.div_ceil(schedule.interval_ns) as usize }, true)
            }
        };
        let (cut, left) = self.intervals.split_at(intervals_cut.min(self.intervals.len()));
        let mut stages = StageHistograms::new(Precision::Bench);
        left.iter().for_each(|interval| stages.merge(&interval.stages));
        let longest = |interval: &Interval| Some(interval.stages.summary(Stage::Response)?.max);
        let start_ns = schedule.warmup_ns + intervals_cut as u64 * schedule.interval_ns;
        Steady {
            intervals_cut,
            has_settled,
            stages,
            response_max_cut_ns: cut.iter().filter_map(longest).max().unwrap_or(0),
            length: Duration::from_nanos(schedule.end_ns.saturating_sub(start_ns)),
            planned: schedule.planned_from(intervals_cut),
            sent: left.iter().map(|interval| interval.sent).sum(),
        }
    }
}

/// The times inside the mesh, and what the client's own queues and the way there and back took.
pub(crate) fn record_stages(
    recorder: &mut StageHistograms,
    round_trip_ns: u64,
    stages: &StageTimes,
) {
    recorder.record(Stage::BrokerWait, stages.broker_wait_ns);
    recorder.record(Stage::Transit, stages.transit_ns);
    recorder.record(Stage::WorkerWait, stages.worker_wait_ns);
    recorder.record(Stage::Service, stages.service_ns);
    let in_mesh_ns = [stages.transit_ns, stages.worker_wait_ns, stages.service_ns]
        .into_iter()
        .fold(stages.broker_wait_ns, u64::saturating_add);
    // Clocks of two hosts may differ in rate; below zero is zero.
    recorder.record(Stage::ClientPath, round_trip_ns.saturating_sub(in_mesh_ns));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Arrivals;

    const MS: u64 = 1_000_000;

    fn schedule(rate: f64, warmup_s: u64, duration_s: u64) -> Schedule {
        let (warmup, duration) = (Duration::from_secs(warmup_s), Duration::from_secs(duration_s));
        Schedule::new(Arrivals::Constant.plan(rate, warmup + duration, 1), warmup, duration)
    }

    /// A server of one task at a time, 10 us each, that stands still for the last 100 ms of every
    /// second, and a sender that is held up with it, as one is that waits for the answer.
    fn stalling_server(schedule: &Schedule) -> Timeline {
        let mut timeline = Timeline::new(schedule);
        let mut free_ns = 0;
        for (number, &intended_ns) in schedule.sends_ns.iter().enumerate() {
            let sent_ns = intended_ns.max(free_ns);
            let mut start_ns = sent_ns;
            if start_ns % (1000 * MS) >= 900 * MS {
                start_ns = start_ns.next_multiple_of(1000 * MS);
            }
            free_ns = start_ns + 10_000;
            timeline.record(schedule, number, sent_ns - intended_ns, free_ns - sent_ns, None);
        }
        timeline
    }

    #[test]
    fn a_stall_is_charged_to_everyone_whom_it_delayed_and_not_to_one_sample() {
        let schedule = schedule(1000.0, 0, 20);
        let timeline = stalling_server(&schedule);
        let mut stages = StageHistograms::new(Precision::Bench);
        timeline.intervals_from(0).iter().for_each(|interval| stages.merge(&interval.stages));
        let round_trip = stages.summary(Stage::RoundTrip).unwrap();
        let response = stages.summary(Stage::Response).unwrap();
        assert_eq!((round_trip.count, response.count), (20_000, 20_000));
        // Seen from the actual send, one task of a thousand was slow: the rest waited unseen.
        assert!(round_trip.p99 < 11_000, "{round_trip:?}");
        assert!(round_trip.max > 99 * MS, "{round_trip:?}");
        // A tenth was to be sent during a stall, and waited for its end: 100 ms to nothing.
        assert!(response.p50 < 11_000, "{response:?}");
        assert!((85 * MS..96 * MS).contains(&response.p99), "{response:?}");
        let p95 = stages.quantile(Stage::Response, 0.95).unwrap();
        assert!((45 * MS..55 * MS).contains(&p95), "{p95}");
        // What was late is told apart, and is in the response once.
        assert!(stages.summary(Stage::SendLag).unwrap().p99 > 85 * MS);
        assert!(response.max <= 101 * MS, "{response:?}");
    }

    #[test]
    fn tasks_belong_to_the_interval_in_which_they_were_to_be_sent() {
        let schedule = schedule(10.0, 1, 10);
        assert_eq!((schedule.planned(), schedule.interval()), (100, Duration::from_secs(1)));
        let mut timeline = Timeline::new(&schedule);
        for number in 0..schedule.sends_ns.len() {
            // Everything is sent a second late: the last second's sends fall out of the interval.
            timeline.record(&schedule, number, 1000 * MS, 5, None);
        }
        let counts: Vec<(u64, u64)> = timeline
            .intervals_from(0)
            .iter()
            .map(|interval| (interval.stages.count(Stage::Response), interval.sent))
            .collect();
        assert_eq!(counts, [(10, 10); 10]);
        let steady = timeline.steady(&schedule, 110);
        assert_eq!((steady.intervals_cut, steady.planned, steady.sent), (0, 100, 100));
        assert_eq!(steady.length, Duration::from_secs(10));
    }

    #[test]
    fn a_slow_beginning_is_cut_and_what_it_held_is_told() {
        let schedule = schedule(1000.0, 1, 10);
        let mut timeline = Timeline::new(&schedule);
        for number in 0..schedule.sends_ns.len() {
            let since_ns = schedule.sends_ns[number].saturating_sub(schedule.warmup_ns);
            let slow_ns = (1500 * MS).saturating_sub(since_ns) / 10;
            timeline.record(&schedule, number, 0, 10_000 + number as u64 % 7 + slow_ns, None);
        }
        let steady = timeline.steady(&schedule, 11_000);
        assert!(steady.has_settled);
        assert_eq!(steady.intervals_cut, 2);
        assert_eq!((steady.planned, steady.sent), (8000, 8000));
        assert_eq!(steady.stages.count(Stage::Response), 8000);
        assert!(steady.stages.summary(Stage::Response).unwrap().max < 11_000);
        assert!(steady.response_max_cut_ns > 140 * MS);
        assert_eq!(steady.length, Duration::from_secs(8));
    }

    #[test]
    fn what_was_not_sent_is_no_reason_to_cut_what_was() {
        let schedule = schedule(1000.0, 1, 10);
        let mut timeline = Timeline::new(&schedule);
        (0..3000).for_each(|number| timeline.record(&schedule, number, 0, 10_000, None));
        let steady = timeline.steady(&schedule, 3000);
        assert_eq!((steady.intervals_cut, steady.sent), (0, 2000));
        assert_eq!(timeline.steady(&schedule, 0).intervals_cut, 0);
    }

    #[test]
    fn long_runs_have_longer_intervals_and_short_ones_shorter() {
        assert_eq!(schedule(1.0, 0, 600).interval(), Duration::from_secs(10));
        assert_eq!(schedule(1.0, 0, 30).interval(), Duration::from_secs(1));
        assert_eq!(schedule(1.0, 0, 2).interval(), Duration::from_millis(200));
    }
}
