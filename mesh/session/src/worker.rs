//! The worker's machine towards one broker: its session, the tasks that it holds, and the ends that
//! it keeps until they are acknowledged.
//!
//! The shell owns the socket, the payloads and the handlers. It hands in what the broker says, asks
//! [`WorkerSession::start`] before each task, and hands over each end. Hot calls are methods of
//! their own; everything else is an [`Event`].

mod held;
mod hot;
mod link;
#[cfg(test)]
mod tests;
mod updates;

use alloc::string::String;
use alloc::vec::Vec;

use pinmesh_protocol::command::{
    Attempts, CancelAttempt, FromBroker, Heartbeat, Hello, Ready, Refused, ToBroker, Welcome,
    Window,
};
use pinmesh_protocol::id::{AttemptId, Incarnation, PeerId, Slot};
use pinmesh_protocol::limits::{LIST_MAX, PAYLOAD_BYTES_MAX, VERSION_MAX, VERSION_MIN};
use pinmesh_protocol::status::{HeldState, RefusedCode, Role};

pub use held::HeldTask;

use crate::Time;
use crate::acks::Acks;
use crate::slots::Lease;
use held::HeldTasks;
use link::{Backoff, Link, Open, WELCOME_WAIT_NS};
use updates::Updates;

/// How long a task waits for the lease of its broker to show up on the page before it goes back.
pub const LEASE_WAIT_NS: u64 = 1_000_000_000;
/// How often the shell asks again for a task that waits for a lease.
const LEASE_LOOK_NS: u64 = 5_000_000;
/// How often a supervised worker looks whether it may open a socket: its host has a lease.
const OPEN_LOOK_NS: u64 = 20_000_000;

/// What a worker tells a broker about itself.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Random, for the life of the process.
    pub peer_id: PeerId,
    /// For people.
    pub name: String,
    /// Its supervisor; `None`: it has none, recalls and cancels come to itself.
    pub host: Option<PeerId>,
    /// Its place on the host.
    pub slot: Slot,
    /// Its life there.
    pub incarnation: Incarnation,
    /// Services that it serves, at most [`pinmesh_protocol::limits::SERVICES_MAX`].
    pub services: Vec<String>,
    /// What it offers to tasks that require it; see [`pinmesh_protocol::selector`].
    pub labels: Vec<String>,
    /// The most tasks it holds for this broker, ends not yet acknowledged included.
    pub window_tasks: u32,
    /// The most bytes of their payloads; also the bytes of unacknowledged ends at which no further
    /// task is started.
    pub window_bytes: u64,
    /// Randomness for nonces and backoff.
    pub seed: u64,
}

/// What happens to the machine, besides its hot calls.
#[derive(Debug)]
pub enum Event<'a> {
    /// The broker says something other than TASK, for which there is [`WorkerSession::take`].
    Received(FromBroker<'a>),
    /// The broker's bytes are not what they claim to be.
    Malformed(RefusedCode),
    /// Time has passed. The socket has been read empty before.
    Tick,
    /// What the page says about this broker's lease, at least once a pass of the loop.
    Lease(Lease),
    /// Take no more and leave; with `give_back` what waits is returned instead of run.
    Drain {
        /// Whether to return what waits.
        give_back: bool,
    },
}

/// What the machine causes. `E` is an end as the shell keeps it: the encoded DONE.
pub trait WorkerOutbox<E> {
    /// Closes the socket, if there is one, and what is still unsent for it; opens another.
    fn open(&mut self);
    /// Closes the socket and what is still unsent for it.
    fn close(&mut self);
    /// Sends a command.
    fn send(&mut self, command: &ToBroker<'_>);
    /// Sends an end, for the first time or again, and leaves it as it is: it may be needed once
    /// more.
    fn send_end(&mut self, end: &mut E);
    /// An update of kind `stream` is acknowledged.
    fn drop_update(&mut self, update: E) {
        drop(update);
    }
    /// The task of this index is gone: it was returned, recalled or acknowledged. With the end if
    /// it had one.
    fn forget(&mut self, index: u32, end: Option<E>);
}

/// Whether a task may start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Start {
    /// Run it.
    Run,
    /// Ask again later: there is no lease yet, no session, or too much is unacknowledged.
    NotYet,
    /// It has been given back and forgotten.
    GivenBack,
}

