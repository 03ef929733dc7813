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
/// SIGTERM, which a drain sends.
const SIGTERM: i32 = 15;
/// SIGKILL.
const SIGKILL: i32 = 9;

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
    /// SIGSTOP is sent, to look at the page.
    pub(super) inspecting: Option<Time>,
    /// Attempts to be killed if one of them runs when it has stopped.
    pub(super) cancels: Vec<(BrokerIndex, AttemptId)>,
    /// The attempt that was warned of its kill, and when.
    pub(super) warned: Option<(AttemptId, Time)>,
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
        (Death::Signalled(SIGKILL), Some(cause)) => cause,
        (Death::Exited(0) | Death::Signalled(SIGTERM), _) if is_draining => LossKind::Shutdown,
        (Death::Exited(_), _) => LossKind::Exited,
        (Death::Signalled(_), _) => LossKind::Signalled,
    }
}

/// Whether an attempt is past its max runtime.
pub(super) const fn is_overrun(running: &Running, now: Time) -> bool {
    now.since(running.started) >= running.max_runtime_ns
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
            inspecting: None,
            cancels: Vec::new(),
            warned: None,
        }
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
