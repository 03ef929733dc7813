//! Counts and limits on both sides of where they begin to matter.

use pinmesh_core::{
    Body, Broker, Conn, CoreConfig, Event, Excerpt, Outbox, ProgressHead, ResultBody, ResultHead,
    Side, Span, SubmitEvent, TaskHead, Time,
};
use pinmesh_protocol::command::{Attempts, FromBroker, Held, ServiceAlias, ServiceRef, StageTimes};
use pinmesh_protocol::id::{
    AttemptId, ContentType, Dispatch, Epoch, Priority, RequestId, Slot, Submission, TaskId,
};
use pinmesh_protocol::status::{HeldState, RefusedCode, Role, Status};

use crate::support::{
    Ask, Effect, Greeting, SECOND, SLACK, Said, Sent, Sim, hello, peer, results, sent_to, tasks,
};

#[test]
fn a_worker_with_a_wide_window_is_filled_and_the_emptier_of_two_is_fed() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let wide = |window_tasks| Greeting { window_tasks, ..Greeting::default() };
    sim.greet(2, 2, wide(200));
    for request in 1..=150 {
        assert_eq!(tasks(&sim.submit(client, request)).len(), 1, "{request}");
    }
    sim.greet(3, 3, wide(200));
    for request in 151..=300 {
        assert_eq!(tasks(&sim.submit(client, request))[0].to, Conn(3), "{request}");
    }
    assert_eq!(sim.broker.counts().in_flight, 300);
}

#[test]
fn a_worker_that_is_full_by_its_own_count_reads_the_ack_before_the_next_task() {
    // How many tasks and bytes it holds at most, what the third task has, and whether that is more
    // beside the end that is not acknowledged.
    for (window_tasks, window_bytes, bytes, is_first) in
        [(2, 1_000, 20, true), (3, 1_000, 20, false), (9, 100, 20, false), (9, 100, 21, true)]
    {
        let mut sim = Sim::new();
        let client = sim.client(1);
        let greeting = Greeting { window_tasks, window_bytes, ..Greeting::default() };
        sim.greet(2, 2, greeting);
        let ask = |request, bytes| Ask { request, bytes, ..Ask::default() };
        let task = tasks(&sim.ask(client, ask(1, 40)))[0];
        sim.ask(client, ask(2, 40));
        sim.done(&task);
        let effects = sim.ask(client, ask(3, bytes));
        let acks = sent_to(&effects, task.to);
        assert_eq!(acks, if is_first { vec![Sent::Ack(1)] } else { vec![] }, "{bytes}");
        assert_eq!(tasks(&effects).len(), 1);
        let ack = effects.iter().position(|effect| matches!(effect, Effect::Send { .. }));
        let sent = effects.iter().position(|effect| matches!(effect, Effect::Task(_)));
        assert!(ack.is_none_or(|ack| Some(ack) < sent));
    }
}

#[test]
fn lost_clients_that_are_kept_leave_room_for_as_many_again_and_no_more() {
    let mut sim = Sim::with(CoreConfig { sessions_max: 1, ..CoreConfig::default() });
    let is_full = |effects: &[Effect], conn: u32| {
        matches!(sent_to(effects, Conn(conn))[0], Sent::Refused(RefusedCode::Full, _))
    };
    for conn in [1, 2] {
        let effects = sim.hello(conn, Role::Client, conn as u8);
        assert!(!is_full(&effects, conn));
        sim.submit(Conn(conn), 1);
        sim.gone(Conn(conn));
    }
    assert!(is_full(&sim.hello(3, Role::Client, 3), 3));
    assert!(!is_full(&sim.hello(4, Role::Client, 1), 4), "it is known");
}

#[test]
fn a_service_needs_a_name_of_1_to_128_bytes() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    for (request, bytes, is_refused) in
        [(1, 0, true), (2, 1, false), (3, 128, false), (4, 129, true)]
    {
        let ask = Ask { request, service: "x".repeat(bytes), ..Ask::default() };
        let want = is_refused.then_some((client, request, Status::Refused));
        assert_eq!(results(&sim.ask(client, ask)), want.into_iter().collect::<Vec<_>>());
    }
    assert_eq!(sim.broker.counts().sessions, 1, "the session stands");
}

#[test]
fn the_aliases_of_a_session_hold_their_services_no_longer_than_it_lasts() {
    let mut sim = Sim::with(CoreConfig { services_max: 4, ..CoreConfig::default() });
    // The last quarter is kept for workers.
    for round in 0..3 {
        let client = sim.client(10 + round);
        for (alias, name) in [(0, "a"), (1, "b"), (2, "c")] {
            let name = [name, &round.to_string()].concat();
            assert!(
                sim.event(Event::Service(client, ServiceAlias { alias, name: &name })).is_empty()
            );
        }
        let other = sim.client(20 + round);
        let effects = sim.event(Event::Service(other, ServiceAlias { alias: 0, name: "d" }));
        assert!(matches!(sent_to(&effects, other)[..], [Sent::Refused(RefusedCode::Full, _)]));
        sim.goodbye(client);
    }
}

