//! Idempotency keys: one task for all requests with the same one, and its outcome for later ones.

use pinmesh_core::{Conn, CoreConfig, Event, Span};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::{Fetch, Fetched};
use pinmesh_protocol::id::{RequestId, Submission};
use pinmesh_protocol::status::{EndStatus, FetchState, Role, Status};

use crate::support::{
    Ask, Effect, Greeting, SECOND, SLACK, Said, Sent, Sim, hello, results, sent_to, side_of, tasks,
};

const MINUTE: Span = Span(60 * SECOND.0);

fn keyed(key: &str) -> TaskOptions {
    TaskOptions { key: Some(key.as_bytes().into()), ..TaskOptions::default() }
}

fn ask(request: u64, options: TaskOptions) -> Ask {
    Ask { request, options: Ok(options), ..Ask::default() }
}

/// Two clients and a worker.
fn served() -> (Sim, Conn, Conn) {
    served_with(CoreConfig::default())
}

fn served_with(config: CoreConfig) -> (Sim, Conn, Conn) {
    let mut sim = Sim::with(config);
    let (first, second) = (sim.client(1), sim.client(2));
    sim.worker(9, &["work"]);
    (sim, first, second)
}

/// Two clients and nobody to serve them.
fn unserved() -> (Sim, Conn, Conn) {
    let service_wait = Span(60 * MINUTE.0);
    let mut sim = Sim::with(CoreConfig { service_wait, ..CoreConfig::default() });
    let (first, second) = (sim.client(1), sim.client(2));
    (sim, first, second)
}

fn fetch(sim: &mut Sim, conn: Conn, request: u64, waits: bool) -> Vec<Effect> {
    let (request_id, submission) = (RequestId(request), Submission(1));
    sim.event(Event::Fetch(conn, Fetch { request_id, submission, key: b"k", waits }))
}

fn fetched(request: u64, state: FetchState) -> Sent {
    let (request_id, submission) = (RequestId(request), Submission(1));
    Sent::Fetched(Fetched { request_id, submission, state })
}

fn said(effects: &[Effect]) -> Vec<Said> {
    let said = effects.iter().filter_map(|effect| match effect {
        Effect::Result { body, .. } => Some(body.clone()),
        _ => None,
    });
    said.collect()
}

#[test]
fn requests_with_the_same_key_are_one_task_and_get_its_outcome() {
    let (mut sim, first, second) = served();
    let task = tasks(&sim.ask(first, ask(1, keyed("k"))))[0];
    assert!(tasks(&sim.ask(second, ask(5, keyed("k")))).is_empty());
    let effects = sim.done(&task);
    assert_eq!(results(&effects), [(first, 1, Status::Ok), (second, 5, Status::Ok)]);
    let said = said(&effects);
    assert_eq!(said[0], said[1]);
    let ledger = sim.broker.ledger();
    assert_eq!((ledger.accepted, ledger.joined, ledger.ok), (1, 1, 1));
}

#[test]
fn different_keys_are_different_tasks() {
    let (mut sim, first, second) = served();
    assert_eq!(tasks(&sim.ask(first, ask(1, keyed("k")))).len(), 1);
    assert_eq!(tasks(&sim.ask(second, ask(1, keyed("l")))).len(), 1);
}

#[test]
fn within_the_window_the_outcome_comes_at_once_and_after_it_a_new_task_runs() {
    let (mut sim, first, second) = served();
    let task = tasks(&sim.ask(first, ask(1, keyed("k"))))[0];
    sim.done(&task);
    sim.ack(first, 1);
    sim.pass(Span(9 * MINUTE.0));
    let effects = sim.ask(second, ask(1, keyed("k")));
    assert_eq!(results(&effects), [(second, 1, Status::Ok)]);
    assert!(tasks(&effects).is_empty());
    sim.ack(second, 1);
    sim.pass(Span(MINUTE.0 + SLACK.0));
    sim.assert_empty();
    assert_eq!(tasks(&sim.ask(second, ask(2, keyed("k")))).len(), 1);
}