/// Why the machine wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WakeReason {
    /// A socket is to be opened.
    Open,
    /// WELCOME has not come.
    Welcome,
    /// A heartbeat is due.
    Heartbeat,
    /// A task waits for a lease.
    Lease,
}

#[derive(Debug)]
enum Kept<E> {
    Done {
        index: u32,
        bytes: u64,
        end: E,
    },
    /// PROGRESS of kind `stream`.
    Update {
        bytes: u64,
        update: E,
    },
    /// RETURN or RECALLED. Not kept for the next session: what its READY does not list goes back
    /// by that.
    Back,
}

/// The machine.
#[derive(Debug)]
pub struct WorkerSession<E> {
    config: WorkerConfig,
    link: Link,
    held: HeldTasks,
    acks: Acks<Kept<E>>,
    ends_bytes: u64,
    updates: Updates<E>,
    backoff: Backoff,
    lease: Option<Lease>,
    /// Term of the lease when this socket was opened.
    term: u64,
    is_draining: bool,
    waits_for_lease: bool,
}

impl<E> WorkerSession<E> {
    /// A worker without a session, which opens a socket on its first tick.
    pub fn new(config: WorkerConfig) -> Self {
        Self {
            link: Link::Closed { until: Time(0) },
            held: HeldTasks::new(config.window_tasks, config.window_bytes),
            acks: Acks::new(),
            ends_bytes: 0,
            updates: Updates::new(),
            backoff: Backoff::new(config.seed),
            lease: None,
            term: 0,
            is_draining: false,
            waits_for_lease: false,
            config,
        }
    }

    /// One mutation; what it causes goes to the outbox.
    pub fn handle(&mut self, now: Time, event: Event<'_>, out: &mut impl WorkerOutbox<E>) {
        match event {
            Event::Received(command) => self.on_received(now, command, out),
            Event::Malformed(code) => self.refuse(now, code, "not a command of this version", out),
            Event::Tick => self.on_tick(now, out),
            Event::Lease(lease) => self.on_lease(now, lease, out),
            Event::Drain { give_back } => self.on_drain(give_back, out),
        }
    }

    /// When to call [`Event::Tick`], and why.
    pub fn next_wakeup(&self) -> Option<(Time, WakeReason)> {
        let (at, why) = match &self.link {
            Link::Closed { until } => (*until, WakeReason::Open),
            Link::Greeting { until, .. } => (*until, WakeReason::Welcome),
            Link::Open(open) => (open.next_wakeup(), WakeReason::Heartbeat),
            Link::Left => return None,
        };
        Some((at, why))
    }

    /// How soon to ask [`WorkerSession::start`] again after [`Start::NotYet`], nanoseconds; `None`:
    /// when the broker has said something.
    pub fn retry_start_ns(&self) -> Option<(u64, WakeReason)> {
        self.waits_for_lease.then_some((LEASE_LOOK_NS, WakeReason::Lease))
    }

    fn on_received(&mut self, now: Time, command: FromBroker<'_>, out: &mut impl WorkerOutbox<E>) {
        if let Link::Open(open) = &mut self.link {
            open.on_word();
        }
        match command {
            FromBroker::Welcome(welcome) => self.on_welcome(now, &welcome, out),
            FromBroker::Refused(_) | FromBroker::NoSession | FromBroker::Goodbye => {
                self.close(now, true, out);
            }
            FromBroker::Heartbeat(beat) => {
                if let (Link::Open(open), Some(ns)) = (&mut self.link, beat.silence_ns) {
                    open.on_announced(now, ns);
                }
            }
            FromBroker::Ack(n) => self.on_ack(now, n, out),
            FromBroker::Task(task) => {
                self.take(now, &task, out);
            }
            FromBroker::Drain => self.on_drain(false, out),
            FromBroker::Recall(attempts) => self.on_recall(&attempts.attempts, out),
            FromBroker::Cancel(CancelAttempt { attempt, .. }) => self.on_recall(&[attempt], out),
            // The broker's own count of our window, and what only clients hear.
            FromBroker::Window(_)
            | FromBroker::Service(_)
            | FromBroker::Result(_)
            | FromBroker::Accepted(_)
            | FromBroker::Fetched(_)
            | FromBroker::Progress(_) => {}
        }
    }

