//! One broker as the client sees it: a socket, perhaps a session, and what it was BUSY with.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use pinmesh_protocol::command::Welcome;
use pinmesh_protocol::id::{Epoch, RequestId};
use pinmesh_protocol::limits::{SERVICES_MAX, SILENCE_BYTES_PER_S};

use super::event::{LocalEnd, ServiceId, WakeReason};
use super::queue::Queue;
use crate::{Time, Window};

/// How long a broker may be away before what it held goes to the others, and tasks with a key to the
/// next one: time enough for it to greet a client that was merely cut off, since a resubmission
/// elsewhere may run a task twice, and a key should not wander at every hiccup.
pub(super) const AWAY_NS: u64 = 3_000_000_000;

/// First wait before a session is opened again, doubled each time.
const BACKOFF_NS: u64 = 100_000_000;
/// The longest wait.
const BACKOFF_NS_MAX: u64 = 5_000_000_000;
/// First wait for the answer to HELLO, doubled each time: a broker that is slow with many clients
/// must not be given more HELLOs for it.
const GREETING_NS: u64 = 3_000_000_000;
/// The longest wait.
const GREETING_NS_MAX: u64 = 12_000_000_000;
/// An hour moves 900 MiB at the slowest rate that is assumed, more than any payload has.
const SILENCE_NS_MAX: u64 = 3_600_000_000_000;
/// Bounds of what WELCOME may say about heartbeats: a broker's mistake must neither make the client
/// spin nor make it wait for ever.
const HEARTBEAT_NS: (u64, u64) = (1_000_000, 60_000_000_000);

/// SplitMix64 (Steele, Lea, Flood 2014): nonces and jitter need no more.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between half of `ns` and `ns`.
    fn jitter(&mut self, ns: u64) -> u64 {
        let half = (ns / 2).max(1);
        ns - half + self.next() % half
    }
}

/// An open session.
#[derive(Debug)]
pub(super) struct Session {
    heartbeat_ns: u64,
    liveness: u32,
    heartbeat_at: Time,
    is_heard: bool,
    /// The broker spoke later than this, or then.
    heard_since: Time,
    beat_at: Time,
    missed: u32,
    /// A long payload of ours is under way: silence proves nothing until then.
    silent_until: Time,
    /// The broker has announced a long payload, which is the next that it says.
    announced_until: Time,
    sequence: u64,
    aliases: Vec<bool>,
    /// RESULTs and `stream` PROGRESS taken, and how many of them are acknowledged.
    pub(super) taken: u64,
    pub(super) acked: u64,
    pub(super) payload_bytes_max: u64,
    pub(super) header_bytes_max: u64,
}

/// What a heartbeat that is due comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// Too early.
    NotDue,
    /// Send one with this number.
    Send(u64),
    /// Nothing was heard for the missed-heartbeat budget.
    Dead,
}

impl Session {
    pub(super) fn new(now: Time, welcome: &Welcome) -> Self {
        let heartbeat_ns = welcome.heartbeat_ns.clamp(HEARTBEAT_NS.0, HEARTBEAT_NS.1);
        Self {
            heartbeat_ns,
            liveness: welcome.liveness.max(1),
            heartbeat_at: now.after(heartbeat_ns),
            is_heard: true,
            heard_since: now,
            beat_at: now,
            missed: 0,
            silent_until: now,
            announced_until: now,
            sequence: 0,
            aliases: Vec::new(),
            taken: 0,
            acked: 0,
            payload_bytes_max: welcome.payload_bytes_max,
            header_bytes_max: u64::from(welcome.header_bytes_max),
        }
    }

    pub(super) fn heard(&mut self) {
        self.is_heard = true;
        self.announced_until = Time(0);
    }

    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Silence is counted in heartbeats of our own, not in time, so that a process that was stopped
    /// does not take its own absence for the broker's.
    pub(super) fn beat(&mut self, now: Time, is_emptied: bool) -> Beat {
        if now < self.heartbeat_at {
            return Beat::NotDue;
        }
        self.heartbeat_at = now.after(self.heartbeat_ns);
        if self.is_heard {
            self.heard_since = self.beat_at;
        }
        self.beat_at = now;
        if self.is_heard || now < self.silent_until.max(self.announced_until) {
            self.missed = 0;
        } else if is_emptied {
            self.missed += 1;
        }
        self.is_heard = false;
        if self.missed >= self.liveness {
            return Beat::Dead;
        }
        Beat::Send(self.next_sequence())
    }

