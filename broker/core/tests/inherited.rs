//! A broker that was started again: its workers still hold attempts of its earlier life, and its
//! clients submit their requests again.

use pinmesh_core::{Conn, DoneEvent, Event, Span};
use pinmesh_protocol::command::{Attempts, CancelAttempt, Held, Host, HostWorker, Lost};
use pinmesh_protocol::id::{
    AttemptId, Dispatch, Epoch, Incarnation, RequestId, Slot, Submission, TaskId,
};
use pinmesh_protocol::status::{EndStatus, HeldState, LossKind, Status};

use crate::support::{
    Ask, Effect, Greeting, SECOND, Sent, Sim, TestBody, peer, results, sent_to, tasks,
};

/// What the earlier life of the broker called the first attempt of client 1's request.
fn earlier(request: u64) -> AttemptId {
    AttemptId { epoch: Epoch(99), task: TaskId(request - 1), dispatch: Dispatch(1) }
}

fn held(request: u64, state: HeldState) -> Held {
    Held {
        attempt: earlier(request),
        client_id: peer(1),
        request_id: RequestId(request),
        submission: Submission(1),
        state,
    }
}

/// READY of an unsupervised worker that holds these requests, all of them running or waiting.
fn listing(requests: &[u64]) -> Greeting {
    let held = requests.iter().map(|request| held(*request, HeldState::Claimed)).collect();
    Greeting { held, ..Greeting::default() }
}

/// The request of before, as its client submits it to another life of the broker.
fn again(request: u64) -> Ask {
    Ask { request, submission: 2, ..Ask::default() }
}

fn done(sim: &mut Sim, conn: Conn, request: u64) -> Vec<Effect> {
    let done = DoneEvent {
        attempt: earlier(request),
        status: EndStatus::Ok,
        residence_ns: 2_000,
        service_ns: 1_500,
        body: TestBody { tag: 1_000 + request, bytes: 7 },
    };
    sim.event(Event::Done(conn, done))
}

fn cancels(effects: &[Effect], to: Conn) -> Vec<(AttemptId, bool)> {
    let cancel = |sent| match sent {
        Sent::Cancel(CancelAttempt { attempt, is_hard, .. }) => Some((attempt, is_hard)),
        _ => None,
    };
    sent_to(effects, to).into_iter().filter_map(cancel).collect()
}

#[test]
fn what_waits_here_is_taken_over_by_the_attempt_that_runs() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    assert!(tasks(&sim.ask(client, again(1))).is_empty(), "nobody serves it yet");
    assert!(tasks(&sim.greet(2, 2, listing(&[1]))).is_empty(), "it is there already");
    assert_eq!((sim.broker.counts().in_flight, sim.broker.counts().pending), (1, 0));
    assert_eq!(results(&done(&mut sim, Conn(2), 1)), [(client, 1, Status::Ok)]);
    assert_eq!((sim.broker.ledger().adopted, sim.broker.ledger().dispatched), (1, 0));
    sim.ack(client, 1);
    sim.assert_empty();
}

#[test]
fn an_attempt_that_came_first_waits_for_its_request() {
    let mut sim = Sim::new();
    sim.greet(2, 2, listing(&[1]));
    sim.worker(3, &["work"]);
    let client = sim.client(1);
    assert!(tasks(&sim.ask(client, again(1))).is_empty(), "nothing runs twice");
    assert_eq!(results(&done(&mut sim, Conn(2), 1)), [(client, 1, Status::Ok)]);
}

#[test]
fn an_end_that_came_first_is_kept_for_its_request() {
    let mut sim = Sim::new();
    let list = vec![held(1, HeldState::Ended)];
    sim.greet(2, 2, Greeting { held: list, ..Greeting::default() });
    assert!(done(&mut sim, Conn(2), 1).is_empty());
    let acks = sim.event(Event::BatchEnd(Conn(2)));
    assert_eq!(sent_to(&acks, Conn(2)), [Sent::Ack(1)], "its worker need not keep it");
    assert!(sim.broker.counts().bytes > 0);
    sim.goodbye(Conn(2));
    let client = sim.client(1);
    assert_eq!(results(&sim.ask(client, again(1))), [(client, 1, Status::Ok)]);
    sim.ack(client, 1);
    sim.assert_empty();
}

#[test]
fn a_kept_end_is_dropped_after_the_time_that_a_lost_client_has() {
    let mut sim = Sim::new();
    sim.greet(2, 2, listing(&[1]));
    done(&mut sim, Conn(2), 1);
    sim.pass(Span::from_secs(61));
    sim.assert_empty();
    assert_eq!(sim.broker.ledger().stale_ends, 1);
    let client = sim.client(1);
    assert_eq!(tasks(&sim.ask(client, again(1))).len(), 1, "it runs again");
}

