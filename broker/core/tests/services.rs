//! Services that nobody serves, not yet or no more.

use pinmesh_core::{Conn, CoreConfig, Event, Span};
use pinmesh_protocol::command::ServiceAlias;
use pinmesh_protocol::status::{RefusedCode, Status};

use crate::support::{
    Ask, Greeting, SECOND, SLACK, Sent, Sim, hello, results, sent_to, side_of, tasks,
};
use pinmesh_protocol::status::Role;

fn of(request: u64, service: &str) -> Ask {
    Ask { request, service: service.into(), ..Ask::default() }
}

#[test]
fn a_task_for_an_unknown_service_waits_before_it_ends_no_service() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.submit(client, 1);
    assert!(results(&sim.pass(Span::from_secs(29))).is_empty());
    assert_eq!(results(&sim.pass(SECOND)), []);
    assert_eq!(results(&sim.settle()), [(client, 1, Status::NoService)]);
}

#[test]
fn each_task_waits_its_own_time_for_a_service() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.submit(client, 1);
    sim.pass(Span::from_secs(20));
    sim.submit(client, 2);
    let effects = sim.pass(Span::from_secs(11));
    assert_eq!(results(&effects), [(client, 1, Status::NoService)]);
    let effects = sim.pass(Span::from_secs(20));
    assert_eq!(results(&effects), [(client, 2, Status::NoService)]);
}

#[test]
fn a_worker_that_comes_in_time_serves_what_waited() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.submit(client, 1);
    sim.pass(Span::from_secs(29));
    let task = tasks(&sim.greet(2, 2, Greeting::default()))[0];
    sim.pass(Span::from_secs(5));
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
}

#[test]
fn a_service_that_loses_its_last_worker_waits_anew() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    sim.window(worker, 0, 0);
    sim.submit(client, 1);
    sim.pass(Span::from_secs(100));
    sim.goodbye(worker);
    assert!(results(&sim.pass(Span::from_secs(29))).is_empty());
    let effects = sim.pass(Span(SECOND.0 + SLACK.0));
    assert_eq!(results(&effects), [(client, 1, Status::NoService)]);
}

#[test]
fn a_task_for_a_service_that_was_long_idle_waits_its_full_time() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.submit(client, 1);
    sim.cancel(client, 1, 1);
    sim.pass(Span::from_secs(100));
    sim.submit(client, 2);
    assert!(results(&sim.pass(Span::from_secs(29))).is_empty());
    assert_eq!(results(&sim.pass(Span::from_secs(2))), [(client, 2, Status::NoService)]);
}

#[test]
fn a_service_whose_only_waiting_task_was_cancelled_waits_no_more() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.submit(client, 1);
    sim.cancel(client, 1, 1);
    assert!(results(&sim.pass(Span::from_secs(100))).is_empty());
}

#[test]
fn a_service_that_made_room_for_another_is_never_looked_for_again() {
    let mut sim = Sim::with(CoreConfig { services_max: 1, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.ask(client, of(1, "first"));
    sim.cancel(client, 1, 1);
    sim.ask(client, of(2, "second"));
    sim.cancel(client, 2, 1);
    sim.pass(Span::from_secs(100));
    sim.ask(client, of(3, "third"));
    assert_eq!(sim.broker.counts().pending, 1);
}

#[test]
fn too_many_services_at_once_are_refused_by_name() {
    let mut sim = Sim::with(CoreConfig { services_max: 1, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.ask(client, of(1, "first"));
    let effects = sim.ask(client, of(2, "second"));
    assert_eq!(results(&effects), [(client, 2, Status::Refused)]);
    assert_eq!(sim.broker.counts().sessions, 1, "the session stands");
}

#[test]
fn a_ready_with_too_many_services_leaves_none_of_them_behind() {
    let mut sim = Sim::with(CoreConfig { services_max: 2, ..CoreConfig::default() });
    let services = vec!["one", "two", "three"];
    let effects = sim.greet(2, 2, Greeting { services, ..Greeting::default() });
    assert!(
        sent_to(&effects, Conn(2))
            .iter()
            .any(|sent| matches!(sent, Sent::Refused(RefusedCode::Full, _)))
    );
    sim.greet(3, 3, Greeting { services: vec!["four", "five"], ..Greeting::default() });
    let client = sim.client(1);
    assert_eq!(tasks(&sim.ask(client, of(1, "five"))).len(), 1);
}

#[test]
fn an_alias_stands_for_its_name_in_its_session() {
    use pinmesh_core::SubmitEvent;
    use pinmesh_protocol::command::ServiceRef;
    use pinmesh_protocol::id::{Priority, RequestId, Submission};

    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let by_alias = |request| SubmitEvent {
        request_id: RequestId(request),
        submission: Submission(1),
        service: ServiceRef::Alias(3),
        priority: Priority::default(),
        deadline_ns: None,
        options: Ok(Default::default()),
        body: Default::default(),
    };
    sim.event(Event::Service(client, ServiceAlias { alias: 3, name: "work" }));
    let effects = sim.event(Event::Submit(client, by_alias(1)));
    assert_eq!(tasks(&effects)[0].to, worker);
    sim.hello_as(5, side_of(Role::Client), hello(Role::Client, 1));
    let effects = sim.event(Event::Submit(Conn(5), by_alias(2)));
    assert!(matches!(sent_to(&effects, Conn(5))[..], [Sent::Refused(RefusedCode::Malformed, _)]));
}
