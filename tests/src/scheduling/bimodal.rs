//! One task in 200 is 200 times as long: what stands behind it waits, unless it is taken back. Sixteen
//! workers: with eight the long ones keep so many busy at a time that even a single queue for all has
//! a p99 of 0.7 times that of eight at each.

use std::time::Duration;

use super::Findings;
use super::open_loop::{Outcome, poisson, run as run_plan};
use super::random::Random;
use super::sample::Sample;
use crate::{Broker, Mesh, Supervisor};

const WORKERS: usize = 16;
const SHORT_NS: u64 = 5_000_000;
const LONG_FACTOR: u64 = 200;
const LONG_SHARE: f64 = 0.005;
const LOAD: f64 = 0.8;
/// Long tasks are few: as many times longer than other cases.
const TIMES_LONGER: u32 = 4;
/// What it is compared with: eight tasks at each worker, and none taken back.
const FIXED: &str =
    "[scheduling]\nfixed_credit = true\nrecall = false\n[limits]\nworker_window_tasks = 8\n";

pub(super) fn run(time: Duration, seed: u64) -> Findings {
    let mut findings = Findings::new();
    findings.say("credit       tasks        p50        p99");
    let folder = tempfile::tempdir().expect("a folder for a file");
    let file = folder.path().join("fixed.toml");
    std::fs::write(&file, FIXED).expect("a file for a configuration");
    let file = file.to_string_lossy();
    let time = time * TIMES_LONGER;
    let fixed = measure(&mut findings, "fixed 8", &["--config", &file], time, seed);
    let adaptive = measure(&mut findings, "adaptive", &[], time, seed);
    let ratio = adaptive as f64 / fixed as f64;
    findings.say(format!("p99 adaptive / fixed: {ratio:.3}"));
    findings
        .hold(ratio <= 0.5, "p99 with adaptive credit and recall is at most half of that with 8");
    findings
}

fn measure(findings: &mut Findings, name: &str, flags: &[&str], time: Duration, seed: u64) -> u64 {
    let broker = Broker::start(flags);
    let supervisor = Supervisor::start(&broker.backend, WORKERS, &[]);
    let mesh = Mesh { supervisor, broker };
    let client = mesh.client();
    let task = client.task("sleep");
    let mean_ns = SHORT_NS as f64 * (1.0 + LONG_SHARE * (LONG_FACTOR - 1) as f64);
    let rate = LOAD * WORKERS as f64 / (mean_ns / 1e9);
    let mut random = Random::new(seed);
    let plan = poisson(rate, time, &mut random, |random| {
        if random.uniform() <= LONG_SHARE { LONG_FACTOR * SHORT_NS } else { SHORT_NS }
    });
    let ends = run_plan(&client, &task, &plan);
    findings.hold(ends.iter().all(|end| end.outcome == Outcome::Ok), "every task ends OK");
    let sample = Sample::of(ends.iter().map(|end| end.response_ns));
    let (p50, p99) = (sample.p50(), sample.p99());
    findings.say(format!("{name:<9} {:>8} {p50:>10.2?} {p99:>10.2?}", sample.len()));
    p99.as_nanos() as u64
}
