//! Dead letters: who leaves one, what is in it, and when it goes.

use pinmesh_core::{
    AdminCommand, AdminReply, Conn, CoreConfig, DeadPage, DeadReason, DeathCause, LetterId,
    LetterView, Span,
};
use pinmesh_protocol::id::ContentType;
use pinmesh_protocol::status::{EndStatus, LossKind, Status};

use crate::support::{
    Ask, Effect, Greeting, SECOND, SLACK, Sim, TaskSent, TestBody, at_most_once, peer, results,
    tasks,
};

/// What a letter counts beside its payload and its handler's words.
const OVERHEAD_BYTES: u64 = 1_024;

pub(crate) const ALL: DeadPage<'static> =
    DeadPage { service: None, reason: None, from: LetterId(0), upto: None, visits: 1_000 };

/// The first bad start is the last.
pub(crate) fn once() -> CoreConfig {
    CoreConfig { tries_max: 1, crashes_max: 1, ..CoreConfig::default() }
}

/// A broker with a client and a worker.
pub(crate) fn served(config: CoreConfig) -> (Sim, Conn) {
    let mut sim = Sim::with(config);
    let client = sim.client(1);
    sim.worker(2, &["work", "other"]);
    (sim, client)
}

pub(crate) fn letters(sim: &Sim) -> Vec<LetterView> {
    sim.broker.letters_page(ALL).0
}

fn numbers(sim: &Sim, page: DeadPage<'_>) -> Vec<u64> {
    sim.broker.letters_page(page).0.iter().map(|view| view.letter.0).collect()
}

pub(crate) fn fail(sim: &mut Sim, client: Conn, ask: Ask) -> Vec<Effect> {
    let task = tasks(&sim.ask(client, ask))[0];
    sim.done_by(task.to, &task, EndStatus::Failed)
}

fn failed(request: u64) -> Ask {
    Ask { request, ..Ask::default() }
}

/// A task on a supervised worker.
fn supervised(config: CoreConfig, ask: Ask) -> (Sim, Conn, TaskSent) {
    let mut sim = Sim::with(config);
    let client = sim.client(1);
    let supervisor = sim.supervisor(3, 3, &[(0, 1)]);
    sim.supervised(4, 3, 0);
    let task = tasks(&sim.ask(client, ask))[0];
    (sim, supervisor, task)
}

#[test]
fn a_task_that_failed_for_good_leaves_a_letter_that_says_all_of_it() {
    let mut sim = Sim::new();
    let client = sim.client_named(1, "ann@farm");
    sim.worker(2, &["work"]);
    let ask = Ask { request: 7, priority: 9, bytes: 500, ..Ask::default() };
    let mut task = tasks(&sim.ask(client, ask))[0];
    for _ in 0..2 {
        sim.done_by(task.to, &task, EndStatus::Failed);
        assert!(letters(&sim).is_empty(), "it is tried again");
        task = tasks(&sim.pass(Span(3 * SECOND.0)))[0];
    }
    sim.done_by(task.to, &task, EndStatus::Failed);
    sim.ack(client, 1);
    sim.pass(SECOND);
    let (view, body) = sim.broker.letter(LetterId(1)).expect("it failed");
    assert_eq!((view.service.as_str(), view.client.as_deref()), ("work", Some("ann@farm")));
    assert_eq!((view.client_id, view.request_id.0), (peer(1), 7));
    assert_eq!((view.priority.value(), view.tries, view.crashes), (9, 3, 0));
    assert_eq!((view.cause, view.cause.status()), (DeathCause::Failed, Status::Failed));
    assert_eq!((view.died, view.received), (SECOND, Span(7 * SECOND.0)));
    assert_eq!((view.bytes, view.replay_of), (500, None));
    assert_eq!((&view.error.bytes[..], view.error.of_bytes), (&[239; 7][..], 7));
    assert_eq!(*body, TestBody { tag: 7, bytes: 500 }, "the payload itself");
    assert_eq!(sim.broker.counts().dead_bytes, OVERHEAD_BYTES + 500 + TestBody::BESIDE_BYTES + 7);
    assert_eq!(letters(&sim), [view]);
    sim.assert_empty();
}

