//! Sessions: opening, keeping, losing, and what becomes of the requests in them.

use super::*;

#[test]
fn a_welcome_with_another_nonce_opens_nothing() {
    let mut bench = Bench::new(1);
    bench.event(ClientEvent::Start);
    bench.receive(LINK, FromBroker::Welcome(welcome(12345, 1)));
    assert!(!bench.client.is_open(LINK));
    bench.greet(LINK, 1);
    assert!(bench.client.is_open(LINK));
}

#[test]
fn silence_for_the_budget_of_heartbeats_opens_another_session() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(0)));
    bench.effects();
    bench.sleep(3 * SECOND);
    assert!(bench.client.is_open(LINK));
    bench.sleep(2 * SECOND);
    let effects = bench.effects();
    let at = effects.iter().position(|effect| *effect == Effect::Disconnect(LINK));
    assert!(at.is_some(), "{effects:?}");
    assert!(effects.contains(&Effect::Connect(LINK)));
    bench.outbox.effects = effects;
    bench.greet(LINK, 1);
    // The same epoch: the same submission.
    let submits = bench.submits();
    assert_eq!(submits.last(), Some(&(1, 1, LINK)));
}

#[test]
fn echoes_keep_a_session_and_unread_sockets_are_not_judged() {
    let mut bench = Bench::open(1);
    for sequence in 1..10 {
        bench.sleep(SECOND);
        let echo = Heartbeat { sequence, silence_ns: None };
        bench.receive(LINK, FromBroker::Heartbeat(echo));
    }
    for _ in 0..10 {
        bench.now = bench.now.after(SECOND);
        bench.event(ClientEvent::Wakeup { is_emptied: false });
    }
    assert!(bench.client.is_open(LINK));
    // A stopped process wakes up to one missed heartbeat, not to many.
    bench.now = bench.now.after(100 * SECOND);
    bench.event(ClientEvent::Wakeup { is_emptied: true });
    assert!(bench.client.is_open(LINK));
}

#[test]
fn a_new_epoch_gets_a_higher_submission_and_at_most_once_ends_lost() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(0)));
    bench.event(ClientEvent::Submit(NewRequest { is_at_most_once: true, ..request(1) }));
    bench.event(ClientEvent::Submit(request(2)));
    bench.event(ClientEvent::Cancel(RequestId(3), Cancel::Soft));
    bench.receive(LINK, FromBroker::NoSession);
    bench.sleep(SECOND);
    bench.greet(LINK, 2);
    let effects = bench.effects();
    bench.outbox.effects = effects.clone();
    let ends = [(2, End::Local(LocalEnd::Lost)), (3, End::Local(LocalEnd::Cancelled))];
    assert_eq!(bench.ends(), ends);
    bench.outbox.effects = effects;
    assert_eq!(bench.submits().last(), Some(&(1, 2, LINK)));
    assert_eq!(bench.client.unresolved(), 1);
}

#[test]
fn the_same_epoch_gets_submits_first_and_then_the_cancels() {
    let mut bench = Bench::open(1);
    (0..2).for_each(|body| bench.event(ClientEvent::Submit(request(body))));
    bench.event(ClientEvent::Cancel(RequestId(1), Cancel::Soft));
    assert_eq!(bench.effects().pop(), Some(Effect::Cancel(LINK, RequestId(1), Submission(1))));
    bench.event(ClientEvent::SocketLost(LINK));
    bench.sleep(SECOND);
    bench.greet(LINK, 1);
    let effects = bench.effects();
    let tail = &effects[effects.len() - 4..];
    assert!(matches!(tail[0], Effect::Service(..)));
    assert!(matches!(tail[1], Effect::Submit { id: RequestId(1), .. }));
    assert!(matches!(tail[2], Effect::Submit { id: RequestId(2), .. }));
    assert_eq!(tail[3], Effect::Cancel(LINK, RequestId(1), Submission(1)));
}

#[test]
fn an_at_most_once_request_is_lost_once_its_broker_may_have_forgotten_it() {
    for (away, is_lost) in [(30, false), (61, true)] {
        let mut bench = Bench::open(1);
        let once = NewRequest { is_at_most_once: true, ..request(0) };
        bench.event(ClientEvent::Submit(once));
        bench.event(ClientEvent::Submit(request(1)));
        bench.event(ClientEvent::SocketLost(LINK));
        bench.effects();
        (0..away).for_each(|_| bench.sleep(SECOND));
        bench.greet(LINK, 1);
        let effects = bench.effects();
        let lost = Effect::Resolve(RequestId(1), 0, End::Local(LocalEnd::Lost));
        assert_eq!(effects.contains(&lost), is_lost, "{away} s away: {effects:?}");
        bench.outbox.effects = effects;
        let again = bench.submits().iter().filter(|submit| submit.0 == 1).count();
        assert_eq!(again, usize::from(!is_lost));
    }
}

#[test]
fn what_a_broker_that_stays_away_held_goes_to_another_and_the_first_end_wins() {
    let mut bench = Bench::open(2);
    let (a, b) = (LinkId(0), LinkId(1));
    bench.event(ClientEvent::Submit(request(0)));
    bench.event(ClientEvent::SocketLost(a));
    for _ in 0..8 {
        bench.sleep(SECOND / 2);
        bench.receive(b, FromBroker::Heartbeat(Heartbeat { sequence: 0, silence_ns: None }));
    }
    let effects = bench.effects();
    bench.outbox.effects = effects.clone();
    assert_eq!(bench.submits(), [(1, 1, a), (1, 2, b)]);
    bench.outbox.effects = effects;
    bench.greet(a, 1);
    bench.effects();
    bench.receive(a, FromBroker::Result(result(1, 1, Status::Cancelled)));
    assert_eq!(bench.ends(), []);
    bench.receive(a, FromBroker::Result(result(1, 1, Status::Ok)));
    let effects = bench.effects();
    assert!(effects.contains(&Effect::Cancel(b, RequestId(1), Submission(2))), "{effects:?}");
    assert_eq!(bench.client.unresolved(), 0);
}

