//! The session of a worker with one broker: one socket's life, heartbeats and liveness.

use pinmesh_protocol::command::Welcome;
use pinmesh_protocol::id::Epoch;

use crate::Time;

/// How long a HELLO may go unanswered before another socket is opened.
pub(super) const WELCOME_WAIT_NS: u64 = 3_000_000_000;
/// The first wait after a refusal, and the longest.
const BACKOFF_MIN_NS: u64 = 100_000_000;
const BACKOFF_MAX_NS: u64 = 5_000_000_000;

/// Where the session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    /// No session; the next socket is opened then.
    Closed { until: Time },
    /// HELLO has been sent.
    Greeting { nonce: u64, until: Time },
    /// READY has been sent.
    Open(Open),
    /// GOODBYE has been sent; there is no way back.
    Left,
}

/// An open session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Open {
    pub(super) epoch: Epoch,
    pub(super) payload_bytes_max: u64,
    heartbeat_ns: u64,
    liveness_ns: u64,
    sequence: u64,
    next_heartbeat: Time,
    /// Since when a heartbeat of ours has had no answer of any kind.
    unanswered_since: Option<Time>,
    /// A long payload of ours is on its way: silence means nothing until then.
    quiet_until: Time,
    /// The broker has announced a long payload, which is the next that it says.
    announced_until: Time,
    last_look: Time,
}

impl Open {
    pub(super) fn new(welcome: &Welcome, now: Time) -> Self {
        // A broker cannot make us spin: below a millisecond there is no sense in it.
        let heartbeat_ns = welcome.heartbeat_ns.max(1_000_000);
        Self {
            epoch: welcome.epoch,
            payload_bytes_max: welcome.payload_bytes_max,
            heartbeat_ns,
            liveness_ns: heartbeat_ns.saturating_mul(u64::from(welcome.liveness.max(1))),
            sequence: 0,
            next_heartbeat: now.after(heartbeat_ns),
            unanswered_since: None,
            quiet_until: Time(0),
            announced_until: Time(0),
            last_look: now,
        }
    }

    /// The broker has said something.
    pub(super) const fn on_word(&mut self) {
        self.unanswered_since = None;
        self.announced_until = Time(0);
    }

    /// The broker need not speak for so long, unless it does.
    pub(super) fn on_announced(&mut self, now: Time, ns: u64) {
        self.announced_until = now.after(ns);
    }

    /// Nobody need speak for so long.
    pub(super) fn on_silence(&mut self, now: Time, ns: u64) {
        self.quiet_until = self.quiet_until.max(now.after(ns));
    }

    /// The number of the heartbeat that is due now, if one is.
    pub(super) fn heartbeat(&mut self, now: Time) -> Option<u64> {
        (now >= self.next_heartbeat).then(|| self.next_sequence(now))
    }

    /// The number of the next heartbeat, which is sent now.
    pub(super) fn next_sequence(&mut self, now: Time) -> u64 {
        self.sequence += 1;
        self.next_heartbeat = now.after(self.heartbeat_ns);
        self.unanswered_since.get_or_insert(now);
        self.sequence
    }

    /// Whether the broker is gone. Called with the socket read empty. A thread that was away, in
    /// a handler or stopped, has listened to nobody and judges nobody for it.
    pub(super) fn is_dead(&mut self, now: Time) -> bool {
        if now.since(self.last_look) > self.heartbeat_ns && self.unanswered_since.is_some() {
            self.unanswered_since = Some(now);
        }
        self.last_look = now;
        let quiet_until = self.quiet_until.max(self.announced_until);
        let since = self.unanswered_since.map(|since| since.max(quiet_until));
        since.is_some_and(|since| now.since(since) >= self.liveness_ns)
    }

    pub(super) fn next_wakeup(&self) -> Time {
        self.next_heartbeat
    }
}

/// Waits between sockets: doubling with full jitter above the least one, reset by a WELCOME.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    refusals: u32,
    random: u64,
}

impl Backoff {
    pub(super) const fn new(seed: u64) -> Self {
        Self { refusals: 0, random: seed }
    }

    pub(super) const fn reset(&mut self) {
        self.refusals = 0;
    }

    pub(super) fn next_ns(&mut self) -> u64 {
        let most = (BACKOFF_MIN_NS << self.refusals.min(16)).min(BACKOFF_MAX_NS);
        self.refusals = self.refusals.saturating_add(1);
        BACKOFF_MIN_NS / 2 + self.random() % most
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    pub(super) const fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
