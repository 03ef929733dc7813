//! One run: what was asked for, what was measured, and the numbers that follow.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use pinmesh_histogram::{Percentiles, Stage, StageHistograms};
use pinmesh_host::CpuSelection;
use serde::Serialize;

use crate::{
    mesh::{Logs, TaskTraffic},
    meter::CpuTime,
    record::Record,
};

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunConfig {
    /// The broker that was there before; null: a mesh of its own was started for each run.
    pub(crate) broker: Option<String>,
    /// Whether the connections are encrypted (CURVE).
    pub(crate) encrypted: bool,
    /// Worker processes; null where the mesh was there before.
    pub(crate) workers: Option<u32>,
    /// CPUs that the workers were given; null: the worker's default.
    pub(crate) worker_cpus: Option<CpuSelection>,
    /// CPUs that this process, and so what it starts, may use.
    pub(crate) cpus_allowed: usize,
    /// Clients, each with a session and two threads of its own.
    pub(crate) clients: u32,
    /// Tasks that each client keeps outstanding.
    pub(crate) window: u32,
    /// Bytes of a task's payload.
    pub(crate) payload_bytes: usize,
    /// What the tasks asked for.
    pub(crate) service: String,
    /// Time before the measured interval, seconds.
    #[serde(rename = "warmup_s", serialize_with = "seconds")]
    pub(crate) warmup: Duration,
    /// The measured interval as planned, seconds.
    #[serde(rename = "duration_s", serialize_with = "seconds")]
    pub(crate) duration: Duration,
    /// The program that was started as broker.
    pub(crate) broker_program: Option<PathBuf>,
    /// The program that was started as workers.
    pub(crate) worker_program: Option<PathBuf>,
}

/// For serde: a time as seconds.
pub(crate) fn seconds<S: serde::Serializer>(
    time: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Tasks that ended well in the measured interval.
    pub(crate) tasks: u64,
    /// The measured interval.
    pub(crate) elapsed: Duration,
    /// CPU time in it.
    pub(crate) cpu: CpuTime,
    /// What the broker sent to workers in it.
    pub(crate) traffic: Option<TaskTraffic>,
    /// What the clients saw: times of the measured interval, counts of the whole run.
    pub(crate) record: Record,
    /// What broker and workers recorded over their life.
    pub(crate) logs: Logs,
    /// What else was not in order.
    pub(crate) problems: Vec<String>,
}

/// A number for each side of the mesh. Null: unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct BySide {
    /// The broker.
    pub(crate) broker: Option<f64>,
    /// The workers, their supervisor included.
    pub(crate) workers: Option<f64>,
    /// The clients: this process.
    pub(crate) clients: Option<f64>,
    /// All of them.
    pub(crate) total: Option<f64>,
}

impl BySide {
    pub(crate) fn of(cpu: &CpuTime, number: impl Fn(f64) -> Option<f64>) -> Self {
        let side = |cpu_ns: Option<u64>| cpu_ns.and_then(|ns| number(ns as f64));
        let total = [cpu.broker, cpu.workers, cpu.clients]
            .into_iter()
            .try_fold(0_u64, |sum, side| Some(sum.saturating_add(side?)));
        Self {
            broker: side(cpu.broker),
            workers: side(cpu.workers),
            clients: side(cpu.clients),
            total: side(total),
        }
    }
}

/// Times of one stage, ns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) min: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) p9999: u64,
    pub(crate) max: u64,
    pub(crate) overflow: u64,
}

impl From<Percentiles> for Latency {
    fn from(summary: Percentiles) -> Self {
        let Percentiles { count, mean, min, p50, p90, p99, p999, p9999, max, overflow } = summary;
        Self { count, mean, min, p50, p90, p99, p999, p9999, max, overflow }
    }
}

/// By the name of a stage. Stages without a value are left out.
pub(crate) type Latencies = BTreeMap<&'static str, Latency>;

fn latencies(stages: &StageHistograms) -> Latencies {
    let latency = |stage: Stage| Some((stage.name(), stages.summary(stage)?.into()));
    Stage::ALL.into_iter().filter_map(latency).collect()
}

/// The numbers of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunResult {
    /// Whether the numbers count.
    pub(crate) valid: bool,
    /// Why they do not.
    pub(crate) invalid_because: Vec<String>,
    /// What a reader should know.
    pub(crate) notes: Vec<String>,
    /// Tasks that ended well in the measured interval.
    pub(crate) tasks: u64,
    /// The measured interval, seconds.
    pub(crate) elapsed_s: f64,
    /// Throughput.
    pub(crate) tasks_per_s: f64,
    /// CPU time a task, microseconds.
    pub(crate) cpu_us_per_task: BySide,
    /// Tasks that one core would carry: 1e6 by the CPU microseconds a task.
    pub(crate) tasks_per_s_per_core: BySide,
    /// CPUs kept busy on average.
    pub(crate) cpus_busy: BySide,
    /// Tasks that the broker sends to a worker in one message, on average.
    pub(crate) tasks_per_message: Option<f64>,
    /// Times by stage as the client learns them, ns.
    pub(crate) latency_ns: Latencies,
    /// Times by stage as the broker recorded them over its life, warm-up included, ns.
    pub(crate) broker_log_ns: Option<Latencies>,
    /// Times by stage as the workers recorded them over their life, warm-up included, ns.
    pub(crate) workers_log_ns: Option<Latencies>,
    /// Tasks of the whole run, warm-up included.
    pub(crate) counts: Counts,
}

