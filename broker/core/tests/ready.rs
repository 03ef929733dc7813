//! READY after a reconnect: what the worker lists and what it does not.

use pinmesh_core::{Conn, Event};
use pinmesh_protocol::command::Held;
use pinmesh_protocol::id::AttemptId;
use pinmesh_protocol::status::{HeldState, LossKind, RefusedCode, Role, Status};

use crate::support::{
    Ask, Effect, Greeting, Sent, Sim, TaskSent, attempt, held, results, sent_to, tasks,
};

/// A client and an unsupervised worker, peer 2, that holds so many tasks and has lost its session.
fn away(count: u64) -> (Sim, Conn, Vec<TaskSent>) {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let sent = (1..=count).map(|request| tasks(&sim.submit(client, request))[0]).collect();
    sim.gone(worker);
    (sim, client, sent)
}

fn listing(held: Vec<Held>) -> Greeting {
    Greeting { held, ..Greeting::default() }
}

fn cancels(effects: &[Effect], to: Conn) -> Vec<(AttemptId, bool)> {
    sent_to(effects, to)
        .into_iter()
        .filter_map(|sent| match sent {
            Sent::Cancel(cancel) => Some((cancel.attempt, cancel.is_hard)),
            _ => None,
        })
        .collect()
}

#[test]
fn what_ready_lists_stays_and_what_it_does_not_goes_back() {
    let (mut sim, client, sent) = away(3);
    let list = vec![held(&sent[0], HeldState::Claimed), held(&sent[2], HeldState::Waiting)];
    let effects = sim.greet(12, 2, listing(list));
    let again = tasks(&effects);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].head.request_id.0, again[0].head.dispatch.0), (2, 2));
    for task in [sent[0], sent[2]] {
        let task = TaskSent { to: Conn(12), ..task };
        assert_eq!(results(&sim.done(&task)), [(client, task.head.request_id.0, Status::Ok)]);
    }
}

#[test]
fn a_minimal_worker_that_lists_nothing_runs_everything_again() {
    let (mut sim, _, _) = away(3);
    let again = tasks(&sim.greet(12, 2, listing(Vec::new())));
    let requests: Vec<_> = again.iter().map(|task| task.head.request_id.0).collect();
    assert_eq!(requests, [1, 2, 3]);
    assert!(again.iter().all(|task| task.head.dispatch.0 == 2 && task.head.tries == 0));
}

#[test]
fn a_list_in_parts_is_judged_after_its_last_part() {
    let (mut sim, _, sent) = away(3);
    let part = |number, task| Greeting {
        parts: 2,
        part: number,
        ..listing(vec![held(task, HeldState::Claimed)])
    };
    assert!(tasks(&sim.greet(12, 2, part(0, &sent[0]))).is_empty());
    assert_eq!(sim.broker.ledger().requeued, 0);
    let again = tasks(&sim.ready(Conn(12), part(1, &sent[1])));
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].head.request_id.0, 3);
}

#[test]
fn a_list_that_broke_off_counts_for_nothing_in_the_next_session() {
    let (mut sim, _, sent) = away(1);
    let part = Greeting { parts: 2, ..listing(vec![held(&sent[0], HeldState::Claimed)]) };
    sim.greet(12, 2, part);
    sim.gone(Conn(12));
    let again = tasks(&sim.greet(13, 2, listing(Vec::new())));
    assert_eq!(again.len(), 1, "the second list does not have it");
}

#[test]
fn an_attempt_that_ends_between_two_parts_has_ended() {
    let (mut sim, client, sent) = away(1);
    let part = |part| Greeting { parts: 2, part, ..listing(Vec::new()) };
    let first = Greeting { held: vec![held(&sent[0], HeldState::Ended)], ..part(0) };
    sim.greet(12, 2, first);
    let task = TaskSent { to: Conn(12), ..sent[0] };
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
    sim.ready(Conn(12), part(1));
    sim.ack(client, 1);
    sim.assert_empty();
}

#[test]
fn parts_out_of_order_are_refused_and_lose_nothing() {
    for (part, parts) in [(1, 2), (0, 0), (5, 2)] {
        let (mut sim, _, _) = away(1);
        let effects = sim.greet(12, 2, Greeting { part, parts, ..listing(Vec::new()) });
        assert!(
            sent_to(&effects, Conn(12))
                .iter()
                .any(|sent| matches!(sent, Sent::Refused(RefusedCode::Malformed, _)))
        );
        assert_eq!(sim.broker.counts().in_flight, 1);
        assert_eq!(tasks(&sim.greet(13, 2, listing(Vec::new()))).len(), 1);
    }
}

