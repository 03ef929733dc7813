//! What keeps a service's tasks waiting beside a free worker: pause, cap, rate; and its limits of
//! what may come in.

use std::collections::BTreeMap;

use pinmesh_core::{
    AdminCommand, AdminObjection, AdminReply, CoreConfig, Rate, ServiceLimits, Span,
};
use pinmesh_protocol::status::{HeldState, Status};

use crate::support::{Ask, Greeting, SECOND, SLACK, Sim, TaskSent, held, results, tasks};

fn with_limits(limits: ServiceLimits) -> Sim {
    let own_service_limits = BTreeMap::from([("work".to_owned(), limits)]);
    Sim::with(CoreConfig { own_service_limits, ..CoreConfig::default() })
}

fn capped(in_flight_max: u32) -> Sim {
    with_limits(ServiceLimits { in_flight_max, ..ServiceLimits::default() })
}

/// So many tasks of `work` from the client on socket 1, and what was sent.
fn submit_all(sim: &mut Sim, requests: std::ops::Range<u64>) -> Vec<TaskSent> {
    let client = pinmesh_core::Conn(1);
    requests.flat_map(|request| tasks(&sim.submit(client, request))).collect()
}

#[test]
fn a_paused_service_is_sent_to_nobody_until_it_is_resumed() {
    let mut sim = Sim::new();
    sim.client(1);
    sim.worker(2, &["work", "other"]);
    let reply = sim.administer(AdminCommand::Pause("work")).0;
    assert_eq!(reply, Ok(AdminReply::Paused { was_paused: false }));
    assert!(submit_all(&mut sim, 0..3).is_empty());
    let other = Ask { request: 9, service: "other".into(), ..Ask::default() };
    assert_eq!(tasks(&sim.ask(pinmesh_core::Conn(1), other)).len(), 1, "others go on");
    let (reply, effects) = sim.administer(AdminCommand::Resume("work"));
    assert_eq!(reply, Ok(AdminReply::Resumed { was_paused: true }));
    let sent = tasks(&effects);
    assert_eq!(sent.iter().map(|task| task.head.request_id.0).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn what_was_sent_before_a_pause_ends_as_it_does_and_returns_wait() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let sent = submit_all(&mut sim, 0..2);
    sim.administer(AdminCommand::Pause("work")).0.expect("a known service");
    assert_eq!(results(&sim.done(&sent[0])), [(client, 0, Status::Ok)]);
    assert!(tasks(&sim.give_back(&sent[1])).is_empty());
    assert!(tasks(&sim.pass(Span::from_secs(40))).is_empty());
    assert_eq!(tasks(&sim.administer(AdminCommand::Resume("work")).1).len(), 1);
}

#[test]
fn a_pause_outlives_the_last_worker_and_task_of_its_service() {
    let mut sim = Sim::with(CoreConfig { services_max: 1, ..CoreConfig::default() });
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    sim.administer(AdminCommand::Pause("work")).0.expect("a known service");
    sim.goodbye(worker);
    // There is room for one service: another name would take it, if this one were given up.
    let other = Ask { request: 1, service: "other".into(), ..Ask::default() };
    assert_eq!(results(&sim.ask(client, other)), [(client, 1, Status::Refused)]);
    sim.worker(3, &["work"]);
    assert!(tasks(&sim.submit(client, 10)).is_empty());
    let (reply, effects) = sim.administer(AdminCommand::Resume("work"));
    assert_eq!(reply, Ok(AdminReply::Resumed { was_paused: true }));
    assert_eq!(tasks(&effects).len(), 1);
}

#[test]
fn an_unknown_service_cannot_be_paused() {
    let mut sim = Sim::new();
    for command in [AdminCommand::Pause("work"), AdminCommand::Resume("work")] {
        assert_eq!(sim.administer(command).0, Err(AdminObjection::UnknownService));
    }
}

#[test]
fn a_configured_service_is_known_before_anybody_serves_it() {
    let mut sim = capped(1);
    sim.administer(AdminCommand::Pause("work")).0.expect("a known service");
    sim.client(1);
    sim.worker(2, &["work"]);
    assert!(submit_all(&mut sim, 0..1).is_empty());
}

#[test]
fn no_more_are_in_flight_than_the_cap_whoever_has_credit() {
    let mut sim = capped(2);
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    // A group of its own.
    sim.worker(3, &["work", "other"]);
    let sent = submit_all(&mut sim, 0..5);
    assert_eq!(sent.len(), 2);
    let effects = sim.done(&sent[0]);
    assert_eq!(results(&effects), [(client, 0, Status::Ok)]);
    assert_eq!(tasks(&effects).len(), 1, "the next one takes its place");
}

#[test]
fn room_under_the_cap_is_filled_by_a_worker_of_another_group() {
    let mut sim = capped(1);
    sim.client(1);
    sim.worker(2, &["work"]);
    let sent = submit_all(&mut sim, 0..2);
    let other = sim.worker(3, &["work", "other"]);
    // The one that gives it back is fed no more for a while.
    let again = tasks(&sim.give_back(&sent[0]));
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].to, again[0].head.request_id.0), (other, 0));
}

