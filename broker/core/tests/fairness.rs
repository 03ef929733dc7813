//! Who gets how much: shares of classes, equal turns of services and clients, and what nobody can
//! take from anybody.

use std::collections::BTreeMap;

use pinmesh_core::{Conn, CoreConfig, Event, Span};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::Lost;
use pinmesh_protocol::id::{Incarnation, Slot};
use pinmesh_protocol::status::LossKind;

use crate::support::{Ask, Greeting, Sim, TaskSent, attempt, results, tasks};

const MS: u64 = 1_000_000;
const US: u64 = 1_000;

/// A broker whose workers are busy one task at a time, and what was run.
struct Plant {
    sim: Sim,
    requests: u64,
    /// Priority, service and client of each request.
    asked: BTreeMap<u64, (u8, String, Conn)>,
    running: Vec<TaskSent>,
    /// RESULTs that each client has been told of, and has acknowledged.
    told: BTreeMap<Conn, u64>,
    /// In the order of dispatch, with what it took.
    ran: Vec<(u64, u64)>,
}

impl Plant {
    fn new(config: CoreConfig) -> Self {
        let client_window_tasks = 1_000_000;
        let mut sim = Sim::with(CoreConfig { client_window_tasks, ..config });
        // A look inside takes time linear in what is held.
        sim.checks_every = 101;
        let (asked, running, told) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { sim, requests: 0, asked, running, told, ran: Vec::new() }
    }

    fn ask(&mut self, client: Conn, service: &str, priority: u8) -> u64 {
        self.requests += 1;
        let request = self.requests;
        self.asked.insert(request, (priority, service.into(), client));
        let ask = Ask { request, service: service.into(), priority, ..Ask::default() };
        let effects = self.sim.ask(client, ask);
        self.running.extend(tasks(&effects));
        request
    }

    /// All have as much waiting as they like; these get as much together as that one.
    fn assert_equal_shares(&mut self, many: &[Conn], one: Conn) {
        for _ in 0..100 {
            many.iter().for_each(|client| {
                self.ask(*client, "work", 5);
            });
            self.ask(one, "work", 5);
        }
        self.workers(1, &["work"]);
        (0..100).for_each(|_| {
            self.end_one(|_| MS);
        });
        let used = self.used(|(_, _, client)| *client == one);
        assert!(used[&true].abs_diff(used[&false]) <= 2 * MS, "{used:?}");
    }

