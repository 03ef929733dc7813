//! PROGRESS, from a running attempt to its client: what is told, in which order, and what is bounded.

use pinmesh_core::{Conn, CoreConfig, Event, ProgressEvent, Span};
use pinmesh_protocol::id::{AttemptId, Dispatch, TaskId};
use pinmesh_protocol::limits::STREAM_BYTES_MAX;
use pinmesh_protocol::status::{
    EndStatus, HeldState, LossKind, ProgressKind, RefusedCode, Role, Status,
};

use crate::support::{
    Ask, Effect, Greeting, Sent, Sim, TaskSent, TestBody, attempt, held, results, sent_to, tasks,
};

const LATEST: ProgressKind = ProgressKind::Latest;
const STREAM: ProgressKind = ProgressKind::Stream;

/// A client, a worker without a supervisor, and a task in flight there.
fn running() -> (Sim, Conn, TaskSent) {
    running_with(CoreConfig::default())
}

fn running_with(config: CoreConfig) -> (Sim, Conn, TaskSent) {
    let mut sim = Sim::with(config);
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    (sim, client, task)
}

fn say_as(
    sim: &mut Sim,
    conn: Conn,
    attempt: AttemptId,
    (kind, sequence, bytes): (ProgressKind, u64, u64),
) -> Vec<Effect> {
    let body = TestBody { tag: sequence, bytes };
    sim.event(Event::Progress(conn, ProgressEvent { attempt, sequence, kind, body }))
}

/// The attempt says something of 10 bytes.
fn say(sim: &mut Sim, task: &TaskSent, kind: ProgressKind, sequence: u64) -> Vec<Effect> {
    say_as(sim, task.to, attempt(task), (kind, sequence, 10))
}

