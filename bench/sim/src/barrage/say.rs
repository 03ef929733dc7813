//! What each role says: the command is drawn, and what it names is mostly its own.

use std::collections::BTreeMap;

use pinmesh_core::{
    AdminCommand, Conn, DeadPage, DeadReason, DoneEvent, DrainTarget, Event, LetterId,
    ProgressEvent, Purge, ServiceLimits, SubmitEvent, Time,
};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::{
    Attempts, CancelRequest, Fetch, Heartbeat, Held, Host, HostWorker, Lost, Ready, ServiceAlias,
    ServiceRef, Window,
};
use pinmesh_protocol::id::{
    AttemptId, ContentType, Dispatch, Epoch, Incarnation, Priority, RequestId, Slot, Submission,
    TaskId,
};
use pinmesh_protocol::status::{EndStatus, HeldState, LossKind, ProgressKind, Role};

use super::{Barrage, CLIENTS, HOSTS, Peer, Sending, WORKERS, id_of};
use crate::clock::{MS, S};
use crate::random::Random;
use crate::record::Body;
use crate::shape::draw_limits;

/// What workers offer.
const OFFERED: [&str; 4] = ["red", "green", "blue", "grey"];
/// What some of them have beside it.
const LABELS: [&str; 3] = ["gpu", "near", "big"];
/// Names of the services that tasks are for.
const SERVICES: [&str; 7] =
    ["red", "green", "blue", "grey", "green{gpu}", "blue{big,gpu}", "grey{near}"];
/// Names that are none.
const BAD_NAMES: [&str; 4] = ["", "red{}", "red{near,gpu}", "red{gpu"];
/// Idempotency keys.
const KEYS: [&str; 4] = ["one", "two", "three", "a long one, so that it counts"];
/// Requests of which a client hands in some again.
const REQUESTS: u64 = 40;

/// Limits of some services.
pub(super) fn draw_service_limits(random: &mut Random) -> BTreeMap<String, ServiceLimits> {
    let mut own = BTreeMap::new();
    for name in SERVICES {
        if random.one_in(3) {
            own.insert(name.to_owned(), draw_limits(random));
        }
    }
    own
}

impl Barrage {
    pub(super) fn say(&mut self, at: usize) -> Result<(), String> {
        let Peer { conn, role, .. } = self.peers[at];
        if self.random.one_in(4) {
            return self.say_anything(conn);
        }
        // One in fifty says what is another role's.
        let role = match self.random.below(150) {
            0 => Role::Client,
            1 => Role::Worker,
            2 => Role::Supervisor,
            _ => role,
        };
        match role {
            Role::Client => self.say_as_client(conn),
            Role::Worker => self.say_as_worker(at),
            Role::Supervisor => self.say_as_supervisor(at),
        }
    }

    /// An operator asks for something.
    pub(super) fn operate(&mut self) -> Result<(), String> {
        let service = match self.random.below(30) {
            0 => "nobody's",
            _ => self.some_service(),
        };
        match self.random.below(16) {
            12..=15 => self.operate_on_letters(service),
            0 | 1 => self.operator(AdminCommand::Pause(service)),
            2..=5 => self.operator(AdminCommand::Resume(service)),
            6 => {
                let upto = self.random.one_in(2).then(|| Time(self.now.saturating_sub(S / 2)));
                let (from, visits) =
                    (self.random.below(8) as u32, self.random.between(1, 40) as u32);
                self.operator(AdminCommand::Purge(Purge { service, upto, from, visits }))
            }
            7 | 8 => {
                let target = match self.random.below(3) {
                    0 => DrainTarget::Peer(id_of(Role::Supervisor, self.random.below(HOSTS + 1))),
                    1 => DrainTarget::Peer(id_of(Role::Worker, self.random.below(WORKERS + 1))),
                    _ => {
                        let host = id_of(Role::Supervisor, self.random.below(HOSTS));
                        DrainTarget::Slot(host, Slot(self.random.below(3) as u16))
                    }
                };
                self.operator(AdminCommand::Drain(target))
            }
            _ => {
                let tasks: Vec<TaskId> = self.core.tasks().map(|view| view.task).collect();
                let at = self.random.below(tasks.len() as u64 + 1) as usize;
                let task = tasks.get(at).copied().unwrap_or(TaskId(self.random.next()));
                let is_hard = self.random.one_in(3);
                self.operator(AdminCommand::Cancel { task, is_hard })
            }
        }
    }

