//! Windows, budgets, drain: full means BUSY.

use pinmesh_core::{Conn, CoreConfig, Event, Span};
use pinmesh_protocol::status::{RefusedCode, Status};

use crate::support::{Ask, Effect, SECOND, SLACK, Sent, Sim, TaskSent, results, sent_to, tasks};

fn busy(effects: &[Effect]) -> u64 {
    match effects {
        [Effect::Result { head, .. }] if head.status == Status::Busy => {
            head.retry_after_ns.expect("BUSY says when to try again")
        }
        other => panic!("not one BUSY: {other:?}"),
    }
}

#[test]
fn past_its_window_of_tasks_a_client_is_busy() {
    let mut sim = Sim::with(CoreConfig { client_window_tasks: 2, ..CoreConfig::default() });
    let client = sim.client(1);
    let other = sim.client(2);
    sim.submit(client, 1);
    sim.submit(client, 2);
    let effects = sim.submit(client, 3);
    assert_eq!(busy(&effects), sim.config.retry_after.0);
    assert!(sim.submit(other, 1).is_empty(), "another client's window is its own");
    let ledger = sim.broker.ledger();
    assert_eq!((ledger.submitted, ledger.accepted, ledger.busy), (4, 3, 1));
}

#[test]
fn a_result_counts_in_the_window_until_it_is_acknowledged() {
    let mut sim = Sim::with(CoreConfig { client_window_tasks: 1, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.done(&task);
    busy(&sim.submit(client, 2));
    sim.ack(client, 1);
    assert_eq!(
        tasks(&sim.ask(client, Ask { request: 2, submission: 2, ..Ask::default() })).len(),
        1
    );
}

#[test]
fn past_its_window_of_bytes_a_client_is_busy_but_one_task_is_always_taken() {
    let mut sim = Sim::with(CoreConfig { client_window_bytes: 100, ..CoreConfig::default() });
    let client = sim.client(1);
    assert!(sim.ask(client, Ask { request: 1, bytes: 500, ..Ask::default() }).is_empty());
    busy(&sim.ask(client, Ask { request: 2, bytes: 1, ..Ask::default() }));
    sim.cancel(client, 1, 1);
    sim.ack(client, 2);
    assert!(sim.ask(client, Ask { request: 3, bytes: 60, ..Ask::default() }).is_empty());
    assert!(sim.ask(client, Ask { request: 4, bytes: 40, ..Ask::default() }).is_empty());
    busy(&sim.ask(client, Ask { request: 5, bytes: 1, ..Ask::default() }));
}

#[test]
fn past_the_memory_budget_everybody_is_busy() {
    let mut sim = Sim::with(CoreConfig { memory_bytes_max: 2_000, ..CoreConfig::default() });
    let client = sim.client(1);
    let other = sim.client(2);
    assert!(sim.ask(client, Ask { bytes: 1_200, ..Ask::default() }).is_empty());
    busy(&sim.ask(other, Ask { bytes: 500, ..Ask::default() }));
    sim.cancel(client, 1, 1);
    sim.ack(client, 1);
    assert!(sim.ask(other, Ask { submission: 2, bytes: 500, ..Ask::default() }).is_empty());
}

#[test]
fn many_empty_payloads_fill_the_memory_budget_too() {
    let mut sim = Sim::with(CoreConfig { memory_bytes_max: 10_000, ..CoreConfig::default() });
    let client = sim.client(1);
    let answers: Vec<_> = (0..1_000)
        .flat_map(|request| sim.ask(client, Ask { request, bytes: 0, ..Ask::default() }))
        .collect();
    assert!(!answers.is_empty());
    assert!(sim.broker.counts().bytes <= 10_000);
}

#[test]
fn a_payload_over_the_limit_is_refused() {
    let mut sim = Sim::with(CoreConfig { payload_bytes_max: 10, ..CoreConfig::default() });
    let client = sim.client(1);
    let effects = sim.ask(client, Ask { bytes: 11, ..Ask::default() });
    assert_eq!(results(&effects), [(client, 1, Status::Refused)]);
    assert!(sim.ask(client, Ask { request: 2, bytes: 10, ..Ask::default() }).is_empty());
}

#[test]
fn bad_options_end_the_submission_refused_and_leave_the_session() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let effects = sim.ask(client, Ask { options: Err("unknown option"), ..Ask::default() });
    assert_eq!(results(&effects), [(client, 1, Status::Refused)]);
    assert!(sim.submit(client, 2).is_empty());
    assert_eq!(sim.broker.ledger().refused, 1);
}

#[test]
fn answers_that_no_task_stands_behind_are_numbered_with_the_results() {
    let mut sim = Sim::with(CoreConfig { client_window_tasks: 1, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    busy(&sim.submit(client, 2));
    sim.done(&task);
    sim.ack(client, 1);
    assert_eq!(sim.broker.counts().tasks, 1, "the first answer was BUSY");
    sim.ack(client, 2);
    sim.assert_empty();
}

#[test]
fn an_answer_beside_results_that_wait_for_a_stuck_batch_keeps_the_numbering() {
    let mut sim = Sim::with(CoreConfig { client_window_tasks: 1, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.event(Event::Full(client));
    sim.done(&task);
    busy(&sim.submit(client, 2));
    sim.event(Event::Sendable(client));
    sim.ack(client, 1);
    assert_eq!(sim.broker.counts().tasks, 1, "BUSY was sent before the result");
    sim.ack(client, 2);
    sim.assert_empty();
}

#[test]
fn busy_is_not_sent_again_after_a_reconnect() {
    let mut sim = Sim::with(CoreConfig { client_window_tasks: 1, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.submit(client, 1);
    busy(&sim.submit(client, 2));
    let effects = sim.hello(9, pinmesh_protocol::status::Role::Client, 1);
    assert!(results(&effects).is_empty());
}

#[test]
fn a_client_that_never_acknowledges_its_answers_is_refused_at_last() {
    let mut sim = Sim::with(CoreConfig { client_window_tasks: 1, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.submit(client, 0);
    let refused = (1..2_000).find(|request| {
        let effects = sim.submit(client, *request);
        sent_to(&effects, client)
            .iter()
            .any(|sent| matches!(sent, Sent::Refused(RefusedCode::Window, _)))
    });
    assert!(refused.is_some(), "its answers pile up without a bound");
}

#[test]
fn a_draining_broker_is_busy_and_finishes_what_it_holds() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    assert!(!sim.broker.is_drained());
    sim.event(Event::Drain);
    busy(&sim.submit(client, 2));
    assert!(!sim.broker.is_drained());
    sim.done(&task);
    assert!(!sim.broker.is_drained(), "the result is not acknowledged");
    sim.ack(client, 2);
    assert!(sim.broker.is_drained());
}

#[test]
fn an_idle_broker_is_drained_at_once() {
    let mut sim = Sim::new();
    assert!(!sim.broker.is_drained());
    sim.event(Event::Drain);
    assert!(sim.broker.is_drained());
    assert_eq!(sim.broker.counts().sessions, 0);
}

/// A worker that takes 10 ms for a task, and a hundred tasks of one client that wait for it.
fn backlogged() -> (Sim, Conn) {
    const WAITING: u64 = 100;
    let mut sim = Sim::with(CoreConfig {
        worker_window_tasks: 1,
        is_credit_fixed: true,
        ..CoreConfig::default()
    });
    let hog = sim.client_named(1, "hog");
    sim.worker(9, &["work"]);
    let mut running = tasks(&sim.submit(hog, 1))[0];
    (2..=WAITING + 40).for_each(|request| drop(sim.submit(hog, request)));
    for _ in 0..40 {
        running = tasks(&sim.done_after(&running, 10_000_000))[0];
    }
    assert_eq!(sim.broker.counts().pending, WAITING - 1);
    (sim, hog)
}

#[test]
fn a_task_that_would_end_after_its_deadline_is_busy_at_once() {
    let (mut sim, hog) = backlogged();
    // 100 tasks of 10 ms, and a quarter more to be sure, and 10 ms of its own.
    let needed = 1_260_000_000;
    let ask = |request, deadline| Ask { request, deadline: Some(Span(deadline)), ..Ask::default() };
    let missing = 200_000_000;
    let after = busy(&sim.ask(hog, ask(1_000, needed - missing)));
    assert!(after.abs_diff(missing) < 2_000_000, "{after}");
    assert!(sim.ask(hog, ask(1_001, needed + 5_000_000)).is_empty());
    assert!(sim.submit(hog, 1_002).is_empty(), "without a deadline it may wait");
}

#[test]
fn another_clients_tasks_make_nobody_busy() {
    let (mut sim, _) = backlogged();
    let newcomer = sim.client_named(2, "newcomer");
    let hurried = Ask { request: 1, deadline: Some(Span(SECOND.0 / 10)), ..Ask::default() };
    assert!(sim.ask(newcomer, hurried).is_empty());
    let urgent =
        Ask { request: 1_000, deadline: Some(Span(SECOND.0 / 10)), priority: 9, ..Ask::default() };
    assert!(sim.ask(Conn(1), urgent).is_empty(), "nor do less urgent ones of its own");
}

/// Tasks of 5 ms for eight workers, so many times as many as they can do, wanted within 100 ms, every
/// message 5 ms on its way: the share of what can be done that was done in time.
fn goodput(load: f64) -> f64 {
    const TASK_NS: u64 = 5_000_000;
    const TRANSIT_NS: u64 = 5_000_000;
    const WORKERS: u32 = 8;
    let mut sim = Sim::adaptive(CoreConfig::default());
    let client = sim.client(1);
    let conns: Vec<Conn> = (0..WORKERS).map(|at| sim.worker(10 + at, &["work"])).collect();
    // Of each worker: until when it is busy, and what it is to be done with, when.
    let mut free_at = vec![0; conns.len()];
    let mut ends: Vec<(u64, TaskSent, u64)> = Vec::new();
    let gap = (TASK_NS as f64 / f64::from(WORKERS) / load) as u64;
    let end = sim.now.0 + SECOND.0;
    let (mut request, mut answered, mut in_time) = (0, 0, 0_u32);
    while sim.now.0 < end {
        request += 1;
        let deadline = Some(Span(SECOND.0 / 10));
        let mut effects = sim.ask(client, Ask { request, deadline, ..Ask::default() });
        effects.extend(sim.pass(Span(gap)));
        let due: Vec<_> = ends.extract_if(.., |(at, ..)| *at <= sim.now.0).collect();
        for (_, task, residence_ns) in due {
            effects.extend(sim.done_in(&task, residence_ns, TASK_NS));
        }
        for effect in &effects {
            match effect {
                Effect::Task(task) => {
                    let at = conns.iter().position(|conn| *conn == task.to).expect("a worker");
                    let received = sim.now.0 + TRANSIT_NS;
                    free_at[at] = received.max(free_at[at]) + TASK_NS;
                    ends.push((free_at[at] + TRANSIT_NS, *task, free_at[at] - received));
                }
                Effect::Result { head, .. } => {
                    answered += 1;
                    in_time += u32::from(head.status == Status::Ok);
                }
                _ => {}
            }
        }
        sim.ack(client, answered);
    }
    f64::from(in_time) * TASK_NS as f64 / (f64::from(WORKERS) * SECOND.0 as f64)
}

#[test]
fn what_is_done_in_time_stays_the_same_under_twice_the_load() {
    for load in [1.1, 2.0, 4.0] {
        let share = goodput(load);
        assert!(share > 0.95, "{load}: {share}");
    }
}

#[test]
fn a_worker_that_gives_back_what_is_over_goes_on_at_once() {
    let mut sim = Sim::with(CoreConfig { worker_window_tasks: 1, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let late = tasks(&sim.ask(client, Ask { deadline: Some(SECOND), ..Ask::default() }))[0];
    sim.submit(client, 2);
    sim.submit(client, 3);
    sim.pass(Span(SECOND.0 + SLACK.0));
    let next = tasks(&sim.give_back(&late))[0];
    assert_eq!(next.head.request_id.0, 2);
    assert!(tasks(&sim.give_back(&next)).is_empty(), "of another it is to keep its hands off");
}