    /// Notes that `bytes` of our payload are under way; returns the silence to be announced,
    /// nanoseconds.
    pub(super) fn expect_silence(&mut self, now: Time, bytes: u64) -> u64 {
        let silence_ns = bytes.saturating_mul(1_000_000_000) / SILENCE_BYTES_PER_S;
        self.silent_until = self.silent_until.max(now.after(silence_ns));
        silence_ns
    }

    /// The broker need not speak for so long, unless it does.
    pub(super) fn on_announced(&mut self, now: Time, silence_ns: u64) {
        self.announced_until = now.after(silence_ns.min(SILENCE_NS_MAX));
    }

    /// Whether the alias of that service must be set first; sets it. `None`: it has none.
    pub(super) fn alias(&mut self, service: ServiceId) -> Option<bool> {
        let index = service.0 as usize;
        if index >= SERVICES_MAX {
            return None;
        }
        if self.aliases.len() <= index {
            self.aliases.resize(index + 1, false);
        }
        Some(!core::mem::replace(&mut self.aliases[index], true))
    }
}

/// Where a link stands.
#[derive(Debug)]
pub(super) enum State {
    /// No socket.
    Down {
        /// When to open one.
        retry_at: Time,
    },
    /// HELLO is on its way.
    Greeting {
        /// HELLO's, expected in WELCOME.
        nonce: u64,
        /// When to try with another socket.
        give_up_at: Time,
    },
    /// A session.
    Open(Session),
    /// For good: the client is closed.
    Closed,
}

/// What a request asks of a broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) id: RequestId,
    pub(super) service: ServiceId,
    /// Bytes of the payload.
    pub(super) bytes: u64,
    /// Bytes that go before it.
    pub(super) header_bytes: u64,
}

/// Whether a broker can take a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// At once.
    Free,
    /// When its window has room, or those are gone who wait for that.
    Full,
    /// There is no session.
    Away,
    /// Not before then.
    Busy(Time),
    /// Not in this session.
    Never(LocalEnd),
}

/// One broker.
#[derive(Debug)]
pub(super) struct Link {
    /// Of its endpoint, for keys.
    pub(super) hash: u64,
    pub(super) state: State,
    /// Of the latest session.
    pub(super) epoch: Option<Epoch>,
    /// Until then the broker of that epoch surely keeps what it held; [`Time::NEVER`] in a session.
    pub(super) kept_until: Time,
    kept_ns: u64,
    /// What is unfinished in the session.
    pub(super) window: Window,
    /// When to give what this broker held to the others; [`Time::NEVER`] while it is open or holds
    /// nothing.
    pub(super) move_at: Time,
    /// From when on it is lost for keys; [`Time::NEVER`] in a session and before the first attempt.
    lost_at: Time,
    /// Requests with a key that wait for this broker.
    pub(super) line: Queue,
    /// Services that it was BUSY with, until when.
    busy: BTreeMap<ServiceId, Time>,
    /// Attempts to open a session since the last one that was of use.
    attempts: u32,
}

