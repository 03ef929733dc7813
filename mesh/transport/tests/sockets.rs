//! Router and Dealer against each other, over tcp and ipc on this host.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use pinmesh_transport::{
    Context, ContextOptions, Dealer, Endpoint, Frame, Message, MessageFault, Pollable, Poller,
    Router, RoutingId, SendOutcome, SocketOptions, Token, TransportError,
};

const LIMIT: Duration = Duration::from_secs(60);

fn context() -> Context {
    Context::new(&ContextOptions::default()).unwrap()
}

fn any_port() -> Endpoint {
    "tcp://127.0.0.1:0".parse().unwrap()
}

/// A router and a dealer that have a poller each, as they would in two processes.
struct Pair {
    router: Router,
    router_poller: Poller,
    dealer: Dealer,
    dealer_poller: Poller,
}

impl Pair {
    fn new(endpoint: &Endpoint, options: &SocketOptions) -> Self {
        let context = context();
        let mut router = Router::bind(&context, endpoint, options).unwrap();
        let mut dealer = Dealer::connect(&context, router.endpoint(), options).unwrap();
        let mut router_poller = Poller::new().unwrap();
        router_poller.register(&mut router, Token(7)).unwrap();
        let mut dealer_poller = Poller::new().unwrap();
        dealer_poller.register(&mut dealer, Token(7)).unwrap();
        Self { router, router_poller, dealer, dealer_poller }
    }

    fn tcp() -> Self {
        Self::new(&any_port(), &SocketOptions::default())
    }

    fn router_recv(&mut self) -> Message {
        let router = &mut self.router;
        receive(&mut self.router_poller, router, Router::recv)
    }

    fn dealer_recv(&mut self) -> Message {
        receive(&mut self.dealer_poller, &mut self.dealer, Dealer::recv)
    }

    /// The dealer's address, learned from a message of its.
    fn greet(&mut self) -> RoutingId {
        assert_eq!(self.dealer.send(b"hello", &mut Vec::new()).unwrap(), SendOutcome::Sent);
        self.router_recv().from
    }
}

fn receive<S: Pollable>(
    poller: &mut Poller,
    socket: &mut S,
    recv: impl Fn(&mut S, &mut Message) -> Result<bool, TransportError>,
) -> Message {
    let mut message = Message::default();
    let start = Instant::now();
    while !recv(socket, &mut message).unwrap() {
        assert!(start.elapsed() < LIMIT, "nothing came");
        let _ = poller.wait(&mut [&mut *socket], Some(LIMIT), Duration::ZERO).unwrap();
    }
    message
}

