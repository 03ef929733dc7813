//! The report: a table for people, JSON for programs.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use pinmesh_histogram::format_ns;
use pinmesh_host::Environment;
use serde::Serialize;

use crate::{
    build_info::BuildInfo,
    run::{BySide, Latencies, RunConfig, RunResult},
    spread::Spread,
};

/// Said wherever the times of this mode are shown.
const CLOSED_LOOP: &str = "closed loop: times are those of full queues, not comparable with \
                           open-loop response times";

/// The result of one command. The numbers on top are those of the run in the middle by throughput.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    mode: &'static str,
    latency_kind: &'static str,
    /// Seconds since 1970.
    date_unix_s: u64,
    valid: bool,
    invalid_because: Vec<String>,
    #[serde(flatten)]
    numbers: Numbers,
    /// How far runs lie apart; null with a single run.
    spread: Option<Spreads>,
    runs: Vec<RunResult>,
    config: RunConfig,
    build: BuildInfo,
    environment: Environment,
}

/// The numbers of a run that stand on top of a report.
#[derive(Clone, Debug, Serialize)]
struct Numbers {
    tasks_per_s: f64,
    cpu_us_per_task: BySide,
    tasks_per_s_per_core: BySide,
    cpus_busy: BySide,
    tasks_per_message: Option<f64>,
    latency_ns: Latencies,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spreads {
    tasks_per_s: Spread,
    cpu_us_per_task_broker: Option<Spread>,
    cpu_us_per_task_total: Option<Spread>,
}

impl Report {
    /// Of at least one run.
    pub(crate) fn new(
        runs: Vec<RunResult>,
        config: RunConfig,
        build: BuildInfo,
        environment: Environment,
    ) -> Option<Self> {
        let mut order: Vec<&RunResult> = runs.iter().collect();
        order.sort_by(|one, other| one.tasks_per_s.total_cmp(&other.tasks_per_s));
        let middle = *order.get(order.len().saturating_sub(1) / 2)?;
        let numbers = Numbers {
            tasks_per_s: middle.tasks_per_s,
            cpu_us_per_task: middle.cpu_us_per_task,
            tasks_per_s_per_core: middle.tasks_per_s_per_core,
            cpus_busy: middle.cpus_busy,
            tasks_per_message: middle.tasks_per_message,
            latency_ns: middle.latency_ns.clone(),
        };
        let spread = Spread::of(runs.iter().map(|run| Some(run.tasks_per_s)));
        let spread = spread.map(|tasks_per_s| Spreads {
            tasks_per_s,
            cpu_us_per_task_broker: Spread::of(runs.iter().map(|run| run.cpu_us_per_task.broker)),
            cpu_us_per_task_total: Spread::of(runs.iter().map(|run| run.cpu_us_per_task.total)),
        });
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Self {
            mode: "closed_loop_saturation",
            latency_kind: CLOSED_LOOP,
            date_unix_s: since_epoch.as_secs(),
            valid: runs.iter().all(|run| run.valid),
            invalid_because: with_run_number(&runs, |run| &run.invalid_because),
            numbers,
            spread,
            runs,
            config,
            build,
            environment,
        })
    }

    /// Whether every run is valid.
    pub(crate) fn is_valid(&self) -> bool {
        self.valid
    }

