//! How many tasks a worker is to hold.

use pinmesh_core::{CoreConfig, DoneEvent, Event, Span};
use pinmesh_protocol::status::EndStatus;

use crate::support::{Ask, Effect, Greeting, Sim, TaskSent, TestBody, attempt, tasks};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// A broker with tasks for two services waiting, and one worker that serves both.
fn waiting(short: u64, long: u64) -> (Sim, Vec<TaskSent>) {
    let mut sim = Sim::adaptive(CoreConfig::default());
    let client = sim.client(1);
    for request in 0..short + long {
        let service = if request < short { "short" } else { "long" }.into();
        sim.ask(client, Ask { request, service, ..Ask::default() });
    }
    let services = vec!["short", "long"];
    let greeting = Greeting { window_tasks: 1_024, services, ..Greeting::default() };
    let sent = tasks(&sim.greet(2, 2, greeting));
    (sim, sent)
}

/// DONE of a task that was on its way for so long, and in its handler for so long.
fn done(sim: &mut Sim, task: &TaskSent, trip: u64, service_ns: u64) -> Vec<Effect> {
    sim.now = sim.now.after(Span(trip + service_ns));
    let body = TestBody { tag: 1, bytes: 7 };
    let (attempt, status) = (attempt(task), EndStatus::Ok);
    let residence_ns = service_ns;
    sim.event(Event::Done(task.to, DoneEvent { attempt, status, residence_ns, service_ns, body }))
}

/// What the worker holds once it has run so many tasks, one at a time.
fn held_after(tasks_run: usize, trip: u64, service_ns: u64) -> usize {
    let (mut sim, mut held) = waiting(4_000, 0);
    for _ in 0..tasks_run {
        let task = held.remove(0);
        held.extend(tasks(&done(&mut sim, &task, trip, service_ns)));
    }
    held.len()
}

#[test]
fn a_worker_of_which_nothing_is_known_is_sent_a_few() {
    assert_eq!(waiting(100, 0).1.len(), 4);
}

#[test]
fn the_credit_is_known_after_the_first_task() {
    // ErlangB(n, R / S) <= 2 %: see the table of the module.
    assert_eq!(held_after(8, MS, MS), 4, "R = S");
    assert_eq!(held_after(8, 10 * MS, MS), 17, "R = 10 S");
    assert_eq!(held_after(8, MS, 100 * MS), 1, "R = S / 100");
}

#[test]
fn short_tasks_keep_a_worker_busy_over_the_shortest_round_trip() {
    let held = held_after(8, 0, US);
    assert!((100..200).contains(&held), "100 us of round trip at least: {held}");
}

#[test]
fn a_credit_is_never_more_than_the_window() {
    let mut sim = Sim::adaptive(CoreConfig { worker_window_tasks: 50, ..CoreConfig::default() });
    let client = sim.client(1);
    let mut held = tasks(&sim.greet(2, 2, Greeting::default()));
    (0..400).for_each(|request| held.extend(tasks(&sim.submit(client, request))));
    for _ in 0..100 {
        let task = held.remove(0);
        held.extend(tasks(&done(&mut sim, &task, 100 * MS, US)));
        assert!(held.len() <= 50);
    }
    assert_eq!(held.len(), 50);
}

#[test]
fn short_tasks_are_not_sent_behind_a_long_one() {
    let (mut sim, mut held) = waiting(2_000, 40);
    let is_long = |task: &TaskSent| task.head.request_id.0 >= 2_000;
    for turn in 0..1_000 {
        let task = held.remove(0);
        let took = if is_long(&task) { 100 * MS } else { 10 * US };
        held.extend(tasks(&done(&mut sim, &task, 100 * US, took)));
        let longs = held.iter().filter(|task| is_long(task)).count();
        if turn > 20 && longs > 0 {
            assert_eq!(held.len(), 1, "nothing waits behind 100 ms");
        }
    }
}

#[test]
fn two_workers_hold_what_each_needs() {
    let mut sim = Sim::adaptive(CoreConfig::default());
    let client = sim.client(1);
    (0..3_000).for_each(|request| {
        sim.submit(client, request);
    });
    let wide = || Greeting { window_tasks: 1_024, ..Greeting::default() };
    let mut held = Vec::new();
    // The first is far away, the second is not.
    for (conn, trip, needs) in [(2, 20 * MS, 28), (3, MS, 4)] {
        held.extend(tasks(&sim.greet(conn, conn as u8, wide())));
        for _ in 0..8 {
            let its = held.iter().position(|task| task.to.0 == conn).expect("it holds some");
            let task = held.remove(its);
            held.extend(tasks(&done(&mut sim, &task, trip, MS)));
        }
        assert_eq!(held.iter().filter(|task| task.to.0 == conn).count(), needs);
    }
}

/// It was measured while much came in at once, and the worker is never idle again.
#[test]
fn a_round_trip_that_was_long_once_does_not_stay_so() {
    let (mut sim, sent) = waiting(4_000, 0);
    let mut held: Vec<(TaskSent, u64)> = sent.into_iter().map(|task| (task, sim.now.0)).collect();
    for turn in 0..400 {
        let (task, sent_at) = held.remove(0);
        let trip = if turn == 0 { 10 * MS } else { MS };
        sim.now = sim.now.after(Span(if turn == 0 { trip + MS } else { MS }));
        let done = DoneEvent {
            attempt: attempt(&task),
            status: EndStatus::Ok,
            residence_ns: (sim.now.0 - sent_at).saturating_sub(trip),
            service_ns: MS,
            body: TestBody { tag: 1, bytes: 7 },
        };
        let sent = tasks(&sim.event(Event::Done(task.to, done)));
        held.extend(sent.into_iter().map(|task| (task, sim.now.0)));
        // Three were sent before anything was known, and take no credit.
        assert!(turn != 0 || held.len() == 17 + 3, "R = 10 S: {}", held.len());
    }
    assert_eq!(held.len(), 4, "R = S");
}