fn patterned(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

#[test]
fn messages_go_both_ways_over_tcp_and_ipc() {
    let folder = tempfile::tempdir().unwrap();
    let ipc = Endpoint::ipc(&folder.path().join("made/socket")).unwrap();
    for endpoint in [any_port(), "tcp://localhost:*".parse().unwrap(), ipc] {
        let mut pair = Pair::new(&endpoint, &SocketOptions::default());
        assert_ne!(pair.router.endpoint().port(), Some(0));
        let batch = patterned(60 << 10, 1);
        for body in [&b""[..], b"x", &batch[..33], &batch[..34], &batch] {
            assert_eq!(pair.dealer.send(body, &mut Vec::new()).unwrap(), SendOutcome::Sent);
            let there = pair.router_recv();
            assert_eq!((there.body(), there.frames.len(), there.fault), (body, 1, None));
            assert_eq!(there.user_id(), None);
            let sent = pair.router.send(there.from, body, &mut Vec::new()).unwrap();
            assert_eq!(sent, SendOutcome::Sent);
            let back = pair.dealer_recv();
            assert_eq!((back.body(), back.from), (body, RoutingId::NONE));
        }
    }
    assert_eq!(std::fs::read_dir(folder.path().join("made")).unwrap().count(), 0);
}

#[test]
fn a_64_mib_payload_goes_as_64_shared_frames() {
    let mut pair = Pair::tcp();
    let mut megabyte = Frame::from(patterned(1 << 20, 3));
    let mut attachments: Vec<Frame> = (0..64).map(|_| megabyte.share()).collect();
    assert!(attachments.iter().all(|frame| frame.as_ptr() == megabyte.as_ptr()));
    let sent = pair.dealer.send(b"header", &mut attachments).unwrap();
    assert_eq!((sent, attachments.len()), (SendOutcome::Sent, 0));

    let mut message = pair.router_recv();
    assert_eq!((message.body(), message.frames.len()), (&b"header"[..], 65));
    assert!(message.attachments().iter().all(|frame| **frame == *megabyte));
    // Relayed as it came, without copying it into frames of our own.
    let mut relayed: Vec<Frame> = message.frames.drain(1..).collect();
    let sent = pair.router.send(message.from, b"back", &mut relayed).unwrap();
    assert_eq!(sent, SendOutcome::Sent);
    let back = pair.dealer_recv();
    assert_eq!((back.body(), back.frames.len()), (&b"back"[..], 65));
    assert!(back.frames[1..].iter().all(|frame| **frame == *megabyte));
}

#[test]
fn frames_shared_between_threads_keep_their_bytes() {
    let bytes = patterned(1 << 16, 9);
    for mut frame in [Frame::from(bytes.clone()), Frame::copy_of(&bytes), Frame::copy_of(b"tiny")] {
        let expected = frame.to_vec();
        let shares: Vec<Frame> = (0..4).map(|_| frame.share()).collect();
        std::thread::scope(|scope| {
            for mut share in shares {
                let expected = &expected;
                scope.spawn(move || {
                    let moved = Box::new(share.share());
                    drop(share);
                    assert_eq!(**moved, **expected);
                });
            }
            let frame = &frame;
            scope.spawn(move || assert_eq!(frame.len(), frame.to_vec().len()));
        });
        drop(frame.share());
        assert_eq!(*frame, *expected);
    }
    assert!(Frame::from(Vec::new()).is_empty());
}

#[test]
fn a_send_to_nobody_or_to_a_peer_that_left_says_gone_and_keeps_the_frames() {
    let mut pair = Pair::tcp();
    let mut frames = vec![Frame::copy_of(b"kept")];
    for nobody in [RoutingId::NONE, RoutingId::from_number(1)] {
        let sent = pair.router.send(nobody, b"head", &mut frames).unwrap();
        assert_eq!((sent, frames.len()), (SendOutcome::Gone, 1));
    }
    let peer = pair.greet();
    let Pair { mut router, router_poller: mut poller, dealer, dealer_poller, .. } = pair;
    drop((dealer, dealer_poller));
    let start = Instant::now();
    loop {
        match router.send(peer, b"are you there", &mut frames).unwrap() {
            SendOutcome::Gone => break,
            SendOutcome::Sent => frames.push(Frame::copy_of(b"kept")),
            SendOutcome::Full => {}
        }
        assert!(start.elapsed() < LIMIT);
        let wait = Some(Duration::from_millis(10));
        let _ = poller.wait(&mut [&mut router], wait, Duration::ZERO).unwrap();
        while router.recv(&mut Message::default()).unwrap() {}
    }
    assert_eq!((frames.len(), &*frames[0]), (1, &b"kept"[..]));
}

#[test]
fn a_full_queue_says_full_and_the_kept_frames_go_later() {
    let options = SocketOptions { queue_messages_max: 2, ..SocketOptions::default() };
    let mut pair = Pair::new(&any_port(), &options);
    let peer = pair.greet();
    let bytes = patterned(1 << 20, 5);
    let mut frames = vec![Frame::from(bytes.clone())];
    let mut sent = 0u32;
    // The dealer does not read, so its queues, the sockets' buffers and our queue fill up.
    loop {
        match pair.router.send(peer, &sent.to_be_bytes(), &mut frames).unwrap() {
            SendOutcome::Sent => frames.push(Frame::from(bytes.clone())),
            outcome => {
                assert_eq!(outcome, SendOutcome::Full);
                break;
            }
        }
        sent += 1;
        assert!(sent < 10_000);
    }
    assert_eq!((frames.len(), &*frames[0]), (1, &bytes[..]));
    for number in 0..sent {
        assert_eq!(pair.dealer_recv().body(), number.to_be_bytes());
    }
    let start = Instant::now();
    while pair.router.send(peer, b"late", &mut frames).unwrap() != SendOutcome::Sent {
        assert!(start.elapsed() < LIMIT);
        let wait = Some(Duration::from_millis(10));
        let wake = pair.router_poller.wait(&mut [&mut pair.router], wait, Duration::ZERO).unwrap();
        if wake.sockets {
            assert!(!pair.router.recv(&mut Message::default()).unwrap());
        }
    }
    let late = pair.dealer_recv();
    assert_eq!((late.body(), &*late.frames[1]), (&b"late"[..], &bytes[..]));
}

#[test]
fn a_dealer_without_a_peer_queues_up_to_its_bound() {
    let context = context();
    let options = SocketOptions { queue_messages_max: 3, linger_ms: 0, ..Default::default() };
    let unbound = Router::bind(&context, &any_port(), &options).unwrap().endpoint().clone();
    let mut dealer = Dealer::connect(&context, &unbound, &options).unwrap();
    let mut frames = vec![Frame::copy_of(b"kept")];
    for _ in 0..3 {
        assert_eq!(dealer.send(b"queued", &mut Vec::new()).unwrap(), SendOutcome::Sent);
    }
    assert_eq!(dealer.send(b"one more", &mut frames).unwrap(), SendOutcome::Full);
    assert_eq!(&*frames[0], b"kept");
}

#[test]
fn messages_beyond_the_bounds_are_flagged_and_the_next_one_is_whole() {
    let options =
        SocketOptions { frames_max: 3, message_bytes_max: 1_000, ..SocketOptions::default() };
    let mut pair = Pair::new(&any_port(), &options);
    let peer = pair.greet();
    let mut dealer = |body: &[u8], frames: usize, bytes: usize| {
        let mut frames: Vec<Frame> =
            (0..frames).map(|_| Frame::from(patterned(bytes, 0))).collect();
        assert_eq!(pair.dealer.send(body, &mut frames).unwrap(), SendOutcome::Sent);
    };
    dealer(b"three frames", 2, 10);
    dealer(b"four frames", 3, 10);
    dealer(b"many bytes", 2, 499);
    dealer(b"", 2, 500);
    dealer(b"fine", 0, 0);
    for (body, frames, fault) in [
        (&b"three frames"[..], 3, None),
        (b"", 0, Some(MessageFault::TooManyFrames)),
        (b"", 0, Some(MessageFault::TooManyBytes)),
        (b"", 3, None),
        (b"fine", 1, None),
    ] {
        let message = pair.router_recv();
        assert_eq!((message.body(), message.frames.len(), message.fault), (body, frames, fault));
        assert_eq!(message.from, peer);
    }
    assert_eq!(pair.router.counters().oversized, 2);
}

#[test]
fn a_peer_that_chose_its_routing_id_is_flagged_and_counted() {
    let context = context();
    let mut router = Router::bind(&context, &any_port(), &SocketOptions::default()).unwrap();
    let mut poller = Poller::new().unwrap();
    poller.register(&mut router, Token(0)).unwrap();
    let other = zmq::Context::new();
    for id in [&b"x"[..], b"12345", &[0x7f; 200]] {
        let dealer = other.socket(zmq::DEALER).unwrap();
        dealer.set_identity(id).unwrap();
        dealer.connect(&router.endpoint().to_string()).unwrap();
        dealer.send("hello", 0).unwrap();
        let message = receive(&mut poller, &mut router, Router::recv);
        assert_eq!(message.fault, Some(MessageFault::ForeignRoutingId));
        assert_eq!((message.from, message.frames.len()), (RoutingId::NONE, 0));
    }
    assert_eq!(router.counters().foreign_routing_ids, 3);
}

#[test]
fn every_peer_has_its_own_address() {
    let context = context();
    let options = SocketOptions::default();
    let mut router = Router::bind(&context, &any_port(), &options).unwrap();
    let mut poller = Poller::new().unwrap();
    poller.register(&mut router, Token(0)).unwrap();
    let mut dealers: Vec<Dealer> =
        (0..8).map(|_| Dealer::connect(&context, router.endpoint(), &options).unwrap()).collect();
    let mut ids = HashSet::new();
    for (number, dealer) in dealers.iter_mut().enumerate() {
        let _ = dealer.send(&[number as u8], &mut Vec::new()).unwrap();
        let message = receive(&mut poller, &mut router, Router::recv);
        assert_eq!(message.body(), [number as u8]);
        ids.insert(message.from);
    }
    assert_eq!(ids.len(), dealers.len());
}

#[test]
fn a_second_bind_of_an_ipc_path_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::ipc(&folder.path().join("socket")).unwrap();
    let mut pair = Pair::new(&endpoint, &SocketOptions::default());
    let error = Router::bind(&context(), &endpoint, &SocketOptions::default()).err().unwrap();
    let message = error.to_string();
    assert!(message.contains("socket.lock"), "{message}");
    assert!(message.contains("choose another path"), "{message}");
    pair.greet();
    drop(pair);
    let mut again = Pair::new(&endpoint, &SocketOptions::default());
    again.greet();
}

