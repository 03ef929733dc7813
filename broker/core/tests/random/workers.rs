//! Workers that work, crash, and lose their links.

use pinmesh_protocol::command::{CancelAttempt, Lost};
use pinmesh_protocol::id::{AttemptId, Incarnation, PeerId, Slot};
use pinmesh_protocol::status::{EndStatus, HeldState, LossKind, Role};

use super::world::{Owner, SERVICES, Up, World, is_end_of_session, name};
use crate::support::{Effect, Greeting, Sent, TaskSent, held};

const WINDOW: u32 = 6;

#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) task: TaskSent,
    is_claimed: bool,
}

/// An end that is not acknowledged.
#[derive(Clone, Debug)]
enum End {
    Done(TaskSent, EndStatus, u64),
    Return(TaskSent),
}

impl End {
    fn task(&self) -> &TaskSent {
        match self {
            Self::Done(task, ..) | Self::Return(task) => task,
        }
    }

    fn command(&self) -> Up {
        match self {
            Self::Done(task, status, output) => Up::Done(*task, *status, *output),
            Self::Return(task) => Up::Return(*task),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Worker {
    peer_id: PeerId,
    pub(crate) supervisor: Option<usize>,
    pub(crate) slot: u16,
    pub(crate) incarnation: u32,
    pub(crate) link: Option<usize>,
    pub(crate) is_welcomed: bool,
    pub(crate) is_alive: bool,
    /// Its READY has been taken, as far as the broker's TASKs show, in this session.
    pub(crate) is_settled: bool,
    pub(crate) holds: Vec<Hold>,
    ends: Vec<End>,
    /// Attempts of the ends of this session, as they were sent.
    log: Vec<AttemptId>,
    services: Vec<&'static str>,
}

impl Worker {
    pub(crate) fn is_welcomed_on(&self, link: usize) -> bool {
        self.is_alive && self.is_welcomed && self.link == Some(link)
    }
}

impl World {
    pub(crate) fn spawn_worker(&mut self, supervisor: Option<usize>, slot: u16, incarnation: u32) {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&(self.workers.len() as u64).to_be_bytes());
        let first = usize::from(slot) + supervisor.unwrap_or(2);
        let services = (0..2).map(|step| SERVICES[(first + step) % SERVICES.len()]).collect();
        self.workers.push(Worker {
            peer_id: PeerId(id),
            supervisor,
            slot,
            incarnation,
            link: None,
            is_welcomed: false,
            is_alive: true,
            is_settled: false,
            holds: Vec::new(),
            ends: Vec::new(),
            log: Vec::new(),
            services,
        });
    }

    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.workers.len()).filter(|at| self.workers[*at].is_alive).collect()
    }

    pub(crate) fn act_worker(&mut self) {
        let living = self.living();
        if living.is_empty() || self.choice.one_in(30) {
            return self.respawn();
        }
        let at = living[self.choice.below(living.len())];
        if self.workers[at].link.is_none() {
            return self.connect_worker(at);
        }
        match self.choice.below(200) {
            0..80 => self.claim(at),
            80..170 => self.finish_one(at),
            170..176 => self.return_one(at),
            176..180 => self.repeat_end(at),
            180..182 => self.steal(at),
            182..190 => self.leave_worker(at),
            190..192 => self.goodbye_worker(at),
            192..195 => self.crash(at, LossKind::MaxRuntime),
            _ => self.crash(at, LossKind::Signalled),
        }
    }

    pub(crate) fn heal_fleet(&mut self) {
        while !self.vacant.is_empty() {
            self.respawn();
        }
        for at in 0..self.supervisors.len() {
            if self.supervisors[at].link.is_none() {
                self.connect_supervisor(at);
            }
        }
        for at in self.living() {
            if self.workers[at].link.is_none() {
                self.connect_worker(at);
            }
            while !self.workers[at].holds.is_empty() {
                self.claim(at);
                self.finish_one(at);
            }
        }
    }

    fn connect_worker(&mut self, at: usize) {
        let peer_id = self.workers[at].peer_id;
        let link = self.open(Owner::Worker(at), Role::Worker, peer_id);
        let worker = &mut self.workers[at];
        worker.link = Some(link);
        (worker.is_welcomed, worker.is_settled) = (false, false);
    }