    /// The report for programs, with a newline at its end.
    pub(crate) fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self)
            .expect("keys are strings and numbers are finite or written as null");
        text.push('\n');
        text
    }

    /// The report for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write_heading(&mut text);
        self.write_costs(&mut text);
        write_latencies(
            &mut text,
            &format!("time by stage ({CLOSED_LOOP})"),
            &self.numbers.latency_ns,
        );
        for run in &self.runs {
            for (whose, log) in [("broker", &run.broker_log_ns), ("workers", &run.workers_log_ns)] {
                if let Some(log) = log {
                    let title = format!("log of the {whose}, warm-up included");
                    write_latencies(&mut text, &title, log);
                }
            }
        }
        self.write_spread(&mut text);
        text.push('\n');
        for note in with_run_number(&self.runs, |run| &run.notes) {
            let _ = writeln!(text, "note: {note}");
        }
        if self.valid {
            text.push_str("valid\n");
        }
        for reason in &self.invalid_because {
            let _ = writeln!(text, "NOT VALID: {reason}");
        }
        text
    }

    fn write_heading(&self, text: &mut String) {
        let RunConfig { clients, window, payload_bytes, service, .. } = &self.config;
        let mesh = match (&self.config.broker, self.config.workers) {
            (Some(broker), _) => format!("mesh at {broker}"),
            (None, workers) => format!("own mesh, {} workers", workers.unwrap_or(0)),
        };
        let keys = if self.config.encrypted { ", with keys (CURVE)" } else { "" };
        let _ = writeln!(
            text,
            "throughput, closed-loop saturation: {mesh}{keys}, {clients} clients x {window} outstanding, \
             {payload_bytes} B payload, service {service}"
        );
        write_environment(text, &self.environment, &self.build);
    }

    fn write_costs(&self, text: &mut String) {
        let numbers = &self.numbers;
        let _ = writeln!(text, "\nthroughput       {:>12} tasks/s", thousands(numbers.tasks_per_s));
        let _ = match numbers.tasks_per_message {
            Some(tasks) => writeln!(text, "tasks a message  {tasks:>12.1}"),
            None => writeln!(text, "tasks a message  {:>12}", "unknown"),
        };
        write_costs(
            text,
            &numbers.cpu_us_per_task,
            &numbers.tasks_per_s_per_core,
            &numbers.cpus_busy,
        );
    }

    fn write_spread(&self, text: &mut String) {
        let Some(spread) = self.spread else { return };
        let _ = writeln!(
            text,
            "\n{} runs (the numbers above are of the one in the middle):",
            self.runs.len()
        );
        let Spread { min, median, max, .. } = spread.tasks_per_s;
        let _ = writeln!(
            text,
            "tasks/s          min {}  median {}  max {}",
            thousands(min),
            thousands(median),
            thousands(max)
        );
        let costs = [
            ("broker CPU us    ", spread.cpu_us_per_task_broker),
            ("total CPU us     ", spread.cpu_us_per_task_total),
        ];
        for (name, spread) in costs {
            if let Some(Spread { min, median, max, .. }) = spread {
                let _ = writeln!(text, "{name}min {min:.3}  median {median:.3}  max {max:.3}");
            }
        }
    }
}

/// What is said of each run, with the run's number unless it is said of all.
pub(crate) fn with_run_number<R>(runs: &[R], lines: impl Fn(&R) -> &Vec<String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        for line in lines(run) {
            let is_of_all = runs.iter().all(|run| lines(run).contains(line));
            if !is_of_all {
                found.push(format!("run {}: {line}", at + 1));
            } else if at == 0 {
                found.push(line.clone());
            }
        }
    }
    found
}

/// What it was measured on, and with.
pub(crate) fn write_environment(text: &mut String, environment: &Environment, build: &BuildInfo) {
    let unknown = || "unknown".to_owned();
    let _ = writeln!(
        text,
        "on {}, {} CPUs ({} cores{}), kernel {}, governor {}, commit {}, {} build",
        environment.cpu_model.clone().unwrap_or_else(unknown),
        environment.logical_cpus,
        environment.physical_cores,
        if environment.smt { ", SMT" } else { "" },
        environment.kernel.clone().unwrap_or_else(unknown),
        environment.governor.clone().unwrap_or_else(unknown),
        build.commit.unwrap_or("unknown"),
        build.profile.unwrap_or("unknown"),
    );
}

/// What a task costs each side.
pub(crate) fn write_costs(text: &mut String, cpu_us: &BySide, per_core: &BySide, busy: &BySide) {
    let _ = writeln!(
        text,
        "\n{:<10} {:>14} {:>18} {:>11}",
        "", "CPU us a task", "tasks/s per core", "CPUs busy"
    );
    type Side = fn(&BySide) -> Option<f64>;
    let sides: [(&str, Side); 4] = [
        ("broker", |by| by.broker),
        ("workers", |by| by.workers),
        ("clients", |by| by.clients),
        ("total", |by| by.total),
    ];
    let show = |number: Option<f64>, format: fn(f64) -> String| {
        number.map_or_else(|| "unknown".to_owned(), format)
    };
    for (name, side) in sides {
        let _ = writeln!(
            text,
            "{name:<10} {:>14} {:>18} {:>11}",
            show(side(cpu_us), |us| format!("{us:.3}")),
            show(side(per_core), thousands),
            show(side(busy), |cpus| format!("{cpus:.2}")),
        );
    }
}

