//! A broker and its workers in one thread: enough of both to answer a client.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::codec::write_from_broker;
use pinmesh_protocol::command::{
    Accepted, ClientProgress, Fetch, Fetched, FromBroker, Payload, ServiceRef, StageTimes, Submit,
    TaskResult, ToBroker, Welcome,
};
use pinmesh_protocol::id::{ContentType, Dispatch, Epoch, RequestId, Submission, TaskId};
use pinmesh_protocol::status::{FetchState, ProgressKind, Status};
use pinmesh_protocol::{BatchReader, BatchWriter};
use pinmesh_transport::{
    Context, ContextOptions, Frame, Message, Poller, Router, RoutingId, SendOutcome, SocketOptions,
    Token,
};

/// How long a test waits for something that must happen.
pub(crate) const GENEROUS: Duration = Duration::from_secs(30);

/// The lines that come through a pipe, as they come.
pub(crate) fn lines_of(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        use std::io::BufRead;
        let lines = std::io::BufReader::new(pipe).lines();
        lines.map_while(Result::ok).take_while(|line| sender.send(line.clone()).is_ok()).count()
    });
    receiver
}

pub(crate) enum Control {
    /// Another life: a new epoch, and everything is forgotten.
    Restart,
    /// Sessions are forgotten, the epoch stays.
    ForgetSessions,
    /// Tasks of `hold` are answered, those that wait and those that come.
    Release,
    Stop,
}

/// What the broker has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Request id, submission and epoch of every SUBMIT.
    pub(crate) submits: Vec<(u64, u32, u32)>,
    /// The priority of every SUBMIT.
    pub(crate) priorities: Vec<u8>,
    pub(crate) cancels: Vec<u64>,
    pub(crate) hellos: usize,
    pub(crate) goodbyes: usize,
    pub(crate) acked: u64,
    /// PROGRESS sent.
    pub(crate) updates: u64,
}

