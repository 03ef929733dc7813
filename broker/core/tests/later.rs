//! Tasks that are to start later, and what becomes of what runs when its deadline passes.

use pinmesh_core::{Conn, Obstacle, Span};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::status::{LossKind, Status};

use crate::support::{Ask, SECOND, SLACK, Sim, cancels, results, tasks};

fn later(request: u64, seconds: u64) -> Ask {
    let start_after_ns = Some(seconds * SECOND.0);
    let options = TaskOptions { start_after_ns, ..TaskOptions::default() };
    Ask { request, options: Ok(options), ..Ask::default() }
}

fn served() -> (Sim, Conn) {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    (sim, client)
}

#[test]
fn a_task_starts_when_its_time_has_come_and_not_before() {
    let (mut sim, client) = served();
    assert!(tasks(&sim.ask(client, later(1, 10))).is_empty(), "though a worker is free");
    let counts = sim.broker.counts();
    assert_eq!((counts.delayed, counts.pending), (1, 0));
    assert!(tasks(&sim.pass(Span(10 * SECOND.0 - 1))).is_empty());
    let task = tasks(&sim.pass(SLACK))[0];
    assert_eq!((task.head.dispatch.0, task.head.tries), (1, 0));
    sim.done(&task);
    sim.ack(client, 1);
    sim.assert_empty();
}

#[test]
fn an_explanation_says_how_long_it_is_to_wait_yet() {
    let (mut sim, client) = served();
    sim.ask(client, later(1, 10));
    sim.pass(Span(3 * SECOND.0));
    let task = sim.broker.tasks().next().expect("it is held").task;
    let said = sim.broker.explain(task).expect("it is held").obstacles;
    assert_eq!(said, [Obstacle::Delayed(Span(7 * SECOND.0))]);
}

#[test]
fn a_start_after_nothing_is_a_start_at_once() {
    let (mut sim, client) = served();
    assert_eq!(tasks(&sim.ask(client, later(1, 0))).len(), 1);
}

#[test]
fn it_joins_its_queue_behind_what_waits_there() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, later(1, 1));
    sim.submit(client, 2);
    sim.pass(Span(SECOND.0 + SLACK.0));
    sim.submit(client, 3);
    let mut order = Vec::new();
    let mut sent = tasks(&sim.worker_effects(2, &["work"]));
    while let Some(task) = sent.first().copied() {
        order.extend(sent.iter().map(|task| task.head.request_id.0));
        sent = tasks(&sim.done(&task));
    }
    order.dedup();
    assert_eq!(order, [2, 1, 3]);
}

#[test]
fn a_deadline_or_its_client_may_end_it_before_its_start() {
    let (mut sim, client) = served();
    sim.ask(client, Ask { deadline: Some(SECOND), ..later(1, 10) });
    let effects = sim.pass(Span(SECOND.0 + SLACK.0));
    assert_eq!(results(&effects), [(client, 1, Status::Expired)]);
    sim.ask(client, later(2, 10));
    assert_eq!(results(&sim.cancel(client, 2, 1)), [(client, 2, Status::Cancelled)]);
    assert!(tasks(&sim.pass(Span(20 * SECOND.0))).is_empty());
    sim.ack(client, 2);
    sim.assert_empty();
}

/// A task that runs with a supervised worker past its deadline, and the CANCELs that this causes.
fn overdue(kill_at_deadline: bool) -> (Sim, Conn, Vec<bool>) {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(3, 3, &[(0, 1)]);
    sim.supervised(4, 3, 0);
    let options = TaskOptions { kill_at_deadline, ..TaskOptions::default() };
    let ask = Ask { deadline: Some(SECOND), options: Ok(options), ..Ask::default() };
    let task = tasks(&sim.ask(client, ask))[0];
    let effects = sim.pass(Span(SECOND.0 + SLACK.0));
    assert_eq!(results(&effects), [(client, 1, Status::Expired)]);
    let cancels = cancels(&effects, supervisor);
    let cause = if kill_at_deadline { LossKind::Cancelled } else { LossKind::Signalled };
    sim.lost(supervisor, cause, Some(&task), &[]);
    assert_eq!(sim.broker.counts().pending, 0, "it has its outcome, however its worker ends");
    (sim, client, cancels)
}

#[test]
fn what_runs_past_its_deadline_is_asked_to_stop() {
    assert_eq!(overdue(false).2, [false]);
}

#[test]
fn what_runs_past_its_deadline_is_killed_where_it_asked_for_that() {
    let (mut sim, client, cancels) = overdue(true);
    assert_eq!(cancels, [true]);
    sim.ack(client, 1);
    assert_eq!(sim.broker.counts().tasks, 0);
}
