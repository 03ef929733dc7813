//! What is known of a worker's process while it lives, and whose doing its death was.

use alloc::vec::Vec;

use pinmesh_protocol::id::AttemptId;
use pinmesh_protocol::status::LossKind;

use super::Death;
use crate::slots::{BrokerIndex, Glance, Running};
use crate::time::Time;

/// What one look adds to a worker's standstill at most: if the supervisor itself was stopped, the
/// time counts for nothing. Nanoseconds.
const STILL_STEP_MAX_NS: u64 = 1_000_000_000;
/// Pauses that are remembered. An attempt is seldom looked at twice; beyond this the oldest counts as
/// run time.
const PAUSES_MAX: usize = 8;
/// SIGTERM, which a drain sends.
const SIGTERM: i32 = 15;
/// SIGKILL.
pub(super) const SIGKILL: i32 = 9;

/// What is known of a process that lives.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) born: Time,
    pub(super) turn: u64,
    /// What was in the handler at the last look.
    pub(super) running: Option<Running>,
    pub(super) looked: Time,
    /// For how long it has been seen to stand still with tasks, or stopped, nanoseconds.
    pub(super) still_ns: u64,
    pub(super) is_stopped: bool,
    /// It was asked to leave, and another will take its place.
    pub(super) is_leaving: bool,
    /// SIGSTOP is sent, to look at the page.
    pub(super) inspecting: Option<Time>,
    /// Attempts to be killed if one of them runs when it has stopped.
    pub(super) cancels: Vec<(BrokerIndex, AttemptId)>,
    /// The attempt that was warned of its kill, and when.
    pub(super) warned: Option<(AttemptId, Time)>,
    /// When it was stopped to be looked at, and when it was let go on.
    pauses: Vec<(Time, Time)>,
}

/// What looks at several workers found together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watching {
    /// All have said READY.
    pub(super) is_ready: bool,
    /// One holds tasks, or is being stopped.
    pub(super) is_busy: bool,
}

impl Default for Watching {
    fn default() -> Self {
        Self { is_ready: true, is_busy: false }
    }
}

impl Watching {
    pub(super) fn join(&mut self, other: Self) {
        self.is_ready &= other.is_ready;
        self.is_busy |= other.is_busy;
    }

    pub(super) const NOBODY: Self = Self { is_ready: false, is_busy: false };
}

/// Whose doing a death was. A worker that died by itself before our SIGKILL arrived is charged.
pub(super) fn cause_of(death: Death, killed: Option<LossKind>, is_draining: bool) -> LossKind {
    match (death, killed) {
        (Death::Signalled(SIGKILL) | Death::OutOfMemory, Some(cause)) => cause,
        (Death::Exited(0) | Death::Signalled(SIGTERM), _) if is_draining => LossKind::Shutdown,
        (Death::Exited(_), _) => LossKind::Exited,
        (Death::Signalled(_), _) => LossKind::Signalled,
        (Death::OutOfMemory, None) => LossKind::OutOfMemory,
    }
}

impl Life {
    pub(super) const fn new(now: Time) -> Self {
        Self {
            born: now,
            turn: 0,
            running: None,
            looked: now,
            still_ns: 0,
            is_stopped: false,
            is_leaving: false,
            inspecting: None,
            cancels: Vec::new(),
            warned: None,
            pauses: Vec::new(),
        }
    }

    /// When an attempt is past its max runtime. What it lost to our own stops is not its doing: it
    /// may have followed, or be about to follow, the attempt that was meant.
    pub(super) fn runtime_end(&self, running: &Running) -> Time {
        running.started.after(running.max_runtime_ns).after(self.paused_ns(running))
    }

    /// How long an attempt has been running at that time, nanoseconds.
    pub(super) fn ran_ns(&self, running: &Running, at: Time) -> u64 {
        at.since(running.started).saturating_sub(self.paused_ns(running))
    }

    fn paused_ns(&self, running: &Running) -> u64 {
        self.pauses.iter().map(|&(from, to)| to.since(from.max(running.started))).sum()
    }

    pub(super) fn note_pause(&mut self, from: Time, to: Time) {
        if self.pauses.len() == PAUSES_MAX {
            self.pauses.remove(0);
        }
        self.pauses.push((from, to));
    }

    /// Adds to the standstill, or ends it: the loop turned, or nothing waits, or a handler runs.
    pub(super) fn note_standstill(&mut self, now: Time, glance: &Glance) {
        let step_ns = now.since(self.looked).min(STILL_STEP_MAX_NS);
        let is_moving = glance.turn != self.turn || glance.unended == 0 || glance.running.is_some();
        self.looked = now;
        self.turn = glance.turn;
        if is_moving && !self.is_stopped {
            self.still_ns = 0;
        } else {
            self.still_ns = self.still_ns.saturating_add(step_ns);
        }
    }
}
