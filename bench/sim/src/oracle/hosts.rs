//! What supervisors do: HOST, LOST, RECALLED, and keeping their lease.

use std::collections::BTreeMap;

use pinmesh_core::Conn;
use pinmesh_protocol::command::{Attempts, Host as HostCommand, Lost};
use pinmesh_protocol::id::{AttemptId, Incarnation, PeerId, Slot};
use pinmesh_protocol::limits::WORKERS_MAX;
use pinmesh_protocol::status::RefusedCode;

use super::book::{Who, WorkerNo};
use super::{Expected, Oracle, Piece};

/// A task is never late before that, nanoseconds.
const RECALL_MIN: u64 = 5_000_000;

impl Oracle {
    /// The host of a session; a session of anybody else is refused.
    fn host_of(&mut self, conn: Conn) -> Option<PeerId> {
        match self.sessions.get(&conn)?.who {
            Who::Host(id) => Some(id),
            Who::Client(_) | Who::Worker(_) => {
                self.refuse_session(conn, RefusedCode::NotAllowed);
                None
            }
        }
    }

    /// HOST lists the workers that are alive: earlier lives of their slots are gone. So is a worker
    /// that is not listed, unless it has a session or came after this supervisor's HELLO.
    pub(super) fn on_host(&mut self, conn: Conn, command: &HostCommand) {
        let Some(id) = self.host_of(conn) else { return };
        let mut alive: BTreeMap<Slot, Incarnation> = BTreeMap::new();
        for worker in &command.workers {
            alive.insert(worker.slot, worker.incarnation);
            if worker.incarnation.0 > 0
                && !self.note_gone(id, worker.slot, Incarnation(worker.incarnation.0 - 1))
            {
                return self.refuse_session(conn, RefusedCode::TooLarge);
            }
        }
        let hello_at = self.hosts[&id].hello_at;
        let mut gone = self.workers_of(id);
        gone.retain(|number| {
            let worker = &self.workers[number];
            match alive.get(&worker.slot) {
                Some(incarnation) => *incarnation > worker.incarnation,
                None => worker.conn.is_none() && worker.ready_at < hello_at,
            }
        });
        self.lose_workers(gone);
        let was_listed = self
            .hosts
            .get_mut(&id)
            .is_some_and(|host| std::mem::replace(&mut host.is_listed, true));
        self.pieces.push_back(Piece::Lease(id));
        for attempt in command.workers.iter().flat_map(|worker| &worker.claimed) {
            self.stop_superseded(*attempt);
        }
        if !was_listed {
            for number in self.workers_of(id) {
                self.cancel_again(number);
            }
        }
    }

    /// Nothing of a process that is gone counts any more. `false`: too many slots.
    fn note_gone(&mut self, id: PeerId, slot: Slot, incarnation: Incarnation) -> bool {
        let Some(host) = self.hosts.get_mut(&id) else { return false };
        if host.gone.len() >= WORKERS_MAX && !host.gone.contains_key(&slot) {
            return false;
        }
        let gone = host.gone.entry(slot).or_default();
        *gone = (*gone).max(incarnation);
        true
    }

    pub(super) fn on_lost(&mut self, conn: Conn, lost: &Lost) {
        let Some(id) = self.host_of(conn) else { return };
        self.count_end(conn, 0);
        if !self.note_gone(id, lost.slot, lost.incarnation) {
            return self.refuse_session(conn, RefusedCode::TooLarge);
        }
        let is_it = |number: &WorkerNo| {
            let worker = &self.workers[number];
            (worker.slot, worker.incarnation) == (lost.slot, lost.incarnation)
        };
        let Some(number) = self.workers_of(id).into_iter().find(is_it) else { return };
        self.bury(number);
        for age in self.workers[&number].holds.clone() {
            let attempt = self.tasks[&age].attempt;
            if lost.running == Some(attempt) {
                self.lose_running(age, (lost.cause, lost.detail));
            } else if lost.started.contains(&attempt) {
                self.lose_started(age);
            } else {
                self.requeue(age);
            }
        }
        self.forget_worker(number);
    }

    pub(super) fn on_recalled(&mut self, conn: Conn, recalled: &Attempts) {
        if let Who::Client(_) = self.sessions[&conn].who {
            return self.refuse_session(conn, RefusedCode::NotAllowed);
        }
        self.count_end(conn, 0);
        let pieces = recalled.attempts.iter().map(|attempt| Piece::Recalled(conn, *attempt));
        self.pieces.extend(pieces);
    }

