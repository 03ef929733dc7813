//! Twice as much is asked for as can be done: what is done in time stays the same, memory too.

use std::time::Duration;

use super::Findings;
use super::open_loop::{Ended, Outcome, poisson, run as run_plan};
use super::random::Random;
use crate::Mesh;

const WORKERS: usize = 8;
const WORK_NS: u64 = 5_000_000;
/// After so long nobody wants the result.
const DEADLINE: Duration = Duration::from_millis(100);
/// What docs/memory.md allows for the tasks of one client's window, 576 bytes each.
const RESIDENT_MAX_KIB: u64 = 32 * 1024 + 10_000 * 576 * 5 / 4 / 1024;
/// What is asked for, as a share of what can be done.
const LOADS: [f64; 5] = [0.7, 0.8, 0.9, 1.0, 2.0];

pub(super) fn run(time: Duration, seed: u64) -> Findings {
    let mesh = Mesh::start(WORKERS, &[]);
    let client = mesh.client();
    let task = client.task("sleep").deadline(DEADLINE).show_busy();
    let capacity = WORKERS as f64 / (WORK_NS as f64 / 1e9);
    let mut findings = Findings::new();
    let mut random = Random::new(seed);
    let (mut peak, mut last) = (0.0_f64, 0.0);
    findings.say("load   asked/s   in time/s      busy   expired   RSS of the broker");
    for load in LOADS {
        let plan = poisson(load * capacity, time, &mut random, |_| WORK_NS);
        let ends = run_plan(&client, &task, &plan);
        let count = |outcome| ends.iter().filter(|end| end.outcome == outcome).count();
        let in_time = |end: &&Ended| {
            end.outcome == Outcome::Ok && end.response_ns <= DEADLINE.as_nanos() as u64
        };
        let goodput = ends.iter().filter(in_time).count() as f64 / time.as_secs_f64();
        let kib = resident_kib(mesh.broker.process.pid());
        findings.say(format!(
            "{load:>4} {:>9.0} {goodput:>11.0} {:>9} {:>9} {kib:>10} KiB",
            load * capacity,
            count(Outcome::Busy),
            count(Outcome::Expired),
        ));
        findings.hold(count(Outcome::Other) == 0, format!("load {load}: nothing fails otherwise"));
        let promise = format!("load {load}: the broker's memory is within {RESIDENT_MAX_KIB} KiB");
        findings.hold(kib <= RESIDENT_MAX_KIB, promise);
        (peak, last) = (peak.max(goodput), goodput);
    }
    findings.say(format!("goodput at twice the capacity / peak: {:.3}", last / peak));
    findings
        .hold(last >= 0.95 * peak, "goodput at twice the capacity is at least 0.95 of its peak");
    findings
}

/// Memory of a process, KiB.
fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or_default()
}
