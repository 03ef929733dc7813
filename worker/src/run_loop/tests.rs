//! The loop against a broker of a few lines, in one process, over real sockets.

mod fake;
mod updates;

use pinmesh_transport::SocketOptions;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use pinmesh_protocol::id::{AttemptId, ContentType, Dispatch, Incarnation, PeerId, Slot, TaskId};
use pinmesh_protocol::status::{EndStatus, RefusedCode};
use pinmesh_session::slots::{BrokerIndex, Flip};

use super::*;
use crate::builtin::{builtin_services, test_services};
use crate::handler::Context;
use crate::worker::{Embedded, Worker};
use fake::{EPOCH, FakeBroker, Heard};

fn attempt(task: u64) -> AttemptId {
    AttemptId { epoch: EPOCH, task: TaskId(task), dispatch: Dispatch(1) }
}

/// A broker, and a worker with these services and a session.
fn embedded(worker: Worker) -> (FakeBroker, Embedded) {
    let mut broker = FakeBroker::new();
    let embedded = worker.embed(&[&broker.endpoint()]).unwrap();
    broker.welcome();
    (broker, embedded)
}

fn done(heard: Heard) -> (u64, EndStatus, Vec<u8>) {
    match heard {
        Heard::Done { attempt, status, payload, .. } => (attempt.task.0, status, payload),
        other => panic!("not a DONE: {other:?}"),
    }
}

#[test]
fn tasks_of_one_message_are_answered_in_order_and_the_worker_leaves_when_told_to() {
    let (mut broker, worker) = embedded(builtin_services());
    assert_eq!(broker.services, ["echo", "sleep", "spin", "sha256"]);
    broker.tasks(&[(1, "echo", b"a"), (2, "sha256", b"abc"), (3, "echo", b"")]);
    assert_eq!(done(broker.hear()), (1, EndStatus::Ok, b"a".to_vec()));
    let digest = b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(done(broker.hear()), (2, EndStatus::Ok, digest.to_vec()));
    assert_eq!(done(broker.hear()), (3, EndStatus::Ok, Vec::new()));
    broker.ack(3);
    let stopping = std::thread::spawn(move || worker.stop());
    assert_eq!(broker.hear(), Heard::Window(0));
    assert_eq!(broker.hear(), Heard::Goodbye);
    stopping.join().unwrap().unwrap();
}

#[test]
fn a_long_payload_travels_in_frames_both_ways() {
    let (mut broker, _worker) = embedded(builtin_services());
    for bytes in [40_000, 3 << 20] {
        let payload: Vec<u8> = (0..bytes as u32).map(|n| (n / 7) as u8).collect();
        broker.long_task(1, "echo", &payload);
        let (_, status, echoed) = done(broker.hear());
        assert_eq!((status, echoed.len()), (EndStatus::Ok, bytes));
        assert!(echoed == payload, "the bytes came back changed");
    }
}

#[test]
fn a_handler_that_fails_or_panics_ends_its_task_and_nothing_else() {
    let (mut broker, _worker) = embedded(test_services(builtin_services()));
    broker.tasks(&[(1, "fail", b"no such file"), (2, "panic", b"index 3"), (3, "echo", b"x")]);
    broker.tasks(&[(4, "fail_last", b"no such thing")]);
    assert_eq!(done(broker.hear()), (1, EndStatus::Failed, b"no such file".to_vec()));
    let text = b"the handler panicked: index 3".to_vec();
    assert_eq!(done(broker.hear()), (2, EndStatus::Failed, text));
    assert_eq!(done(broker.hear()), (3, EndStatus::Ok, b"x".to_vec()));
    assert_eq!(done(broker.hear()), (4, EndStatus::FailedFinal, b"no such thing".to_vec()));
}

#[test]
fn a_result_that_the_broker_does_not_take_ends_failed_with_the_limit() {
    let (mut broker, _worker) = embedded(Worker::new().raw_service("big", |_, _, output| {
        output.bytes.resize(fake::PAYLOAD_BYTES_MAX as usize + 1, 0);
        Ok::<_, String>(())
    }));
    broker.tasks(&[(1, "big", b"")]);
    let (_, status, text) = done(broker.hear());
    assert_eq!(status, EndStatus::FailedFinal);
    assert!(String::from_utf8(text).unwrap().contains("the broker takes 8388608"));
}

