//! The supervisor's machine: sessions with the brokers, host leases, and the life and death of the
//! workers of one host.
//!
//! [`Supervision`] decides; the shell (`pinmesh-worker`'s supervisor, or the simulator) carries out
//! what it calls on [`Effects`] and hands it what happened as an [`Event`]. Effects that look at a
//! worker's status page answer at once, because the page is shared memory; everything that takes
//! time (a death, a stop, an answer of a broker) comes back as an event.
//!
//! The rules that matter:
//! * An attempt runs only inside the lease of its broker. The lease is given and renewed by the echo
//!   of a heartbeat and counted from when that heartbeat was *sent*. When it ends, what waits is given
//!   back and what runs is killed.
//! * A worker is killed only after it has been stopped and its page read again, so that never
//!   another attempt dies than the one that was meant.
//! * Every death is told (LOST) and told again in the next session until it is acknowledged, and
//!   always before HOST.

mod child;
mod ends;
mod event;
mod life;
mod link;
mod recall;
mod renewal;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use pinmesh_protocol::command::FromBroker;
use pinmesh_protocol::id::Slot;
use pinmesh_protocol::status::LossKind;

pub use event::{CloseReason, Config, Death, Effects, Event, GraceSignal, Note, Signal};

use crate::slots::BrokerIndex;
use crate::time::Time;

use child::Child;
use ends::End;
use life::Watching;
use link::Link;
use renewal::Renewal;

/// What [`Supervision::next_wakeup`] wakes for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WakeReason {
    /// A broker: heartbeat, liveness, lease or another try.
    Broker(BrokerIndex),
    /// A worker is to be started.
    Restart(Slot),
    /// The pages are to be looked at.
    Watch,
    /// A drain, or a rolling restart, moves on.
    Drain,
}

/// How far the host has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Before [`Event::Start`].
    New,
    /// At work.
    Serving,
    /// Workers finish; at `until` the next, harder step is taken.
    Draining { until: Time, is_overdue: bool },
    /// Workers are gone; the last ends wait for their acknowledgement.
    Farewell { until: Time },
    /// Done.
    Gone,
}

/// How long the last LOSTs may wait for their ACK before GOODBYE, nanoseconds.
const FAREWELL_NS: u64 = 1_000_000_000;
/// How often pages are looked at until every worker is ready, nanoseconds.
const WATCH_STARTING_NS: u64 = 10_000_000;
/// After this, a worker that is not ready is looked at no more often than others, nanoseconds.
const STARTING_NS: u64 = 10_000_000_000;

/// The supervisor's machine. See the module.
#[derive(Debug)]
pub struct Supervision {
    config: Config,
    phase: Phase,
    links: Vec<Link>,
    children: Vec<Child>,
    next_watch: Time,
    /// A worker was started since HOST was last sent.
    is_host_stale: bool,
    was_ready: bool,
    started: Time,
    /// A rolling restart that is under way.
    renewal: Option<Renewal>,
}

impl Supervision {
    /// A host whose workers have not been started.
    pub fn new(config: Config) -> Self {
        let links = (0u16..)
            .take(config.brokers)
            .map(|index| Link::new(BrokerIndex(index), &config))
            .collect();
        let children = (0u16..).zip(&config.cpus).map(|(slot, _)| Child::new(Slot(slot))).collect();
        Self {
            config,
            phase: Phase::New,
            links,
            children,
            next_watch: Time(0),
            is_host_stale: false,
            was_ready: false,
            started: Time(0),
            renewal: None,
        }
    }

    /// One thing has happened; what follows from it goes to `fx`.
    pub fn handle<E: Effects>(&mut self, now: Time, event: Event<'_>, fx: &mut E) {
        // Before the event: an echo that comes too late must not hide that the lease had ended.
        self.expire_leases(now, fx);
        match event {
            Event::Start => self.on_start(now),
            Event::Tick => {}
            Event::Received { broker, command } => self.on_command(now, broker, command, fx),
            Event::Unreadable { broker, code } => {
                if let Some(link) = self.link(broker) {
                    link.on_unreadable(now, code, fx);
                }
            }
            Event::Died { slot, death } => self.on_death(now, slot, death, fx),
            Event::Stopped(slot) => {
                if let Some(child) = self.child(slot) {
                    child.on_stopped(now, fx);
                }
            }
            Event::Continued(slot) => {
                if let Some(child) = self.child(slot) {
                    child.on_continued();
                }
            }
            Event::Terminate => self.on_terminate(now, fx),
            Event::Renew => self.renew(fx),
        }
        self.advance(now, fx);
    }