    /// RECALL: of a worker whose first task takes long, to its supervisor, for what is behind that.
    pub(super) fn on_recall(&mut self, to: Conn, recall: &Attempts) -> Result<(), String> {
        let Some(Who::Host(id)) = self.sessions.get(&to).map(|session| session.who) else {
            return Err(format!("RECALL to {to:?}, who is no supervisor"));
        };
        // The slot may have its next process already, of which the supervisor has yet to tell.
        let is_it = |number: &WorkerNo| {
            let worker = &self.workers[number];
            let mut holds = worker.holds.iter().map(|age| &self.tasks[age].attempt);
            worker.slot == recall.slot && holds.any(|held| Some(held) == recall.attempts.first())
        };
        let Some(number) = self.workers_of(id).into_iter().find(is_it) else {
            return Err(format!("RECALL of a worker that is not there: {recall:?}"));
        };
        let holds = &self.workers[&number].holds;
        let behind: Vec<_> = holds.iter().skip(1).map(|age| self.tasks[age].attempt).collect();
        let is_late = holds
            .first()
            .is_some_and(|age| self.tasks[age].sent_at.saturating_add(RECALL_MIN) <= self.now);
        if behind != recall.attempts || behind.is_empty() || !is_late || !self.is_tick {
            return Err(format!("RECALL {:?}; behind the first: {behind:?}", recall.attempts));
        }
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.is_recalled = true;
        }
        Ok(())
    }

    /// One of the attempts that are given back: by the worker that holds it, or by its supervisor.
    pub(super) fn take_recalled(&mut self, conn: Conn, attempt: AttemptId) {
        let Some(who) = self.sessions.get(&conn).map(|session| session.who) else { return };
        let held = |age: &u64| self.tasks[age].holder.is_some();
        let Some(age) = self.task_of(attempt).filter(held) else {
            self.ledger.stale_ends += 1;
            return self.recall_inherited(who, attempt);
        };
        let holder =
            self.tasks[&age].holder.and_then(|number| Some((number, self.workers.get(&number)?)));
        let is_its = match (who, holder) {
            (Who::Worker(sender), Some((number, _))) => sender == number,
            (Who::Host(id), Some((_, worker))) => worker.host == Some(id),
            _ => false,
        };
        match is_its {
            true => self.give_back(age),
            false => self.ledger.foreign_ends += 1,
        }
    }

    /// A heartbeat was echoed, or HOST was said: the lease runs anew, counted from now here. There
    /// is one only once HOST was said.
    pub(super) fn renew_lease(&mut self, id: PeerId) {
        let Some(host) = self.hosts.get_mut(&id) else { return };
        host.echoed_at = self.now;
        if host.is_listed && !host.has_lease {
            host.has_lease = true;
            for worker in self.workers.values_mut().filter(|worker| worker.host == Some(id)) {
                worker.is_passed_over = false;
            }
        }
    }

    /// Nothing of the host runs any more: it said so, or its lease ended long enough ago.
    pub(super) fn lose_host(&mut self, id: PeerId) {
        self.hosts_lost.push(id);
        if let Some(conn) = self.hosts.get(&id).and_then(|host| host.conn) {
            self.end_session(conn);
            self.expect(Expected::Close(conn));
        }
        let gone = self.workers_of(id);
        self.lose_workers(gone);
        self.hosts.remove(&id);
    }

    /// None of them is to be sent what another one held.
    fn lose_workers(&mut self, gone: Vec<WorkerNo>) {
        for number in gone {
            self.bury(number);
            self.pieces.push_back(Piece::Gone(number));
        }
    }

    /// The workers of a host that are not gone, by their places.
    fn workers_of(&self, id: PeerId) -> Vec<WorkerNo> {
        let placed = self.workers.iter().filter(|(_, worker)| worker.is_placed);
        let of_host = placed.filter(|(_, worker)| worker.host == Some(id));
        let mut numbers: Vec<WorkerNo> = of_host.map(|(number, _)| *number).collect();
        numbers.sort_by_key(|number| {
            let worker = &self.workers[number];
            (worker.slot, worker.incarnation)
        });
        numbers
    }
}
