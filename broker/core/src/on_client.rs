//! What clients do: SUBMIT, CANCEL, FETCH, and the acknowledgement of results.

use pinmesh_protocol::command::{Accepted, CancelAttempt, CancelRequest, FromBroker, ServiceRef};
use pinmesh_protocol::id::{Submission, TaskId};
use pinmesh_protocol::selector::Selector;
use pinmesh_protocol::status::{RefusedCode, Status};

use crate::admission::Rejection;
use crate::client::InLine;
use crate::event::{Body, Conn, SubmitEvent};
use crate::flow::Account;
use crate::follow::KeyOf;
use crate::outbox::Outbox;
use crate::session::Peer;
use crate::slab::{ClientKey, Key, ServiceKey, TaskKey, WorkerKey};
use crate::state::{State, Wake};
use crate::task::{Cancel, EndBody, Incoming, Owner, TASK_OVERHEAD_BYTES, Task, TaskState, Terms};
use crate::time::Span;

/// What becomes of a request that is held when it is handed in again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Renewal {
    /// A higher submission of it is held.
    Stale,
    /// As it is held.
    Same,
    /// It has this submission from now on.
    Higher,
    /// Its end counted for the earlier submission only: it is a new request.
    Void,
}

impl<B: Body> State<B> {
    #[inline]
    pub(crate) fn on_submit(
        &mut self,
        conn: Conn,
        submit: SubmitEvent<'_, B>,
        out: &mut impl Outbox<B>,
    ) {
        let Some(key) = self.client_of(conn, "SUBMIT", out) else { return };
        self.ledger.submitted += 1;
        if let Some(task) = self.clients.at(key.index()).request(submit.request_id)
            && self.is_taken_by_known(conn, task, key, &submit, out)
        {
            return;
        }
        let service = match self.service_of(conn, submit.service) {
            Ok(service) => service,
            Err(Some(text)) => return self.reject(key, &submit, Rejection::refused(text), out),
            Err(None) => {
                self.ledger.refused += 1;
                let reason = "SUBMIT: no SERVICE has set this alias in this session";
                return self.refuse_session(conn, RefusedCode::Malformed, reason, out);
            }
        };
        let client = self.clients.at(key.index());
        if !self.has_room_for_answers(client) {
            self.ledger.refused += 1;
            let reason = "too many unacknowledged results; send ACK";
            return self.refuse_session(conn, RefusedCode::Window, reason, out);
        }
        let of = self.key_of(&submit);
        match self.objection_to(client, service, &submit, of) {
            Some(rejection) => self.reject(key, &submit, rejection, out),
            None if of == KeyOf::None => self.accept(conn, key, service, submit, out),
            None => self.accept_with_key((conn, key), service, submit, of, out),
        }
    }

    /// A repeat of a request that is held: nothing runs twice for it.
    fn is_taken_by_known(
        &mut self,
        conn: Conn,
        task_key: TaskKey,
        client: ClientKey,
        submit: &SubmitEvent<'_, B>,
        out: &mut impl Outbox<B>,
    ) -> bool {
        match self.renew(client, task_key, submit.submission) {
            Renewal::Stale => {
                self.ledger.stale += 1;
                return true;
            }
            Renewal::Void => return false,
            Renewal::Same => self.ledger.ignored += 1,
            Renewal::Higher => self.ledger.joined += 1,
        }
        if submit.options.as_ref().is_ok_and(|options| options.accepted || options.detached)
            && let Some(task) = self.followed(task_key)
        {
            accepted(conn, submit.request_id, task, out);
        }
        true
    }

    /// A request that is held is handed in again.
    pub(crate) fn renew(
        &mut self,
        client: ClientKey,
        key: TaskKey,
        submission: Submission,
    ) -> Renewal {
        let task = self.tasks.at_mut(key.index());
        if submission < task.submission {
            return Renewal::Stale;
        }
        if submission == task.submission {
            return Renewal::Same;
        }
        let is_void = task.end.as_ref().is_some_and(|end| {
            matches!(end.status, Status::Cancelled | Status::NoService | Status::Lost)
        });
        if is_void {
            let id = task.request_id;
            self.unmap(client, id);
            return Renewal::Void;
        }
        task.submission = submission;
        Renewal::Higher
    }