#[test]
fn room_under_the_cap_is_offered_to_others_where_its_own_worker_takes_no_more() {
    let mut sim = capped(1);
    sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let sent = submit_all(&mut sim, 0..2);
    let other = sim.worker(3, &["work", "other"]);
    // It leaves: what it holds is its last.
    sim.window(worker, 0, 0);
    let next = tasks(&sim.done(&sent[0]));
    assert_eq!(next.iter().map(|task| task.to).collect::<Vec<_>>(), [other]);
}

#[test]
fn a_cancelled_task_counts_until_its_worker_has_let_go_of_it() {
    let mut sim = capped(1);
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let ask = Ask { request: 0, deadline: Some(SECOND), ..Ask::default() };
    let first = tasks(&sim.ask(client, ask))[0];
    assert!(submit_all(&mut sim, 1..2).is_empty());
    let effects = sim.pass(Span(SECOND.0 + SLACK.0));
    assert_eq!(results(&effects), [(client, 0, Status::Expired)]);
    assert!(tasks(&effects).is_empty(), "its worker still runs it");
    assert_eq!(tasks(&sim.done(&first)).len(), 1);
}

#[test]
fn what_a_worker_brings_back_may_pass_the_cap_and_is_waited_out() {
    let mut sim = capped(1);
    sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let first = submit_all(&mut sim, 0..2)[0];
    sim.gone(worker);
    sim.hello(4, pinmesh_protocol::status::Role::Worker, 2);
    let greeting = Greeting { held: vec![held(&first, HeldState::Waiting)], ..Greeting::default() };
    assert!(tasks(&sim.ready(pinmesh_core::Conn(4), greeting)).is_empty());
    let moved = TaskSent { to: pinmesh_core::Conn(4), ..first };
    assert_eq!(tasks(&sim.done(&moved)).len(), 1);
}

#[test]
fn a_rate_lets_its_burst_through_and_then_one_an_interval() {
    let rate = Rate { interval: Span::from_millis(100), burst: 3 };
    let mut sim = with_limits(ServiceLimits { rate: Some(rate), ..ServiceLimits::default() });
    sim.client(1);
    sim.worker(2, &["work"]);
    assert_eq!(submit_all(&mut sim, 0..10).len(), 3);
    sim.settle();
    for _ in 0..5 {
        assert!(tasks(&sim.pass(Span::from_millis(96))).is_empty());
        assert_eq!(tasks(&sim.pass(Span::from_millis(4))).len(), 1);
    }
    sim.pass(SECOND);
    assert_eq!(sim.broker.counts().pending, 0);
}

#[test]
fn a_rate_has_no_hold_over_what_is_cancelled_meanwhile() {
    let rate = Rate { interval: SECOND, burst: 1 };
    let mut sim = with_limits(ServiceLimits { rate: Some(rate), ..ServiceLimits::default() });
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    assert_eq!(submit_all(&mut sim, 0..2).len(), 1);
    sim.cancel(client, 1, 1);
    assert!(tasks(&sim.pass(Span::from_secs(5))).is_empty());
    assert_eq!(submit_all(&mut sim, 2..4).len(), 1, "one token, however long it was quiet");
}

#[test]
fn past_pending_max_a_submission_is_busy_and_others_are_not() {
    let mut sim = with_limits(ServiceLimits { pending_max: 2, ..ServiceLimits::default() });
    let client = sim.client(1);
    submit_all(&mut sim, 0..2);
    assert_eq!(results(&sim.submit(client, 2)), [(client, 2, Status::Busy)]);
    let other = Ask { request: 3, service: "other".into(), ..Ask::default() };
    assert!(results(&sim.ask(client, other)).is_empty());
    sim.worker(2, &["work"]);
    assert!(results(&sim.submit(client, 4)).is_empty(), "those two wait no more");
}

#[test]
fn past_bytes_max_a_submission_is_busy_but_one_always_comes_in() {
    let mut sim = with_limits(ServiceLimits { bytes_max: 15, ..ServiceLimits::default() });
    let client = sim.client(1);
    let long = |request| Ask { request, bytes: 16, ..Ask::default() };
    assert!(results(&sim.ask(client, long(0))).is_empty());
    assert_eq!(results(&sim.ask(client, long(1))), [(client, 1, Status::Busy)]);
    sim.cancel(client, 0, 1);
    assert!(results(&sim.ask(client, long(2))).is_empty());
}
