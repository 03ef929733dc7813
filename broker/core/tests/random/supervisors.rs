//! Supervisors that report losses and keep the lease of their host.

use pinmesh_core::Time;
use pinmesh_protocol::command::Lost;
use pinmesh_protocol::id::{Incarnation, PeerId, Slot};
use pinmesh_protocol::status::{LossKind, Role};

use super::world::{Owner, Up, World, is_end_of_session};
use crate::support::{Effect, Sent};

pub(crate) struct Supervisor {
    pub(crate) number: u8,
    pub(crate) link: Option<usize>,
    pub(crate) is_welcomed: bool,
    losses: Vec<Lost>,
    /// Losses of this session, as they were sent.
    pub(crate) log: Vec<(Slot, Incarnation)>,
    /// When the latest heartbeat that the broker has echoed was sent.
    heard_at: Time,
    pub(crate) beats: Vec<(u64, Time)>,
}

impl Supervisor {
    pub(crate) fn new(place: usize) -> Self {
        Self {
            number: 100 + place as u8,
            link: None,
            is_welcomed: false,
            losses: Vec::new(),
            log: Vec::new(),
            heard_at: Time(0),
            beats: Vec::new(),
        }
    }

    pub(crate) fn is_welcomed_on(&self, link: usize) -> bool {
        self.is_welcomed && self.link == Some(link)
    }
}

impl World {
    pub(crate) fn act_supervisor(&mut self) {
        let at = self.choice.below(self.supervisors.len());
        if self.supervisors[at].link.is_none() {
            self.connect_supervisor(at);
        } else if self.choice.one_in(8) {
            let supervisor = &mut self.supervisors[at];
            supervisor.is_welcomed = false;
            if let Some(link) = supervisor.link.take() {
                self.cut(link);
            }
        } else if self.choice.one_in(4) && self.supervisors[at].is_welcomed {
            self.say_host(at);
        }
    }

    pub(crate) fn connect_supervisor(&mut self, at: usize) {
        let peer_id = PeerId([self.supervisors[at].number; 16]);
        let link = self.open(Owner::Supervisor(at), Role::Supervisor, peer_id);
        let now = self.sim.now;
        let supervisor = &mut self.supervisors[at];
        supervisor.link = Some(link);
        supervisor.is_welcomed = false;
        supervisor.beats = vec![(0, now)];
    }

    pub(crate) fn say_lost(&mut self, at: usize, lost: Lost) {
        let supervisor = &mut self.supervisors[at];
        supervisor.losses.push(lost.clone());
        if supervisor.is_welcomed {
            supervisor.log.push((lost.slot, lost.incarnation));
            let link = supervisor.link;
            self.say(link, Up::Lost(lost));
        }
    }

    fn say_host(&mut self, at: usize) {
        let own = self.workers.iter().filter(|worker| worker.supervisor == Some(at));
        let alive = own.filter(|worker| worker.is_alive);
        let list = alive.map(|worker| (worker.slot, worker.incarnation)).collect();
        self.say(self.supervisors[at].link, Up::Host(list));
    }

    /// A supervisor that has not heard from the broker for a lease kills its workers, idle ones too:
    /// a task may be on its way to them. (Real ones start nothing outside the lease.)
    pub(crate) fn end_leases(&mut self) {
        for at in 0..self.supervisors.len() {
            let silent = self.sim.now.since(self.supervisors[at].heard_at);
            if silent < self.sim.config.lease {
                continue;
            }
            for worker in self.living() {
                let may_run = &self.workers[worker];
                let may_run = may_run.link.is_some() || !may_run.holds.is_empty();
                if self.workers[worker].supervisor == Some(at) && may_run {
                    self.crash(worker, LossKind::LeaseEnded);
                }
            }
        }
    }

    pub(crate) fn supervisor_hears(&mut self, at: usize, link: usize, effect: Effect) {
        let supervisor = &mut self.supervisors[at];
        if supervisor.link != Some(link) {
            return;
        }
        if is_end_of_session(&effect) {
            (supervisor.link, supervisor.is_welcomed) = (None, false);
            return self.cut(link);
        }
        let Effect::Send { command, .. } = effect else { return };
        match command {
            Sent::Welcome(_) => {
                supervisor.is_welcomed = true;
                supervisor.heard_at = supervisor.heard_at.max(supervisor.beats[0].1);
                supervisor.log.clear();
                for lost in supervisor.losses.clone() {
                    self.supervisors[at].log.push((lost.slot, lost.incarnation));
                    self.say(Some(link), Up::Lost(lost));
                }
                self.say_host(at);
            }
            Sent::Heartbeat(echo) => {
                let sent = supervisor.beats.iter().find(|beat| beat.0 == echo.sequence);
                if let Some((_, sent_at)) = sent {
                    supervisor.heard_at = supervisor.heard_at.max(*sent_at);
                }
            }
            Sent::Ack(count) => {
                let taken = supervisor.log[..count as usize].to_vec();
                supervisor.losses.retain(|lost| !taken.contains(&(lost.slot, lost.incarnation)));
            }
            Sent::Cancel(cancel) => {
                let target = self.workers.iter().position(|worker| {
                    worker.is_alive && worker.supervisor == Some(at) && worker.slot == cancel.slot.0
                });
                if let Some(worker) = target {
                    self.cancelled(worker, &cancel);
                }
            }
            _ => {}
        }
    }
}
