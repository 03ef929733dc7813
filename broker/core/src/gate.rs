//! What keeps a service's tasks from being sent although a worker could take them: its pause, its cap
//! of attempts in flight, its rate. A service whose gate is closed is offered to no worker, and costs
//! nothing there.
//!
//! The rate is the generic cell rate algorithm (ITU-T I.371) in whole nanoseconds: a bucket of
//! `burst` tokens, one more every `interval`, kept as one moment.

use crate::config::ServiceLimits;
use crate::event::Body;
use crate::outbox::Outbox;
use crate::shares::CLASSES;
use crate::slab::{Key, ServiceKey, TimerKey};
use crate::state::{State, Wake};
use crate::time::{Span, Time};

/// Sendings of a service's tasks to workers: at most `burst` at once, and one more an `interval`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Time from one to the next in the long run; not zero.
    pub interval: Span,
    /// The most that may go at once after a quiet time; at least 1.
    pub burst: u32,
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate {
    pub(crate) is_paused: bool,
    /// Attempts that workers hold, of ended tasks too.
    pub(crate) in_flight: u32,
    /// When the bucket will be full again.
    full_at: Time,
    /// When there is the next token; meaningful while `timer` is set.
    next_at: Time,
    /// Set while there is no token.
    pub(crate) timer: Option<TimerKey>,
}

impl Gate {
    /// Whether its tasks may be sent.
    #[inline]
    pub(crate) fn is_open(&self, limits: &ServiceLimits) -> bool {
        !self.is_paused && self.timer.is_none() && self.in_flight < limits.in_flight_max
    }

    /// How long there is no token from now.
    pub(crate) fn wait(&self, now: Time) -> Option<Span> {
        self.timer.is_some().then(|| self.next_at.since(now))
    }

    /// Takes a token; the moment at which there is the next one, if there is none now.
    fn charge(&mut self, rate: Rate, now: Time) -> Option<Time> {
        self.full_at = self.full_at.max(now).after(rate.interval);
        let ahead = rate.interval.0.saturating_mul(u64::from(rate.burst.max(1)) - 1);
        self.next_at = Time(self.full_at.0.saturating_sub(ahead));
        (self.next_at > now).then_some(self.next_at)
    }
}

impl<B: Body> State<B> {
    /// A task of the service was sent to a worker.
    #[inline]
    pub(crate) fn charge_rate(&mut self, key: ServiceKey) {
        let now = self.now;
        let service = self.services.at_mut(key);
        let Some(rate) = service.limits.rate else { return };
        if let Some(at) = service.gate.charge(rate, now) {
            service.gate.timer = Some(self.timers.set(at, Wake::Gate(key)));
            self.regate(key);
        }
    }

    /// A worker took an attempt of the service.
    #[inline]
    pub(crate) fn enter_gate(&mut self, key: ServiceKey) {
        let service = self.services.at_mut(key);
        service.gate.in_flight += 1;
        if service.gate.in_flight >= service.limits.in_flight_max {
            self.regate(key);
        }
    }

    /// A worker let go of an attempt of the service.
    #[inline]
    pub(crate) fn leave_gate(&mut self, key: ServiceKey) {
        let service = self.services.at_mut(key);
        service.gate.in_flight -= 1;
        if service.gate.in_flight + 1 == service.limits.in_flight_max {
            self.opened.push(key);
            self.regate(key);
        }
    }

    /// There is a token again.
    pub(crate) fn on_gate_timer(&mut self, key: ServiceKey, out: &mut impl Outbox<B>) {
        let Some(service) = self.services.get_mut(key) else { return };
        service.gate.timer = None;
        self.regate(key);
        self.services.release(key);
        self.dispatch_service(key, out);
    }

    /// Stops or lets go on the sending of a service's tasks; what was sent runs on. Returns whether it
    /// was paused before.
    pub(crate) fn set_paused(
        &mut self,
        key: ServiceKey,
        is_paused: bool,
        out: &mut impl Outbox<B>,
    ) -> bool {
        let before = core::mem::replace(&mut self.services.at_mut(key).gate.is_paused, is_paused);
        self.regate(key);
        if !is_paused {
            self.services.release(key);
            self.dispatch_service(key, out);
        }
        before
    }

    /// A closed service stands in no ring of its groups, so that it costs nothing there and keeps
    /// nobody waiting; one that opens comes to stand there again.
    fn regate(&mut self, key: ServiceKey) {
        let service = self.services.at_mut(key);
        let is_open = service.gate.is_open(&service.limits);
        if core::mem::replace(&mut service.is_in_turn, is_open) == is_open {
            return;
        }
        for class in (0..CLASSES).filter(|class| service.waiting.has(*class)) {
            for serving in &service.groups {
                let group = self.groups.at_mut(serving.group.index());
                if is_open {
                    group.enter(serving.place, class);
                } else {
                    group.leave(serving.place, class);
                }
            }
        }
    }

    /// Services whose gates opened on the way send what waits: their other groups may have credit.
    pub(crate) fn dispatch_opened(&mut self, out: &mut impl Outbox<B>) {
        while let Some(key) = self.opened.pop() {
            if self.services.get_mut(key).is_some() {
                self.dispatch_service(key, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bucket that everybody knows, in tokens of `interval` nanoseconds.
    struct Bucket {
        rate: Rate,
        level: u64,
        at: u64,
    }

    impl Bucket {
        fn fill(&mut self, now: u64) {
            let full = self.rate.interval.0 * u64::from(self.rate.burst);
            self.level = full.min(self.level + (now - self.at));
            self.at = now;
        }

        fn next_at(&self) -> Option<u64> {
            let missing = self.rate.interval.0.checked_sub(self.level)?;
            (missing > 0).then_some(self.at + missing)
        }
    }

    #[test]
    fn the_gate_closes_when_a_token_bucket_is_empty() {
        for (interval, burst) in [(1, 1), (7, 1), (10, 3), (1_000, 10)] {
            let rate = Rate { interval: Span(interval), burst };
            let mut gate = Gate::default();
            let mut bucket = Bucket { rate, level: interval * u64::from(burst), at: 0 };
            let (mut now, mut closings) = (0, 0);
            for step in 0..10_000_u64 {
                now += step * step % (2 * interval);
                bucket.fill(now);
                bucket.level -= interval;
                let at = gate.charge(rate, Time(now)).map(|at| at.0);
                assert_eq!(at, bucket.next_at(), "{rate:?}, step {step}");
                if let Some(at) = at {
                    closings += 1;
                    now = at;
                }
            }
            assert!(closings > 100, "{rate:?}: {closings}");
        }
    }
}
