//! What every peer does: HELLO, HEARTBEAT, ACK, SERVICE, GOODBYE, and silence.

use alloc::vec::Vec;

use pinmesh_protocol::command::{FromBroker, Heartbeat, Hello, Refused, ServiceAlias, Welcome};
use pinmesh_protocol::limits::{HEADER_BYTES_MAX, SERVICES_MAX, VERSION_MAX, VERSION_MIN};
use pinmesh_protocol::selector::{NameError, Selector};
use pinmesh_protocol::status::{RefusedCode, Role};

use crate::client::Client;
use crate::event::{Body, Conn, Side};
use crate::flow::Account;
use crate::outbox::Outbox;
use crate::session::{Peer, Session};
use crate::slab::{ClientKey, Key, TimerKey};
use crate::state::{State, Wake};
use crate::time::Span;
use crate::worker::{Worker, WorkerState};

impl<B: Body> State<B> {
    pub(crate) fn on_hello(
        &mut self,
        (conn, side): (Conn, Side),
        hello: &Hello<'_>,
        user: Option<&str>,
        out: &mut impl Outbox<B>,
    ) {
        if self.sessions.get(conn).is_some() {
            // Every HELLO of a client sends all its results again, so they are not to come cheap.
            let reason = "HELLO: this socket has its session; open another one for the next";
            return self.refuse_session(conn, RefusedCode::Malformed, reason, out);
        }
        let known = self.peers.get(&hello.peer_id).copied();
        if let Some((code, reason)) = self.objection(side, hello, known) {
            return refuse(conn, code, reason, out);
        }
        let peer = known.unwrap_or_else(|| self.add_peer(conn, hello));
        if let Peer::Client(key) = peer {
            let client = self.clients.at_mut(key.index());
            client.name = hello.name.into();
            client.account = Account::of(user.unwrap_or(hello.name), self.config.hash_seed);
        }
        if let Some(earlier) = self.conn_of(peer) {
            self.end_session(earlier);
            out.close(earlier);
        }
        let timer = self.timers.set(self.now.after(self.silence_max()), Wake::Session(conn));
        let session = Session {
            peer,
            heard_at: self.now,
            taken: 0,
            acknowledged: 0,
            unacknowledged_bytes: 0,
            acknowledged_max: u64::MAX,
            held_bytes: 0,
            aliases: Vec::new(),
            timer,
        };
        self.sessions.insert(conn, session);
        out.send(conn, FromBroker::Welcome(self.welcome(hello)));
        self.begin_session(conn, peer, out);
    }

    fn objection(
        &self,
        side: Side,
        hello: &Hello<'_>,
        known: Option<Peer>,
    ) -> Option<(RefusedCode, &'static str)> {
        if hello.version_min > VERSION_MAX || hello.version_max < VERSION_MIN {
            return Some((RefusedCode::Version, "this broker speaks version 1 only"));
        }
        let is_right_side = match hello.role {
            Role::Client => side == Side::Frontend,
            Role::Worker | Role::Supervisor => side == Side::Backend,
        };
        if !is_right_side {
            let reason = "clients connect to the frontend, workers and supervisors to the backend";
            return Some((RefusedCode::NotAllowed, reason));
        }
        let is_same_role = match known {
            None => true,
            Some(Peer::Client(_)) => hello.role == Role::Client,
            Some(Peer::Worker(_)) => hello.role == Role::Worker,
            Some(Peer::Host(_)) => hello.role == Role::Supervisor,
        };
        if !is_same_role {
            let reason = "another role has this peer_id; draw 16 random bytes for each process";
            return Some((RefusedCode::NotAllowed, reason));
        }
        let is_new = known.is_none_or(|peer| self.conn_of(peer).is_none());
        let has_room = self.sessions.len() < self.config.sessions_max
            && (known.is_some() || self.peers.len() < 2 * self.config.sessions_max as usize);
        (is_new && !has_room).then_some((RefusedCode::Full, "no room for another session"))
    }

    fn add_peer(&mut self, conn: Conn, hello: &Hello<'_>) -> Peer {
        let peer = match hello.role {
            Role::Client => {
                let client = Client::new(hello.peer_id, hello.name, self.config.hash_seed);
                Peer::Client(self.clients.insert(client))
            }
            Role::Worker => {
                let worker = Worker::new(hello.peer_id, hello.name, conn);
                Peer::Worker(self.workers.insert(worker))
            }
            Role::Supervisor => Peer::Host(self.add_host(hello.peer_id, hello.name)),
        };
        self.peers.insert(hello.peer_id, peer);
        peer
    }