#[test]
fn an_expired_task_says_whether_a_worker_had_it() {
    for (is_served, words) in [(false, "before a worker was free"), (true, "while it was with")] {
        let mut sim = Sim::new();
        let client = sim.client(1);
        if is_served {
            sim.worker(2, &["work"]);
        }
        sim.ask(client, Ask { deadline: Some(SECOND), ..Ask::default() });
        let effects = sim.pass(Span(SECOND.0 + SLACK.0));
        let text = effects.iter().find_map(|effect| match effect {
            Effect::Result { body: Said::Text(text), .. } => Some(text.as_str()),
            _ => None,
        });
        assert!(text.is_some_and(|text| text.contains(words)), "{text:?}");
    }
}

#[test]
fn only_who_watches_a_worker_gives_back_what_it_brought_from_an_earlier_life() {
    let attempt = AttemptId { epoch: Epoch(99), task: TaskId(0), dispatch: Dispatch(1) };
    let held = vec![Held {
        attempt,
        client_id: peer(9),
        request_id: RequestId(1),
        submission: Submission(1),
        state: HeldState::Waiting,
    }];
    for is_supervised in [true, false] {
        let mut sim = Sim::new();
        let client = sim.client(1);
        let (own, other) = (sim.supervisor(5, 5, &[(0, 1)]), sim.supervisor(6, 6, &[]));
        let host = is_supervised.then_some(5);
        let greeting =
            Greeting { host, held: held.clone(), window_tasks: 1, ..Greeting::default() };
        sim.greet(3, 3, greeting);
        assert!(tasks(&sim.submit(client, 1)).is_empty(), "its window is full");
        let mut recalled = |conn| {
            let attempts = Attempts { slot: Slot(0), attempts: vec![attempt] };
            tasks(&sim.event(Event::Recalled(conn, attempts))).len()
        };
        assert_eq!(recalled(other), 0);
        let (first, second) = if is_supervised { (own, Conn(3)) } else { (Conn(3), own) };
        assert_eq!(recalled(first), 1);
        assert_eq!(recalled(second), 0, "once");
    }
}

#[test]
fn an_idle_worker_for_whom_nobody_speaks_is_gone_after_the_missed_heartbeats() {
    for host in [None, Some(7)] {
        let mut sim = Sim::new();
        sim.greet(2, 2, Greeting { host, ..Greeting::default() });
        sim.silence(Conn(2));
        sim.pass(Span(3 * SECOND.0 - SLACK.0));
        assert_eq!(sim.broker.counts().workers, 1, "{host:?}");
        sim.pass(Span(2 * SLACK.0));
        assert_eq!(sim.broker.counts().workers, 0, "{host:?}");
    }
}

/// A body that keeps nothing beside its payload, which the shell need not say.
struct Plain(u64);

impl Body for Plain {
    fn payload_bytes(&self) -> u64 {
        self.0
    }

    fn excerpt(&self, _: usize) -> Excerpt {
        Excerpt { content_type: ContentType::RAW, bytes: Box::default(), of_bytes: self.0 }
    }
}

struct Nowhere;

impl Outbox<Plain> for Nowhere {
    fn task(&mut self, _: Conn, _: &TaskHead, _: &Plain) {}
    fn result(&mut self, _: Conn, _: &ResultHead, _: ResultBody<'_, Plain>) {}
    fn progress(&mut self, _: Conn, _: &ProgressHead, _: &Plain) {}
    fn send(&mut self, _: Conn, _: FromBroker<'_>) {}
    fn close(&mut self, _: Conn) {}
    fn stages(&mut self, _: &StageTimes) {}
}

#[test]
fn a_body_counts_with_its_payload_unless_it_says_otherwise() {
    let mut broker = Broker::new(CoreConfig::default());
    let mut held = Vec::new();
    broker.handle(
        Time(1),
        Event::Hello(Conn(1), Side::Frontend, hello(Role::Client, 1), None),
        &mut Nowhere,
    );
    for (request, bytes) in [(1, 0), (2, 1_000)] {
        let submit = SubmitEvent {
            request_id: RequestId(request),
            submission: Submission(1),
            service: ServiceRef::Name("work"),
            priority: Priority::default(),
            deadline_ns: None,
            options: Ok(Default::default()),
            body: Plain(bytes),
        };
        broker.handle(Time(1), Event::Submit(Conn(1), submit), &mut Nowhere);
        held.push(broker.counts().bytes);
    }
    assert_eq!(held[1] - 2 * held[0], 1_000);
}