    /// When [`Event::Tick`] is due next, and why. `None` when the host has left.
    pub fn next_wakeup(&self) -> Option<(Time, WakeReason)> {
        let links = self.links.iter().map(|link| (link.due(), WakeReason::Broker(link.index())));
        let children = self
            .children
            .iter()
            .filter_map(|child| Some((child.restart_due()?, WakeReason::Restart(child.slot()))));
        let (watch, phase) = match self.phase {
            Phase::New | Phase::Gone => return None,
            Phase::Serving => (self.watch_due(), self.renewal_due()),
            Phase::Draining { until, .. } => (self.watch_due(), until),
            Phase::Farewell { until } => (Time::NEVER, until),
        };
        links
            .chain(children)
            .chain([(watch, WakeReason::Watch), (phase, WakeReason::Drain)])
            .min_by_key(|&(time, _)| time)
    }

    fn watch_due(&self) -> Time {
        let runtime = self.children.iter().map(Child::overrun_due).min().unwrap_or(Time::NEVER);
        self.next_watch.min(runtime)
    }

    fn link(&mut self, broker: BrokerIndex) -> Option<&mut Link> {
        self.links.get_mut(usize::from(broker.0))
    }

    fn child(&mut self, slot: Slot) -> Option<&mut Child> {
        self.children.get_mut(usize::from(slot.0))
    }

    fn on_start(&mut self, now: Time) {
        self.phase = Phase::Serving;
        self.started = now;
        self.next_watch = now;
        self.links.iter_mut().for_each(|link| link.start(now));
        self.children.iter_mut().for_each(|child| child.start(now));
    }

    fn on_command<E: Effects>(
        &mut self,
        now: Time,
        broker: BrokerIndex,
        command: FromBroker<'_>,
        fx: &mut E,
    ) {
        let Some(link) = self.link(broker) else { return };
        match command {
            FromBroker::Welcome(welcome) => {
                if link.on_welcome(now, &welcome, fx) {
                    self.send_host(broker, fx);
                }
            }
            FromBroker::Heartbeat(beat) => {
                if link.on_echo(now, &beat) {
                    self.spread_lease(broker, fx);
                }
            }
            FromBroker::Ack(count) => link.on_ack(now, count, fx),
            FromBroker::NoSession => link.close(now, CloseReason::NoSession, fx),
            FromBroker::Refused(refused) => {
                link.close(now, CloseReason::Refused(refused.code), fx);
            }
            FromBroker::Goodbye => link.close(now, CloseReason::Goodbye, fx),
            FromBroker::Recall(recall) => {
                if link.hear(now) {
                    self.recall(broker, recall.slot, &recall.attempts, fx);
                }
            }
            FromBroker::Cancel(cancel) => {
                if link.hear(now) {
                    self.cancel(now, broker, cancel.slot, cancel.attempt, cancel.is_hard, fx);
                }
            }
            FromBroker::Drain => {
                if link.hear(now) {
                    self.drain(now, fx);
                }
            }
            // Meant for clients and workers, or of no meaning towards a supervisor.
            FromBroker::Window(_)
            | FromBroker::Service(_)
            | FromBroker::Result(_)
            | FromBroker::Accepted(_)
            | FromBroker::Fetched(_)
            | FromBroker::Progress(_)
            | FromBroker::Task(_) => {
                link.hear(now);
            }
        }
    }

    fn on_death<E: Effects>(&mut self, now: Time, slot: Slot, death: Death, fx: &mut E) {
        let is_draining = !matches!(self.phase, Phase::New | Phase::Serving);
        let config = &self.config;
        let Some(child) = self.children.get_mut(usize::from(slot.0)) else { return };
        let Some(loss) = child.on_death(now, death, is_draining, config, fx) else { return };
        for link in &mut self.links {
            let end = End::lost(&loss, link.index());
            link.push_end(end, fx);
        }
    }

    fn on_terminate<E: Effects>(&mut self, now: Time, fx: &mut E) {
        match self.phase {
            Phase::New | Phase::Serving => self.drain(now, fx),
            Phase::Draining { .. } => self.kill_all(fx),
            Phase::Farewell { .. } => self.leave(fx),
            Phase::Gone => {}
        }
    }