    fn operate_on_letters(&mut self, service: &str) -> Result<(), String> {
        let reasons = DeadReason::ALL;
        let reason = reasons[self.random.below(reasons.len() as u64) as usize];
        let page = DeadPage {
            service: self.random.one_in(3).then_some(service),
            reason: self.random.one_in(4).then_some(reason),
            from: LetterId(self.random.below(12) * self.random.below(2)),
            upto: self.random.one_in(4).then(|| LetterId(self.random.below(60))),
            visits: self.random.scale(1, 20) as u32,
        };
        if self.random.one_in(4) {
            return self.operator(AdminCommand::PurgeDead(page));
        }
        self.operator(AdminCommand::Replay(page))
    }

    pub(super) fn heartbeat(&mut self) -> Heartbeat {
        let silence_ns = self.random.one_in(5).then(|| self.random.scale(MS, 8 * S));
        Heartbeat { sequence: self.random.below(100), silence_ns }
    }

    fn body(&mut self) -> Body {
        let len = self.random.scale(1, 2_200) as usize;
        Body { content_type: ContentType::RAW, options: None, payload: vec![7; len].into() }
    }

    fn say_as_client(&mut self, conn: Conn) -> Result<(), String> {
        match self.random.below(22) {
            0 | 1 => {
                let request_id = self.some_request();
                let submission = Submission(self.random.between(1, 3) as u32);
                let is_hard = self.random.one_in(2);
                let cancel = CancelRequest { request_id, submission, is_hard };
                self.event(Event::Cancel(conn, cancel))
            }
            2..=6 => {
                let count = self.random.scale(1, 60);
                self.event(Event::Ack(conn, count))
            }
            7 | 9 => self.fetch(conn),
            8 => {
                let name =
                    if self.random.one_in(30) { self.bad_name() } else { self.some_service() };
                let alias = ServiceAlias { alias: self.random.below(4) as u32, name };
                self.event(Event::Service(conn, alias))
            }
            _ => self.submit(conn),
        }
    }

    fn fetch(&mut self, conn: Conn) -> Result<(), String> {
        let is_new = self.random.percent(75);
        self.requests += u64::from(is_new);
        let request_id = if is_new { RequestId(self.requests) } else { self.some_request() };
        let submission = Submission(self.random.between(1, 3) as u32);
        let key = KEYS[self.random.below(KEYS.len() as u64) as usize].as_bytes();
        let waits = self.random.one_in(2);
        self.event(Event::Fetch(conn, Fetch { request_id, submission, key, waits }))
    }

    /// A key, for one in three requests.
    fn some_key(&mut self) -> Option<Box<[u8]>> {
        let key = KEYS[self.random.below(KEYS.len() as u64) as usize];
        self.random.one_in(3).then(|| key.as_bytes().into())
    }

    fn some_request(&mut self) -> RequestId {
        RequestId(self.requests.saturating_sub(self.random.below(REQUESTS)))
    }