    fn welcome(&self, hello: &Hello<'_>) -> Welcome {
        let is_client = hello.role == Role::Client;
        Welcome {
            version: VERSION_MAX,
            nonce: hello.nonce,
            epoch: self.config.epoch,
            heartbeat_ns: self.config.heartbeat.0,
            lease_ns: self.config.lease.0,
            liveness: self.config.liveness,
            window_tasks: if is_client { self.config.client_window_tasks } else { 0 },
            window_bytes: if is_client { self.config.client_window_bytes } else { 0 },
            payload_bytes_max: self.config.payload_bytes_max,
            header_bytes_max: HEADER_BYTES_MAX as u32,
            kept_ns: self.config.client_kept.0,
        }
    }

    fn conn_of(&self, peer: Peer) -> Option<Conn> {
        // A worker or client that is being added has its connection noted before its session stands.
        let conn = match peer {
            Peer::Client(key) => self.clients.get(key)?.conn,
            Peer::Worker(key) => self.workers.get(key)?.conn,
            Peer::Host(key) => self.hosts.get(key)?.conn,
        }?;
        self.sessions.get(conn).is_some().then_some(conn)
    }

    fn begin_session(&mut self, conn: Conn, peer: Peer, out: &mut impl Outbox<B>) {
        match peer {
            Peer::Client(key) => {
                let client = self.clients.at_mut(key.index());
                client.conn = Some(conn);
                client.is_full = false;
                client.results.restart();
                if let Some(timer) = client.lost_timer.take() {
                    self.timers.cancel(timer);
                }
                self.send_results(key, out);
            }
            Peer::Worker(key) => {
                let worker = self.workers.at_mut(key.index());
                worker.conn = Some(conn);
                worker.state = WorkerState::Greeting;
                worker.is_full = false;
                worker.next_part = 0;
                if let Some(timer) = worker.away_timer.take() {
                    self.timers.cancel(timer);
                }
            }
            Peer::Host(key) => {
                self.turns += 1;
                let host = self.hosts.at_mut(key.index());
                host.conn = Some(conn);
                host.is_listed = false;
                host.turn = self.turns;
                // It may have forgotten workers: nothing for them before it has listed them.
                self.set_lease(key, false);
            }
        }
    }

    /// A session is over; what its peer holds stays as it is until somebody says more.
    pub(crate) fn end_session(&mut self, conn: Conn) {
        let Some(session) = self.sessions.remove(conn) else { return };
        self.timers.cancel(session.timer);
        self.forget_hold(conn, &session);
        for service in session.aliases.into_iter().flatten() {
            self.services.at_mut(service).aliases -= 1;
            self.services.release(service);
        }
        match session.peer {
            Peer::Client(key) => self.client_left(key),
            Peer::Worker(key) => self.worker_left(key),
            Peer::Host(key) => self.hosts.at_mut(key.index()).conn = None,
        }
    }

    fn client_left(&mut self, key: ClientKey) {
        let kept = self.config.client_kept;
        let client = self.clients.at_mut(key.index());
        client.conn = None;
        // Of whom there is nothing to keep, nothing is kept: peers that come and go cost no room.
        let at = if client.tasks == 0 { self.now } else { self.now.after(kept) };
        if client.lost_timer.is_none() {
            client.lost_timer = Some(self.timers.set(at, Wake::ClientLost(key)));
        }
    }

    /// The session is refused and over.
    pub(crate) fn refuse_session(
        &mut self,
        conn: Conn,
        code: RefusedCode,
        reason: &str,
        out: &mut impl Outbox<B>,
    ) {
        self.ledger.malformed += 1;
        self.end_session(conn);
        refuse(conn, code, reason, out);
    }

    pub(crate) fn on_goodbye(&mut self, conn: Conn, out: &mut impl Outbox<B>) {
        let Some(peer) = self.sessions.get(conn).map(|session| session.peer) else { return };
        self.end_session(conn);
        out.close(conn);
        match peer {
            Peer::Client(key) => {
                let client = self.clients.at(key.index());
                if client.tasks == 0 {
                    self.drop_client(key, out);
                }
            }
            Peer::Worker(key) => self.worker_gone(key, None, out),
            Peer::Host(key) => self.host_gone(key, out),
        }
    }

    pub(crate) fn on_heartbeat(
        &mut self,
        conn: Conn,
        heartbeat: Heartbeat,
        out: &mut impl Outbox<B>,
    ) {
        let now = self.now;
        let kept = self.config.max_runtime;
        let Some(session) = self.sessions.get_mut(conn) else { return };
        let silence = Span(heartbeat.silence_ns.unwrap_or(0).min(kept.0));
        session.heard_at = session.heard_at.max(now.after(silence));
        let peer = session.peer;
        out.send(
            conn,
            FromBroker::Heartbeat(Heartbeat { sequence: heartbeat.sequence, silence_ns: None }),
        );
        if let Peer::Host(key) = peer {
            self.renew_lease(key, out);
        }
    }

