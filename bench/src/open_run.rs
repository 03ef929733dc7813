//! One open-loop run: what was asked for, what was measured, and the numbers that follow.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use pinmesh_histogram::{Percentiles, Stage, StageHistograms};
use pinmesh_host::CpuSelection;
use serde::Serialize;

use crate::{
    arrivals::Arrivals,
    generator,
    meter::CpuTime,
    record::Record,
    run::{BySide, Counts, ratio, seconds},
    timeline::Steady,
};

/// Stages in the order in which they are shown.
pub(crate) const STAGES: [Stage; Stage::COUNT] = [
    Stage::Response,
    Stage::RoundTrip,
    Stage::SendLag,
    Stage::ClientPath,
    Stage::BrokerWait,
    Stage::Transit,
    Stage::WorkerWait,
    Stage::Service,
];

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OpenConfig {
    /// Planned sends a second.
    pub(crate) rate: f64,
    /// How they are spread.
    pub(crate) arrivals: Arrivals,
    /// Seed of the first run's plan; each further run has the next.
    pub(crate) seed: u64,
    /// The brokers that were there before; empty: a mesh of its own was started for each run.
    pub(crate) brokers: Vec<String>,
    /// Whether the connections are encrypted (CURVE).
    pub(crate) encrypted: bool,
    /// Worker processes; null where the mesh was there before.
    pub(crate) workers: Option<u32>,
    /// CPUs that the workers were given; null: the worker's default.
    pub(crate) worker_cpus: Option<CpuSelection>,
    /// CPUs that this process, and so what it starts, may use.
    pub(crate) cpus_allowed: usize,
    /// Clients, each with a session of its own, fed in turn by one generator.
    pub(crate) clients: u32,
    /// Bytes of a task's payload.
    pub(crate) payload_bytes: usize,
    /// What the tasks asked for.
    pub(crate) service: String,
    /// How long the service was told to take, seconds; null: it was not.
    pub(crate) service_time_s: Option<f64>,
    /// Time before the measured interval at the least, seconds.
    #[serde(rename = "warmup_s", serialize_with = "seconds")]
    pub(crate) warmup: Duration,
    /// The measured interval before MSER-5 cuts it, seconds.
    #[serde(rename = "duration_s", serialize_with = "seconds")]
    pub(crate) duration: Duration,
    /// The program that was started as broker.
    pub(crate) broker_program: Option<PathBuf>,
    /// The program that was started as workers.
    pub(crate) worker_program: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct OpenMeasured {
    /// Seed of its plan.
    pub(crate) seed: u64,
    /// Sends of the measured interval, as planned.
    pub(crate) planned: u64,
    /// How many of them were not made.
    pub(crate) unsent: u64,
    /// What was counted in it.
    pub(crate) counts: generator::Counts,
    /// Its length by the clock.
    pub(crate) elapsed: Duration,
    /// CPU time in it; the generator's spinning is not in that of the clients.
    pub(crate) cpu: CpuTime,
    /// How the tasks of the whole run ended.
    pub(crate) record: Record,
    /// The part in which the mesh had settled.
    pub(crate) steady: Steady,
    /// What MSER-5 cut.
    pub(crate) cut: Duration,
    /// Outstanding tasks at regular moments of the measured interval.
    pub(crate) outstanding: Vec<u64>,
    /// What else was not in order.
    pub(crate) problems: Vec<String>,
}

impl OpenMeasured {
    /// The generator's work as a share of one CPU, spinning not counted.
    pub(crate) fn generator_busy(&self) -> f64 {
        ratio(self.counts.busy_ns as f64 / 1e9, self.elapsed.as_secs_f64()).unwrap_or(0.0)
    }
}

/// Times of one stage, microseconds. Of several runs: the median over runs of each number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub(crate) struct LatencyUs {
    pub(crate) count: f64,
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) p9999: f64,
    pub(crate) max: f64,
    /// Values above 60 s, taken as 60 s.
    pub(crate) overflow: f64,
}

impl From<Percentiles> for LatencyUs {
    fn from(summary: Percentiles) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        Self {
            count: summary.count as f64,
            mean: summary.mean / 1e3,
            min: us(summary.min),
            p50: us(summary.p50),
            p90: us(summary.p90),
            p99: us(summary.p99),
            p999: us(summary.p999),
            p9999: us(summary.p9999),
            max: us(summary.max),
            overflow: summary.overflow as f64,
        }
    }
}

/// By the name of a stage. Stages without a value are left out.
pub(crate) type LatenciesUs = BTreeMap<&'static str, LatencyUs>;

fn latencies_us(stages: &StageHistograms) -> LatenciesUs {
    let latency = |stage: Stage| Some((stage.name(), stages.summary(stage)?.into()));
    Stage::ALL.into_iter().filter_map(latency).collect()
}

/// The numbers of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OpenResult {
    /// Whether the numbers count.
    pub(crate) valid: bool,
    /// Why they do not.
    pub(crate) invalid_because: Vec<String>,
    /// What a reader should know.
    pub(crate) notes: Vec<String>,
    /// Seed of its plan.
    pub(crate) seed: u64,
    /// Planned sends a second, as the plan came out in the steady part.
    pub(crate) rate_planned: f64,
    /// Sends made a second in the steady part.
    pub(crate) rate_achieved: f64,
    /// Times by stage in the steady part, microseconds.
    pub(crate) latency_us: LatenciesUs,
    /// CPU time a task, microseconds.
    pub(crate) cpu_us_per_task: BySide,
    /// Tasks that one core would carry: 1e6 by the CPU microseconds a task.
    pub(crate) tasks_per_s_per_core: BySide,
    /// CPUs kept busy on average.
    pub(crate) cpus_busy: BySide,
    /// The one who sends.
    pub(crate) generator: Generator,
    /// Length of the steady part, seconds.
    pub(crate) steady_s: f64,
    /// What MSER-5 cut after the warm-up, seconds.
    pub(crate) warmup_cut_s: f64,
    /// Tasks of the whole run, warm-up included.
    pub(crate) counts: Counts,
}