    #[inline]
    fn service_of(
        &mut self,
        conn: Conn,
        service: ServiceRef<'_>,
    ) -> Result<ServiceKey, Option<&'static str>> {
        match service {
            ServiceRef::Alias(alias) => self
                .sessions
                .get(conn)
                .and_then(|session| *session.aliases.get(alias as usize)?)
                .ok_or(None),
            ServiceRef::Name(name) => {
                if let Err(error) = Selector::parse(name) {
                    return Err(Some(error.remedy()));
                }
                self.service_asked(name).ok_or(Some("too many services; raise limits.services"))
            }
        }
    }

    #[inline]
    fn accept(
        &mut self,
        conn: Conn,
        key: ClientKey,
        service: ServiceKey,
        submit: SubmitEvent<'_, B>,
        out: &mut impl Outbox<B>,
    ) {
        let is_told = submit.options.as_ref().is_ok_and(|options| options.accepted);
        let (request_id, bytes) = (submit.request_id, submit.body.payload_bytes());
        let account = self.clients.at(key.index()).account;
        let task = self.insert_task(Owner::Client(key), account, service, submit);
        let client = self.clients.at_mut(key.index());
        client.tasks += 1;
        client.bytes += bytes;
        client.insert_request(request_id, task);
        if is_told {
            accepted(conn, request_id, task, out);
        }
        self.start(task, out);
    }

    /// A task that has just come in takes over what a worker brought along for it, or goes its way.
    #[inline]
    pub(crate) fn start(&mut self, task: TaskKey, out: &mut impl Outbox<B>) {
        if !self.inherited.is_empty() && self.claim_inherited(task, out) {
            return;
        }
        let start_at = self.tasks.at(task.index()).start_at;
        if start_at > self.now {
            self.delay(task, start_at);
        } else {
            self.enqueue(task, out);
        }
    }

    #[inline]
    pub(crate) fn insert_task(
        &mut self,
        owner: Owner,
        account: Account,
        service: ServiceKey,
        submit: SubmitEvent<'_, B>,
    ) -> TaskKey {
        self.ledger.accepted += 1;
        self.ledger.held += 1;
        let options = submit.options.unwrap_or_default();
        let (bytes, kept) = (submit.body.payload_bytes(), submit.body.kept_bytes());
        let usual = self.services.at(service).limits.task_defaults;
        let config = &self.config;
        let span = |asked: Option<u64>, usual: Option<Span>, broker: Span| {
            asked.map(Span).or(usual).unwrap_or(broker)
        };
        let terms = Terms {
            is_at_most_once: options.at_most_once,
            tries_max: options.tries_max.or(usual.tries_max).unwrap_or(config.tries_max),
            backoff: span(options.backoff_ns, usual.backoff, config.backoff),
            backoff_max: span(options.backoff_max_ns, usual.backoff_max, config.backoff_max),
            max_runtime: span(options.max_runtime_ns, usual.max_runtime, config.max_runtime),
        };
        let deadline = submit.deadline_ns.map(|left| self.now.after(Span(left)));
        self.arrivals += 1;
        let incoming = Incoming {
            owner,
            request_id: submit.request_id,
            submission: submit.submission,
            service,
            account,
            priority: submit.priority,
            terms,
            payload_bytes: bytes,
        };
        let task = self.tasks.insert(Task {
            runs_on: options.run_on,
            age: self.arrivals,
            kills_at_deadline: options.kill_at_deadline,
            start_at: self.now.after(Span(options.start_after_ns.unwrap_or(0))),
            deadline,
            body: Some(submit.body),
            ..Task::new(incoming, self.now)
        });
        if let Some(deadline) = deadline {
            let timer = self.timers.set(deadline, Wake::Task(task));
            self.tasks.at_mut(task.index()).timer = Some(timer);
        }
        self.bytes += kept + TASK_OVERHEAD_BYTES;
        let queue = self.services.at_mut(service);
        queue.tasks += 1;
        queue.bytes += bytes;
        task
    }

    #[inline]
    pub(crate) fn on_results_acknowledged(
        &mut self,
        key: ClientKey,
        count: u64,
        out: &mut impl Outbox<B>,
    ) {
        let mut shared = alloc::vec::Vec::new();
        let Some(client) = self.clients.get_mut(key) else { return };
        while let Some(taken) = client.results.next_acknowledged(count) {
            let task_key = match taken {
                InLine::Answer => continue,
                InLine::Result(key) => key,
                InLine::Update(update) => {
                    let bytes = self.progress.forget_stream(update);
                    client.results.remove_ahead(bytes);
                    client.stream_bytes -= bytes;
                    self.bytes -= bytes;
                    continue;
                }
            };
            let lead = self.tasks.get(task_key).and_then(Task::shares);
            let shared_bytes = lead.map_or(0, |lead| self.tasks.at(lead.index()).end_bytes());
            let Some(task) = self.tasks.get_mut(task_key) else { continue };
            task.owner = Owner::Nobody(client.peer_id);
            client.results.remove_ahead(task.end_bytes() + shared_bytes);
            client.tasks -= 1;
            client.bytes -= task.payload_bytes;
            client.remove_request(task.request_id, task_key);
            if !task.occupies {
                self.bytes -= task.kept_bytes();
                self.tasks.discard(task_key);
            }
            shared.extend(lead);
        }
        for lead in shared {
            self.release_shared(lead);
        }
        self.send_results(key, out);
        if !self.progress.holds_nobody() {
            self.let_go(out);
        }
    }

    pub(crate) fn on_cancel(
        &mut self,
        conn: Conn,
        cancel: CancelRequest,
        out: &mut impl Outbox<B>,
    ) {
        let Some(client) = self.client_of(conn, "CANCEL", out) else { return };
        let Some(key) = self.clients.at(client.index()).request(cancel.request_id) else { return };
        let task = self.tasks.at_mut(key.index());
        if cancel.submission < task.submission {
            return;
        }
        match task.state {
            TaskState::Pending | TaskState::Delayed => {
                let text = EndBody::Fixed("cancelled by its client before it was started");
                self.finish(key, Status::Cancelled, None, text, out);
            }
            TaskState::InFlight => self.stop_running(key, cancel.is_hard, out),
            TaskState::Following(lead) => {
                self.stop_following(key, lead, Some(cancel.is_hard), out);
            }
            TaskState::AwaitingEnd | TaskState::Ended => {}
        }
    }

    /// A task in flight is wanted no longer.
    pub(crate) fn stop_running(&mut self, key: TaskKey, is_hard: bool, out: &mut impl Outbox<B>) {
        let task = self.tasks.at_mut(key.index());
        let how = if is_hard { Cancel::Hard } else { Cancel::Soft };
        // Saying it again costs the worker nothing.
        if task.cancel < Some(how) {
            task.cancel = Some(how);
            self.ask_to_stop(key, is_hard, out);
        }
    }

    /// CANCEL of an attempt: to the supervisor, or to the worker where there is none.
    pub(crate) fn ask_to_stop(&mut self, key: TaskKey, is_hard: bool, out: &mut impl Outbox<B>) {
        let task = self.tasks.at(key.index());
        let Some(worker) = self.workers.get(task.worker) else { return };
        let attempt = self.attempt_of(key);
        let Some(conn) = self.overseer_conn(task.worker) else { return };
        let slot = worker.slot;
        out.send(conn, FromBroker::Cancel(CancelAttempt { slot, attempt, is_hard }));
    }

    /// Who acts on this worker's attempts has a new session: what it heard in the one before may be
    /// lost.
    pub(crate) fn repeat_cancels(&mut self, worker: WorkerKey, out: &mut impl Outbox<B>) {
        for key in self.held_by(worker.index()) {
            let task = self.tasks.at(key.index());
            if let Some(how) = task.cancel {
                self.ask_to_stop(key, how == Cancel::Hard, out);
            }
        }
    }

    /// A client is gone for good: what waits is cancelled, what runs runs out, results are dropped.
    pub(crate) fn drop_client(&mut self, key: ClientKey, out: &mut impl Outbox<B>) {
        for task_key in self.clients.at(key.index()).tasks_sorted() {
            let task = self.tasks.at(task_key.index());
            if let TaskState::Following(lead) = task.state {
                self.stop_following(task_key, lead, None, out);
                continue;
            }
            let has_not_started = matches!(task.state, TaskState::Pending | TaskState::Delayed);
            if has_not_started && !task.runs_on {
                let text = EndBody::Fixed("its client has been away for too long");
                self.finish(task_key, Status::Cancelled, None, text, out);
            }
        }
        self.disown(key);
        let Some(mut client) = self.clients.remove(key) else { return };
        self.peers.remove(&client.peer_id);
        if let Some(timer) = client.lost_timer.take() {
            self.timers.cancel(timer);
        }
        client.results.restart();
        while let Some(result) = client.results.next_unsent() {
            match result {
                InLine::Answer => {}
                InLine::Result(task) => self.forget_if_over(task),
                InLine::Update(update) => self.bytes -= self.progress.forget_stream(update),
            }
        }
        for task in client.latest {
            let waiting = self.progress.take_latest(task);
            self.drop_update(waiting);
        }
        if !self.progress.holds_nobody() {
            self.let_go(out);
        }
    }

    /// What has not ended goes on without its client.
    fn disown(&mut self, key: ClientKey) {
        let client = self.clients.at(key.index());
        let peer_id = client.peer_id;
        for task in client.tasks_sorted() {
            let task = self.tasks.at_mut(task.index());
            if task.state != TaskState::Ended {
                task.owner = Owner::Nobody(peer_id);
            }
        }
    }

    #[inline]
    pub(crate) fn client_of(
        &mut self,
        conn: Conn,
        command: &str,
        out: &mut impl Outbox<B>,
    ) -> Option<ClientKey> {
        match self.sessions.get(conn)?.peer {
            Peer::Client(key) => Some(key),
            Peer::Worker(_) | Peer::Host(_) => {
                let reason = alloc::format!("{command} is for clients");
                self.refuse_session(conn, RefusedCode::NotAllowed, &reason, out);
                None
            }
        }
    }
}

pub(crate) fn accepted<B>(
    conn: Conn,
    request_id: pinmesh_protocol::id::RequestId,
    task: TaskKey,
    out: &mut impl Outbox<B>,
) {
    out.send(conn, FromBroker::Accepted(Accepted { request_id, task: TaskId(task.bits()) }));
}