#[test]
fn an_attempt_that_nobody_asks_for_is_asked_softly_to_stop() {
    let mut sim = Sim::new();
    sim.greet(2, 2, listing(&[1]));
    assert!(cancels(&sim.pass(Span::from_secs(59)), Conn(2)).is_empty());
    let effects = sim.pass(Span::from_secs(2));
    assert_eq!(cancels(&effects, Conn(2)), [(earlier(1), false)]);
    done(&mut sim, Conn(2), 1);
    sim.assert_empty();
}

#[test]
fn what_was_sent_elsewhere_before_its_attempt_was_listed_is_stopped_hard() {
    let mut sim = Sim::new();
    sim.worker(3, &["work"]);
    let client = sim.client(1);
    let task = tasks(&sim.ask(client, again(1)))[0];
    let effects = sim.greet(2, 2, listing(&[1]));
    assert_eq!(cancels(&effects, Conn(2)), [(earlier(1), true)]);
    assert!(results(&done(&mut sim, Conn(2), 1)).is_empty(), "the later dispatch counts");
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
}

#[test]
fn a_superseded_attempt_is_stopped_when_its_supervisor_comes_after_it() {
    let mut sim = Sim::new();
    sim.worker(3, &["work"]);
    let client = sim.client(1);
    sim.ask(client, again(1));
    let effects = sim.greet(2, 2, Greeting { host: Some(5), ..listing(&[1]) });
    assert!(
        effects
            .iter()
            .all(|effect| !matches!(effect, Effect::Send { command: Sent::Cancel(_), .. }))
    );
    sim.hello(5, pinmesh_protocol::status::Role::Supervisor, 5);
    let worker = HostWorker {
        slot: Slot(0),
        incarnation: Incarnation(1),
        cpu: None,
        claimed: vec![earlier(1)],
    };
    let host = Host { cpus: Vec::new(), workers: vec![worker] };
    let effects = sim.event(Event::Host(Conn(5), host));
    assert_eq!(cancels(&effects, Conn(5)), [(earlier(1), true)]);
}

#[test]
fn attempts_of_an_earlier_life_count_in_the_window() {
    let mut sim = Sim::new();
    sim.greet(2, 2, Greeting { window_tasks: 2, ..listing(&[1]) });
    let client = sim.client(1);
    let first = tasks(&sim.submit(client, 7)).len();
    let second = tasks(&sim.submit(client, 8)).len();
    assert_eq!((first, second), (1, 0));
    assert_eq!(tasks(&done(&mut sim, Conn(2), 1)).len(), 1, "its end makes room");
}

#[test]
fn a_worker_that_lists_more_than_its_window_keeps_the_rest_unnamed() {
    let mut sim = Sim::new();
    let effects = sim.greet(2, 2, Greeting { window_tasks: 2, ..listing(&[1, 2, 3]) });
    assert_eq!(cancels(&effects, Conn(2)), [(earlier(3), true)]);
}

#[test]
fn what_is_listed_again_is_still_the_tasks_own() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, again(1));
    sim.greet(2, 2, listing(&[1]));
    sim.gone(Conn(2));
    assert!(tasks(&sim.greet(12, 2, listing(&[1]))).is_empty());
    assert_eq!(results(&done(&mut sim, Conn(12), 1)), [(client, 1, Status::Ok)]);
    assert_eq!(sim.broker.ledger().requeued, 0);
}

#[test]
fn what_is_not_listed_again_runs_again() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, again(1));
    sim.greet(2, 2, listing(&[1, 2]));
    sim.gone(Conn(2));
    let sent = tasks(&sim.greet(12, 2, Greeting::default()));
    assert_eq!(sent.len(), 1);
    assert!(results(&done(&mut sim, Conn(12), 1)).is_empty(), "superseded by the new dispatch");
    assert_eq!(tasks(&sim.ask(client, again(2))).len(), 1, "forgotten with the list");
}

#[test]
fn a_lost_worker_gives_back_what_it_had_brought_along() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(5, 5, &[(0, 1), (1, 1)]);
    sim.greet(2, 2, Greeting { host: Some(5), ..listing(&[1, 2]) });
    sim.supervised(3, 5, 1);
    sim.ask(client, again(1));
    let lost = Lost {
        slot: Slot(0),
        incarnation: Incarnation(1),
        cause: LossKind::Signalled,
        detail: 11,
        running: Some(earlier(1)),
        started: vec![],
    };
    let sent = tasks(&sim.event(Event::Lost(supervisor, lost)));
    assert_eq!((sent.len(), sent[0].to, sent[0].head.tries), (1, Conn(3), 1), "charged");
    assert_eq!(tasks(&sim.ask(client, again(2))).len(), 1, "the dead run nothing");
}

