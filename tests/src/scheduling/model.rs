//! Queues in virtual time, fed with the arrivals and service times of a run.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// One task as it was recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) at_ns: u64,
    pub(super) service_ns: u64,
}

/// Response times of an ideal single queue before `servers`: nothing on the way, first come, first
/// served.
pub(super) fn ideal(jobs: &[Job], servers: usize) -> Vec<u64> {
    let mut free: BinaryHeap<Reverse<u64>> = (0..servers).map(|_| Reverse(0)).collect();
    let respond = |job: &Job| {
        let Reverse(free_at) = free.pop().expect("at least one server");
        let end = free_at.max(job.at_ns) + job.service_ns;
        free.push(Reverse(end));
        end - job.at_ns
    };
    jobs.iter().map(respond).collect()
}

/// Join-bounded-shortest-queue: tasks wait in one queue, a server holds at most `credit`, the one
/// with the fewest is chosen, among equals the one most recently idle. `transit_ns` is the way
/// there and back together, half of it each. Response times in the order of the jobs.
pub(super) fn jbsq(jobs: &[Job], servers: usize, credit: usize, transit_ns: u64) -> Vec<u64> {
    let half = transit_ns / 2;
    let mut held = vec![0_usize; servers];
    let mut free_at = vec![0_u64; servers];
    // For ties: when each last had a task taken back.
    let mut returned_at = vec![0_u64; servers];
    let mut waiting: VecDeque<usize> = VecDeque::new();
    let mut returns: BinaryHeap<Reverse<(u64, usize, usize)>> = BinaryHeap::new();
    let mut response = vec![0_u64; jobs.len()];
    let mut next = 0;
    loop {
        let arrival = jobs.get(next).map(|job| job.at_ns);
        let back = returns.peek().map(|Reverse((at, ..))| *at);
        let now = match (arrival, back) {
            (None, None) => return response,
            (Some(arrival), Some(back)) if back <= arrival => back,
            (Some(arrival), _) => arrival,
            (None, Some(back)) => back,
        };
        if back == Some(now) {
            let Some(Reverse((_, server, job))) = returns.pop() else { unreachable!("peeked") };
            held[server] -= 1;
            returned_at[server] = now;
            response[job] = now - jobs[job].at_ns;
        } else {
            waiting.push_back(next);
            next += 1;
        }
        while let Some(&job) = waiting.front() {
            let has_room = |server: &usize| held[*server] < credit;
            let rank = |server: &usize| (held[*server], Reverse(returned_at[*server]));
            let Some(server) = (0..servers).filter(has_room).min_by_key(rank) else { break };
            waiting.pop_front();
            held[server] += 1;
            let start = free_at[server].max(now + half);
            free_at[server] = start + jobs[job].service_ns;
            returns.push(Reverse((free_at[server] + half, server, job)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::super::sample::Sample;
    use super::*;

    fn poisson(load: f64, servers: usize, count: usize) -> Vec<Job> {
        let mut random = Random::new(7);
        let mut at = 0.0;
        let mut job = || {
            at += random.exponential() / (load * servers as f64);
            let service = random.exponential();
            Job { at_ns: (at * 1e6) as u64, service_ns: (service * 1e6) as u64 }
        };
        (0..count).map(|_| job()).collect()
    }

    #[test]
    fn the_ideal_queue_has_the_tail_that_theory_gives() {
        // M/M/k, p99 of the response in service times, from Erlang's C.
        for (servers, load, p99) in
            [(8, 0.8, 5.15), (8, 0.9, 7.09), (16, 0.8, 4.73), (16, 0.9, 5.27)]
        {
            let jobs = poisson(load, servers, 400_000);
            let found = Sample::of(ideal(&jobs, servers)).quantile_ns(0.99) as f64 / 1e6;
            assert!((found / p99 - 1.0).abs() < 0.05, "{servers} {load}: {found} not {p99}");
        }
    }

    #[test]
    fn a_bounded_queue_without_a_way_to_go_and_with_one_credit_is_the_ideal_one() {
        let jobs = poisson(0.8, 4, 20_000);
        assert_eq!(jbsq(&jobs, 4, 1, 0), ideal(&jobs, 4));
    }

    #[test]
    fn two_credits_cost_what_the_design_found() {
        let jobs = poisson(0.8, 16, 400_000);
        let p99 = |times| Sample::of(times).quantile_ns(0.99) as f64;
        let efficiency = p99(ideal(&jobs, 16)) / p99(jbsq(&jobs, 16, 2, 80_000));
        assert!((efficiency - 0.85).abs() < 0.04, "{efficiency}");
    }
}
