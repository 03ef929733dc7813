//! PROGRESS: what running tasks say. `stream` is told in order and all of it, before its task's
//! RESULT; of `latest` the newest, once nothing else waits. A worker whose task's client has too much
//! to take is acknowledged no further.

use std::collections::VecDeque;

use pinmesh_core::{Body as _, Conn, ProgressEvent, ProgressHead};
use pinmesh_protocol::id::PeerId;
use pinmesh_protocol::limits::{STREAM_BYTES_MAX, UPDATE_OVERHEAD_BYTES};
use pinmesh_protocol::status::{ProgressKind, RefusedCode};

use super::Oracle;
use super::book::{Age, Client, InLine, State, Update, Who, WorkerNo};
use super::time::Due;
use crate::record::Body;

impl Client {
    /// Updates that it has not acknowledged, in order.
    pub(super) fn updates(&self) -> VecDeque<Update> {
        let told = self.results.iter().filter_map(|told| match told {
            InLine::Update(update) => Some(update),
            InLine::Answer | InLine::Result(_) => None,
        });
        told.chain(&self.untold).cloned().collect()
    }
}

impl Oracle {
    pub(super) fn on_progress(&mut self, conn: Conn, progress: &ProgressEvent<Body>) {
        let Some(number) = self.worker_of(conn) else { return };
        let bytes = progress.body.payload_bytes();
        if bytes > self.config.payload_bytes_max {
            return self.refuse_session(conn, RefusedCode::TooLarge);
        }
        let is_stream = progress.kind == ProgressKind::Stream;
        if is_stream {
            self.count_end(conn, 0);
            let most = STREAM_BYTES_MAX + self.config.payload_bytes_max + UPDATE_OVERHEAD_BYTES;
            if let Some(session) = self.sessions.get_mut(&conn).filter(|s| s.held.is_some()) {
                session.held_bytes += bytes + UPDATE_OVERHEAD_BYTES;
                if session.held_bytes > most {
                    return self.refuse_session(conn, RefusedCode::Window);
                }
            }
        }
        let Some((age, client)) = self.teller(number, progress) else {
            self.ledger.stale_updates += 1;
            return;
        };
        if is_stream && self.is_too_much(&progress.body) {
            return self.refuse_session(conn, RefusedCode::Full);
        }
        let Some(task) = self.tasks.get_mut(&age) else { return };
        if task.said.0 != task.dispatch {
            task.said = (task.dispatch, 0);
        }
        if task.said.1 >= progress.sequence {
            self.ledger.stale_updates += 1;
        } else {
            task.said.1 = progress.sequence;
            let head = ProgressHead {
                request_id: task.request,
                submission: task.submission,
                task: task.id.unwrap_or_default(),
                dispatch: task.dispatch,
                sequence: progress.sequence,
                kind: progress.kind,
            };
            let update = Update { age, head, payload: progress.body.payload.clone() };
            self.ledger.updates += 1;
            self.note_update(client, update, &progress.body);
        }
        if is_stream && self.has_too_much(client) {
            self.hold_up(conn, client);
        }
    }

    fn teller(&self, number: WorkerNo, progress: &ProgressEvent<Body>) -> Option<(Age, PeerId)> {
        let age = self.task_of(progress.attempt)?;
        let task = &self.tasks[&age];
        let is_its = task.sent_to == Some(number) && task.is_open();
        Some((age, task.client.filter(|_| is_its)?))
    }

    fn note_update(&mut self, id: PeerId, update: Update, body: &Body) {
        if update.head.kind == ProgressKind::Stream {
            if let Some(client) = self.clients.get_mut(&id) {
                client.untold.push_back(update);
            }
            return;
        }
        let may_wait = !self.is_too_much(body);
        if (self.can_be_told(id) && !self.has_untold(id)) || may_wait {
            let age = update.age;
            if let Some(task) = self.tasks.get_mut(&age) {
                task.latest = Some(update);
            }
        }
    }

    fn can_be_told(&self, id: PeerId) -> bool {
        self.clients.get(&id).is_some_and(|client| client.conn.is_some() && !client.is_full)
    }

    /// Whether something is to be told that is acknowledged.
    fn has_untold(&self, id: PeerId) -> bool {
        let has_ended = self
            .tasks
            .values()
            .any(|task| task.client == Some(id) && task.state == State::Ended && !task.is_told);
        has_ended || self.clients.get(&id).is_some_and(|client| !client.untold.is_empty())
    }

    pub(super) fn has_untold_updates(&self, id: PeerId, age: Age) -> bool {
        self.clients
            .get(&id)
            .is_some_and(|client| client.untold.iter().any(|update| update.age == age))
    }

    /// More updates of kind `stream` than may wait for this client, or for all.
    fn has_too_much(&self, id: PeerId) -> bool {
        let bytes_of = |client: &Client| client.updates().iter().map(Update::bytes).sum::<u64>();
        let its = self.clients.get(&id).map_or(0, bytes_of);
        let all: u64 = self.clients.values().map(bytes_of).sum();
        its > self.config.stream_bytes_max || (its > 0 && all > self.config.memory_bytes_max)
    }

