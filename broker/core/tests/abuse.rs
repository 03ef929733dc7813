//! Peers that are allowed in and mean ill: the broker lives on, within its bounds, and the others
//! are served.

use pinmesh_core::{Conn, CoreConfig, DoneEvent, Event, Span};
use pinmesh_protocol::command::{Hello, Lost, ServiceAlias};
use pinmesh_protocol::id::{Incarnation, PeerId, Slot};
use pinmesh_protocol::limits::WORKERS_MAX;
use pinmesh_protocol::status::{EndStatus, HeldState, LossKind, RefusedCode, Role, Status};

use crate::support::{
    Ask, Effect, Greeting, Said, Sent, Sim, TestBody, at_most_once, attempt, held, hello, results,
    sent_to, side_of, tasks,
};

fn of(request: u64, service: &str) -> Ask {
    Ask { request, service: service.into(), ..Ask::default() }
}

fn is_refused(effects: &[Effect], conn: Conn, code: RefusedCode) -> bool {
    sent_to(effects, conn)
        .iter()
        .any(|sent| matches!(sent, Sent::Refused(found, _) if *found == code))
}

#[test]
fn a_service_is_known_as_long_as_a_worker_that_left_it_holds_a_task_of_it() {
    let mut sim = Sim::with(CoreConfig { services_max: 2, ..CoreConfig::default() });
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(worker);
    let list = vec![held(&task, HeldState::Claimed)];
    let services = vec!["other"];
    sim.greet(12, 2, Greeting { services, held: list, ..Greeting::default() });
    sim.ask(client, of(2, "third"));
    sim.event(Event::Return(Conn(12), attempt(&task)));
    assert_eq!(tasks(&sim.worker_effects(3, &["work"])).len(), 1, "the task was not lost");
}

#[test]
fn a_service_is_known_as_long_as_an_end_of_a_task_of_it_is_awaited() {
    let mut sim = Sim::with(CoreConfig { services_max: 2, ..CoreConfig::default() });
    let client = sim.client(1);
    let supervisor = sim.supervisor(5, 5, &[(0, 1)]);
    sim.supervised(2, 5, 0);
    let task = tasks(&sim.ask(client, Ask { options: at_most_once(), ..Ask::default() }))[0];
    sim.lost(supervisor, LossKind::Exited, None, &[&task]);
    sim.ask(client, of(2, "other"));
    sim.ask(client, of(3, "third"));
    sim.give_back(&task);
    assert_eq!(tasks(&sim.worker_effects(3, &["work"])).len(), 1, "the task was not lost");
}

#[test]
fn a_return_of_a_task_that_has_ended_does_not_look_for_its_service() {
    let mut sim = Sim::with(CoreConfig { services_max: 2, ..CoreConfig::default() });
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(worker);
    let list = vec![held(&task, HeldState::Claimed)];
    let services = vec!["other"];
    sim.greet(12, 2, Greeting { services, held: list, ..Greeting::default() });
    sim.cancel(client, 1, 1);
    sim.event(Event::Malformed(client, RefusedCode::Malformed, "gone"));
    sim.pass(Span::from_secs(61));
    let client = sim.client(1);
    sim.ask(client, of(2, "third"));
    sim.event(Event::Return(Conn(12), attempt(&task)));
    assert_eq!(sim.broker.counts().in_flight, 0);
}

#[test]
fn names_that_clients_make_up_leave_room_for_the_services_of_workers() {
    let mut sim = Sim::with(CoreConfig { services_max: 8, ..CoreConfig::default() });
    let client = sim.client(1);
    let names: Vec<_> = (0..20).map(|number| format!("made up {number}")).collect();
    for (alias, name) in names.iter().enumerate().take(2) {
        sim.event(Event::Service(client, ServiceAlias { alias: alias as u32, name }));
    }
    for (request, name) in names.iter().enumerate() {
        sim.ask(client, of(request as u64, name));
    }
    let effects = sim.worker_effects(2, &["work"]);
    assert!(!is_refused(&effects, Conn(2), RefusedCode::Full), "{effects:?}");
    let other = sim.client(3);
    assert_eq!(tasks(&sim.submit(other, 1)).len(), 1, "what is served can be asked for");
}

#[test]
fn peers_that_come_and_go_do_not_keep_new_ones_out() {
    let mut sim = Sim::with(CoreConfig { sessions_max: 2, ..CoreConfig::default() });
    for number in 1..20 {
        let client = sim.client(number);
        sim.gone(client);
        sim.settle();
    }
    let effects = sim.hello(40, Role::Client, 40);
    assert!(matches!(sent_to(&effects, Conn(40))[..], [Sent::Welcome(_)]), "{effects:?}");
    assert_eq!(sim.broker.counts().clients, 1, "nothing is kept for who left nothing");
}

#[test]
fn a_client_that_left_nothing_and_is_back_at_once_is_not_dropped() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.gone(client);
    sim.hello(2, Role::Client, 1);
    sim.settle();
    sim.worker(3, &["work"]);
    assert_eq!(tasks(&sim.submit(Conn(2), 1)).len(), 1);
}

