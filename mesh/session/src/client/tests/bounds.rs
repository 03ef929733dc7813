//! Where waits, counts and limits of a client begin and end.

use super::*;
use crate::client::WakeReason;

const MS: u64 = 1_000_000;
const A: LinkId = LinkId(0);
const B: LinkId = LinkId(1);

fn with_seed(seed: u64) -> Bench {
    let mut bench = Bench::new(1);
    bench.client.random = super::super::link::Random(seed);
    bench
}

#[test]
fn nonces_are_those_of_splitmix64() {
    let mut bench = with_seed(0);
    bench.event(ClientEvent::Start);
    assert!(bench.effects().contains(&Effect::Hello(LINK, 0xe220_a839_7b1d_cdaf)));
    // One number in between is the jitter of the wait.
    wait_for_socket(&mut bench, LINK);
    assert!(bench.effects().contains(&Effect::Hello(LINK, 0x06c4_5d18_8009_454f)));
}

#[test]
fn waits_for_an_answer_and_after_lost_sockets_double_with_jitter_up_to_a_bound() {
    let (mut greetings, mut backoffs) = ([(u64::MAX, 0); 4], [(u64::MAX, 0); 8]);
    let note = |seen: &mut (u64, u64), ns: u64| *seen = (seen.0.min(ns), seen.1.max(ns));
    for seed in 0..60 {
        let mut bench = with_seed(seed);
        bench.event(ClientEvent::Start);
        for seen in &mut greetings {
            note(seen, wait_for_socket(&mut bench, LINK));
        }
        let mut bench = with_seed(seed);
        bench.event(ClientEvent::Start);
        bench.greet(LINK, 1);
        echo(&mut bench, LINK);
        for seen in backoffs.iter_mut().step_by(2) {
            bench.event(ClientEvent::SocketLost(LINK));
            note(seen, wait_for_socket(&mut bench, LINK));
        }
    }
    let bounds = |first: u64, most: u64, at: u32| (first << at).min(most);
    for (at, seen) in (0..).zip(greetings) {
        let most = bounds(3_000 * MS, 12_000 * MS, at);
        assert!(seen.0 >= most / 2 && seen.1 <= most, "greeting {at}: {seen:?}");
        assert!(seen.0 < most * 6 / 10 && seen.1 > most * 9 / 10, "greeting {at}: {seen:?}");
    }
    // Each attempt counts twice: its HELLO and its end.
    for (at, seen) in (0..).zip(backoffs).step_by(2) {
        let most = bounds(100 * MS, 5_000 * MS, at);
        assert!(seen.0 >= most / 2 && seen.1 <= most, "backoff {at}: {seen:?}");
        assert!(seen.0 < most * 6 / 10 && seen.1 > most * 9 / 10, "backoff {at}: {seen:?}");
    }
}

#[test]
fn nothing_is_opened_or_given_up_before_its_time() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::SocketLost(LINK));
    bench.effects();
    wake(&mut bench);
    assert_eq!(bench.effects(), [], "it waits before it opens another socket");
    let (at, why) = bench.client.next_wakeup().unwrap();
    assert_eq!(why, WakeReason::Reconnect);
    bench.now = at;
    wake(&mut bench);
    assert_eq!(bench.effects()[0], Effect::Connect(LINK));
    wake(&mut bench);
    assert_eq!(bench.effects(), [], "it waits for WELCOME");
    let (at, why) = bench.client.next_wakeup().unwrap();
    assert_eq!(why, WakeReason::Greeting);
    bench.now = at;
    bench.event(ClientEvent::Wakeup { is_emptied: false });
    assert_eq!(bench.effects(), [], "WELCOME may be in the socket");
    wake(&mut bench);
    assert_eq!(bench.effects()[..2], [Effect::Closed(LINK), Effect::Connect(LINK)]);
}

#[test]
fn a_header_as_long_as_the_broker_takes_is_sent_and_one_byte_more_ends_here() {
    // Beside the options it has 64 bytes and the name of the service, "echo".
    for (options, is_sent) in [(4096 - 64 - 4, true), (4096 - 64 - 3, false)] {
        let mut bench = Bench::open(1);
        let options = Some(vec![0; options].into());
        bench.event(ClientEvent::Submit(NewRequest { options, ..request(0) }));
        assert_eq!(bench.submits().len(), usize::from(is_sent));
    }
    for (bytes, is_sent) in [(1 << 26, true), ((1 << 26) + 1, false)] {
        let mut bench = Bench::open(1);
        bench.event(ClientEvent::Submit(NewRequest { bytes, ..request(0) }));
        assert_eq!(bench.submits().len(), usize::from(is_sent));
    }
}

