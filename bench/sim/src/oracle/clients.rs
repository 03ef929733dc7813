//! What clients do: SUBMIT, CANCEL, FETCH, ACK; and being gone for good.

use pinmesh_core::{Body as _, Conn, ResultHead, Span, SubmitEvent};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::{CancelAttempt, CancelRequest, ServiceRef};
use pinmesh_protocol::id::{AttemptId, Dispatch, PeerId, TaskId};
use pinmesh_protocol::status::{RefusedCode, Status};

use super::book::{Age, InLine, State, Task, Who, WorkerNo};
use super::time::Due;
use super::{Expected, Oracle, names};
use crate::record::{Body, Effect, Sent};

/// What the budget counts for a task beside its payload, bytes.
pub(super) const TASK_BYTES: u64 = 512;

impl Oracle {
    /// The client of a session; a session of anybody else is refused.
    pub(super) fn client_of(&mut self, conn: Conn) -> Option<PeerId> {
        match self.sessions.get(&conn)?.who {
            Who::Client(id) => Some(id),
            Who::Worker(_) | Who::Host(_) => {
                self.refuse_session(conn, RefusedCode::NotAllowed);
                None
            }
        }
    }

    pub(super) fn on_submit(
        &mut self,
        conn: Conn,
        submit: &SubmitEvent<'_, Body>,
        effects: &[Effect],
    ) {
        let Some(id) = self.client_of(conn) else { return };
        self.ledger.submitted += 1;
        let known = self.clients[&id].requests.get(&submit.request_id).copied();
        if known.is_some_and(|age| self.is_known(conn, id, age, submit)) {
            return;
        }
        let service = match submit.service {
            ServiceRef::Alias(alias) => self.sessions[&conn].aliases.get(&alias).cloned(),
            ServiceRef::Name(name) => Some(name.to_owned()),
        };
        let Some(service) = service else {
            self.ledger.refused += 1;
            return self.refuse_session(conn, RefusedCode::Malformed);
        };
        // "Without ACKs everything is BUSY in the end, and then REFUSED with `window`": when is the
        // broker's choice, as long as it does not refuse who is inside the window.
        let refusal = Sent::Refused(RefusedCode::Window);
        let is_refused = effects.iter().any(|effect| match effect {
            Effect::Send { to, command } => *to == conn && *command == refusal,
            _ => false,
        });
        if is_refused && self.has_many_unacknowledged(id) {
            self.ledger.refused += 1;
            return self.refuse_session(conn, RefusedCode::Window);
        }
        let options = submit.options.clone().unwrap_or_default();
        let lead = options.key.as_ref().and_then(|key| self.lead_of(key));
        let usual = self.config.retry_after.0;
        let turned_away =
            lead.is_none().then(|| self.turned_away(conn, id, &service, submit, effects));
        match (self.objection_to(id, &service, submit, lead), turned_away.flatten()) {
            (Some(status), _) => self.reject(conn, submit, status, usual),
            (None, Some(retry_after)) => {
                self.reject(conn, submit, Status::Busy, retry_after);
            }
            (None, None) if options.key.is_some() => {
                self.accept_with_key((conn, id), service, submit, lead);
            }
            (None, None) => {
                let age = self.accept(id, service, submit);
                if let Some(task) = self.tasks.get_mut(&age) {
                    task.client = Some(id);
                }
                if let Some(client) = self.clients.get_mut(&id) {
                    client.requests.insert(submit.request_id, age);
                }
                if options.accepted {
                    self.expect(Expected::Accepted(conn, submit.request_id, age));
                }
                self.start(age, id, &options);
            }
        }
    }

    /// A task that has come in takes over what a worker brought along for it, or waits, for its start
    /// first.
    pub(super) fn start(&mut self, age: Age, id: PeerId, options: &TaskOptions) {
        if self.claim(age, id) {
            return;
        }
        let start_after = options.start_after_ns.unwrap_or(0);
        if start_after > 0
            && let Some(task) = self.tasks.get_mut(&age)
        {
            task.state = State::Delayed(self.now.saturating_add(start_after));
        }
    }

