//! HELLO and what ends a session.

use pinmesh_core::{Conn, CoreConfig, Event, Side, Span};
use pinmesh_protocol::command::{Heartbeat, Hello};
use pinmesh_protocol::status::{RefusedCode, Role};

use crate::support::{EPOCH, Effect, SECOND, SLACK, Sent, Sim, attempt, hello, sent_to, tasks};

fn refusal(effects: &[Effect], conn: Conn) -> RefusedCode {
    assert!(effects.contains(&Effect::Close(conn)), "a refused session is closed: {effects:?}");
    match sent_to(effects, conn).as_slice() {
        [Sent::Refused(code, reason)] => {
            assert!(!reason.is_empty());
            *code
        }
        other => panic!("not one REFUSED: {other:?}"),
    }
}

#[test]
fn welcome_echoes_the_nonce_and_tells_a_client_its_window() {
    let mut sim = Sim::new();
    let effects = sim.hello(0, Role::Client, 1);
    let [Sent::Welcome(welcome)] = sent_to(&effects, Conn(0))[..] else {
        panic!("not one WELCOME: {effects:?}")
    };
    assert_eq!((welcome.version, welcome.nonce, welcome.epoch), (1, 42, EPOCH));
    assert_eq!(welcome.window_tasks, sim.config.client_window_tasks);
    assert_eq!(welcome.window_bytes, sim.config.client_window_bytes);
    assert_eq!(welcome.heartbeat_ns, sim.config.heartbeat.0);
    assert_eq!(welcome.lease_ns, sim.config.lease.0);
}

#[test]
fn welcome_tells_a_worker_no_window() {
    let mut sim = Sim::new();
    let effects = sim.hello(0, Role::Worker, 1);
    let [Sent::Welcome(welcome)] = sent_to(&effects, Conn(0))[..] else {
        panic!("not one WELCOME: {effects:?}")
    };
    assert_eq!((welcome.window_tasks, welcome.window_bytes), (0, 0));
}

#[test]
fn a_peer_without_a_version_in_common_is_refused() {
    let mut sim = Sim::new();
    for (low, high) in [(2, 9), (0, 0)] {
        let hello = Hello { version_min: low, version_max: high, ..hello(Role::Client, 1) };
        let effects = sim.hello_as(0, Side::Frontend, hello);
        assert_eq!(refusal(&effects, Conn(0)), RefusedCode::Version);
    }
    assert_eq!(sim.broker.counts().sessions, 0);
}

#[test]
fn a_role_on_the_wrong_side_is_refused() {
    let mut sim = Sim::new();
    for (role, side) in [
        (Role::Client, Side::Backend),
        (Role::Worker, Side::Frontend),
        (Role::Supervisor, Side::Frontend),
    ] {
        let effects = sim.hello_as(0, side, hello(role, 1));
        assert_eq!(refusal(&effects, Conn(0)), RefusedCode::NotAllowed);
    }
}

#[test]
fn the_peer_id_of_another_role_is_refused_and_its_owner_unharmed() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let effects = sim.hello(2, Role::Worker, 1);
    assert_eq!(refusal(&effects, Conn(2)), RefusedCode::NotAllowed);
    sim.worker(3, &["work"]);
    assert_eq!(tasks(&sim.submit(client, 1)).len(), 1);
}

#[test]
fn a_full_broker_refuses_the_new_and_takes_the_known_back() {
    let mut sim = Sim::with(CoreConfig { sessions_max: 2, ..CoreConfig::default() });
    sim.client(1);
    sim.client(2);
    let effects = sim.hello(3, Role::Client, 3);
    assert_eq!(refusal(&effects, Conn(3)), RefusedCode::Full);
    let effects = sim.hello(4, Role::Client, 2);
    assert!(matches!(sent_to(&effects, Conn(4))[..], [Sent::Welcome(_)]));
    assert_eq!(sim.broker.counts().sessions, 2);
}