#[test]
fn only_an_exit_and_a_signal_have_a_number() {
    assert_eq!(DeathCause::Exited(3).detail(), Some(3));
    assert_eq!(DeathCause::Signalled(11).detail(), Some(11));
    let without = [DeathCause::Failed, DeathCause::MaxRuntime, DeathCause::OutOfMemory];
    assert!(without.iter().all(|cause| cause.detail().is_none()));
}

#[test]
fn a_death_is_told_by_its_cause() {
    for (loss, cause, words) in [
        (LossKind::Exited, DeathCause::Exited(9), "exited with code 9"),
        (LossKind::Signalled, DeathCause::Signalled(9), "killed by signal 9"),
        (LossKind::OutOfMemory, DeathCause::OutOfMemory, "for want of memory"),
        (LossKind::MaxRuntime, DeathCause::MaxRuntime, "longer than its max runtime"),
    ] {
        let (mut sim, supervisor, task) = supervised(once(), Ask::default());
        let effects = sim.lost(supervisor, loss, Some(&task), &[]);
        assert_eq!(results(&effects), [(Conn(1), 1, cause.status())]);
        let view = &letters(&sim)[0];
        let crashes = u32::from(cause != DeathCause::MaxRuntime);
        assert_eq!((view.cause, view.tries, view.crashes), (cause, 1, crashes));
        let said = String::from_utf8(view.error.bytes.to_vec()).expect("it is text");
        assert!(said.contains(words) && view.error.content_type == ContentType::TEXT, "{said}");
        assert_eq!(sim.broker.counts().dead_bytes, OVERHEAD_BYTES + 10 + TestBody::BESIDE_BYTES);
    }
    let (mut sim, client) = served(once());
    sim.submit(client, 1);
    sim.gone(Conn(2));
    sim.pass(Span(4_000 * SECOND.0));
    assert_eq!(letters(&sim)[0].cause, DeathCause::Silent);
}

#[test]
fn what_may_have_run_or_is_wanted_no_longer_leaves_none() {
    let lost = Ask { options: at_most_once(), ..Ask::default() };
    let (mut sim, supervisor, task) = supervised(once(), lost);
    let effects = sim.lost(supervisor, LossKind::Signalled, Some(&task), &[]);
    assert_eq!(results(&effects), [(Conn(1), 1, Status::Lost)]);
    assert!(letters(&sim).is_empty(), "it may have run to its end");
    let (mut sim, client) = served(once());
    let task = tasks(&sim.submit(client, 1))[0];
    sim.cancel(client, 1, 1);
    assert_eq!(results(&sim.done_by(task.to, &task, EndStatus::Failed)).len(), 1);
    let task = tasks(&sim.submit(client, 2))[0];
    sim.done(&task);
    sim.ask(client, Ask { request: 3, deadline: Some(SECOND), ..Ask::default() });
    sim.ask(client, Ask { request: 4, service: "nobody".into(), ..Ask::default() });
    sim.pass(Span(40 * SECOND.0));
    let ledger = sim.broker.ledger();
    assert_eq!((ledger.failed, ledger.ok, ledger.expired, ledger.no_service), (1, 1, 1, 1));
    assert!(letters(&sim).is_empty() && ledger.dead == 0, "{ledger:?}");
}

#[test]
fn an_at_most_once_task_that_failed_leaves_one() {
    let (mut sim, client) = served(CoreConfig::default());
    fail(&mut sim, client, Ask { options: at_most_once(), ..Ask::default() });
    assert_eq!(letters(&sim).len(), 1);
}

#[test]
fn one_whose_client_is_gone_leaves_one_without_its_name() {
    let (mut sim, client) = served(once());
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(client);
    sim.pass(Span(61 * SECOND.0));
    sim.done_by(task.to, &task, EndStatus::Failed);
    assert_eq!((letters(&sim)[0].client.clone(), letters(&sim)[0].client_id), (None, peer(1)));
    sim.assert_empty();
}