    fn some_service(&mut self) -> &'static str {
        SERVICES[self.random.below(SERVICES.len() as u64) as usize]
    }

    fn bad_name(&mut self) -> &'static str {
        BAD_NAMES[self.random.below(BAD_NAMES.len() as u64) as usize]
    }

    fn submit(&mut self, conn: Conn) -> Result<(), String> {
        let is_new = self.random.percent(75);
        self.requests += u64::from(is_new);
        let request_id = if is_new { RequestId(self.requests) } else { self.some_request() };
        let service = match self.random.below(30) {
            0 => ServiceRef::Alias(self.random.below(6) as u32),
            1..=8 => ServiceRef::Alias(0),
            9 => ServiceRef::Name(self.bad_name()),
            _ => ServiceRef::Name(SERVICES[self.random.scale(1, 127).ilog2() as usize]),
        };
        let options = TaskOptions {
            at_most_once: self.random.one_in(4),
            accepted: self.random.one_in(3),
            max_runtime_ns: self.random.one_in(3).then(|| self.random.scale(10 * MS, 4 * S)),
            tries_max: self.random.one_in(4).then(|| self.random.between(1, 3) as u32),
            backoff_ns: self.random.one_in(4).then(|| self.random.below(2 * S)),
            backoff_max_ns: self.random.one_in(4).then(|| self.random.below(2 * S)),
            start_after_ns: self.random.one_in(8).then(|| self.random.below(4 * S)),
            kill_at_deadline: self.random.one_in(4),
            key: self.some_key(),
            detached: self.random.one_in(12),
            retention_ns: self.random.one_in(12).then(|| self.random.scale(10 * MS, 10 * S)),
            run_on: self.random.one_in(6),
        };
        let submit = SubmitEvent {
            request_id,
            submission: Submission(self.random.between(1, 3) as u32),
            service,
            priority: Priority::new(self.random.between(1, 10) as u8).unwrap_or_default(),
            deadline_ns: self.random.one_in(4).then(|| self.random.below(4 * S)),
            options: if self.random.one_in(40) { Err("unknown option") } else { Ok(options) },
            body: self.body(),
        };
        self.event(Event::Submit(conn, submit))
    }

    /// An attempt that went to this socket, or any.
    fn some_sending(&mut self, conn: Option<Conn>) -> Option<Sending> {
        let its: Vec<Sending> = self
            .sendings
            .iter()
            .filter(|sending| conn.is_none_or(|conn| sending.to == conn))
            .copied()
            .collect();
        its.get(self.random.below(its.len() as u64) as usize).copied()
    }

    /// An attempt for this peer to speak of: its own, but for one in ten.
    pub(super) fn some_attempt(&mut self, conn: Option<Conn>) -> AttemptId {
        let conn = conn.filter(|_| !self.random.one_in(10));
        let sending = self.some_sending(conn).or_else(|| self.some_sending(None));
        let mut attempt = sending.map_or(self.earlier().attempt, |sending| sending.attempt);
        if self.random.one_in(15) {
            attempt.dispatch = Dispatch(self.random.below(4) as u32);
        }
        if self.random.one_in(15) { self.earlier().attempt } else { attempt }
    }

    /// An attempt of an earlier life of the broker, of a request that may come again.
    fn earlier(&mut self) -> Sending {
        let request = self.some_request();
        Sending {
            attempt: AttemptId {
                epoch: Epoch(6),
                task: TaskId(request.0),
                dispatch: Dispatch(self.random.between(1, 2) as u32),
            },
            to: Conn(0),
            client: id_of(Role::Client, self.random.below(CLIENTS)),
            request,
            submission: Submission(1),
        }
    }

    fn say_as_worker(&mut self, at: usize) -> Result<(), String> {
        let Peer { conn, part, .. } = self.peers[at];
        if part == 0 && !self.random.one_in(8) || part < u32::MAX && self.random.one_in(3) {
            return self.ready(at);
        }
        let attempt = self.some_attempt(Some(conn));
        match self.random.below(16) {
            0 | 1 => self.event(Event::Return(conn, attempt)),
            2 => {
                let attempts = vec![attempt, self.some_attempt(Some(conn))];
                self.event(Event::Recalled(conn, Attempts { slot: Slot(0), attempts }))
            }
            3 => {
                let window = Window {
                    tasks: self.random.below(9) as u32,
                    bytes: self.random.scale(100, 4_000),
                };
                self.event(Event::Window(conn, window))
            }
            4 if self.random.one_in(4) => self.ready(at),
            5..=8 => self.progress(conn, attempt),
            _ => {
                let status = match self.random.below(8) {
                    0 | 1 => EndStatus::Failed,
                    2 => EndStatus::FailedFinal,
                    3 => EndStatus::Cancelled,
                    _ => EndStatus::Ok,
                };
                let (residence_ns, service_ns) = (self.random.below(S), self.random.below(S));
                let body = self.body();
                let done = DoneEvent { attempt, status, residence_ns, service_ns, body };
                self.event(Event::Done(conn, done))
            }
        }
    }

    /// An update of an attempt; most have the next number of all.
    pub(super) fn progress(&mut self, conn: Conn, attempt: AttemptId) -> Result<(), String> {
        self.updates += u64::from(!self.random.one_in(6));
        let sequence = match self.random.below(12) {
            0 => self.random.below(4),
            1 => self.updates.saturating_sub(self.random.below(5)),
            _ => self.updates,
        };
        let kind = match self.random.one_in(3) {
            true => ProgressKind::Latest,
            false => ProgressKind::Stream,
        };
        let body = self.body();
        self.event(Event::Progress(conn, ProgressEvent { attempt, sequence, kind, body }))
    }

    /// READY, in one part or more; what it lists is what it was sent, or the like.
    fn ready(&mut self, at: usize) -> Result<(), String> {
        let Peer { conn, number, part, .. } = self.peers[at];
        let (part, parts) = match part {
            0 if self.random.one_in(5) => (0, 2),
            u32::MAX => (1, 2),
            0 => (0, 1),
            part => (part, 2),
        };
        self.peers[at].part = if part + 1 == parts { u32::MAX } else { part + 1 };
        let mut held = Vec::new();
        for _ in 0..self.random.below(4) {
            let sending = match self.random.below(4) {
                0 => Some(self.earlier()),
                1 => self.some_sending(None),
                _ => self.some_sending(Some(conn)),
            };
            let state = match self.random.below(3) {
                0 => HeldState::Waiting,
                1 => HeldState::Claimed,
                _ => HeldState::Ended,
            };
            held.extend(sending.map(|sending| Held {
                attempt: sending.attempt,
                client_id: sending.client,
                request_id: sending.request,
                submission: sending.submission,
                state,
            }));
        }
        let mut services: Vec<&str> = OFFERED.to_vec();
        services.retain(|_| self.random.percent(60));
        if self.random.one_in(60) {
            services.push(self.bad_name());
        }
        let mut labels: Vec<&str> = LABELS.to_vec();
        labels.retain(|_| self.random.percent(50));
        let ready = Ready {
            host: (number < 4).then(|| id_of(Role::Supervisor, number % HOSTS)),
            slot: Slot((number / HOSTS) as u16),
            incarnation: Incarnation(self.random.between(1, 3) as u32),
            services,
            labels,
            window_tasks: self.random.below(9) as u32,
            window_bytes: self.random.scale(100, 4_000),
            held,
            part,
            parts,
        };
        self.event(Event::Ready(conn, ready))
    }

    fn say_as_supervisor(&mut self, at: usize) -> Result<(), String> {
        let conn = self.peers[at].conn;
        let slot = Slot(self.random.below(2) as u16);
        let incarnation = Incarnation(self.random.between(1, 3) as u32);
        match self.random.below(8) {
            0 | 1 => {
                let causes = [
                    LossKind::Exited,
                    LossKind::Signalled,
                    LossKind::MaxRuntime,
                    LossKind::Stalled,
                    LossKind::LeaseEnded,
                    LossKind::Cancelled,
                    LossKind::Shutdown,
                    LossKind::Unknown,
                    LossKind::OutOfMemory,
                ];
                let lost = Lost {
                    slot,
                    incarnation,
                    cause: causes[self.random.below(9) as usize],
                    detail: 9,
                    running: self.random.percent(70).then(|| self.some_attempt(None)),
                    started: (0..self.random.below(6)).map(|_| self.some_attempt(None)).collect(),
                };
                self.event(Event::Lost(conn, lost))
            }
            2 => {
                let attempts: Vec<_> =
                    (0..self.random.below(4)).map(|_| self.some_attempt(None)).collect();
                self.event(Event::Recalled(conn, Attempts { slot, attempts }))
            }
            3 | 4 => {
                let mut workers = Vec::new();
                for slot in 0..self.random.below(3) {
                    workers.push(HostWorker {
                        slot: Slot(slot as u16),
                        incarnation: Incarnation(self.random.between(1, 3) as u32),
                        cpu: None,
                        claimed: (0..self.random.below(3))
                            .map(|_| self.some_attempt(None))
                            .collect(),
                    });
                }
                self.event(Event::Host(conn, Host { cpus: Vec::new(), workers }))
            }
            _ => {
                let heartbeat = self.heartbeat();
                self.event(Event::Heartbeat(conn, heartbeat))
            }
        }
    }
}
