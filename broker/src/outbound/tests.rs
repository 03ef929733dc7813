//! Outbound with real sockets: peers that are full, gone, strangers or closed.

use std::time::{Duration, Instant};

use pinmesh_core::{ResultBody, ResultHead};
use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::id::{ContentType, RequestId, Submission};
use pinmesh_protocol::status::Status;
use pinmesh_transport::{
    Context, ContextOptions, Dealer, Message, Pollable, Poller, SocketOptions, Token,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const STEP: Span = Span::from_millis(60);

struct Pair {
    outbound: Outbound,
    dealer: Dealer,
    conn: Conn,
}

/// An outbound side and one peer that it knows, with queues of one message each.
fn pair() -> Pair {
    let context = Context::new(&ContextOptions::default()).unwrap();
    let options = SocketOptions { queue_messages_max: 1, ..SocketOptions::default() };
    let endpoint = "tcp://127.0.0.1:0".parse().unwrap();
    let backend = Router::bind(&context, &endpoint, &options).unwrap();
    let mut frontend = Router::bind(&context, &endpoint, &options).unwrap();
    let mut dealer = Dealer::connect(&context, frontend.endpoint(), &options).unwrap();
    assert_eq!(dealer.send(b"here", &mut Vec::new()).unwrap(), SendOutcome::Sent);
    let mut message = Message::default();
    let mut poller = Poller::new().unwrap();
    poller.register(&mut frontend, Token(0)).unwrap();
    while !frontend.recv(&mut message).unwrap() {
        let mut sockets: [&mut dyn Pollable; 1] = [&mut frontend];
        let wake = poller.wait(&mut sockets, Some(LIMIT), Duration::ZERO).unwrap();
        assert!(!wake.is_idle(), "the dealer's message does not come");
    }
    let stages = Stages::new(None, Instant::now()).unwrap();
    let mut outbound = Outbound::new(Sockets { frontend, backend }, 10, stages);
    let conn = outbound.connections.find_or_insert(Side::Frontend, message.from).unwrap();
    Pair { outbound, dealer, conn }
}

fn send_result(outbound: &mut Outbound, to: Conn, number: u64, text: &str) {
    let head = ResultHead {
        request_id: RequestId(number),
        submission: Submission(1),
        status: Status::Failed,
        tries: 0,
        stages: None,
        retry_after_ns: None,
    };
    outbound.result(to, &head, ResultBody::Text(text));
}

/// Sends results of 30 KB until the peer is full; how many there were.
fn fill(outbound: &mut Outbound, conn: Conn) -> u64 {
    let text = "x".repeat(30_000);
    for number in 1..100_000 {
        send_result(outbound, conn, number, &text);
        outbound.flush().unwrap();
        if let Some(notice) = outbound.take_notice() {
            assert_eq!(notice, Notice::Full(conn));
            return number;
        }
    }
    panic!("3 GB went to a peer that does not read");
}

#[test]
fn a_full_peer_is_told_of_and_gets_everything_in_order_once_it_reads() {
    let Pair { mut outbound, mut dealer, conn } = pair();
    let last = fill(&mut outbound, conn) + 1;
    send_result(&mut outbound, conn, last, "last");
    outbound.flush().unwrap();
    assert_eq!(outbound.take_notice(), None, "full is said once");

    let (mut received, mut is_sendable) = (0, false);
    let mut message = Message::default();
    let deadline = Instant::now() + LIMIT;
    let mut now = outbound.next_retry();
    while received < last || !is_sendable {
        assert!(Instant::now() < deadline, "{received} of {last}, sendable: {is_sendable}");
        while dealer.recv(&mut message).unwrap() {
            let mut reader = BatchReader::new(message.body(), &[]);
            while let Some(command) = reader.next_from_broker() {
                let FromBroker::Result(result) = command.unwrap() else { panic!("no result") };
                received += 1;
                assert_eq!(result.request_id, RequestId(received));
            }
        }
        now = now.after(STEP);
        outbound.retry(now);
        while let Some(notice) = outbound.take_notice() {
            assert_eq!(notice, Notice::Sendable(conn));
            is_sendable = true;
        }
    }
    assert_eq!(outbound.next_retry(), Time::NEVER);
    assert_eq!(outbound.counters.full, 1);
}

#[test]
fn a_peer_that_falls_too_far_behind_is_given_up() {
    let Pair { mut outbound, dealer: _dealer, conn } = pair();
    let text = "x".repeat(30_000);
    let sent = fill(&mut outbound, conn);
    let most = sent + QUEUE_BYTES_MAX / 30_000 + 2;
    let notice = (sent + 1..=most).find_map(|number| {
        send_result(&mut outbound, conn, number, &text);
        outbound.flush().unwrap();
        outbound.take_notice()
    });
    assert_eq!(notice, Some(Notice::Gone(conn)));
    send_result(&mut outbound, conn, 1, "dropped");
    outbound.flush().unwrap();
    assert_eq!(outbound.take_notice(), None);
    outbound.retry(Time::NEVER);
    assert_eq!(outbound.next_retry(), Time::NEVER);
    outbound.forget(conn);
    assert!(outbound.connections.get(conn).is_none());
}

#[test]
fn a_peer_that_left_is_gone_at_the_next_send() {
    let Pair { mut outbound, .. } = pair();
    let nobody = RoutingId::from_number(77);
    let conn = outbound.connections.find_or_insert(Side::Backend, nobody).unwrap();
    send_result(&mut outbound, conn, 1, "anyone?");
    outbound.flush().unwrap();
    assert_eq!(outbound.take_notice(), Some(Notice::Gone(conn)));
    assert_eq!(outbound.counters.gone, 1);
}

#[test]
fn a_closed_peer_gets_what_was_said_last_and_is_forgotten() {
    let Pair { mut outbound, mut dealer, conn } = pair();
    outbound.send(conn, FromBroker::NoSession);
    outbound.close(conn);
    assert!(outbound.connections.get(conn).is_some());
    outbound.flush().unwrap();
    assert!(outbound.connections.get(conn).is_none());
    let mut message = Message::default();
    let deadline = Instant::now() + LIMIT;
    while !dealer.recv(&mut message).unwrap() {
        assert!(Instant::now() < deadline, "NO_SESSION does not come");
        std::thread::yield_now();
    }
    let mut reader = BatchReader::new(message.body(), &[]);
    assert_eq!(reader.next_from_broker(), Some(Ok(FromBroker::NoSession)));
}

#[test]
fn a_long_payload_is_announced_in_a_message_of_its_own() {
    let Pair { mut outbound, mut dealer, conn } = pair();
    let bytes: usize = 2 << 20;
    let body = Body::inline(ContentType::RAW, None, &vec![7; bytes]);
    let head = ResultHead {
        request_id: RequestId(1),
        submission: Submission(1),
        status: Status::Ok,
        tries: 0,
        stages: None,
        retry_after_ns: None,
    };
    outbound.result(conn, &head, ResultBody::Handler(&body));
    let mut message = Message::default();
    let mut heard = Vec::new();
    let deadline = Instant::now() + LIMIT;
    while heard.len() < 2 {
        assert!(Instant::now() < deadline, "{heard:?}");
        outbound.flush().unwrap();
        outbound.retry(outbound.next_retry());
        while dealer.recv(&mut message).unwrap() {
            let lens: Vec<usize> = message.frames[1..].iter().map(|frame| frame.len()).collect();
            let mut reader = BatchReader::new(message.body(), &lens);
            heard.push(match reader.next_from_broker() {
                Some(Ok(FromBroker::Heartbeat(beat))) => (beat.sequence, beat.silence_ns),
                Some(Ok(FromBroker::Result(result))) => (result.payload.len(), None),
                other => panic!("{other:?}"),
            });
            assert_eq!(reader.next_from_broker(), None);
        }
    }
    assert_eq!(heard, [(0, Some(8_000_000_000)), (bytes as u64, None)]);
}

#[test]
fn strangers_are_answered_at_a_bounded_rate() {
    let Pair { mut outbound, conn, .. } = pair();
    for _ in 0..2 * STRANGERS_PER_S {
        outbound.send(conn, FromBroker::NoSession);
    }
    assert_eq!(outbound.counters.strangers_answered, u64::from(STRANGERS_PER_S));
    assert_eq!(outbound.counters.strangers_suppressed, u64::from(STRANGERS_PER_S));
}
