//! What becomes of attempts whose worker is gone: charged, given back, or lost.

use alloc::borrow::Cow;

use pinmesh_protocol::id::AttemptId;
use pinmesh_protocol::status::{LossKind, Status};

use crate::dead::DeathCause;
use crate::event::Body;
use crate::outbox::Outbox;
use crate::slab::{Key, TaskKey, WorkerKey};
use crate::state::{State, Wake};
use crate::task::{EndBody, TaskState};
use crate::worker::WorkerState;

/// What is known of a worker's end.
pub(crate) struct Loss<'a> {
    pub(crate) cause: LossKind,
    pub(crate) detail: i32,
    pub(crate) running: Option<AttemptId>,
    pub(crate) started: &'a [AttemptId],
}

impl<B: Body> State<B> {
    /// A supervisor's word on a worker that it watched.
    pub(crate) fn worker_lost(
        &mut self,
        key: WorkerKey,
        loss: &Loss<'_>,
        out: &mut impl Outbox<B>,
    ) {
        self.bury(key.index());
        for task in self.held_by(key.index()).into_iter().rev() {
            let attempt = self.attempt_of(task);
            if loss.running == Some(attempt) {
                self.running_lost(task, loss, out);
            } else if loss.started.contains(&attempt) {
                self.started_lost(task, out);
            } else {
                self.requeue(task, out);
            }
        }
        self.remove_if_over(key);
        self.dispatch_all(out);
    }

    /// A worker is gone, and nobody can say what it had started.
    pub(crate) fn worker_gone(
        &mut self,
        key: WorkerKey,
        charged: Option<TaskKey>,
        out: &mut impl Outbox<B>,
    ) {
        self.bury(key.index());
        for task in self.held_by(key.index()).into_iter().rev() {
            if self.tasks.at(task.index()).is_at_most_once {
                self.end_lost(task, out);
            } else if charged == Some(task) {
                self.crashed(task, DeathCause::Silent, out);
            } else {
                self.requeue(task, out);
            }
        }
        self.remove_if_over(key);
        self.dispatch_all(out);
    }

    /// The attempt that was in the handler when its worker ended.
    fn running_lost(&mut self, key: TaskKey, loss: &Loss<'_>, out: &mut impl Outbox<B>) {
        if loss.cause.is_charged()
            || matches!(loss.cause, LossKind::MaxRuntime | LossKind::Cancelled)
        {
            // What it used up before it was killed is its client's, as if it had ended.
            let away = self.now.since(self.tasks.at(key.index()).dispatched_at).0;
            self.settle(key, away, away);
        }
        let task = self.tasks.at(key.index());
        if task.state == TaskState::Ended {
            return self.requeue(key, out);
        }
        match loss.cause {
            LossKind::MaxRuntime => {
                self.release(key);
                self.tasks.at_mut(key.index()).tries += 1;
                if self.retry(key) {
                    return;
                }
                let text = alloc::format!(
                    "ran longer than its max runtime of {} ms and was killed",
                    self.tasks.at(key.index()).max_runtime.0 / 1_000_000
                );
                self.die(key, DeathCause::MaxRuntime, None, EndBody::Text(text.into()), out);
            }
            LossKind::Cancelled => {
                self.release(key);
                let text = EndBody::Fixed("cancelled by its client and killed");
                self.finish(key, Status::Cancelled, None, text, out);
            }
            _ if task.is_at_most_once => self.end_lost(key, out),
            LossKind::Exited => self.crashed(key, DeathCause::Exited(loss.detail), out),
            LossKind::Signalled => self.crashed(key, DeathCause::Signalled(loss.detail), out),
            LossKind::OutOfMemory => self.crashed(key, DeathCause::OutOfMemory, out),
            LossKind::Stalled | LossKind::LeaseEnded | LossKind::Shutdown | LossKind::Unknown => {
                self.requeue(key, out);
            }
        }
    }

