//! A broker in virtual time: peers that speak, an outbox that records, and a cross-check of the whole
//! machine after every event.

mod effects;

use pinmesh_core::{
    AdminCommand, AdminObjection, AdminReply, Body, Broker, Conn, CoreConfig, DoneEvent, Event,
    Excerpt, Side, Span, SubmitEvent, Time,
};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::{
    Attempts, CancelRequest, Heartbeat, Held, Hello, Host, HostWorker, Lost, Ready, ServiceRef,
    Window,
};
use pinmesh_protocol::id::{
    AttemptId, ContentType, Epoch, Incarnation, PeerId, Priority, RequestId, Slot, Submission,
};
use pinmesh_protocol::status::{EndStatus, HeldState, LossKind, Role};

pub(crate) use effects::{
    Effect, Recorder, Said, Sent, TaskSent, cancels, results, sent_to, tasks,
};

pub(crate) const EPOCH: Epoch = Epoch(7);
pub(crate) const SECOND: Span = Span::from_secs(1);
/// A timer may go off this much late.
pub(crate) const SLACK: Span = Span::from_millis(3);

/// Lines of history that are kept at most.
const HISTORY_MAX: usize = 10_000;

/// A payload: which one it is, and how long it claims to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TestBody {
    pub(crate) tag: u64,
    pub(crate) bytes: u64,
}

impl TestBody {
    /// What it keeps beside its payload.
    pub(crate) const BESIDE_BYTES: u64 = 3;
}

impl Body for TestBody {
    fn payload_bytes(&self) -> u64 {
        self.bytes
    }

    fn kept_bytes(&self) -> u64 {
        self.bytes + Self::BESIDE_BYTES
    }

    /// Its tag, over and over.
    fn excerpt(&self, bytes_max: usize) -> Excerpt {
        let bytes = (self.tag as u8..=self.tag as u8).cycle();
        Excerpt {
            content_type: ContentType::RAW,
            bytes: bytes.take(bytes_max.min(self.bytes as usize)).collect(),
            of_bytes: self.bytes,
        }
    }
}

/// SUBMIT, with a default for all but its number.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) request: u64,
    pub(crate) submission: u32,
    pub(crate) service: String,
    pub(crate) priority: u8,
    pub(crate) deadline: Option<Span>,
    pub(crate) options: Result<TaskOptions, &'static str>,
    pub(crate) bytes: u64,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            request: 1,
            submission: 1,
            service: "work".into(),
            priority: 5,
            deadline: None,
            options: Ok(TaskOptions::default()),
            bytes: 10,
        }
    }
}

/// Options of a task that may run once only.
pub(crate) fn at_most_once() -> Result<TaskOptions, &'static str> {
    Ok(TaskOptions { at_most_once: true, ..TaskOptions::default() })
}

/// READY, with a default for all but its place.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub(crate) host: Option<u8>,
    pub(crate) slot: u16,
    pub(crate) incarnation: u32,
    pub(crate) services: Vec<&'static str>,
    pub(crate) labels: Vec<&'static str>,
    pub(crate) window_tasks: u32,
    pub(crate) window_bytes: u64,
    pub(crate) held: Vec<Held>,
    pub(crate) part: u32,
    pub(crate) parts: u32,
}

impl Default for Greeting {
    fn default() -> Self {
        Self {
            host: None,
            slot: 0,
            incarnation: 1,
            services: vec!["work"],
            labels: Vec::new(),
            window_tasks: 128,
            window_bytes: 8 << 20,
            held: Vec::new(),
            part: 0,
            parts: 1,
        }
    }
}

pub(crate) fn peer(number: u8) -> PeerId {
    PeerId([number; 16])
}

pub(crate) fn attempt(task: &TaskSent) -> AttemptId {
    AttemptId { epoch: EPOCH, task: task.head.task, dispatch: task.head.dispatch }
}

pub(crate) fn held(task: &TaskSent, state: HeldState) -> Held {
    Held {
        attempt: attempt(task),
        client_id: task.head.client_id,
        request_id: task.head.request_id,
        submission: task.head.submission,
        state,
    }
}

/// See the module.
pub(crate) struct Sim {
    pub(crate) broker: Broker<TestBody>,
    pub(crate) now: Time,
    pub(crate) config: CoreConfig,
    /// Who says HEARTBEAT each second while time passes.
    alive: Vec<Conn>,
    beat_at: Time,
    /// How many events between two looks inside.
    pub(crate) checks_every: u64,
    events: u64,
    history: Vec<String>,
}

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown = std::env::var("PINMESH_HISTORY").ok().and_then(|count| count.parse().ok());
            let skipped = self.history.len().saturating_sub(shown.unwrap_or(100));
            eprintln!("last events:\n{}", self.history[skipped..].join("\n"));
        }
    }
}