/// How the sending went, in the measured interval.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Generator {
    /// Sends that were planned.
    pub(crate) sends_planned: u64,
    /// Sends that were made, late ones included.
    pub(crate) sends_made: u64,
    /// Sends that found the window of their client full, and were late.
    pub(crate) window_full: u64,
    /// Making and handing in tasks, as a share of one CPU.
    pub(crate) busy_share: f64,
    /// CPUs that it kept busy, spinning included.
    pub(crate) cpus_with_spinning: f64,
}

impl OpenResult {
    /// The numbers that follow from what was measured.
    pub(crate) fn new(
        measured: &OpenMeasured,
        invalid_because: Vec<String>,
        notes: Vec<String>,
    ) -> Self {
        let elapsed_s = measured.elapsed.as_secs_f64();
        let steady = &measured.steady;
        let steady_s = steady.length.as_secs_f64();
        let tasks = measured.counts.ended as f64;
        let rate = |sends: u64| ratio(sends as f64, steady_s).unwrap_or(0.0);
        Self {
            valid: invalid_because.is_empty(),
            invalid_because,
            notes,
            seed: measured.seed,
            rate_planned: rate(steady.planned),
            rate_achieved: rate(steady.sent),
            latency_us: latencies_us(&steady.stages),
            cpu_us_per_task: BySide::of(&measured.cpu, |ns| ratio(ns / 1e3, tasks)),
            tasks_per_s_per_core: BySide::of(&measured.cpu, |ns| ratio(tasks * 1e9, ns)),
            cpus_busy: BySide::of(&measured.cpu, |ns| ratio(ns / 1e9, elapsed_s)),
            generator: Generator {
                sends_planned: measured.planned,
                sends_made: measured.planned.saturating_sub(measured.unsent),
                window_full: measured.counts.window_full,
                busy_share: measured.generator_busy(),
                cpus_with_spinning: ratio(measured.counts.cpu_ns as f64 / 1e9, elapsed_s)
                    .unwrap_or(0.0),
            },
            steady_s,
            warmup_cut_s: measured.cut.as_secs_f64(),
            counts: Counts::of(&measured.record),
        }
    }
}

/// A valid run with numbers that are easy to follow: 10,000 tasks a second for ten seconds.
#[cfg(test)]
pub(crate) fn made_up() -> (OpenMeasured, OpenConfig) {
    use crate::timeline::{Schedule, Timeline};

    let second = Duration::from_secs(1);
    let plan = Arrivals::Constant.plan(10_000.0, 12 * second, 1);
    let schedule = Schedule::new(plan, 2 * second, 10 * second);
    let mut timeline = Timeline::new(&schedule);
    for number in 0..schedule.sends_ns.len() {
        let us = number as u64 % 100;
        timeline.record(&schedule, number, 1000, (100 + us) * 1000, None);
    }
    let mut record = Record::new();
    record.succeeded = 120_000;
    let measured = OpenMeasured {
        seed: 1,
        planned: schedule.planned(),
        unsent: 0,
        counts: generator::Counts {
            sent: 100_000,
            ended: 100_000,
            window_full: 0,
            busy_ns: 1_000_000_000,
            cpu_ns: 9_000_000_000,
        },
        elapsed: 10 * second,
        cpu: CpuTime {
            broker: Some(500_000_000),
            workers: Some(250_000_000),
            clients: Some(1_250_000_000),
        },
        record,
        steady: timeline.steady(&schedule, 120_000),
        cut: Duration::ZERO,
        outstanding: (0..500).map(|at| at % 7).collect(),
        problems: Vec::new(),
    };
    let config = OpenConfig {
        rate: 10_000.0,
        arrivals: Arrivals::Constant,
        seed: 1,
        brokers: Vec::new(),
        encrypted: false,
        workers: Some(2),
        worker_cpus: None,
        cpus_allowed: 8,
        clients: 1,
        payload_bytes: 64,
        service: "echo".to_owned(),
        service_time_s: None,
        warmup: 2 * second,
        duration: 10 * second,
        broker_program: Some(PathBuf::from("/opt/pinmesh-broker")),
        worker_program: Some(PathBuf::from("/opt/pinmesh-worker")),
    };
    (measured, config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_costs_follow_from_what_was_measured() {
        let (measured, _) = made_up();
        let result = OpenResult::new(&measured, Vec::new(), Vec::new());
        assert!(result.valid);
        assert_eq!((result.rate_planned, result.rate_achieved), (10_000.0, 10_000.0));
        assert_eq!(result.cpu_us_per_task.total, Some(20.0));
        assert_eq!(result.generator.busy_share, 0.1);
        assert_eq!(result.generator.cpus_with_spinning, 0.9);
        assert_eq!(result.generator.sends_made, 100_000);
        let latency = &result.latency_us;
        assert_eq!(latency["response"].count, 100_000.0);
        assert!((latency["response"].p50 - 150.0).abs() < 0.5, "{latency:?}");
        assert!((latency["send_lag"].p99 - 1.0).abs() < 0.01, "{latency:?}");
        assert!(!latency.contains_key("transit"));
    }

    #[test]
    fn every_stage_is_shown_once() {
        let mut shown = STAGES;
        shown.sort();
        let mut all = Stage::ALL;
        all.sort();
        assert_eq!(shown, all);
    }
}