#[test]
fn a_payload_of_one_frame_is_not_announced_and_a_longer_one_is() {
    for (bytes, silence) in [(1 << 20, None), ((1 << 20) + 1, Some(4 * SECOND + 3_814))] {
        let mut bench = Bench::open(1);
        bench.event(ClientEvent::Submit(NewRequest { bytes, ..request(0) }));
        let announced = bench.effects().into_iter().filter_map(|effect| match effect {
            Effect::Heartbeat(_, _, silence) => silence,
            _ => None,
        });
        assert_eq!(announced.collect::<Vec<_>>(), silence.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn the_broker_with_the_fewest_outstanding_is_chosen_and_the_first_among_equals() {
    let mut bench = Bench::open(3);
    (0..4).for_each(|body| bench.event(ClientEvent::Submit(request(body))));
    let to: Vec<_> = bench.submits().into_iter().map(|(_, _, to)| to.0).collect();
    assert_eq!(to, [0, 1, 2, 0]);
    bench.receive(LinkId(1), FromBroker::Result(result(2, 1, Status::Ok)));
    bench.event(ClientEvent::Submit(request(4)));
    assert_eq!(bench.submits(), [(5, 1, LinkId(1))]);
}

#[test]
fn with_every_broker_busy_a_request_waits_for_the_first_that_is_not() {
    let mut bench = Bench::open(2);
    let busy =
        |after: u64| TaskResult { retry_after_ns: Some(after * MS), ..result(1, 1, Status::Busy) };
    bench.event(ClientEvent::Submit(request(0)));
    bench.receive(A, FromBroker::Result(busy(400)));
    assert_eq!(bench.submits(), [(1, 1, A), (1, 2, B)]);
    bench.receive(B, FromBroker::Result(TaskResult { submission: Submission(2), ..busy(200) }));
    assert_eq!((bench.submits(), bench.client.counters().busy), (vec![], 2));
    let due = bench.now.after(200 * MS);
    assert_eq!(bench.client.next_wakeup(), Some((due, WakeReason::Retry)));
    bench.sleep(200 * MS);
    assert_eq!(bench.submits(), [(1, 3, B)]);
}

#[test]
fn busy_holds_off_its_own_service_until_the_time_it_named_and_no_other() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Service("other"));
    bench.event(ClientEvent::Submit(request(0)));
    bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Busy)));
    bench.effects();
    let other = NewRequest { service: ServiceId(1), ..request(1) };
    bench.event(ClientEvent::Submit(other));
    assert_eq!(bench.submits(), [(2, 1, LINK)]);
    bench.event(ClientEvent::Submit(request(2)));
    assert_eq!(bench.submits(), []);
    bench.sleep(SECOND - 1);
    assert_eq!(bench.submits(), []);
    bench.sleep(1);
    assert_eq!(bench.submits(), [(1, 2, LINK), (3, 1, LINK)]);
}

#[test]
fn a_broker_that_names_no_time_or_a_silly_one_is_asked_again_within_bounds() {
    for (named, waits) in [(None, MS), (Some(0), MS), (Some(u64::MAX), 60 * SECOND)] {
        let mut bench = Bench::open(1);
        bench.event(ClientEvent::Submit(request(0)));
        let busy = TaskResult { retry_after_ns: named, ..result(1, 1, Status::Busy) };
        bench.receive(LINK, FromBroker::Result(busy));
        let retry = bench.client.delayed.first().map(|&(at, _)| at.since(bench.now));
        assert_eq!(retry, Some(waits));
    }
}

#[test]
fn busy_ends_what_could_not_be_asked_again_before_its_deadline() {
    for (left, is_over) in [(SECOND, true), (SECOND + 1, false)] {
        let mut bench = Bench::open(1);
        let deadline = bench.now.after(left);
        bench.event(ClientEvent::Submit(NewRequest { deadline, ..request(0) }));
        bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Busy)));
        assert_eq!(bench.client.unresolved(), usize::from(!is_over));
    }
}

#[test]
fn a_request_whose_deadline_has_come_is_not_sent() {
    for (waited, is_sent) in [(SECOND, false), (SECOND - 1, true)] {
        let mut bench = Bench::open(1);
        (0..4).for_each(|body| bench.event(ClientEvent::Submit(request(body))));
        let deadline = bench.now.after(SECOND);
        bench.event(ClientEvent::Submit(NewRequest { deadline, ..request(4) }));
        bench.effects();
        bench.now = bench.now.after(waited);
        bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Ok)));
        assert_eq!(bench.submits().len(), usize::from(is_sent));
        assert_eq!(bench.client.unresolved(), 3 + usize::from(is_sent));
    }
}

#[test]
fn only_a_client_with_deadlines_that_nobody_else_watches_wakes_for_them() {
    let expiry = |bench: &Bench| {
        let wakeup = bench.client.next_wakeup();
        wakeup.is_some_and(|(at, why)| why == WakeReason::Expiry && at <= bench.now)
    };
    let mut bench = Bench::open(1);
    let deadline = bench.now.after(10 * SECOND);
    (0..4).for_each(|body| bench.event(ClientEvent::Submit(request(body))));
    bench.event(ClientEvent::Submit(request(4)));
    assert!(!expiry(&bench), "what waits has no deadline");
    bench.event(ClientEvent::Submit(NewRequest { deadline, ..request(5) }));
    assert!(expiry(&bench), "it waits here");
    bench.sleep(0);
    bench.event(ClientEvent::Cancel(RequestId(6), Cancel::Soft));
    bench.event(ClientEvent::Cancel(RequestId(5), Cancel::Soft));
    assert!(!expiry(&bench));
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(NewRequest { deadline, ..request(0) }));
    assert!(!expiry(&bench), "its broker watches it");
    bench.event(ClientEvent::SocketLost(LINK));
    assert!(expiry(&bench), "its broker cannot be asked");
    bench.sleep(9 * SECOND + 900 * MS);
    assert_eq!(bench.ends(), []);
    bench.sleep(100 * MS);
    assert_eq!(bench.ends(), [(1, End::Local(LocalEnd::Expired))]);
}

#[test]
fn a_deadline_passes_for_what_waits_out_busy() {
    let mut bench = Bench::open(1);
    let deadline = bench.now.after(SECOND + 10 * MS);
    bench.event(ClientEvent::Submit(request(0)));
    bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Busy)));
    bench.sleep(500 * MS);
    bench.event(ClientEvent::Submit(NewRequest { deadline: bench.now.after(MS), ..request(1) }));
    bench.event(ClientEvent::Submit(NewRequest { deadline, ..request(2) }));
    bench.effects();
    bench.sleep(100 * MS);
    assert_eq!(bench.ends(), [(2, End::Local(LocalEnd::Expired))]);
    bench.sleep(400 * MS);
    assert_eq!(bench.submits(), [(1, 2, LINK), (3, 1, LINK)]);
}
