//! A broker that does what its test says.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pinmesh_protocol::batch::{BatchReader, BatchWriter};
use pinmesh_protocol::codec::write_from_broker;
use pinmesh_protocol::command::{
    FromBroker, Heartbeat, Payload, ServiceRef, Task, ToBroker, Welcome,
};
use pinmesh_protocol::id::{
    AttemptId, ContentType, Dispatch, Epoch, PeerId, RequestId, Submission, TaskId,
};
use pinmesh_protocol::limits::FRAME_BYTES_MAX;
use pinmesh_protocol::status::{EndStatus, ProgressKind, RefusedCode};
use pinmesh_transport::{
    Context, ContextOptions, Frame, Message, Poller, Router, RoutingId, SendOutcome, SocketOptions,
    Token,
};

pub(super) const EPOCH: Epoch = Epoch(7);
pub(super) const PAYLOAD_BYTES_MAX: u64 = 8 << 20;
/// A test that waits longer than this has failed.
const LIMIT: Duration = Duration::from_secs(30);

/// What a worker said.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Heard {
    Hello { nonce: u64 },
    Ready { services: Vec<String>, held: Vec<AttemptId> },
    Done { attempt: AttemptId, status: EndStatus, payload: Vec<u8> },
    Progress { sequence: u64, kind: ProgressKind, payload: Vec<u8> },
    Return(AttemptId),
    Window(u32),
    Refused(RefusedCode),
    Goodbye,
}

fn bytes_of(message: &Message, payload: Payload<'_>) -> Vec<u8> {
    match payload {
        Payload::Inline(bytes) => bytes.to_vec(),
        Payload::Frames(span) => {
            let frames = &message.frames[span.first as usize..][..span.frames as usize];
            frames.iter().flat_map(|frame| frame.to_vec()).collect()
        }
    }
}

pub(super) struct FakeBroker {
    router: Router,
    poller: Poller,
    worker: RoutingId,
    heard: VecDeque<(RoutingId, Heard)>,
    pub(super) services: Vec<String>,
    pub(super) held: Vec<AttemptId>,
    pub(super) content_type: ContentType,
    pub(super) deadline_ns: Option<u64>,
}

impl FakeBroker {
    pub(super) fn new() -> Self {
        let context = Context::new(&ContextOptions::default()).unwrap();
        let endpoint = "tcp://127.0.0.1:0".parse().unwrap();
        let mut router = Router::bind(&context, &endpoint, &SocketOptions::default()).unwrap();
        let mut poller = Poller::new().unwrap();
        poller.register(&mut router, Token(0)).unwrap();
        Self {
            router,
            poller,
            worker: RoutingId::NONE,
            heard: VecDeque::new(),
            services: Vec::new(),
            held: Vec::new(),
            content_type: ContentType::RAW,
            deadline_ns: None,
        }
    }

    pub(super) fn endpoint(&self) -> String {
        self.router.endpoint().to_string()
    }

    /// The next thing that the worker says, heartbeats aside.
    pub(super) fn hear(&mut self) -> Heard {
        let (from, heard) = self.next();
        assert_eq!(from, self.worker, "{heard:?} came from another socket");
        heard
    }

    fn next(&mut self) -> (RoutingId, Heard) {
        let start = Instant::now();
        loop {
            if let Some(next) = self.heard.pop_front() {
                return next;
            }
            assert!(start.elapsed() < LIMIT, "the worker said nothing");
            let mut message = Message::default();
            if self.router.recv(&mut message).unwrap() {
                self.read(&message);
                continue;
            }
            let timeout = Some(Duration::from_millis(100));
            let _ = self.poller.wait(&mut [&mut self.router], timeout, Duration::ZERO).unwrap();
        }
    }

