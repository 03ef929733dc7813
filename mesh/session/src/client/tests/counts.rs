//! What a client counts, what it leaves out, and who is told of what moved.

use pinmesh_protocol::command::{Accepted, ClientProgress};
use pinmesh_protocol::id::{Dispatch, TaskId};
use pinmesh_protocol::status::ProgressKind;

use super::*;
use crate::client::WakeReason;

const MS: u64 = 1_000_000;
const A: LinkId = LinkId(0);
const B: LinkId = LinkId(1);

#[test]
fn a_client_is_flushed_when_a_broker_has_everything() {
    let mut bench = Bench::open(1);
    assert!(bench.client.is_flushed());
    (0..5).for_each(|body| bench.event(ClientEvent::Submit(request(body))));
    assert_eq!((bench.client.is_flushed(), bench.client.unresolved()), (false, 5));
    bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Ok)));
    assert_eq!((bench.client.is_flushed(), bench.client.unresolved()), (true, 4));
    bench.receive(LINK, FromBroker::Result(result(2, 1, Status::Busy)));
    assert!(!bench.client.is_flushed(), "it waits out BUSY");
    bench.sleep(SECOND);
    assert!(bench.client.is_flushed());
}

#[test]
fn what_means_nothing_is_counted_and_changes_nothing() {
    let mut bench = Bench::open(1);
    let before = bench.client.counters();
    bench.receive(LINK, FromBroker::Ack(1));
    bench.receive(LINK, FromBroker::Welcome(welcome(1, 9)));
    bench.receive(LinkId(7), FromBroker::Ack(1));
    assert_eq!(bench.client.counters().ignored, before.ignored + 3);
    bench.receive(LINK, FromBroker::Result(result(99, 1, Status::Ok)));
    bench.receive(
        LINK,
        FromBroker::Accepted(Accepted { request_id: RequestId(99), task: TaskId(1) }),
    );
    bench.event(ClientEvent::Submit(request(0)));
    bench.receive(LINK, FromBroker::Result(result(1, 2, Status::Ok)));
    assert_eq!(bench.client.counters().stale, before.stale + 3, "it is not of ours either");
    assert_eq!(bench.client.unresolved(), 1);
    let counted = bench.client.counters();
    assert_eq!((counted.requests, counted.submits, counted.results), (1, 1, 2));
    assert_eq!(counted.sessions, 1);
}

#[test]
fn streamed_progress_is_acknowledged_among_results_and_conflated_progress_is_not() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(0)));
    bench.effects();
    let progress = |kind| ClientProgress {
        request_id: RequestId(1),
        submission: Submission(1),
        task: TaskId(9),
        dispatch: Dispatch(1),
        sequence: 1,
        kind,
        content_type: ContentType::RAW,
        payload: Payload::Inline(b""),
    };
    bench.receive(LINK, FromBroker::Progress(progress(ProgressKind::Latest)));
    assert_eq!(bench.effects(), []);
    bench.receive(LINK, FromBroker::Progress(progress(ProgressKind::Stream)));
    assert_eq!(bench.effects(), [Effect::Ack(LINK, 1)]);
    bench.event(ClientEvent::Received(LINK, FromBroker::Progress(progress(ProgressKind::Stream))));
    bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Ok)));
    assert_eq!(bench.effects().last(), Some(&Effect::Ack(LINK, 3)));
}

#[test]
fn a_ping_is_answered_by_its_own_echo_from_its_own_broker() {
    let mut bench = Bench::open(2);
    (1..=2).for_each(|token| bench.event(ClientEvent::Ping(token)));
    let sent = bench.effects().into_iter().filter_map(|effect| match effect {
        Effect::Heartbeat(to, sequence, None) => Some((to, sequence)),
        _ => None,
    });
    let sent: Vec<_> = sent.collect();
    assert_eq!(sent.iter().map(|ping| ping.0).collect::<Vec<_>>(), [A, A]);
    let echo = |sequence| FromBroker::Heartbeat(Heartbeat { sequence, silence_ns: None });
    bench.receive(B, echo(sent[1].1));
    assert_eq!(bench.effects(), []);
    bench.now = bench.now.after(9);
    bench.receive(A, echo(sent[1].1));
    let pong = Pong { token: 2, round_trip_ns: 9, epoch: Epoch(1) };
    assert_eq!(bench.effects(), [Effect::Pong(pong)]);
    bench.receive(A, echo(sent[1].1));
    assert_eq!(bench.effects(), [], "once");
}

#[test]
fn pings_beyond_the_most_forget_the_oldest() {
    let mut bench = Bench::new(1);
    bench.event(ClientEvent::Start);
    let many = crate::client::PINGS_MAX as u64 + 1;
    (0..many).for_each(|token| bench.event(ClientEvent::Ping(token)));
    bench.greet(LINK, 1);
    let pings = bench.effects().into_iter().filter(|it| matches!(it, Effect::Heartbeat(..)));
    assert_eq!(pings.count() as u64, many - 1);
    let echo = Heartbeat { sequence: 1, silence_ns: None };
    bench.receive(LINK, FromBroker::Heartbeat(echo));
    assert!(matches!(bench.effects()[..], [Effect::Pong(Pong { token: 1, .. })]));
}

