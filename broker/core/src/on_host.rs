//! What supervisors do: HOST, LOST, RECALLED, and keeping their lease.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use pinmesh_protocol::command::{Attempts, Host as HostCommand, Lost};
use pinmesh_protocol::id::{Incarnation, PeerId, Slot};
use pinmesh_protocol::status::RefusedCode;

use crate::event::{Body, Conn};
use crate::outbox::Outbox;
use crate::retry::Loss;
use crate::session::Peer;
use crate::slab::{HostKey, Key, TimerKey, WorkerKey};
use crate::state::{State, Wake};
use crate::worker::{Host, Place};

const TOO_MANY_SLOTS: &str = "HOST, LOST: a host has at most 1024 slots; use those of before again";

impl<B: Body> State<B> {
    pub(crate) fn add_host(&mut self, peer_id: PeerId, name: &str) -> HostKey {
        let host = Host {
            peer_id,
            name: name.into(),
            cpus: BTreeMap::new(),
            conn: None,
            echoed_at: self.now,
            has_lease: false,
            is_listed: false,
            turn: 0,
            gone: BTreeMap::new(),
            timer: TimerKey(u64::MAX),
        };
        let key = self.hosts.insert(host);
        self.watch_host(key);
        key
    }

    pub(crate) fn on_host(&mut self, conn: Conn, command: &HostCommand, out: &mut impl Outbox<B>) {
        let Some(key) = self.host_of(conn, "HOST", out) else { return };
        let host = self.hosts.at_mut(key.index());
        let is_first = !core::mem::replace(&mut host.is_listed, true);
        host.cpus =
            command.workers.iter().filter_map(|worker| Some((worker.slot, worker.cpu?))).collect();
        let mut alive: BTreeMap<Slot, Incarnation> = BTreeMap::new();
        for worker in &command.workers {
            alive.insert(worker.slot, worker.incarnation);
            let before = worker.incarnation.0.checked_sub(1).map(Incarnation);
            if before.is_some_and(|before| !host.note_gone(worker.slot, before)) {
                return self.refuse_session(conn, RefusedCode::TooLarge, TOO_MANY_SLOTS, out);
            }
        }
        let (peer_id, host_turn) = (host.peer_id, host.turn);
        let mut gone = self.workers_of(peer_id);
        gone.retain(|(place, worker)| {
            // A worker that is not listed may have been started after HOST was written, unless its
            // READY came before the HELLO of this session. LOST tells of the end of a later one.
            match alive.get(&place.1) {
                Some(incarnation) => *incarnation > place.2,
                None => {
                    let worker = self.workers.at(worker.index());
                    worker.conn.is_none() && worker.turn < host_turn
                }
            }
        });
        self.workers_gone(&gone, out);
        self.renew_lease(key, out);
        for attempt in command.workers.iter().flat_map(|worker| &worker.claimed) {
            self.stop_superseded(*attempt, out);
        }
        if is_first {
            for (_, worker) in self.workers_of(peer_id) {
                self.repeat_cancels(worker, out);
            }
        }
    }

    pub(crate) fn on_lost(&mut self, conn: Conn, lost: &Lost, out: &mut impl Outbox<B>) {
        let Some(key) = self.host_of(conn, "LOST", out) else { return };
        self.count_end(conn);
        let host = self.hosts.at_mut(key.index());
        if !host.note_gone(lost.slot, lost.incarnation) {
            return self.refuse_session(conn, RefusedCode::TooLarge, TOO_MANY_SLOTS, out);
        }
        let place = (host.peer_id, lost.slot, lost.incarnation);
        let Some(worker) = self.places.get(&place).copied() else { return };
        let loss = Loss {
            cause: lost.cause,
            detail: lost.detail,
            running: lost.running,
            started: &lost.started,
        };
        self.worker_lost(worker, &loss, out);
    }

    pub(crate) fn on_recalled(
        &mut self,
        conn: Conn,
        recalled: &Attempts,
        out: &mut impl Outbox<B>,
    ) {
        let Some(peer) = self.sessions.get(conn).map(|session| session.peer) else { return };
        if let Peer::Client(_) = peer {
            let reason = "RECALLED is for supervisors and for workers without one";
            return self.refuse_session(conn, RefusedCode::NotAllowed, reason, out);
        }
        self.count_end(conn);
        for attempt in &recalled.attempts {
            let key = self.resolve(*attempt).map(|(key, _)| key);
            let Some((key, task)) = key.and_then(|key| Some((key, self.tasks.get(key)?))) else {
                self.ledger.stale_ends += 1;
                self.recall_inherited(peer, *attempt, out);
                continue;
            };
            let is_current = *attempt == self.attempt_of(key) && task.occupies;
            let worker = self.workers.get(task.worker).filter(|_| is_current);
            let is_its_own = worker.is_some_and(|worker| match peer {
                Peer::Worker(sender) => sender == task.worker,
                Peer::Host(host) => worker.host == Some(self.hosts.at(host.index()).peer_id),
                Peer::Client(_) => false,
            });
            if is_its_own {
                self.give_back(key, out);
            } else if is_current {
                self.ledger.foreign_ends += 1;
            } else {
                self.ledger.stale_ends += 1;
            }
        }
    }

