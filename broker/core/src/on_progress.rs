//! PROGRESS: what a running task says, from its worker to its client.

use alloc::vec::Vec;

use pinmesh_protocol::command::FromBroker;
use pinmesh_protocol::id::TaskId;
use pinmesh_protocol::limits::{STREAM_BYTES_MAX, UPDATE_OVERHEAD_BYTES};
use pinmesh_protocol::status::{ProgressKind, RefusedCode};

use crate::client::{Client, InLine};
use crate::event::{Body, Conn, ProgressEvent};
use crate::outbox::{Outbox, ProgressHead};
use crate::progress::{Update, kept_bytes};
use crate::session::{Peer, Session};
use crate::slab::{ClientKey, Key, TaskKey, UpdateKey, WorkerKey};
use crate::state::State;

impl<B: Body> State<B> {
    pub(crate) fn on_progress(
        &mut self,
        conn: Conn,
        progress: ProgressEvent<B>,
        out: &mut impl Outbox<B>,
    ) {
        let Some(worker) = self.worker_of(conn, "PROGRESS", out) else { return };
        let bytes = progress.body.payload_bytes();
        if bytes > self.config.payload_bytes_max {
            let reason = "PROGRESS: payload longer than payload_bytes_max of WELCOME";
            return self.refuse_session(conn, RefusedCode::TooLarge, reason, out);
        }
        let is_stream = progress.kind == ProgressKind::Stream;
        if is_stream && !self.count_update(conn, bytes) {
            let reason = "PROGRESS: more unacknowledged `stream` updates than 8 MiB";
            return self.refuse_session(conn, RefusedCode::Window, reason, out);
        }
        let Some((task, client)) = self.teller(worker, &progress) else {
            self.ledger.stale_updates += 1;
            return;
        };
        if is_stream && self.objection_to_result(&progress.body).is_some() {
            // It was not taken: its sender says it again, and its task goes on.
            let reason = "PROGRESS: no memory for more `stream` updates";
            return self.refuse_session(conn, RefusedCode::Full, reason, out);
        }
        // Its own number: what an attempt of an earlier life is called says nothing of later ones.
        let dispatch = self.tasks.at(task.index()).dispatch;
        let is_new = self.progress.take(task, dispatch, progress.sequence);
        if !is_new {
            self.ledger.stale_updates += 1;
        } else {
            self.ledger.updates += 1;
            let update = self.update(task, progress);
            match is_stream {
                true => self.put_in_line(client, update, out),
                false => self.tell_latest(task, client, update, out),
            }
        }
        if is_stream && self.is_over_budget(client) {
            self.hold(conn, worker, client);
        }
    }

    /// Counts it as an end; `false`: its sender is held and goes on all the same.
    fn count_update(&mut self, conn: Conn, bytes: u64) -> bool {
        let bytes_max = STREAM_BYTES_MAX + self.config.payload_bytes_max + UPDATE_OVERHEAD_BYTES;
        let Some(session) = self.sessions.get_mut(conn) else { return true };
        session.take_end(0);
        if session.acknowledged_max == u64::MAX {
            return true;
        }
        session.held_bytes = session.held_bytes.saturating_add(bytes + UPDATE_OVERHEAD_BYTES);
        session.held_bytes <= bytes_max
    }

    /// The task that the sender may speak for, and the client that listens.
    fn teller(
        &self,
        worker: WorkerKey,
        progress: &ProgressEvent<B>,
    ) -> Option<(TaskKey, ClientKey)> {
        let (key, dispatch) = self.resolve(progress.attempt)?;
        let task = self.tasks.get(key)?;
        let is_open =
            dispatch.0 > 0 && (task.dispatch, task.worker) == (dispatch, worker) && task.is_open();
        let client = task.client().filter(|client| self.clients.get(*client).is_some())?;
        is_open.then_some((key, client))
    }

    fn update(&self, task: TaskKey, progress: ProgressEvent<B>) -> Update<B> {
        let of = self.tasks.at(task.index());
        let head = ProgressHead {
            request_id: of.request_id,
            submission: of.submission,
            task: TaskId(task.bits()),
            dispatch: of.dispatch,
            sequence: progress.sequence,
            kind: progress.kind,
        };
        Update { head, body: progress.body }
    }

    /// Each counts: it stands in the line of what its client is told, before the task's RESULT.
    fn put_in_line(&mut self, client: ClientKey, update: Update<B>, out: &mut impl Outbox<B>) {
        let bytes = update.kept_bytes();
        self.bytes += bytes;
        self.progress.stream_bytes += bytes;
        let update = self.progress.updates.insert(update);
        let client_state = self.clients.at_mut(client.index());
        client_state.stream_bytes += bytes;
        client_state.results.push(InLine::Update(update));
        self.send_results(client, out);
    }

