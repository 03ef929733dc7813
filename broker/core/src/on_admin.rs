//! What an operator does: pause, resume and purge a service, cancel a task, run dead letters
//! again or throw them away, ask peers to leave.

use pinmesh_protocol::command::FromBroker;
use pinmesh_protocol::id::{Incarnation, PeerId, Slot, TaskId};
use pinmesh_protocol::status::Status;

use crate::broker::Broker;
use crate::dead::{DeadPage, LetterId};
use crate::event::{Body, Conn};
use crate::outbox::Outbox;
use crate::session::Peer;
use crate::slab::{Key, TaskKey};
use crate::state::State;
use crate::task::{EndBody, TaskState};
use crate::time::Time;

/// What an operator asks of a broker. Draining the broker itself is [`Event::Drain`](crate::Event).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminCommand<'a> {
    /// Sends no more tasks of this service to workers; what was sent runs on, and new ones may come in.
    Pause(&'a str),
    /// Sends them again.
    Resume(&'a str),
    /// Ends the service's tasks that no worker has, CANCELLED.
    Purge(Purge<'a>),
    /// Ends one task if no worker has it, and otherwise asks its worker's supervisor to stop it.
    Cancel {
        /// The task.
        task: TaskId,
        /// Kill it instead of setting its flag.
        is_hard: bool,
    },
    /// Runs dead letters again.
    Replay(DeadPage<'a>),
    /// Throws dead letters away.
    PurgeDead(DeadPage<'a>),
    /// Asks peers to leave once they have finished what they hold.
    Drain(DrainTarget),
}

/// One page of a purge: so long a walk that the broker's loop is not held up by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purge<'a> {
    /// The service.
    pub service: &'a str,
    /// Tasks that came in later stay; `None`: tasks that come in after this page.
    pub upto: Option<Time>,
    /// Where in the store of tasks the page begins: 0, or what the page before gave.
    pub from: u32,
    /// How many places of the store it looks at.
    pub visits: u32,
}

/// Who is to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrainTarget {
    /// The supervisor or worker with this id. A supervisor drains all its workers.
    Peer(PeerId),
    /// The worker in a slot of a host. Its supervisor starts another one.
    Slot(PeerId, Slot),
}

/// What came of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminReply {
    /// The service is paused.
    Paused {
        /// It was before.
        was_paused: bool,
    },
    /// The service is not paused.
    Resumed {
        /// It was before.
        was_paused: bool,
    },
    /// A page of a purge.
    Purged {
        /// Tasks that were ended.
        count: u64,
        /// What came in later stays, in every page.
        upto: Time,
        /// Where the next page begins; `None`: this was the last one.
        next: Option<u32>,
    },
    /// A page of dead letters was run again.
    Replayed {
        /// Letters that became tasks.
        count: u64,
        /// Letters that stay, because there was no room for their tasks.
        busy: u64,
        /// The last number that any page goes to.
        upto: LetterId,
        /// Where the next page begins; `None`: this was the last one.
        next: Option<LetterId>,
    },
    /// A page of dead letters was thrown away.
    DeadPurged {
        /// How many of them were meant.
        count: u64,
        /// The last number that any page goes to.
        upto: LetterId,
        /// Where the next page begins; `None`: this was the last one.
        next: Option<LetterId>,
    },
    /// The task has ended, CANCELLED.
    Cancelled,
    /// The task is with a worker, whose supervisor was asked to stop it.
    Stopping,
    /// The peer was asked to leave.
    Draining,
}

/// Why a command did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminObjection {
    /// No task, worker or alias refers to such a service.
    UnknownService,
    /// There is no such task, or no more.
    UnknownTask,
    /// The task has its outcome.
    HasEnded,
    /// Its worker is gone, and its end is waited for.
    AwaitsEnd,
    /// There is no such worker or supervisor.
    UnknownPeer,
    /// It has no session: it cannot be told anything.
    NotConnected,
}

impl<B: Body> Broker<B> {
    /// One command of an operator, and everything that it causes. `now` never goes back.
    ///
    /// # Errors
    /// Why nothing was done.
    pub fn administer(
        &mut self,
        now: Time,
        command: AdminCommand<'_>,
        out: &mut impl Outbox<B>,
    ) -> Result<AdminReply, AdminObjection> {
        let state = &mut self.state;
        state.now = state.now.max(now);
        let reply = match command {
            AdminCommand::Pause(service) => state.pause(service, true, out),
            AdminCommand::Resume(service) => state.pause(service, false, out),
            AdminCommand::Purge(purge) => state.purge(purge, out),
            AdminCommand::Cancel { task, is_hard } => state.cancel_by_operator(task, is_hard, out),
            AdminCommand::Replay(page) => Ok(state.replay(page, out)),
            AdminCommand::PurgeDead(page) => Ok(state.purge_dead(page)),
            AdminCommand::Drain(target) => state.ask_to_leave(target, out),
        };
        state.dispatch_opened(out);
        reply
    }
}

