//! Sixteen workers that sleep: their tail beside that of the same queue in virtual time.

use std::time::Duration;

use super::Findings;
use super::model::{Job, ideal, jbsq};
use super::open_loop::{Ended, Outcome, poisson, run as run_plan};
use super::random::Random;
use super::sample::Sample;
use crate::Mesh;

const WORKERS: usize = 16;
const MEAN_NS: f64 = 5e6;
/// Credit that R/S of some 0.06 asks for.
const CREDIT: usize = 2;
/// Load, and what ideal p99 / measured p99 must be at least.
const LOADS: [(f64, f64); 3] = [(0.7, 0.85), (0.8, 0.80), (0.9, 0.75)];

pub(super) fn run(time: Duration, seed: u64) -> Findings {
    let mut findings = Findings::new();
    findings.say("load    tasks  p99 measured   p99 JBSQ  ratio  p99 ideal  efficiency  at least");
    for (load, efficiency_min) in LOADS {
        let mesh = Mesh::start(WORKERS, &[]);
        let client = mesh.client();
        let task = client.task("sleep");
        let rate = load * WORKERS as f64 / (MEAN_NS / 1e9);
        let mut random = Random::new(seed);
        let warm = poisson(rate, time / 10, &mut random, exponential);
        run_plan(&client, &task, &warm);
        let plan = poisson(rate, time, &mut random, exponential);
        let ends = run_plan(&client, &task, &plan);
        let is_ok = ends.iter().all(|end| end.outcome == Outcome::Ok);
        findings.hold(is_ok, format!("load {load}: every task ends OK"));

        let transit_ns = transit(&ends);
        let job = |end: &Ended| Job { at_ns: end.sent_ns, service_ns: end.service_ns };
        let jobs: Vec<Job> = ends.iter().map(job).collect();
        let p99 = |times: Vec<u64>| Sample::of(times).quantile_ns(0.99) as f64;
        let measured = p99(ends.iter().map(|end| end.response_ns).collect());
        let modelled = p99(jbsq(&jobs, WORKERS, CREDIT, transit_ns));
        let best = p99(ideal(&jobs, WORKERS));
        let (ratio, efficiency) = (measured / modelled, best / measured);
        findings.say(format!(
            "{load:>4} {:>8} {:>10.2} ms {:>7.2} ms {ratio:>6.3} {:>7.2} ms {efficiency:>11.3} {efficiency_min:>9}",
            ends.len(),
            measured / 1e6,
            modelled / 1e6,
            best / 1e6,
        ));
        findings
            .hold((ratio - 1.0).abs() <= 0.10, format!("load {load}: p99 within 10 % of JBSQ's"));
        let promise = format!("load {load}: ideal p99 / measured p99 at least {efficiency_min}");
        findings.hold(efficiency >= efficiency_min, promise);
    }
    findings
}

fn exponential(random: &mut Random) -> u64 {
    (random.exponential() * MEAN_NS) as u64
}

/// What the way to a worker and back takes where nothing waits: the shortest twentieth of responses
/// without their service.
fn transit(ends: &[Ended]) -> u64 {
    let ways = ends.iter().map(|end| end.response_ns.saturating_sub(end.service_ns));
    Sample::of(ways).quantile_ns(0.05)
}