    fn read(&mut self, message: &Message) {
        let lens: Vec<usize> = message.frames[1..].iter().map(|frame| frame.len()).collect();
        let mut reader = BatchReader::new(message.body(), &lens);
        while let Some(command) = reader.next_to_broker() {
            let heard = match command.unwrap() {
                ToBroker::Heartbeat(beat) => {
                    let echo = Heartbeat { sequence: beat.sequence, silence_ns: None };
                    self.command(message.from, &FromBroker::Heartbeat(echo));
                    continue;
                }
                ToBroker::Hello(hello) => Heard::Hello { nonce: hello.nonce },
                ToBroker::Ready(ready) => Heard::Ready {
                    services: ready.services.iter().map(|name| (*name).to_owned()).collect(),
                    held: ready.held.iter().map(|held| held.attempt).collect(),
                },
                ToBroker::Done(done) => {
                    assert!(done.residence_ns >= done.service_ns);
                    let payload = bytes_of(message, done.payload);
                    Heard::Done { attempt: done.attempt, status: done.status, payload }
                }
                ToBroker::Progress(progress) => Heard::Progress {
                    sequence: progress.sequence,
                    kind: progress.kind,
                    payload: bytes_of(message, progress.payload),
                },
                ToBroker::Return(attempt) => Heard::Return(attempt),
                ToBroker::Window(window) => Heard::Window(window.tasks),
                ToBroker::Refused(refused) => Heard::Refused(refused.code),
                ToBroker::Goodbye => Heard::Goodbye,
                other => panic!("a worker does not say {other:?}"),
            };
            self.heard.push_back((message.from, heard));
        }
        reader.finish().unwrap();
    }

    fn command(&mut self, to: RoutingId, command: &FromBroker<'_>) {
        let mut bytes = Vec::new();
        write_from_broker(&mut bytes, command);
        self.send_to(to, &bytes, &mut Vec::new());
    }

    fn send_to(&mut self, to: RoutingId, head: &[u8], frames: &mut Vec<Frame>) {
        assert_eq!(self.router.send(to, head, frames).unwrap(), SendOutcome::Sent);
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.send_to(self.worker, bytes, &mut Vec::new());
    }

    /// Waits for HELLO on a new socket, welcomes it and waits for READY.
    pub(super) fn welcome(&mut self) {
        let (worker, nonce) = loop {
            if let (from, Heard::Hello { nonce }) = self.next() {
                break (from, nonce);
            }
        };
        assert_ne!(worker, self.worker, "a session is one socket");
        self.worker = worker;
        let welcome = Welcome {
            version: 1,
            nonce,
            epoch: EPOCH,
            heartbeat_ns: 1_000_000_000,
            lease_ns: 10_000_000_000,
            liveness: 3,
            window_tasks: 0,
            window_bytes: 0,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            header_bytes_max: 4096,
            kept_ns: 60_000_000_000,
        };
        self.command(worker, &FromBroker::Welcome(welcome));
        match self.hear() {
            Heard::Ready { services, held } => (self.services, self.held) = (services, held),
            other => panic!("not READY: {other:?}"),
        }
    }

    fn task<'a>(&self, task: u64, service: &'a str, payload: Payload<'a>) -> Task<'a> {
        let alias = self.services.iter().position(|name| name == service).unwrap();
        Task {
            task: TaskId(task),
            dispatch: Dispatch(1),
            client_id: PeerId([3; 16]),
            request_id: RequestId(task),
            submission: Submission(1),
            service: ServiceRef::Alias(alias as u32),
            tries: 0,
            deadline_ns: self.deadline_ns,
            max_runtime_ns: 3_600_000_000_000,
            content_type: self.content_type,
            options: None,
            payload,
        }
    }

    /// Sends these tasks in one message.
    pub(super) fn tasks(&mut self, tasks: &[(u64, &str, &[u8])]) {
        let mut bytes = Vec::new();
        for &(task, service, payload) in tasks {
            let task = self.task(task, service, Payload::Inline(payload));
            write_from_broker(&mut bytes, &FromBroker::Task(task));
        }
        self.send(&bytes);
    }

    /// Sends a task whose payload is in frames of its own.
    pub(super) fn long_task(&mut self, task: u64, service: &str, payload: &[u8]) {
        let mut batch = BatchWriter::new();
        let frames = payload.chunks(FRAME_BYTES_MAX);
        let span = batch.attach(frames.map(|chunk| (Frame::copy_of(chunk), chunk.len())));
        let task = self.task(task, service, Payload::Frames(span));
        write_from_broker(batch.bytes_mut(), &FromBroker::Task(task));
        batch.count();
        let mut frames = std::mem::take(batch.attachments_mut());
        self.send_to(self.worker, batch.bytes(), &mut frames);
    }

    pub(super) fn ack(&mut self, n: u64) {
        self.command(self.worker, &FromBroker::Ack(n));
    }

    pub(super) fn no_session(&mut self) {
        self.command(self.worker, &FromBroker::NoSession);
    }

    /// Takes note of whatever the worker says until it has said GOODBYE.
    pub(super) fn leave(&mut self) {
        while self.next().1 != Heard::Goodbye {}
    }
}
