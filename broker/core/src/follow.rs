//! Requests with an idempotency key, from SUBMIT or FETCH to the outcome of the task that they
//! follow. See [`crate::keys`].

use alloc::boxed::Box;

use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::{Fetch, Fetched, FromBroker};
use pinmesh_protocol::id::{Priority, RequestId, Submission};
use pinmesh_protocol::status::{FetchState, RefusedCode, Status};

use crate::admission::Rejection;
use crate::client::InLine;
use crate::event::{Body, Conn, SubmitEvent};
use crate::keys::is_kept;
use crate::on_client::Renewal;
use crate::outbox::Outbox;
use crate::slab::{ClientKey, Key, ServiceKey, TaskKey};
use crate::state::{State, Wake};
use crate::task::{End, EndBody, Incoming, Owner, TASK_OVERHEAD_BYTES, Task, TaskState, Terms};
use crate::time::Span;

/// Whether a request has a key, and one that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyOf {
    None,
    New,
    Known(TaskKey),
}

/// A request that is to follow a task.
struct Follower {
    client: ClientKey,
    request_id: RequestId,
    submission: Submission,
    priority: Priority,
    bytes: u64,
    /// It is a SUBMIT, and no FETCH: the task is cancelled with the last of them.
    is_submitted: bool,
}

impl<B: Body> State<B> {
    #[inline]
    pub(crate) fn key_of(&self, submit: &SubmitEvent<'_, B>) -> KeyOf {
        let key = submit.options.as_ref().ok().and_then(|options| options.key.as_ref());
        match key.map(|key| self.keys.find(key)) {
            None => KeyOf::None,
            Some(None) => KeyOf::New,
            Some(Some(lead)) => KeyOf::Known(lead),
        }
    }