pub(crate) struct FakeBroker {
    pub(crate) endpoint: String,
    control: Sender<Control>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl FakeBroker {
    pub(crate) fn start() -> Self {
        let context = Context::new(&ContextOptions::default()).unwrap();
        let any = "tcp://127.0.0.1:0".parse().unwrap();
        let router = Router::bind(&context, &any, &SocketOptions::default()).unwrap();
        let endpoint = router.endpoint().to_string();
        let (control, orders) = channel();
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let broker = Broker {
            router,
            seen: Arc::clone(&seen),
            epoch: 1,
            sessions: HashMap::new(),
            held: Vec::new(),
            is_released: false,
        };
        let thread = std::thread::spawn(move || broker.run(&orders));
        Self { endpoint, control, seen, thread: Some(thread) }
    }

    pub(crate) fn control(&self, control: Control) {
        self.control.send(control).unwrap();
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.0.lock().unwrap()
    }

    /// Waits until what was seen is as wanted.
    pub(crate) fn wait_seen(&self, what: &str, is_wanted: impl Fn(&Seen) -> bool) {
        let until = Instant::now() + GENEROUS;
        let mut seen = self.seen();
        while !is_wanted(&seen) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not seen in time: {what}");
            seen = self.seen.1.wait_timeout(seen, left).unwrap().0;
        }
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        let _ = self.control.send(Control::Stop);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

struct Held {
    to: RoutingId,
    id: RequestId,
    submission: Submission,
    content_type: ContentType,
    payload: Vec<u8>,
}

struct Broker {
    router: Router,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    epoch: u32,
    /// Aliases of each session.
    sessions: HashMap<RoutingId, HashMap<u32, String>>,
    held: Vec<Held>,
    is_released: bool,
}

impl Broker {
    fn run(mut self, orders: &Receiver<Control>) {
        let mut poller = Poller::new().unwrap();
        poller.register(&mut self.router, Token(0)).unwrap();
        let mut message = Message::default();
        loop {
            while let Ok(order) = orders.try_recv() {
                match order {
                    Control::Stop => return,
                    Control::Restart => {
                        self.epoch += 1;
                        self.sessions.clear();
                        self.held.clear();
                    }
                    Control::ForgetSessions => self.sessions.clear(),
                    Control::Release => {
                        self.is_released = true;
                        for held in std::mem::take(&mut self.held) {
                            self.end(held, Status::Ok);
                        }
                    }
                }
            }
            while self.router.recv(&mut message).unwrap() {
                self.read(&mut message);
            }
            let tick = Some(Duration::from_millis(5));
            let _woken = poller.wait(&mut [&mut self.router], tick, Duration::ZERO).unwrap();
        }
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.0.lock().unwrap());
        self.seen.1.notify_all();
    }

    fn say(&mut self, to: RoutingId, command: &FromBroker<'_>) {
        let mut bytes = Vec::new();
        write_from_broker(&mut bytes, command);
        let sent = self.router.send(to, &bytes, &mut Vec::new()).unwrap();
        assert_ne!(sent, SendOutcome::Full);
    }

    fn read(&mut self, message: &mut Message) {
        assert_eq!(message.fault, None);
        let from = message.from;
        let attachments: Vec<Frame> = message.frames.drain(1..).collect();
        let lens: Vec<usize> = attachments.iter().map(|frame| frame.len()).collect();
        let mut reader = BatchReader::new(message.body(), &lens);
        while let Some(command) = reader.next_to_broker() {
            self.on_command(from, command.expect("a client's bytes are right"), &attachments);
        }
        reader.finish().expect("a client's frames are right");
    }

    fn on_command(&mut self, from: RoutingId, command: ToBroker<'_>, attachments: &[Frame]) {
        if let ToBroker::Hello(hello) = command {
            self.note(|seen| seen.hellos += 1);
            self.sessions.insert(from, HashMap::new());
            let welcome = Welcome {
                version: 1,
                nonce: hello.nonce,
                epoch: Epoch(self.epoch),
                heartbeat_ns: 1_000_000_000,
                lease_ns: 10_000_000_000,
                liveness: 3,
                window_tasks: 10_000,
                window_bytes: 256 << 20,
                payload_bytes_max: 64 << 20,
                header_bytes_max: 4096,
                kept_ns: 60_000_000_000,
            };
            self.say(from, &FromBroker::Welcome(welcome));
            return;
        }
        let Some(aliases) = self.sessions.get_mut(&from) else {
            self.say(from, &FromBroker::NoSession);
            return;
        };
        match command {
            ToBroker::Service(it) => {
                aliases.insert(it.alias, it.name.to_owned());
            }
            ToBroker::Submit(submit) => {
                let service = match submit.service {
                    ServiceRef::Name(name) => name.to_owned(),
                    ServiceRef::Alias(alias) => aliases[&alias].clone(),
                };
                self.on_submit(from, &service, &submit, attachments);
            }
            ToBroker::Cancel(cancel) => {
                self.note(|seen| seen.cancels.push(cancel.request_id.0));
                if let Some(at) = self.held.iter().position(|it| it.id == cancel.request_id) {
                    let held = self.held.remove(at);
                    self.end(held, Status::Cancelled);
                }
            }
            ToBroker::Fetch(fetch) => self.on_fetch(from, &fetch),
            ToBroker::Heartbeat(heartbeat) => self.say(from, &FromBroker::Heartbeat(heartbeat)),
            ToBroker::Ack(count) => self.note(|seen| seen.acked = count),
            ToBroker::Goodbye => self.note(|seen| seen.goodbyes += 1),
            other => panic!("a client does not send {other:?}"),
        }
    }

    /// "unknown" is no key, the task of "unended" has not ended; others have ended with their key.
    fn on_fetch(&mut self, to: RoutingId, fetch: &Fetch<'_>) {
        let Fetch { request_id, submission, key, waits } = *fetch;
        let state = match key {
            b"unknown" => FetchState::Unknown,
            b"unended" if !waits => FetchState::Pending,
            _ => {
                let (content_type, payload) = (ContentType::RAW, key.to_vec());
                let held = Held { to, id: request_id, submission, content_type, payload };
                return self.end(held, Status::Ok);
            }
        };
        self.say(to, &FromBroker::Fetched(Fetched { request_id, submission, state }));
    }

    fn on_submit(
        &mut self,
        to: RoutingId,
        service: &str,
        submit: &Submit<'_>,
        attachments: &[Frame],
    ) {
        let (id, submission) = (submit.request_id, submit.submission);
        let epoch = self.epoch;
        let priority = submit.priority.value();
        self.note(|seen| {
            seen.submits.push((id.0, submission.0, epoch));
            seen.priorities.push(priority);
        });
        let payload = match submit.payload {
            Payload::Inline(bytes) => bytes.to_vec(),
            Payload::Frames(span) => {
                let frames = &attachments[span.first as usize - 1..][..span.frames as usize];
                frames.iter().flat_map(|frame| frame.iter().copied()).collect()
            }
        };
        let options = submit.options.map(|options| TaskOptions::decode(options).unwrap());
        if options.is_some_and(|options| options.detached && service != "fail") {
            let accepted = Accepted { request_id: id, task: TaskId(9) };
            self.say(to, &FromBroker::Accepted(accepted));
        }
        let content_type = submit.content_type;
        let mut held = Held { to, id, submission, content_type, payload };
        match service {
            "echo" => self.end(held, Status::Ok),
            "hold" if self.is_released => self.end(held, Status::Ok),
            "hold" => {
                self.held.retain(|it| it.id != id);
                self.held.push(held);
            }
            "busy" if submission.0 == 1 => self.end(held, Status::Busy),
            "busy" => self.end(held, Status::Ok),
            "fail" => self.fail(held),
            "held or fails" if held.payload == [5] => self.fail(held),
            "held or fails" => self.held.push(held),
            "odd fails" if held.payload.last().is_some_and(|n| n % 2 == 1) => self.fail(held),
            "odd fails" => self.end(held, Status::Ok),
            "steps" => {
                for sequence in 1..=u64::from(held.payload[0]) {
                    self.update(&held, (ProgressKind::Stream, sequence), 0);
                }
                let last = u64::from(held.payload[0]) + 1;
                self.update(&held, (ProgressKind::Latest, last), 0);
                self.end(held, Status::Ok);
            }
            "long steps" => {
                for sequence in 1..=u64::from(held.payload[0]) {
                    self.update(&held, (ProgressKind::Stream, sequence), 1 << 20);
                }
                self.end(held, Status::Ok);
            }
            // As the worker's own sha256 would be: an answer that tells inputs apart.
            "length" => {
                held.payload = held.payload.len().to_string().into_bytes();
                held.content_type = ContentType::RAW;
                self.end(held, Status::Ok);
            }
            _ => {
                held.payload.clear();
                self.end(held, Status::NoService);
            }
        }
    }

    fn fail(&mut self, mut held: Held) {
        held.payload = b"boom".to_vec();
        held.content_type = ContentType::TEXT;
        self.end(held, Status::Failed);
    }

    /// An update of a number, or of so many bytes.
    fn update(&mut self, held: &Held, (kind, sequence): (ProgressKind, u64), bytes: usize) {
        let mut batch = BatchWriter::new();
        let (number, long) = ([sequence as u8], vec![0; bytes]);
        let payload = match bytes {
            0 => Payload::Inline(&number),
            _ => Payload::Frames(batch.attach([(Frame::copy_of(&long), bytes)])),
        };
        let progress = ClientProgress {
            request_id: held.id,
            submission: held.submission,
            task: TaskId(9),
            dispatch: Dispatch(1),
            sequence,
            kind,
            content_type: ContentType::MSGPACK,
            payload,
        };
        write_from_broker(batch.bytes_mut(), &FromBroker::Progress(progress));
        batch.count();
        let mut attachments = std::mem::take(batch.attachments_mut());
        let sent = self.router.send(held.to, batch.bytes(), &mut attachments).unwrap();
        assert_ne!(sent, SendOutcome::Full);
        self.note(|seen| seen.updates += 1);
    }

    fn end(&mut self, held: Held, status: Status) {
        let mut batch = BatchWriter::new();
        let payload = if held.payload.len() < 32 * 1024 {
            Payload::Inline(&held.payload)
        } else {
            let frames = held.payload.chunks(1 << 20);
            Payload::Frames(batch.attach(frames.map(|it| (Frame::copy_of(it), it.len()))))
        };
        let result = TaskResult {
            request_id: held.id,
            submission: held.submission,
            status,
            tries: 0,
            stages: Some(StageTimes { service_ns: 1, ..StageTimes::default() }),
            content_type: held.content_type,
            payload,
            retry_after_ns: (status == Status::Busy).then_some(20_000_000),
        };
        write_from_broker(batch.bytes_mut(), &FromBroker::Result(result));
        batch.count();
        let mut attachments = std::mem::take(batch.attachments_mut());
        let sent = self.router.send(held.to, batch.bytes(), &mut attachments).unwrap();
        assert_ne!(sent, SendOutcome::Full);
    }
}