#[test]
fn retention_says_how_long_the_outcome_is_kept_and_a_longer_one_than_allowed_is_refused() {
    let (mut sim, first, second) = served();
    let brief = TaskOptions { retention_ns: Some(SECOND.0), ..keyed("k") };
    let task = tasks(&sim.ask(first, ask(1, brief)))[0];
    sim.done(&task);
    sim.ack(first, 1);
    sim.pass(Span(SECOND.0 + SLACK.0));
    sim.assert_empty();
    let long = TaskOptions { retention_ns: Some(25 * 60 * MINUTE.0), ..keyed("k") };
    assert_eq!(results(&sim.ask(second, ask(1, long))), [(second, 1, Status::Refused)]);
}

#[test]
fn a_failure_is_an_outcome_of_the_key_and_a_cancellation_is_none() {
    let (mut sim, first, second) = served();
    let task = tasks(&sim.ask(first, ask(1, keyed("k"))))[0];
    sim.done_by(task.to, &task, EndStatus::FailedFinal);
    let effects = sim.ask(second, ask(1, keyed("k")));
    assert_eq!(results(&effects), [(second, 1, Status::Failed)]);
    let (mut sim, first, second) = unserved();
    sim.ask(first, ask(1, keyed("k")));
    assert_eq!(results(&sim.cancel(first, 1, 1)), [(first, 1, Status::Cancelled)]);
    sim.ack(first, 1);
    sim.assert_empty();
    assert!(results(&sim.ask(second, ask(1, keyed("k")))).is_empty(), "a new task");
    assert_eq!(sim.broker.ledger().accepted, 2);
}

#[test]
fn each_request_is_cancelled_by_itself_and_the_task_with_the_last_of_them() {
    let (mut sim, first, second) = unserved();
    sim.ask(first, ask(1, keyed("k")));
    sim.ask(second, ask(1, keyed("k")));
    assert_eq!(results(&sim.cancel(first, 1, 1)), [(first, 1, Status::Cancelled)]);
    assert_eq!(sim.broker.counts().pending, 1, "the other one waits for it");
    sim.cancel(second, 1, 1);
    assert_eq!(sim.broker.counts().pending, 0);
    assert_eq!(sim.broker.ledger().cancelled, 1);
}

#[test]
fn a_key_whose_task_is_being_cancelled_is_busy() {
    let (mut sim, first, second) = served();
    let task = tasks(&sim.ask(first, ask(1, keyed("k"))))[0];
    let effects = sim.cancel(first, 1, 1);
    assert!(matches!(&sent_to(&effects, task.to)[..], [Sent::Cancel(_)]), "{effects:?}");
    assert_eq!(results(&sim.ask(second, ask(1, keyed("k")))), [(second, 1, Status::Busy)]);
    sim.done_by(task.to, &task, EndStatus::Cancelled);
    assert_eq!(tasks(&sim.ask(second, ask(2, keyed("k")))).len(), 1);
}

#[test]
fn a_key_belongs_to_one_service() {
    let (mut sim, first, second) = served();
    sim.ask(first, ask(1, keyed("k")));
    let effects = sim.ask(second, Ask { service: "other".into(), ..ask(1, keyed("k")) });
    assert_eq!(results(&effects), [(second, 1, Status::Refused)]);
    let text = Said::Text("options: a task of another service has this key".into());
    assert_eq!(said(&effects), [text]);
}

#[test]
fn detached_and_retention_without_a_key_are_refused() {
    let (mut sim, first, _) = served();
    let detached = TaskOptions { detached: true, ..TaskOptions::default() };
    let kept = TaskOptions { retention_ns: Some(1), ..TaskOptions::default() };
    for (request, options) in [(1, detached), (2, kept)] {
        let effects = sim.ask(first, ask(request, options));
        assert_eq!(results(&effects), [(first, request, Status::Refused)]);
    }
}

