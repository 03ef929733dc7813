//! The world: time, links with messages in transit, and the choice of what happens next.

use std::collections::VecDeque;

use pinmesh_core::{Conn, CoreConfig, DoneEvent, Event, Side, Span};
use pinmesh_protocol::command::{Heartbeat, Hello, Host, HostWorker, Lost};
use pinmesh_protocol::id::{AttemptId, Incarnation, PeerId, Slot};
use pinmesh_protocol::status::{EndStatus, RefusedCode, Role};

use super::clients::Client;
use super::oracle::Oracle;
use super::supervisors::Supervisor;
use super::workers::Worker;
use crate::support::{
    Ask, Effect, Greeting, SECOND, Sent, Sim, TaskSent, TestBody, attempt, side_of,
};

pub(crate) const SERVICES: [&str; 3] = ["red", "green", "blue"];

/// Whose link it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Client(usize),
    Worker(usize),
    Supervisor(usize),
}

/// What a peer says to the broker.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Hello(Hello<'static>),
    Goodbye,
    Heartbeat(u64),
    Ack(u64),
    Submit(Ask),
    Cancel(u64, u32),
    Ready(Greeting),
    Done(TaskSent, EndStatus, u64),
    Return(TaskSent),
    Host(Vec<(u16, u32)>),
    Lost(Lost),
    Recalled(TaskSent),
    Garbage,
    Gone,
}

/// One socket; its number is its place.
pub(crate) struct Link {
    owner: Owner,
    role: Role,
    up: VecDeque<Up>,
    down: VecDeque<Effect>,
    /// The peer has left it.
    is_cut: bool,
    /// The broker has ended its session.
    pub(crate) is_closed: bool,
    is_full: bool,
}

/// Xorshift: the same choices for the same seed, everywhere.
pub(crate) struct Choice(u64);

impl Choice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

