//! The life of the worker in one slot: started, watched, stopped and looked at, killed, restarted.

use alloc::vec::Vec;

use pinmesh_protocol::id::{AttemptId, Incarnation, Slot};
use pinmesh_protocol::status::LossKind;

use super::ends::Loss;
use super::life::{Life, SIGKILL, Watching, cause_of};
use super::{Config, Death, Effects, Note, Signal};
use crate::slots::{BrokerIndex, HeldSlot, Running, SlotState};
use crate::time::Time;

/// Hard cancels that wait for the process to stop. It runs one attempt, so that more than one is
/// rare; beyond this the oldest is forgotten, as if it had come too late.
const CANCELS_MAX: usize = 16;
/// How long a process may take to stop before its page is read without that: it hangs in the
/// kernel, where it cannot move to another attempt either. Nanoseconds.
const STOP_MAX_NS: u64 = 1_000_000_000;

#[derive(Debug)]
enum State {
    /// No process; one is started at `until`.
    Backoff { until: Time },
    /// The process is there and has not reached its loop.
    Starting(Life),
    /// In its loop.
    Running(Life),
    /// SIGKILL is sent.
    Killing { cause: LossKind, life: Life },
    /// No process, and none will be started.
    Gone,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Child {
    slot: Slot,
    incarnation: Incarnation,
    state: State,
    /// Crashes in a row.
    failures: u32,
}

impl Child {
    pub(super) const fn new(slot: Slot) -> Self {
        Self { slot, incarnation: Incarnation(0), state: State::Gone, failures: 0 }
    }

    pub(super) const fn slot(&self) -> Slot {
        self.slot
    }

    pub(super) const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(super) fn start(&mut self, now: Time) {
        self.state = State::Backoff { until: now };
    }

    pub(super) const fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// Whether there is a process, dying or not.
    pub(super) const fn is_process(&self) -> bool {
        match self.state {
            State::Starting(_) | State::Running(_) | State::Killing { .. } => true,
            State::Backoff { .. } | State::Gone => false,
        }
    }

    /// Whether there is a process that is not being killed.
    pub(super) const fn is_alive(&self) -> bool {
        match self.state {
            State::Starting(_) | State::Running(_) => true,
            State::Backoff { .. } | State::Killing { .. } | State::Gone => false,
        }
    }

    /// Whether there is a process that has reached its loop.
    pub(super) const fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    pub(super) const fn restart_due(&self) -> Option<Time> {
        match self.state {
            State::Backoff { until } => Some(until),
            State::Starting(_) | State::Running(_) | State::Killing { .. } | State::Gone => None,
        }
    }

    fn life(&mut self) -> Option<&mut Life> {
        match &mut self.state {
            State::Starting(life) | State::Running(life) => Some(life),
            State::Backoff { .. } | State::Killing { .. } | State::Gone => None,
        }
    }

    /// When the attempt seen last passes its max runtime, if it is not being dealt with.
    pub(super) fn overrun_due(&self) -> Time {
        match &self.state {
            State::Starting(life) | State::Running(life) => match life.running {
                Some(running) if life.inspecting.is_none() && life.warned.is_none() => {
                    life.runtime_end(&running)
                }
                Some(_) | None => Time::NEVER,
            },
            State::Backoff { .. } | State::Killing { .. } | State::Gone => Time::NEVER,
        }
    }

    /// `true`: a process was started.
    pub(super) fn spawn<E: Effects>(&mut self, now: Time, config: &Config, fx: &mut E) -> bool {
        self.incarnation = Incarnation(self.incarnation.0.saturating_add(1));
        if !fx.spawn(self.slot, self.incarnation) {
            fx.note(Note::SpawnFailed { slot: self.slot });
            self.back_off(now, config, fx);
            return false;
        }
        fx.note(Note::Started { slot: self.slot, incarnation: self.incarnation });
        self.state = State::Starting(Life::new(now));
        true
    }

    fn back_off<E: Effects>(&mut self, now: Time, config: &Config, fx: &mut E) {
        self.failures = self.failures.saturating_add(1);
        let doubled = 1u64 << (self.failures - 1).min(32);
        let delay_ns = config.restart_min_ns.saturating_mul(doubled).min(config.restart_max_ns);
        self.wait(now, delay_ns, fx);
    }

    fn wait<E: Effects>(&mut self, now: Time, delay_ns: u64, fx: &mut E) {
        self.state = State::Backoff { until: now.after(delay_ns) };
        fx.note(Note::RestartIn { slot: self.slot, delay_ns, failures: self.failures });
    }

