//! All ten priorities backlogged: each gets its share of the workers' time.

use std::time::{Duration, Instant};

use pinmesh_client::Task;

use super::Findings;
use super::open_loop::send;
use crate::Mesh;

const WORKERS: usize = 2;
/// What each task keeps its worker busy for.
const WORK_NS: u64 = 200_000;
/// Tasks of a priority that are kept waiting, far more than workers hold.
const BACKLOG: u64 = 4_000;
/// How much longer the one task is.
const OUTLIER: u64 = 1_000;
/// The class that it is in.
const OUTLIER_CLASS: usize = 5;
/// How far a class may be from its share.
const TOLERANCE: f64 = 0.10;

pub(super) fn run(time: Duration, has_outlier: bool) -> Findings {
    let mesh = Mesh::start(WORKERS, &[]);
    // One client a class, so that each keeps its own backlog whatever the others' windows are; all
    // of one name, so that no share comes from that.
    let clients: Vec<_> = (0..10).map(|_| mesh.client()).collect();
    let classes =
        clients.iter().zip(1..).map(|(client, priority)| client.task("spin").priority(priority));
    let classes: Vec<Task<'_>> = classes.collect();
    let queues: Vec<_> = clients.iter().map(pinmesh_client::Client::completions).collect();
    for (task, queue) in classes.iter().zip(&queues) {
        (0..BACKLOG).for_each(|token| send(task, queue, token, WORK_NS));
    }
    // What was there first was handed out before all ten waited.
    let mut counted = [Served::default(); 10];
    let settle = Instant::now() + time / 10;
    serve(&classes, &queues, settle, &mut counted);
    counted = [Served::default(); 10];
    // By a client of another name, so that its turn comes before the backlog has been worked off.
    let stranger = mesh.broker.client_named("outlier");
    if has_outlier {
        let task = stranger.task("spin").priority(OUTLIER_CLASS as u8);
        send(&task, &queues[OUTLIER_CLASS - 1], u64::MAX, OUTLIER * WORK_NS);
    }
    serve(&classes, &queues, Instant::now() + time, &mut counted);
    judge(&counted, has_outlier)
}

#[derive(Clone, Copy, Debug, Default)]
struct Served {
    tasks: u64,
    service_ns: u64,
    has_outlier: bool,
}

/// Takes ends and puts a new task in for each, so that the backlogs stay.
fn serve(
    classes: &[Task<'_>],
    queues: &[pinmesh_client::Completions],
    until: Instant,
    counted: &mut [Served; 10],
) {
    let mut ends = Vec::new();
    while Instant::now() < until {
        let mut is_idle = true;
        for ((task, queue), served) in classes.iter().zip(queues).zip(&mut *counted) {
            queue.drain(&mut ends);
            for (token, outcome) in ends.drain(..) {
                is_idle = false;
                let reply = outcome.unwrap_or_else(|error| panic!("{error}"));
                if token == u64::MAX {
                    served.has_outlier = true;
                } else {
                    served.tasks += 1;
                    served.service_ns += reply.stages.map_or(0, |stages| stages.service_ns);
                    send(task, queue, 0, WORK_NS);
                }
            }
        }
        if is_idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn judge(counted: &[Served; 10], has_outlier: bool) -> Findings {
    let mut findings = Findings::new();
    let total: u64 = counted.iter().map(|served| served.service_ns).sum();
    let weight = |priority: usize| 1.5_f64.powi(priority as i32 - 1);
    let weights: f64 = (1..=10).map(weight).sum();
    findings.say("priority     tasks   share  its own  ratio");
    for (priority, served) in (1..).zip(counted) {
        let share = served.service_ns as f64 / total as f64;
        let own = weight(priority) / weights;
        findings.say(format!(
            "{priority:>8} {:>9} {:>6.2}% {:>7.2}% {:>6.3}",
            served.tasks,
            share * 100.0,
            own * 100.0,
            share / own
        ));
        let promise = format!("priority {priority} gets its share within 10 %");
        findings.hold((share / own - 1.0).abs() <= TOLERANCE, promise);
    }
    if has_outlier {
        let has_ended = counted[OUTLIER_CLASS - 1].has_outlier;
        findings.say(format!(
            "a task of {OUTLIER} times the length ran in class {OUTLIER_CLASS}: {has_ended}"
        ));
        findings.hold(has_ended, "the long task ran while the shares were counted");
    }
    findings
}