    fn on_tick(&mut self, now: Time, out: &mut impl WorkerOutbox<E>) {
        match &mut self.link {
            Link::Closed { until } if now >= *until => self.open(now, out),
            Link::Greeting { until, .. } if now >= *until => self.open(now, out),
            Link::Closed { .. } | Link::Greeting { .. } | Link::Left => {}
            Link::Open(open) => {
                if open.is_dead(now) {
                    self.end_session();
                    self.open(now, out);
                } else if let Some(sequence) = open.heartbeat(now) {
                    out.send(&ToBroker::Heartbeat(Heartbeat { sequence, silence_ns: None }));
                }
            }
        }
    }

    /// Under a lease of the host only. What is sent to a socket while the host has none may be
    /// requeued by the time that it has one again, and this worker would run what another has.
    fn open(&mut self, now: Time, out: &mut impl WorkerOutbox<E>) {
        if self.config.host.is_some() && !self.lease.is_some_and(Lease::is_given) {
            if !matches!(self.link, Link::Closed { .. }) {
                out.close();
            }
            self.link = Link::Closed { until: now.after(OPEN_LOOK_NS) };
            return;
        }
        let nonce = self.backoff.random();
        self.term = self.lease.map_or(0, |lease| lease.term);
        self.link = Link::Greeting { nonce, until: now.after(WELCOME_WAIT_NS) };
        out.open();
        out.send(&ToBroker::Hello(Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            role: Role::Worker,
            peer_id: self.config.peer_id,
            name: &self.config.name,
            nonce,
            features: 0,
        }));
    }

    fn on_welcome(&mut self, now: Time, welcome: &Welcome, out: &mut impl WorkerOutbox<E>) {
        let Link::Greeting { nonce, .. } = self.link else { return };
        if welcome.nonce != nonce {
            return;
        }
        if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
            return self.refuse(now, RefusedCode::Version, "a version that was not offered", out);
        }
        self.backoff.reset();
        self.link = Link::Open(Open::new(welcome, now));
        self.acks.restart();
        self.let_go_too_long(welcome.payload_bytes_max, out);
        self.send_ready(out);
        self.announce(now, self.ends_bytes + self.updates.bytes, out);
        for kept in self.acks.iter_mut() {
            if let Kept::Done { end, .. } | Kept::Update { update: end, .. } = kept {
                out.send_end(end);
            }
        }
        self.leave_if_drained(out);
    }

    fn send_ready(&self, out: &mut impl WorkerOutbox<E>) {
        let held = self.held.list();
        let parts = held.len().div_ceil(LIST_MAX).max(1) as u32;
        for part in 0..parts {
            let from = part as usize * LIST_MAX;
            let to = held.len().min(from + LIST_MAX);
            out.send(&ToBroker::Ready(Ready {
                host: self.config.host,
                slot: self.config.slot,
                incarnation: self.config.incarnation,
                services: self.config.services.iter().map(String::as_str).collect(),
                labels: self.config.labels.iter().map(String::as_str).collect(),
                window_tasks: self.config.window_tasks,
                window_bytes: self.config.window_bytes,
                held: held[from..to].to_vec(),
                part,
                parts,
            }));
        }
        if self.is_draining {
            out.send(&ToBroker::Window(Window { tasks: 0, bytes: 0 }));
        }
    }

    fn refuse(
        &mut self,
        now: Time,
        code: RefusedCode,
        reason: &str,
        out: &mut impl WorkerOutbox<E>,
    ) {
        out.send(&ToBroker::Refused(Refused { code, reason }));
        self.close(now, true, out);
    }

    fn close(&mut self, now: Time, is_refusal: bool, out: &mut impl WorkerOutbox<E>) {
        if self.link == Link::Left {
            return;
        }
        self.end_session();
        let wait_ns = if is_refusal { self.backoff.next_ns() } else { 0 };
        self.link = Link::Closed { until: now.after(wait_ns) };
        out.close();
    }

    /// Ends stay for the next session; what only this one would have acknowledged goes.
    fn end_session(&mut self) {
        let mut kept = core::mem::take(&mut self.acks);
        kept.restart();
        kept.take(kept.len() as u64, |kept| {
            if !matches!(kept, Kept::Back) {
                self.acks.push(kept);
            }
        });
    }

    fn on_ack(&mut self, now: Time, n: u64, out: &mut impl WorkerOutbox<E>) {
        if !matches!(self.link, Link::Open(_)) {
            return;
        }
        let (held, ends_bytes) = (&mut self.held, &mut self.ends_bytes);
        let updates = &mut self.updates;
        let is_sound = self.acks.take(n, |kept| match kept {
            Kept::Done { index, bytes, end } => {
                held.remove(index);
                *ends_bytes -= bytes;
                out.forget(index, Some(end));
            }
            Kept::Update { bytes, update } => {
                updates.remove(bytes);
                out.drop_update(update);
            }
            Kept::Back => {}
        });
        if !is_sound {
            return self.refuse(now, RefusedCode::NotAllowed, "ACK of what was not sent", out);
        }
        self.leave_if_drained(out);
    }

    fn on_lease(&mut self, now: Time, lease: Lease, out: &mut impl WorkerOutbox<E>) {
        self.lease = Some(lease);
        if (lease.is_given() && lease.term == self.term) || self.link == Link::Left {
            return;
        }
        // The lease has lapsed since this socket was opened, whether there is another one by now or
        // not: what waits here or is unread in the socket may have been sent elsewhere. It goes,
        // and READY does not list it.
        for index in self.held.waiting() {
            self.held.remove(index);
            out.forget(index, None);
        }
        if matches!(self.link, Link::Greeting { .. } | Link::Open(_)) {
            self.close(now, false, out);
        }
    }

    fn on_drain(&mut self, give_back: bool, out: &mut impl WorkerOutbox<E>) {
        if !self.is_draining && matches!(self.link, Link::Open(_)) {
            out.send(&ToBroker::Window(Window { tasks: 0, bytes: 0 }));
        }
        self.is_draining = true;
        if give_back {
            for index in self.held.waiting() {
                self.give_back(index, out);
            }
        }
        self.leave_if_drained(out);
    }

    /// RECALL, or CANCEL of what has not started; only a worker without a supervisor hears them.
    fn on_recall(&mut self, attempts: &[AttemptId], out: &mut impl WorkerOutbox<E>) {
        let mut recalled = Vec::new();
        for &attempt in attempts {
            let Some(index) = self.held.find(attempt) else { continue };
            if self.held.task(index).is_some_and(|task| task.state == HeldState::Waiting) {
                self.held.remove(index);
                out.forget(index, None);
                recalled.push(attempt);
            }
        }
        if !recalled.is_empty() && matches!(self.link, Link::Open(_)) {
            let slot = self.config.slot;
            out.send(&ToBroker::Recalled(Attempts { slot, attempts: recalled }));
            self.acks.push(Kept::Back);
        }
    }

    fn leave_if_drained(&mut self, out: &mut impl WorkerOutbox<E>) {
        if self.is_draining
            && self.held.len() == 0
            && self.acks.is_empty()
            && matches!(self.link, Link::Open(_))
        {
            out.send(&ToBroker::Goodbye);
            self.link = Link::Left;
        }
    }
}

/// What the shell may ask.
impl<E> WorkerSession<E> {
    /// The task of this index.
    pub fn task(&self, index: u32) -> Option<&HeldTask> {
        self.held.task(index)
    }

    /// Whether a task with so long a payload would be taken now.
    pub fn admits(&self, bytes: u64) -> bool {
        self.held.admits(bytes)
    }

    /// Whether READY has been sent in this session.
    pub fn is_open(&self) -> bool {
        matches!(self.link, Link::Open(_))
    }

    /// Whether GOODBYE has been sent.
    pub fn has_left(&self) -> bool {
        self.link == Link::Left
    }

    /// Attempts that wait or run.
    pub fn unended(&self) -> usize {
        self.held.unended()
    }

    /// Ends that are not acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.acks.len()
    }

    /// The longest result that the broker takes, bytes.
    pub fn payload_bytes_max(&self) -> u64 {
        match &self.link {
            Link::Open(open) => open.payload_bytes_max.min(PAYLOAD_BYTES_MAX),
            Link::Closed { .. } | Link::Greeting { .. } | Link::Left => PAYLOAD_BYTES_MAX,
        }
    }
}
