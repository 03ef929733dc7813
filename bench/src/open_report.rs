//! The report of the open loop: a table for people, JSON for programs.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use pinmesh_histogram::{Stage, format_ns};
use pinmesh_host::Environment;
use serde::Serialize;

use crate::{
    build_info::BuildInfo,
    open_run::{LatenciesUs, LatencyUs, OpenConfig, OpenResult, STAGES},
    report::{thousands, with_run_number, write_costs, write_environment},
    run::BySide,
    spread::{Spread, median},
};

/// The result of one command. Numbers on top are medians over runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OpenReport {
    mode: &'static str,
    /// Seconds since 1970.
    date_unix_s: u64,
    valid: bool,
    invalid_because: Vec<String>,
    notes: Vec<String>,
    rate_planned: f64,
    rate_achieved: f64,
    latency_us: LatenciesUs,
    cpu_us_per_task: BySide,
    tasks_per_s_per_core: BySide,
    cpus_busy: BySide,
    /// How far runs lie apart; null with a single run.
    spread: Option<Spreads>,
    runs: Vec<OpenResult>,
    config: OpenConfig,
    build: BuildInfo,
    environment: Environment,
}

/// Percentiles of one stage over runs.
type ByPercentile = BTreeMap<&'static str, Spread>;

#[derive(Clone, Debug, Serialize)]
struct Spreads {
    rate_achieved: Spread,
    latency_us: BTreeMap<&'static str, ByPercentile>,
    cpu_us_per_task_broker: Option<Spread>,
    cpu_us_per_task_total: Option<Spread>,
}

type Column = (&'static str, fn(&LatencyUs) -> f64);

/// What of a stage is compared between runs.
const COLUMNS: [Column; 6] = [
    ("mean", |latency| latency.mean),
    ("p50", |latency| latency.p50),
    ("p90", |latency| latency.p90),
    ("p99", |latency| latency.p99),
    ("p999", |latency| latency.p999),
    ("max", |latency| latency.max),
];

fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    median(&values).unwrap_or(0.0)
}

/// Medians of each number of each stage.
fn medians(runs: &[OpenResult]) -> LatenciesUs {
    let stages = Stage::ALL.into_iter().map(Stage::name);
    let latency = |stage| {
        let of: Vec<&LatencyUs> = runs.iter().filter_map(|run| run.latency_us.get(stage)).collect();
        let number = |number: fn(&LatencyUs) -> f64| median_of(of.iter().map(|it| number(it)));
        let latency = LatencyUs {
            count: number(|it| it.count),
            mean: number(|it| it.mean),
            min: number(|it| it.min),
            p50: number(|it| it.p50),
            p90: number(|it| it.p90),
            p99: number(|it| it.p99),
            p999: number(|it| it.p999),
            p9999: number(|it| it.p9999),
            max: number(|it| it.max),
            overflow: number(|it| it.overflow),
        };
        (!of.is_empty()).then_some((stage, latency))
    };
    stages.filter_map(latency).collect()
}

fn median_sides(runs: &[OpenResult], sides: fn(&OpenResult) -> &BySide) -> BySide {
    let side = |side: fn(&BySide) -> Option<f64>| {
        let values: Option<Vec<f64>> = runs.iter().map(|run| side(sides(run))).collect();
        values.map(|values| median_of(values.into_iter()))
    };
    BySide {
        broker: side(|by| by.broker),
        workers: side(|by| by.workers),
        clients: side(|by| by.clients),
        total: side(|by| by.total),
    }
}

impl Spreads {
    fn of(runs: &[OpenResult]) -> Option<Self> {
        let stage = |stage: Stage| {
            let spread = |(name, number): Column| {
                let of = |run: &OpenResult| run.latency_us.get(stage.name()).map(number);
                Some((name, Spread::of(runs.iter().map(of))?))
            };
            let columns: ByPercentile = COLUMNS.into_iter().filter_map(spread).collect();
            (!columns.is_empty()).then_some((stage.name(), columns))
        };
        Some(Self {
            rate_achieved: Spread::of(runs.iter().map(|run| Some(run.rate_achieved)))?,
            latency_us: Stage::ALL.into_iter().filter_map(stage).collect(),
            cpu_us_per_task_broker: Spread::of(runs.iter().map(|run| run.cpu_us_per_task.broker)),
            cpu_us_per_task_total: Spread::of(runs.iter().map(|run| run.cpu_us_per_task.total)),
        })
    }
}