    fn leave_worker(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        (worker.is_welcomed, worker.is_settled) = (false, false);
        if let Some(link) = worker.link.take() {
            self.cut(link);
        }
    }

    fn claim(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if let Some(first) = worker.holds.first_mut().filter(|hold| !hold.is_claimed) {
            first.is_claimed = true;
            let task = first.task;
            self.oracle.on_start(&task, self.is_at_most_once(&task));
        }
    }

    fn is_at_most_once(&self, task: &TaskSent) -> bool {
        self.clients.iter().any(|client| client.has_at_most_once(&task.head))
    }

    fn finish_one(&mut self, at: usize) {
        if self.workers[at].holds.first().is_some_and(|hold| hold.is_claimed) {
            let task = self.workers[at].holds.remove(0).task;
            let is_ok = !self.choice.one_in(6);
            let status = if is_ok { EndStatus::Ok } else { EndStatus::Failed };
            self.end(at, task, status);
        }
    }

    fn end(&mut self, at: usize, task: TaskSent, status: EndStatus) {
        let output = self.oracle.output(&task);
        self.say_end(at, End::Done(task, status, output));
    }

    fn say_end(&mut self, at: usize, end: End) {
        let worker = &mut self.workers[at];
        worker.ends.push(end.clone());
        if worker.is_welcomed {
            worker.log.push(name(end.task()));
            let link = worker.link;
            self.say(link, end.command());
        }
    }

    fn return_one(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if let Some(place) = worker.holds.iter().rposition(|hold| !hold.is_claimed) {
            let task = worker.holds.remove(place).task;
            self.say_end(at, End::Return(task));
        }
    }

    /// An end that is said twice in one session.
    fn repeat_end(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if let Some(end) = worker.ends.last().cloned().filter(|_| worker.is_welcomed) {
            worker.log.push(name(end.task()));
            let link = worker.link;
            self.say(link, end.command());
        }
    }

    /// An end of an attempt that another worker has. Its output must never be seen.
    fn steal(&mut self, at: usize) {
        let others = self.workers.iter().enumerate().filter(|(other, _)| *other != at);
        let victim = others.flat_map(|(_, worker)| &worker.holds).next().map(|hold| hold.task);
        let worker = &mut self.workers[at];
        if let Some(task) = victim.filter(|_| worker.is_welcomed) {
            worker.log.push(name(&task));
            let link = worker.link;
            self.say(link, Up::Done(task, EndStatus::Ok, 0));
        }
    }

    fn goodbye_worker(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if worker.supervisor.is_some() || !worker.is_welcomed || !worker.holds.is_empty() {
            return;
        }
        let slot = worker.slot;
        worker.is_alive = false;
        let link = worker.link;
        self.say(link, Up::Goodbye);
        self.vacant.push((None, slot, 1));
    }

    /// The process ends. What it said may still arrive; its supervisor says LOST and starts another.
    pub(crate) fn crash(&mut self, at: usize, cause: LossKind) {
        let worker = &mut self.workers[at];
        worker.is_alive = false;
        let running = worker.holds.first().filter(|hold| hold.is_claimed).map(|hold| hold.task);
        let done = worker.ends.iter().filter(|end| matches!(end, End::Done(..)));
        let started = done.map(|end| name(end.task())).collect();
        let (slot, incarnation) = (worker.slot, worker.incarnation);
        let link = worker.link.take();
        let supervisor = worker.supervisor;
        if let Some(at) = supervisor {
            let running = running.as_ref().map(name);
            let lost = Lost {
                slot: Slot(slot),
                incarnation: Incarnation(incarnation),
                cause,
                detail: 11,
                running,
                started,
            };
            self.say_lost(at, lost);
        }
        if let Some(link) = link {
            self.cut(link);
        }
        self.vacant.push((supervisor, slot, incarnation + 1));
    }

