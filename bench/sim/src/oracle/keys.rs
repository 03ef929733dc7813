//! Idempotency keys: requests with the same one follow one task, and get its outcome, which is kept
//! for a while.

use pinmesh_core::{Body as _, Conn, ResultHead, SubmitEvent};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::{Fetch, Fetched};
use pinmesh_protocol::id::{Dispatch, PeerId, Priority, RequestId, Submission};
use pinmesh_protocol::status::{FetchState, RefusedCode, Status};

use super::book::{Age, End, Follows, Key, State, Task};
use super::clients::TASK_BYTES;
use super::time::Due;
use super::{Expected, Oracle};
use crate::record::{Body, Effect, Said, Sent};

/// What the budget counts for a key beside its bytes and the name of its service.
const KEY_BYTES: u64 = 256;

impl Key {
    /// What the budget counts for it.
    pub(super) fn cost(&self, service: &str) -> u64 {
        KEY_BYTES + (self.bytes.len() + service.len()) as u64
    }
}

impl Oracle {
    /// The task that a request with this key gets the outcome of.
    pub(super) fn lead_of(&self, key: &[u8]) -> Option<Age> {
        let is_it = |of: &Key| of.is_listed && *of.bytes == *key;
        let mut leads = self.tasks.iter().filter(|(_, task)| task.key.as_ref().is_some_and(is_it));
        leads.next().map(|(age, _)| *age)
    }

    /// The task that a request stands for, unless it follows none any more.
    pub(super) fn followed(&self, age: Age) -> Option<Age> {
        let task = self.tasks.get(&age)?;
        match task.follows {
            None => Some(age),
            Some(follows) => {
                (follows.shares || task.state == State::Following).then_some(follows.lead)
            }
        }
    }

    pub(super) fn followers(&self, lead: Age) -> impl Iterator<Item = (Age, &Task)> {
        let its = self.tasks.iter().map(|(age, task)| (*age, task));
        its.filter(move |(_, task)| {
            task.state == State::Following && task.follows.is_some_and(|it| it.lead == lead)
        })
    }

    /// Whether a request that was handed in waits for that task; FETCH keeps nothing going.
    fn is_waited_for(&self, lead: Age) -> bool {
        self.followers(lead).any(|(_, task)| task.follows.is_some_and(|it| it.is_submitted))
    }

    /// Whether another attempt of a task is worth its while.
    pub(super) fn is_wanted(&self, age: Age) -> bool {
        let Some(task) = self.tasks.get(&age) else { return false };
        task.runs_on || task.client.is_some() || self.is_waited_for(age)
    }

    /// The task of a key is cancelled in a tick: whoever has waited for it is gone for good.
    pub(super) fn drop_who_waits(&mut self, lead: Age) {
        let clients = self.followers(lead).filter_map(|(_, task)| task.client);
        for due in clients.map(Due::Dropped).collect::<Vec<_>>() {
            if self.latest(due).is_some_and(|at| at <= self.now) {
                self.happen(due);
            }
        }
    }

    /// What is asked of a key can never be had.
    pub(super) fn refuses_key(
        &self,
        service: &str,
        options: &TaskOptions,
        lead: Option<Age>,
    ) -> bool {
        if options.key.is_none() {
            return options.detached || options.retention_ns.is_some();
        }
        options.retention_ns.is_some_and(|kept| kept > self.config.kept_max.0)
            || lead.is_some_and(|lead| self.tasks[&lead].service != service)
    }

    /// Its task is being cancelled, or there is no room for one more key.
    pub(super) fn is_busy_with(&self, options: &TaskOptions, lead: Option<Age>) -> bool {
        if let Some(lead) = lead {
            let task = &self.tasks[&lead];
            return task.state != State::Ended && task.cancelled.is_some();
        }
        let keyed = self.tasks.values().filter_map(|task| Some((task, task.key.as_ref()?)));
        let bytes = keyed.clone().map(|(task, key)| {
            let said = task.end.as_ref().and_then(|end| end.said.as_ref());
            let words = match said {
                Some(Said::Handler(bytes)) => bytes.len() as u64,
                Some(Said::Text(_)) | None => 0,
            };
            key.cost(&task.service) + words
        });
        options.key.is_some()
            && (keyed.count() >= self.config.keys_max as usize
                || bytes.sum::<u64>() >= self.config.keys_bytes_max)
    }

