//! Dead letters that become tasks again.

use pinmesh_core::{
    AdminCommand, AdminReply, Conn, CoreConfig, DeadPage, DeathCause, Event, LetterId,
    ServiceLimits, Span,
};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::status::{EndStatus, Status};

use crate::dead::{ALL, fail, letters, once, served};
use crate::support::{Ask, Effect, SECOND, SLACK, Sim, TaskSent, peer, results, tasks};

fn replay(sim: &mut Sim, page: DeadPage<'_>) -> (u64, u64, Vec<Effect>) {
    match sim.administer(AdminCommand::Replay(page)) {
        (Ok(AdminReply::Replayed { count, busy, .. }), effects) => (count, busy, effects),
        (reply, _) => panic!("{reply:?}"),
    }
}

/// A broker with a letter, number 1, whose client has acknowledged its end.
fn with_letter(config: CoreConfig, ask: Ask) -> (Sim, Conn) {
    let (mut sim, client) = served(config);
    fail(&mut sim, client, ask);
    sim.ack(client, 1);
    assert_eq!(letters(&sim).len(), 1);
    (sim, client)
}

fn sent_again(sim: &mut Sim) -> TaskSent {
    let (count, busy, effects) = replay(sim, ALL);
    assert_eq!((count, busy), (1, 0));
    tasks(&effects)[0]
}

#[test]
fn a_replay_is_the_same_task_anew_and_nobody_is_told_of_its_end() {
    let options = TaskOptions { max_runtime_ns: Some(77), ..TaskOptions::default() };
    let deadline = Some(Span(100 * SECOND.0));
    let ask = Ask { request: 7, priority: 9, deadline, options: Ok(options), ..Ask::default() };
    let (mut sim, client) = with_letter(once(), ask);
    let task = sent_again(&mut sim);
    let head = task.head;
    assert_eq!((task.body.tag, task.body.bytes), (7, 10), "the payload itself");
    assert_eq!((head.client_id, head.request_id.0, head.submission.0), (peer(1), 7, 1));
    assert_eq!((head.tries, head.dispatch.0), (0, 1));
    assert_eq!((head.deadline_ns, head.max_runtime_ns), (None, 77));
    let view = sim.broker.tasks().next().expect("it runs");
    assert_eq!(sim.broker.explain(view.task).expect("it runs").priority.value(), 9);
    assert_eq!(view.client_id, None);
    let effects = sim.done(&task);
    assert!(results(&effects).is_empty(), "{effects:?}");
    let ledger = sim.broker.ledger();
    assert_eq!((ledger.accepted, ledger.replayed, ledger.ok, ledger.failed), (1, 1, 1, 1));
    assert_eq!((ledger.dead, ledger.dead_held, ledger.dead_dropped), (1, 0, 0));
    assert_eq!((sim.broker.counts().dead, sim.broker.counts().dead_bytes), (0, 0));
    sim.assert_empty();
    let _ = client;
}

#[test]
fn a_replay_that_dies_again_leaves_a_letter_that_names_the_first() {
    let (mut sim, client) = with_letter(once(), Ask::default());
    sim.gone(client);
    let task = sent_again(&mut sim);
    sim.pass(Span(61 * SECOND.0));
    sim.done_by(task.to, &task, EndStatus::Failed);
    let second = letters(&sim)[0].clone();
    assert_eq!((second.letter, second.replay_of), (LetterId(2), Some(LetterId(1))));
    assert_eq!((second.client.as_deref(), second.client_id), (Some("test@here"), peer(1)));
    assert_eq!((second.tries, second.bytes), (1, 10));
    let task = sent_again(&mut sim);
    sim.done_by(task.to, &task, EndStatus::Failed);
    assert_eq!(letters(&sim)[0].replay_of, Some(LetterId(2)));
}

#[test]
fn a_replay_is_tried_again_as_its_options_say() {
    let options = TaskOptions { tries_max: Some(2), ..TaskOptions::default() };
    let ask = Ask { options: Ok(options), ..Ask::default() };
    let (mut sim, client) = served(CoreConfig::default());
    fail(&mut sim, client, ask);
    let again = tasks(&sim.pass(Span(2 * SECOND.0)))[0];
    sim.done_by(again.to, &again, EndStatus::Failed);
    let task = sent_again(&mut sim);
    sim.done_by(task.to, &task, EndStatus::Failed);
    let again = tasks(&sim.pass(Span(2 * SECOND.0)))[0];
    assert_eq!((again.head.tries, letters(&sim).len()), (1, 0));
    sim.done_by(again.to, &again, EndStatus::Failed);
    assert_eq!((letters(&sim).len(), letters(&sim)[0].tries), (1, 2));
}

