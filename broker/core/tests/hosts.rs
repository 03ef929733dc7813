//! Supervisors: HOST, the lease, and being gone.

use pinmesh_core::{Conn, CoreConfig, Span};
use pinmesh_protocol::status::{LossKind, Role, Status};

use crate::support::{
    Ask, Effect, Greeting, SECOND, SLACK, Sim, TaskSent, at_most_once, results, tasks,
};

/// A client, and a supervisor with one worker in slot 0 that holds one task.
fn busy_host() -> (Sim, Conn, Conn, TaskSent) {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    sim.supervised(3, 2, 0);
    let task = tasks(&sim.submit(client, 1))[0];
    (sim, client, supervisor, task)
}

fn seconds(count: u64) -> Span {
    Span(count * SECOND.0)
}

#[test]
fn a_supervised_worker_is_sent_nothing_before_its_supervisor_speaks() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.supervised(3, 2, 0);
    assert!(tasks(&sim.submit(client, 1)).is_empty());
    sim.hello(2, Role::Supervisor, 2);
    assert!(tasks(&sim.heartbeat(Conn(2))).is_empty(), "HOST gives the lease");
    assert_eq!(tasks(&sim.host(Conn(2), &[(0, 1)])).len(), 1);
}

#[test]
fn a_supervised_worker_may_be_silent_while_its_supervisor_speaks() {
    let (mut sim, client, _, task) = busy_host();
    sim.silence(task.to);
    sim.pass(seconds(300));
    assert_eq!(sim.broker.ledger().requeued, 0);
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
}

#[test]
fn a_host_without_a_lease_is_sent_nothing_new_and_keeps_what_it_has() {
    let (mut sim, client, supervisor, _) = busy_host();
    sim.silence(supervisor);
    sim.pass(Span(sim.config.lease.0 + SLACK.0));
    assert!(tasks(&sim.submit(client, 2)).is_empty());
    assert_eq!(sim.broker.ledger().requeued, 0);
    assert_eq!(sim.broker.counts().in_flight, 1);
}

#[test]
fn what_a_silent_host_held_is_requeued_after_the_lease_and_the_grace() {
    let (mut sim, client, supervisor, task) = busy_host();
    sim.worker(9, &["work"]);
    let end = sim.now.after(sim.config.host_requeue());
    sim.silence(supervisor);
    sim.pass(Span(end.0 - sim.now.0 - SLACK.0));
    assert_eq!(sim.broker.ledger().requeued, 0);
    let again = tasks(&sim.pass(Span(2 * SLACK.0)))[0];
    assert_eq!((again.to, again.head.dispatch.0, again.head.tries), (Conn(9), 2, 0));
    assert!(results(&sim.done(&task)).is_empty());
    assert_eq!(results(&sim.done(&again)), [(client, 1, Status::Ok)]);
    assert_eq!(sim.broker.counts().hosts, 0);
}

#[test]
fn what_a_silent_host_held_at_most_once_is_lost() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    sim.supervised(3, 2, 0);
    sim.ask(client, Ask { options: at_most_once(), ..Ask::default() });
    sim.silence(supervisor);
    assert_eq!(results(&sim.pass(seconds(17))), [(client, 1, Status::Lost)]);
}

#[test]
fn a_supervisor_that_returns_in_time_loses_nothing() {
    let (mut sim, client, supervisor, task) = busy_host();
    sim.silence(supervisor);
    sim.pass(seconds(14));
    assert!(tasks(&sim.submit(client, 2)).is_empty());
    sim.hello(12, Role::Supervisor, 2);
    let effects = sim.host(Conn(12), &[(0, 1)]);
    assert_eq!(tasks(&effects).len(), 1, "the lease runs again");
    sim.pass(seconds(60));
    assert_eq!(sim.broker.ledger().requeued, 0);
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
}

#[test]
fn a_supervisor_that_returns_has_no_lease_before_it_says_host_again() {
    let (mut sim, client, supervisor, _) = busy_host();
    sim.silence(supervisor);
    sim.pass(seconds(12));
    sim.submit(client, 2);
    sim.hello(12, Role::Supervisor, 2);
    assert!(tasks(&sim.heartbeat(Conn(12))).is_empty());
    assert_eq!(tasks(&sim.host(Conn(12), &[(0, 1)])).len(), 1);
}

#[test]
fn a_supervisor_that_returns_without_its_worker_gives_its_task_back() {
    let (mut sim, _, supervisor, task) = busy_host();
    sim.gone(supervisor);
    sim.gone(task.to);
    sim.worker(9, &["work"]);
    sim.hello(12, Role::Supervisor, 2);
    let again = tasks(&sim.host(Conn(12), &[]))[0];
    assert_eq!((again.to, again.head.dispatch.0), (Conn(9), 2));
}

