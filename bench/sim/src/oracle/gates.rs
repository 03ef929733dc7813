//! What keeps a service's tasks waiting although a worker could take them: pause, cap and rate; and
//! what an operator does.
//!
//! The rate is kept as the bucket that everybody knows: it holds `burst` tokens of `interval`
//! nanoseconds each, fills by one nanosecond a nanosecond, and each sending takes a token out.

use pinmesh_core::{
    AdminCommand, AdminObjection, AdminReply, Broker, DrainTarget, Purge, ServiceLimits, Time,
};
use pinmesh_protocol::id::{PeerId, TaskId};
use pinmesh_protocol::status::Status;

use super::book::{Age, State, Task, Worker};
use super::time::Due;
use super::{Expected, Oracle};
use crate::record::{Body, Effect, Sent};

/// What is known of a service that was paused, or has a rate and was sent.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    service: String,
    is_paused: bool,
    /// Nanoseconds in the bucket, and when that was so.
    level: u64,
    filled_at: u64,
    /// There is no token before that, and the broker has not looked again since.
    pub(super) opens_at: Option<u64>,
}

impl Oracle {
    pub(super) fn limits_of(&self, service: &str) -> &ServiceLimits {
        self.config.own_service_limits.get(service).unwrap_or(&self.config.service_limits)
    }

    fn gate_at(&mut self, service: &str) -> usize {
        if let Some(place) = self.gates.iter().position(|gate| gate.service == service) {
            return place;
        }
        let full =
            self.limits_of(service).rate.map_or(0, |rate| full_level(rate.interval.0, rate.burst));
        self.gates.push(Gate {
            service: service.to_owned(),
            is_paused: false,
            level: full,
            filled_at: self.now,
            opens_at: None,
        });
        self.gates.len() - 1
    }

    fn gate_of(&self, service: &str) -> Option<&Gate> {
        self.gates.iter().find(|gate| gate.service == service)
    }

    /// Services that are known because of their gates.
    pub(super) fn known_by_gate(&self) -> impl Iterator<Item = &str> {
        let kept = self.gates.iter().filter(|gate| gate.is_paused || gate.opens_at.is_some());
        let own = self.config.own_service_limits.keys();
        kept.map(|gate| gate.service.as_str()).chain(own.map(String::as_str))
    }