#[test]
fn hello_ends_the_earlier_session_of_the_same_peer() {
    let mut sim = Sim::new();
    let earlier = sim.client(1);
    let effects = sim.hello(2, Role::Client, 1);
    assert!(effects.contains(&Effect::Close(earlier)));
    assert_eq!(sim.broker.counts().sessions, 1);
    assert_eq!(sent_to(&sim.submit(earlier, 1), earlier), [Sent::NoSession]);
}

#[test]
fn a_command_without_a_session_is_answered_no_session_and_closed() {
    let mut sim = Sim::new();
    let stranger = Conn(9);
    let effects = sim.submit(stranger, 1);
    assert_eq!(
        effects,
        [Effect::Send { to: stranger, command: Sent::NoSession }, Effect::Close(stranger)]
    );
    assert_eq!(sim.broker.ledger().no_session, 1);
    assert!(sim.event(Event::BatchEnd(stranger)).is_empty());
}

#[test]
fn a_heartbeat_is_echoed_with_its_sequence() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let beat = Heartbeat { sequence: 77, silence_ns: None };
    let effects = sim.event(Event::Heartbeat(client, beat));
    assert_eq!(effects, [Effect::Send { to: client, command: Sent::Heartbeat(beat) }]);
}

#[test]
fn a_silent_client_loses_its_session() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.pass(SECOND);
    sim.silence(client);
    let effects = sim.pass(Span(3 * SECOND.0 + SLACK.0));
    assert!(effects.contains(&Effect::Close(client)));
    assert_eq!(sim.broker.counts().sessions, 0);
}

#[test]
fn a_client_that_says_heartbeat_keeps_its_session() {
    let mut sim = Sim::new();
    sim.client(1);
    sim.pass(Span::from_secs(120));
    assert_eq!(sim.broker.counts().sessions, 1);
}

#[test]
fn an_announced_silence_extends_the_patience() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.silence(client);
    let silence_ns = Some(Span::from_secs(20).0);
    sim.event(Event::Heartbeat(client, Heartbeat { sequence: 1, silence_ns }));
    sim.pass(Span::from_secs(22));
    assert_eq!(sim.broker.counts().sessions, 1);
    sim.pass(Span::from_secs(2));
    assert_eq!(sim.broker.counts().sessions, 0);
}

#[test]
fn a_client_without_tasks_is_forgotten_at_its_goodbye() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    assert_eq!(sim.goodbye(client), [Effect::Close(client)]);
    assert_eq!(sim.broker.counts().clients, 0);
    assert_eq!(sim.broker.next_wakeup(), None, "no timer is left of it");
}

#[test]
fn a_lost_client_is_kept_for_a_minute_and_then_its_waiting_tasks_are_cancelled() {
    let service_wait = Span::from_secs(600);
    let mut sim = Sim::with(CoreConfig { service_wait, ..CoreConfig::default() });
    let client = sim.client(1);
    let other = sim.client(2);
    sim.submit(client, 1);
    sim.submit(other, 1);
    sim.gone(client);
    sim.pass(Span::from_secs(59));
    assert_eq!(sim.broker.counts().pending, 2);
    sim.pass(Span::from_secs(2));
    assert_eq!(sim.broker.ledger().cancelled, 1);
    assert_eq!((sim.broker.counts().clients, sim.broker.counts().pending), (1, 1));
}

#[test]
fn what_a_dropped_client_has_running_runs_out_and_is_forgotten() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(client);
    sim.pass(Span::from_secs(61));
    assert_eq!(sim.broker.counts().clients, 0);
    assert_eq!(sim.broker.counts().in_flight, 1);
    let effects = sim.done(&task);
    assert!(effects.iter().all(|effect| matches!(effect, Effect::Stages(_))), "{effects:?}");
    sim.assert_empty();
    assert_eq!(sim.broker.ledger().ok, 1);
}

#[test]
fn the_running_task_of_a_dropped_client_is_not_run_again() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(client);
    sim.pass(Span::from_secs(61));
    sim.event(Event::Return(worker, attempt(&task)));
    assert_eq!(sim.broker.ledger().cancelled, 1);
    sim.assert_empty();
}
