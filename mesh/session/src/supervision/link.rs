//! The supervisor's session with one broker, and that broker's lease on the host.

use alloc::collections::VecDeque;
use alloc::string::String;

use pinmesh_protocol::command::{Heartbeat, Hello, Refused, ToBroker, Welcome};
use pinmesh_protocol::id::{Epoch, PeerId};
use pinmesh_protocol::limits::{VERSION_MAX, VERSION_MIN};
use pinmesh_protocol::status::{RefusedCode, Role};

use super::ends::End;
use super::{CloseReason, Config, Effects, Note};
use crate::acks::Acks;
use crate::slots::BrokerIndex;
use crate::time::Time;

/// Heartbeats whose echo is awaited; an older one's would renew nothing.
const BEATS_MAX: usize = 64;
/// Ends that are kept. A broker that takes none of so many breaks the contract, and what comes on
/// top is not kept.
const ENDS_MAX: usize = 65_536;
/// The first wait before another try, and the longest, nanoseconds.
const RETRY_MIN_NS: u64 = 100_000_000;
const RETRY_MAX_NS: u64 = 5_000_000_000;
/// A broker may not ask for heartbeats faster than this, nanoseconds.
const HEARTBEAT_MIN_NS: u64 = 1_000_000;

#[derive(Debug)]
enum State {
    /// Not tried before `until`.
    Waiting { until: Time },
    /// HELLO is out.
    Greeting { nonce: u64, said: Time },
    /// WELCOME has come.
    Open(Session),
    /// GOODBYE is said.
    Left,
}

#[derive(Debug)]
struct Session {
    epoch: Epoch,
    heartbeat_ns: u64,
    lease_ns: u64,
    liveness: u32,
    opened: Time,
    heard: Time,
    /// Announced silence: not judged before.
    patient_until: Time,
    next_beat: Time,
    sequence: u64,
    /// When each heartbeat was sent that has not been echoed.
    beats: VecDeque<(u64, Time)>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    epoch: Epoch,
    until: Time,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    index: BrokerIndex,
    state: State,
    lease: Option<Lease>,
    ends: Acks<End>,
    failures: u32,
    random: u64,
    patience_ns: u64,
    identity: Identity,
}

/// What HELLO says.
#[derive(Debug)]
struct Identity {
    host: PeerId,
    name: String,
}

