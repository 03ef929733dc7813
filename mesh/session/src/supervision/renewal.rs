//! A rolling restart: one worker after the other finishes what it runs, leaves, and is started again
//! from the program as it is on disk by then. The next one has its turn when this one serves again,
//! so that at most one is missing; a program that does not come up stops the renewal there, and the
//! others go on as they are.

use pinmesh_protocol::id::{Incarnation, Slot};
use pinmesh_protocol::status::LossKind;

use super::link::Link;
use super::{Effects, Note, Phase, STARTING_NS, Supervision, WATCH_STARTING_NS};
use crate::time::Time;

/// How far it has got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    /// Whose turn it is.
    slot: Slot,
    step: Step,
    /// It was asked for again meanwhile: once more from the first worker.
    is_wanted_again: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The worker is to be asked to leave.
    Next,
    /// It finishes; at `until` it is killed, and what it ran goes back unharmed.
    Leaving { before: Incarnation, until: Time },
    /// The new one has been started, and is to serve.
    Coming { since: Time, incarnation: Incarnation },
}

impl Supervision {
    /// Somebody wants every worker started anew.
    pub(super) fn renew<E: Effects>(&mut self, fx: &mut E) {
        match self.phase {
            Phase::New | Phase::Serving => {}
            Phase::Draining { .. } | Phase::Farewell { .. } | Phase::Gone => return,
        }
        match &mut self.renewal {
            Some(renewal) => renewal.is_wanted_again = true,
            None => {
                fx.note(Note::Renewing);
                let step = Step::Next;
                self.renewal = Some(Renewal { slot: Slot(0), step, is_wanted_again: false });
            }
        }
    }

    /// When the renewal moves on by time alone.
    pub(super) fn renewal_due(&self) -> Time {
        match self.renewal.map(|renewal| renewal.step) {
            Some(Step::Leaving { until, .. }) => until,
            Some(Step::Next | Step::Coming { .. }) | None => Time::NEVER,
        }
    }

    pub(super) fn advance_renewal<E: Effects>(&mut self, now: Time, fx: &mut E) {
        while let Some(renewal) = self.renewal {
            let Some(step) = self.next_step(now, renewal, fx) else { return };
            match step {
                Step::Next => self.next_turn(renewal, fx),
                step @ (Step::Leaving { .. } | Step::Coming { .. }) => {
                    self.renewal = Some(Renewal { step, ..renewal });
                }
            }
        }
    }

    /// The step after this one; [`Step::Next`]: this worker is done. `None`: not yet.
    fn next_step<E: Effects>(&mut self, now: Time, renewal: Renewal, fx: &mut E) -> Option<Step> {
        let (drain_ns, grace_ns) = (self.config.drain_ns, self.config.grace_ns);
        let is_cut_off = !self.links.iter().all(Link::is_open);
        let child = self.child(renewal.slot)?;
        match renewal.step {
            Step::Next => {
                child.leave(fx);
                let (before, until) = (child.incarnation(), now.after(drain_ns));
                Some(Step::Leaving { before, until })
            }
            Step::Leaving { before, .. } if child.incarnation() > before && child.is_alive() => {
                Some(Step::Coming { since: now, incarnation: child.incarnation() })
            }
            Step::Leaving { until, .. } if now < until => None,
            Step::Leaving { before, .. } => {
                if child.is_alive() {
                    fx.note(Note::RenewalOverdue { slot: renewal.slot });
                    child.kill(LossKind::Shutdown, fx);
                }
                let until = now.after(grace_ns.max(WATCH_STARTING_NS));
                Some(Step::Leaving { before, until })
            }
            Step::Coming { incarnation, .. } if child.incarnation() > incarnation => {
                Some(Step::Coming { since: now, incarnation: child.incarnation() })
            }
            // A broker that is away keeps a worker from being ready, and nobody from being renewed. A
            // worker that a broker which is there does not take stops the renewal.
            Step::Coming { since, .. } => {
                let serves = child.is_alive() && fx.is_ready(renewal.slot);
                let is_over = now.since(since) >= STARTING_NS && child.is_running();
                (serves || is_over && is_cut_off).then_some(Step::Next)
            }
        }
    }

    fn next_turn<E: Effects>(&mut self, renewal: Renewal, fx: &mut E) {
        let slot = Slot(renewal.slot.0 + 1);
        let is_over = usize::from(slot.0) >= self.children.len();
        self.renewal = match (is_over, renewal.is_wanted_again) {
            (false, _) => Some(Renewal { slot, step: Step::Next, ..renewal }),
            (true, true) => {
                Some(Renewal { slot: Slot(0), step: Step::Next, is_wanted_again: false })
            }
            (true, false) => {
                fx.note(Note::Renewed);
                None
            }
        };
    }
}