    /// What a request may not ask for.
    #[inline]
    pub(crate) fn refusal_of_key(
        &self,
        service: ServiceKey,
        options: &TaskOptions,
        key: KeyOf,
    ) -> Option<&'static str> {
        if key == KeyOf::None {
            return (options.detached || options.retention_ns.is_some())
                .then_some("options: detached and retention_ns need a key");
        }
        if options.retention_ns.is_some_and(|kept| kept > self.config.kept_max.0) {
            return Some("options: retention_ns is longer than tasks.retention_max of the broker");
        }
        let KeyOf::Known(lead) = key else { return None };
        let is_same = self
            .keys
            .lead(lead)
            .is_some_and(|lead| *lead.service == *self.services.at(service).name);
        (!is_same).then_some("options: a task of another service has this key")
    }

    /// Why a request with a key may not come in now.
    #[inline]
    pub(crate) fn busy_with_key(&self, key: KeyOf) -> Option<&'static str> {
        match key {
            KeyOf::None => None,
            KeyOf::New => {
                let (count, bytes) = (self.config.keys_max, self.config.keys_bytes_max);
                (!self.keys.has_room(count, bytes)).then_some(
                    "no room for another idempotency key; raise limits.keys or limits.keys_bytes",
                )
            }
            KeyOf::Known(lead) => {
                let task = self.tasks.at(lead.index());
                let is_stopping = task.state != TaskState::Ended && task.cancel.is_some();
                is_stopping.then_some("the task with its key is being cancelled")
            }
        }
    }

    /// A request with a key comes in: it joins the task that has it, or calls one into being.
    pub(crate) fn accept_with_key(
        &mut self,
        (conn, client): (Conn, ClientKey),
        service: ServiceKey,
        submit: SubmitEvent<'_, B>,
        known: KeyOf,
        out: &mut impl Outbox<B>,
    ) {
        let mut options = submit.options.clone().unwrap_or_default();
        let follower = Follower {
            client,
            request_id: submit.request_id,
            submission: submit.submission,
            priority: submit.priority,
            bytes: submit.body.payload_bytes(),
            is_submitted: true,
        };
        let usual = if options.detached { self.config.detached_kept } else { self.config.key_kept };
        let kept = options.retention_ns.map_or(usual.min(self.config.kept_max), Span);
        let lead = match known {
            KeyOf::Known(lead) => {
                self.ledger.joined += 1;
                lead
            }
            KeyOf::New | KeyOf::None => {
                let state = self.clients.at(client.index());
                let (owner, account) = (Owner::Key(state.peer_id), state.account);
                let lead = self.insert_task(owner, account, service, submit);
                let key = options.key.take().unwrap_or_default();
                let name: Box<str> = self.services.at(service).name.as_str().into();
                self.bytes += self.keys.insert(lead, key, name, kept);
                lead
            }
        };
        let task = self.tasks.at_mut(lead.index());
        let has_ended = task.state == TaskState::Ended;
        if !has_ended {
            task.runs_on |= options.detached || options.run_on;
            self.keys.keep_for(lead, kept);
        }
        if options.accepted || options.detached {
            crate::on_client::accepted(conn, follower.request_id, lead, out);
        }
        self.follow(follower, lead, out);
        if matches!(known, KeyOf::New) {
            self.start(lead, out);
        }
    }

    /// A request waits for that task from now on, or is told at once how it has ended.
    fn follow(&mut self, follower: Follower, lead: TaskKey, out: &mut impl Outbox<B>) {
        let Follower { client, request_id, submission, priority, bytes, is_submitted } = follower;
        let state = self.clients.at(client.index());
        let (account, service) = (state.account, self.tasks.at(lead.index()).service);
        let incoming = Incoming {
            owner: Owner::Client(client),
            request_id,
            submission,
            service,
            account,
            priority,
            terms: Terms::UNUSED,
            payload_bytes: bytes,
        };
        let key = self.tasks.insert(Task {
            is_follower: true,
            state: TaskState::Following(lead),
            ..Task::new(incoming, self.now)
        });
        self.bytes += TASK_OVERHEAD_BYTES;
        let state = self.clients.at_mut(client.index());
        state.tasks += 1;
        state.bytes += bytes;
        state.insert_request(request_id, key);
        if self.tasks.at(lead.index()).state == TaskState::Ended {
            self.tell_follower(key, lead, out);
        } else {
            self.keys.join(lead, key, is_submitted);
        }
    }

    /// The task of a key has ended: all who wait for it are told, and its outcome is kept if later
    /// requests are to get it too.
    pub(crate) fn end_for_followers(&mut self, key: TaskKey, out: &mut impl Outbox<B>) {
        let task = self.tasks.at(key.index());
        let status = task.end.as_ref().map(|end| end.status);
        // The mesh's own words are short, and part of what each key is counted for.
        let end_bytes = match task.end.as_ref().map(|end| &end.body) {
            Some(EndBody::Handler(body)) => body.kept_bytes(),
            _ => 0,
        };
        for follower in self.keys.end(key, end_bytes) {
            self.tell_follower(follower, key, out);
        }
        if let Some(lead) = self.keys.lead(key).filter(|_| status.is_some_and(is_kept)) {
            let timer = self.timers.set(self.now.after(lead.kept), Wake::Task(key));
            self.tasks.at_mut(key.index()).timer = Some(timer);
        } else {
            self.forget_key(key);
        }
    }

    fn tell_follower(&mut self, key: TaskKey, lead: TaskKey, out: &mut impl Outbox<B>) {
        let of = self.tasks.at(lead.index());
        let Some(end) = of.end.as_ref() else { return };
        let (status, stages, tries) = (end.status, end.stages, of.tries);
        self.keys.tell(lead);
        self.tasks.at_mut(key.index()).tries = tries;
        self.end_follower(key, End { status, stages, body: EndBody::Shared(lead) }, out);
    }

    fn end_follower(&mut self, key: TaskKey, end: End<B>, out: &mut impl Outbox<B>) {
        let task = self.tasks.at_mut(key.index());
        task.state = TaskState::Ended;
        task.end = Some(end);
        let Some(client) = task.client() else { unreachable!("a follower is a client's") };
        self.clients.at_mut(client.index()).results.push(InLine::Result(key));
        self.send_results(client, out);
    }

    /// A request waits for its task no longer. The task goes with the last of them, unless it is to
    /// run on: `is_hard` says how, and `None` that what runs is left alone.
    pub(crate) fn stop_following(
        &mut self,
        key: TaskKey,
        lead: TaskKey,
        is_hard: Option<bool>,
        out: &mut impl Outbox<B>,
    ) {
        let is_last = self.keys.leave(lead, key);
        let text = match is_hard {
            Some(_) => "cancelled by its client",
            None => "its client has been away for too long",
        };
        let end = End { status: Status::Cancelled, stages: None, body: EndBody::Fixed(text) };
        self.end_follower(key, end, out);
        let task = self.tasks.at(lead.index());
        if !is_last || task.runs_on {
            return;
        }
        match (task.state, is_hard) {
            (TaskState::Pending | TaskState::Delayed, _) => {
                let text = EndBody::Fixed("nobody waits for it any more");
                self.finish(lead, Status::Cancelled, None, text, out);
            }
            (TaskState::InFlight, Some(is_hard)) => self.stop_running(lead, is_hard, out),
            (TaskState::InFlight, None)
            | (TaskState::AwaitingEnd | TaskState::Following(_) | TaskState::Ended, _) => {}
        }
    }

    /// One that was told how that task has ended needs it no more.
    pub(crate) fn release_shared(&mut self, lead: TaskKey) {
        if self.keys.acknowledge(lead) {
            self.forget_lead(lead);
        }
    }

    /// The time of a key is over: the next request with it is a new task.
    pub(crate) fn forget_key(&mut self, key: TaskKey) {
        if let Some(timer) = self.tasks.at_mut(key.index()).timer.take() {
            self.timers.cancel(timer);
        }
        if self.keys.unlist(key) {
            self.forget_lead(key);
        }
    }

    fn forget_lead(&mut self, key: TaskKey) {
        self.bytes -= self.keys.remove(key);
        let task = self.tasks.at_mut(key.index());
        if let Owner::Key(peer_id) = task.owner {
            task.owner = Owner::Nobody(peer_id);
        }
        self.forget_if_over(key);
    }

    /// Whether a task is held for nothing but requests that may come with its key.
    pub(crate) fn is_in_store(&self, key: TaskKey) -> bool {
        let task = self.tasks.at(key.index());
        task.state == TaskState::Ended && !task.occupies && self.keys.is_in_store(key)
    }

    /// The task that a request stands for: its own, or the one that it follows; `None`: it follows
    /// none any more.
    pub(crate) fn followed(&self, key: TaskKey) -> Option<TaskKey> {
        let task = self.tasks.at(key.index());
        match task.state {
            TaskState::Following(lead) => Some(lead),
            TaskState::Pending
            | TaskState::Delayed
            | TaskState::InFlight
            | TaskState::AwaitingEnd
            | TaskState::Ended => task.shares().or((!task.is_follower).then_some(key)),
        }
    }

    /// FETCH: the outcome of the task of a key. It neither calls a task into being nor cancels one.
    pub(crate) fn on_fetch(&mut self, conn: Conn, fetch: &Fetch<'_>, out: &mut impl Outbox<B>) {
        let Some(client) = self.client_of(conn, "FETCH", out) else { return };
        let Fetch { request_id, submission, key, waits } = *fetch;
        if let Some(task) = self.clients.at(client.index()).request(request_id)
            && self.renew(client, task, submission) != Renewal::Void
        {
            return;
        }
        let state = self.clients.at(client.index());
        if !self.has_room_for_answers(state) {
            let reason = "too many unacknowledged results; send ACK";
            return self.refuse_session(conn, RefusedCode::Window, reason, out);
        }
        let is_past_window = state.tasks >= self.config.client_window_tasks;
        let mut tell = |state| {
            let fetched = Fetched { request_id, submission, state };
            out.send(conn, FromBroker::Fetched(fetched));
        };
        let Some(lead) = self.keys.find(key) else { return tell(FetchState::Unknown) };
        if !waits && self.tasks.at(lead.index()).state != TaskState::Ended {
            return tell(FetchState::Pending);
        }
        let rejection: Option<Rejection> = if is_past_window {
            Some(Rejection::busy("client window of tasks exceeded"))
        } else {
            self.objection_to_memory(0)
        };
        if let Some(rejection) = rejection {
            return self.answer(client, (request_id, submission), rejection, out);
        }
        let follower = Follower {
            client,
            request_id,
            submission,
            priority: Priority::default(),
            bytes: 0,
            is_submitted: false,
        };
        self.follow(follower, lead, out);
    }
}
