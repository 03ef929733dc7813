//! Services that require labels of their workers.

use pinmesh_core::{Conn, CoreConfig, Rate, ServiceLimits, Span};
use pinmesh_protocol::command::Held;
use pinmesh_protocol::id::{AttemptId, Dispatch, Epoch, RequestId, Submission, TaskId};
use pinmesh_protocol::status::{HeldState, RefusedCode, Status};

use crate::support::{Ask, Effect, Greeting, Sent, Sim, peer, results, sent_to, tasks};

fn of(request: u64, service: &str) -> Ask {
    Ask { request, service: service.into(), ..Ask::default() }
}

fn offer(services: &[&'static str], labels: &[&'static str]) -> Greeting {
    Greeting { services: services.to_vec(), labels: labels.to_vec(), ..Greeting::default() }
}

/// Whose the tasks are that were sent.
fn takers(effects: &[Effect]) -> Vec<Conn> {
    tasks(effects).iter().map(|task| task.to).collect()
}

#[test]
fn a_task_goes_to_a_worker_that_has_what_it_requires() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, offer(&["work"], &[]));
    sim.greet(3, 3, offer(&["work"], &["gpu"]));
    sim.greet(4, 4, offer(&["work"], &["numa=1", "gpu"]));
    for request in 1..9 {
        let effects = sim.ask(client, of(request, "work{gpu,numa=1}"));
        assert_eq!(takers(&effects), [Conn(4)]);
    }
    let effects = sim.ask(client, of(9, "work{gpu}"));
    assert_eq!(takers(&effects), [Conn(3)], "the one of two with fewer");
    let effects = sim.ask(client, of(10, "work"));
    assert_eq!(takers(&effects), [Conn(2)], "the one of three with none");
}

#[test]
fn it_waits_for_such_a_worker_and_ends_no_service_without_one() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, offer(&["work"], &["cpu"]));
    sim.greet(3, 3, offer(&["other"], &["gpu"]));
    assert!(tasks(&sim.ask(client, of(1, "work{gpu}"))).is_empty());
    sim.pass(Span::from_secs(20));
    assert!(tasks(&sim.ask(client, of(2, "work{gpu}"))).is_empty());
    let effects = sim.pass(Span::from_secs(11));
    assert_eq!(results(&effects), [(client, 1, Status::NoService)]);
    let effects = sim.greet(4, 4, offer(&["work"], &["gpu"]));
    assert_eq!(takers(&effects), [Conn(4)]);
}

#[test]
fn the_worker_is_told_the_number_of_the_service_that_it_offers() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, offer(&["other", "work"], &["gpu"]));
    let sent = tasks(&sim.ask(client, of(1, "work{gpu}")));
    assert_eq!(sent[0].head.service_alias, 1);
    let sent = tasks(&sim.ask(client, of(2, "other{gpu}")));
    assert_eq!(sent[0].head.service_alias, 0);
}

#[test]
fn one_that_comes_later_serves_what_was_asked_before_and_one_that_goes_leaves_it() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, of(1, "work{gpu}"));
    let task = tasks(&sim.greet(2, 2, offer(&["work"], &["gpu"])))[0];
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
    sim.goodbye(Conn(2));
    sim.ask(client, of(2, "work{gpu}"));
    assert!(results(&sim.pass(Span::from_secs(29))).is_empty());
    assert_eq!(results(&sim.pass(Span::from_secs(2))), [(client, 2, Status::NoService)]);
}

#[test]
fn with_labels_and_without_take_equal_turns() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let mut greeting = offer(&["work"], &["gpu"]);
    greeting.window_tasks = 1;
    sim.greet(2, 2, greeting);
    let mut running = tasks(&sim.ask(client, of(1, "work")))[0];
    for request in 2..12 {
        sim.ask(client, of(request, "work"));
        sim.ask(client, of(request + 100, "work{gpu}"));
    }
    let mut with_labels = 0;
    for _ in 0..10 {
        running = tasks(&sim.done(&running))[0];
        with_labels += u32::from(running.head.request_id.0 > 100);
    }
    assert_eq!(with_labels, 5);
}

