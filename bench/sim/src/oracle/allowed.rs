//! Which task may go to which worker, and which must not wait.

use std::collections::BTreeMap;

use pinmesh_core::{Conn, TaskHead};

use pinmesh_protocol::id::{AttemptId, Priority};

use super::Oracle;
use super::book::{Age, Presence, State, Task, Who, Worker, WorkerNo};

impl Oracle {
    /// Follows a TASK that the broker has sent.
    pub(super) fn on_task(&mut self, to: Conn, head: &TaskHead, bytes: u64) -> Result<(), String> {
        let Some(age) = self.ids.get(&head.task).copied() else {
            return Err(format!("TASK {}: there is no such task", head.task));
        };
        let number = match self.sessions.get(&to).map(|session| session.who) {
            Some(Who::Worker(number)) => number,
            other => return Err(format!("TASK {}: {to:?} is no worker but {other:?}", head.task)),
        };
        self.note_passed_over();
        // Parts of this event that are yet to come may make room for it.
        while self.objection_to_worker(number, bytes).is_some()
            && let Some(piece) = self.pieces.pop_front()
        {
            self.follow_piece(piece);
            self.note_passed_over();
        }
        if let Some(why) = self.objection_to_worker(number, bytes) {
            return Err(format!("TASK {} to {number}: {why}", head.task));
        }
        let service = self.tasks[&age].service.clone();
        while let Some(why) = self.objection_to_service(&service) {
            let Some(piece) = self.pieces.pop_front() else {
                return Err(format!("TASK {} to {number}: {why}", head.task));
            };
            self.follow_piece(piece);
            self.note_passed_over();
        }
        if let Some(why) = self.objection_to_task(age, number) {
            return Err(format!("TASK {} to {number}: {why}", head.task));
        }
        let expected = self.head_of(age, number, head);
        let task = &self.tasks[&age];
        if *head != expected || bytes != task.bytes {
            return Err(format!("TASK should be {expected:?} of {} bytes", task.bytes));
        }
        if let Some(why) = self.objection_to_choice(number, bytes) {
            return Err(format!("TASK {} to {number}: {why}", head.task));
        }
        self.hold(age, number);
        self.take_token(&service);
        // It was unparked less than a grain before its time was noted here.
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.parked_until = None;
        }
        let (epoch, now) = (self.config.epoch, self.now);
        if let Some(task) = self.tasks.get_mut(&age) {
            task.dispatch = head.dispatch;
            task.attempt = AttemptId { epoch, task: head.task, dispatch: head.dispatch };
            task.sent_at = now;
        }
        self.ledger.dispatched += 1;
        while let Some(why) = self.objection_to_backlog(number, to) {
            let Some(piece) = self.pieces.pop_front() else { return Err(why) };
            self.follow_piece(piece);
        }
        Ok(())
    }

    fn head_of(&self, age: Age, number: WorkerNo, real: &TaskHead) -> TaskHead {
        let (task, worker) = (&self.tasks[&age], &self.workers[&number]);
        let alias = real.service_alias;
        let first = worker.place_of(&task.service);
        let named = first.map(|first| &worker.services[first]);
        let is_its_alias = worker.services.get(alias as usize) == named && named.is_some();
        let mut dispatch = task.dispatch;
        dispatch.0 += 1;
        TaskHead {
            task: real.task,
            dispatch,
            client_id: task.asked_by,
            request_id: task.request,
            submission: task.submission,
            service_alias: if is_its_alias { alias } else { first.unwrap_or(0) as u32 },
            tries: task.tries,
            deadline_ns: task.deadline.map(|at| at.saturating_sub(self.now)),
            max_runtime_ns: task.max_runtime,
        }
    }

    /// Why the worker may not be sent a task of so many bytes, if it may not.
    fn objection_to_worker(&self, number: WorkerNo, bytes: u64) -> Option<String> {
        let worker = &self.workers[&number];
        let has_lease =
            worker.host.is_none_or(|host| self.hosts.get(&host).is_some_and(|host| host.has_lease));
        let (tasks_max, bytes_max) = self.window_of(worker);
        let (tasks, held) = self.load_of(worker);
        let all = tasks + self.beside(number);
        let why = if worker.presence != Presence::Serving || worker.conn.is_none() {
            format!("it does not serve yet, or any more: {:?}", worker.presence)
        } else if !has_lease {
            "its host has no lease, or has not said HOST".into()
        } else if worker.conn.is_some_and(|conn| self.sessions[&conn].held.is_some()) {
            "it is held up by a client that does not take its updates".into()
        } else if worker.is_full {
            "its batch could not be sent".into()
        } else if worker.is_recalled {
            "it was recalled, and its first task has not ended since".into()
        } else if worker.parked_until.is_some_and(|until| until > self.now) {
            "it gave a task back less than a heartbeat ago".into()
        } else if all >= u64::from(tasks_max) {
            format!("its window of {tasks_max} tasks is full: it holds {all}")
        } else if tasks > 0 && held + bytes > bytes_max {
            format!("{held} and {bytes} bytes are beyond its window of {bytes_max}")
        } else {
            return None;
        };
        Some(why)
    }

    fn window_of(&self, worker: &Worker) -> (u32, u64) {
        let (tasks, bytes) = worker.own_window;
        (tasks.min(self.config.worker_window_tasks), bytes.min(self.config.worker_window_bytes))
    }

    /// Tasks and bytes that it holds.
    fn load_of(&self, worker: &Worker) -> (u64, u64) {
        let bytes = worker.holds.iter().map(|age| self.tasks[age].bytes).sum();
        (worker.holds.len() as u64, bytes)
    }

    /// Why the task is not the next one for this worker, if it is not.
    fn objection_to_task(&self, age: Age, number: WorkerNo) -> Option<String> {
        let (task, worker) = (&self.tasks[&age], &self.workers[&number]);
        if task.state != State::Pending {
            return Some(format!("it does not wait: {:?} with {:?}", task.state, task.holder));
        }
        if self.is_past_deadline(age) {
            return Some("its deadline has passed".into());
        }
        if !worker.serves(&task.service) {
            return Some(format!("the worker does not serve {}", task.service));
        }
        let open = self.open_services();
        let waiting = self
            .tasks
            .iter()
            .filter(|(_, task)| open.contains(&task.service.as_str()) && self.waits_for_sure(task))
            .filter(|(_, task)| !self.is_just_replayed(task));
        for (_, other) in waiting.filter(|(_, t)| worker.serves(&t.service)) {
            if self.config.is_strict && other.priority > task.priority {
                return Some(format!("{} is more urgent", name(other)));
            }
            if flow_of(other) == flow_of(task) && other.order < task.order {
                return Some(format!("{} is older", name(other)));
            }
        }
        None
    }

    /// Services whose tasks may be sent, whatever else may happen at this moment.
    fn open_services(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tasks.values().map(|task| task.service.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| self.is_open_for_sure(name));
        names
    }

    /// A task that waits and that nothing but being sent can end at this moment.
    fn waits_for_sure(&self, task: &Task) -> bool {
        if task.state != State::Pending || self.is_over(task) {
            return false;
        }
        let client = task.client.and_then(|id| self.clients.get(&id));
        client.map_or(task.runs_on, |client| client.drop_at.is_none_or(|at| at > self.now))
    }

    /// A dead letter of this very event: it may not have been there yet when an earlier one was sent.
    fn is_just_replayed(&self, task: &Task) -> bool {
        !self.is_tick && task.replay_of.is_some() && task.order == self.event
    }

    /// A worker that must be sent the task if there is no other, because nothing that may happen at
    /// this moment could keep it. How many a broker thinks that a worker needs to be busy is its
    /// affair; one that holds nothing needs one.
    fn can_take_for_sure(&self, number: WorkerNo, bytes: u64) -> bool {
        let worker = &self.workers[&number];
        let (now, config) = (self.now, &self.config);
        let has_lease = worker.host.is_none_or(|host| {
            let host = self.hosts.get(&host);
            host.is_some_and(|host| host.echoed_at.saturating_add(config.lease.0) > now)
        });
        let silent = worker.conn.map(super::time::Due::Silence);
        let is_idle = worker.holds.is_empty() && self.beside(number) == 0;
        (config.is_credit_fixed || is_idle)
            && !worker.is_passed_over
            && worker.parked_until.is_none()
            && has_lease
            && !silent.is_some_and(|silent| self.may_happen(silent))
            && self.objection_to_worker(number, bytes).is_none()
    }

    /// Why another worker should have been chosen, if one should.
    fn objection_to_choice(&self, number: WorkerNo, bytes: u64) -> Option<String> {
        let chosen = &self.workers[&number];
        let load = self.load_of(chosen).0 + self.beside(number);
        let group = chosen.group();
        let fewer = self.workers.iter().find(|(other, worker)| {
            worker.is_placed
                && worker.group() == group
                && self.load_of(worker).0 + self.beside(**other) < load
                && self.can_take_for_sure(**other, bytes)
        });
        let (other, worker) = fewer?;
        let held = self.load_of(worker).0 + self.beside(*other);
        Some(format!("worker {other} of its group holds {held}, this one {load}"))
    }

    /// A worker counts ends that are not acknowledged in its window: it must have read their ACK
    /// before the TASK that would be too much.
    fn objection_to_backlog(&self, number: WorkerNo, conn: Conn) -> Option<String> {
        let (worker, session) = (&self.workers[&number], &self.sessions[&conn]);
        let (tasks_max, bytes_max) = worker.own_window;
        let (tasks, bytes) = self.load_of(worker);
        let ends = session.taken - session.acknowledged;
        let is_too_much =
            tasks + ends > u64::from(tasks_max) || bytes + session.unacknowledged_bytes > bytes_max;
        (ends > 0 && is_too_much).then(|| {
            format!("{ends} ends are to be acknowledged before worker {number} is sent another")
        })
    }

    /// Workers to which something that is next somewhere was offered, and did not fit.
    pub(super) fn note_passed_over(&mut self) {
        let next: Vec<(String, u64)> = self
            .next_of_each_flow()
            .into_iter()
            .map(|task| (task.service.clone(), task.bytes))
            .collect();
        for (service, bytes) in next {
            self.pass_over(&service, bytes);
        }
    }

    /// A task came back, and several do in one tick, in an order that cannot be seen: whom it does
    /// not fit may have been offered it while it was next.
    pub(super) fn note_too_long_for(&mut self, age: Age) {
        let task = &self.tasks[&age];
        if task.state == State::Pending {
            let (service, bytes) = (task.service.clone(), task.bytes);
            self.pass_over(&service, bytes);
        }
    }

    fn pass_over(&mut self, service: &str, bytes: u64) {
        let over: Vec<WorkerNo> = self
            .workers
            .iter()
            .filter(|(_, worker)| {
                let (_, bytes_max) = self.window_of(worker);
                let (tasks, held) = self.load_of(worker);
                worker.serves(service) && tasks > 0 && held + bytes > bytes_max
            })
            .map(|(number, _)| *number)
            .collect();
        for number in over {
            if let Some(worker) = self.workers.get_mut(&number) {
                worker.is_passed_over = true;
            }
        }
    }

    /// What is next of each client in each class of each service: of several that came to wait in the
    /// same tick, any. A client that may be gone at this moment may have taken its tasks along.
    fn next_of_each_flow(&self) -> Vec<&Task> {
        let mut next: BTreeMap<(Flow<'_>, bool), Vec<&Task>> = BTreeMap::new();
        let pending = self.tasks.values().filter(|task| task.state == State::Pending);
        for task in pending.filter(|task| !self.is_over(task)) {
            let is_sure = self.waits_for_sure(task);
            for of_sure in [false, true] {
                if of_sure && !is_sure {
                    continue;
                }
                let known = next.entry((flow_of(task), of_sure)).or_default();
                if known.first().is_some_and(|known| task.order < known.order) {
                    known.clear();
                }
                if known.first().is_none_or(|known| known.order == task.order) {
                    known.push(task);
                }
            }
        }
        next.into_values().flatten().collect()
    }

    /// A task that waits although a worker could take it.
    pub(super) fn idle_beside_work(&self) -> Option<String> {
        let with_room: Vec<(WorkerNo, &Worker)> = self
            .workers
            .iter()
            .filter(|(number, worker)| worker.is_placed && self.can_take_for_sure(**number, 0))
            .map(|(number, worker)| (*number, worker))
            .collect();
        if with_room.is_empty() {
            return None;
        }
        let open = self.open_services();
        let waiting = self
            .tasks
            .values()
            .filter(|task| open.contains(&task.service.as_str()) && self.waits_for_sure(task));
        let mut waiting = waiting;
        waiting.find_map(|task| {
            let mut serving = with_room.iter().filter(|(_, worker)| worker.serves(&task.service));
            let idle = serving.find(|(number, _)| self.can_take_for_sure(*number, task.bytes));
            idle.map(|(number, worker)| {
                format!("{} waits, and worker {number} could take it: {worker:?}", name(task))
            })
        })
    }
}

/// Service, class and client: who takes turns with whom.
type Flow<'a> = (&'a str, Priority, &'a str);

fn flow_of(task: &Task) -> Flow<'_> {
    (&task.service, task.priority, &task.account)
}

/// What a report calls a task.
pub(super) fn name(task: &Task) -> String {
    let id = task.id.map(|id| id.0);
    format!("task {id:?} ({}, {}, priority {})", task.request, task.service, task.priority.value())
}