    /// DRAIN of any one broker takes the host out of service altogether: it is said of a host.
    fn drain<E: Effects>(&mut self, now: Time, fx: &mut E) {
        match self.phase {
            Phase::New | Phase::Serving => {}
            Phase::Draining { .. } | Phase::Farewell { .. } | Phase::Gone => return,
        }
        fx.note(Note::Draining);
        self.renewal = None;
        self.phase = Phase::Draining { until: now.after(self.config.drain_ns), is_overdue: false };
        self.children.iter_mut().for_each(|child| child.drain(fx));
    }

    fn kill_all<E: Effects>(&mut self, fx: &mut E) {
        self.children.iter_mut().for_each(|child| child.kill(LossKind::Shutdown, fx));
    }

    fn leave<E: Effects>(&mut self, fx: &mut E) {
        self.links.iter_mut().for_each(|link| link.leave(fx));
        self.phase = Phase::Gone;
        fx.note(Note::Drained);
        fx.exit();
    }

    fn expire_leases<E: Effects>(&mut self, now: Time, fx: &mut E) {
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            if let Some(epoch) = link.take_ended_lease(now) {
                let broker = link.index();
                fx.note(Note::LeaseEnded { broker, epoch });
                self.end_lease(broker, epoch, fx);
            }
        }
    }

    /// Everything that time alone brings about, leases excepted.
    fn advance<E: Effects>(&mut self, now: Time, fx: &mut E) {
        if matches!(self.phase, Phase::New | Phase::Gone) {
            return;
        }
        self.links.iter_mut().for_each(|link| link.advance(now, &self.config, fx));
        self.restart(now, fx);
        if now >= self.watch_due() {
            self.watch(now, fx);
        }
        self.advance_renewal(now, fx);
        self.advance_drain(now, fx);
        if core::mem::take(&mut self.is_host_stale) {
            (0u16..)
                .take(self.links.len())
                .for_each(|index| self.send_host(BrokerIndex(index), fx));
        }
    }

    fn restart<E: Effects>(&mut self, now: Time, fx: &mut E) {
        for child in &mut self.children {
            if child.restart_due().is_some_and(|due| due <= now)
                && child.spawn(now, &self.config, fx)
            {
                self.is_host_stale = true;
                self.next_watch = now;
                for link in &self.links {
                    if let Some((epoch, until)) = link.lease() {
                        fx.set_lease(child.slot(), link.index(), epoch, until);
                    }
                }
            }
        }
    }

    fn watch<E: Effects>(&mut self, now: Time, fx: &mut E) {
        let mut all = Watching::default();
        for child in &mut self.children {
            all.join(child.watch(now, &self.config, fx));
        }
        let is_starting = !self.was_ready && now.since(self.started) < STARTING_NS;
        let interval = match (is_starting, all.is_busy) {
            (true, _) => WATCH_STARTING_NS,
            (false, true) => self.config.watch_busy_ns,
            (false, false) => self.config.watch_idle_ns,
        };
        self.next_watch = now.after(interval);
        if all.is_ready && !self.was_ready && self.links.iter().all(Link::is_open) {
            self.was_ready = true;
            fx.note(Note::Ready);
        }
    }

    fn advance_drain<E: Effects>(&mut self, now: Time, fx: &mut E) {
        match self.phase {
            Phase::New | Phase::Serving | Phase::Gone => {}
            Phase::Draining { .. } if self.children.iter().all(Child::is_gone) => {
                self.phase = Phase::Farewell { until: now.after(FAREWELL_NS) };
                self.advance_drain(now, fx);
            }
            Phase::Draining { until, .. } if now < until => {}
            Phase::Draining { is_overdue: false, .. } => {
                fx.note(Note::DrainOverdue);
                self.children.iter_mut().for_each(|child| child.cancel_running(fx));
                let until = now.after(self.config.grace_ns);
                self.phase = Phase::Draining { until, is_overdue: true };
            }
            Phase::Draining { is_overdue: true, .. } => {
                self.kill_all(fx);
                let until = now.after(self.config.grace_ns.max(WATCH_STARTING_NS));
                self.phase = Phase::Draining { until, is_overdue: true };
            }
            Phase::Farewell { until } => {
                if now >= until || !self.links.iter().any(Link::has_unsaid) {
                    self.leave(fx);
                }
            }
        }
    }
}
