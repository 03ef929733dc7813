//! What operators do to brokers in the midst of everything: pause and resume, purge, cancel, drain, and
//! look at dead letters, run them again or throw them away.

use pinmesh_core::{
    AdminCommand, AdminReply, DeadPage, DeadReason, DrainTarget, LetterId, LetterView, Purge,
    TaskStanding, TaskView,
};
use pinmesh_protocol::id::RequestId;

use crate::broker::BrokerSim;
use crate::checker::Checker;
use crate::clock::{MS, S};
use crate::counters::Count;
use crate::faults::Repair;
use crate::fleet::Fleet;
use crate::record::Recorder;
use crate::shape::SERVICES;
use crate::task::{Key, client_of};
use crate::world::World;

impl BrokerSim {
    /// One command of an operator, with everything that is checked about it. `None`: the broker is
    /// down or stopped.
    pub fn operate(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        command: AdminCommand<'_>,
    ) -> Option<AdminReply> {
        let now = self.local(world);
        let name = self.name();
        let life = self.life.as_mut().filter(|_| !self.is_stopped)?;
        for view in life.core.tasks().filter(|view| is_meant(view, &command)) {
            if let Some(id) = view.client_id {
                let request = RequestId(view.request_id.0);
                checker.on_operator_cancel(Key { client: client_of(id), request });
            }
        }
        let replayed = match command {
            AdminCommand::Replay(page) => life.core.letters_page(page).0,
            _ => Vec::new(),
        };
        let (reply, effects) = life.administer(now, command);
        for view in replayed.iter().filter(|view| life.core.letter(view.letter).is_none()) {
            checker.on_replay(key_of(view));
        }
        if let Err(text) = life.follow_operator(now, &command, &reply, &effects) {
            checker.fail(format!("epoch {}: {text}", life.epoch));
        }
        world.tell(|| format!("{name} is told {command:?}: {reply:?}"));
        checker.after_operator(world, (life.epoch, now.0), (&life.core, life.shell()), &effects);
        self.settle(world, checker);
        reply.ok()
    }
}

impl crate::broker::Life {
    fn administer(
        &mut self,
        now: pinmesh_core::Time,
        command: AdminCommand<'_>,
    ) -> (Result<AdminReply, pinmesh_core::AdminObjection>, Vec<crate::record::Effect>) {
        let mut effects = Vec::new();
        let (core, shell) = self.core_and_shell();
        let mut recorder = Recorder { effects: &mut effects, next: shell };
        let reply = core.administer(now, command, &mut recorder);
        (reply, effects)
    }
}

/// Whose request a dead letter is.
fn key_of(view: &LetterView) -> Key {
    Key { client: client_of(view.client_id), request: RequestId(view.request_id.0) }
}

/// Whether the command may end the task.
fn is_meant(view: &TaskView, command: &AdminCommand<'_>) -> bool {
    match command {
        AdminCommand::Cancel { task, .. } => view.task == *task,
        AdminCommand::Purge(_) => {
            matches!(view.standing, TaskStanding::Pending | TaskStanding::Delayed(_))
        }
        AdminCommand::Pause(_)
        | AdminCommand::Resume(_)
        | AdminCommand::Replay(_)
        | AdminCommand::PurgeDead(_)
        | AdminCommand::Drain(_) => false,
    }
}

impl Fleet {
    pub(crate) fn operator_fault(&mut self, fault: Count) -> bool {
        let up: Vec<_> = (0..self.brokers.len())
            .filter(|at| self.brokers[*at].life.is_some() && !self.brokers[*at].is_stopped)
            .collect();
        let Some(at) = self.pick(&up) else { return false };
        let service = SERVICES[self.world.random.below(SERVICES.len() as u64) as usize];
        match fault {
            Count::Pause => {
                if self.operate(at, AdminCommand::Pause(service)).is_none() {
                    return false;
                }
                let length = self.world.random.scale(10 * MS, 10 * S);
                let lives = self.brokers[at].lives;
                self.repair_after(length, Repair::Resume(at, lives, service));
                true
            }
            Count::Purge => self.purge(at, service),
            Count::OperatorCancel => self.cancel_some(at),
            Count::Replay | Count::DeadPurge => self.walk_letters(at, fault, service),
            _ => self.drain_some(at),
        }
    }

    pub(crate) fn operate(&mut self, at: usize, command: AdminCommand<'_>) -> Option<AdminReply> {
        self.brokers[at].operate(&mut self.world, &mut self.checker, command)
    }