#[test]
fn workers_get_nothing_between_hello_and_host_of_their_supervisor() {
    let (mut sim, client, _, _) = busy_host();
    sim.hello(12, Role::Supervisor, 2);
    assert!(tasks(&sim.submit(client, 2)).is_empty(), "they may be gone");
    assert!(tasks(&sim.heartbeat(Conn(12))).is_empty());
    assert_eq!(tasks(&sim.host(Conn(12), &[(0, 1)])).len(), 1);
}

#[test]
fn a_lease_that_is_renewed_late_ends_in_time_even_where_the_grace_is_longer_than_it() {
    let config = CoreConfig { lease: Span::from_secs(1), ..CoreConfig::default() };
    let mut sim = Sim::with(config);
    let client = sim.client(1);
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    sim.supervised(3, 2, 0);
    sim.silence(supervisor);
    sim.pass(Span::from_millis(1_500));
    sim.heartbeat(supervisor);
    sim.pass(Span::from_millis(1_100));
    assert!(tasks(&sim.submit(client, 1)).is_empty(), "its second lease has ended");
}

#[test]
fn a_worker_that_host_does_not_list_but_that_speaks_was_started_since() {
    let (mut sim, _, supervisor, _) = busy_host();
    sim.host(supervisor, &[]);
    assert_eq!(sim.broker.ledger().requeued, 0);
}

#[test]
fn a_worker_that_came_after_host_was_written_and_lost_its_session_is_not_taken_for_dead() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.supervisor(2, 2, &[]);
    sim.hello(12, Role::Supervisor, 2);
    let worker = sim.supervised(3, 2, 0);
    sim.submit(client, 1);
    assert_eq!(tasks(&sim.host(Conn(12), &[])).len(), 1);
    sim.gone(worker);
    sim.host(Conn(12), &[]);
    assert_eq!(sim.broker.ledger().requeued, 0, "its process runs the task");
}

#[test]
fn host_with_a_higher_incarnation_buries_the_earlier_one() {
    let (mut sim, client, supervisor, task) = busy_host();
    sim.gone(task.to);
    sim.host(supervisor, &[(0, 2)]);
    assert_eq!(sim.broker.counts().pending, 1);
    let late = Greeting { host: Some(2), incarnation: 1, ..Greeting::default() };
    assert!(tasks(&sim.greet(7, 3, late)).is_empty(), "the earlier one is known to be gone");
    let next = Greeting { host: Some(2), incarnation: 2, ..Greeting::default() };
    let again = tasks(&sim.greet(8, 8, next))[0];
    assert_eq!(results(&sim.done(&again)), [(client, 1, Status::Ok)]);
}

#[test]
fn host_with_a_lower_incarnation_was_written_before_the_worker_came() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    let second = Greeting { host: Some(2), incarnation: 2, ..Greeting::default() };
    sim.greet(3, 3, second);
    sim.submit(client, 1);
    sim.host(supervisor, &[(0, 1)]);
    assert_eq!(sim.broker.ledger().requeued, 0);
}

#[test]
fn the_goodbye_of_a_supervisor_ends_its_workers() {
    let (mut sim, _, supervisor, _) = busy_host();
    let effects = sim.goodbye(supervisor);
    assert!(effects.contains(&Effect::Close(supervisor)));
    assert_eq!((sim.broker.counts().hosts, sim.broker.counts().pending), (0, 1));
}

#[test]
fn the_goodbye_of_a_worker_gives_its_tasks_back() {
    let (mut sim, _, _, task) = busy_host();
    sim.goodbye(task.to);
    assert_eq!(sim.broker.counts().pending, 1);
    assert_eq!(sim.broker.counts().workers, 0);
}

#[test]
fn a_worker_whose_loss_was_reported_before_its_ready_is_not_served() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    sim.hello(3, Role::Worker, 3);
    sim.lost(supervisor, LossKind::Exited, None, &[]);
    let greeting = Greeting { host: Some(2), ..Greeting::default() };
    sim.ready(Conn(3), greeting);
    assert!(tasks(&sim.submit(client, 1)).is_empty());
}

#[test]
fn one_supervisor_cannot_bury_the_worker_of_another() {
    let (mut sim, _, _, _) = busy_host();
    let other = sim.supervisor(8, 8, &[(0, 1)]);
    sim.lost(other, LossKind::Signalled, None, &[]);
    assert_eq!(sim.broker.counts().in_flight, 1);
}

#[test]
fn a_worker_without_a_session_is_kept_while_its_supervisor_speaks_for_it() {
    let (mut sim, client, _, task) = busy_host();
    sim.gone(task.to);
    sim.pass(seconds(120));
    assert_eq!(sim.broker.ledger().requeued, 0);
    let held = vec![crate::support::held(&task, pinmesh_protocol::status::HeldState::Claimed)];
    let greeting = Greeting { host: Some(2), held, ..Greeting::default() };
    sim.greet(13, 3, greeting);
    let task = TaskSent { to: Conn(13), ..task };
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
}
