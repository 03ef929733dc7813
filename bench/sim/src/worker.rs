//! Worker processes: the real session machines inside the hot loop's order of things, with handlers
//! that take virtual time. The loop is one thread: while a handler runs, nothing is read and
//! nothing is sent.

mod link;
mod say;

use pinmesh_protocol::codec::write_done;
use pinmesh_protocol::command::{Done, Payload};
use pinmesh_protocol::id::{AttemptId, ContentType, Incarnation, PeerId, Slot};
use pinmesh_protocol::status::EndStatus;
use pinmesh_session::Time;
use pinmesh_session::supervision::Death;
use pinmesh_session::worker::{Event, Start, WorkerConfig, WorkerSession};

use crate::checker::{Checker, Place};
use crate::clock::{MS, S, US, Wake};
use crate::counters::Count;
use crate::net::{Machine, Owner};
use crate::page::Page;
use crate::task::{Act, Key, Output, Plan, peer_id};
use crate::world::{Alarm, World};
use link::{Io, LinkState};

/// Results older than this are sent before the next handler starts, nanoseconds.
const FLUSH_AFTER: u64 = 50 * US;
/// The longest sleep, nanoseconds.
const SLEEP_MAX: u64 = S;
/// How long a worker that is told to leave waits for its last ends to be acknowledged.
const LEAVE_MAX: u64 = 5 * S;
/// SIGTERM.
const SIGTERM: i32 = 15;
/// SIGSEGV.
const SIGSEGV: i32 = 11;

/// A process, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WorkerId(pub u32);

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct WorkerShape {
    /// Brokers that it serves.
    pub brokers: usize,
    /// Services that it serves.
    pub services: Vec<String>,
    /// Labels that it has.
    pub labels: Vec<String>,
    /// Window for each broker.
    pub window: (u32, u64),
    /// Buckets and ways of its page's refusal table.
    pub refusals: (usize, usize),
}

/// Where the process stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It has not reached its loop.
    Starting,
    /// In its loop, or in a handler.
    Running,
    /// Gone. Its page can still be read.
    Dead,
}

/// What came of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turned {
    /// The process goes on.
    Lives,
    /// It has left, or died of its handler.
    Died(Death),
}

/// What is in the handler.
#[derive(Clone, Copy, Debug)]
struct Run {
    link: usize,
    index: u32,
    key: Key,
    attempt: AttemptId,
    act: Act,
    tries: u32,
    is_obedient: bool,
    started: Time,
    /// When it ends, true time; [`u64::MAX`]: not by itself.
    ends_at: u64,
    sees_cancel: bool,
    /// What it has yet to say, what it has said, and the time between two of these.
    updates: u8,
    said: u64,
    pause: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Worker {
    /// Which process.
    pub id: WorkerId,
    /// Its supervisor's place among the hosts.
    pub host: Option<usize>,
    /// Its place there.
    pub slot: Slot,
    /// Its life there.
    pub incarnation: Incarnation,
    /// Whose clock and network it has.
    pub machine: Machine,
    /// Shared with its supervisor.
    pub page: Page,
    links: Vec<(WorkerSession<Vec<u8>>, LinkState)>,
    phase: Phase,
    alarm: Alarm,
    handler_alarm: Alarm,
    run: Option<Run>,
    /// What was left of the handler's time when the process was stopped.
    left: u64,
    is_stopped: bool,
    is_frozen: bool,
    is_asked_to_leave: bool,
    leave_by: Option<Time>,
    pass_start: u64,
    link_turn: usize,
}

impl Worker {
    /// A process that has just been started.
    pub fn new(
        world: &mut World,
        id: WorkerId,
        (host, machine): (Option<(usize, PeerId)>, Machine),
        (slot, incarnation): (Slot, Incarnation),
        shape: &WorkerShape,
    ) -> Self {
        let links = (0..shape.brokers).map(|broker| {
            let config = WorkerConfig {
                peer_id: peer_id(2, id.0),
                name: format!("w{}", id.0),
                host: host.map(|(_, peer_id)| peer_id),
                slot,
                incarnation,
                services: shape.services.clone(),
                labels: shape.labels.clone(),
                window_tasks: shape.window.0,
                window_bytes: shape.window.1,
                seed: world.random.next(),
            };
            (WorkerSession::new(config), LinkState::new(broker))
        });
        let mut worker = Self {
            id,
            host: host.map(|(index, _)| index),
            slot,
            incarnation,
            machine,
            page: Page::new(shape.brokers, shape.refusals),
            links: links.collect(),
            phase: Phase::Starting,
            alarm: Alarm::default(),
            handler_alarm: Alarm::default(),
            run: None,
            left: 0,
            is_stopped: false,
            is_frozen: false,
            is_asked_to_leave: false,
            leave_by: None,
            pass_start: 0,
            link_turn: 0,
        };
        let startup = if world.wake_max == 0 { MS } else { world.random.scale(MS, 100 * MS) };
        worker.poke(world, startup);
        worker
    }