#[test]
fn the_last_words_of_a_handler_are_kept_up_to_a_length() {
    let (mut sim, client) = served(once());
    let task = tasks(&sim.submit(client, 1))[0];
    let body = TestBody { tag: 5, bytes: 10_000 };
    let done = pinmesh_core::DoneEvent {
        attempt: crate::support::attempt(&task),
        status: EndStatus::Failed,
        residence_ns: 1,
        service_ns: 1,
        body,
    };
    sim.event(pinmesh_core::Event::Done(task.to, done));
    let error = &letters(&sim)[0].error;
    assert_eq!((error.bytes.len(), error.of_bytes), (4_096, 10_000));
}

#[test]
fn past_so_many_letters_the_oldest_leaves() {
    let (mut sim, client) = served(CoreConfig { dead_letters_max: 3, ..once() });
    for request in 1..=5 {
        fail(&mut sim, client, failed(request));
    }
    assert_eq!(numbers(&sim, ALL), [3, 4, 5]);
    let ledger = sim.broker.ledger();
    assert_eq!((ledger.dead, ledger.dead_dropped, ledger.dead_held), (5, 2, 3));
}

#[test]
fn past_so_many_bytes_the_oldest_leave() {
    let each = OVERHEAD_BYTES + 10 + TestBody::BESIDE_BYTES + 7;
    let (mut sim, client) = served(CoreConfig { dead_bytes_max: 3 * each, ..once() });
    for request in 1..=3 {
        fail(&mut sim, client, failed(request));
    }
    assert_eq!(numbers(&sim, ALL), [1, 2, 3], "as much as fits");
    fail(&mut sim, client, Ask { bytes: 11, ..failed(4) });
    assert_eq!(numbers(&sim, ALL), [3, 4]);
    fail(&mut sim, client, Ask { bytes: 10 * each, ..failed(5) });
    assert_eq!(numbers(&sim, ALL), [3, 4], "what never fits throws nobody out");
    assert_eq!(sim.broker.ledger().dead_dropped, 3);
}

#[test]
fn a_letter_is_kept_for_its_time_and_no_longer() {
    let (mut sim, client) = served(CoreConfig { dead_kept: Span(100 * SECOND.0), ..once() });
    fail(&mut sim, client, failed(1));
    sim.pass(Span(30 * SECOND.0));
    fail(&mut sim, client, failed(2));
    sim.pass(Span(70 * SECOND.0 - SLACK.0));
    assert_eq!(numbers(&sim, ALL), [1, 2]);
    sim.pass(Span(2 * SLACK.0));
    assert_eq!(numbers(&sim, ALL), [2]);
    sim.pass(Span(30 * SECOND.0));
    assert!(letters(&sim).is_empty());
    assert_eq!(sim.broker.ledger().dead_dropped, 2);
    fail(&mut sim, client, failed(3));
    sim.pass(Span(101 * SECOND.0));
    assert!(letters(&sim).is_empty(), "the timer is set again");
}

#[test]
fn a_bound_of_no_letters_keeps_none() {
    let (mut sim, client) = served(CoreConfig { dead_letters_max: 0, ..once() });
    assert_eq!(results(&fail(&mut sim, client, failed(1))), [(client, 1, Status::Failed)]);
    assert!(letters(&sim).is_empty() && sim.broker.ledger().dead == 0);
}

/// Five letters: of `work` 1, 3 and 5, of `other` 2 and 4; 4 and 5 crashed.
fn five() -> Sim {
    let (mut sim, client) = served(once());
    for request in 1..=3 {
        let service = if request == 2 { "other" } else { "work" };
        fail(&mut sim, client, Ask { service: service.into(), ..failed(request) });
    }
    sim.goodbye(Conn(2));
    let supervisor = sim.supervisor(3, 3, &[(0, 1), (1, 1)]);
    for (slot, service, loss) in
        [(0, "other", LossKind::Exited), (1, "work", LossKind::OutOfMemory)]
    {
        let services = vec!["work", "other"];
        let greeting = Greeting { host: Some(3), slot, services, ..Greeting::default() };
        let number = 10 + slot as u8;
        sim.greet(number.into(), number, greeting);
        let ask = Ask { request: 4, service: service.into(), ..Ask::default() };
        let task = tasks(&sim.ask(client, Ask { request: 4 + u64::from(slot), ..ask }))[0];
        sim.event(pinmesh_core::Event::Lost(
            supervisor,
            pinmesh_protocol::command::Lost {
                slot: pinmesh_protocol::id::Slot(slot),
                incarnation: pinmesh_protocol::id::Incarnation(1),
                cause: loss,
                detail: 3,
                running: Some(crate::support::attempt(&task)),
                started: Vec::new(),
            },
        ));
    }
    sim
}