#[test]
fn a_broker_that_leaves_hands_over_at_once_and_one_that_is_cut_off_after_a_while() {
    for (is_goodbye, wait) in [(true, 0), (false, 3 * SECOND)] {
        let mut bench = Bench::open(2);
        bench.event(ClientEvent::Submit(request(0)));
        bench.effects();
        match is_goodbye {
            true => bench.receive(A, FromBroker::Goodbye),
            false => bench.event(ClientEvent::SocketLost(A)),
        }
        let begun = bench.now;
        let moved = |bench: &mut Bench| bench.submits().contains(&(1, 2, B));
        while !moved(&mut bench) {
            echo(&mut bench, B);
            let (at, _) = bench.client.next_wakeup().unwrap();
            bench.now = bench.now.max(at);
            wake(&mut bench);
        }
        assert_eq!(bench.now.since(begun), wait);
    }
}

#[test]
fn what_moved_is_cancelled_where_it_was_only_in_the_life_that_had_it() {
    for (epoch, is_cancelled) in [(1, true), (2, false)] {
        let mut bench = Bench::open(2);
        bench.event(ClientEvent::Submit(request(0)));
        bench.receive(A, FromBroker::Goodbye);
        wake(&mut bench);
        assert_eq!(bench.submits(), [(1, 1, A), (1, 2, B)]);
        wait_for_socket(&mut bench, A);
        bench.greet(A, epoch);
        bench.effects();
        bench.receive(B, FromBroker::Result(result(1, 2, Status::Ok)));
        let cancel = Effect::Cancel(A, RequestId(1), Submission(1));
        assert_eq!(bench.effects().contains(&cancel), is_cancelled);
    }
}

#[test]
fn a_broker_cannot_make_a_client_spin_or_wait_for_ever() {
    for (named, interval) in [(0, MS), (u64::MAX, 60 * SECOND)] {
        let mut bench = Bench::new(1);
        bench.event(ClientEvent::Start);
        let Some(Effect::Hello(_, nonce)) = bench.effects().pop() else { panic!("HELLO") };
        let silly = Welcome { heartbeat_ns: named, liveness: 0, ..welcome(nonce, 1) };
        bench.receive(LINK, FromBroker::Welcome(silly));
        let due = bench.now.after(interval);
        assert_eq!(bench.client.next_wakeup(), Some((due, WakeReason::Heartbeat)));
    }
}

#[test]
fn an_announced_silence_is_an_hour_at_most() {
    let mut bench = Bench::open(1);
    let silence_ns = Some(u64::MAX);
    bench.receive(LINK, FromBroker::Heartbeat(Heartbeat { sequence: 0, silence_ns }));
    bench.sleep(3_599 * SECOND);
    assert!(bench.client.is_open(LINK));
    bench.sleep(6 * SECOND);
    assert!(!bench.client.is_open(LINK));
}

#[test]
fn a_version_that_was_not_offered_is_refused() {
    for version in [0, 2] {
        let mut bench = Bench::new(1);
        bench.event(ClientEvent::Start);
        let Some(Effect::Hello(_, nonce)) = bench.effects().pop() else { panic!("HELLO") };
        bench.receive(LINK, FromBroker::Welcome(Welcome { version, ..welcome(nonce, 1) }));
        assert_eq!(bench.effects()[0], Effect::Refused(LINK, RefusedCode::Version));
        assert!(!bench.client.is_open(LINK));
    }
}

#[test]
fn a_greeting_ends_with_a_refusal_and_with_a_lost_socket() {
    let refused = || FromBroker::Refused(Refused { code: RefusedCode::Full, reason: "" });
    for command in [refused(), FromBroker::NoSession, FromBroker::Goodbye] {
        let mut bench = Bench::new(1);
        bench.event(ClientEvent::Start);
        bench.effects();
        bench.receive(LINK, command);
        assert_eq!(bench.effects(), [Effect::Disconnect(LINK), Effect::Closed(LINK)]);
        bench.event(ClientEvent::SocketLost(LINK));
        bench.event(ClientEvent::Malformed(LINK, RefusedCode::Malformed));
        assert_eq!(bench.effects(), [], "there is no socket any more");
    }
}

#[test]
fn the_257th_service_has_no_alias_and_goes_by_its_name() {
    let mut bench = Bench::open(1);
    (1..=256).for_each(|_| bench.event(ClientEvent::Service("more")));
    for service in [255, 256] {
        bench.event(ClientEvent::Submit(NewRequest { service: ServiceId(service), ..request(0) }));
    }
    let aliases = bench.effects().into_iter().filter_map(|effect| match effect {
        Effect::Service(_, alias, _) => Some(alias),
        _ => None,
    });
    assert_eq!(aliases.collect::<Vec<_>>(), [255]);
    assert_eq!(bench.outbox.names, 1);
}

#[test]
#[should_panic(expected = "the caller tells a service before it is used")]
fn a_service_that_was_not_told_is_the_callers_mistake() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(NewRequest { service: ServiceId(1), ..request(0) }));
}