    /// A request with a key: it joins the task that has it, or brings it about.
    pub(super) fn accept_with_key(
        &mut self,
        (conn, id): (Conn, PeerId),
        service: String,
        submit: &SubmitEvent<'_, Body>,
        lead: Option<Age>,
    ) {
        let options = submit.options.clone().unwrap_or_default();
        let usual = match options.detached {
            true => self.config.detached_kept,
            false => self.config.key_kept,
        };
        let kept = options.retention_ns.unwrap_or(usual.0.min(self.config.kept_max.0));
        let age = lead.unwrap_or_else(|| {
            let age = self.accept(id, service, submit);
            let bytes = options.key.clone().unwrap_or_default();
            if let Some(task) = self.tasks.get_mut(&age) {
                task.key = Some(Key { bytes, is_listed: true, kept, until: None });
            }
            age
        });
        self.ledger.joined += u64::from(lead.is_some());
        if let Some(task) = self.tasks.get_mut(&age).filter(|task| task.state != State::Ended) {
            task.runs_on |= options.detached || options.run_on;
            if let Some(key) = &mut task.key {
                key.kept = key.kept.max(kept);
            }
        }
        if options.accepted || options.detached {
            self.expect(Expected::Accepted(conn, submit.request_id, age));
        }
        let request = (submit.request_id, submit.submission);
        self.add_follower(id, request, (submit.body.payload_bytes(), true), age);
        if lead.is_none() {
            self.start(age, id, &options);
        }
    }

    fn add_follower(
        &mut self,
        id: PeerId,
        (request, submission): (RequestId, Submission),
        (bytes, is_submitted): (u64, bool),
        lead: Age,
    ) {
        self.tasks_seen += 1;
        let age = self.tasks_seen;
        let of = self.tasks[&lead].clone();
        let follower = Task {
            client: Some(id),
            asked_by: id,
            runs_on: false,
            key: None,
            follows: Some(Follows { lead, is_submitted, shares: false }),
            request,
            submission,
            priority: Priority::default(),
            cancelled: None,
            state: State::Following,
            holder: None,
            dispatch: Dispatch(0),
            attempt: pinmesh_protocol::id::AttemptId::default(),
            sent_to: None,
            is_listed: false,
            tries: 0,
            deadline: None,
            bytes,
            end: None,
            latest: None,
            is_told: false,
            id: None,
            ..of
        };
        self.tasks.insert(age, follower);
        if let Some(client) = self.clients.get_mut(&id) {
            client.requests.insert(request, age);
        }
        if self.tasks[&lead].state == State::Ended {
            self.share(age, lead);
        }
    }

    /// A request ends as the task of its key has.
    fn share(&mut self, age: Age, lead: Age) {
        let of = &self.tasks[&lead];
        let (end, tries) = (of.end.clone(), of.tries);
        let Some(task) = self.tasks.get_mut(&age) else { return };
        (task.state, task.end, task.tries) = (State::Ended, end, tries);
        if let Some(follows) = &mut task.follows {
            follows.shares = true;
        }
    }

    /// A task has ended, and so have all requests that wait for it. Its outcome is kept, if it is
    /// the task's own.
    pub(super) fn end_for_followers(&mut self, lead: Age, status: Status) {
        let Some(task) = self.tasks.get(&lead).filter(|task| task.key.is_some()) else { return };
        let kept = task.key.as_ref().map_or(0, |key| key.kept);
        let waiting: Vec<Age> = self.followers(lead).map(|(age, _)| age).collect();
        waiting.into_iter().for_each(|age| self.share(age, lead));
        if matches!(status, Status::Cancelled | Status::NoService) {
            return self.unlist_key(lead);
        }
        let until = self.now.saturating_add(kept);
        if let Some(key) = self.tasks.get_mut(&lead).and_then(|task| task.key.as_mut()) {
            key.until = Some(until);
        }
    }