#[test]
fn letters_are_selected_by_service_and_reason() {
    let sim = five();
    let of = |service, reason| numbers(&sim, DeadPage { service, reason, ..ALL });
    assert_eq!(of(None, None), [1, 2, 3, 4, 5]);
    assert_eq!(of(Some("work"), None), [1, 3, 5]);
    assert_eq!(of(None, Some(DeadReason::Failed)), [1, 2, 3]);
    assert_eq!(of(None, Some(DeadReason::Crashed)), [4, 5]);
    assert_eq!(of(None, Some(DeadReason::Exited)), [4]);
    assert_eq!(of(None, Some(DeadReason::OutOfMemory)), [5]);
    assert_eq!(of(Some("work"), Some(DeadReason::Exited)), [0; 0]);
    assert_eq!(of(Some("nobody"), None), [0; 0]);
}

#[test]
fn a_walk_goes_page_by_page_in_the_order_of_the_numbers() {
    let sim = five();
    let mut page = DeadPage { service: Some("work"), visits: 2, ..ALL };
    let mut seen = Vec::new();
    loop {
        let (letters, next) = sim.broker.letters_page(page);
        seen.push(letters.iter().map(|view| view.letter.0).collect::<Vec<_>>());
        match next {
            Some(next) => page.from = next,
            None => break,
        }
    }
    assert_eq!(seen, [vec![1], vec![3], vec![5]]);
    assert_eq!(
        numbers(&sim, DeadPage { from: LetterId(2), upto: Some(LetterId(3)), ..ALL }),
        [2, 3]
    );
    assert_eq!(
        numbers(&sim, DeadPage { from: LetterId(4), upto: Some(LetterId(3)), ..ALL }),
        [0; 0]
    );
    assert_eq!(numbers(&sim, DeadPage::of(LetterId(4))), [4]);
}

#[test]
fn a_purge_throws_away_what_is_meant_and_no_more() {
    let mut sim = five();
    let page = DeadPage { service: Some("work"), visits: 2, ..ALL };
    let (reply, effects) = sim.administer(AdminCommand::PurgeDead(page));
    let (upto, next) = (LetterId(5), Some(LetterId(3)));
    assert_eq!(reply, Ok(AdminReply::DeadPurged { count: 1, upto, next }));
    assert!(effects.is_empty());
    let page = DeadPage { from: LetterId(3), upto: Some(upto), visits: 9, ..page };
    let reply = sim.administer(AdminCommand::PurgeDead(page)).0;
    assert_eq!(reply, Ok(AdminReply::DeadPurged { count: 2, upto, next: None }));
    assert_eq!(numbers(&sim, ALL), [2, 4]);
    assert_eq!((sim.broker.ledger().dead_purged, sim.broker.counts().dead), (3, 2));
    let nothing = AdminReply::DeadPurged { count: 0, upto: LetterId(1), next: None };
    let gone = DeadPage::of(LetterId(1));
    assert_eq!(sim.administer(AdminCommand::PurgeDead(gone)).0, Ok(nothing));
}

#[test]
fn letters_take_no_room_from_tasks() {
    let config = CoreConfig { memory_bytes_max: 4_000, ..once() };
    let (mut sim, client) = served(config);
    for request in 1..=20 {
        let effects = fail(&mut sim, client, failed(request));
        assert_eq!(results(&effects), [(client, request, Status::Failed)]);
        sim.ack(client, request);
    }
    assert_eq!(letters(&sim).len(), 20);
    assert_eq!(sim.broker.counts().bytes, 0);
}