    /// A broker that is stopped hears of it when it goes on.
    pub(crate) fn resume(&mut self, at: usize, life: u32, service: &'static str) {
        let broker = &self.brokers[at];
        if broker.lives != life || broker.life.is_none() {
            return;
        }
        if broker.is_stopped {
            return self.repair_after(100 * MS, Repair::Resume(at, life, service));
        }
        self.operate(at, AdminCommand::Resume(service));
    }

    /// Page by page, as an operator's purge is; others may act between two of them.
    fn purge(&mut self, at: usize, service: &str) -> bool {
        let visits = self.world.random.between(1, 200) as u32;
        let (mut from, mut upto, mut ended) = (0, None, 0);
        loop {
            let page = Purge { service, upto, from, visits };
            let reply = self.operate(at, AdminCommand::Purge(page));
            let Some(AdminReply::Purged { count, upto: by, next }) = reply else { return false };
            ended += count;
            upto = Some(by);
            match next {
                Some(next) => from = next,
                None => return ended > 0,
            }
        }
    }

    /// Page by page, among some of the dead letters; others may act between two pages.
    fn walk_letters(&mut self, at: usize, fault: Count, service: &str) -> bool {
        let reason = self.pick(&DeadReason::ALL).filter(|_| self.world.random.one_in(3));
        let mut page = DeadPage {
            service: self.world.random.one_in(3).then_some(service),
            reason,
            from: LetterId(0),
            upto: None,
            visits: self.world.random.between(1, 12) as u32,
        };
        let mut done = 0;
        loop {
            let Some(life) = &self.brokers[at].life else { return false };
            let (letters, following) = life.core.letters_page(page);
            self.world.counters.add_many(Count::DeadSeen, letters.len() as u64);
            let died_again = letters.iter().filter(|view| view.replay_of.is_some());
            self.world.counters.add_many(Count::ReplayDied, died_again.count() as u64);
            let command = match fault {
                Count::Replay => AdminCommand::Replay(page),
                _ => AdminCommand::PurgeDead(page),
            };
            let (count, upto, next) = match self.operate(at, command) {
                Some(AdminReply::Replayed { count, upto, next, .. }) => (count, upto, next),
                Some(AdminReply::DeadPurged { count, upto, next }) => (count, upto, next),
                _ => return false,
            };
            if next != following || count > letters.len() as u64 {
                self.checker.fail(format!("{page:?}: {count} and {next:?}, not {letters:?}"));
            }
            done += count;
            page.upto = Some(upto);
            match next {
                Some(next) => page.from = next,
                None => return done > 0,
            }
        }
    }

    fn cancel_some(&mut self, at: usize) -> bool {
        let Some(life) = &self.brokers[at].life else { return false };
        let unended: Vec<_> = life
            .core
            .tasks()
            .filter(|view| !matches!(view.standing, TaskStanding::Ended(_)))
            .map(|view| view.task)
            .collect();
        let is_hard = self.world.random.one_in(3);
        let Some(task) = self.pick(&unended) else { return false };
        self.operate(at, AdminCommand::Cancel { task, is_hard }).is_some()
    }

    /// A worker or a host is asked to leave; whoever takes its place comes later.
    fn drain_some(&mut self, at: usize) -> bool {
        let Some(life) = &self.brokers[at].life else { return false };
        let (workers, _) = life.core.workers_page(0, u32::MAX);
        let targets: Vec<_> = workers
            .iter()
            .map(|worker| match worker.host {
                Some(host) => DrainTarget::Slot(host, worker.slot),
                None => DrainTarget::Peer(worker.peer_id),
            })
            .collect();
        let up: Vec<_> = (0..self.hosts.len()).filter(|at| self.hosts[*at].is_up()).collect();
        self.checker.on_host_drain();
        if self.world.random.one_in(3)
            && let Some(host) = self.pick(&up)
        {
            let target = DrainTarget::Peer(self.hosts[host].around.peer_id());
            if self.operate(at, AdminCommand::Drain(target)).is_none() {
                return false;
            }
            let wait = self.world.random.scale(5 * S, 15 * S);
            self.repair_after(wait, Repair::StartHost(host, self.hosts[host].lives));
            return true;
        }
        let Some(target) = self.pick(&targets) else { return false };
        self.operate(at, AdminCommand::Drain(target)).is_some()
    }
}