#[test]
fn a_typed_handler_gets_messagepack_or_json_and_its_context() {
    let add = |context: &Context<'_>, (a, b): (u32, u32)| {
        assert!(context.time_left().is_none() && !context.is_cancelled());
        a.checked_add(b).ok_or("too large")
    };
    let (mut broker, _worker) = embedded(Worker::new().service("add", add));
    broker.content_type = ContentType::MSGPACK;
    let input = pinmesh_protocol::payload::to_msgpack(&(2u32, 3u32)).unwrap();
    broker.tasks(&[(1, "add", &input), (2, "add", b"\xc1")]);
    assert_eq!(done(broker.hear()), (1, EndStatus::Ok, vec![5]));
    let (_, status, text) = done(broker.hear());
    assert_eq!(status, EndStatus::FailedFinal);
    assert!(String::from_utf8(text).unwrap().starts_with("the payload does not fit"));
    broker.content_type = ContentType::JSON;
    broker.tasks(&[(3, "add", b"[20, 30]"), (4, "add", b"[2, 3] x")]);
    assert_eq!(done(broker.hear()), (3, EndStatus::Ok, b"50".to_vec()));
    let (_, status, text) = done(broker.hear());
    assert_eq!(status, EndStatus::FailedFinal);
    assert!(String::from_utf8(text).unwrap().starts_with("the payload does not fit"));
    broker.content_type = ContentType::RAW;
    broker.tasks(&[(5, "add", b"[2,3]")]);
    let (_, status, text) = done(broker.hear());
    assert_eq!(status, EndStatus::FailedFinal);
    assert!(String::from_utf8(text).unwrap().contains("content type 0"));
}

#[cfg(feature = "protobuf")]
#[test]
fn a_handler_of_protocol_buffers_gets_and_gives_messages_and_takes_nothing_else() {
    #[derive(prost::Message)]
    struct Pair {
        #[prost(uint32, tag = "1")]
        a: u32,
        #[prost(uint32, tag = "2")]
        b: u32,
    }
    let swap = |_: &Context<'_>, pair: Pair| Ok::<_, String>(Pair { a: pair.b, b: pair.a });
    let (mut broker, _worker) = embedded(Worker::new().protobuf_service("swap", swap));
    broker.content_type = ContentType::PROTOBUF;
    broker.tasks(&[(1, "swap", &[8, 2, 16, 3]), (2, "swap", &[8])]);
    assert_eq!(done(broker.hear()), (1, EndStatus::Ok, vec![8, 3, 16, 2]));
    assert_eq!(done(broker.hear()).1, EndStatus::FailedFinal);
    broker.content_type = ContentType::MSGPACK;
    broker.tasks(&[(3, "swap", &[8, 2, 16, 3])]);
    let (_, status, text) = done(broker.hear());
    assert_eq!(status, EndStatus::FailedFinal);
    assert!(String::from_utf8(text).unwrap().contains("content type 1"));
}

#[test]
fn after_no_session_ends_without_an_ack_are_listed_and_sent_again() {
    let (mut broker, _worker) = embedded(builtin_services());
    broker.tasks(&[(1, "echo", b"a"), (2, "echo", b"b")]);
    assert_eq!(done(broker.hear()).0, 1);
    assert_eq!(done(broker.hear()).0, 2);
    broker.ack(1);
    broker.no_session();
    broker.welcome();
    assert_eq!(broker.held, [attempt(2)]);
    assert_eq!(done(broker.hear()), (2, EndStatus::Ok, b"b".to_vec()));
}

#[test]
fn bytes_that_are_no_command_are_refused_and_another_socket_is_opened() {
    let (mut broker, _worker) = embedded(builtin_services());
    broker.send(b"\xc1\xc1");
    assert_eq!(broker.hear(), Heard::Refused(RefusedCode::Malformed));
    broker.welcome();
    broker.tasks(&[(1, "echo", b"a")]);
    assert_eq!(done(broker.hear()).0, 1);
}

#[test]
fn a_task_past_its_deadline_is_returned_unstarted() {
    let (mut broker, _worker) = embedded(builtin_services());
    broker.deadline_ns = Some(0);
    broker.tasks(&[(1, "echo", b"a")]);
    assert_eq!(broker.hear(), Heard::Return(attempt(1)));
}

/// A loop with a page, of whose other end the test is the supervisor, and a service `gate` that
/// tells when it has begun and waits to be let go.
struct Supervised {
    broker: FakeBroker,
    page: StatusPage,
    begun: Receiver<u64>,
    gate: Sender<()>,
    stop: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
    thread: Option<JoinHandle<Result<(), TransportError>>>,
}