    /// The next request with this key is for another task.
    pub(super) fn unlist_key(&mut self, lead: Age) {
        if let Some(key) = self.tasks.get_mut(&lead).and_then(|task| task.key.as_mut()) {
            key.is_listed = false;
            key.until = None;
        }
        self.forget_key_if_over(lead);
    }

    /// A key is kept while it is listed, and while somebody has not acknowledged its outcome.
    pub(super) fn forget_key_if_over(&mut self, lead: Age) {
        let shares = |task: &Task| task.follows.is_some_and(|it| it.lead == lead && it.shares);
        let is_shared = self.tasks.values().any(shares);
        let Some(task) = self.tasks.get_mut(&lead) else { return };
        let is_listed = task.key.as_ref().is_some_and(|key| key.is_listed);
        if task.state == State::Ended && !is_listed && !is_shared {
            task.key = None;
            self.forget_if_over(lead);
        }
    }

    /// A request does not wait any longer: it was cancelled, hard or not, or its client is gone.
    pub(super) fn stop_following(&mut self, age: Age, is_hard: Option<bool>) {
        let Some(task) = self.tasks.get_mut(&age) else { return };
        task.state = State::Ended;
        task.end = Some(End { status: Status::Cancelled, stages: None, said: None });
        let Some(Follows { lead, is_submitted, .. }) = task.follows else { return };
        let is_last = is_submitted && !self.is_waited_for(lead);
        let Some(task) = self.tasks.get(&lead).filter(|task| is_last && !task.runs_on) else {
            return;
        };
        match (task.state, is_hard) {
            (State::Pending | State::Delayed(_), _) => {
                if is_hard.is_none() {
                    let others = [Due::Deadline(lead), Due::NoService(lead)];
                    self.ambiguous += u64::from(others.iter().any(|due| self.may_happen(*due)));
                }
                self.end(lead, Status::Cancelled);
            }
            (State::InFlight, Some(is_hard)) => self.stop_running(lead, is_hard),
            (State::InFlight | State::Awaiting(_) | State::Following | State::Ended, _) => {}
        }
    }

    pub(super) fn on_fetch(&mut self, conn: Conn, fetch: &Fetch<'_>, effects: &[Effect]) {
        let Some(id) = self.client_of(conn) else { return };
        let Fetch { request_id, submission, key, waits } = *fetch;
        let known = self.clients[&id].requests.get(&request_id).copied();
        if let Some(task) = known.and_then(|age| self.tasks.get_mut(&age)) {
            let ends = [Status::Cancelled, Status::NoService, Status::Lost];
            let is_void = task.end.as_ref().is_some_and(|end| ends.contains(&end.status));
            if submission <= task.submission || !is_void {
                task.submission = task.submission.max(submission);
                return;
            }
            if let Some(client) = self.clients.get_mut(&id) {
                client.requests.remove(&request_id);
            }
        }
        let refusal = Sent::Refused(RefusedCode::Window);
        let is_refused = effects.iter().any(|effect| match effect {
            Effect::Send { to, command } => *to == conn && *command == refusal,
            _ => false,
        });
        if is_refused && self.has_many_unacknowledged(id) {
            return self.refuse_session(conn, RefusedCode::Window);
        }
        let lead = self.lead_of(key);
        let state = match lead.map(|lead| self.tasks[&lead].state) {
            None => Some(FetchState::Unknown),
            Some(State::Ended) => None,
            Some(_) => (!waits).then_some(FetchState::Pending),
        };
        if let Some(state) = state {
            let fetched = Fetched { request_id, submission, state };
            return self.expect(Expected::Sent(conn, Sent::Fetched(fetched)));
        }
        let its = self.tasks.values().filter(|task| task.client == Some(id)).count();
        let is_busy = its >= self.config.client_window_tasks as usize
            || self.counts.bytes + TASK_BYTES > self.config.memory_bytes_max;
        if is_busy {
            let head = ResultHead {
                request_id,
                submission,
                status: Status::Busy,
                tries: 0,
                stages: None,
                retry_after_ns: Some(self.config.retry_after.0),
            };
            return self.answers.push((conn, head));
        }
        if let Some(lead) = lead {
            self.add_follower(id, (request_id, submission), (0, false), lead);
        }
    }
}