impl Link {
    pub(super) fn new(index: BrokerIndex, config: &Config) -> Self {
        Self {
            index,
            state: State::Left,
            lease: None,
            ends: Acks::new(),
            failures: 0,
            random: config.seed ^ u64::from(index.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            patience_ns: config.heartbeat_ns.saturating_mul(u64::from(config.liveness)),
            identity: Identity { host: config.host, name: config.name.clone() },
        }
    }

    pub(super) const fn index(&self) -> BrokerIndex {
        self.index
    }

    pub(super) fn start(&mut self, now: Time) {
        self.state = State::Waiting { until: now };
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether an end could still be acknowledged.
    pub(super) fn has_unsaid(&self) -> bool {
        self.is_open() && !self.ends.is_empty()
    }

    /// Epoch and end of the lease, while there is one.
    pub(super) fn lease(&self) -> Option<(Epoch, Time)> {
        self.lease.map(|lease| (lease.epoch, lease.until))
    }

    /// Says once that the lease has ended.
    pub(super) fn take_ended_lease(&mut self, now: Time) -> Option<Epoch> {
        self.lease.take_if(|lease| lease.until <= now).map(|lease| lease.epoch)
    }

    /// When something is to be done, if nothing comes before.
    pub(super) fn due(&self) -> Time {
        let session = match &self.state {
            State::Waiting { until } => *until,
            State::Greeting { said, .. } => said.after(self.patience_ns),
            State::Open(session) => session.next_beat.min(session.dead_at()),
            State::Left => Time::NEVER,
        };
        self.lease.map_or(session, |lease| lease.until.min(session))
    }

    pub(super) fn advance<E: Effects>(&mut self, now: Time, config: &Config, fx: &mut E) {
        match &mut self.state {
            State::Waiting { until } => {
                if now >= *until {
                    self.greet(now, fx);
                }
            }
            State::Greeting { said, .. } => {
                if now >= said.after(self.patience_ns) {
                    self.patience_ns =
                        config.heartbeat_ns.saturating_mul(u64::from(config.liveness));
                    fx.note(Note::Closed {
                        broker: self.index,
                        why: CloseReason::NoWelcome,
                        retry_in_ns: 0,
                    });
                    self.greet(now, fx);
                }
            }
            State::Open(session) => {
                if now >= session.dead_at() {
                    self.close(now, CloseReason::Silent, fx);
                    self.advance(now, config, fx);
                } else if now >= session.next_beat {
                    self.beat(now, fx);
                }
            }
            State::Left => {}
        }
    }

    fn greet<E: Effects>(&mut self, now: Time, fx: &mut E) {
        let nonce = self.draw();
        fx.connect(self.index);
        fx.send(
            self.index,
            &ToBroker::Hello(Hello {
                version_min: VERSION_MIN,
                version_max: VERSION_MAX,
                role: Role::Supervisor,
                peer_id: self.identity.host,
                name: &self.identity.name,
                nonce,
                features: 0,
            }),
        );
        self.state = State::Greeting { nonce, said: now };
    }

    fn beat<E: Effects>(&mut self, now: Time, fx: &mut E) {
        let State::Open(session) = &mut self.state else { return };
        session.sequence += 1;
        session.next_beat = now.after(session.heartbeat_ns);
        if session.beats.len() == BEATS_MAX {
            session.beats.pop_front();
        }
        session.beats.push_back((session.sequence, now));
        let beat = Heartbeat { sequence: session.sequence, silence_ns: None };
        fx.send(self.index, &ToBroker::Heartbeat(beat));
    }

    /// `true` if this opened the session; the caller then says HOST.
    pub(super) fn on_welcome<E: Effects>(
        &mut self,
        now: Time,
        welcome: &Welcome,
        fx: &mut E,
    ) -> bool {
        // A late WELCOME of an earlier session has another nonce and means nothing.
        let State::Greeting { nonce, .. } = self.state else { return false };
        if nonce != welcome.nonce {
            return false;
        }
        if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
            self.on_unreadable(now, RefusedCode::Version, fx);
            return false;
        }
        self.state = State::Open(Session {
            epoch: welcome.epoch,
            heartbeat_ns: welcome.heartbeat_ns.max(HEARTBEAT_MIN_NS),
            lease_ns: welcome.lease_ns,
            liveness: welcome.liveness.max(1),
            opened: now,
            heard: now,
            patient_until: Time(0),
            next_beat: now,
            sequence: 0,
            beats: VecDeque::new(),
        });
        // No lease yet: the broker counts from HOST and the heartbeats behind it, and those may be
        // late or lost. The first one goes out behind HOST.
        fx.note(Note::Opened { broker: self.index, epoch: welcome.epoch });
        self.ends.restart();
        for end in self.ends.iter() {
            fx.send(self.index, &end.command());
        }
        true
    }

    /// Something came in the session. `false`: there is none, and it is not to be acted upon.
    pub(super) fn hear(&mut self, now: Time) -> bool {
        match &mut self.state {
            State::Open(session) => {
                session.heard = now;
                if now.since(session.opened) >= session.patience_ns() {
                    self.failures = 0;
                }
                true
            }
            State::Waiting { .. } | State::Greeting { .. } | State::Left => false,
        }
    }

    /// The broker's echo. `true`: it renewed the lease.
    pub(super) fn on_echo(&mut self, now: Time, beat: &Heartbeat) -> bool {
        if !self.hear(now) {
            return false;
        }
        let State::Open(session) = &mut self.state else { return false };
        if let Some(silence_ns) = beat.silence_ns {
            session.patient_until = session.patient_until.max(now.after(silence_ns));
        }
        let mut sent = None;
        while let Some(&(sequence, at)) = session.beats.front() {
            if sequence > beat.sequence {
                break;
            }
            sent = (sequence == beat.sequence).then_some(at).or(sent);
            session.beats.pop_front();
        }
        let Some(sent) = sent else { return false };
        let epoch = session.epoch;
        let until = sent.after(session.lease_ns);
        if until <= now || self.lease.is_some_and(|lease| lease.until >= until) {
            return false;
        }
        self.lease = Some(Lease { epoch, until });
        true
    }

    pub(super) fn on_ack<E: Effects>(&mut self, now: Time, count: u64, fx: &mut E) {
        if self.hear(now) && !self.ends.on_ack(count) {
            self.on_unreadable(now, RefusedCode::NotAllowed, fx);
        }
    }

    pub(super) fn on_unreadable<E: Effects>(&mut self, now: Time, code: RefusedCode, fx: &mut E) {
        match self.state {
            State::Greeting { .. } | State::Open(_) => {}
            State::Waiting { .. } | State::Left => return,
        }
        let reason = "the supervisor cannot make sense of this; see PROTOCOL.md";
        fx.send(self.index, &ToBroker::Refused(Refused { code, reason }));
        self.close(now, CloseReason::Unreadable(code), fx);
    }

    /// Keeps an end until it is acknowledged, and sends it if there is a session.
    pub(super) fn push_end<E: Effects>(&mut self, end: End, fx: &mut E) {
        // Without a session HOST will say that the worker is another one now.
        if self.ends.len() >= ENDS_MAX || !(self.is_open() || end.has_attempts()) {
            return;
        }
        if self.is_open() {
            fx.send(self.index, &end.command());
        }
        self.ends.push(end);
    }

    /// The session is over; another try follows, the sooner the longer it had lasted.
    pub(super) fn close<E: Effects>(&mut self, now: Time, why: CloseReason, fx: &mut E) {
        let retry_in_ns = match self.state {
            State::Waiting { .. } | State::Left => return,
            State::Greeting { .. } | State::Open(_) => self.next_retry(),
        };
        if let State::Open(session) = &self.state {
            self.patience_ns = session.patience_ns();
        }
        self.state = State::Waiting { until: now.after(retry_in_ns) };
        fx.note(Note::Closed { broker: self.index, why, retry_in_ns });
    }

    /// At once the first time; then doubling, a random half of it so that hosts do not come back
    /// in step.
    fn next_retry(&mut self) -> u64 {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            return 0;
        }
        let ceiling =
            RETRY_MIN_NS.saturating_mul(1 << (self.failures - 2).min(16)).min(RETRY_MAX_NS);
        ceiling / 2 + self.draw() % (ceiling / 2)
    }

    pub(super) fn leave<E: Effects>(&mut self, fx: &mut E) {
        if self.is_open() {
            fx.send(self.index, &ToBroker::Goodbye);
        }
        self.state = State::Left;
    }

    /// splitmix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Session {
    const fn patience_ns(&self) -> u64 {
        self.heartbeat_ns.saturating_mul(self.liveness as u64)
    }

    /// When the broker is given up unless it is heard of.
    fn dead_at(&self) -> Time {
        self.heard.after(self.patience_ns()).max(self.patient_until)
    }
}
