//! What every peer does: HELLO, HEARTBEAT, ACK, SERVICE, GOODBYE; and how a session ends.

use pinmesh_core::{Conn, Event, Side};
use pinmesh_protocol::command::{Heartbeat, Hello, ServiceAlias, Welcome};
use pinmesh_protocol::id::PeerId;
use pinmesh_protocol::limits::{HEADER_BYTES_MAX, SERVICES_MAX};
use pinmesh_protocol::status::{RefusedCode, Role};

use super::book::{Client, Host, Presence, Session, State, Who, Worker, WorkerNo};
use super::{Expected, Oracle, Piece, names};
use crate::record::{Body, Sent};

impl Oracle {
    pub(super) fn on_hello(
        &mut self,
        conn: Conn,
        side: Side,
        hello: &Hello<'_>,
        user: Option<&str>,
    ) {
        if self.sessions.contains_key(&conn) {
            return self.refuse_session(conn, RefusedCode::Malformed);
        }
        if let Some(code) = self.objection_to_hello(side, hello) {
            return self.refuse(conn, code);
        }
        let id = hello.peer_id;
        let earlier = self.sessions.iter().find(|(_, session)| self.id_of(session.who) == Some(id));
        if let Some(earlier) = earlier.map(|(earlier, _)| *earlier) {
            self.end_session(earlier);
            self.expect(Expected::Close(earlier));
        }
        let who = match hello.role {
            Role::Client => self.greet_client(conn, id, (hello.name, user)),
            Role::Worker => self.greet_worker(conn, id),
            Role::Supervisor => self.greet_host(conn, id),
        };
        let session = Session {
            who,
            heard_at: self.now,
            limit_since: self.now,
            limit: None,
            taken: 0,
            acknowledged: 0,
            unacknowledged_bytes: 0,
            held: None,
            held_bytes: 0,
            aliases: std::collections::BTreeMap::new(),
        };
        self.sessions.insert(conn, session);
        let welcome = Sent::Welcome(self.welcome(hello));
        self.expect(Expected::Sent(conn, welcome));
    }

    fn objection_to_hello(&self, side: Side, hello: &Hello<'_>) -> Option<RefusedCode> {
        if hello.version_min > 1 || hello.version_max < 1 {
            return Some(RefusedCode::Version);
        }
        let id = hello.peer_id;
        let role = if self.clients.contains_key(&id) {
            Some(Role::Client)
        } else if self.hosts.contains_key(&id) {
            Some(Role::Supervisor)
        } else {
            self.worker_by_id(id).map(|_| Role::Worker)
        };
        let is_frontend = side == Side::Frontend;
        let is_for_frontend = hello.role == Role::Client;
        if is_frontend != is_for_frontend || role.is_some_and(|role| role != hello.role) {
            return Some(RefusedCode::NotAllowed);
        }
        let has_session = self.sessions.values().any(|session| self.id_of(session.who) == Some(id));
        let peers = self.clients.len() + self.workers.len() + self.hosts.len();
        let max = self.config.sessions_max as usize;
        let is_full = self.sessions.len() >= max || role.is_none() && peers >= 2 * max;
        (!has_session && is_full).then_some(RefusedCode::Full)
    }

    fn id_of(&self, who: Who) -> Option<PeerId> {
        match who {
            Who::Client(id) | Who::Host(id) => Some(id),
            Who::Worker(number) => self.workers.get(&number).map(|worker| worker.peer_id),
        }
    }

    pub(super) fn worker_by_id(&self, id: PeerId) -> Option<WorkerNo> {
        let is_it = |worker: &Worker| worker.peer_id == id;
        self.workers.iter().find(|(_, worker)| is_it(worker)).map(|(number, _)| *number)
    }

    /// A client's results that it has not acknowledged come again.
    fn greet_client(&mut self, conn: Conn, id: PeerId, (name, user): (&str, Option<&str>)) -> Who {
        let client = self.clients.entry(id).or_default();
        let requests = std::mem::take(&mut client.requests);
        let untold = client.updates();
        let (name, account) = (name.to_owned(), user.unwrap_or(name).to_owned());
        *client = Client { name, account, conn: Some(conn), requests, untold, ..Client::default() };
        for task in self.tasks.values_mut().filter(|task| task.client == Some(id)) {
            task.is_told = false;
        }
        Who::Client(id)
    }