#[test]
fn a_later_start_travels_as_time_left() {
    let mut bench = Bench::open(1);
    let start_at = Some(bench.now.after(10 * SECOND));
    let later = NewRequest { start_at, ..request(0) };
    bench.event(ClientEvent::Submit(later));
    for away in [SECOND, 10 * SECOND] {
        bench.event(ClientEvent::SocketLost(LINK));
        bench.sleep(away);
        bench.greet(LINK, 1);
    }
    assert_eq!(bench.outbox.starts, [Some(10 * SECOND), Some(9 * SECOND), None]);
}

#[test]
fn a_deadline_travels_as_time_left_and_ends_here_while_no_broker_can_be_asked() {
    let mut bench = Bench::open(1);
    let deadline = bench.now.after(10 * SECOND);
    bench.event(ClientEvent::Submit(NewRequest { deadline, ..request(0) }));
    let left = |effects: &[Effect]| match effects.last() {
        Some(Effect::Submit { left, .. }) => *left,
        other => panic!("{other:?}"),
    };
    assert_eq!(left(&bench.effects()), Some(10 * SECOND));
    bench.event(ClientEvent::SocketLost(LINK));
    bench.sleep(SECOND);
    bench.greet(LINK, 1);
    assert_eq!(left(&bench.effects()), Some(9 * SECOND));
    bench.event(ClientEvent::SocketLost(LINK));
    bench.sleep(10 * SECOND);
    assert_eq!(bench.ends(), [(1, End::Local(LocalEnd::Expired))]);
    assert_eq!(bench.client.unresolved(), 0);
}

#[test]
fn a_long_payload_is_announced_and_its_silence_not_judged() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(NewRequest { bytes: 4 << 20, ..request(0) }));
    let effects = bench.effects();
    assert_eq!(effects[1], Effect::Heartbeat(LINK, 1, Some(16 * SECOND)));
    assert!(matches!(effects[2], Effect::Submit { .. }));
    bench.sleep(15 * SECOND);
    assert!(bench.client.is_open(LINK));
    bench.sleep(6 * SECOND);
    assert!(!bench.client.is_open(LINK));
}

#[test]
fn a_silence_that_the_broker_announces_ends_with_its_next_word() {
    let mut bench = Bench::open(1);
    let silence_ns = Some(16 * SECOND);
    bench.receive(LINK, FromBroker::Heartbeat(Heartbeat { sequence: 0, silence_ns }));
    bench.sleep(15 * SECOND);
    assert!(bench.client.is_open(LINK));
    bench.receive(LINK, FromBroker::Window(Window { tasks: 100, bytes: 1 << 20 }));
    bench.receive(LINK, FromBroker::Heartbeat(Heartbeat { sequence: 0, silence_ns }));
    bench.receive(LINK, FromBroker::Window(Window { tasks: 100, bytes: 1 << 20 }));
    bench.sleep(6 * SECOND);
    assert!(!bench.client.is_open(LINK));
}

#[test]
fn a_ping_is_answered_by_its_echo_and_survives_a_lost_session() {
    let mut bench = Bench::new(1);
    bench.event(ClientEvent::Start);
    bench.event(ClientEvent::Ping(77));
    bench.greet(LINK, 3);
    bench.event(ClientEvent::SocketLost(LINK));
    bench.sleep(SECOND);
    bench.greet(LINK, 3);
    let sequence = bench.effects().into_iter().rev().find_map(|effect| match effect {
        Effect::Heartbeat(_, sequence, _) => Some(sequence),
        _ => None,
    });
    let sequence = sequence.expect("a ping is a heartbeat");
    bench.now = bench.now.after(5);
    bench.receive(LINK, FromBroker::Heartbeat(Heartbeat { sequence, silence_ns: None }));
    let pong = Pong { token: 77, round_trip_ns: 5, epoch: Epoch(3) };
    assert_eq!(bench.effects(), [Effect::Pong(pong)]);
}

#[test]
fn close_says_goodbye_only_with_nothing_unresolved_and_ends_everything() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(0)));
    bench.effects();
    bench.event(ClientEvent::Close);
    let closed = Effect::Resolve(RequestId(1), 0, End::Local(LocalEnd::Closed));
    assert_eq!(bench.effects(), [Effect::Disconnect(LINK), closed]);
    assert_eq!(bench.client.next_wakeup(), None);
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Close);
    assert_eq!(bench.effects(), [Effect::Goodbye(LINK), Effect::Disconnect(LINK)]);
}

#[test]
fn a_refusal_and_a_command_for_others_close_the_session() {
    let mut bench = Bench::open(1);
    let refused = Refused { code: RefusedCode::Malformed, reason: "x" };
    bench.receive(LINK, FromBroker::Refused(refused));
    assert!(!bench.client.is_open(LINK));
    let mut bench = Bench::open(1);
    bench.receive(LINK, FromBroker::Drain);
    let effects = bench.effects();
    assert_eq!(effects[0], Effect::Refused(LINK, RefusedCode::NotAllowed));
    assert!(!bench.client.is_open(LINK));
}
