//! How a task ends, goes back to waiting, leaves its worker, and is forgotten.

use pinmesh_core::DeathCause;
use pinmesh_protocol::command::StageTimes;
use pinmesh_protocol::id::AttemptId;
use pinmesh_protocol::status::{LossKind, Status};

use super::book::{Age, End, State, WorkerNo};
use super::inherited::Standing;
use super::time::Due;
use super::{Expected, Oracle};
use crate::record::Said;

impl Oracle {
    /// The task whose latest attempt this is.
    pub(super) fn task_of(&self, attempt: AttemptId) -> Option<Age> {
        let age = match self.inherited.get(&attempt).map(|entry| &entry.standing) {
            Some(Standing::Adopted(age)) => Some(*age),
            _ if attempt.epoch == self.config.epoch => self.ids.get(&attempt.task).copied(),
            _ => None,
        };
        age.filter(|age| self.tasks.get(age).is_some_and(|task| task.attempt == attempt))
    }

    /// A task ends once; its client is told.
    pub(super) fn finish(
        &mut self,
        age: Age,
        status: Status,
        end: (Option<StageTimes>, Option<Said>),
    ) {
        let Some(task) = self.tasks.get_mut(&age) else { return };
        if task.state == State::Ended {
            return self.fail(format!("the reference ends task {age} twice"));
        }
        let (stages, said) = end;
        self.write_letter(age, status, said.as_ref());
        let Some(task) = self.tasks.get_mut(&age) else { return };
        task.state = State::Ended;
        task.latest = None;
        task.end = Some(End { status, stages, said });
        if let Some(stages) = stages {
            self.expect(Expected::Stages(stages));
        }
        let ledger = &mut self.ledger;
        *match status {
            Status::Ok => &mut ledger.ok,
            Status::Failed => &mut ledger.failed,
            Status::Expired => &mut ledger.expired,
            Status::TimedOut => &mut ledger.timed_out,
            Status::Crashed => &mut ledger.crashed,
            Status::Cancelled => &mut ledger.cancelled,
            Status::Lost => &mut ledger.lost,
            Status::NoService => &mut ledger.no_service,
            Status::Busy | Status::Refused => {
                return self.fail(format!("the reference ends task {age} {status}"));
            }
        } += 1;
        self.ledger.held -= 1;
        self.end_for_followers(age, status);
        self.forget_if_over(age);
    }

    /// In the mesh's words.
    pub(super) fn end(&mut self, age: Age, status: Status) {
        let first = match status {
            Status::Lost | Status::Cancelled => self.ended_by_time.get(&age).copied(),
            _ => None,
        };
        let may_be_first = [Due::Deadline(age), Due::NoService(age)];
        let first = first.filter(|_| may_be_first.iter().any(|due| self.may_happen(*due)));
        self.finish(age, first.unwrap_or(status), (None, None));
    }

    /// A task is kept while it has not ended, while its client has not acknowledged its end, and
    /// while a worker is busy with it.
    pub(super) fn forget_if_over(&mut self, age: Age) {
        let Some(task) = self.tasks.get(&age) else { return };
        let is_idle = task.client.is_none() && task.holder.is_none() && task.key.is_none();
        if task.state == State::Ended && is_idle {
            let follows = task.follows;
            if let Some(id) = task.id {
                self.ids.remove(&id);
            }
            self.tasks.remove(&age);
            if let Some(follows) = follows {
                self.forget_key_if_over(follows.lead);
            }
        }
    }

    /// Its worker is not busy with it any more.
    pub(super) fn release(&mut self, age: Age) {
        let Some(task) = self.tasks.get_mut(&age) else { return };
        task.is_listed = false;
        let Some(holder) = task.holder.take() else { return };
        if let Some(worker) = self.workers.get_mut(&holder) {
            worker.is_recalled &= worker.holds.first() != Some(&age);
            worker.holds.retain(|held| *held != age);
            worker.is_passed_over = false;
        }
    }