#[test]
fn a_detached_task_is_accepted_outlives_its_client_and_is_fetched_by_another() {
    let (mut sim, first, second) = unserved();
    let options = TaskOptions { detached: true, ..keyed("k") };
    let effects = sim.ask(first, ask(1, options));
    let [Sent::Accepted(accepted)] = sent_to(&effects, first)[..] else { panic!("{effects:?}") };
    sim.gone(first);
    sim.pass(Span(61 * SECOND.0));
    assert_eq!(sim.broker.counts().clients, 1, "the first is gone for good");
    let effects = sim.worker_effects(9, &["work"]);
    let task = tasks(&effects)[0];
    assert_eq!((task.head.task, task.head.client_id.0[0]), (accepted.task, 1));
    let effects = fetch(&mut sim, second, 7, false);
    assert_eq!(sent_to(&effects, second), [fetched(7, FetchState::Pending)]);
    sim.done(&task);
    let effects = fetch(&mut sim, second, 8, false);
    assert_eq!(results(&effects), [(second, 8, Status::Ok)]);
    sim.ack(second, 1);
    // An hour, and not the ten minutes of a key that is not detached.
    sim.pass(Span(59 * MINUTE.0));
    assert_eq!(results(&fetch(&mut sim, second, 9, false)).len(), 1);
    sim.ack(second, 2);
    sim.pass(Span(MINUTE.0 + SLACK.0));
    let effects = fetch(&mut sim, second, 10, false);
    assert_eq!(sent_to(&effects, second), [fetched(10, FetchState::Unknown)]);
    sim.assert_empty();
}

#[test]
fn a_fetch_that_waits_is_told_when_the_task_ends_and_cancels_nothing() {
    let (mut sim, first, second) = served();
    let task = tasks(&sim.ask(first, ask(1, keyed("k"))))[0];
    assert!(fetch(&mut sim, second, 7, true).is_empty());
    // Again, as in a new session: it is one request still.
    assert!(fetch(&mut sim, second, 7, true).is_empty());
    assert_eq!(results(&sim.done(&task)), [(first, 1, Status::Ok), (second, 7, Status::Ok)]);
    let (mut sim, first, second) = unserved();
    sim.ask(first, ask(1, keyed("k")));
    fetch(&mut sim, second, 7, true);
    assert_eq!(results(&sim.cancel(second, 7, 1)), [(second, 7, Status::Cancelled)]);
    assert_eq!(sim.broker.counts().pending, 1);
}

#[test]
fn a_fetch_past_the_window_is_busy() {
    let (mut sim, first, second) =
        served_with(CoreConfig { client_window_tasks: 1, ..CoreConfig::default() });
    sim.ask(first, ask(1, keyed("k")));
    sim.ask(second, ask(1, keyed("l")));
    assert_eq!(results(&fetch(&mut sim, second, 2, true)), [(second, 2, Status::Busy)]);
}

#[test]
fn what_waits_goes_with_its_client_unless_it_is_to_run_on() {
    for run_on in [false, true] {
        let (mut sim, first, _) = unserved();
        let options = TaskOptions { run_on, ..TaskOptions::default() };
        sim.ask(first, ask(1, options.clone()));
        sim.ask(first, ask(2, TaskOptions { key: Some((*b"k").into()), ..options }));
        sim.gone(first);
        sim.pass(Span(61 * SECOND.0));
        let sent = tasks(&sim.worker_effects(9, &["work"]));
        assert_eq!(sent.len(), if run_on { 2 } else { 0 });
        for task in &sent {
            assert_eq!(task.head.client_id.0, [1; 16], "its worker is told who asked for it");
            assert!(results(&sim.done(task)).is_empty());
        }
        sim.pass(Span(11 * MINUTE.0));
        sim.assert_empty();
    }
}

#[test]
fn a_task_that_runs_on_is_tried_again_without_its_client() {
    let (mut sim, first, _) = unserved();
    let options = TaskOptions { run_on: true, ..TaskOptions::default() };
    sim.ask(first, ask(1, options));
    sim.gone(first);
    sim.pass(Span(61 * SECOND.0));
    let task = tasks(&sim.worker_effects(9, &["work"]))[0];
    sim.done_by(task.to, &task, EndStatus::Failed);
    let again = tasks(&sim.pass(Span(2 * SECOND.0)))[0];
    sim.give_back(&again);
    let third = tasks(&sim.pass(Span(2 * SECOND.0)))[0];
    sim.done(&third);
    assert_eq!(sim.broker.ledger().ok, 1);
    sim.assert_empty();
}

