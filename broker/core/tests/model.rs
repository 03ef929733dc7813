//! The order of dispatch against a naive scheduler that searches through everything each time.

use pinmesh_core::{Conn, Event};
use pinmesh_protocol::command::ServiceAlias;
use proptest::prelude::*;

use crate::support::{Ask, Effect, Greeting, Sim, TaskSent, tasks};

const SERVICES: [&str; 3] = ["zero", "one", "two"];
const CLIENT: u32 = 0;

#[derive(Clone, Debug)]
enum Step {
    /// A worker that serves the services of these bits, with this window.
    Ready(u8, u32),
    Submit(usize, u8),
    /// The n-th of what is in flight is done.
    Done(usize),
    /// The n-th of what waits is cancelled.
    Cancel(usize),
    Window(usize, u32),
    Full(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1..8_u8, 0..5_u32).prop_map(|(bits, window)| Step::Ready(bits, window)),
        8 => (0..3_usize, 1..=10_u8).prop_map(|(service, urgency)| Step::Submit(service, urgency)),
        6 => any::<usize>().prop_map(Step::Done),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => (any::<usize>(), 0..5_u32).prop_map(|(worker, window)| Step::Window(worker, window)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(worker, full)| Step::Full(worker, full)),
    ]
}

/// What the machine should do, found the slow way.
#[derive(Default)]
struct Naive {
    workers: Vec<NaiveWorker>,
    /// Services of each group, and which of them comes first among equals.
    groups: Vec<(Vec<usize>, usize)>,
    /// Service, priority, request; in the order in which they came.
    waiting: Vec<(usize, u8, u64)>,
    clock: u64,
    /// Request and worker, in the order of dispatch.
    dispatched: Vec<(u64, usize)>,
}

struct NaiveWorker {
    group: usize,
    window: u32,
    in_flight: u32,
    is_full: bool,
    /// When its in-flight count or credit changed last: the latest is on top among equals.
    changed: u64,
}

impl Naive {
    fn ready(&mut self, services: Vec<usize>, window: u32) {
        let known = self.groups.iter().position(|(of_group, _)| *of_group == services);
        let group = known.unwrap_or_else(|| {
            self.groups.push((services, 0));
            self.groups.len() - 1
        });
        let changed = self.tick();
        self.workers.push(NaiveWorker { group, window, in_flight: 0, is_full: false, changed });
        self.feed(group);
    }

    fn submit(&mut self, service: usize, priority: u8, request: u64) {
        self.waiting.push((service, priority, request));
        loop {
            let Some(place) = self.first_of(service) else { return };
            let best = (0..self.groups.len())
                .filter(|group| self.groups[*group].0.contains(&service))
                .filter_map(|group| self.best_of(group))
                .min_by_key(|worker| self.workers[*worker].in_flight);
            let Some(worker) = best else { return };
            self.dispatch(place, worker);
        }
    }

    fn change(&mut self, worker: usize, change: impl FnOnce(&mut NaiveWorker)) {
        change(&mut self.workers[worker]);
        self.workers[worker].changed = self.tick();
        self.feed(self.workers[worker].group);
    }

    fn feed(&mut self, group: usize) {
        while let Some(worker) = self.best_of(group) {
            let (services, next) = &self.groups[group];
            let count = services.len();
            let mut best: Option<(u8, usize, usize)> = None;
            for turn in 0..count {
                let at = (next + turn) % count;
                let Some(place) = self.first_of(services[at]) else { continue };
                let urgency = self.waiting[place].1;
                if best.is_none_or(|(found, _, _)| urgency > found) {
                    best = Some((urgency, at, place));
                }
            }
            let Some((_, at, place)) = best else { return };
            self.groups[group].1 = (at + 1) % count;
            self.dispatch(place, worker);
        }
    }

    /// Where the most urgent, then oldest, task of the service waits.
    fn first_of(&self, service: usize) -> Option<usize> {
        let of_service = self.waiting.iter().enumerate().filter(|(_, task)| task.0 == service);
        of_service.min_by_key(|(place, task)| (10 - task.1, *place)).map(|(place, _)| place)
    }

    /// The worker with credit that has the fewest in flight, the latest to change among equals.
    fn best_of(&self, group: usize) -> Option<usize> {
        let all = self.workers.iter().enumerate();
        all.filter(|(_, worker)| worker.group == group)
            .filter(|(_, worker)| !worker.is_full && worker.in_flight < worker.window)
            .min_by_key(|(_, worker)| (worker.in_flight, u64::MAX - worker.changed))
            .map(|(place, _)| place)
    }

    fn dispatch(&mut self, place: usize, worker: usize) {
        let (_, _, request) = self.waiting.remove(place);
        self.dispatched.push((request, worker));
        self.workers[worker].in_flight += 1;
        self.workers[worker].changed = self.tick();
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// The machine, the naive scheduler, and what both have in flight.
struct Pair {
    sim: Sim,
    naive: Naive,
    in_flight: Vec<TaskSent>,
    requests: u64,
}

impl Pair {
    fn new() -> Self {
        let mut sim = Sim::new();
        let client = sim.client(CLIENT);
        for (alias, name) in SERVICES.iter().enumerate() {
            sim.event(Event::Service(client, ServiceAlias { alias: alias as u32, name }));
        }
        Self { sim, naive: Naive::default(), in_flight: Vec::new(), requests: 0 }
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
            Step::Submit(service, priority) => {
                self.requests += 1;
                let request = self.requests;
                self.naive.submit(service, priority, request);
                let service = SERVICES[service].into();
                self.sim.ask(Conn(CLIENT), Ask { request, service, priority, ..Ask::default() })
            }
            Step::Done(which) if !self.in_flight.is_empty() => {
                let task = self.in_flight.swap_remove(which % self.in_flight.len());
                self.naive.change(task.to.0 as usize - 1, |worker| worker.in_flight -= 1);
                self.sim.done(&task)
            }
            Step::Cancel(which) if !self.naive.waiting.is_empty() => {
                let place = which % self.naive.waiting.len();
                let (_, _, request) = self.naive.waiting.remove(place);
                self.sim.cancel(Conn(CLIENT), request, 1)
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
            _ => Vec::new(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn tasks_go_where_and_when_a_naive_scheduler_sends_them(
        steps in prop::collection::vec(step(), 1..150)
    ) {
        let mut pair = Pair::new();
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
