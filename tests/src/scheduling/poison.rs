//! A handler that crashes in every way a process can, and the tasks beside it.

use std::time::{Duration, Instant};

use pinmesh_client::Error;

use super::Findings;
use super::open_loop::{Outcome, poisson, run as run_plan, wait_until};
use super::random::Random;
use super::sample::Sample;
use crate::Mesh;

const WORKERS: usize = 8;
const WORK_NS: u64 = 5_000_000;
const LOAD: f64 = 0.5;
/// From one poisoned task to the next, each of which takes three workers with it.
const EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(time: Duration, seed: u64) -> Findings {
    let mut findings = Findings::new();
    findings.say("beside             tasks        p50        p99");
    let calm = measure(&mut findings, "nothing", &[], time, seed);
    let poisons = ["abort", "exit", "segfault"];
    let beside = measure(&mut findings, "poison", &poisons, time, seed);
    let ratio = beside as f64 / calm as f64;
    findings.say(format!("p99 beside poison / without: {ratio:.3}"));
    findings.hold(ratio <= 1.5, "the other tasks' p99 stays within 1.5 times that without poison");
    findings
}

fn measure(
    findings: &mut Findings,
    name: &str,
    poisons: &[&str],
    time: Duration,
    seed: u64,
) -> u64 {
    let mesh = Mesh::start(WORKERS, &[]);
    let client = mesh.client();
    let rate = LOAD * WORKERS as f64 / (WORK_NS as f64 / 1e9);
    let mut random = Random::new(seed);
    let plan = poisson(rate, time, &mut random, |_| WORK_NS);
    let poisoner = mesh.client();
    let rounds = (time.as_nanos() / EVERY.as_nanos()) as usize;
    let (ends, crashed) = std::thread::scope(|scope| {
        let poisoning = scope.spawn(|| {
            let (start, mut crashed) = (Instant::now(), 0);
            for round in 0..rounds {
                let Some(service) = poisons.get(round % poisons.len().max(1)) else { return 0 };
                wait_until(start + EVERY * round as u32);
                let end = poisoner.task(service).call_raw(Vec::new());
                crashed += usize::from(matches!(end, Err(Error::Crashed { .. })));
            }
            crashed
        });
        let ends = run_plan(&client, &client.task("sleep"), &plan);
        (ends, poisoning.join().expect("poisoning goes on"))
    });
    if !poisons.is_empty() {
        findings.say(format!("{crashed} of {rounds} poisoned tasks ended CRASHED"));
        findings.hold(crashed == rounds, "each poisoned task ends CRASHED");
    }
    findings.hold(ends.iter().all(|end| end.outcome == Outcome::Ok), "every other task ends OK");
    let sample = Sample::of(ends.iter().map(|end| end.response_ns));
    let (p50, p99) = (sample.p50(), sample.p99());
    findings.say(format!("{name:<14} {:>9} {p50:>10.2?} {p99:>10.2?}", sample.len()));
    p99.as_nanos() as u64
}
