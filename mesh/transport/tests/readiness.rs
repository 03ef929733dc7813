//! Sleeping, waking and being woken.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::{Duration, Instant};

use pinmesh_transport::{
    Context, ContextOptions, Dealer, Message, Poller, Router, SendOutcome, SocketOptions, Token,
    Wake,
};

const LIMIT: Duration = Duration::from_secs(60);
/// A wait this long, with messages on their way, has lost its wake-up.
const LOST: Duration = Duration::from_secs(30);

fn context() -> Context {
    Context::new(&ContextOptions::default()).unwrap()
}

fn connected(context: &Context) -> (Router, Dealer) {
    let options = SocketOptions::default();
    let router = Router::bind(context, &"tcp://127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let dealer = Dealer::connect(context, router.endpoint(), &options).unwrap();
    (router, dealer)
}

/// Up to 2 ms of work, in which signals arrive. libzmq takes signals in during a send only if a
/// millisecond has passed since it last did.
fn work(turn: u32) {
    let length = Duration::from_micros(u64::from(turn.wrapping_mul(2_654_435_761) >> 21));
    let start = Instant::now();
    while start.elapsed() < length {
        std::hint::spin_loop();
    }
}

/// Each side empties its socket, works, sends, and sleeps: the order in which a send swallows the
/// signal of what came in meanwhile. A wait that runs into its timeout has lost a wake-up, for
/// until the end there are always messages in flight.
fn ping_pong(rounds: u32, in_flight: u32, spin: Duration) {
    let context = context();
    let (mut router, mut dealer) = connected(&context);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut poller = Poller::new().unwrap();
            poller.register(&mut router, Token(0)).unwrap();
            let mut message = Message::default();
            let mut batch = Vec::new();
            let (mut echoed, mut turn) = (0, 0);
            while echoed < rounds {
                while router.recv(&mut message).unwrap() {
                    batch.push((message.from, message.body().to_vec()));
                }
                work(turn);
                turn += 1;
                for (to, body) in batch.drain(..) {
                    let sent = router.send(to, &body, &mut Vec::new()).unwrap();
                    assert_eq!(sent, SendOutcome::Sent);
                    echoed += 1;
                }
                if echoed < rounds {
                    let wake = poller.wait(&mut [&mut router], Some(LOST), spin).unwrap();
                    assert!(!wake.is_idle(), "the router lost a wake-up after {echoed} messages");
                }
            }
        });
        let mut poller = Poller::new().unwrap();
        poller.register(&mut dealer, Token(0)).unwrap();
        let mut message = Message::default();
        let (mut sent, mut received) = (0, 0);
        let mut turn = 7;
        while received < rounds {
            while dealer.recv(&mut message).unwrap() {
                assert_eq!(message.body(), u32::to_be_bytes(received));
                received += 1;
            }
            work(turn);
            turn += 1;
            while sent < rounds && sent - received < in_flight {
                let outcome = dealer.send(&u32::to_be_bytes(sent), &mut Vec::new()).unwrap();
                assert_eq!(outcome, SendOutcome::Sent);
                sent += 1;
            }
            if received < rounds {
                let wake = poller.wait(&mut [&mut dealer], Some(LOST), spin).unwrap();
                assert!(!wake.is_idle(), "the dealer lost a wake-up after {received} messages");
            }
        }
    });
}

#[test]
fn no_wake_up_is_lost_with_one_message_in_flight() {
    ping_pong(1_000, 1, Duration::ZERO);
}

#[test]
fn no_wake_up_is_lost_with_many_messages_in_flight_and_work_between() {
    ping_pong(10_000, 8, Duration::ZERO);
}

#[test]
fn no_wake_up_is_lost_when_spinning_first() {
    ping_pong(4_000, 4, Duration::from_micros(50));
}

#[test]
fn a_waker_ends_a_wait_without_a_timeout_and_is_named() {
    let context = context();
    let (mut router, _dealer) = connected(&context);
    let mut poller = Poller::new().unwrap();
    poller.register(&mut router, Token(0)).unwrap();
    let waker = poller.waker(Token(1)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || waker.wake().unwrap());
        let mut message = Message::default();
        loop {
            let wake = poller.wait(&mut [&mut router], None, Duration::ZERO).unwrap();
            if wake.others {
                break;
            }
            assert!(!router.recv(&mut message).unwrap());
        }
        assert_eq!(poller.others(), [Token(1)]);
    });
}

