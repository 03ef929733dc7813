//! Events of every kind, drawn at random and handed straight to a broker's machine, with the
//! reference broker beside it. The fleet's peers are honest and know their part; these say anything
//! at any time, mostly something that makes sense: lower submissions, windows that grow, READY in
//! parts, ends of each other's attempts. Nothing is checked but that both brokers agree, and that
//! the machine finds nothing wrong inside itself.

mod say;

use pinmesh_core::{
    AdminCommand, Broker, Conn, CoreConfig, Event, Outbox, ProgressHead, ResultBody, ResultHead,
    Side, Span, TaskHead, Time,
};
use pinmesh_protocol::command::{FromBroker, Hello, StageTimes};
use pinmesh_protocol::id::{AttemptId, Epoch, PeerId, RequestId, Submission};
use pinmesh_protocol::status::{RefusedCode, Role};

use crate::clock::{MS, S, US};
use crate::oracle::Oracle;
use crate::random::Random;
use crate::record::{Body, Effect, Recorder, Sent};
use crate::task::peer_id;

/// Processes of each role: clients, supervisors, and workers of them or of nobody.
const CLIENTS: u64 = 3;
const HOSTS: u64 = 2;
const WORKERS: u64 = 6;
/// Attempts that are remembered, to be ended.
const ATTEMPTS_MAX: usize = 48;

/// An attempt that the broker has sent, or that a worker claims to hold from an earlier life.
#[derive(Clone, Copy, Debug)]
struct Sending {
    attempt: AttemptId,
    to: Conn,
    client: PeerId,
    request: RequestId,
    submission: Submission,
}

/// A peer that has a session, or had one.
#[derive(Clone, Copy, Debug)]
struct Peer {
    conn: Conn,
    role: Role,
    number: u64,
    /// The part of READY that it says next.
    part: u32,
}

/// See the module.
struct Barrage {
    random: Random,
    now: u64,
    core: Broker<Body>,
    oracle: Oracle,
    epoch: Epoch,
    effects: Vec<Effect>,
    peers: Vec<Peer>,
    sendings: Vec<Sending>,
    conns: u32,
    requests: u64,
    updates: u64,
}

/// So many events with the choices of that seed.
///
/// # Errors
/// The first difference, and after how many events.
pub fn run(seed: u64, events: u64) -> Result<(), (u64, String)> {
    let mut random = Random::new(seed ^ 0xba11);
    let config = draw_config(&mut random);
    let mut barrage = Barrage {
        random,
        now: S,
        core: Broker::new(config.clone()),
        oracle: Oracle::new(&config),
        epoch: config.epoch,
        effects: Vec::new(),
        peers: Vec::new(),
        sendings: Vec::new(),
        conns: 0,
        requests: 0,
        updates: 0,
    };
    for count in 1..=events {
        barrage.step().map_err(|text| (count, text))?;
    }
    Ok(())
}

fn draw_config(random: &mut Random) -> CoreConfig {
    CoreConfig {
        epoch: Epoch(7),
        heartbeat: Span(random.scale(200 * MS, S)),
        lease: Span(random.scale(S, 8 * S)),
        grace: Span(random.scale(200 * MS, 8 * S)),
        service_wait: Span(random.scale(S, 8 * S)),
        client_kept: Span(random.scale(2 * S, 10 * S)),
        max_runtime: Span(random.scale(500 * MS, 4 * S)),
        crashes_max: random.between(1, 3) as u32,
        tries_max: random.between(1, 4) as u32,
        backoff: Span(random.scale(MS, 2 * S)),
        backoff_max: Span(random.scale(MS, 4 * S)),
        jitter_seed: random.next(),
        client_window_tasks: random.scale(2, 30) as u32,
        client_window_bytes: random.scale(500, 20_000),
        worker_window_tasks: random.scale(1, 8) as u32,
        worker_window_bytes: random.scale(200, 4_000),
        memory_bytes_max: random.scale(8_000, 200_000),
        results_ahead_bytes: random.scale(200, 20_000),
        stream_bytes_max: random.scale(100, 10_000),
        payload_bytes_max: random.scale(500, 2_000),
        dead_letters_max: random.below(12) as u32,
        dead_bytes_max: random.scale(1_000, 20_000),
        dead_kept: Span(random.scale(S, 20 * S)),
        key_kept: Span(random.scale(100 * MS, 6 * S)),
        detached_kept: Span(random.scale(100 * MS, 10 * S)),
        kept_max: Span(random.scale(S, 8 * S)),
        keys_max: random.scale(1, 8) as u32,
        keys_bytes_max: random.scale(300, 20_000),
        sessions_max: 60,
        services_max: 16,
        is_strict: random.one_in(4),
        is_credit_fixed: random.one_in(2),
        retry_after: Span(random.scale(MS, S)),
        own_service_limits: say::draw_service_limits(random),
        ..CoreConfig::default()
    }
}

/// Where effects end.
struct Nowhere;

