//! Unsupervised workers, and ends that are not open.

use pinmesh_core::{Conn, Event, Span};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::status::{EndStatus, Role, Status};

use crate::support::{
    Ask, Effect, SECOND, SLACK, Sent, Sim, TaskSent, at_most_once, results, sent_to, tasks,
};

fn short(request: u64) -> Ask {
    let max_runtime_ns = Some(Span::from_secs(20).0);
    let options = Ok(TaskOptions { max_runtime_ns, ..TaskOptions::default() });
    Ask { request, options, ..Ask::default() }
}

#[test]
fn an_idle_worker_without_a_supervisor_that_falls_silent_is_gone() {
    let mut sim = Sim::new();
    let worker = sim.worker(2, &["work"]);
    sim.pass(Span::from_secs(60));
    assert_eq!(sim.broker.counts().workers, 1);
    sim.silence(worker);
    let effects = sim.pass(Span(4 * SECOND.0 + SLACK.0));
    assert!(effects.contains(&Effect::Close(worker)));
    assert_eq!(sim.broker.counts().workers, 0);
}

#[test]
fn a_busy_worker_without_a_supervisor_may_be_silent_for_its_max_runtime_and_the_grace() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    sim.ask(client, short(1));
    sim.silence(worker);
    sim.pass(Span::from_secs(24));
    assert_eq!(sim.broker.ledger().requeued, 0);
    sim.pass(Span::from_secs(4));
    assert_eq!((sim.broker.ledger().requeued, sim.broker.counts().workers), (1, 0));
}

#[test]
fn a_silent_worker_is_judged_by_what_it_holds_and_not_by_what_it_held() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let long = tasks(&sim.submit(client, 1))[0];
    sim.ask(client, short(2));
    sim.done(&long);
    sim.silence(worker);
    sim.pass(Span::from_secs(29));
    assert_eq!((sim.broker.ledger().requeued, sim.broker.counts().workers), (1, 0));
}

#[test]
fn a_peer_that_is_full_is_not_heard_by_that() {
    let mut sim = Sim::new();
    let worker = sim.worker(2, &["work"]);
    sim.silence(worker);
    sim.pass(Span::from_secs(2));
    sim.event(Event::Full(worker));
    sim.event(Event::Sendable(worker));
    let effects = sim.pass(Span(SECOND.0 + SLACK.0));
    assert!(effects.contains(&Effect::Close(worker)));
}

#[test]
fn the_task_that_a_silent_worker_was_sent_first_is_charged() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let mut charged = Vec::new();
    for life in 0..3 {
        let number = 10 + life;
        let worker = sim.worker(number, &["work"]);
        if life == 0 {
            sim.ask(client, short(1));
            sim.ask(client, short(2));
        }
        sim.silence(worker);
        charged.extend(results(&sim.pass(Span::from_secs(40))));
    }
    charged.extend(results(&sim.pass(Span::from_secs(30))));
    assert_eq!(charged, [(client, 1, Status::Crashed), (client, 2, Status::NoService)]);
}

#[test]
fn a_worker_that_was_busy_and_is_idle_again_is_judged_as_idle() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.pass(Span::from_secs(10));
    sim.done(&task);
    sim.silence(worker);
    sim.pass(Span::from_secs(8));
    assert_eq!(sim.broker.counts().workers, 0, "its max runtime of an hour is over with its task");
}

#[test]
fn an_at_most_once_task_is_lost_with_its_silent_worker() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let mut ask = short(1);
    ask.options.as_mut().unwrap().at_most_once = true;
    sim.ask(client, ask);
    sim.silence(worker);
    assert_eq!(results(&sim.pass(Span::from_secs(30))), [(client, 1, Status::Lost)]);
}

#[test]
fn the_goodbye_of_a_worker_requeues_what_it_held() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    sim.submit(client, 1);
    sim.ask(client, Ask { request: 2, options: at_most_once(), ..Ask::default() });
    sim.worker(3, &["work"]);
    let effects = sim.goodbye(worker);
    assert_eq!(results(&effects), [(client, 2, Status::Lost)]);
    let again = tasks(&effects);
    assert_eq!((again[0].head.request_id.0, again[0].head.tries), (1, 0));
}

#[test]
fn a_worker_that_comes_back_in_time_is_the_same_worker() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(worker);
    sim.pass(Span::from_secs(30));
    sim.hello(12, Role::Worker, 2);
    let task = TaskSent { to: Conn(12), ..task };
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)], "an end before READY counts");
}

#[test]
fn an_idle_worker_that_does_not_come_back_is_gone() {
    let mut sim = Sim::new();
    let worker = sim.worker(2, &["work"]);
    sim.gone(worker);
    sim.pass(Span(3 * SECOND.0 + SLACK.0));
    assert_eq!(sim.broker.counts().workers, 0);
}

#[test]
fn a_repeated_done_is_acknowledged_dropped_and_counted() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.done(&task);
    assert!(sim.done_by(task.to, &task, EndStatus::Failed).is_empty());
    assert_eq!(sim.broker.ledger().stale_ends, 1);
    let effects = sim.event(Event::BatchEnd(task.to));
    assert_eq!(sent_to(&effects, task.to), [Sent::Ack(2)]);
    sim.ack(client, 1);
    assert!(sim.done(&task).is_empty(), "after its task is forgotten too");
    assert_eq!(sim.broker.ledger().stale_ends, 2);
}

#[test]
fn the_done_of_somebody_elses_attempt_is_acknowledged_dropped_and_counted() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    let thief = sim.worker(3, &["work"]);
    assert!(sim.done_by(thief, &task, EndStatus::Ok).is_empty());
    assert_eq!(sim.broker.ledger().foreign_ends, 1);
    assert_eq!(sent_to(&sim.event(Event::BatchEnd(thief)), thief), [Sent::Ack(1)]);
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
}

#[test]
fn the_done_of_an_attempt_that_was_given_back_is_dropped_once_it_is_sent_again() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    sim.worker(3, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    let again = tasks(&sim.give_back(&task))[0];
    assert!(sim.done(&task).is_empty());
    assert_eq!(sim.broker.ledger().stale_ends, 1);
    assert_eq!(results(&sim.done(&again)), [(client, 1, Status::Ok)]);
}

#[test]
fn a_failed_attempt_counts_as_a_try() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    let effects = sim.done_by(task.to, &task, EndStatus::FailedFinal);
    let Some(Effect::Result { head, .. }) = effects.last() else { panic!("{effects:?}") };
    assert_eq!((head.status, head.tries), (Status::Failed, 1));
}