    /// Started and unacknowledged: its DONE may be on its way.
    fn started_lost(&mut self, key: TaskKey, out: &mut impl Outbox<B>) {
        let task = self.tasks.at(key.index());
        if !task.is_at_most_once || task.state == TaskState::Ended {
            return self.requeue(key, out);
        }
        self.release(key);
        let at = self.now.after(self.config.heartbeat);
        let timer = self.timers.set(at, Wake::Task(key));
        let task = self.tasks.at_mut(key.index());
        task.state = TaskState::AwaitingEnd;
        if let Some(earlier) = task.timer.replace(timer) {
            self.timers.cancel(earlier);
        }
    }

    /// A crash is charged to the task; after `crashes_max` of them it is over, and after `tries_max`
    /// bad starts of whatever kind.
    fn crashed(&mut self, key: TaskKey, cause: DeathCause, out: &mut impl Outbox<B>) {
        let task = self.tasks.at_mut(key.index());
        if task.state == TaskState::Ended {
            return self.requeue(key, out);
        }
        task.tries += 1;
        task.crashes += 1;
        if task.crashes < self.config.crashes_max && task.tries < task.tries_max {
            return self.requeue(key, out);
        }
        let (how, crashes) = (how_it_died(cause), task.crashes);
        let text = alloc::format!("{how} while it ran this task, {crashes} times in all");
        self.release(key);
        self.die(key, cause, None, EndBody::Text(text.into()), out);
    }

    fn end_lost(&mut self, key: TaskKey, out: &mut impl Outbox<B>) {
        self.release(key);
        if self.tasks.at(key.index()).state == TaskState::Ended {
            return self.forget_if_over(key);
        }
        let text = EndBody::Fixed("its worker was lost: it may or may not have run");
        self.finish(key, Status::Lost, None, text, out);
    }

    /// A dead worker is forgotten once its session has ended.
    pub(crate) fn remove_if_over(&mut self, key: WorkerKey) {
        let Some(worker) = self.workers.get(key) else { return };
        if worker.state != WorkerState::Dead || worker.conn.is_some() {
            return;
        }
        debug_assert!(worker.in_flight.is_empty(), "the dead hold nothing");
        if let Some(mut worker) = self.workers.remove(key) {
            self.peers.remove(&worker.peer_id);
            self.forget_inherited_of(key);
            if let Some(timer) = worker.away_timer.take() {
                self.timers.cancel(timer);
            }
        }
    }

    /// A task's timer went off: its start, its deadline, or the end of its wait for a late end.
    pub(crate) fn on_task_timer(&mut self, key: TaskKey, out: &mut impl Outbox<B>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.timer = None;
        match task.state {
            TaskState::AwaitingEnd => self.end_lost(key, out),
            TaskState::Pending => self.expire(key, out),
            TaskState::Delayed if task.deadline.is_some_and(|deadline| deadline <= self.now) => {
                self.expire(key, out);
            }
            TaskState::Delayed => self.start_delayed(key, out),
            TaskState::InFlight => {
                let is_hard = self.tasks.at(key.index()).kills_at_deadline;
                self.stop_running(key, is_hard, out);
                self.expire(key, out);
            }
            TaskState::Following(_) => {}
            TaskState::Ended => self.forget_key(key),
        }
    }

    /// Nobody wants the task's result any more.
    pub(crate) fn expire(&mut self, key: TaskKey, out: &mut impl Outbox<B>) {
        let text = match self.tasks.at(key.index()).state {
            TaskState::Pending => "its deadline passed before a worker was free",
            TaskState::Delayed => "its deadline passed before it was to start",
            _ => "its deadline passed while it was with a worker",
        };
        self.finish(key, Status::Expired, None, EndBody::Fixed(text), out);
    }
}

fn how_it_died(cause: DeathCause) -> Cow<'static, str> {
    match cause {
        DeathCause::Exited(code) => alloc::format!("the worker exited with code {code}").into(),
        DeathCause::Signalled(signal) => {
            alloc::format!("the worker was killed by signal {signal}").into()
        }
        DeathCause::OutOfMemory => "the kernel killed the worker for want of memory".into(),
        DeathCause::Silent => "the worker fell silent".into(),
        DeathCause::Failed | DeathCause::MaxRuntime | DeathCause::NoService => {
            unreachable!("{cause:?} is no crash")
        }
    }
}