#[test]
fn a_taken_port_is_an_error_that_names_the_endpoint() {
    let pair = Pair::tcp();
    let endpoint = pair.router.endpoint();
    let error = Router::bind(&context(), endpoint, &SocketOptions::default()).err().unwrap();
    assert!(error.to_string().contains(&endpoint.to_string()), "{error}");
}

#[test]
fn a_bind_that_other_hosts_can_reach_is_refused_with_the_remedy() {
    let context = context();
    for text in ["tcp://*:0", "tcp://0.0.0.0:0", "tcp://[::]:0", "tcp://192.0.2.1:5555"] {
        let endpoint: Endpoint = text.parse().unwrap();
        let error = Router::bind(&context, &endpoint, &SocketOptions::default()).err().unwrap();
        let message = error.to_string();
        for part in [&endpoint.to_string(), "127.0.0.1", "CURVE keys", "insecure = true"] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn options_out_of_range_are_refused_by_name_and_value() {
    let context = context();
    let defaults = SocketOptions::default();
    for (options, name) in [
        (SocketOptions { linger_ms: 5_000, ..defaults.clone() }, "linger_ms = 5000"),
        (SocketOptions { queue_messages_max: 0, ..defaults.clone() }, "queue_messages_max = 0"),
        (SocketOptions { reconnect_max_ms: 1, ..defaults.clone() }, "reconnect_max_ms = 1"),
    ] {
        let error = Router::bind(&context, &any_port(), &options).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains("must be from"), "{error}");
    }
    let bad_cpu = ContextOptions { io_cpus: Some(vec![1_000]), ..ContextOptions::default() };
    let error = Context::new(&bad_cpu).err().unwrap().to_string();
    assert!(error.contains("CPU 1000 is not among those"), "{error}");
}

#[test]
fn sockets_move_between_threads_and_frames_are_shared_by_them() {
    fn moves<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    moves::<(Router, Dealer, Poller, Message)>();
    is_shared::<(Frame, Context, SocketOptions, Endpoint)>();
}