    /// Looks at the page, and does what it calls for.
    pub(super) fn watch<E: Effects>(&mut self, now: Time, config: &Config, fx: &mut E) -> Watching {
        let slot = self.slot;
        let Some(life) = self.life() else { return Watching::NOBODY };
        let glance = fx.glance(slot);
        let is_up = glance.turn > 0;
        life.note_standstill(now, &glance);
        life.running = glance.running;
        let is_stalled = life.still_ns >= config.stall_max_ns;
        let is_stuck = life.inspecting.is_some_and(|since| now.since(since) >= STOP_MAX_NS);
        let is_over = glance.running.is_some_and(|running| now >= life.runtime_end(&running));
        let is_busy = glance.unended > 0 || life.is_stopped || life.inspecting.is_some();
        if is_up {
            self.enter_loop(fx);
        }
        if is_stalled {
            self.kill(LossKind::Stalled, fx);
        } else if is_stuck {
            self.judge(now, fx);
        } else if is_over {
            self.on_overrun(now, config, fx);
        }
        Watching { is_ready: is_up && fx.is_ready(slot), is_busy }
    }

    fn enter_loop<E: Effects>(&mut self, fx: &mut E) {
        self.state = match core::mem::replace(&mut self.state, State::Gone) {
            State::Starting(life) => {
                fx.note(Note::Up { slot: self.slot, incarnation: self.incarnation });
                State::Running(life)
            }
            other @ (State::Backoff { .. }
            | State::Running(_)
            | State::Killing { .. }
            | State::Gone) => other,
        };
    }

    /// The attempt in the handler is past its max runtime: warn it if configured, then look closer.
    fn on_overrun<E: Effects>(&mut self, now: Time, config: &Config, fx: &mut E) {
        let slot = self.slot;
        let Some(life) = self.life() else { return };
        let Some(running) = life.running else { return };
        if let Some(grace) = config.overrun_signal {
            match life.warned {
                Some((attempt, since)) if attempt == running.attempt => {
                    if now.since(since) < grace.grace_ns {
                        return;
                    }
                }
                Some(_) | None => {
                    life.warned = Some((running.attempt, now));
                    fx.signal(slot, Signal::Warn(grace.signal));
                    return;
                }
            }
        }
        self.inspect(now, fx);
    }

    /// Kills the worker if it runs exactly this attempt.
    pub(super) fn cancel_hard<E: Effects>(
        &mut self,
        now: Time,
        broker: BrokerIndex,
        attempt: AttemptId,
        fx: &mut E,
    ) {
        let Some(life) = self.life() else { return };
        if !life.cancels.contains(&(broker, attempt)) {
            if life.cancels.len() == CANCELS_MAX {
                life.cancels.remove(0);
            }
            life.cancels.push((broker, attempt));
        }
        self.inspect(now, fx);
    }

    /// Stops the process, so that its page says what it will still say at the kill.
    fn inspect<E: Effects>(&mut self, now: Time, fx: &mut E) {
        let slot = self.slot;
        let Some(life) = self.life() else { return };
        if life.is_stopped {
            self.judge(now, fx);
        } else if life.inspecting.is_none() {
            life.inspecting = Some(now);
            fx.signal(slot, Signal::Stop);
        }
    }

    /// Kills the process, which stands still, or lets it go on: it has moved to another attempt.
    fn judge<E: Effects>(&mut self, now: Time, fx: &mut E) {
        let slot = self.slot;
        let Some(life) = self.life() else { return };
        let running = fx.glance(slot).running;
        let cancels = core::mem::take(&mut life.cancels);
        let inspected = life.inspecting.take();
        // Claimed, not only running: the handler may be about to be entered.
        let is_claimed = |(broker, attempt)| {
            fx.held(slot).contains(&HeldSlot { broker, attempt, state: SlotState::Claimed })
        };
        // As it was when the process was told to stop: since then nothing has run.
        let at = inspected.unwrap_or(now);
        let overrun = running.filter(|running| at >= life.runtime_end(running));
        let ran_ns = overrun.map_or(0, |running| life.ran_ns(&running, now));
        if cancels.into_iter().any(is_claimed) {
            self.kill(LossKind::Cancelled, fx);
        } else if let Some(Running { attempt, max_runtime_ns, .. }) = overrun {
            fx.note(Note::Overrun { slot, attempt, ran_ns, max_runtime_ns });
            self.kill(LossKind::MaxRuntime, fx);
        } else if let Some(since) = inspected {
            life.note_pause(since, now);
            fx.signal(slot, Signal::Continue);
        }
    }

    pub(super) fn on_stopped<E: Effects>(&mut self, now: Time, fx: &mut E) {
        let Some(life) = self.life() else { return };
        if life.inspecting.is_some() {
            self.judge(now, fx);
        } else {
            life.is_stopped = true;
            life.still_ns = 0;
            life.looked = now;
        }
    }