    /// A heartbeat was echoed: the lease runs anew, counted from now on this side.
    pub(crate) fn renew_lease(&mut self, key: HostKey, out: &mut impl Outbox<B>) {
        let now = self.now;
        let host = self.hosts.at_mut(key.index());
        host.echoed_at = now;
        if host.is_listed && !host.has_lease {
            let timer = host.timer;
            self.timers.cancel(timer);
            self.watch_host(key);
            self.set_lease(key, true);
            self.dispatch_all(out);
        }
    }

    pub(crate) fn set_lease(&mut self, key: HostKey, has_lease: bool) {
        let host = self.hosts.at_mut(key.index());
        host.has_lease = has_lease;
        let peer_id = host.peer_id;
        for (_, worker) in self.workers_of(peer_id) {
            self.unlist(worker.index());
            self.workers.at_mut(worker.index()).has_lease = has_lease;
            self.list(worker.index());
        }
    }

    /// The host's timer went off: its lease has ended, or what it held is to be requeued.
    pub(crate) fn on_host_timer(&mut self, key: HostKey, out: &mut impl Outbox<B>) {
        let Some(host) = self.hosts.get(key) else { return };
        let silent = self.now.since(host.echoed_at);
        if silent >= self.config.host_requeue() {
            return self.host_gone(key, out);
        }
        if silent >= self.config.lease && host.has_lease {
            self.set_lease(key, false);
        }
        self.watch_host(key);
    }

    fn watch_host(&mut self, key: HostKey) {
        let host = self.hosts.at(key.index());
        let lease_end = host.echoed_at.after(self.config.lease);
        let at = if lease_end > self.now {
            lease_end
        } else {
            host.echoed_at.after(self.config.host_requeue())
        };
        let timer = self.timers.set(at, Wake::Host(key));
        self.hosts.at_mut(key.index()).timer = timer;
    }

    /// Nothing of this host runs any more: it said so, or its lease ended long enough ago.
    pub(crate) fn host_gone(&mut self, key: HostKey, out: &mut impl Outbox<B>) {
        let host = self.hosts.at(key.index());
        let (peer_id, conn, timer) = (host.peer_id, host.conn, host.timer);
        self.timers.cancel(timer);
        if let Some(conn) = conn {
            self.end_session(conn);
            out.close(conn);
        }
        let gone = self.workers_of(peer_id);
        self.workers_gone(&gone, out);
        self.peers.remove(&peer_id);
        self.hosts.remove(key);
    }

    /// Several are gone at once: none of them is to be sent what another one held.
    fn workers_gone(&mut self, gone: &[(Place, WorkerKey)], out: &mut impl Outbox<B>) {
        for (_, worker) in gone {
            self.bury(worker.index());
        }
        for (_, worker) in gone {
            self.worker_gone(*worker, None, out);
        }
    }

    pub(crate) fn has_lease(&self, host: Option<PeerId>) -> bool {
        match host.map(|id| self.peers.get(&id)) {
            None => true,
            Some(Some(Peer::Host(key))) => self.hosts.at(key.index()).has_lease,
            Some(_) => false,
        }
    }

    /// Whether this process is known to have ended.
    pub(crate) fn is_gone(&self, (host, slot, incarnation): &Place) -> bool {
        let Some(Peer::Host(key)) = self.peers.get(host) else { return false };
        self.hosts.at(key.index()).gone.get(slot).is_some_and(|gone| gone >= incarnation)
    }

    fn workers_of(&self, host: PeerId) -> Vec<(Place, WorkerKey)> {
        let first = (host, Slot(0), Incarnation(0));
        let last = (host, Slot(u16::MAX), Incarnation(u32::MAX));
        self.places.range(first..=last).map(|(place, key)| (*place, *key)).collect()
    }

    fn count_end(&mut self, conn: Conn) {
        if let Some(session) = self.sessions.get_mut(conn) {
            session.take_end(0);
        }
    }

    fn host_of(&mut self, conn: Conn, command: &str, out: &mut impl Outbox<B>) -> Option<HostKey> {
        match self.sessions.get(conn)?.peer {
            Peer::Host(key) => Some(key),
            Peer::Client(_) | Peer::Worker(_) => {
                let reason = alloc::format!("{command} is for supervisors");
                self.refuse_session(conn, RefusedCode::NotAllowed, &reason, out);
                None
            }
        }
    }
}