    fn workers(&mut self, count: u32, services: &[&'static str]) {
        for number in 0..count {
            let services = services.to_vec();
            let greeting = Greeting { window_tasks: 1, services, ..Greeting::default() };
            let effects = self.sim.greet(100 + number, 100 + number as u8, greeting);
            self.running.extend(tasks(&effects));
        }
    }

    /// The task that has run for the longest ends after so long. Its request.
    fn end_one(&mut self, cost: impl FnOnce(&(u8, String, Conn)) -> u64) -> u64 {
        let task = self.running.remove(0);
        let request = task.head.request_id.0;
        let cost = cost(&self.asked[&request]);
        self.ran.push((request, cost));
        let effects = self.sim.done_after(&task, cost);
        assert_eq!(results(&effects).len(), 1);
        self.running.extend(tasks(&effects));
        let client = self.asked[&request].2;
        let told = self.told.entry(client).or_default();
        *told += 1;
        self.sim.ack(client, *told);
        request
    }

    /// The same, and another one of its kind comes in.
    fn end_one_of_many(&mut self, cost: impl FnOnce(&(u8, String, Conn)) -> u64) {
        let request = self.end_one(cost);
        let (priority, service, client) = self.asked[&request].clone();
        self.ask(client, &service, priority);
    }

    /// Nanoseconds of what was run, by something about it.
    fn used<K: Ord>(&self, by: impl Fn(&(u8, String, Conn)) -> K) -> BTreeMap<K, u64> {
        let mut used = BTreeMap::new();
        for (request, cost) in &self.ran {
            *used.entry(by(&self.asked[request])).or_insert(0) += cost;
        }
        used
    }
}

/// A cost of an exponential distribution, from a sequence that is the same each time.
fn exponential(mean: u64, state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let uniform = ((*state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    (-uniform.ln() * mean as f64) as u64
}

/// Each class within so much of its own share of what all ten have used, in thousandths.
fn assert_shares(plant: &Plant, within: f64) {
    let used = plant.used(|(priority, _, _)| *priority);
    let all: u64 = used.values().sum();
    let weights: f64 = (0..10).map(|power| 1.5_f64.powi(power)).sum();
    for priority in 1..=10_u8 {
        let share = 1.5_f64.powi(i32::from(priority) - 1) / weights;
        let real = used[&priority] as f64 / all as f64;
        let off = (real / share - 1.0).abs();
        assert!(off < within, "priority {priority}: {real} instead of {share}");
    }
}

/// Ten classes that always have tasks, and workers that are busy with them.
fn ten_classes() -> Plant {
    let mut plant = Plant::new(CoreConfig::default());
    let client = plant.sim.client(1);
    for priority in 1..=10_u8 {
        (0..6).for_each(|_| {
            plant.ask(client, "work", priority);
        });
    }
    plant.workers(2, &["work"]);
    plant
}

#[test]
fn with_all_ten_backlogged_each_class_gets_its_share_of_equal_tasks() {
    let mut plant = ten_classes();
    (0..3_000).for_each(|_| {
        plant.end_one_of_many(|_| MS);
    });
    assert_shares(&plant, 0.1);
}

#[test]
fn shares_hold_when_tasks_differ_and_one_runs_a_thousand_times_its_estimate() {
    let mut plant = ten_classes();
    let mut state = 1;
    for turn in 0..20_000 {
        plant.end_one_of_many(|_| exponential(MS, &mut state));
        if turn == 3_000 {
            let request = plant.running[0].head.request_id.0;
            plant.end_one_of_many(|_| 1_000 * MS);
            // What that one took is nobody's share.
            plant.ran.retain(|(ran, _)| *ran != request);
        }
    }
    assert_shares(&plant, 0.1);
}

#[test]
fn shares_are_of_time_and_not_of_tasks() {
    let mut plant = ten_classes();
    (0..6_000).for_each(|_| {
        plant.end_one_of_many(|(priority, _, _)| if *priority % 2 == 0 { 300 * US } else { MS });
    });
    assert_shares(&plant, 0.1);
}

#[test]
fn one_long_task_does_not_ban_its_class_afterwards() {
    let mut plant = ten_classes();
    (0..300).for_each(|_| {
        plant.end_one_of_many(|_| MS);
    });
    let is_of_five = |plant: &Plant| plant.asked[&plant.running[0].head.request_id.0].0 == 5;
    while !is_of_five(&plant) {
        plant.end_one_of_many(|_| MS);
    }
    plant.end_one_of_many(|_| 10_000 * MS);
    plant.ran.clear();
    // Two quanta are paid back in three rounds.
    (0..4 * 113).for_each(|_| {
        plant.end_one_of_many(|_| MS);
    });
    assert!(plant.used(|(priority, _, _)| *priority).contains_key(&5));
}

#[test]
fn an_urgent_task_is_next_though_every_other_class_has_backlog() {
    let mut plant = Plant::new(CoreConfig::default());
    let client = plant.sim.client(1);
    for priority in 1..=9 {
        (0..200).for_each(|_| {
            plant.ask(client, "work", priority);
        });
    }
    plant.workers(1, &["work"]);
    for turn in 0..200 {
        plant.end_one(|_| MS);
        if turn % 10 == 7 {
            let urgent = plant.ask(client, "work", 10);
            plant.end_one(|_| MS);
            assert_eq!(plant.running[0].head.request_id.0, urgent, "after what was running");
        }
    }
}

#[test]
fn strict_serves_the_most_urgent_class_whatever_it_has_used() {
    let mut plant = Plant::new(CoreConfig { is_strict: true, ..CoreConfig::default() });
    let client = plant.sim.client(1);
    for priority in [1, 9, 10] {
        (0..300).for_each(|_| {
            plant.ask(client, "work", priority);
        });
    }
    plant.workers(1, &["work"]);
    (0..900).for_each(|_| {
        plant.end_one(|_| MS);
    });
    // The first one was there before there was anything else.
    let order: Vec<u8> = plant.ran.iter().map(|(request, _)| plant.asked[request].0).collect();
    assert!(order.windows(2).all(|pair| pair[0] >= pair[1]), "{order:?}");
}

#[test]
fn services_of_a_class_get_equal_time_whatever_their_tasks_take() {
    let mut plant = Plant::new(CoreConfig::default());
    let client = plant.sim.client(1);
    (0..3_000).for_each(|_| {
        plant.ask(client, "short", 5);
    });
    (0..300).for_each(|_| {
        plant.ask(client, "long", 5);
    });
    plant.workers(1, &["long", "short"]);
    (0..1_500).for_each(|_| {
        plant.end_one(|(_, service, _)| if service == "long" { 10 * MS } else { MS });
    });
    let used = plant.used(|(_, service, _)| service.clone());
    let ratio = used["long"] as f64 / used["short"] as f64;
    assert!((0.9..1.1).contains(&ratio), "{used:?}");
}

#[test]
fn clients_of_a_service_get_equal_time_whatever_their_tasks_take() {
    let mut plant = Plant::new(CoreConfig::default());
    let (ann, bob) = (plant.sim.client_named(1, "ann"), plant.sim.client_named(2, "bob"));
    (0..3_000).for_each(|_| {
        plant.ask(ann, "work", 5);
    });
    (0..300).for_each(|_| {
        plant.ask(bob, "work", 5);
    });
    plant.workers(1, &["work"]);
    (0..1_500).for_each(|_| {
        plant.end_one(|(_, _, client)| if *client == bob { 10 * MS } else { MS });
    });
    let used = plant.used(|(_, _, client)| *client);
    let ratio = used[&ann] as f64 / used[&bob] as f64;
    assert!((0.85..1.15).contains(&ratio), "{used:?}");
}

#[test]
fn a_hog_delays_a_newcomers_task_by_a_turn_only() {
    let mut plant = Plant::new(CoreConfig::default());
    let (hog, other) = (plant.sim.client_named(1, "hog"), plant.sim.client_named(2, "other"));
    (0..2_000).for_each(|_| {
        plant.ask(hog, "work", 5);
    });
    plant.workers(1, &["work"]);
    for _ in 0..20 {
        (0..9).for_each(|_| {
            plant.end_one(|_| MS);
        });
        let single = plant.ask(other, "work", 5);
        let ended: Vec<u64> = (0..3).map(|_| plant.end_one(|_| MS)).collect();
        assert!(ended.contains(&single), "one that ran, and one turn of the hog: {ended:?}");
    }
}

#[test]
fn ten_connections_under_one_name_get_one_share() {
    let mut plant = Plant::new(CoreConfig::default());
    let many: Vec<Conn> = (1..=10).map(|conn| plant.sim.client_named(conn, "many")).collect();
    let one = plant.sim.client_named(20, "one");
    plant.assert_equal_shares(&many, one);
}

#[test]
fn ten_names_under_one_key_get_one_share() {
    const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "one"];
    let mut plant = Plant::new(CoreConfig::default());
    let named = (1..).zip(NAMES).map(|(conn, name)| plant.sim.client_with_key(conn, name, "many"));
    let many: Vec<Conn> = named.collect();
    let one = plant.sim.client_with_key(20, "one", "another");
    plant.assert_equal_shares(&many, one);
}

#[test]
fn a_client_with_one_task_at_a_time_pays_for_its_long_ones() {
    let mut plant = Plant::new(CoreConfig::default());
    let (ann, bob) = (plant.sim.client_named(1, "ann"), plant.sim.client_named(2, "bob"));
    (0..4_000).for_each(|_| {
        plant.ask(ann, "work", 5);
    });
    plant.workers(1, &["work"]);
    let mut bobs = 0;
    for _ in 0..3_000 {
        let ended = plant.end_one(|(_, _, client)| if *client == bob { 8 * MS } else { MS });
        if ended == bobs || bobs == 0 {
            bobs = plant.ask(bob, "work", 5);
        }
    }
    let used = plant.used(|(_, _, client)| *client == bob);
    let ratio = used[&true] as f64 / used[&false] as f64;
    assert!(ratio < 1.2, "bob has more than his half: {used:?}");
}

/// What two clients that always have tasks use up, when those of one are killed after 100 ms and those
/// of the other end after one; nanoseconds.
fn used_beside_killed(cause: LossKind) -> (u64, u64) {
    let mut sim = Sim::new();
    sim.checks_every = 101;
    let (killed, honest) = (sim.client_named(1, "killed"), sim.client_named(2, "honest"));
    let options = Ok(TaskOptions { tries_max: Some(1), ..TaskOptions::default() });
    for request in 1..=500 {
        for client in [killed, honest] {
            sim.ask(client, Ask { request, options: options.clone(), ..Ask::default() });
        }
    }
    let supervisor = sim.supervisor(3, 3, &[(0, 1)]);
    let (mut life, mut used) = (1, (0, 0));
    let greet = |sim: &mut Sim, life: u32| {
        let own =
            Greeting { host: Some(3), incarnation: life, window_tasks: 1, ..Greeting::default() };
        tasks(&sim.greet(10 + life, (10 + life % 200) as u8, own))[0]
    };
    let mut task = greet(&mut sim, life);
    let killed_id = task.head.client_id;
    for _ in 0..400 {
        if task.head.client_id != killed_id {
            used.1 += MS;
            task = tasks(&sim.done_after(&task, MS))[0];
            continue;
        }
        used.0 += 100 * MS;
        sim.pass(Span::from_millis(100));
        let (slot, incarnation) = (Slot(0), Incarnation(life));
        let running = Some(attempt(&task));
        let lost = Lost { slot, incarnation, cause, detail: 9, running, started: Vec::new() };
        sim.event(Event::Lost(supervisor, lost));
        life += 1;
        task = greet(&mut sim, life);
    }
    used
}

#[test]
fn who_has_its_tasks_killed_or_crash_pays_for_the_time_they_had() {
    for cause in [LossKind::MaxRuntime, LossKind::Signalled, LossKind::OutOfMemory] {
        let (killed, honest) = used_beside_killed(cause);
        assert!(honest * 4 > killed, "{cause}: {honest} ns beside {killed}");
    }
}