    pub(super) fn on_continued(&mut self) {
        if let Some(life) = self.life() {
            life.is_stopped = false;
            life.still_ns = 0;
        }
    }

    pub(super) fn kill<E: Effects>(&mut self, cause: LossKind, fx: &mut E) {
        self.state = match core::mem::replace(&mut self.state, State::Gone) {
            State::Starting(life) | State::Running(life) => {
                fx.note(Note::Killing { slot: self.slot, cause });
                fx.signal(self.slot, Signal::Kill);
                State::Killing { cause, life }
            }
            State::Backoff { .. } if cause == LossKind::Shutdown => State::Gone,
            other @ (State::Backoff { .. } | State::Killing { .. } | State::Gone) => other,
        };
    }

    /// Asks the worker to finish and leave; it will not be started again.
    pub(super) fn drain<E: Effects>(&mut self, fx: &mut E) {
        match self.state {
            State::Backoff { .. } => self.state = State::Gone,
            State::Starting(_) | State::Running(_) => fx.signal(self.slot, Signal::Drain),
            State::Killing { .. } | State::Gone => {}
        }
    }

    /// Asks the worker to finish and leave; another will be started in its place.
    pub(super) fn leave<E: Effects>(&mut self, fx: &mut E) {
        let slot = self.slot;
        if let Some(life) = self.life() {
            life.is_leaving = true;
            fx.signal(slot, Signal::Drain);
        }
    }

    /// Asks the handler to stop.
    pub(super) fn cancel_running<E: Effects>(&mut self, fx: &mut E) {
        if self.is_alive()
            && let Some(running) = fx.glance(self.slot).running
        {
            fx.cancel(self.slot, running.broker, running.attempt);
        }
    }

    /// The process is gone. What died with it; `None` if there was none.
    pub(super) fn on_death<E: Effects>(
        &mut self,
        now: Time,
        death: Death,
        is_draining: bool,
        config: &Config,
        fx: &mut E,
    ) -> Option<Loss> {
        let (killed, life, was_starting) = match core::mem::replace(&mut self.state, State::Gone) {
            State::Starting(life) => (None, life, true),
            State::Running(life) => (None, life, false),
            State::Killing { cause, life } => (Some(cause), life, false),
            other @ (State::Backoff { .. } | State::Gone) => {
                self.state = other;
                return None;
            }
        };
        let cause = cause_of(death, killed, is_draining || life.is_leaving);
        let glance = fx.glance(self.slot);
        // It may have begun its loop since the last look.
        let was_starting = was_starting && glance.turn == 0;
        let detail = match death {
            Death::Exited(detail) | Death::Signalled(detail) => detail,
            Death::OutOfMemory => SIGKILL,
        };
        let (slot, incarnation) = (self.slot, self.incarnation);
        let running = glance.running.map(|running| (running.broker, running.attempt));
        let started: Vec<_> = fx
            .held(slot)
            .into_iter()
            .filter(|held| matches!(held.state, SlotState::Claimed | SlotState::Ended))
            .map(|held| (held.broker, held.attempt))
            .filter(|&started| Some(started) != running)
            .collect();
        let ran = running.map(|(_, attempt)| attempt);
        fx.note(Note::Died { slot, incarnation, cause, detail, running: ran, was_starting });
        if !is_draining {
            let has_worked = running.is_some() || !started.is_empty();
            if has_worked || now.since(life.born) >= config.healthy_ns {
                // A task that takes workers down is charged and may do so only so often: whoever
                // waits behind it is not to wait longer each time.
                self.failures = 0;
            }
            self.plan_restart(now, now.since(life.born), cause, config, fx);
        }
        Some(Loss { slot, incarnation, cause, detail, running, started })
    }

    fn plan_restart<E: Effects>(
        &mut self,
        now: Time,
        lived_ns: u64,
        cause: LossKind,
        config: &Config,
        fx: &mut E,
    ) {
        match cause {
            LossKind::Exited
            | LossKind::Signalled
            | LossKind::Stalled
            | LossKind::Unknown
            | LossKind::OutOfMemory => {
                self.back_off(now, config, fx);
            }
            // Not the worker's fault: at once, unless that has just been done.
            LossKind::MaxRuntime
            | LossKind::LeaseEnded
            | LossKind::Cancelled
            | LossKind::Shutdown => {
                let is_hot = lived_ns < config.restart_min_ns;
                self.wait(now, if is_hot { config.restart_min_ns } else { 0 }, fx);
            }
        }
    }
}
