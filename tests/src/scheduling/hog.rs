//! A client that has a million tasks waiting, and another one that has a single task at a time. Tasks
//! sleep: workers that burn their CPUs would leave the broker and the clients none on a small machine,
//! and what is measured would be the kernel's scheduler.

use std::time::{Duration, Instant};

use pinmesh_client::{Client, ContentType};

use super::Findings;
use super::open_loop::send;
use super::sample::Sample;
use crate::Mesh;

const WORKERS: usize = 2;
const WORK: Duration = Duration::from_millis(1);
/// Connections of the hog: a client's window is 10,000 tasks.
const CONNECTIONS: u64 = 100;
const TASKS_EACH: u64 = 10_000;
/// Single tasks that are timed.
const TIMED: usize = 300;

pub(super) fn run() -> Findings {
    let mesh = Mesh::start(WORKERS, &[]);
    let newcomer = mesh.broker.client_named("newcomer");
    let time = || {
        let task = newcomer.task("sleep").content_type(ContentType::TEXT);
        let work = format!("{}ns", WORK.as_nanos());
        let once = || {
            let start = Instant::now();
            task.call_raw(work.clone().into_bytes()).unwrap_or_else(|error| panic!("{error}"));
            start.elapsed().as_nanos() as u64
        };
        Sample::of((0..TIMED).map(|_| once()))
    };
    let idle = time();
    let hogs: Vec<Client> = (0..CONNECTIONS).map(|_| mesh.broker.client_named("hog")).collect();
    let ends = hogs[0].completions();
    for hog in &hogs {
        let task = hog.task("sleep");
        (0..TASKS_EACH).for_each(|token| send(&task, &ends, token, WORK.as_nanos() as u64));
    }
    let handed_in = CONNECTIONS * TASKS_EACH;
    crate::eventually("the broker has them all", crate::LIMIT, || {
        mesh.broker.ledger().count("submitted") >= handed_in + TIMED as u64
    });
    let beside = time();
    let waiting = mesh.broker.ledger().count("held");

    let mut findings = Findings::new();
    findings.say("a single task of 1 ms        p50        p99        max");
    for (name, sample) in [("alone", &idle), ("beside the hog", &beside)] {
        let (p50, p99, max) = (sample.p50(), sample.p99(), sample.max());
        findings.say(format!("{name:<22} {p50:>10.2?} {p99:>10.2?} {max:>10.2?}"));
    }
    let idle_response = idle.p50();
    let bound = 10 * idle_response + 2 * WORK;
    findings.say(format!("{waiting} tasks of the hog still waited; bound {bound:.2?}"));
    findings.hold(waiting > handed_in / 2, "most of the hog's tasks still wait");
    findings.hold(
        beside.p99() <= idle.p99().max(idle_response) + bound,
        "a single task is delayed by at most ten idle responses and two service times (p99)",
    );
    findings
}