    /// Whether the process is there.
    pub fn is_alive(&self) -> bool {
        self.phase != Phase::Dead
    }

    /// Whether it holds nothing and has nothing to tell.
    pub fn is_idle(&self) -> bool {
        !self.is_alive()
            || self
                .links
                .iter()
                .all(|(session, _)| session.unended() == 0 && session.unacknowledged() == 0)
    }

    fn can_run(&self) -> bool {
        self.is_alive() && !self.is_stopped && !self.is_frozen
    }

    /// Makes the loop turn after so long, unless it does earlier.
    pub fn poke(&mut self, world: &mut World, ns: u64) {
        let at = world.now.saturating_add(ns);
        if let Some(number) = self.alarm.bring_forward(at) {
            world.agenda.add(at, Wake::Worker(self.id, number));
        }
    }

    /// Something has come in.
    pub fn on_mail(&mut self, world: &mut World) {
        if self.can_run() && self.run.is_none() && self.phase == Phase::Running {
            let wait = world.wake_time();
            self.poke(world, wait);
        }
    }

    /// Stopped or not, and suspended with its machine or not. Its handler stands still too.
    pub fn hold(&mut self, world: &mut World, is_stopped: bool, is_frozen: bool) {
        let could_run = self.can_run();
        self.is_stopped = is_stopped;
        self.is_frozen = is_frozen;
        if could_run && !self.can_run() {
            self.handler_alarm.silence();
            let ends_at = self.run.as_ref().map_or(0, |run| run.ends_at);
            self.left =
                if ends_at == u64::MAX { u64::MAX } else { ends_at.saturating_sub(world.now) };
        } else if !could_run && self.can_run() {
            if self.run.is_some() {
                self.plan_end(world, self.left);
            } else {
                self.alarm.silence();
                self.poke(world, 0);
            }
        }
    }

    /// Stopped by a signal.
    pub const fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Suspended with its machine.
    pub const fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    fn plan_end(&mut self, world: &mut World, ns: u64) {
        self.handler_alarm.silence();
        let Some(run) = &mut self.run else { return };
        run.ends_at = world.now.saturating_add(ns);
        if ns != u64::MAX
            && let Some(number) = self.handler_alarm.bring_forward(run.ends_at)
        {
            world.agenda.add(run.ends_at, Wake::Handler(self.id, number));
        }
    }

    /// SIGTERM. The manner of its death, if it has no ear for it yet.
    pub fn ask_to_leave(&mut self, world: &mut World) -> Option<Death> {
        match self.phase {
            Phase::Starting => return Some(Death::Signalled(SIGTERM)),
            Phase::Running => {
                self.is_asked_to_leave = true;
                if self.run.is_none() {
                    self.poke(world, 0);
                }
            }
            Phase::Dead => {}
        }
        None
    }

    /// The supervisor has set a cancel flag.
    pub fn on_cancel(&mut self, world: &mut World, attempt: AttemptId) {
        let Some(run) = &mut self.run else { return };
        if run.attempt == attempt && (run.is_obedient || run.act == Act::Wait) {
            run.sees_cancel = true;
            world.counters.add(Count::CancelSeen);
            if self.can_run() {
                let look = world.random.below(20 * MS) + US;
                self.plan_end(world, look);
            } else {
                self.left = MS;
            }
        }
    }

    /// The process is gone.
    pub fn die(&mut self, world: &mut World, checker: &mut Checker) {
        self.phase = Phase::Dead;
        self.run = None;
        self.alarm.silence();
        self.handler_alarm.silence();
        checker.on_death(self.id);
        for (_, state) in &mut self.links {
            if let Some(socket) = state.socket.take() {
                world.net.kill(socket, &mut world.random);
            }
        }
    }

    /// The loop turns, unless it was not to.
    pub fn turn(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        (clock_ahead, number): (u64, u32),
    ) -> Option<Turned> {
        if !self.alarm.rings(number) || !self.can_run() || self.run.is_some() {
            return None;
        }
        self.phase = Phase::Running;
        Some(self.pass(world, checker, clock_ahead))
    }

    fn pass(&mut self, world: &mut World, checker: &mut Checker, ahead: u64) -> Turned {
        self.pass_start = world.now;
        self.show();
        for at in 0..self.links.len() {
            while let Some(socket) = self.links[at].1.socket
                && let Some(bytes) = world.net.read(socket)
            {
                self.read(world, checker, at, (socket, &bytes), ahead);
            }
        }
        self.tick(world, ahead);
        if self.has_left(world, ahead) {
            self.links.iter_mut().for_each(|(_, state)| state.leave(world));
            return Turned::Died(Death::Exited(0));
        }
        self.work(world, checker, ahead);
        Turned::Lives
    }