impl Counts {
    pub(crate) fn of(record: &Record) -> Self {
        let Record { succeeded, failed, wrong, lost, retries, .. } = *record;
        Self { succeeded, failed, wrong, lost, retries }
    }
}

/// Tasks of the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub(crate) struct Counts {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) wrong: u64,
    pub(crate) lost: u64,
    pub(crate) retries: u64,
}

impl RunResult {
    /// The numbers that follow from what was measured.
    pub(crate) fn new(
        measured: &Measured,
        invalid_because: Vec<String>,
        notes: Vec<String>,
    ) -> Self {
        let elapsed_s = measured.elapsed.as_secs_f64();
        let tasks = measured.tasks as f64;
        let cpu = &measured.cpu;
        let cpu_us_per_task = BySide::of(cpu, |ns| ratio(ns / 1e3, tasks));
        let record = &measured.record;
        Self {
            valid: invalid_because.is_empty(),
            invalid_because,
            notes,
            tasks: measured.tasks,
            elapsed_s,
            tasks_per_s: ratio(tasks, elapsed_s).unwrap_or(0.0),
            cpu_us_per_task,
            tasks_per_s_per_core: BySide::of(cpu, |ns| ratio(tasks * 1e9, ns)),
            cpus_busy: BySide::of(cpu, |ns| ratio(ns / 1e9, elapsed_s)),
            tasks_per_message: measured
                .traffic
                .and_then(|traffic| ratio(traffic.tasks as f64, traffic.messages as f64)),
            latency_ns: latencies(&record.stages),
            broker_log_ns: measured.logs.broker.as_ref().map(latencies),
            workers_log_ns: measured.logs.workers.as_ref().map(latencies),
            counts: Counts::of(record),
        }
    }
}

/// `None` by zero.
pub(crate) fn ratio(number: f64, by: f64) -> Option<f64> {
    (by > 0.0).then(|| number / by)
}

/// A valid run with numbers that are easy to follow: a million tasks in two seconds.
#[cfg(test)]
pub(crate) fn made_up() -> (Measured, RunConfig) {
    let mut record = Record::new();
    record.succeeded = 1_500_000;
    for number in 1..=1000_u64 {
        record.stages.record(Stage::Response, number * 1_000);
        record.stages.record(Stage::Service, number);
    }
    let measured = Measured {
        tasks: 1_000_000,
        elapsed: Duration::from_secs(2),
        cpu: CpuTime {
            broker: Some(500_000_000),
            workers: Some(250_000_000),
            clients: Some(1_250_000_000),
        },
        traffic: Some(TaskTraffic { tasks: 1_000_000, messages: 10_000 }),
        record,
        logs: Logs::default(),
        problems: Vec::new(),
    };
    let config = RunConfig {
        broker: None,
        encrypted: false,
        workers: Some(2),
        worker_cpus: None,
        cpus_allowed: 8,
        clients: 1,
        window: 1000,
        payload_bytes: 64,
        service: "echo".to_owned(),
        warmup: Duration::from_secs(1),
        duration: Duration::from_secs(2),
        broker_program: Some(PathBuf::from("/opt/pinmesh-broker")),
        worker_program: Some(PathBuf::from("/opt/pinmesh-worker")),
    };
    (measured, config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_and_rates_follow_from_tasks_time_and_cpu_time() {
        let (measured, _) = made_up();
        let result = RunResult::new(&measured, Vec::new(), Vec::new());
        assert!(result.valid);
        assert_eq!(result.tasks_per_s, 500_000.0);
        let expected = BySide {
            broker: Some(0.5),
            workers: Some(0.25),
            clients: Some(1.25),
            total: Some(2.0),
        };
        assert_eq!(result.cpu_us_per_task, expected);
        let per_core = result.tasks_per_s_per_core;
        assert_eq!((per_core.broker, per_core.workers), (Some(2e6), Some(4e6)));
        assert_eq!((per_core.clients, per_core.total), (Some(8e5), Some(5e5)));
        assert_eq!(result.cpus_busy.total, Some(1.0));
        assert_eq!(result.tasks_per_message, Some(100.0));
        assert_eq!(result.latency_ns["service"].p50, 500);
        assert!(!result.latency_ns.contains_key("transit"));
    }

    #[test]
    fn what_is_not_known_is_null_and_so_is_the_total() {
        let (mut measured, _) = made_up();
        measured.cpu.workers = None;
        measured.traffic = None;
        let result = RunResult::new(&measured, Vec::new(), Vec::new());
        assert_eq!(result.cpu_us_per_task.workers, None);
        assert_eq!(result.cpu_us_per_task.total, None);
        assert_eq!(result.cpu_us_per_task.broker, Some(0.5));
        assert_eq!(result.tasks_per_message, None);
    }

    #[test]
    fn a_run_without_a_task_has_no_cost_a_task() {
        let (mut measured, _) = made_up();
        measured.tasks = 0;
        let result = RunResult::new(&measured, vec!["no task".to_owned()], Vec::new());
        assert!(!result.valid);
        assert_eq!(result.tasks_per_s, 0.0);
        assert_eq!(result.cpu_us_per_task, BySide::default());
    }
}