    fn hold_up(&mut self, conn: Conn, client: PeerId) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        if session.held.is_none() {
            session.held = Some((session.taken - 1, client));
            session.held_bytes = 0;
            self.ledger.held_up += 1;
        }
    }

    /// Who is held up by nobody any more goes on, and is acknowledged at once.
    pub(super) fn let_go(&mut self) {
        let held = self.sessions.iter().filter_map(|(conn, session)| {
            let (_, client) = session.held?;
            (!self.has_too_much(client)).then_some(*conn)
        });
        for conn in held.collect::<Vec<_>>() {
            let Some(session) = self.sessions.get_mut(&conn) else { continue };
            session.held = None;
            session.held_bytes = 0;
            if let Who::Worker(number) = session.who
                && let Some(worker) = self.workers.get_mut(&number)
            {
                worker.is_passed_over = false;
            }
        }
    }

    /// A worker that is held up is acknowledged in a tick: the client that held it up is gone.
    pub(super) fn drop_who_holds(&mut self, conn: Conn) {
        let held = self.sessions.get(&conn).and_then(|session| session.held);
        if let Some((_, client)) = held.filter(|_| self.is_tick) {
            // Another's updates may be what was too much.
            let ids: Vec<PeerId> =
                [client].into_iter().chain(self.clients.keys().copied()).collect();
            for id in ids {
                let is_held = self.sessions.get(&conn).is_some_and(|s| s.held.is_some());
                if is_held && self.may_happen(Due::Dropped(id)) {
                    self.happen(Due::Dropped(id));
                }
            }
        }
    }

    /// Follows a PROGRESS that the broker has sent.
    pub(super) fn on_update(
        &mut self,
        to: Conn,
        head: &ProgressHead,
        payload: &[u8],
    ) -> Result<(), String> {
        let Some(Who::Client(id)) = self.sessions.get(&to).map(|session| session.who) else {
            return Err(format!("PROGRESS to {to:?}, who is no client"));
        };
        if !self.can_be_told(id) {
            return Err(format!("PROGRESS {head:?} although its batch could not be sent"));
        }
        if head.kind == ProgressKind::Latest {
            return self.on_latest(id, head, payload);
        }
        let Some(client) = self.clients.get(&id) else { return Ok(()) };
        let front = client.untold.front().cloned();
        let Some(update) = front.filter(|it| it.head == *head && *it.payload == *payload) else {
            return Err(format!("PROGRESS {head:?}; next is {:?}", client.untold.front()));
        };
        if self.is_beyond(id, update.bytes(), 0) {
            return Err(format!("PROGRESS {head:?} is too far ahead of its ACKs"));
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.untold.pop_front();
            client.results.push_back(InLine::Update(update));
        }
        Ok(())
    }

    fn on_latest(&mut self, id: PeerId, head: &ProgressHead, said: &[u8]) -> Result<(), String> {
        if self.has_untold(id) {
            return Err(format!("PROGRESS {head:?} before what is acknowledged"));
        }
        let is_it = |update: &Update| update.head == *head && *update.payload == *said;
        let mut its = self.tasks.values_mut().filter(|task| task.client == Some(id));
        match its.find(|task| task.latest.as_ref().is_some_and(is_it)) {
            Some(task) => task.latest = None,
            None => return Err(format!("PROGRESS {head:?} is not the newest, or was told")),
        }
        Ok(())
    }

    /// The next update is too long to be sent ahead of the ACKs, and holds up what is behind it.
    pub(super) fn is_update_far_ahead(&self, id: PeerId) -> bool {
        let next = self.clients.get(&id).and_then(|client| client.untold.front());
        next.is_some_and(|update| self.is_beyond(id, update.bytes(), super::compare::WORDS_MAX))
    }

    /// Updates that a client could be told and was not.
    pub(super) fn untold_updates(&self) -> Option<String> {
        self.clients.keys().filter(|id| self.can_be_told(**id)).find_map(|id| {
            let client = &self.clients[id];
            if let Some(update) = client.untold.front() {
                // Behind a RESULT that is too far ahead it waits too.
                let mut ended = self.tasks.iter().filter(|(_, task)| {
                    task.client == Some(*id) && task.state == State::Ended && !task.is_told
                });
                let words = super::compare::WORDS_MAX;
                let is_held_up = self.is_update_far_ahead(*id)
                    || ended.any(|(age, _)| self.is_too_far_ahead(*id, *age, words));
                return (!is_held_up).then(|| format!("no PROGRESS {:?}", update.head));
            }
            let mut its = self.tasks.values().filter(|task| task.client == Some(*id));
            let waiting = its.find_map(|task| task.latest.as_ref())?;
            (!self.has_untold(*id)).then(|| format!("no PROGRESS {:?}", waiting.head))
        })
    }

    /// A worker that is held up although its client has taken enough, or was let go without ACK.
    pub(super) fn held_for_nothing(&self) -> Option<String> {
        let is_wrong = |client: PeerId| !self.has_too_much(client);
        let mut held = self.sessions.iter().filter_map(|(conn, s)| Some((conn, s.held?.1)));
        let (conn, client) = held.find(|(_, client)| is_wrong(*client))?;
        Some(format!("{conn:?} is held up by {client:?} for nothing"))
    }

    /// Bytes that updates keep.
    pub(super) fn update_bytes(&self) -> u64 {
        let stream = self.clients.values().flat_map(Client::updates).map(|it| it.bytes());
        let latest = self.tasks.values().filter_map(|task| task.latest.as_ref());
        stream.sum::<u64>() + latest.map(Update::bytes).sum::<u64>()
    }
}
