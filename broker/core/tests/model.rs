//! The order of dispatch against a naive scheduler that searches through everything each time.

mod naive;
mod turns;

use std::collections::BTreeMap;

use pinmesh_core::{AdminCommand, Conn, CoreConfig, Event, ServiceLimits};
use pinmesh_protocol::command::ServiceAlias;
use proptest::prelude::*;

use crate::support::{Ask, Effect, Greeting, Sim, TaskSent, tasks};
use naive::{Naive, Waiting};

const SERVICES: [&str; 3] = ["zero", "zone", "zoo"];
/// The most of the last service that may be in flight.
const CAP: u32 = 3;
/// Names of the clients: two of them share one.
const NAMES: [&str; 3] = ["ann", "bob", "ann"];
/// The socket of the first client.
const CLIENTS: u32 = 200;
const MS: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Step {
    /// A worker that serves the services of these bits, with this window.
    Ready(u8, u32),
    /// Service, priority, client.
    Submit(usize, u8, usize),
    /// So many of the same.
    Burst(usize, u8, usize, u8),
    /// The n-th of what is in flight is done, after so long.
    Done(usize, u64),
    /// The n-th of what is in flight comes back.
    Recalled(usize),
    /// The n-th of what waits is cancelled.
    Cancel(usize),
    Window(usize, u32),
    Full(usize, bool),
    /// A service is paused, or resumed.
    Pause(usize, bool),
}

fn cost() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..2 * MS, 2 => 0..20_000_u64, 1 => 0..500 * MS]
}

fn step() -> impl Strategy<Value = Step> {
    let place = any::<usize>;
    let urgency = || prop_oneof![1..=10_u8, Just(5), Just(10), Just(1)];
    prop_oneof![
        2 => (1..8_u8, 0..5_u32).prop_map(|(bits, window)| Step::Ready(bits, window)),
        8 => (0..3_usize, urgency(), 0..3_usize)
            .prop_map(|(service, urgency, client)| Step::Submit(service, urgency, client)),
        3 => (0..3_usize, urgency(), 0..3_usize, 2..12_u8)
            .prop_map(|(service, urgency, client, n)| Step::Burst(service, urgency, client, n)),
        16 => (place(), cost()).prop_map(|(which, cost)| Step::Done(which, cost)),
        1 => place().prop_map(Step::Recalled),
        1 => place().prop_map(Step::Cancel),
        1 => (place(), 0..5_u32).prop_map(|(worker, window)| Step::Window(worker, window)),
        1 => (place(), any::<bool>()).prop_map(|(worker, full)| Step::Full(worker, full)),
        1 => (0..3_usize, 0..3_u8).prop_map(|(service, kind)| Step::Pause(service, kind == 0)),
    ]
}

/// The machine, the naive scheduler, and what both have in flight.
struct Pair {
    sim: Sim,
    naive: Naive,
    in_flight: Vec<TaskSent>,
    requests: u64,
}

impl Pair {
    fn new(is_strict: bool) -> Self {
        let cap = |in_flight_max| ServiceLimits { in_flight_max, ..ServiceLimits::default() };
        let own_service_limits = (0..).zip(SERVICES).map(|(place, name)| {
            (name.to_owned(), if place == 2 { cap(CAP) } else { ServiceLimits::default() })
        });
        let own_service_limits: BTreeMap<_, _> = own_service_limits.collect();
        let mut sim = Sim::with(CoreConfig { is_strict, own_service_limits, ..Default::default() });
        for (place, name) in (0..).zip(NAMES) {
            let client = sim.client_named(CLIENTS + place, name);
            for (alias, name) in (0..).zip(SERVICES) {
                sim.event(Event::Service(client, ServiceAlias { alias, name }));
            }
        }
        Self { sim, naive: Naive::new(is_strict), in_flight: Vec::new(), requests: 0 }
    }

    fn submit(&mut self, service: usize, priority: u8, client: usize) -> Vec<Effect> {
        self.requests += 1;
        let request = self.requests;
        let name = NAMES[client];
        self.naive.submit(Waiting { service, priority, name, client, request });
        let service = SERVICES[service].into();
        let conn = Conn(CLIENTS + client as u32);
        self.sim.ask(conn, Ask { request, service, priority, ..Ask::default() })
    }

    fn take(&mut self, step: Step) -> Vec<Effect> {
        let workers = self.naive.workers.len();
        match step {
            Step::Ready(bits, window) if workers < 12 => {
                let services: Vec<_> = (0..3).filter(|place| bits & (1 << place) != 0).collect();
                let names = services.iter().map(|place| SERVICES[*place]).collect();
                self.naive.ready(services, window);
                let number = workers as u32 + 1;
                let greeting =
                    Greeting { services: names, window_tasks: window, ..Greeting::default() };
                self.sim.greet(number, number as u8, greeting)
            }
            Step::Submit(service, priority, client) => self.submit(service, priority, client),
            Step::Burst(service, priority, client, count) => {
                (0..count).flat_map(|_| self.submit(service, priority, client)).collect()
            }
            Step::Done(which, cost) if !self.in_flight.is_empty() => {
                let task = self.in_flight.swap_remove(which % self.in_flight.len());
                self.naive.done(task.head.request_id.0, cost);
                self.sim.done_after(&task, cost)
            }
            Step::Recalled(which) if !self.in_flight.is_empty() => {
                let task = self.in_flight.swap_remove(which % self.in_flight.len());
                self.naive.recalled(task.head.request_id.0);
                self.sim.recalled(task.to, &[&task])
            }
            Step::Cancel(which) if !self.naive.waiting.is_empty() => {
                let task = self.naive.waiting.remove(which % self.naive.waiting.len());
                self.sim.cancel(Conn(CLIENTS + task.client as u32), task.request, 1)
            }
            Step::Window(which, window) if workers > 0 => {
                let worker = which % workers;
                self.naive.change(worker, |worker| worker.window = window);
                self.sim.window(Conn(worker as u32 + 1), window, 8 << 20)
            }
            Step::Full(which, is_full) if workers > 0 => {
                let worker = which % workers;
                self.naive.change(worker, |worker| worker.is_full = is_full);
                let conn = Conn(worker as u32 + 1);
                self.sim.event(if is_full { Event::Full(conn) } else { Event::Sendable(conn) })
            }
            Step::Pause(service, is_paused) => {
                self.naive.pause(service, is_paused);
                let name = SERVICES[service];
                self.sim
                    .administer(match is_paused {
                        true => AdminCommand::Pause(name),
                        false => AdminCommand::Resume(name),
                    })
                    .1
            }
            _ => Vec::new(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn tasks_go_where_and_when_a_naive_scheduler_sends_them(
        steps in prop::collection::vec(step(), 1..200),
        strictness in 0..4_u8,
    ) {
        let mut pair = Pair::new(strictness == 0);
        for step in steps {
            let effects = pair.take(step);
            let sent = tasks(&effects);
            let actual: Vec<_> =
                sent.iter().map(|task| (task.head.request_id.0, task.to.0 as usize - 1)).collect();
            prop_assert_eq!(&actual, &pair.naive.dispatched);
            pair.naive.dispatched.clear();
            pair.in_flight.extend(sent);
            let counts = pair.sim.broker.counts();
            prop_assert_eq!(counts.pending as usize, pair.naive.waiting.len());
            prop_assert_eq!(counts.in_flight as usize, pair.in_flight.len());
        }
    }
}