#[test]
fn a_hello_in_a_session_is_refused_and_sends_no_result_again() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.done(&task);
    let effects = sim.hello(1, Role::Client, 1);
    assert!(is_refused(&effects, client, RefusedCode::Malformed), "{effects:?}");
    assert!(results(&effects).is_empty());
    assert_eq!(sim.broker.counts().sessions, 1);
    let effects = sim.hello(4, Role::Client, 1);
    assert_eq!(results(&effects), [(Conn(4), 1, Status::Ok)], "it is kept for the next socket");
}

#[test]
fn the_workers_of_a_host_that_leaves_are_sent_nothing_more() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(5, 5, &[(0, 1), (1, 1), (2, 1)]);
    for slot in 0..3 {
        sim.supervised(10 + u32::from(slot), 5, slot);
    }
    (0..6).for_each(|request| drop(sim.submit(client, request)));
    let effects = sim.goodbye(supervisor);
    assert!(tasks(&effects).is_empty(), "{:?}", tasks(&effects));
    assert_eq!(sim.broker.counts().pending, 6);
}

#[test]
fn workers_that_host_replaces_are_sent_nothing_more() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(5, 5, &[(0, 1), (1, 1)]);
    sim.supervised(10, 5, 0);
    sim.supervised(11, 5, 1);
    (0..4).for_each(|request| drop(sim.submit(client, request)));
    let effects = sim.host(supervisor, &[(0, 2), (1, 2)]);
    assert!(tasks(&effects).is_empty(), "{:?}", tasks(&effects));
    assert_eq!(sim.broker.counts().pending, 4);
}

#[test]
fn a_supervisor_that_loses_more_slots_than_a_host_has_is_refused() {
    let mut sim = Sim::new();
    let supervisor = sim.supervisor(5, 5, &[]);
    let mut lose = |slot: usize| {
        let lost = Lost {
            slot: Slot(slot as u16),
            incarnation: Incarnation(1),
            cause: LossKind::Exited,
            detail: 0,
            running: None,
            started: Vec::new(),
        };
        sim.event(Event::Lost(supervisor, lost))
    };
    for slot in 0..WORKERS_MAX {
        assert!(lose(slot).is_empty());
    }
    assert!(lose(0).is_empty(), "a slot that is known may be lost again");
    assert!(is_refused(&lose(WORKERS_MAX), supervisor, RefusedCode::TooLarge));
}

#[test]
fn the_memory_budget_counts_what_a_task_keeps_beside_its_payload() {
    let mut sim = Sim::with(CoreConfig { memory_bytes_max: 100_000, ..CoreConfig::default() });
    let client = sim.client(1);
    for request in 0..100 {
        let bare = Ask { request, bytes: 0, ..Ask::default() };
        sim.ask(client, bare);
    }
    let counts = sim.broker.counts();
    assert_eq!(counts.bytes, counts.tasks * (512 + TestBody::BESIDE_BYTES));
}

#[test]
fn results_do_not_outgrow_the_memory_budget_without_end() {
    let mut sim = Sim::with(CoreConfig { memory_bytes_max: 10_000, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let sent: Vec<_> = (0..8).flat_map(|request| tasks(&sim.submit(client, request))).collect();
    let mut seen = Vec::new();
    for task in &sent {
        let body = TestBody { tag: 1, bytes: 6_000 };
        let (status, attempt) = (EndStatus::Ok, attempt(task));
        let done = DoneEvent { attempt, status, residence_ns: 2, service_ns: 1, body };
        seen.extend(sim.event(Event::Done(task.to, done)));
        assert!(sim.broker.counts().bytes <= 20_000, "{}", sim.broker.counts().bytes);
    }
    let failed: Vec<_> = seen
        .iter()
        .filter_map(|effect| match effect {
            Effect::Result { head, body: Said::Text(text), .. } => Some((head.status, text)),
            _ => None,
        })
        .collect();
    assert_eq!(results(&seen).len(), 8, "each is told once");
    assert!(failed.len() > 4 && failed.len() < 8, "{failed:?}");
    for (status, text) in failed {
        assert_eq!(status, Status::Failed);
        assert!(text.contains("limits.memory"), "{text}");
    }
}

#[test]
fn a_result_longer_than_the_longest_payload_fails_its_task() {
    let mut sim = Sim::with(CoreConfig { payload_bytes_max: 1_024, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    let body = TestBody { tag: 1, bytes: 1_025 };
    let (status, attempt) = (EndStatus::Ok, attempt(&task));
    let done = DoneEvent { attempt, status, residence_ns: 2, service_ns: 1, body };
    let effects = sim.event(Event::Done(task.to, done));
    assert_eq!(results(&effects), [(client, 1, Status::Failed)]);
}

#[test]
fn hellos_of_ever_new_peers_on_one_socket_leave_no_clients_behind() {
    let mut sim = Sim::with(CoreConfig { sessions_max: 4, ..CoreConfig::default() });
    for number in 0..100_u8 {
        let peer_id = PeerId([number; 16]);
        let hello = Hello { peer_id, ..hello(Role::Client, 0) };
        sim.hello_as(7, side_of(Role::Client), hello);
    }
    sim.settle();
    assert!(sim.broker.counts().clients <= 1, "{:?}", sim.broker.counts());
    let effects = sim.hello(9, Role::Client, 200);
    assert!(matches!(sent_to(&effects, Conn(9))[..], [Sent::Welcome(_)]), "{effects:?}");
}