impl<B: Body> State<B> {
    fn pause(
        &mut self,
        service: &str,
        is_paused: bool,
        out: &mut impl Outbox<B>,
    ) -> Result<AdminReply, AdminObjection> {
        let key = self.services.named(service).ok_or(AdminObjection::UnknownService)?;
        let was_paused = self.set_paused(key, is_paused, out);
        Ok(match is_paused {
            true => AdminReply::Paused { was_paused },
            false => AdminReply::Resumed { was_paused },
        })
    }

    fn purge(
        &mut self,
        purge: Purge<'_>,
        out: &mut impl Outbox<B>,
    ) -> Result<AdminReply, AdminObjection> {
        let service = self.services.named(purge.service).ok_or(AdminObjection::UnknownService)?;
        let upto = purge.upto.unwrap_or(self.now);
        let (page, next) = self.tasks.page(purge.from, purge.visits);
        let is_meant = |(_, task): &(TaskKey, &crate::task::Task<B>)| {
            let waits = matches!(task.state, TaskState::Pending | TaskState::Delayed);
            task.service == service && waits && task.received_at <= upto
        };
        let keys: alloc::vec::Vec<TaskKey> = page.filter(is_meant).map(|(key, _)| key).collect();
        let count = keys.len() as u64;
        for key in keys {
            let text = EndBody::Fixed("purged by an operator before it was started");
            self.finish(key, Status::Cancelled, None, text, out);
        }
        Ok(AdminReply::Purged { count, upto, next })
    }

    fn purge_dead(&mut self, page: DeadPage<'_>) -> AdminReply {
        let upto = self.dead.upto(&page);
        let (letters, next) = self.dead.page(page);
        let meant: alloc::vec::Vec<LetterId> = letters.map(|(id, _)| id).collect();
        let count = meant.len() as u64;
        for letter in meant {
            self.dead.remove(letter);
        }
        self.ledger.dead_held -= count;
        self.ledger.dead_purged += count;
        AdminReply::DeadPurged { count, upto, next }
    }

    fn cancel_by_operator(
        &mut self,
        task: TaskId,
        is_hard: bool,
        out: &mut impl Outbox<B>,
    ) -> Result<AdminReply, AdminObjection> {
        let key = TaskKey::from_bits(task.0);
        let task = self.tasks.get(key).ok_or(AdminObjection::UnknownTask)?;
        match task.state {
            TaskState::Pending | TaskState::Delayed => {
                let text = EndBody::Fixed("cancelled by an operator before it was started");
                self.finish(key, Status::Cancelled, None, text, out);
                Ok(AdminReply::Cancelled)
            }
            TaskState::InFlight => {
                self.stop_running(key, is_hard, out);
                Ok(AdminReply::Stopping)
            }
            TaskState::Following(_) => Err(AdminObjection::UnknownTask),
            TaskState::AwaitingEnd => Err(AdminObjection::AwaitsEnd),
            TaskState::Ended => Err(AdminObjection::HasEnded),
        }
    }

    fn ask_to_leave(
        &mut self,
        target: DrainTarget,
        out: &mut impl Outbox<B>,
    ) -> Result<AdminReply, AdminObjection> {
        let conn = self.conn_of_target(target)?.ok_or(AdminObjection::NotConnected)?;
        out.send(conn, FromBroker::Drain);
        Ok(AdminReply::Draining)
    }

    /// Its socket; `None`: it has none.
    fn conn_of_target(&self, target: DrainTarget) -> Result<Option<Conn>, AdminObjection> {
        match target {
            DrainTarget::Peer(peer) => match self.peers.get(&peer) {
                Some(Peer::Worker(key)) => Ok(self.workers.at(key.index()).conn),
                Some(Peer::Host(key)) => Ok(self.hosts.at(key.index()).conn),
                Some(Peer::Client(_)) | None => Err(AdminObjection::UnknownPeer),
            },
            DrainTarget::Slot(host, slot) => {
                let first = (host, slot, Incarnation(0));
                let lives = self.places.range(first..=(host, slot, Incarnation(u32::MAX)));
                let key = lives.last().map(|(_, key)| *key).ok_or(AdminObjection::UnknownPeer)?;
                Ok(self.workers.at(key.index()).conn)
            }
        }
    }
}