    /// Starts a process in one of the slots that have none.
    fn respawn(&mut self) {
        let which = self.choice.below(self.vacant.len());
        if !self.vacant.is_empty() {
            let (supervisor, slot, incarnation) = self.vacant.swap_remove(which);
            self.spawn_worker(supervisor, slot, incarnation);
        }
    }

    pub(crate) fn worker_hears(&mut self, at: usize, link: usize, effect: Effect) {
        let worker = &mut self.workers[at];
        if worker.link != Some(link) || !worker.is_alive {
            return;
        }
        if is_end_of_session(&effect) {
            worker.link = None;
            (worker.is_welcomed, worker.is_settled) = (false, false);
            return self.cut(link);
        }
        match effect {
            Effect::Send { command: Sent::Welcome(_), .. } => self.worker_welcomed(at, link),
            Effect::Send { command: Sent::Ack(count), .. } => {
                let taken = worker.log[..count as usize].to_vec();
                worker.ends.retain(|end| !taken.contains(&name(end.task())));
            }
            Effect::Send { command: Sent::Cancel(cancel), .. } => self.cancelled(at, &cancel),
            Effect::Task(task) => {
                worker.is_settled = true;
                worker.holds.push(Hold { task, is_claimed: false });
            }
            _ => {}
        }
    }

    /// READY with all that it holds, in one part or in two, and the ends of earlier sessions.
    fn worker_welcomed(&mut self, at: usize, link: usize) {
        let parts = 1 + u32::from(self.choice.one_in(3));
        let worker = &mut self.workers[at];
        worker.is_welcomed = true;
        let running = worker.holds.iter().map(|hold| {
            let is_claimed = hold.is_claimed;
            held(&hold.task, if is_claimed { HeldState::Claimed } else { HeldState::Waiting })
        });
        let ended = worker.ends.iter().map(|end| held(end.task(), HeldState::Ended));
        let mut list: Vec<_> = running.chain(ended).collect();
        let rest = if parts == 2 { list.split_off(list.len() / 2) } else { Vec::new() };
        let first = Greeting {
            host: worker.supervisor.map(|at| self.supervisors[at].number),
            slot: worker.slot,
            incarnation: worker.incarnation,
            labels: Vec::new(),
            services: worker.services.clone(),
            window_tasks: WINDOW,
            window_bytes: 2_000,
            held: list,
            part: 0,
            parts,
        };
        worker.log = worker.ends.iter().map(|end| name(end.task())).collect();
        let ends = worker.ends.clone();
        self.say(Some(link), Up::Ready(first.clone()));
        if parts == 2 {
            self.say(Some(link), Up::Ready(Greeting { held: rest, part: 1, ..first }));
        }
        for end in ends {
            self.say(Some(link), end.command());
        }
    }

    /// CANCEL: hard kills the attempt, soft asks it; a handler may look or not.
    pub(crate) fn cancelled(&mut self, at: usize, cancel: &CancelAttempt) {
        let holds = &self.workers[at].holds;
        let Some(place) = holds.iter().position(|hold| name(&hold.task) == cancel.attempt) else {
            return;
        };
        let (is_claimed, task) = (holds[place].is_claimed, holds[place].task);
        if cancel.is_hard {
            self.workers[at].holds.remove(place);
        } else if !is_claimed && self.choice.one_in(2) {
            self.workers[at].holds.remove(place);
            match self.workers[at].supervisor.and_then(|at| self.supervisors[at].link) {
                Some(link) if self.choice.one_in(2) => self.recall(at, link, task),
                _ => self.say_end(at, End::Return(task)),
            }
        } else if self.choice.one_in(2) {
            self.workers[at].holds.remove(place);
            self.end(at, task, EndStatus::Cancelled);
        }
    }

    /// RECALLED through the supervisor. It is not kept, so the worker says RETURN as well.
    fn recall(&mut self, at: usize, link: usize, task: TaskSent) {
        if let Some(supervisor) = self.workers[at].supervisor
            && self.supervisors[supervisor].is_welcomed
        {
            self.supervisors[supervisor].log.push((Slot(u16::MAX), Incarnation(0)));
            self.say(Some(link), Up::Recalled(task));
        }
        self.say_end(at, End::Return(task));
    }
}