#[test]
fn a_second_ready_in_one_session_is_refused() {
    let mut sim = Sim::new();
    let worker = sim.worker(2, &["work"]);
    let effects = sim.ready(worker, Greeting::default());
    assert!(effects.contains(&Effect::Close(worker)));
}

#[test]
fn a_worker_between_hello_and_the_last_part_is_sent_nothing() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, Greeting { parts: 2, ..Greeting::default() });
    assert!(tasks(&sim.submit(client, 1)).is_empty());
    let last = Greeting { parts: 2, part: 1, ..Greeting::default() };
    assert_eq!(tasks(&sim.ready(Conn(2), last)).len(), 1);
}

#[test]
fn a_superseded_attempt_is_cancelled_hard() {
    let (mut sim, _, sent) = away(1);
    sim.hello(12, Role::Worker, 2);
    sim.goodbye(Conn(12));
    let again = tasks(&sim.greet(9, 9, Greeting::default()))[0];
    assert_eq!(again.head.dispatch.0, 2);
    let effects = sim.greet(13, 2, listing(vec![held(&sent[0], HeldState::Claimed)]));
    assert_eq!(cancels(&effects, Conn(13)), [(attempt(&sent[0]), true)]);
    assert_eq!(sim.broker.counts().in_flight, 1);
}

#[test]
fn a_superseded_attempt_on_a_host_is_cancelled_through_its_supervisor() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(5, 5, &[(0, 1)]);
    let worker = sim.supervised(2, 5, 0);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(worker);
    sim.greet(12, 2, Greeting { host: Some(5), ..Greeting::default() });
    sim.gone(Conn(12));
    let list = vec![held(&task, HeldState::Claimed)];
    let effects = sim.greet(13, 2, Greeting { host: Some(5), ..listing(list) });
    assert_eq!(cancels(&effects, supervisor), [(attempt(&task), true)]);
}

#[test]
fn an_ended_attempt_that_is_unknown_is_left_to_its_end() {
    let (mut sim, client, sent) = away(1);
    sim.greet(12, 2, listing(Vec::new()));
    let list = vec![held(&sent[0], HeldState::Ended)];
    let effects = sim.greet(13, 2, listing(list));
    assert!(cancels(&effects, Conn(13)).is_empty());
    let stale = TaskSent { to: Conn(13), ..sent[0] };
    assert!(results(&sim.done(&stale)).is_empty());
    let effects = sim.event(Event::BatchEnd(Conn(13)));
    assert_eq!(sent_to(&effects, Conn(13)), [Sent::Ack(1)]);
    assert!(results(&sim.ack(client, 1)).is_empty());
}

#[test]
fn a_requeued_attempt_that_its_worker_still_lists_is_not_run_twice() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.give_back(&task);
    sim.gone(worker);
    let effects = sim.greet(12, 2, listing(vec![held(&task, HeldState::Claimed)]));
    assert!(tasks(&effects).is_empty());
    let task = TaskSent { to: Conn(12), ..task };
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
}

#[test]
fn a_dead_worker_that_lists_its_tasks_does_not_get_them_back() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(5, 5, &[(0, 1)]);
    let worker = sim.supervised(2, 5, 0);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(worker);
    sim.hello(12, Role::Worker, 2);
    sim.lost(supervisor, LossKind::Signalled, None, &[&task]);
    let list = vec![held(&task, HeldState::Claimed)];
    sim.ready(Conn(12), Greeting { host: Some(5), ..listing(list) });
    assert_eq!((sim.broker.counts().in_flight, sim.broker.counts().pending), (0, 1));
    assert_eq!(tasks(&sim.greet(9, 9, Greeting::default())).len(), 1);
}

#[test]
fn a_list_may_name_more_than_the_window_holds() {
    let (mut sim, client, sent) = away(4);
    let list = sent.iter().map(|task| held(task, HeldState::Waiting)).collect();
    let effects = sim.greet(12, 2, Greeting { window_tasks: 2, ..listing(list) });
    assert!(tasks(&effects).is_empty());
    assert_eq!(sim.broker.counts().in_flight, 4);
    assert!(tasks(&sim.submit(client, 9)).is_empty());
    for task in &sent[..2] {
        assert!(tasks(&sim.done(&TaskSent { to: Conn(12), ..*task })).is_empty());
    }
    assert_eq!(tasks(&sim.done(&TaskSent { to: Conn(12), ..sent[2] })).len(), 1);
}

#[test]
fn a_worker_may_come_back_with_other_services() {
    let (mut sim, client, _) = away(1);
    sim.greet(12, 2, Greeting { services: vec!["other"], ..Greeting::default() });
    assert_eq!(sim.broker.counts().pending, 1);
    let other = Ask { request: 2, service: "other".into(), ..Ask::default() };
    assert_eq!(tasks(&sim.ask(client, other)).len(), 1);
}
