//! Peers that do not keep to the rules harm themselves only.

use pinmesh_core::{Conn, DoneEvent, Event, Span};
use pinmesh_protocol::command::{Heartbeat, ServiceAlias};
use pinmesh_protocol::id::{AttemptId, Dispatch, TaskId};
use pinmesh_protocol::status::{EndStatus, HeldState, LossKind, RefusedCode, Role, Status};

use crate::support::{
    Ask, EPOCH, Effect, Greeting, Sent, Sim, TestBody, held, peer, results, sent_to, tasks,
};

fn is_refused(effects: &[Effect], conn: Conn, code: RefusedCode) -> bool {
    let is_told = sent_to(effects, conn)
        .iter()
        .any(|sent| matches!(sent, Sent::Refused(found, _) if *found == code));
    is_told && effects.contains(&Effect::Close(conn))
}

#[test]
fn malformed_bytes_end_the_session_and_harm_nobody_else() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let other = sim.client(2);
    let worker = sim.worker(3, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    for conn in [client, worker] {
        let effects = sim.event(Event::Malformed(conn, RefusedCode::Malformed, "bad op"));
        assert!(is_refused(&effects, conn, RefusedCode::Malformed));
        assert_eq!(effects.len(), 2, "{effects:?}");
    }
    assert_eq!(sent_to(&sim.submit(client, 2), client), [Sent::NoSession]);
    assert_eq!(sim.broker.ledger().malformed, 2);
    sim.hello(11, Role::Client, 1);
    let list = vec![held(&task, HeldState::Claimed)];
    sim.greet(13, 3, Greeting { held: list, ..Greeting::default() });
    let task = crate::support::TaskSent { to: Conn(13), ..task };
    assert_eq!(results(&sim.done(&task)), [(Conn(11), 1, Status::Ok)], "the task was not lost");
    assert_eq!(tasks(&sim.submit(other, 1)).len(), 1);
}

#[test]
fn malformed_bytes_of_a_stranger_are_refused() {
    let mut sim = Sim::new();
    let effects = sim.event(Event::Malformed(Conn(4), RefusedCode::TooLarge, "too long"));
    assert!(is_refused(&effects, Conn(4), RefusedCode::TooLarge));
}

#[test]
fn a_command_of_another_role_ends_the_session() {
    let mut sim = Sim::new();
    let nobody = AttemptId::default();
    type Command = (&'static str, fn(Conn, AttemptId) -> Event<'static, TestBody>);
    let of_workers: [Command; 2] = [
        ("DONE", |conn, attempt| {
            Event::Done(
                conn,
                DoneEvent {
                    attempt,
                    status: EndStatus::Ok,
                    residence_ns: 0,
                    service_ns: 0,
                    body: TestBody::default(),
                },
            )
        }),
        ("RETURN", Event::Return),
    ];
    for (name, command) in of_workers {
        let client = sim.client(1);
        let effects = sim.event(command(client, nobody));
        assert!(is_refused(&effects, client, RefusedCode::NotAllowed), "{name}");
    }
    let worker = sim.worker(2, &["work"]);
    assert!(is_refused(&sim.submit(worker, 1), worker, RefusedCode::NotAllowed));
    let worker = sim.worker(2, &["work"]);
    assert!(is_refused(&sim.host(worker, &[]), worker, RefusedCode::NotAllowed));
    let worker = sim.worker(2, &["work"]);
    assert!(is_refused(&sim.ack(worker, 1), worker, RefusedCode::NotAllowed));
    let client = sim.client(1);
    let effects = sim.lost(client, LossKind::Exited, None, &[]);
    assert!(is_refused(&effects, client, RefusedCode::NotAllowed));
    let client = sim.client(1);
    assert!(is_refused(&sim.recalled(client, &[]), client, RefusedCode::NotAllowed));
    assert_eq!(sim.broker.ledger().submitted, 0);
}

#[test]
fn an_alias_out_of_bounds_ends_the_session() {
    let mut sim = Sim::new();
    for alias in [
        ServiceAlias { alias: 256, name: "work" },
        ServiceAlias { alias: u32::MAX, name: "work" },
        ServiceAlias { alias: 0, name: "" },
    ] {
        let client = sim.client(1);
        let effects = sim.event(Event::Service(client, alias));
        assert!(is_refused(&effects, client, RefusedCode::TooLarge), "{alias:?}");
    }
}

#[test]
fn invented_attempts_are_counted_and_dropped() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    sim.event(Event::Full(worker));
    sim.submit(client, 1);
    for (task, dispatch) in [(0, 0), (0, 1), (u64::MAX, 1), (1 << 32, 0), (77, u32::MAX)] {
        let attempt = AttemptId { epoch: EPOCH, task: TaskId(task), dispatch: Dispatch(dispatch) };
        assert!(sim.event(Event::Return(worker, attempt)).is_empty());
    }
    let ledger = sim.broker.ledger();
    assert_eq!(ledger.stale_ends + ledger.foreign_ends, 5);
    assert_eq!(sim.broker.counts().pending, 1, "a task that was never sent cannot end");
}