#[test]
fn a_result_is_told_again_in_the_next_session_and_shared_until_all_have_it() {
    let (mut sim, first, second) = served_with(CoreConfig::default());
    let brief = TaskOptions { retention_ns: Some(SECOND.0), ..keyed("k") };
    let task = tasks(&sim.ask(first, ask(1, brief)))[0];
    sim.ask(second, ask(1, keyed("other")));
    sim.done(&task);
    sim.gone(first);
    sim.pass(Span(2 * SECOND.0));
    let effects = sim.hello_as(11, side_of(Role::Client), hello(Role::Client, 1));
    assert_eq!(results(&effects), [(Conn(11), 1, Status::Ok)]);
    assert!(matches!(said(&effects)[0], Said::Handler(_)));
    assert_eq!(sim.broker.counts().tasks, 4, "its window is over, and its outcome is held");
    sim.ack(Conn(11), 1);
    assert_eq!(sim.broker.counts().tasks, 2);
}

#[test]
fn a_full_table_of_keys_makes_new_ones_wait_and_known_ones_not() {
    let config = CoreConfig { keys_max: 1, ..CoreConfig::default() };
    let (mut sim, first, second) = served_with(config);
    sim.ask(first, ask(1, keyed("k")));
    assert_eq!(results(&sim.ask(second, ask(1, keyed("l")))), [(second, 1, Status::Busy)]);
    assert!(results(&sim.ask(second, ask(2, keyed("k")))).is_empty());
    let config = CoreConfig { keys_bytes_max: 300, ..CoreConfig::default() };
    let (mut sim, first, _) = served_with(config);
    for (request, key) in [(1, "k"), (2, "l"), (3, "m")] {
        let effects = sim.ask(first, ask(request, keyed(key)));
        assert_eq!(results(&effects).len(), usize::from(request == 3), "{effects:?}");
    }
}

#[test]
fn a_key_counts_what_it_is_made_of() {
    // 256 bytes, the key and the name of its service: docs/memory.md.
    for (keys_bytes_max, has_room) in [(256 + 1 + 4, false), (256 + 1 + 4 + 1, true)] {
        let (mut sim, first, _) =
            served_with(CoreConfig { keys_bytes_max, ..CoreConfig::default() });
        sim.ask(first, ask(1, keyed("k")));
        assert_eq!(results(&sim.ask(first, ask(2, keyed("l")))).is_empty(), has_room);
    }
}

#[test]
fn a_broker_that_drains_waits_for_none_of_the_outcomes_that_it_keeps() {
    let (mut sim, first, _) = served();
    for (request, key) in [(1, "k"), (2, "l"), (3, "m")] {
        let task = tasks(&sim.ask(first, ask(request, keyed(key))))[0];
        sim.done(&task);
        sim.ack(first, request);
    }
    sim.event(Event::Drain);
    assert_eq!((sim.broker.is_drained(), sim.broker.in_store()), (true, 3));
}

#[test]
fn a_broker_that_drains_lets_requests_join_and_does_not_wait_for_kept_outcomes() {
    let (mut sim, first, second) = served();
    let task = tasks(&sim.ask(first, ask(1, keyed("k"))))[0];
    sim.event(Event::Drain);
    assert!(results(&sim.ask(second, ask(1, keyed("k")))).is_empty());
    assert_eq!(results(&sim.ask(second, ask(2, keyed("l")))), [(second, 2, Status::Busy)]);
    sim.done(&task);
    sim.ack(first, 1);
    assert!(!sim.broker.is_drained());
    sim.ack(second, 2);
    assert!(sim.broker.is_drained());
    assert_eq!((sim.broker.counts().tasks, sim.broker.in_store()), (1, 1));
}

#[test]
fn an_attempt_of_an_earlier_life_is_taken_over_by_the_task_of_its_requests_key() {
    let (mut sim, first, second) = served();
    let task = tasks(&sim.ask(first, ask(1, keyed("k"))))[0];
    let mut held = crate::support::held(&task, pinmesh_protocol::status::HeldState::Waiting);
    held.attempt.epoch = pinmesh_protocol::id::Epoch(6);
    let (mut sim, ..) = unserved();
    sim.ask(second, ask(5, keyed("k")));
    sim.ask(first, ask(1, keyed("k")));
    let effects = sim.greet(9, 9, Greeting { held: vec![held], ..Greeting::default() });
    assert!(tasks(&effects).is_empty(), "it is with its worker already: {effects:?}");
    assert_eq!(sim.broker.ledger().adopted, 1);
}