impl Supervised {
    fn new() -> Self {
        let mut broker = FakeBroker::new();
        let page = StatusPage::create(1).unwrap();
        page.set_lease(BrokerIndex(0), EPOCH, Time::NEVER);
        let (begin, begun) = channel();
        let (gate, pass) = channel();
        let handler = crate::handler::raw(move |context: &Context<'_>, _, _: &mut Output| {
            begin.send(context.attempt().task.0).unwrap();
            pass.recv().unwrap();
            if context.is_cancelled() { Err("cancelled") } else { Ok(()) }
        });
        let mut poller = Poller::new().unwrap();
        let waker = poller.waker(pinmesh_transport::Token(9)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let run_loop = RunLoop::new(RunLoopConfig {
            endpoints: vec![(broker.endpoint().parse().unwrap(), SocketOptions::default())],
            session: WorkerConfig {
                peer_id: PeerId([1; 16]),
                name: "test".into(),
                host: Some(PeerId([2; 16])),
                slot: Slot(0),
                incarnation: Incarnation(1),
                services: vec!["gate".into()],
                labels: Vec::new(),
                window_tasks: 8,
                window_bytes: 1 << 20,
                seed: 1,
            },
            services: vec![Service { name: "gate".into(), handler }],
            page: Some(StatusPage::open(page.fd().try_clone_to_owned().unwrap()).unwrap()),
            spin: Duration::ZERO,
            recorder: None,
            stop: stop.clone(),
            poller,
        });
        let run_loop = run_loop.unwrap();
        let thread = Some(std::thread::spawn(move || run_loop.run()));
        broker.welcome();
        Self { broker, page, begun, gate, stop, waker, thread }
    }

    fn flip(&self, task: u64) -> Flip {
        self.page.flip(BrokerIndex(0), attempt(task))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            self.broker.leave();
            thread.join().unwrap().unwrap();
        }
    }
}

#[test]
fn what_the_supervisor_flips_or_refuses_does_not_run() {
    let mut test = Supervised::new();
    test.broker.tasks(&[(1, "gate", b""), (2, "gate", b""), (3, "gate", b"")]);
    assert_eq!(test.begun.recv().unwrap(), 1);
    assert_eq!(test.page.running().map(|running| running.attempt), Some(attempt(1)));
    assert_eq!(test.flip(1), Flip::Claimed);
    assert_eq!(test.flip(2), Flip::Recalled);
    // Not there yet: refused before it comes.
    assert_eq!(test.flip(4), Flip::Absent);
    assert!(test.page.refuse(BrokerIndex(0), attempt(4), clock::now()));
    assert_eq!(test.flip(4), Flip::Absent);
    test.broker.tasks(&[(4, "gate", b""), (5, "gate", b"")]);
    (0..3).for_each(|_| test.gate.send(()).unwrap());
    for task in [1, 3, 5] {
        assert_eq!(done(test.broker.hear()).0, task);
    }
    assert_eq!(test.begun.try_iter().collect::<Vec<_>>(), [3, 5]);
    test.broker.ack(3);
}

#[test]
fn a_cancel_reaches_the_running_handler_and_ends_it_cancelled() {
    let mut test = Supervised::new();
    test.broker.tasks(&[(1, "gate", b""), (2, "gate", b"")]);
    assert_eq!(test.begun.recv().unwrap(), 1);
    assert!(test.page.cancel(BrokerIndex(0), attempt(1)));
    (0..2).for_each(|_| test.gate.send(()).unwrap());
    assert_eq!(done(test.broker.hear()), (1, EndStatus::Cancelled, b"cancelled".to_vec()));
    assert_eq!(done(test.broker.hear()), (2, EndStatus::Ok, Vec::new()));
    test.broker.ack(2);
}

#[test]
fn after_a_lapsed_lease_the_worker_opens_another_session_and_runs_nothing_of_before() {
    let mut test = Supervised::new();
    test.broker.tasks(&[(1, "gate", b""), (2, "gate", b"")]);
    assert_eq!(test.begun.recv().unwrap(), 1);
    test.page.set_lease(BrokerIndex(0), EPOCH, Time(0));
    test.page.set_lease(BrokerIndex(0), EPOCH, Time::NEVER);
    test.gate.send(()).unwrap();
    test.broker.welcome();
    assert_eq!(test.broker.held, [attempt(1)]);
    assert_eq!(done(test.broker.hear()).0, 1);
    assert_eq!(test.begun.try_iter().count(), 0);
    test.broker.ack(1);
}