#[test]
fn other_sources_are_seen_although_a_socket_always_has_input() {
    let context = context();
    let (mut router, mut dealer) = connected(&context);
    let mut poller = Poller::new().unwrap();
    poller.register(&mut router, Token(0)).unwrap();
    let waker = poller.waker(Token(1)).unwrap();
    // Most of them are never read, so that there is input at every wait.
    for _ in 0..1_000 {
        let _ = dealer.send(b"hello", &mut Vec::new()).unwrap();
    }
    let mut wait = |poller: &mut Poller| -> Wake {
        poller.wait(&mut [&mut router], Some(LIMIT), Duration::ZERO).unwrap()
    };
    while !(0..10).all(|_| wait(&mut poller) == Wake { sockets: true, others: false }) {}
    waker.wake().unwrap();
    assert!((0..1_000).any(|_| wait(&mut poller).others));
    assert_eq!(poller.others(), [Token(1)]);
}

#[test]
fn a_wait_that_finds_nothing_is_idle() {
    let mut poller = Poller::new().unwrap();
    for spin in [Duration::ZERO, Duration::from_micros(100)] {
        for timeout in [Duration::ZERO, Duration::from_millis(1)] {
            assert!(poller.wait(&mut [], Some(timeout), spin).unwrap().is_idle());
        }
    }
}

#[test]
#[should_panic(expected = "wait must be given every registered socket")]
fn a_socket_left_out_of_a_wait_is_our_own_mistake() {
    let context = context();
    let (mut router, _dealer) = connected(&context);
    let mut poller = Poller::new().unwrap();
    poller.register(&mut router, Token(0)).unwrap();
    let _ = poller.wait(&mut [], Some(Duration::ZERO), Duration::ZERO);
}

#[test]
fn a_socket_can_leave_a_poller_and_join_another() {
    let context = context();
    let (mut router, mut dealer) = connected(&context);
    let mut first = Poller::new().unwrap();
    first.register(&mut router, Token(0)).unwrap();
    first.deregister(&mut router).unwrap();
    assert!(first.wait(&mut [], Some(Duration::ZERO), Duration::ZERO).unwrap().is_idle());
    let mut second = Poller::new().unwrap();
    second.register(&mut router, Token(5)).unwrap();
    let _ = dealer.send(b"hello", &mut Vec::new()).unwrap();
    let mut message = Message::default();
    while !router.recv(&mut message).unwrap() {
        let wake = second.wait(&mut [&mut router], Some(LIMIT), Duration::ZERO).unwrap();
        assert!(!wake.is_idle());
    }
    assert_eq!(message.body(), b"hello");
}

#[test]
fn io_threads_run_on_the_cpus_that_were_named_and_the_caller_stays_where_it_was() {
    let before = allowed_cpus("/proc/thread-self/status");
    let first: usize = before.split([',', '-']).next().unwrap().parse().unwrap();
    let options = ContextOptions {
        io_cpus: Some(vec![first]),
        thread_name: "pinx".into(),
        ..ContextOptions::default()
    };
    let _context = Context::new(&options).unwrap();
    assert_eq!(allowed_cpus("/proc/thread-self/status"), before);
    // libzmq's threads name themselves once they run: one to close sockets, one for IO.
    let start = Instant::now();
    let mut found = Vec::new();
    while found.len() < 2 {
        assert!(start.elapsed() < LIMIT, "no threads called pinx");
        found = fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|task| task.unwrap().path())
            .filter(|task| {
                fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("pinx"))
            })
            .collect();
        std::thread::yield_now();
    }
    for task in found {
        assert_eq!(allowed_cpus(task.join("status").to_str().unwrap()), first.to_string());
    }
}

fn allowed_cpus(status: &str) -> String {
    let text = fs::read_to_string(status).unwrap();
    let line = text.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}