    /// A worker is busy with it.
    pub(super) fn hold(&mut self, age: Age, number: WorkerNo) {
        let Some(task) = self.tasks.get_mut(&age) else { return };
        task.state = State::InFlight;
        task.is_closed = false;
        task.holder = Some(number);
        task.sent_to = Some(number);
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.holds.push(age);
            worker.is_passed_over = false;
        }
    }

    /// An attempt goes back unharmed. A task that nobody wants any more ends instead.
    pub(super) fn requeue(&mut self, age: Age) {
        self.release(age);
        let is_wanted = self.is_wanted(age);
        let Some(task) = self.tasks.get_mut(&age) else { return };
        match task.state {
            State::Ended => return self.forget_if_over(age),
            State::Pending | State::Delayed(_) | State::Following => {
                return self.fail(format!("the reference requeues {age} twice"));
            }
            State::InFlight | State::Awaiting(_) => {}
        }
        self.ledger.requeued += 1;
        self.ambiguous_back +=
            u64::from(self.is_tick && task.deadline.is_some_and(|at| at <= self.now));
        if task.cancelled.is_some() || !is_wanted {
            return self.end(age, Status::Cancelled);
        }
        task.state = State::Pending;
        task.pending_since = self.now;
        if self.is_tick {
            self.note_too_long_for(age);
        }
    }

    /// Its worker died under it: charged, and over after `crashes_max` of them, or after `tries_max`
    /// bad starts of whatever kind.
    pub(super) fn crash(&mut self, age: Age, cause: DeathCause) {
        let Some(task) = self.tasks.get_mut(&age) else { return };
        if task.state == State::Ended {
            return self.requeue(age);
        }
        task.tries += 1;
        task.crashes += 1;
        task.crash = Some(cause);
        if task.crashes < self.config.crashes_max && task.tries < task.tries_max {
            return self.requeue(age);
        }
        self.release(age);
        self.end(age, Status::Crashed);
    }

    /// At-most-once, and nobody knows whether it ran.
    pub(super) fn lose(&mut self, age: Age) {
        self.release(age);
        match self.tasks.get(&age).map(|task| task.state) {
            Some(State::Ended) => self.forget_if_over(age),
            Some(_) => self.end(age, Status::Lost),
            None => {}
        }
    }

    /// It was in the handler when its supervisor saw its worker die.
    pub(super) fn lose_running(&mut self, age: Age, (cause, detail): (LossKind, i32)) {
        let Some(task) = self.tasks.get_mut(&age) else { return };
        if task.state == State::Ended {
            return self.requeue(age);
        }
        match cause {
            LossKind::MaxRuntime => {
                task.tries += 1;
                self.release(age);
                self.try_again(age, Status::TimedOut, (None, None));
            }
            LossKind::Cancelled => {
                self.release(age);
                self.end(age, Status::Cancelled);
            }
            _ if task.is_at_most_once => self.lose(age),
            LossKind::Exited => self.crash(age, DeathCause::Exited(detail)),
            LossKind::Signalled => self.crash(age, DeathCause::Signalled(detail)),
            LossKind::OutOfMemory => self.crash(age, DeathCause::OutOfMemory),
            LossKind::Stalled | LossKind::LeaseEnded | LossKind::Shutdown | LossKind::Unknown => {
                self.requeue(age);
            }
        }
    }

    /// It had started, and its DONE may be on its way.
    pub(super) fn lose_started(&mut self, age: Age) {
        let until = self.now.saturating_add(self.config.heartbeat.0);
        let Some(task) = self.tasks.get_mut(&age) else { return };
        if !task.is_at_most_once || task.state == State::Ended {
            return self.requeue(age);
        }
        task.state = State::Awaiting(until);
        self.release(age);
    }

    /// A worker is gone, and nobody can say what it had started; `charged` is what it was busy
    /// with when it fell silent.
    pub(super) fn lose_worker(&mut self, number: WorkerNo, charged: Option<Age>) {
        self.bury(number);
        let holds = self.workers.get(&number).map(|worker| worker.holds.clone());
        for age in holds.unwrap_or_default() {
            if self.tasks[&age].is_at_most_once {
                self.lose(age);
            } else if charged == Some(age) {
                self.crash(age, DeathCause::Silent);
            } else {
                self.requeue(age);
            }
        }
        self.forget_worker(number);
    }
}