    /// Attempts of the service that workers hold.
    fn running(&self, service: &str) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter(move |task| task.holder.is_some() && task.service == service)
    }

    /// Whether nothing that may happen at this moment could close it.
    pub(super) fn is_open_for_sure(&self, service: &str) -> bool {
        let is_shut =
            self.gate_of(service).is_some_and(|gate| gate.is_paused || gate.opens_at.is_some());
        let max = self.limits_of(service).in_flight_max as usize;
        !is_shut && self.running(service).take(max).count() < max
    }

    /// Why no task of the service may be sent, if none may.
    pub(super) fn objection_to_service(&mut self, service: &str) -> Option<String> {
        let opens = self.gates.iter().position(|gate| gate.service == service);
        if let Some(due) = opens.map(|place| Due::Open(place as u32))
            && self.is_tick
            && self.may_happen(due)
        {
            self.happen(due);
        }
        let gate = self.gate_of(service);
        if gate.is_some_and(|gate| gate.is_paused) {
            return Some(format!("{service} is paused"));
        }
        if let Some(at) = gate.and_then(|gate| gate.opens_at) {
            return Some(format!("{service} has no token before {at}"));
        }
        let max = self.limits_of(service).in_flight_max as usize;
        // In a tick a worker may be gone before that is seen here.
        let stay = self.running(service).filter(|task| {
            let ends = task.holder.map(|holder| self.ends_of(holder)).unwrap_or_default();
            !(self.is_tick && ends.iter().any(|due| self.may_happen(*due)))
        });
        (stay.count() >= max).then(|| format!("{service} has {max} in flight already"))
    }

    /// A task of the service is sent.
    pub(super) fn take_token(&mut self, service: &str) {
        let Some(rate) = self.limits_of(service).rate else { return };
        let (interval, now) = (rate.interval.0, self.now);
        let place = self.gate_at(service);
        let gate = &mut self.gates[place];
        let filled = gate.level.saturating_add(now - gate.filled_at);
        gate.level = filled.min(full_level(interval, rate.burst));
        gate.filled_at = now;
        match gate.level.checked_sub(interval) {
            Some(left) => gate.level = left,
            None => return self.fail(format!("{service} is sent without a token")),
        }
        if gate.level < interval {
            gate.opens_at = Some(now + interval - gate.level);
        }
    }

    /// The broker looks again.
    pub(super) fn open_gate(&mut self, place: u32) {
        self.gates[place as usize].opens_at = None;
    }

    /// Whether a task may not come in because of its service, of whose waiting tasks so many have been
    /// sent after all.
    pub(super) fn is_past_service_limits(&self, service: &str, bytes: u64, sent: u32) -> bool {
        let limits = self.limits_of(service);
        let its = self.tasks.values().filter(|task| task.service == service);
        let its = its.filter(|task| task.follows.is_none());
        let unended = its.filter(|task| task.state != State::Ended);
        let (mut pending, mut held, mut count) = (0, 0, 0);
        for task in unended {
            pending += u32::from(task.state == State::Pending);
            held += task.bytes;
            count += 1;
        }
        pending - sent >= limits.pending_max || count > 0 && held + bytes > limits.bytes_max
    }

    /// What an operator's command does.
    pub(super) fn administer(
        &mut self,
        command: &AdminCommand<'_>,
        core: &Broker<Body>,
    ) -> Outcome {
        match command {
            AdminCommand::Pause(service) => self.pause(service, true),
            AdminCommand::Resume(service) => self.pause(service, false),
            AdminCommand::Purge(purge) => self.purge(purge),
            AdminCommand::Cancel { task, is_hard } => self.cancel_by_operator(*task, *is_hard),
            AdminCommand::Replay(page) => self.replay(page, core),
            AdminCommand::PurgeDead(page) => self.purge_dead(page),
            AdminCommand::Drain(target) => self.ask_to_leave(*target),
        }
    }

    fn pause(&mut self, service: &str, is_paused: bool) -> Outcome {
        // A service that nobody refers to may or may not have been forgotten.
        if !self.is_known_for_sure(service) {
            return Outcome::Either(AdminObjection::UnknownService);
        }
        let place = self.gate_at(service);
        let was_paused = std::mem::replace(&mut self.gates[place].is_paused, is_paused);
        Outcome::Is(Ok(match is_paused {
            true => AdminReply::Paused { was_paused },
            false => AdminReply::Resumed { was_paused },
        }))
    }

    /// A service that was known to nobody for sure was known to the broker after all.
    pub(super) fn pause_after_all(&mut self, command: &AdminCommand<'_>) {
        if let AdminCommand::Pause(service) = command {
            let place = self.gate_at(service);
            self.gates[place].is_paused = true;
        }
    }

    fn is_known_for_sure(&self, service: &str) -> bool {
        self.known().contains(&service)
    }

    /// Everything that waits, as long as it came in by then. Which places of its store a page covers
    /// only the broker knows: whoever is told, was there.
    fn purge(&mut self, purge: &Purge<'_>) -> Outcome {
        if !self.is_known_for_sure(purge.service) {
            return Outcome::Either(AdminObjection::UnknownService);
        }
        let upto = purge.upto.map_or(self.now, |at| at.0);
        let is_meant = |task: &&Task| {
            let is_there = task.id.is_some_and(|id| {
                let place = id.0 as u32;
                place >= purge.from && place - purge.from < purge.visits
            });
            let waits = matches!(task.state, State::Pending | State::Delayed(_))
                && task.service == purge.service;
            waits && is_there && task.received_at <= upto
        };
        let meant: Vec<Age> =
            self.tasks.iter().filter(|(_, task)| is_meant(task)).map(|(age, _)| *age).collect();
        let count = meant.len() as u64;
        for age in meant {
            self.end(age, Status::Cancelled);
        }
        Outcome::Purged { count, upto: Time(upto) }
    }

    fn cancel_by_operator(&mut self, id: TaskId, is_hard: bool) -> Outcome {
        let Some(age) = self.ids.get(&id).copied() else {
            return Outcome::Is(Err(AdminObjection::UnknownTask));
        };
        let Some(task) = self.tasks.get(&age) else {
            return Outcome::Is(Err(AdminObjection::UnknownTask));
        };
        Outcome::Is(match task.state {
            State::Pending | State::Delayed(_) => {
                self.end(age, Status::Cancelled);
                Ok(AdminReply::Cancelled)
            }
            State::InFlight => {
                self.stop_running(age, is_hard);
                Ok(AdminReply::Stopping)
            }
            State::Following => Err(AdminObjection::UnknownTask),
            State::Awaiting(_) => Err(AdminObjection::AwaitsEnd),
            State::Ended => Err(AdminObjection::HasEnded),
        })
    }

    fn ask_to_leave(&mut self, target: DrainTarget) -> Outcome {
        let conn = match target {
            DrainTarget::Peer(id) => self.conn_of_peer(id),
            DrainTarget::Slot(host, slot) => {
                let is_there = |worker: &&Worker| {
                    worker.is_placed && worker.host == Some(host) && worker.slot == slot
                };
                let workers = self.workers.values().filter(is_there);
                workers.max_by_key(|worker| worker.incarnation).map(|worker| worker.conn)
            }
        };
        Outcome::Is(match conn {
            None => Err(AdminObjection::UnknownPeer),
            Some(None) => Err(AdminObjection::NotConnected),
            Some(Some(conn)) => {
                self.expect(Expected::Sent(conn, Sent::Drain));
                Ok(AdminReply::Draining)
            }
        })
    }

    fn conn_of_peer(&self, id: PeerId) -> Option<Option<pinmesh_core::Conn>> {
        let worker = self.workers.values().find(|worker| worker.peer_id == id);
        worker.map(|worker| worker.conn).or_else(|| Some(self.hosts.get(&id)?.conn))
    }

    /// Compares what an operator was told with what is right.
    pub(super) fn check_reply(
        &mut self,
        command: &AdminCommand<'_>,
        right: &Outcome,
        real: &Result<AdminReply, AdminObjection>,
        effects: &[Effect],
    ) {
        let is_right = match (right, real) {
            (Outcome::Is(right), real) => right == real,
            (Outcome::Either(objection), Err(real)) => objection == real,
            (Outcome::Either(_), Ok(AdminReply::Purged { count: 0, .. })) => true,
            (Outcome::Either(_), Ok(AdminReply::Paused { was_paused: false })) => {
                self.pause_after_all(command);
                true
            }
            (Outcome::Either(_), Ok(AdminReply::Resumed { was_paused: false })) => true,
            (
                Outcome::Purged { count, upto },
                Ok(AdminReply::Purged { count: many, upto: by, .. }),
            ) => (count, upto) == (many, by),
            _ => false,
        };
        if !is_right {
            self.fail(format!("{command:?}: {real:?}, not {right:?}; {} effects", effects.len()));
        }
    }
}

/// What an operator is to be told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Is(Result<AdminReply, AdminObjection>),
    /// This, or that nothing was there to be done.
    Either(AdminObjection),
    Purged {
        count: u64,
        upto: Time,
    },
}

const fn full_level(interval: u64, burst: u32) -> u64 {
    interval.saturating_mul(burst as u64)
}