#[test]
fn extreme_numbers_break_nothing() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let extreme =
        Greeting { window_tasks: u32::MAX, window_bytes: u64::MAX, ..Greeting::default() };
    sim.greet(2, 2, extreme);
    let options = pinmesh_protocol::TaskOptions {
        max_runtime_ns: Some(u64::MAX),
        tries_max: Some(u32::MAX),
        ..Default::default()
    };
    let ask =
        Ask { options: Ok(options), request: u64::MAX, submission: u32::MAX, ..Ask::default() };
    let task = tasks(&sim.ask(client, ask))[0];
    let beat = Heartbeat { sequence: u64::MAX, silence_ns: Some(u64::MAX) };
    sim.event(Event::Heartbeat(client, beat));
    let body = TestBody { tag: 1, bytes: 1 };
    let effects = sim.event(Event::Done(
        task.to,
        DoneEvent {
            attempt: crate::support::attempt(&task),
            status: EndStatus::Ok,
            residence_ns: u64::MAX,
            service_ns: u64::MAX,
            body,
        },
    ));
    assert_eq!(results(&effects), [(client, u64::MAX, Status::Ok)]);
    sim.pass(Span::from_secs(10));
}

#[test]
fn an_announced_silence_is_bounded() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.silence(client);
    let beat = Heartbeat { sequence: 1, silence_ns: Some(u64::MAX) };
    sim.event(Event::Heartbeat(client, beat));
    sim.pass(Span::from_secs(3_600 + 10));
    assert_eq!(sim.broker.counts().sessions, 0);
}

#[test]
fn a_worker_that_turns_into_one_known_to_be_gone_gives_its_tasks_back() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(5, 5, &[(0, 2)]);
    let second = Greeting { host: Some(5), incarnation: 2, ..Greeting::default() };
    let worker = Conn(2);
    sim.greet(2, 2, second);
    sim.submit(client, 1);
    sim.gone(worker);
    sim.greet(12, 2, Greeting { host: Some(5), incarnation: 1, ..Greeting::default() });
    assert_eq!((sim.broker.counts().in_flight, sim.broker.counts().pending), (0, 1));
    sim.gone(Conn(12));
    sim.pass(Span::from_secs(10));
    assert_eq!(sim.broker.counts().workers, 0);
    sim.goodbye(supervisor);
}

#[test]
fn a_place_that_a_worker_has_is_not_given_to_another() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(5, 5, &[(0, 1)]);
    sim.supervised(2, 5, 0);
    sim.submit(client, 1);
    let effects = sim.greet(3, 3, Greeting { host: Some(5), ..Greeting::default() });
    assert!(is_refused(&effects, Conn(3), RefusedCode::NotAllowed));
    sim.lost(supervisor, LossKind::Exited, None, &[]);
    assert_eq!(sim.broker.counts().pending, 1, "LOST still finds the first");
}

#[test]
fn a_worker_that_says_it_is_of_a_clients_host_is_never_served() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, Greeting { host: Some(1), ..Greeting::default() });
    assert!(tasks(&sim.submit(client, 1)).is_empty());
    sim.silence(Conn(2));
    sim.pass(Span::from_secs(8));
    assert_eq!(sim.broker.counts().workers, 0);
}

#[test]
fn a_ready_without_a_service_is_refused() {
    let mut sim = Sim::new();
    let effects = sim.greet(2, 2, Greeting { services: Vec::new(), ..Greeting::default() });
    assert!(is_refused(&effects, Conn(2), RefusedCode::Malformed));
}

#[test]
fn a_service_named_twice_in_ready_is_served_once() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work", "work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    assert_eq!(task.head.client_id, peer(1));
    sim.goodbye(Conn(2));
    assert_eq!(sim.broker.counts().pending, 1);
}

#[test]
fn events_of_sockets_that_are_gone_are_harmless() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.gone(client);
    sim.gone(client);
    for event in [
        Event::BatchEnd(client),
        Event::Full(client),
        Event::Sendable(client),
        Event::Ack(client, 1),
        Event::Goodbye(client),
    ] {
        sim.event(event);
    }
    assert_eq!(sim.broker.ledger().no_session, 1);
}

#[test]
fn a_time_that_goes_back_is_taken_as_no_time() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.pass(Span::from_secs(1));
    sim.now = pinmesh_core::Time(5);
    sim.submit(client, 1);
    sim.event(Event::Tick);
    assert_eq!(sim.broker.counts().pending, 1);
}