/// Each PROGRESS to that client: dispatch and number.
fn updates(effects: &[Effect], client: Conn) -> Vec<(u32, u64)> {
    let told = effects.iter().filter_map(|effect| match effect {
        Effect::Progress { to, head, .. } if *to == client => {
            Some((head.dispatch.0, head.sequence))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn both_kinds_go_to_the_client_at_once_and_only_stream_is_acknowledged() {
    let (mut sim, client, task) = running();
    assert_eq!(updates(&say(&mut sim, &task, LATEST, 1), client), [(1, 1)]);
    assert!(sim.event(Event::BatchEnd(task.to)).is_empty(), "no end");
    let effects = say(&mut sim, &task, STREAM, 2);
    let [Effect::Progress { head, body, .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!((head.request_id.0, head.submission.0, head.kind), (1, 1, STREAM));
    assert_eq!(body, TestBody { tag: 2, bytes: 10 });
    let effects = sim.event(Event::BatchEnd(task.to));
    assert_eq!(sent_to(&effects, task.to), [Sent::Ack(1)]);
    sim.done(&task);
    sim.ack(client, 2);
    sim.assert_empty();
}

#[test]
fn only_the_open_attempt_is_heard_and_each_number_once() {
    let (mut sim, client, task) = running();
    let stranger = sim.worker(3, &["other"]);
    let (its, other) = (attempt(&task), AttemptId { task: TaskId(99), ..attempt(&task) });
    let late = AttemptId { dispatch: Dispatch(2), ..its };
    for (conn, attempt) in [(stranger, its), (task.to, other), (task.to, late)] {
        assert!(say_as(&mut sim, conn, attempt, (STREAM, 1, 10)).is_empty());
    }
    assert_eq!(updates(&say(&mut sim, &task, STREAM, 5), client), [(1, 5)]);
    for sequence in [5, 4] {
        assert!(say(&mut sim, &task, STREAM, sequence).is_empty(), "taken before");
    }
    sim.done(&task);
    assert!(say(&mut sim, &task, STREAM, 6).is_empty(), "it has ended");
    let ledger = sim.broker.ledger();
    assert_eq!((ledger.updates, ledger.stale_updates), (1, 6));
    let effects = sim.event(Event::BatchEnd(task.to));
    assert_eq!(sent_to(&effects, task.to), [Sent::Ack(7)], "and all are acknowledged");
}

#[test]
fn a_repeated_attempt_counts_from_one_and_is_told_apart() {
    let (mut sim, client, task) = running();
    say(&mut sim, &task, STREAM, 1);
    say(&mut sim, &task, STREAM, 2);
    let again = tasks(&sim.give_back(&task));
    assert!(again.is_empty(), "its worker is parked");
    let again = tasks(&sim.worker_effects(4, &["work"]))[0];
    assert_eq!(updates(&say(&mut sim, &again, STREAM, 1), client), [(2, 1)]);
    assert!(say(&mut sim, &task, STREAM, 3).is_empty());
}

#[test]
fn what_was_not_acknowledged_is_told_again_in_order_before_the_result() {
    let (mut sim, client, task) = running();
    (1..=3).for_each(|sequence| drop(say(&mut sim, &task, STREAM, sequence)));
    sim.ack(client, 1);
    sim.done(&task);
    sim.gone(client);
    let effects = sim.hello(9, Role::Client, 1);
    assert_eq!(updates(&effects, Conn(9)), [(1, 2), (1, 3)]);
    let last = |effect: &Effect| matches!(effect, Effect::Progress { .. });
    assert!(effects.iter().rposition(last) < effects.iter().position(is_result));
    sim.ack(Conn(9), 3);
    sim.assert_empty();
}

fn is_result(effect: &Effect) -> bool {
    matches!(effect, Effect::Result { .. })
}

#[test]
fn of_latest_only_the_newest_waits_for_a_client_that_is_full() {
    let (mut sim, client, task) = running();
    sim.event(Event::Full(client));
    let before = sim.broker.counts().bytes;
    for sequence in 1..=100 {
        assert!(say(&mut sim, &task, LATEST, sequence).is_empty());
    }
    assert!(sim.broker.counts().bytes - before < 200, "one is kept");
    assert_eq!(updates(&sim.event(Event::Sendable(client)), client), [(1, 100)]);
    assert_eq!(sim.broker.counts().bytes, before);
}

#[test]
fn latest_does_not_overtake_stream_and_is_dropped_for_the_result() {
    let config = CoreConfig { results_ahead_bytes: 200, ..CoreConfig::default() };
    let (mut sim, client, task) = running_with(config);
    assert_eq!(updates(&say(&mut sim, &task, STREAM, 1), client), [(1, 1)]);
    assert!(say(&mut sim, &task, STREAM, 2).is_empty(), "too far ahead of the ACKs");
    assert!(say(&mut sim, &task, LATEST, 3).is_empty(), "behind it");
    assert_eq!(updates(&sim.ack(client, 1), client), [(1, 2), (1, 3)]);
    assert!(say(&mut sim, &task, STREAM, 4).is_empty());
    say(&mut sim, &task, LATEST, 5);
    sim.done(&task);
    let effects = sim.ack(client, 2);
    assert_eq!(updates(&effects, client), [(1, 4)]);
    assert_eq!(results(&effects), [(client, 1, Status::Ok)]);
    sim.ack(client, 4);
    sim.assert_empty();
}

#[test]
fn a_worker_is_held_up_past_the_clients_budget_and_goes_on_when_that_has_taken_some() {
    let config = CoreConfig { stream_bytes_max: 1_000, ..CoreConfig::default() };
    let (mut sim, client, task) = running_with(config);
    for sequence in 1..=8 {
        say(&mut sim, &task, STREAM, sequence);
    }
    // 8 x 138 bytes: the eighth is too much.
    let effects = sim.event(Event::BatchEnd(task.to));
    assert_eq!(sent_to(&effects, task.to), [Sent::Ack(7)]);
    say(&mut sim, &task, STREAM, 9);
    assert!(sim.event(Event::BatchEnd(task.to)).is_empty());
    assert!(tasks(&sim.submit(client, 2)).is_empty(), "it could not start it");
    assert!(sent_to(&sim.ack(client, 1), task.to).is_empty(), "8 are left");
    let effects = sim.ack(client, 2);
    assert_eq!(sent_to(&effects, task.to), [Sent::Ack(9)]);
    assert_eq!(tasks(&effects).len(), 1, "and it gets tasks again");
    assert_eq!(sim.broker.ledger().held_up, 1);
}

#[test]
fn updates_of_all_clients_together_have_a_budget() {
    let config = CoreConfig { memory_bytes_max: 4_000, ..CoreConfig::default() };
    let mut sim = Sim::with(config);
    let clients = [sim.client(1), sim.client(2)];
    let workers = [sim.worker(3, &["work"]), sim.worker(4, &["work"])];
    let sent = clients.map(|client| tasks(&sim.submit(client, 1))[0]);
    for task in &sent {
        say_as(&mut sim, task.to, attempt(task), (STREAM, 1, 1_900));
    }
    let held = |sim: &mut Sim, conn| sim.event(Event::BatchEnd(conn)).is_empty();
    let worker_of = |at: usize| sent[at].to;
    assert!(!held(&mut sim, worker_of(0)) && held(&mut sim, worker_of(1)));
    let effects = sim.ack(clients[0], 1);
    assert_eq!(sent_to(&effects, worker_of(1)), [Sent::Ack(1)]);
    assert!(workers.contains(&worker_of(1)));
}

#[test]
fn a_lost_client_lets_the_worker_go_when_it_is_dropped() {
    let config = CoreConfig { stream_bytes_max: 100, ..CoreConfig::default() };
    let (mut sim, client, task) = running_with(config);
    say(&mut sim, &task, STREAM, 1);
    assert!(sim.event(Event::BatchEnd(task.to)).is_empty());
    sim.gone(client);
    let effects = sim.pass(Span::from_secs(61));
    assert_eq!(sent_to(&effects, task.to), [Sent::Ack(1)]);
    assert!(say(&mut sim, &task, STREAM, 2).is_empty());
    sim.done(&task);
    sim.assert_empty();
}

#[test]
fn a_worker_that_comes_back_is_held_up_at_what_it_sends_again() {
    let config = CoreConfig { stream_bytes_max: 100, ..CoreConfig::default() };
    let (mut sim, client, task) = running_with(config);
    say(&mut sim, &task, STREAM, 1);
    let list = vec![held(&task, HeldState::Claimed)];
    sim.greet(7, 2, Greeting { held: list, ..Greeting::default() });
    let again = TaskSent { to: Conn(7), ..task };
    assert!(say(&mut sim, &again, STREAM, 1).is_empty(), "known");
    assert!(sim.event(Event::BatchEnd(Conn(7))).is_empty(), "and still too much");
    assert_eq!(sent_to(&sim.ack(client, 1), Conn(7)), [Sent::Ack(1)]);
}

#[test]
fn a_worker_that_goes_on_although_it_is_held_up_is_refused() {
    let config = CoreConfig { stream_bytes_max: 100, ..CoreConfig::default() };
    let (mut sim, _, task) = running_with(config);
    let most = STREAM_BYTES_MAX + sim.config.payload_bytes_max;
    let bytes = sim.config.payload_bytes_max;
    let mut sent = 0;
    for sequence in 1.. {
        let effects = say_as(&mut sim, task.to, attempt(&task), (STREAM, sequence, bytes));
        if let [Sent::Refused(code, _)] = &sent_to(&effects, task.to)[..] {
            assert_eq!(*code, RefusedCode::Window);
            assert!(sent > most, "not before");
            break;
        }
        assert!(sent <= most + 2 * bytes, "never refused");
        sent += bytes;
    }
}

#[test]
fn an_update_longer_than_a_payload_may_be_is_refused() {
    let (mut sim, _, task) = running();
    let bytes = sim.config.payload_bytes_max + 1;
    let effects = say_as(&mut sim, task.to, attempt(&task), (LATEST, 1, bytes));
    let [Sent::Refused(code, _)] = &sent_to(&effects, task.to)[..] else { panic!("{effects:?}") };
    assert_eq!(*code, RefusedCode::TooLarge);
}

#[test]
fn progress_is_for_workers() {
    let (mut sim, client, task) = running();
    let effects = say_as(&mut sim, client, attempt(&task), (LATEST, 1, 1));
    assert!(matches!(sent_to(&effects, client)[..], [Sent::Refused(RefusedCode::NotAllowed, _)]));
}

#[test]
fn a_crash_keeps_what_the_attempt_has_said() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    sim.supervised(3, 2, 0);
    let task = tasks(&sim.ask(client, Ask::default()))[0];
    sim.event(Event::Full(client));
    say(&mut sim, &task, STREAM, 1);
    say(&mut sim, &task, LATEST, 2);
    sim.lost(supervisor, LossKind::Signalled, Some(&task), &[]);
    let effects = sim.event(Event::Sendable(client));
    assert_eq!(updates(&effects, client), [(1, 1), (1, 2)]);
}

#[test]
fn an_end_by_the_handler_says_more_than_what_waits() {
    let (mut sim, client, task) = running();
    sim.event(Event::Full(client));
    say(&mut sim, &task, LATEST, 1);
    sim.done_by(task.to, &task, EndStatus::FailedFinal);
    let effects = sim.event(Event::Sendable(client));
    assert!(updates(&effects, client).is_empty());
    assert_eq!(results(&effects), [(client, 1, Status::Failed)]);
}