#[test]
fn a_replay_whose_worker_is_lost_goes_on() {
    let (mut sim, client) = with_letter(once(), Ask::default());
    sim.gone(client);
    let task = sent_again(&mut sim);
    let again = tasks(&sim.goodbye(task.to));
    assert!(again.is_empty() && sim.broker.counts().pending == 1);
    let again = tasks(&sim.worker_effects(9, &["work"]))[0];
    assert_eq!((again.head.dispatch.0, again.head.tries), (2, 0));
    sim.done(&again);
    assert_eq!(sim.broker.ledger().ok, 1);
    sim.pass(Span(61 * SECOND.0));
    sim.assert_empty();
}

#[test]
fn a_replay_that_nobody_serves_goes_back() {
    let (mut sim, _) = with_letter(once(), Ask::default());
    sim.goodbye(Conn(2));
    let (count, _, effects) = replay(&mut sim, ALL);
    assert!(count == 1 && tasks(&effects).is_empty());
    sim.pass(Span(30 * SECOND.0 + SLACK.0));
    let letter = letters(&sim)[0].clone();
    assert_eq!((letter.cause, letter.cause.status()), (DeathCause::NoService, Status::NoService));
    assert_eq!((letter.replay_of, letter.tries), (Some(LetterId(1)), 0));
    assert_eq!(sim.broker.ledger().no_service, 1);
    sim.assert_empty();
}

#[test]
fn a_replay_without_room_stays_a_letter_and_is_counted() {
    let limits = ServiceLimits { pending_max: 1, ..ServiceLimits::default() };
    let (mut sim, client) =
        with_letter(CoreConfig { service_limits: limits, ..once() }, Ask::default());
    sim.goodbye(Conn(2));
    sim.submit(client, 2);
    let (count, busy, effects) = replay(&mut sim, ALL);
    assert_eq!((count, busy, effects.len()), (0, 1, 0));
    assert_eq!((letters(&sim).len(), sim.broker.ledger().replay_busy), (1, 1));
    let bytes = CoreConfig { memory_bytes_max: 530, ..once() };
    let (mut sim, client) = with_letter(bytes, Ask::default());
    sim.submit(client, 2);
    assert_eq!(replay(&mut sim, ALL).1, 1, "no room in the broker's memory");
    let limits = ServiceLimits { bytes_max: 15, ..ServiceLimits::default() };
    let (mut sim, client) =
        with_letter(CoreConfig { service_limits: limits, ..once() }, Ask::default());
    sim.submit(client, 2);
    assert_eq!(replay(&mut sim, ALL).1, 1, "no room in the service");
    sim.event(Event::Drain);
    let (mut sim, _) = with_letter(once(), Ask::default());
    sim.event(Event::Drain);
    assert_eq!(replay(&mut sim, ALL).1, 1, "the broker leaves");
    assert!(sim.broker.is_drained(), "a letter keeps no broker");
}

#[test]
fn a_walk_replays_no_letter_twice() {
    let (mut sim, client) = served(once());
    for request in 1..=5 {
        fail(&mut sim, client, Ask { request, ..Ask::default() });
    }
    let (mut page, mut all) = (DeadPage { visits: 2, ..ALL }, 0);
    loop {
        let (reply, effects) = sim.administer(AdminCommand::Replay(page));
        let Ok(AdminReply::Replayed { count, upto, next, .. }) = reply else { panic!("{reply:?}") };
        all += count;
        for task in tasks(&effects) {
            sim.done_by(task.to, &task, EndStatus::Failed);
        }
        page.upto = Some(upto);
        match next {
            Some(next) => page.from = next,
            None => break,
        }
    }
    let numbers: Vec<_> = letters(&sim).iter().map(|view| view.letter.0).collect();
    assert_eq!((all, numbers), (5, vec![6, 7, 8, 9, 10]));
}

#[test]
fn an_operator_stops_a_replay_for_good() {
    let (mut sim, _) = with_letter(once(), Ask::default());
    sim.goodbye(Conn(2));
    replay(&mut sim, ALL);
    let task = sim.broker.tasks().next().expect("it waits").task;
    let reply = sim.administer(AdminCommand::Cancel { task, is_hard: false }).0;
    assert_eq!(reply, Ok(AdminReply::Cancelled));
    assert!(letters(&sim).is_empty());
    sim.assert_empty();
}