impl Sim {
    pub(crate) fn new() -> Self {
        Self::with(CoreConfig::default())
    }

    /// Workers are sent as much as their windows allow.
    pub(crate) fn with(config: CoreConfig) -> Self {
        Self::adaptive(CoreConfig { is_credit_fixed: true, ..config })
    }

    pub(crate) fn adaptive(config: CoreConfig) -> Self {
        let config = CoreConfig { epoch: EPOCH, ..config };
        let now = Time(1_000_000_000);
        Self {
            broker: Broker::new(config.clone()),
            now,
            config,
            alive: Vec::new(),
            beat_at: now.after(SECOND),
            checks_every: 1,
            events: 0,
            history: Vec::new(),
        }
    }

    /// One event; the machine must be sound after it.
    pub(crate) fn event(&mut self, event: Event<'_, TestBody>) -> Vec<Effect> {
        let is_heartbeat = matches!(event, Event::Heartbeat(..));
        let is_quiet = is_heartbeat || matches!(event, Event::Tick | Event::BatchEnd(_));
        if self.history.len() > HISTORY_MAX {
            self.history.drain(..HISTORY_MAX / 2);
        }
        self.history.push(format!("{:>12} us  {event:?}", self.now.0 / 1_000));
        let mut recorder = Recorder::default();
        self.broker.handle(self.now, event, &mut recorder);
        let is_idle = is_quiet && recorder.effects.len() <= usize::from(is_heartbeat);
        for effect in &recorder.effects {
            self.history.push(format!("                  -> {effect:?}"));
            if let Effect::Close(conn) = effect {
                self.alive.retain(|alive| alive != conn);
            }
        }
        self.events += 1;
        if self.events.is_multiple_of(self.checks_every) {
            let violations = self.broker.violations();
            assert!(violations.is_empty(), "{violations:#?}");
        }
        if is_idle {
            let kept = self.history.len() - 1 - recorder.effects.len();
            self.history.truncate(kept);
        }
        recorder.effects
    }

    /// One command of an operator; the machine must be sound after it.
    pub(crate) fn administer(
        &mut self,
        command: AdminCommand<'_>,
    ) -> (Result<AdminReply, AdminObjection>, Vec<Effect>) {
        self.history.push(format!("{:>12} us  {command:?}", self.now.0 / 1_000));
        let mut recorder = Recorder::default();
        let reply = self.broker.administer(self.now, command, &mut recorder);
        self.history.push(format!("                  -> {reply:?} {:?}", recorder.effects));
        let violations = self.broker.violations();
        assert!(violations.is_empty(), "{violations:#?}");
        (reply, recorder.effects)
    }

    /// Lets time pass: timers go off when they are due, those who live say HEARTBEAT each second.
    pub(crate) fn pass(&mut self, span: Span) -> Vec<Effect> {
        let end = self.now.after(span);
        let mut effects = Vec::new();
        loop {
            let wakeup = self.broker.next_wakeup().unwrap_or(Time::NEVER).max(self.now);
            let next = wakeup.min(self.beat_at);
            if next > end {
                break;
            }
            self.now = next;
            if next == self.beat_at {
                self.beat_at = self.beat_at.after(SECOND);
                for conn in self.alive.clone() {
                    effects.extend(self.heartbeat(conn));
                }
            }
            effects.extend(self.event(Event::Tick));
        }
        self.now = end;
        effects.extend(self.event(Event::Tick));
        effects
    }

    pub(crate) fn heartbeat(&mut self, conn: Conn) -> Vec<Effect> {
        self.event(Event::Heartbeat(conn, Heartbeat { sequence: 1, silence_ns: None }))
    }

    /// From now on this peer says HEARTBEAT no more.
    pub(crate) fn silence(&mut self, conn: Conn) {
        self.alive.retain(|alive| *alive != conn);
    }

    pub(crate) fn hello(&mut self, conn: u32, role: Role, number: u8) -> Vec<Effect> {
        self.hello_as(conn, side_of(role), hello(role, number))
    }

    pub(crate) fn hello_as(&mut self, conn: u32, side: Side, hello: Hello<'_>) -> Vec<Effect> {
        self.alive.push(Conn(conn));
        self.event(Event::Hello(Conn(conn), side, hello, None))
    }