    pub(crate) fn on_ack(&mut self, conn: Conn, count: u64, out: &mut impl Outbox<B>) {
        match self.sessions.get(conn).map(|session| session.peer) {
            Some(Peer::Client(key)) => self.on_results_acknowledged(key, count, out),
            Some(_) => {
                let reason = "ACK: this broker sends workers and supervisors no ends";
                self.refuse_session(conn, RefusedCode::NotAllowed, reason, out);
            }
            None => {}
        }
    }

    pub(crate) fn on_service(
        &mut self,
        conn: Conn,
        alias: &ServiceAlias<'_>,
        out: &mut impl Outbox<B>,
    ) {
        let place = alias.alias as usize;
        if place >= SERVICES_MAX {
            let reason = "SERVICE: alias below 256";
            return self.refuse_session(conn, RefusedCode::TooLarge, reason, out);
        }
        if let Err(error) = Selector::parse(alias.name) {
            let code = match error {
                NameError::Length(_) => RefusedCode::TooLarge,
                NameError::Braces | NameError::Label | NameError::Order => RefusedCode::Malformed,
            };
            return self.refuse_session(conn, code, error.remedy(), out);
        }
        let Some(service) = self.service_asked(alias.name) else {
            let reason = "too many services; raise limits.services";
            return self.refuse_session(conn, RefusedCode::Full, reason, out);
        };
        let Some(session) = self.sessions.get_mut(conn) else { return };
        if session.aliases.len() <= place {
            session.aliases.resize(place + 1, None);
        }
        self.services.at_mut(service).aliases += 1;
        if let Some(earlier) = session.aliases[place].replace(service) {
            self.services.at_mut(earlier).aliases -= 1;
            self.services.release(earlier);
        }
    }

    /// Acknowledges what was taken from this peer since the last time.
    #[inline]
    pub(crate) fn on_batch_end(&mut self, conn: Conn, out: &mut impl Outbox<B>) {
        if let Some(taken) = self.sessions.get_mut(conn).and_then(Session::acknowledge) {
            out.send(conn, FromBroker::Ack(taken));
        }
    }

    pub(crate) fn on_full(&mut self, conn: Conn, is_full: bool, out: &mut impl Outbox<B>) {
        match self.sessions.get(conn).map(|session| session.peer) {
            Some(Peer::Client(key)) => {
                self.clients.at_mut(key.index()).is_full = is_full;
                self.send_results(key, out);
            }
            Some(Peer::Worker(key)) => {
                self.unlist(key.index());
                self.workers.at_mut(key.index()).is_full = is_full;
                self.list(key.index());
                if let Some(group) = self.workers.at(key.index()).group {
                    self.dispatch_group(group, out);
                }
            }
            Some(Peer::Host(_)) | None => {}
        }
    }

    /// The session's timer went off: is its peer silent, or was it only not heard lately?
    pub(crate) fn on_session_timer(&mut self, conn: Conn, out: &mut impl Outbox<B>) {
        let silence_max = self.silence_max();
        let Some(session) = self.sessions.get(conn) else { return };
        let (peer, heard_at) = (session.peer, session.heard_at);
        let limit = match peer {
            Peer::Worker(key) => self.worker_silence_max(key),
            Peer::Client(_) | Peer::Host(_) => Some(silence_max),
        };
        let at = match limit {
            Some(limit) if heard_at.after(limit) <= self.now => {
                self.end_session(conn);
                out.close(conn);
                if let Peer::Worker(key) = peer {
                    self.worker_silent(key, out);
                }
                return;
            }
            // A busy worker may be idle, and its limit short, before its limit is over.
            Some(limit) => heard_at.after(limit).min(self.now.after(silence_max)),
            None => self.now.after(silence_max),
        };
        let timer: TimerKey = self.timers.set(at, Wake::Session(conn));
        if let Some(session) = self.sessions.get_mut(conn) {
            session.timer = timer;
        }
    }

    /// How long a peer may say nothing.
    pub(crate) fn silence_max(&self) -> Span {
        Span(self.config.heartbeat.0.saturating_mul(u64::from(self.config.liveness)))
    }
}

/// REFUSED, and no session.
pub(crate) fn refuse<B>(conn: Conn, code: RefusedCode, reason: &str, out: &mut impl Outbox<B>) {
    out.send(conn, FromBroker::Refused(Refused { code, reason }));
    out.close(conn);
}