impl OpenReport {
    /// Of at least one run.
    pub(crate) fn new(
        runs: Vec<OpenResult>,
        config: OpenConfig,
        build: BuildInfo,
        environment: Environment,
    ) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            mode: "open_loop",
            date_unix_s: since_epoch.as_secs(),
            valid: !runs.is_empty() && runs.iter().all(|run| run.valid),
            invalid_because: with_run_number(&runs, |run| &run.invalid_because),
            notes: with_run_number(&runs, |run| &run.notes),
            rate_planned: config.rate,
            rate_achieved: median_of(runs.iter().map(|run| run.rate_achieved)),
            latency_us: medians(&runs),
            cpu_us_per_task: median_sides(&runs, |run| &run.cpu_us_per_task),
            tasks_per_s_per_core: median_sides(&runs, |run| &run.tasks_per_s_per_core),
            cpus_busy: median_sides(&runs, |run| &run.cpus_busy),
            spread: Spreads::of(&runs),
            runs,
            config,
            build,
            environment,
        }
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
        self.write_sending(&mut text);
        self.write_latencies(&mut text);
        write_costs(&mut text, &self.cpu_us_per_task, &self.tasks_per_s_per_core, &self.cpus_busy);
        text.push_str("(clients without the spinning of the generator)\n");
        self.write_spread(&mut text);
        text.push('\n');
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        if self.valid {
            text.push_str("valid\n");
        }
        for reason in &self.invalid_because {
            let _ = writeln!(text, "FAIL, not valid: {reason}");
        }
        text
    }

    fn write_heading(&self, text: &mut String) {
        let OpenConfig { arrivals, seed, clients, payload_bytes, service, .. } = &self.config;
        let mesh = match self.config.workers {
            None => format!("mesh at {}", self.config.brokers.join(", ")),
            Some(workers) => format!("own mesh, {workers} workers"),
        };
        let keys = if self.config.encrypted { ", with keys (CURVE)" } else { "" };
        let takes = match self.config.service_time_s {
            None => String::new(),
            Some(time_s) => format!(" of {}", format_ns(time_s * 1e9)),
        };
        let _ = writeln!(
            text,
            "open loop, {} tasks/s planned ({}, seed {seed}): {mesh}{keys}, {clients} clients, \
             {payload_bytes} B payload, service {service}{takes}",
            thousands(self.config.rate),
            arrivals.name(),
        );
        write_environment(text, &self.environment, &self.build);
    }

    fn write_sending(&self, text: &mut String) {
        let sum = |number: fn(&OpenResult) -> u64| self.runs.iter().map(number).sum::<u64>() as f64;
        let _ = writeln!(
            text,
            "\nrate       {} tasks/s achieved, {} of {} planned sends made",
            thousands(self.rate_achieved),
            thousands(sum(|run| run.generator.sends_made)),
            thousands(sum(|run| run.generator.sends_planned)),
        );
        let _ = writeln!(
            text,
            "measured   {:.1} s after a warm-up of {:.1} s, of which MSER-5 found {:.1} s",
            median_of(self.runs.iter().map(|run| run.steady_s)),
            self.config.warmup.as_secs_f64()
                + median_of(self.runs.iter().map(|run| run.warmup_cut_s)),
            median_of(self.runs.iter().map(|run| run.warmup_cut_s)),
        );
        let _ = writeln!(
            text,
            "generator  busy for {:.1} % of the time, without its spinning",
            median_of(self.runs.iter().map(|run| run.generator.busy_share)) * 100.0,
        );
    }

    fn write_latencies(&self, text: &mut String) {
        let marked = if self.valid { "" } else { " (NOT VALID, see below)" };
        let of_runs = if self.runs.len() > 1 { ", median over runs" } else { "" };
        let _ = writeln!(
            text,
            "\ntime by stage{of_runs}{marked}\n{:<12} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} \
             {:>9}",
            "stage", "count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        );
        for stage in STAGES {
            let Some(latency) = self.latency_us.get(stage.name()) else { continue };
            let _ = write!(text, "{stage:<12} {:>10.0}", latency.count);
            let LatencyUs { mean, p50, p90, p99, p999, p9999, max, .. } = *latency;
            for us in [mean, p50, p90, p99, p999, p9999, max] {
                let _ = write!(text, " {:>9}", format_ns(us * 1e3));
            }
            text.push('\n');
        }
        text.push_str(
            "response: intended send to result. round_trip: actual send to result (wrk2's service \
             time).\nsend_lag: intended to actual send. service: the handler alone. Stages do not \
             add up by percentile.\n",
        );
    }

    fn write_spread(&self, text: &mut String) {
        let Some(spread) = &self.spread else { return };
        let _ = writeln!(
            text,
            "\n{} runs, each with a mesh of its own\n{:<18} {:>9} {:>9} {:>9}   mean and 95 % \
             interval (t)",
            self.runs.len(),
            "",
            "min",
            "median",
            "max"
        );
        let mut line = |name: &str, spread: &Spread, show: fn(f64) -> String| {
            let Spread { min, median, max, mean, ci95_half_width } = *spread;
            let _ = writeln!(
                text,
                "{name:<18} {:>9} {:>9} {:>9}   {} +- {}",
                show(min),
                show(median),
                show(max),
                show(mean),
                show(ci95_half_width)
            );
        };
        line("achieved tasks/s", &spread.rate_achieved, thousands);
        for stage in [Stage::Response, Stage::RoundTrip, Stage::SendLag] {
            for column in ["p50", "p99", "p999"] {
                let found = spread.latency_us.get(stage.name()).and_then(|it| it.get(column));
                if let Some(spread) = found {
                    let name = format!("{stage} {column}");
                    line(&name, spread, |us| format_ns(us * 1e3));
                }
            }
        }
        for (name, spread) in [
            ("broker CPU us/task", &spread.cpu_us_per_task_broker),
            ("total CPU us/task", &spread.cpu_us_per_task_total),
        ] {
            if let Some(spread) = spread {
                line(name, spread, |us| format!("{us:.3}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open_run::made_up;

    fn run(slower_us: f64, reasons: &[&str]) -> OpenResult {
        let (measured, _) = made_up();
        let reasons = reasons.iter().map(|&reason| reason.to_owned()).collect();
        let mut run = OpenResult::new(&measured, reasons, vec!["a note".to_owned()]);
        run.latency_us.values_mut().for_each(|latency| latency.p99 += slower_us);
        run
    }

    fn report(runs: Vec<OpenResult>) -> OpenReport {
        OpenReport::new(runs, made_up().1, BuildInfo::this(), Environment::read().unwrap())
    }

    #[test]
    fn json_has_the_keys_that_programs_rely_on() {
        let json: serde_json::Value =
            serde_json::from_str(&report(vec![run(0.0, &[])]).json()).unwrap();
        assert_eq!(json["mode"], "open_loop");
        assert_eq!(json["valid"], true);
        assert_eq!(json["rate_planned"], 10_000.0);
        assert_eq!(json["rate_achieved"], 10_000.0);
        for stage in ["response", "round_trip", "send_lag"] {
            for key in ["count", "mean", "min", "p50", "p90", "p99", "p999", "p9999", "max"] {
                assert!(json["latency_us"][stage][key].is_number(), "{stage} {key}");
            }
        }
        assert_eq!(json["config"]["seed"], 1);
        assert_eq!(json["config"]["arrivals"], "constant");
        assert_eq!(json["config"]["duration_s"], 10.0);
        assert!(json["environment"]["logical_cpus"].is_u64());
        assert!(json["build"]["debug_assertions"].is_boolean());
        assert_eq!(json["runs"][0]["seed"], 1);
        assert_eq!(json["runs"][0]["latency_us"], json["latency_us"]);
        assert!(json["spread"].is_null());
    }

    #[test]
    fn of_several_runs_the_median_stands_on_top_and_the_spread_beside_it() {
        let report = report(vec![run(7.0, &[]), run(0.0, &["a stall"]), run(2.0, &[])]);
        let one = run(0.0, &[]).latency_us["response"].p99;
        assert!((report.latency_us["response"].p99 - one - 2.0).abs() < 1e-6);
        let spread = report.spread.as_ref().unwrap().latency_us["response"]["p99"];
        assert!((spread.min - one).abs() < 1e-6 && (spread.max - one - 7.0).abs() < 1e-6);
        assert!(!report.is_valid());
        assert_eq!(report.invalid_because, ["run 2: a stall"]);
        let text = report.text();
        assert!(text.contains("FAIL, not valid: run 2: a stall\n"), "{text}");
        assert!(text.contains("NOT VALID, see below"), "{text}");
        assert_eq!(text.matches("note: a note\n").count(), 1, "{text}");
    }

    #[test]
    fn the_table_names_every_stage_that_has_times_and_says_what_they_are() {
        let text = report(vec![run(0.0, &[])]).text();
        for line in ["response ", "round_trip ", "send_lag "] {
            assert!(text.lines().any(|it| it.starts_with(line)), "{text}");
        }
        assert!(!text.contains("\ntransit"), "{text}");
        assert!(text.contains("10,000 tasks/s achieved, 100,000 of 100,000"), "{text}");
        assert!(text.ends_with("valid\n"), "{text}");
        assert!(!text.contains("FAIL"), "{text}");
    }
}