#[test]
fn it_has_limits_of_its_own() {
    let limits = ServiceLimits { in_flight_max: 1, ..ServiceLimits::default() };
    let own_service_limits = [("work{gpu}".to_owned(), limits)].into();
    let mut sim = Sim::with(CoreConfig { own_service_limits, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.greet(2, 2, offer(&["work"], &["gpu"]));
    assert_eq!(tasks(&sim.ask(client, of(1, "work{gpu}"))).len(), 1);
    assert_eq!(tasks(&sim.ask(client, of(2, "work{gpu}"))).len(), 0);
    assert_eq!(tasks(&sim.ask(client, of(3, "work"))).len(), 1);
    // One with a rate stays known, and closed, whoever serves it.
    let rate = Some(Rate { interval: Span::from_secs(10), burst: 1 });
    let limits = ServiceLimits { rate, ..ServiceLimits::default() };
    let own_service_limits = [("work{gpu}".to_owned(), limits)].into();
    let mut sim = Sim::with(CoreConfig { own_service_limits, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.ask(client, of(1, "work{gpu}"));
    sim.ask(client, of(2, "work{gpu}"));
    assert_eq!(tasks(&sim.greet(2, 2, offer(&["work"], &["gpu"]))).len(), 1);
    assert_eq!(tasks(&sim.pass(Span::from_secs(11))).len(), 1);
}

#[test]
fn a_name_that_is_none_is_refused_with_what_a_name_looks_like() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    for (request, name) in (1..).zip(["work{}", "work{b,a}", "work{gpu", "{gpu}", ""]) {
        let effects = sim.ask(client, of(request, name));
        assert_eq!(results(&effects), [(client, request, Status::Refused)], "{name}");
    }
    for (number, greeting) in (5..).zip([offer(&["work{gpu}"], &[]), offer(&["work"], &["a,b"])]) {
        let effects = sim.greet(u32::from(number), number, greeting);
        let refused = sent_to(&effects, Conn(number.into()));
        let is_malformed = |sent: &Sent| matches!(sent, Sent::Refused(RefusedCode::Malformed, _));
        assert!(refused.iter().any(is_malformed));
    }
}

/// Clients may make up any number of requirements; each takes a place only while it is in use.
#[test]
fn requirements_that_are_over_make_room_for_others() {
    let mut sim = Sim::with(CoreConfig { services_max: 8, ..CoreConfig::default() });
    let client = sim.client(1);
    let labels = ["a", "b", "c", "d", "e", "f"];
    sim.greet(2, 2, offer(&["work", "other"], &labels));
    let mut request = 0;
    for round in 1..64_u32 {
        let required: Vec<&str> =
            (0..6).filter(|bit| round & 1 << bit != 0).map(|bit| labels[bit as usize]).collect();
        for service in ["work", "other"] {
            request += 1;
            let ask = of(request, &format!("{service}{{{}}}", required.join(",")));
            let sent = tasks(&sim.ask(client, ask));
            let alias = u32::from(service == "other");
            assert_eq!(sent[0].head.service_alias, alias, "{service} {required:?}");
            assert_eq!(results(&sim.done(&sent[0])), [(client, request, Status::Ok)]);
        }
    }
    assert!(sim.broker.services_page(None, 100).len() <= 8);
}

/// What a worker brings along from an earlier life of the broker.
#[test]
fn an_attempt_of_an_earlier_life_goes_on_only_where_the_labels_are() {
    for (labels, is_kept) in [(&["gpu"][..], true), (&[][..], false)] {
        let mut sim = Sim::new();
        let client = sim.client(1);
        let attempt = AttemptId { epoch: Epoch(99), task: TaskId(0), dispatch: Dispatch(1) };
        let held = Held {
            attempt,
            client_id: peer(1),
            request_id: RequestId(1),
            submission: Submission(1),
            state: HeldState::Claimed,
        };
        sim.greet(2, 2, Greeting { held: vec![held], ..offer(&["work"], labels) });
        sim.greet(3, 3, offer(&["work"], &["gpu"]));
        let effects = sim.ask(client, Ask { submission: 2, ..of(1, "work{gpu}") });
        assert_eq!(takers(&effects).is_empty(), is_kept, "{labels:?}");
    }
}

#[test]
fn lists_name_labels_and_who_serves_what_requires_them() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, offer(&["work"], &["numa=1", "gpu", "gpu"]));
    sim.greet(3, 3, offer(&["work"], &[]));
    sim.ask(client, of(1, "work{gpu}"));
    let workers: Vec<_> =
        sim.broker.workers_page(0, 10).0.into_iter().map(|view| view.labels).collect();
    assert_eq!(workers, [vec!["gpu", "numa=1"], vec![]]);
    let services = sim.broker.services_page(None, 10);
    let seen: Vec<_> = services.iter().map(|view| (&*view.name, view.workers)).collect();
    assert_eq!(seen, [("work", 2), ("work{gpu}", 1)]);
}