    /// A client with the peer_id of its socket's number.
    pub(crate) fn client(&mut self, conn: u32) -> Conn {
        self.hello(conn, Role::Client, conn as u8);
        Conn(conn)
    }

    /// A client that calls itself so.
    pub(crate) fn client_named(&mut self, conn: u32, name: &'static str) -> Conn {
        let hello = Hello { name, ..hello(Role::Client, conn as u8) };
        self.hello_as(conn, Side::Frontend, hello);
        Conn(conn)
    }

    /// The same, let in by a key of that name.
    pub(crate) fn client_with_key(
        &mut self,
        conn: u32,
        name: &'static str,
        key: &'static str,
    ) -> Conn {
        self.alive.push(Conn(conn));
        let hello = Hello { name, ..hello(Role::Client, conn as u8) };
        self.event(Event::Hello(Conn(conn), Side::Frontend, hello, Some(key)));
        Conn(conn)
    }

    /// An unsupervised worker with the peer_id of its socket's number.
    pub(crate) fn worker(&mut self, conn: u32, services: &[&'static str]) -> Conn {
        self.worker_effects(conn, services);
        Conn(conn)
    }

    /// What an unsupervised worker's coming causes.
    pub(crate) fn worker_effects(&mut self, conn: u32, services: &[&'static str]) -> Vec<Effect> {
        let services = services.to_vec();
        self.greet(conn, conn as u8, Greeting { services, ..Greeting::default() })
    }

    /// A worker's HELLO and READY on a new socket.
    pub(crate) fn greet(&mut self, conn: u32, number: u8, greeting: Greeting) -> Vec<Effect> {
        self.hello(conn, Role::Worker, number);
        self.ready(Conn(conn), greeting)
    }

    pub(crate) fn ready(&mut self, conn: Conn, greeting: Greeting) -> Vec<Effect> {
        self.event(Event::Ready(
            conn,
            Ready {
                host: greeting.host.map(peer),
                slot: Slot(greeting.slot),
                incarnation: Incarnation(greeting.incarnation),
                services: greeting.services,
                labels: greeting.labels,
                window_tasks: greeting.window_tasks,
                window_bytes: greeting.window_bytes,
                held: greeting.held,
                part: greeting.part,
                parts: greeting.parts,
            },
        ))
    }

    /// A supervisor's HELLO and HOST, with the incarnation of each of its slots.
    pub(crate) fn supervisor(&mut self, conn: u32, number: u8, workers: &[(u16, u32)]) -> Conn {
        self.hello(conn, Role::Supervisor, number);
        self.host(Conn(conn), workers);
        Conn(conn)
    }

    pub(crate) fn host(&mut self, conn: Conn, workers: &[(u16, u32)]) -> Vec<Effect> {
        let workers = workers
            .iter()
            .map(|(slot, incarnation)| HostWorker {
                slot: Slot(*slot),
                incarnation: Incarnation(*incarnation),
                cpu: None,
                claimed: Vec::new(),
            })
            .collect();
        self.event(Event::Host(conn, Host { cpus: Vec::new(), workers }))
    }

    /// A supervised worker in the given slot, first incarnation, window of 128.
    pub(crate) fn supervised(&mut self, conn: u32, host: u8, slot: u16) -> Conn {
        let greeting = Greeting { host: Some(host), slot, ..Greeting::default() };
        self.greet(conn, conn as u8, greeting);
        Conn(conn)
    }

    /// LOST of the first incarnation in slot 0.
    pub(crate) fn lost(
        &mut self,
        conn: Conn,
        cause: LossKind,
        running: Option<&TaskSent>,
        started: &[&TaskSent],
    ) -> Vec<Effect> {
        self.event(Event::Lost(
            conn,
            Lost {
                slot: Slot(0),
                incarnation: Incarnation(1),
                cause,
                detail: 9,
                running: running.map(attempt),
                started: started.iter().map(|task| attempt(task)).collect(),
            },
        ))
    }

    pub(crate) fn recalled(&mut self, conn: Conn, attempts: &[&TaskSent]) -> Vec<Effect> {
        let attempts = attempts.iter().map(|task| attempt(task)).collect();
        self.event(Event::Recalled(conn, Attempts { slot: Slot(0), attempts }))
    }

    /// Submits a task with the default of everything.
    pub(crate) fn submit(&mut self, conn: Conn, request: u64) -> Vec<Effect> {
        self.ask(conn, Ask { request, ..Ask::default() })
    }

    pub(crate) fn ask(&mut self, conn: Conn, ask: Ask) -> Vec<Effect> {
        let submit = SubmitEvent {
            request_id: RequestId(ask.request),
            submission: Submission(ask.submission),
            service: ServiceRef::Name(&ask.service),
            priority: Priority::new(ask.priority).expect("1 to 10"),
            deadline_ns: ask.deadline.map(|span| span.0),
            options: ask.options,
            body: TestBody { tag: ask.request, bytes: ask.bytes },
        };
        self.event(Event::Submit(conn, submit))
    }

    pub(crate) fn cancel(&mut self, conn: Conn, request: u64, submission: u32) -> Vec<Effect> {
        let (request_id, submission) = (RequestId(request), Submission(submission));
        let cancel = CancelRequest { request_id, submission, is_hard: false };
        self.event(Event::Cancel(conn, cancel))
    }

    pub(crate) fn cancel_hard(&mut self, conn: Conn, request: u64) -> Vec<Effect> {
        let (request_id, submission) = (RequestId(request), Submission(1));
        let cancel = CancelRequest { request_id, submission, is_hard: true };
        self.event(Event::Cancel(conn, cancel))
    }

    /// DONE with OK, from the worker that the task was sent to.
    pub(crate) fn done(&mut self, task: &TaskSent) -> Vec<Effect> {
        self.done_by(task.to, task, EndStatus::Ok)
    }

    pub(crate) fn done_by(
        &mut self,
        conn: Conn,
        task: &TaskSent,
        status: EndStatus,
    ) -> Vec<Effect> {
        let body = TestBody { tag: 1_000 + task.body.tag, bytes: 7 };
        let attempt = attempt(task);
        let done = DoneEvent { attempt, status, residence_ns: 2_000, service_ns: 1_500, body };
        self.event(Event::Done(conn, done))
    }

    /// DONE with OK, of a task that was so long with its worker, and in its handler.
    pub(crate) fn done_in(
        &mut self,
        task: &TaskSent,
        residence_ns: u64,
        service_ns: u64,
    ) -> Vec<Effect> {
        let body = TestBody { tag: 1_000 + task.body.tag, bytes: 7 };
        let (attempt, status) = (attempt(task), EndStatus::Ok);
        let done = DoneEvent { attempt, status, residence_ns, service_ns, body };
        self.event(Event::Done(task.to, done))
    }

    /// DONE with OK, of a handler that took so long.
    pub(crate) fn done_after(&mut self, task: &TaskSent, ns: u64) -> Vec<Effect> {
        self.now = self.now.after(Span(ns));
        let body = TestBody { tag: 1_000 + task.body.tag, bytes: 7 };
        let (attempt, status) = (attempt(task), EndStatus::Ok);
        let done = DoneEvent { attempt, status, residence_ns: ns, service_ns: ns, body };
        self.event(Event::Done(task.to, done))
    }

    pub(crate) fn give_back(&mut self, task: &TaskSent) -> Vec<Effect> {
        self.event(Event::Return(task.to, attempt(task)))
    }

    pub(crate) fn window(&mut self, conn: Conn, tasks: u32, bytes: u64) -> Vec<Effect> {
        self.event(Event::Window(conn, Window { tasks, bytes }))
    }

    pub(crate) fn ack(&mut self, conn: Conn, count: u64) -> Vec<Effect> {
        self.event(Event::Ack(conn, count))
    }

    pub(crate) fn gone(&mut self, conn: Conn) -> Vec<Effect> {
        self.event(Event::Gone(conn))
    }

    pub(crate) fn goodbye(&mut self, conn: Conn) -> Vec<Effect> {
        self.event(Event::Goodbye(conn))
    }

    /// A moment in which timers of the past go off.
    pub(crate) fn settle(&mut self) -> Vec<Effect> {
        self.pass(SLACK)
    }

    /// Nothing is held and no byte is counted.
    pub(crate) fn assert_empty(&self) {
        let counts = self.broker.counts();
        assert_eq!((counts.tasks, counts.bytes), (0, 0), "{counts:?}");
        assert_eq!((counts.pending, counts.in_flight), (0, 0), "{counts:?}");
    }
}

/// HELLO of this role and peer, valid in all else.
pub(crate) fn hello(role: Role, number: u8) -> Hello<'static> {
    Hello {
        version_min: 1,
        version_max: 1,
        role,
        peer_id: peer(number),
        name: "test@here",
        nonce: 42,
        features: 0,
    }
}

pub(crate) fn side_of(role: Role) -> Side {
    match role {
        Role::Client => Side::Frontend,
        Role::Worker | Role::Supervisor => Side::Backend,
    }
}