    /// Only the newest counts: it goes out at once, or waits in the place of the one before.
    fn tell_latest(
        &mut self,
        task: TaskKey,
        key: ClientKey,
        update: Update<B>,
        out: &mut impl Outbox<B>,
    ) {
        let client = self.clients.at(key.index());
        if let Some(conn) = client.reader().filter(|_| client.results.is_all_sent()) {
            return out.progress(conn, &update.head, &update.body);
        }
        if self.objection_to_result(&update.body).is_some() {
            return;
        }
        self.bytes += update.kept_bytes();
        let update = self.progress.updates.insert(update);
        self.clients.at_mut(key.index()).latest.insert(task);
        let before = self.progress.put_latest(task, update);
        self.drop_update(before);
    }

    /// What was held back of kind `latest` goes out, now that nothing waits before it.
    #[cold]
    pub(crate) fn send_latest(&mut self, key: ClientKey, out: &mut impl Outbox<B>) {
        let client = self.clients.at_mut(key.index());
        let Some(conn) = client.reader().filter(|_| client.results.is_all_sent()) else { return };
        for task in core::mem::take(&mut client.latest) {
            let waiting = self.progress.take_latest(task);
            if let Some(update) = waiting.and_then(|key| self.progress.updates.get(key)) {
                out.progress(conn, &update.head, &update.body);
            }
            self.drop_update(waiting);
        }
    }

    /// A task has ended: RESULT says more than what it said before.
    #[cold]
    pub(crate) fn end_progress(&mut self, task: TaskKey) {
        let waiting = self.progress.forget(task);
        if let Some(client) = self.tasks.at(task.index()).client().filter(|_| waiting.is_some())
            && let Some(client) = self.clients.get_mut(client)
        {
            client.latest.remove(&task);
        }
        self.drop_update(waiting);
    }

    /// Forgets an update; the bytes that it had.
    pub(crate) fn drop_update(&mut self, key: Option<UpdateKey>) -> u64 {
        let update = key.and_then(|key| self.progress.updates.remove(key));
        let bytes = update.map_or(0, |update| update.kept_bytes());
        self.bytes -= bytes;
        bytes
    }

    /// Bytes of an update in a client's line.
    pub(crate) fn update_bytes(&self, key: UpdateKey) -> u64 {
        self.progress.updates.get(key).map_or(0, |update| kept_bytes(&update.body))
    }

    fn is_over_budget(&self, client: ClientKey) -> bool {
        let client_bytes = self.clients.get(client).map_or(0, |client| client.stream_bytes);
        client_bytes > self.config.stream_bytes_max
            || self.progress.stream_bytes > self.config.memory_bytes_max && client_bytes > 0
    }

    /// From this update on the worker's ends are acknowledged no more, so that its handler waits;
    /// meanwhile it gets no tasks, for it could not start them.
    fn hold(&mut self, conn: Conn, worker: WorkerKey, client: ClientKey) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        if session.acknowledged_max < u64::MAX {
            return;
        }
        session.acknowledged_max = session.taken - 1;
        self.progress.hold(conn, client);
        self.ledger.held_up += 1;
        self.unlist(worker.index());
        self.workers.at_mut(worker.index()).is_held_up = true;
    }

    /// Clients have taken updates, or are gone: whom they held up goes on.
    #[cold]
    pub(crate) fn let_go(&mut self, out: &mut impl Outbox<B>) {
        let mut free = Vec::new();
        for (conn, client) in self.progress.held() {
            if self.is_over_budget(client) {
                continue;
            }
            self.progress.let_go(conn);
            let Some(session) = self.sessions.get_mut(conn) else { continue };
            session.acknowledged_max = u64::MAX;
            session.held_bytes = 0;
            let peer = session.peer;
            if let Some(taken) = session.acknowledge() {
                out.send(conn, FromBroker::Ack(taken));
            }
            if let Peer::Worker(worker) = peer {
                self.workers.at_mut(worker.index()).is_held_up = false;
                self.list(worker.index());
                free.push(worker);
            }
        }
        // When all of them have credit again: the idlest is to be chosen.
        for worker in free {
            self.feed(worker, out);
        }
    }

    /// A worker's session is over: the next one is acknowledged as any.
    pub(crate) fn forget_hold(&mut self, conn: Conn, session: &Session) {
        if session.acknowledged_max == u64::MAX {
            return;
        }
        self.progress.let_go(conn);
        if let Peer::Worker(worker) = session.peer {
            self.workers.at_mut(worker.index()).is_held_up = false;
        }
    }
}

impl Client {
    /// Where to tell it something, if it can be told.
    pub(crate) fn reader(&self) -> Option<Conn> {
        self.conn.filter(|_| !self.is_full)
    }
}