pub(crate) struct World {
    seed: u64,
    pub(crate) sim: Sim,
    pub(crate) choice: Choice,
    pub(crate) links: Vec<Link>,
    pub(crate) clients: Vec<Client>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) supervisors: Vec<Supervisor>,
    pub(crate) oracle: Oracle,
    /// Slots without a process, and the incarnation that comes next there.
    pub(crate) vacant: Vec<(Option<usize>, u16, u32)>,
    beat_at: u64,
    beats: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("PINMESH_SEED={} repeats this", self.seed);
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let sim = Sim::with(CoreConfig {
            lease: Span::from_secs(4),
            grace: Span::from_secs(2),
            service_wait: Span::from_secs(5),
            max_runtime: Span::from_secs(20),
            client_window_tasks: 25,
            worker_window_tasks: 6,
            memory_bytes_max: 80_000,
            ..CoreConfig::default()
        });
        let mut world = Self {
            seed,
            beat_at: sim.now.after(SECOND).0,
            sim,
            choice: Choice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            links: Vec::new(),
            clients: (0..3).map(Client::new).collect(),
            workers: Vec::new(),
            supervisors: (0..2).map(Supervisor::new).collect(),
            oracle: Oracle::default(),
            beats: 0,
            vacant: Vec::new(),
        };
        for slot in 0..2 {
            world.spawn_worker(Some(0), slot, 1);
            world.spawn_worker(Some(1), slot, 1);
            world.spawn_worker(None, slot, 1);
        }
        world
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) {
        match self.choice.below(100) {
            0..30 => self.deliver_some_up(),
            30..58 => self.deliver_some_down(),
            58..72 => self.act_client(),
            72..88 => self.act_worker(),
            88..90 => self.act_supervisor(),
            90..92 => self.change_full(),
            92..99 => {
                let span = Span::from_millis(self.choice.below(120) as u64);
                self.advance(span);
            }
            _ if self.choice.one_in(4) => {
                let span = Span::from_millis(self.choice.below(12_000) as u64);
                self.advance(span);
            }
            _ if self.choice.one_in(20) => self.advance(Span::from_secs(70)),
            _ => self.garble(),
        }
    }

    /// The faults are over: everybody speaks, works and acknowledges, until nothing is left.
    pub(crate) fn heal(&mut self) {
        for _ in 0..1_600 {
            for link in 0..self.links.len() {
                if std::mem::take(&mut self.links[link].is_full) {
                    self.event(Event::Sendable(Conn(link as u32)));
                }
            }
            self.heal_fleet();
            self.heal_clients();
            self.deliver_all();
            self.advance(Span::from_millis(250));
            let is_resolved = self.clients.iter().all(Client::is_resolved);
            if is_resolved && self.sim.broker.counts().tasks == 0 {
                self.sim.assert_empty();
                assert_eq!(self.sim.broker.ledger().held, 0);
                return;
            }
        }
        let counts = self.sim.broker.counts();
        panic!("400 s after the faults something is left: {counts:?}, {:#?}", self.clients);
    }

    pub(crate) fn open(&mut self, owner: Owner, role: Role, peer_id: PeerId) -> usize {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            role,
            peer_id,
            name: "random",
            nonce: self.links.len() as u64,
            features: 0,
        };
        self.links.push(Link {
            owner,
            role,
            up: VecDeque::from([Up::Hello(hello)]),
            down: VecDeque::new(),
            is_cut: false,
            is_closed: false,
            is_full: false,
        });
        self.links.len() - 1
    }

    /// The peer leaves the socket; part of what it said may still arrive.
    pub(crate) fn cut(&mut self, link: usize) {
        let link = &mut self.links[link];
        link.is_cut = true;
        link.down.clear();
        let arrives = self.choice.below(link.up.len() + 1);
        link.up.truncate(arrives);
        if self.choice.one_in(2) {
            link.up.push_back(Up::Gone);
        }
    }

    pub(crate) fn say(&mut self, link: Option<usize>, up: Up) {
        if let Some(link) = link
            && !self.links[link].is_cut
        {
            self.links[link].up.push_back(up);
        }
    }

    fn deliver_some_up(&mut self) {
        let ready: Vec<_> =
            (0..self.links.len()).filter(|link| !self.links[*link].up.is_empty()).collect();
        if !ready.is_empty() {
            let link = ready[self.choice.below(ready.len())];
            for _ in 0..=self.choice.below(4) {
                self.deliver_up(link);
            }
            self.event(Event::BatchEnd(Conn(link as u32)));
        }
    }

    fn deliver_some_down(&mut self) {
        let ready: Vec<_> =
            (0..self.links.len()).filter(|link| !self.links[*link].down.is_empty()).collect();
        if !ready.is_empty() {
            let link = ready[self.choice.below(ready.len())];
            for _ in 0..=self.choice.below(4) {
                self.deliver_down(link);
            }
        }
    }

    fn deliver_all(&mut self) {
        loop {
            let mut is_quiet = true;
            for link in 0..self.links.len() {
                is_quiet &= self.links[link].up.is_empty() && self.links[link].down.is_empty();
                while !self.links[link].up.is_empty() {
                    self.deliver_up(link);
                }
                if !self.links[link].is_cut {
                    self.event(Event::BatchEnd(Conn(link as u32)));
                }
                while !self.links[link].down.is_empty() {
                    self.deliver_down(link);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn deliver_up(&mut self, link: usize) {
        let Some(up) = self.links[link].up.pop_front() else { return };
        let conn = Conn(link as u32);
        let effects = match up {
            Up::Hello(hello) => {
                let side: Side = side_of(self.links[link].role);
                self.sim.event(Event::Hello(conn, side, hello, None))
            }
            Up::Goodbye => self.sim.goodbye(conn),
            Up::Heartbeat(sequence) => {
                self.sim.event(Event::Heartbeat(conn, Heartbeat { sequence, silence_ns: None }))
            }
            Up::Ack(count) => self.sim.ack(conn, count),
            Up::Submit(ask) => self.sim.ask(conn, ask),
            Up::Cancel(request, submission) => self.sim.cancel(conn, request, submission),
            Up::Ready(greeting) => self.sim.ready(conn, greeting),
            Up::Done(task, status, token) => {
                let body = TestBody { tag: token, bytes: token % 50 };
                let attempt = attempt(&task);
                let done = DoneEvent { attempt, status, residence_ns: 10, service_ns: 5, body };
                self.sim.event(Event::Done(conn, done))
            }
            Up::Return(task) => self.sim.event(Event::Return(conn, attempt(&task))),
            Up::Host(workers) => {
                let workers = workers.into_iter().map(|(slot, incarnation)| HostWorker {
                    slot: Slot(slot),
                    incarnation: Incarnation(incarnation),
                    cpu: None,
                    claimed: Vec::new(),
                });
                self.sim.event(Event::Host(conn, Host { cpus: vec![], workers: workers.collect() }))
            }
            Up::Lost(lost) => self.sim.event(Event::Lost(conn, lost)),
            Up::Recalled(task) => self.sim.recalled(conn, &[&task]),
            Up::Garbage => {
                self.sim.event(Event::Malformed(conn, RefusedCode::Malformed, "garbage"))
            }
            Up::Gone => self.sim.gone(conn),
        };
        self.route(effects);
    }

    fn deliver_down(&mut self, link: usize) {
        let Some(effect) = self.links[link].down.pop_front() else { return };
        match self.links[link].owner {
            Owner::Client(client) => self.client_hears(client, link, effect),
            Owner::Worker(worker) => self.worker_hears(worker, link, effect),
            Owner::Supervisor(supervisor) => self.supervisor_hears(supervisor, link, effect),
        }
    }

    fn event(&mut self, event: Event<'_, TestBody>) {
        let effects = self.sim.event(event);
        self.route(effects);
    }

    fn route(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let to = match &effect {
                Effect::Task(task) => {
                    self.check_dispatch(task);
                    task.to
                }
                Effect::Result { to, .. } => *to,
                Effect::Send { to, .. } => *to,
                Effect::Close(conn) => {
                    self.links[conn.0 as usize].is_closed = true;
                    continue;
                }
                Effect::Progress { .. } | Effect::Stages(_) => continue,
            };
            let link = &mut self.links[to.0 as usize];
            if !link.is_cut {
                link.down.push_back(effect);
            }
        }
    }

    fn change_full(&mut self) {
        let link = self.choice.below(self.links.len());
        if self.links.is_empty() || self.links[link].is_cut {
            return;
        }
        let is_full = !self.links[link].is_full;
        self.links[link].is_full = is_full;
        let conn = Conn(link as u32);
        self.event(if is_full { Event::Full(conn) } else { Event::Sendable(conn) });
    }

    fn garble(&mut self) {
        if !self.links.is_empty() {
            let link = self.choice.below(self.links.len());
            self.say(Some(link), Up::Garbage);
        }
    }

    /// Time passes. Supervisors look at their lease first: they do not depend on the broker's pace.
    fn advance(&mut self, span: Span) {
        self.sim.now = self.sim.now.after(span);
        self.end_leases();
        if self.sim.now.0 >= self.beat_at {
            self.beat_at = self.sim.now.after(SECOND).0;
            self.beats += 1;
            for supervisor in &mut self.supervisors {
                supervisor.beats.push((self.beats, self.sim.now));
            }
            for link in 0..self.links.len() {
                if self.is_welcomed(link) {
                    self.say(Some(link), Up::Heartbeat(self.beats));
                }
            }
        }
        self.event(Event::Tick);
    }

    fn is_welcomed(&self, link: usize) -> bool {
        match self.links[link].owner {
            Owner::Client(client) => self.clients[client].is_welcomed_on(link),
            Owner::Worker(worker) => self.workers[worker].is_welcomed_on(link),
            Owner::Supervisor(at) => self.supervisors[at].is_welcomed_on(link),
        }
    }
}

/// Whether the broker turns the peer away, so that it has to begin anew.
pub(crate) fn is_end_of_session(effect: &Effect) -> bool {
    matches!(effect, Effect::Send { command: Sent::NoSession | Sent::Refused(..), .. })
}

/// The name of an attempt for maps.
pub(crate) fn name(task: &TaskSent) -> AttemptId {
    attempt(task)
}