    /// A broker that expects a task to end after its deadline may say BUSY, if others of its client,
    /// service and priority wait. When to try again.
    fn turned_away(
        &self,
        conn: Conn,
        id: PeerId,
        service: &str,
        submit: &SubmitEvent<'_, Body>,
        effects: &[Effect],
    ) -> Option<u64> {
        submit.deadline_ns?;
        let account = &self.clients[&id].account;
        let mut waiting = self.tasks.values().filter(|task| task.state == State::Pending);
        waiting.find(|task| {
            (task.service.as_str(), &task.account, task.priority)
                == (service, account, submit.priority)
        })?;
        effects.iter().find_map(|effect| match effect {
            Effect::Result { to, head, .. }
                if *to == conn
                    && (head.request_id, head.submission)
                        == (submit.request_id, submit.submission)
                    && head.status == Status::Busy =>
            {
                head.retry_after_ns
            }
            _ => None,
        })
    }

    pub(super) fn has_many_unacknowledged(&self, id: PeerId) -> bool {
        let results = self.clients[&id].results.iter();
        let unacknowledged =
            results.filter(|told| !matches!(told, InLine::Update(_))).count() as u64;
        unacknowledged > u64::from(self.config.client_window_tasks)
    }

    /// A request that is held: nothing runs twice for it. `false`: it is a new task all the same.
    fn is_known(
        &mut self,
        conn: Conn,
        id: PeerId,
        age: Age,
        submit: &SubmitEvent<'_, Body>,
    ) -> bool {
        let Some(task) = self.tasks.get_mut(&age) else { return false };
        if submit.submission < task.submission {
            self.ledger.stale += 1;
            return true;
        }
        if submit.submission == task.submission {
            self.ledger.ignored += 1;
        } else {
            // These count for the submission that they name only, so the client will not take them.
            let ends = [Status::Cancelled, Status::NoService, Status::Lost];
            if task.end.as_ref().is_some_and(|end| ends.contains(&end.status)) {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.requests.remove(&submit.request_id);
                }
                return false;
            }
            task.submission = submit.submission;
            self.ledger.joined += 1;
        }
        if submit.options.as_ref().is_ok_and(|options| options.accepted || options.detached)
            && let Some(age) = self.followed(age)
        {
            self.expect(Expected::Accepted(conn, submit.request_id, age));
        }
        true
    }

    /// What is refused for ever comes before what may be tried again.
    fn objection_to(
        &self,
        id: PeerId,
        service: &str,
        submit: &SubmitEvent<'_, Body>,
        lead: Option<Age>,
    ) -> Option<Status> {
        let bytes = submit.body.payload_bytes();
        let options = submit.options.clone().unwrap_or_default();
        let is_named = matches!(submit.service, ServiceRef::Name(_));
        let has_bad_name = names::read(service).is_err();
        let room = self.config.services_max - self.config.services_max / 4;
        if is_named && (has_bad_name || !self.has_room_for(service, room))
            || submit.options.is_err()
            || bytes > self.config.payload_bytes_max
            || self.refuses_key(service, &options, lead)
        {
            return Some(Status::Refused);
        }
        let unfinished = self.tasks.values().filter(|task| task.client == Some(id));
        let (tasks, held) =
            unfinished.fold((0, 0), |(tasks, held), task| (tasks + 1, held + task.bytes));
        let is_past_window = tasks >= self.config.client_window_tasks
            || tasks > 0 && held + bytes > self.config.client_window_bytes;
        // The payload of a request that joins a task is dropped.
        let kept = if lead.is_some() { 0 } else { bytes };
        let is_past_budget = self.counts.bytes + kept + TASK_BYTES > self.config.memory_bytes_max;
        let is_past_service = self.is_past_service_limits(service, bytes, 0);
        let is_closed = lead.is_none() && (self.is_draining || is_past_service);
        (is_closed || is_past_window || is_past_budget || self.is_busy_with(&options, lead))
            .then_some(Status::Busy)
    }

    fn reject(
        &mut self,
        conn: Conn,
        submit: &SubmitEvent<'_, Body>,
        status: Status,
        retry_after: u64,
    ) {
        let is_busy = status == Status::Busy;
        *(if is_busy { &mut self.ledger.busy } else { &mut self.ledger.refused }) += 1;
        let head = ResultHead {
            request_id: submit.request_id,
            submission: submit.submission,
            status,
            tries: 0,
            stages: None,
            retry_after_ns: is_busy.then_some(retry_after),
        };
        self.answers.push((conn, head));
    }

    /// A task comes in, for nobody yet.
    pub(super) fn accept(
        &mut self,
        id: PeerId,
        service: String,
        submit: &SubmitEvent<'_, Body>,
    ) -> Age {
        self.ledger.accepted += 1;
        self.ledger.held += 1;
        self.tasks_seen += 1;
        let age = self.tasks_seen;
        let options = submit.options.clone().unwrap_or_default();
        // A task's own word, or else its service's, or else the broker's.
        let (usual, config) = (self.limits_of(&service).task_defaults, &self.config);
        let tries_max = [options.tries_max, usual.tries_max].into_iter().flatten().next();
        let one_of = |asked: Option<u64>, usual: Option<Span>, last: Span| {
            [asked, usual.map(|span| span.0)].into_iter().flatten().next().unwrap_or(last.0)
        };
        let max_runtime = one_of(options.max_runtime_ns, usual.max_runtime, config.max_runtime);
        let backoff = one_of(options.backoff_ns, usual.backoff, config.backoff);
        let backoff_max = one_of(options.backoff_max_ns, usual.backoff_max, config.backoff_max);
        let task = Task {
            client: None,
            asked_by: id,
            runs_on: options.run_on,
            key: None,
            follows: None,
            request: submit.request_id,
            submission: submit.submission,
            service,
            account: self.clients.get(&id).map(|client| client.account.clone()).unwrap_or_default(),
            priority: submit.priority,
            is_at_most_once: options.at_most_once,
            kills_at_deadline: options.kill_at_deadline,
            cancelled: None,
            is_closed: false,
            state: State::Pending,
            holder: None,
            dispatch: Dispatch(0),
            attempt: AttemptId::default(),
            sent_to: None,
            is_listed: false,
            tries: 0,
            crashes: 0,
            crash: None,
            replay_of: None,
            replay_client: None,
            tries_max: tries_max.unwrap_or(config.tries_max),
            backoff,
            backoff_max,
            received_at: self.now,
            order: self.event,
            queued_at: self.now,
            pending_since: self.now,
            sent_at: self.now,
            deadline: submit.deadline_ns.map(|left| self.now.saturating_add(left)),
            max_runtime,
            bytes: submit.body.payload_bytes(),
            end: None,
            said: (Dispatch(0), 0),
            latest: None,
            is_told: false,
            id: None,
        };
        self.tasks.insert(age, task);
        age
    }

    pub(super) fn on_cancel(&mut self, conn: Conn, cancel: CancelRequest) {
        let Some(id) = self.client_of(conn) else { return };
        let Some(age) = self.clients[&id].requests.get(&cancel.request_id).copied() else { return };
        let Some(task) = self.tasks.get_mut(&age) else { return };
        if cancel.submission < task.submission {
            return;
        }
        match task.state {
            State::Pending | State::Delayed(_) => self.end(age, Status::Cancelled),
            State::InFlight => self.stop_running(age, cancel.is_hard),
            State::Following => self.stop_following(age, Some(cancel.is_hard)),
            State::Awaiting(_) | State::Ended => {}
        }
    }

    /// A task in flight is wanted no longer: what asks for no more than was asked for is not said.
    pub(super) fn stop_running(&mut self, age: Age, is_hard: bool) {
        let Some(task) = self.tasks.get_mut(&age) else { return };
        let is_news = match task.cancelled {
            None => true,
            Some(was_hard) => is_hard && !was_hard,
        };
        if is_news {
            task.cancelled = Some(is_hard);
            self.ask_to_stop(age, is_hard);
        }
    }

    /// What is cancelled and held there, its outcome known or not, is cancelled again: behind the first HOST of a
    /// session, and behind the READY of a worker without a supervisor.
    pub(super) fn cancel_again(&mut self, number: WorkerNo) {
        for age in self.workers[&number].holds.clone() {
            let task = &self.tasks[&age];
            if let Some(is_hard) = task.cancelled {
                self.ask_to_stop(age, is_hard);
            }
        }
    }

    /// CANCEL: to the supervisor, or to the worker where there is none.
    pub(super) fn ask_to_stop(&mut self, age: Age, is_hard: bool) {
        let Some(task) = self.tasks.get(&age) else { return };
        let (attempt, number) = (task.attempt, task.sent_to);
        if let Some(number) = number {
            self.expect_cancel(number, attempt, is_hard);
        }
    }

    pub(super) fn expect_cancel(&mut self, number: u64, attempt: AttemptId, is_hard: bool) {
        let Some(worker) = self.workers.get(&number) else { return };
        let to = match worker.host {
            None => worker.conn,
            Some(host) => self.hosts.get(&host).and_then(|host| host.conn),
        };
        let cancel = CancelAttempt { slot: worker.slot, attempt, is_hard };
        if let Some(to) = to {
            self.expect(Expected::Sent(to, Sent::Cancel(cancel)));
        }
    }

    /// "I have taken the first n": of more than were sent, all.
    pub(super) fn on_results_taken(&mut self, id: PeerId, count: u64) {
        self.take_results(id, count);
        self.let_go();
    }

    fn take_results(&mut self, id: PeerId, count: u64) {
        loop {
            let Some(client) = self.clients.get_mut(&id) else { return };
            if client.acknowledged >= count {
                return;
            }
            let Some(result) = client.results.pop_front() else { return };
            client.acknowledged += 1;
            let InLine::Result(age) = result else { continue };
            let Some(task) = self.tasks.get_mut(&age) else { continue };
            task.client = None;
            let request = task.request;
            if client.requests.get(&request) == Some(&age) {
                client.requests.remove(&request);
            }
            self.forget_if_over(age);
        }
    }

    /// The client is gone for good: what waits is cancelled, what runs runs out, what has ended is
    /// dropped.
    pub(super) fn drop_client(&mut self, id: PeerId) {
        let is_its = |task: &Task| task.client == Some(id);
        let ages: Vec<Age> =
            self.tasks.iter().filter(|(_, task)| is_its(task)).map(|(age, _)| *age).collect();
        for age in ages {
            let task = &self.tasks[&age];
            if task.state == State::Following {
                self.stop_following(age, None);
            } else if matches!(task.state, State::Pending | State::Delayed(_)) && !task.runs_on {
                let others = [Due::Deadline(age), Due::NoService(age)];
                self.ambiguous += u64::from(others.iter().any(|due| self.may_happen(*due)));
                self.end(age, Status::Cancelled);
            }
            if let Some(task) = self.tasks.get_mut(&age) {
                task.client = None;
                task.latest = None;
            }
            self.forget_if_over(age);
        }
        self.clients.remove(&id);
        self.let_go();
    }

    /// The number of a task that has just come in.
    pub(super) fn learn_id(&mut self, age: Age, id: TaskId) {
        if let Some(task) = self.tasks.get_mut(&age) {
            task.id = Some(id);
            if task.attempt == AttemptId::default() {
                task.attempt = AttemptId { epoch: self.config.epoch, task: id, ..task.attempt };
            }
            self.ids.insert(id, age);
        }
    }
}