fn write_latencies(text: &mut String, title: &str, latencies: &Latencies) {
    let _ = writeln!(text, "\n{title}");
    let _ = writeln!(
        text,
        "{:<12} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "stage", "count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"
    );
    for stage in pinmesh_histogram::Stage::ALL {
        let Some(latency) = latencies.get(stage.name()) else { continue };
        let _ = write!(text, "{stage:<12} {:>10} {:>9}", latency.count, format_ns(latency.mean));
        let columns =
            [latency.p50, latency.p90, latency.p99, latency.p999, latency.p9999, latency.max];
        for ns in columns {
            let _ = write!(text, " {:>9}", format_ns(ns as f64));
        }
        text.push('\n');
    }
}

/// A whole number with its thousands set apart: `1,234,567`.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        let is_group_end = at > 0 && (digits.len() - at).is_multiple_of(3);
        if is_group_end && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::made_up;

    fn run(tasks: u64, reasons: &[&str]) -> RunResult {
        let (mut measured, _) = made_up();
        measured.tasks = tasks;
        let reasons = reasons.iter().map(|&reason| reason.to_owned()).collect();
        RunResult::new(&measured, reasons, vec!["a note".to_owned()])
    }

    fn report(runs: Vec<RunResult>) -> Report {
        let environment = Environment::read().unwrap();
        Report::new(runs, made_up().1, BuildInfo::this(), environment).unwrap()
    }

    #[test]
    fn json_has_the_keys_that_programs_rely_on() {
        let json: serde_json::Value =
            serde_json::from_str(&report(vec![run(1_000_000, &[])]).json()).unwrap();
        assert_eq!(json["mode"], "closed_loop_saturation");
        assert_eq!(json["valid"], true);
        assert_eq!(json["tasks_per_s"], 500_000.0);
        assert_eq!(json["tasks_per_message"], 100.0);
        for side in ["broker", "workers", "clients", "total"] {
            assert!(json["cpu_us_per_task"][side].is_f64(), "{side}");
            assert!(json["tasks_per_s_per_core"][side].is_f64(), "{side}");
        }
        assert_eq!(json["cpu_us_per_task"]["total"], 2.0);
        for key in ["count", "mean", "min", "p50", "p90", "p99", "p999", "p9999", "max", "overflow"]
        {
            assert!(json["latency_ns"]["response"][key].is_number(), "{key}");
        }
        assert!(json["environment"]["logical_cpus"].is_u64());
        assert!(json["build"]["debug_assertions"].is_boolean());
        assert_eq!(json["config"]["duration_s"], 2.0);
        assert_eq!(json["config"]["payload_bytes"], 64);
        assert_eq!(json["runs"].as_array().unwrap().len(), 1);
        assert!(json["spread"].is_null());
    }

    #[test]
    fn of_several_runs_the_one_in_the_middle_is_on_top() {
        let runs = vec![run(3_000_000, &[]), run(1_000_000, &[]), run(1_200_000, &["too slow"])];
        let report = report(runs);
        assert_eq!(report.numbers.tasks_per_s, 600_000.0);
        let spread = report.spread.unwrap().tasks_per_s;
        let found = (spread.min, spread.median, spread.max);
        assert_eq!(found, (500_000.0, 600_000.0, 1_500_000.0));
        assert!(!report.is_valid());
        assert_eq!(report.invalid_because, ["run 3: too slow"]);
        let text = report.text();
        assert!(text.contains("NOT VALID: run 3: too slow\n"), "{text}");
        assert!(!text.contains("\nvalid\n"), "{text}");
        assert_eq!(text.matches("note: a note\n").count(), 1, "{text}");
    }

    #[test]
    fn people_are_told_that_the_loop_was_closed() {
        let text = report(vec![run(1_000_000, &[])]).text();
        assert!(text.contains("not comparable with open-loop"), "{text}");
        assert!(text.contains("500,000 tasks/s"), "{text}");
        assert!(text.contains("note: a note\n"), "{text}");
        assert!(text.ends_with("valid\n"), "{text}");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in
            [(0.0, "0"), (999.0, "999"), (1000.0, "1,000"), (1_234_567.4, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(thousands(-123_456.0), "-123,456");
    }
}