impl Link {
    pub(super) fn new(hash: u64) -> Self {
        Self {
            hash,
            state: State::Down { retry_at: Time(0) },
            epoch: None,
            kept_until: Time::NEVER,
            kept_ns: 0,
            window: Window::default(),
            move_at: Time::NEVER,
            lost_at: Time::NEVER,
            line: Queue::default(),
            busy: BTreeMap::new(),
            attempts: 0,
        }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        match &self.state {
            State::Open(session) => Some(session),
            State::Down { .. } | State::Greeting { .. } | State::Closed => None,
        }
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Open(session) => Some(session),
            State::Down { .. } | State::Greeting { .. } | State::Closed => None,
        }
    }

    /// A new socket was opened and HELLO goes out on it.
    pub(super) fn greet(&mut self, now: Time, random: &mut Random) -> u64 {
        let nonce = random.next();
        let wait_ns = (GREETING_NS << self.attempts.min(8)).min(GREETING_NS_MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.state = State::Greeting { nonce, give_up_at: now.after(random.jitter(wait_ns)) };
        nonce
    }

    /// WELCOME came.
    pub(super) fn open(&mut self, now: Time, welcome: &Welcome) {
        self.state = State::Open(Session::new(now, welcome));
        self.window = Window::new(welcome.window_tasks, welcome.window_bytes);
        self.epoch = Some(welcome.epoch);
        self.kept_until = Time::NEVER;
        self.kept_ns = welcome.kept_ns;
        self.move_at = Time::NEVER;
        self.lost_at = Time::NEVER;
    }

    /// It is away, and will be lost if it stays so for long.
    pub(super) fn expect(&mut self, now: Time) {
        self.lost_at = now.after(AWAY_NS);
    }

    /// It will not be back soon.
    pub(super) fn give_up(&mut self, now: Time) {
        self.lost_at = now;
    }

    /// Whether it is away for so long that keys go to another.
    pub(super) fn is_lost(&self, now: Time) -> bool {
        self.lost_at <= now
    }

    /// When to look at what it holds and at who waits for it, since it is away.
    pub(super) fn next_move(&self) -> Time {
        if self.line.is_empty() { self.move_at } else { self.move_at.min(self.lost_at) }
    }

    /// Whether it can take the request now.
    pub(super) fn verdict(&mut self, now: Time, ask: &Ask) -> Verdict {
        let Some(session) = self.session() else { return Verdict::Away };
        if ask.bytes > session.payload_bytes_max {
            let (bytes, bytes_max) = (ask.bytes, session.payload_bytes_max);
            return Verdict::Never(LocalEnd::PayloadTooLarge { bytes, bytes_max });
        }
        if ask.header_bytes > session.header_bytes_max {
            let (bytes, bytes_max) = (ask.header_bytes, session.header_bytes_max);
            return Verdict::Never(LocalEnd::HeaderTooLarge { bytes, bytes_max });
        }
        if let Some(until) = self.busy_until(now, ask.service) {
            return Verdict::Busy(until);
        }
        // Who comes later does not pass a line: a long payload in it would wait for ever.
        let is_behind = self.line.front().is_some_and(|first| first < ask.id);
        let has_room = !is_behind && self.window.admits(ask.bytes);
        if has_room { Verdict::Free } else { Verdict::Full }
    }

    /// The session, or the attempt at one, is over; another follows after a wait.
    pub(super) fn close(&mut self, now: Time, random: &mut Random) {
        let wait_ns = (BACKOFF_NS << self.attempts.min(8)).min(BACKOFF_NS_MAX);
        self.attempts = self.attempts.saturating_add(1);
        if let State::Open(session) = &self.state {
            self.kept_until = session.heard_since.after(self.kept_ns);
            self.expect(now);
        }
        self.state = State::Down { retry_at: now.after(random.jitter(wait_ns)) };
        self.window.clear();
        self.busy.clear();
    }

    /// The session has proved to be of use: the next one that is needed opens without a long wait.
    pub(super) fn settle(&mut self) {
        self.attempts = 0;
    }

    pub(super) fn note_busy(&mut self, service: ServiceId, until: Time) {
        self.busy.insert(service, until);
    }

    /// Until when it is BUSY with that service; `None`: it is not.
    fn busy_until(&mut self, now: Time, service: ServiceId) -> Option<Time> {
        if self.busy.is_empty() {
            return None;
        }
        let until = *self.busy.get(&service)?;
        if until > now {
            return Some(until);
        }
        self.busy.remove(&service);
        None
    }

    pub(super) fn next_wakeup(&self) -> Option<(Time, WakeReason)> {
        match &self.state {
            State::Down { retry_at } => Some((*retry_at, WakeReason::Reconnect)),
            State::Greeting { give_up_at, .. } => Some((*give_up_at, WakeReason::Greeting)),
            State::Open(session) => Some((session.heartbeat_at, WakeReason::Heartbeat)),
            State::Closed => None,
        }
    }
}