    fn greet_worker(&mut self, conn: Conn, id: PeerId) -> Who {
        let number = self.worker_by_id(id).unwrap_or_else(|| {
            self.workers_seen += 1;
            self.workers.insert(self.workers_seen, Worker::new(id, conn));
            self.workers_seen
        });
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.conn = Some(conn);
            worker.presence = Presence::Greeting;
            worker.is_full = false;
            worker.next_part = Some(0);
        }
        Who::Worker(number)
    }

    fn greet_host(&mut self, conn: Conn, id: PeerId) -> Who {
        let host = self.hosts.entry(id).or_insert_with(|| Host {
            conn: None,
            echoed_at: self.now,
            has_lease: false,
            is_listed: false,
            hello_at: 0,
            gone: std::collections::BTreeMap::new(),
        });
        host.conn = Some(conn);
        host.is_listed = false;
        // "Only while HOST was said in this session": it may have forgotten workers.
        host.has_lease = false;
        host.hello_at = self.event;
        Who::Host(id)
    }

    const fn welcome(&self, hello: &Hello<'_>) -> Welcome {
        let is_client = matches!(hello.role, Role::Client);
        Welcome {
            version: 1,
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

    /// A command without a session.
    pub(super) fn on_stranger(&mut self, conn: Conn, event: &Event<'_, Body>) {
        match event {
            Event::BatchEnd(_) | Event::Full(_) | Event::Sendable(_) => {}
            Event::Goodbye(_) => self.expect(Expected::Close(conn)),
            _ => {
                self.ledger.no_session += 1;
                self.expect(Expected::Sent(conn, Sent::NoSession));
                self.expect(Expected::Close(conn));
            }
        }
    }

    /// A session is over. What its peer has stays as it is until more is known.
    pub(super) fn end_session(&mut self, conn: Conn) {
        let Some(session) = self.sessions.remove(&conn) else { return };
        match session.who {
            Who::Client(id) => {
                // Of whom there is nothing to keep, nothing is kept.
                let has_tasks = self.tasks.values().any(|task| task.client == Some(id));
                let kept = if has_tasks { self.config.client_kept.0 } else { 0 };
                let at = self.now.saturating_add(kept);
                if let Some(client) = self.clients.get_mut(&id) {
                    client.conn = None;
                    client.drop_at = Some(at);
                    client.untold = client.updates();
                    client.results.clear();
                }
            }
            Who::Worker(number) => {
                let limit = self.worker_silence_max(number).unwrap_or(self.silence_max());
                let at = self.now.saturating_add(limit);
                let Some(worker) = self.workers.get_mut(&number) else { return };
                worker.conn = None;
                worker.away_until = at;
                if worker.presence != Presence::Dead {
                    worker.presence = Presence::Away;
                }
                for age in &worker.holds {
                    if let Some(task) = self.tasks.get_mut(age) {
                        task.is_listed = false;
                    }
                }
                self.unmark(number);
            }
            Who::Host(id) => {
                if let Some(host) = self.hosts.get_mut(&id) {
                    host.conn = None;
                }
            }
        }
    }

    /// The session is refused and over.
    pub(super) fn refuse_session(&mut self, conn: Conn, code: RefusedCode) {
        self.ledger.malformed += 1;
        self.end_session(conn);
        self.refuse(conn, code);
    }

    fn refuse(&mut self, conn: Conn, code: RefusedCode) {
        self.expect(Expected::Sent(conn, Sent::Refused(code)));
        self.expect(Expected::Close(conn));
    }

    pub(super) fn on_goodbye(&mut self, conn: Conn) {
        let Some(who) = self.sessions.get(&conn).map(|session| session.who) else { return };
        self.end_session(conn);
        self.expect(Expected::Close(conn));
        match who {
            Who::Client(id) => {
                if !self.tasks.values().any(|task| task.client == Some(id)) {
                    self.drop_client(id);
                }
            }
            Who::Worker(number) => self.pieces.push_back(Piece::Gone(number)),
            Who::Host(id) => self.lose_host(id),
        }
    }

    pub(super) fn on_heartbeat(&mut self, conn: Conn, heartbeat: Heartbeat) {
        // The announced silence is bounded, so that nobody is waited for for ever.
        let silence = heartbeat.silence_ns.unwrap_or(0).min(self.config.max_runtime.0);
        let until = self.now.saturating_add(silence);
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        session.heard_at = session.heard_at.max(until);
        let who = session.who;
        let echo = Heartbeat { sequence: heartbeat.sequence, silence_ns: None };
        self.expect(Expected::Sent(conn, Sent::Heartbeat(echo)));
        if let Who::Host(id) = who {
            self.renew_lease(id);
        }
    }

    pub(super) fn on_ack(&mut self, conn: Conn, count: u64) {
        match self.sessions[&conn].who {
            Who::Client(id) => self.on_results_taken(id, count),
            Who::Worker(_) | Who::Host(_) => self.refuse_session(conn, RefusedCode::NotAllowed),
        }
    }

    pub(super) fn on_service(&mut self, conn: Conn, alias: &ServiceAlias<'_>) {
        let name = alias.name;
        if alias.alias as usize >= SERVICES_MAX {
            return self.refuse_session(conn, RefusedCode::TooLarge);
        }
        if let Err(code) = names::read(name) {
            return self.refuse_session(conn, code);
        }
        if !self.has_room_for(name, self.config.services_max - self.config.services_max / 4) {
            return self.refuse_session(conn, RefusedCode::Full);
        }
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.aliases.insert(alias.alias, name.to_owned());
        }
    }

    /// Whether a service is known or there is room for one more; known are those that a task, a
    /// worker or an alias refers to.
    pub(super) fn has_room_for(&self, name: &str, max: u32) -> bool {
        let known = self.known();
        known.contains(&name) || known.len() < max as usize
    }

    /// Every service that something refers to.
    pub(super) fn known(&self) -> Vec<&str> {
        let of_tasks =
            self.tasks.values().filter(|task| task.state != State::Ended || task.holder.is_some());
        let served = self.workers.values().filter(|worker| worker.is_placed);
        let mut known: Vec<&str> = of_tasks
            .map(|task| task.service.as_str())
            .chain(served.flat_map(|worker| worker.services.iter().map(String::as_str)))
            .chain(self.sessions.values().flat_map(|s| s.aliases.values().map(String::as_str)))
            .chain(self.known_by_gate())
            .collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    /// A peer's batch could not be sent, or went out after all.
    pub(super) fn on_full(&mut self, conn: Conn, is_full: bool) {
        match self.sessions[&conn].who {
            Who::Client(id) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.is_full = is_full;
                }
            }
            Who::Worker(number) => {
                if let Some(worker) = self.workers.get_mut(&number) {
                    worker.is_full = is_full;
                    worker.is_passed_over = false;
                }
            }
            Who::Host(_) => {}
        }
    }
}