    fn show(&mut self) {
        let unended = self.links.iter().map(|(session, _)| session.unended()).sum();
        let sessions = self.links.iter().filter(|(session, _)| session.is_open()).count();
        self.page.turn(unended, sessions);
    }

    fn tick(&mut self, world: &mut World, ahead: u64) {
        let now = Time(world.now + ahead);
        if self.leave_by.is_none() && self.is_asked_to_leave {
            self.leave_by = Some(now.after(LEAVE_MAX));
            for at in 0..self.links.len() {
                self.session(world, at, |session, io| {
                    session.handle(now, Event::Drain { give_back: true }, io);
                });
            }
        }
        for at in 0..self.links.len() {
            if self.host.is_some() {
                let lease = self.page.lease(at);
                self.session(world, at, |session, io| {
                    let was_open = session.is_open();
                    session.handle(now, Event::Lease(lease), io);
                    if was_open && !session.is_open() {
                        io.world.counters.add(Count::LeaseLapsed);
                    }
                });
            }
            if self.links[at].0.next_wakeup().is_some_and(|(due, _)| now >= due) {
                self.session(world, at, |session, io| {
                    session.handle(now, Event::Tick, io);
                });
            }
        }
    }

    fn session<T>(
        &mut self,
        world: &mut World,
        at: usize,
        act: impl FnOnce(&mut WorkerSession<Vec<u8>>, &mut Io<'_>) -> T,
    ) -> T {
        let has_page = self.host.is_some();
        let (session, state) = &mut self.links[at];
        let (id, machine) = (self.id, self.machine);
        let page = has_page.then_some(&mut self.page);
        let socket = state.socket;
        let result =
            act(session, &mut Io { world, state, page, owner: Owner::Worker(id), machine });
        if state.socket != socket {
            state.was_clean = session.unended() + session.unacknowledged() == 0;
        }
        result
    }

    fn has_left(&self, world: &World, ahead: u64) -> bool {
        let now = Time(world.now + ahead);
        if self.leave_by.is_some_and(|by| now >= by) {
            return true;
        }
        self.links.iter().all(|(session, _)| {
            let has_nothing = session.unended() == 0 && session.unacknowledged() == 0;
            let is_leaving = self.leave_by.is_some();
            session.has_left() || (is_leaving && has_nothing && !session.is_open())
        })
    }

    /// Starts the next handler, or goes to sleep.
    fn work(&mut self, world: &mut World, checker: &mut Checker, ahead: u64) {
        let now = Time(world.now + ahead);
        while let Some((at, index)) = self.next(world, now) {
            if self.links.iter().any(|(_, state)| state.has_waited(world.now, FLUSH_AFTER)) {
                self.links.iter_mut().for_each(|(_, state)| state.flush(world));
            }
            if self.start(world, checker, (at, index), now) {
                return;
            }
        }
        self.links.iter_mut().for_each(|(_, state)| state.flush(world));
        self.show();
        self.sleep(world, ahead);
    }

    fn next(&mut self, world: &mut World, now: Time) -> Option<(usize, u32)> {
        for _ in 0..self.links.len() {
            let at = self.link_turn;
            self.link_turn = (self.link_turn + 1) % self.links.len();
            while let Some(index) = self.links[at].1.next_ticket() {
                if self.host.is_some() {
                    let lease = self.page.lease(at);
                    self.session(world, at, |session, io| {
                        session.handle(now, Event::Lease(lease), io);
                    });
                }
                let start = self.session(world, at, |session, io| session.start(now, index, io));
                match start {
                    Start::Run => {
                        self.links[at].1.pop_ticket();
                        return Some((at, index));
                    }
                    Start::NotYet => break,
                    Start::GivenBack => {}
                }
            }
        }
        None
    }

    /// Enters the handler. `false`: the task was recalled in time.
    fn start(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        (at, index): (usize, u32),
        now: Time,
    ) -> bool {
        let Some(&task) = self.links[at].0.task(index) else { return false };
        let slot = Page::slot(at, index);
        if self.host.is_some() && !self.page.claim(slot, now, task.max_runtime_ns) {
            self.session(world, at, |session, io| session.recalled(index, io));
            return false;
        }
        let Some(plan) = self.links[at].1.input(index).and_then(Plan::from_payload) else {
            checker.fail(format!("w{} has lost the input of {}", self.id.0, task.attempt));
            return false;
        };
        let place = Place { worker: self.id, host: self.host, broker: at };
        checker.on_start(world, place, task.attempt, plan.key, &task);
        world.counters.add(Count::Started);
        let name = checker.worker_name(self.id);
        world.tell(|| format!("{name} starts {}", checker.attempt_name(task.attempt)));
        self.run = Some(Run {
            link: at,
            index,
            key: plan.key,
            attempt: task.attempt,
            act: plan.act,
            tries: task.tries,
            is_obedient: plan.is_obedient,
            started: now,
            ends_at: u64::MAX,
            sees_cancel: false,
            updates: plan.updates,
            said: 0,
            pause: 0,
        });
        let duration = match plan.act {
            Act::Ok | Act::Fail | Act::FailOnce | Act::FailFinal | Act::Poison | Act::CrashOnce => {
                plan.duration
            }
            // Nobody kills the handler of a worker without a supervisor: it comes back, late.
            Act::Hang | Act::Wait if self.host.is_none() => {
                task.max_runtime_ns.saturating_mul(1 + plan.duration % 5)
            }
            Act::Hang | Act::Wait => u64::MAX,
            Act::Brink => task.max_runtime_ns.saturating_add(plan.duration % (400 * US)),
        };
        let pause = match duration {
            u64::MAX => u64::MAX,
            ns => (ns / (u64::from(plan.updates) + 1)).max(1),
        };
        if let Some(run) = &mut self.run {
            run.pause = pause;
        }
        self.plan_end(world, pause);
        true
    }

    /// The handler ends, unless it was not to.
    pub fn end_handler(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        (ahead, number): (u64, u32),
    ) -> Option<Turned> {
        if !self.handler_alarm.rings(number) || !self.can_run() {
            return None;
        }
        let mut run = self.run?;
        if run.updates > 0 && !run.sees_cancel {
            let wait = self.say(world, checker, &mut run, ahead);
            self.run = Some(run);
            self.plan_end(world, wait);
            return Some(Turned::Lives);
        }
        let is_fatal = run.act == Act::Poison || (run.act == Act::CrashOnce && run.tries == 0);
        if is_fatal && !run.sees_cancel {
            let deaths = [Death::Exited(101), Death::Signalled(SIGSEGV), Death::OutOfMemory];
            let death = deaths[world.random.below(3) as usize];
            return Some(Turned::Died(death));
        }
        self.run = None;
        self.end(world, checker, &run, ahead);
        if world.now - self.pass_start >= FLUSH_AFTER {
            self.links.iter_mut().for_each(|(_, state)| state.flush(world));
            return Some(self.pass(world, checker, ahead));
        }
        self.work(world, checker, ahead);
        Some(Turned::Lives)
    }

    fn end(&mut self, world: &mut World, checker: &mut Checker, run: &Run, ahead: u64) {
        let now = Time(world.now + ahead);
        let slot = Page::slot(run.link, run.index);
        let is_cancelled = self.host.is_some() && self.page.word(slot).is_cancelled();
        let status = match (run.sees_cancel, run.act) {
            (true, _) => EndStatus::Cancelled,
            (false, Act::FailOnce) if run.tries > 0 => EndStatus::Ok,
            (false, Act::Fail | Act::FailOnce | Act::FailFinal) if is_cancelled => {
                EndStatus::Cancelled
            }
            (false, Act::Fail | Act::FailOnce) => EndStatus::Failed,
            (false, Act::FailFinal) => EndStatus::FailedFinal,
            (false, _) => EndStatus::Ok,
        };
        if self.host.is_some() {
            self.page.end(slot);
        }
        let token = checker.on_end(self.id, run.attempt, run.key, status);
        let name = checker.worker_name(self.id);
        world.tell(|| format!("{name} ends {} {status}", checker.attempt_name(run.attempt)));
        let Some(&task) = self.links[run.link].0.task(run.index) else {
            return checker.fail(format!("{name} has forgotten what it runs: {}", run.attempt));
        };
        let payload = Output { key: run.key, token }.to_payload();
        let mut bytes = Vec::new();
        let done = Done {
            attempt: run.attempt,
            status,
            residence_ns: now.since(task.received),
            service_ns: now.since(run.started),
            content_type: ContentType::RAW,
            payload: Payload::Inline(&payload),
        };
        write_done(&mut bytes, &done);
        let (index, len) = (run.index, bytes.len() as u64);
        self.links[run.link].1.drop_input(index);
        self.session(world, run.link, |session, io| {
            session.end(now, index, bytes, len, io);
        });
    }

    fn sleep(&mut self, world: &mut World, ahead: u64) {
        let now = Time(world.now + ahead);
        let mut wait = SLEEP_MAX;
        for (session, _) in &self.links {
            if let Some((at, _)) = session.next_wakeup() {
                wait = wait.min(at.since(now));
            }
            if let Some((ns, _)) = session.retry_start_ns() {
                wait = wait.min(ns);
            }
        }
        if let Some(by) = self.leave_by {
            wait = wait.min(by.since(now));
        }
        // Poll counts in whole milliseconds and is late by some.
        let late = world.wake_time();
        self.poke(world, wait.max(US) + late);
    }
}