#[test]
fn a_cancel_reaches_the_attempt_by_the_name_that_its_worker_knows() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, again(1));
    sim.greet(2, 2, listing(&[1]));
    let effects = sim.cancel(client, 1, 2);
    assert_eq!(cancels(&effects, Conn(2)), [(earlier(1), false)]);
    let recalled = Attempts { slot: Slot(0), attempts: vec![earlier(1)] };
    let effects = sim.event(Event::Recalled(Conn(2), recalled));
    assert_eq!(results(&effects), [(client, 1, Status::Cancelled)]);
}

#[test]
fn an_attempt_that_its_worker_gives_back_runs_elsewhere() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, again(1));
    sim.greet(2, 2, listing(&[1, 2]));
    sim.worker(3, &["work"]);
    let sent = tasks(&sim.event(Event::Return(Conn(2), earlier(1))));
    assert_eq!((sent.len(), sent[0].to), (1, Conn(3)));
    sim.event(Event::Return(Conn(2), earlier(2)));
    assert_eq!(tasks(&sim.ask(client, again(2)))[0].to, Conn(3), "2 is parked");
}

#[test]
fn an_attempt_of_a_service_that_its_worker_does_not_serve_is_not_taken_over() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, again(1));
    let effects = sim.greet(2, 2, Greeting { services: vec!["other"], ..listing(&[1]) });
    assert_eq!(cancels(&effects, Conn(2)), [(earlier(1), true)]);
    assert_eq!(sim.broker.counts().pending, 1);
}

#[test]
fn a_worker_whose_supervisor_has_not_come_keeps_its_attempt_for_a_whole_lease() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, Ask { deadline: None, ..again(1) });
    sim.greet(2, 2, Greeting { host: Some(5), ..listing(&[1]) });
    sim.worker(3, &["work"]);
    sim.gone(Conn(2));
    assert!(tasks(&sim.pass(Span::from_secs(15))).is_empty(), "it may still run");
    assert_eq!(tasks(&sim.pass(Span::from_secs(3))).len(), 1);
}

#[test]
fn a_busy_worker_may_be_silent_for_as_long_as_what_it_brought_matters() {
    let mut sim = Sim::new();
    sim.greet(2, 2, listing(&[1]));
    sim.silence(Conn(2));
    sim.pass(Span(50 * SECOND.0));
    assert_eq!(sim.broker.counts().workers, 1);
    let client = sim.client(1);
    assert!(tasks(&sim.ask(client, again(1))).is_empty());
    sim.pass(Span(100 * SECOND.0));
    assert_eq!(results(&done(&mut sim, Conn(2), 1)), [(client, 1, Status::Ok)]);
}

#[test]
fn what_was_taken_over_and_comes_back_stands_behind_what_is_older() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, again(1));
    sim.ask(client, again(2));
    let narrow = Greeting { window_tasks: 1, ..listing(&[2]) };
    assert!(tasks(&sim.greet(2, 2, narrow)).is_empty(), "its window is full");
    sim.goodbye(Conn(2));
    let sent = tasks(&sim.greet(3, 3, Greeting::default()));
    let requests: Vec<_> = sent.iter().map(|task| task.head.request_id.0).collect();
    assert_eq!(requests, [1, 2]);
}

#[test]
fn an_attempt_stays_with_the_worker_that_named_it_first() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, again(1));
    sim.greet(2, 2, listing(&[1, 2]));
    let effects = sim.greet(3, 3, listing(&[1, 2]));
    assert_eq!(cancels(&effects, Conn(3)), [(earlier(1), true), (earlier(2), true)]);
    assert!(results(&done(&mut sim, Conn(3), 1)).is_empty(), "it is not its own");
    assert_eq!(results(&done(&mut sim, Conn(2), 1)), [(client, 1, Status::Ok)]);
    done(&mut sim, Conn(2), 2);
    assert_eq!(results(&sim.ask(client, again(2))), [(client, 2, Status::Ok)]);
}

#[test]
fn a_kept_end_takes_no_room_from_results() {
    // 512 bytes beside each task; a kept end has 7 and 3.
    let config = pinmesh_core::CoreConfig { memory_bytes_max: 9, ..Default::default() };
    let mut sim = Sim::with(config);
    sim.greet(2, 2, listing(&[1]));
    done(&mut sim, Conn(2), 1);
    assert_eq!((sim.broker.counts().bytes, sim.broker.ledger().stale_ends), (0, 1));
}

#[test]
fn a_worker_that_was_passed_over_is_offered_more_with_what_it_brought() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, Greeting { window_bytes: 100, ..listing(&[1]) });
    sim.ask(client, Ask { request: 7, bytes: 60, ..Ask::default() });
    sim.ask(client, Ask { request: 8, bytes: 60, ..Ask::default() });
    // 8 does not fit; taking over 1 lists the worker anew, and nothing may wait beside credit.
    assert!(tasks(&sim.ask(client, Ask { bytes: 5, ..again(1) })).is_empty());
    assert_eq!(results(&done(&mut sim, Conn(2), 1)), [(client, 1, Status::Ok)]);
}