impl Outbox<Body> for Nowhere {
    fn task(&mut self, _: Conn, _: &TaskHead, _: &Body) {}
    fn result(&mut self, _: Conn, _: &ResultHead, _: ResultBody<'_, Body>) {}
    fn progress(&mut self, _: Conn, _: &ProgressHead, _: &Body) {}
    fn send(&mut self, _: Conn, _: FromBroker<'_>) {}
    fn close(&mut self, _: Conn) {}
    fn stages(&mut self, _: &StageTimes) {}
}

impl Barrage {
    fn step(&mut self) -> Result<(), String> {
        let is_busy = self.random.percent(70);
        self.now += match is_busy {
            true => self.random.scale(US, 10 * MS),
            false => self.random.scale(MS, 2 * S),
        };
        // A broker that was held up reads before it looks at the time.
        let is_due = self.core.next_wakeup().is_some_and(|at| at.0 <= self.now);
        if is_due && !self.random.one_in(4) {
            return self.event(Event::Tick);
        }
        if self.peers.is_empty() || self.random.one_in(12) {
            return self.greet();
        }
        if self.random.one_in(20) {
            return self.operate();
        }
        let at = self.random.below(self.peers.len() as u64) as usize;
        self.say(at)
    }

    fn operator(&mut self, command: AdminCommand<'_>) -> Result<(), String> {
        let now = Time(self.now);
        let mut effects = Vec::new();
        let mut recorder = Recorder { effects: &mut effects, next: &mut Nowhere };
        let reply = self.core.administer(now, command, &mut recorder);
        self.oracle.follow_operator(now, &command, &reply, &effects, &self.core)?;
        if let Some(text) = self.core.violations().into_iter().next() {
            return Err(format!("{text}\n  {command:?}\n  the broker: {effects:?}"));
        }
        for effect in effects {
            self.note(&effect);
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_, Body>) -> Result<(), String> {
        self.effects.clear();
        let now = Time(self.now);
        let mut recorder = Recorder { effects: &mut self.effects, next: &mut Nowhere };
        self.core.handle(now, event.clone(), &mut recorder);
        self.oracle.follow(now, &event, &self.effects, &self.core)?;
        if let Some(text) = self.core.violations().into_iter().next() {
            return Err(format!("{text}\n  event {event:?}\n  the broker: {:?}", self.effects));
        }
        for effect in std::mem::take(&mut self.effects) {
            self.note(&effect);
        }
        Ok(())
    }

    fn note(&mut self, effect: &Effect) {
        match effect {
            Effect::Task { to, head, .. } => {
                let (task, dispatch) = (head.task, head.dispatch);
                if self.sendings.len() == ATTEMPTS_MAX {
                    self.sendings.remove(0);
                }
                self.sendings.push(Sending {
                    attempt: AttemptId { epoch: self.epoch, task, dispatch },
                    to: *to,
                    client: head.client_id,
                    request: head.request_id,
                    submission: head.submission,
                });
            }
            // Some go on talking after that.
            Effect::Close(conn) if !self.random.one_in(10) => {
                self.peers.retain(|peer| peer.conn != *conn);
            }
            Effect::Send { to, command: Sent::NoSession } => {
                self.peers.retain(|peer| peer.conn != *to);
            }
            _ => {}
        }
    }

    /// Somebody says HELLO, on a socket of its own but for one in thirty.
    fn greet(&mut self) -> Result<(), String> {
        let (role, number) = match self.random.below(CLIENTS + HOSTS + WORKERS) {
            at if at < CLIENTS => (Role::Client, at),
            at if at < CLIENTS + HOSTS => (Role::Supervisor, at - CLIENTS),
            at => (Role::Worker, at - CLIENTS - HOSTS),
        };
        let open = self.peers.get(self.random.below(30) as usize).map(|peer| peer.conn);
        let conn = open.filter(|_| self.random.one_in(8)).unwrap_or_else(|| {
            self.conns += 1;
            Conn(self.conns)
        });
        let is_frontend = (role == Role::Client) != self.random.one_in(40);
        let hello = Hello {
            version_min: if self.random.one_in(60) { 2 } else { 1 },
            version_max: 2,
            role,
            peer_id: id_of(if self.random.one_in(60) { Role::Client } else { role }, number),
            name: if self.random.one_in(3) { "barrage" } else { "blockade" },
            nonce: self.random.next(),
            features: 0,
        };
        let side = if is_frontend { Side::Frontend } else { Side::Backend };
        self.peers.retain(|peer| peer.conn != conn);
        self.peers.push(Peer { conn, role, number, part: 0 });
        let user =
            self.random.one_in(3).then_some(if self.random.one_in(2) { "key" } else { "barrage" });
        self.event(Event::Hello(conn, side, hello, user))
    }

    /// What anybody may say.
    fn say_anything(&mut self, conn: Conn) -> Result<(), String> {
        match self.random.below(12) {
            0 => self.event(Event::Full(conn)),
            1 | 2 => self.event(Event::Sendable(conn)),
            3 if self.random.one_in(4) => self.event(Event::Goodbye(conn)),
            4 if self.random.one_in(3) => {
                self.peers.retain(|peer| peer.conn != conn);
                self.event(Event::Gone(conn))
            }
            5 if self.random.one_in(6) => {
                self.event(Event::Malformed(conn, RefusedCode::Malformed, "nonsense"))
            }
            6 => {
                let attempt = self.some_attempt(None);
                self.progress(conn, attempt)
            }
            7 if self.random.one_in(400) => self.event(Event::Drain),
            8 | 9 => {
                let heartbeat = self.heartbeat();
                self.event(Event::Heartbeat(conn, heartbeat))
            }
            _ => self.event(Event::BatchEnd(conn)),
        }
    }
}

/// The id of a process.
fn id_of(role: Role, number: u64) -> PeerId {
    let kind = match role {
        Role::Client => 1,
        Role::Worker => 2,
        Role::Supervisor => 3,
    };
    peer_id(kind, number as u32)
}
