//! Tasks that are sent when they were planned, whatever the mesh does, and what became of each.

use std::time::{Duration, Instant};

use pinmesh_client::{Client, Completions, ContentType, Error, RawOutcome, Task};

use super::random::Random;

/// How long after the last planned send the last ends may come.
const DRAIN_TIME: Duration = Duration::from_secs(60);

/// One task of a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    /// When it is to be sent, ns from the start.
    pub(super) at_ns: u64,
    /// How long it is to keep its worker, ns.
    pub(super) work_ns: u64,
}

/// Poisson arrivals at a rate for a time; `work_ns` draws the length of each.
pub(super) fn poisson(
    rate_per_s: f64,
    time: Duration,
    random: &mut Random,
    mut work_ns: impl FnMut(&mut Random) -> u64,
) -> Vec<Planned> {
    let mut plan = Vec::new();
    let mut at_s = 0.0;
    loop {
        at_s += random.exponential() / rate_per_s;
        if at_s >= time.as_secs_f64() {
            return plan;
        }
        plan.push(Planned { at_ns: (at_s * 1e9) as u64, work_ns: work_ns(random) });
    }
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Ok,
    /// Refused for now.
    Busy,
    /// Its deadline passed.
    Expired,
    /// In another way.
    Other,
}

/// What became of one task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// When it was really sent, ns from the start.
    pub(super) sent_ns: u64,
    /// From the planned moment to the end as the client saw it.
    pub(super) response_ns: u64,
    /// In the handler.
    pub(super) service_ns: u64,
    pub(super) outcome: Outcome,
}

/// Sends a plan from this thread while another takes the ends; those in the order of the plan.
///
/// # Panics
/// A task cannot be sent, or has no end in time.
pub(super) fn run(client: &Client, task: &Task<'_>, plan: &[Planned]) -> Vec<Ended> {
    let queue = client.completions();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let ends = {
            let queue = queue.clone();
            scope.spawn(move || take(&queue, plan, start))
        };
        let mut sent_ns = Vec::with_capacity(plan.len());
        for (number, planned) in plan.iter().enumerate() {
            wait_until(start + Duration::from_nanos(planned.at_ns));
            sent_ns.push(start.elapsed().as_nanos() as u64);
            send(task, &queue, number as u64, planned.work_ns);
        }
        let mut ends = ends.join().expect("the thread that takes ends goes on");
        ends.iter_mut().zip(sent_ns).for_each(|(end, sent_ns)| end.sent_ns = sent_ns);
        ends
    })
}

/// A task whose handler is told its time in the payload.
pub(super) fn send(task: &Task<'_>, queue: &Completions, token: u64, work_ns: u64) {
    let text = format!("{work_ns}ns").into_bytes();
    let task = task.clone().content_type(ContentType::TEXT);
    task.submit_raw_to(queue, token, text).unwrap_or_else(|error| panic!("{error}"));
}

/// Sleeps, and is some 100 us late: to spin would take the CPU from those that are measured.
pub(super) fn wait_until(at: Instant) {
    let left = at.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

fn take(queue: &Completions, plan: &[Planned], start: Instant) -> Vec<Ended> {
    let mut ends: Vec<Option<Ended>> = vec![None; plan.len()];
    let last = plan.last().map_or(0, |planned| planned.at_ns);
    let limit = start + Duration::from_nanos(last) + DRAIN_TIME;
    for _ in 0..plan.len() {
        let left = limit.saturating_duration_since(Instant::now());
        let (number, outcome) = queue.recv_timeout(left).expect("every task ends in time");
        let now_ns = start.elapsed().as_nanos() as u64;
        let number = number as usize;
        let response_ns = now_ns.saturating_sub(plan[number].at_ns);
        ends[number] = Some(ended(&outcome, response_ns));
    }
    ends.into_iter().map(|end| end.expect("each token comes once")).collect()
}

fn ended(outcome: &RawOutcome, response_ns: u64) -> Ended {
    let stages = outcome.as_ref().ok().and_then(|reply| reply.stages).unwrap_or_default();
    let outcome = match outcome {
        Ok(_) => Outcome::Ok,
        Err(Error::Busy { .. }) => Outcome::Busy,
        Err(Error::Expired { .. }) => Outcome::Expired,
        Err(_) => Outcome::Other,
    };
    Ended { sent_ns: 0, response_ns, service_ns: stages.service_ns, outcome }
}
