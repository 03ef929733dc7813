//! Tasks that are not to start yet: how long they wait before they are tried again is the broker's
//! draw, within what is allowed.

use pinmesh_core::{Broker, TaskStanding, Time};
use pinmesh_protocol::command::StageTimes;
use pinmesh_protocol::status::Status;

use super::Oracle;
use super::book::{Age, State};
use crate::record::{Body, Said};

/// A start that ended badly, after which the broker draws the wait for the next one.
#[derive(Clone, Debug)]
pub(super) struct Undecided {
    age: Age,
    /// The longest wait.
    most: u64,
    /// How the task ends if the next start would come too late.
    status: Status,
    end: (Option<StageTimes>, Option<Said>),
}

impl Oracle {
    /// A bad start, which was counted: another one follows if there may be one, or else that was
    /// the end.
    pub(super) fn try_again(
        &mut self,
        age: Age,
        status: Status,
        end: (Option<StageTimes>, Option<Said>),
    ) {
        let is_wanted = self.is_wanted(age);
        let Some(task) = self.tasks.get_mut(&age) else { return };
        let is_over = task.is_at_most_once
            || task.cancelled.is_some()
            || !is_wanted
            || task.tries >= task.tries_max
            || task.deadline.is_some_and(|at| at <= self.now);
        if is_over {
            return self.finish(age, status, end);
        }
        // `backoff`, doubled with each bad start beyond the first.
        let mut most = task.backoff;
        for _ in 1..task.tries {
            most = most.saturating_mul(2);
        }
        let most = most.min(task.backoff_max);
        task.state = State::Delayed(u64::MAX);
        task.is_closed = true;
        self.undecided.push(Undecided { age, most, status, end });
    }

    /// What the broker has drawn.
    pub(super) fn decide(&mut self, core: &Broker<Body>) {
        for Undecided { age, most, status, end } in std::mem::take(&mut self.undecided) {
            let Some(task) = self.tasks.get_mut(&age) else { continue };
            let view = core.tasks().find(|view| Some(view.task) == task.id);
            let latest = self.now.saturating_add(most);
            let real = view.map(|view| view.standing);
            match real {
                Some(TaskStanding::Delayed(Time(at)))
                    if (self.now..=latest).contains(&at)
                        && task.deadline.is_none_or(|deadline| at < deadline) =>
                {
                    task.state = State::Delayed(at);
                    self.ledger.retried += 1;
                }
                // A start that could not come before the deadline is not waited for.
                _ if task.deadline.is_some_and(|deadline| deadline <= latest) => {
                    self.finish(age, status, end);
                }
                _ => self.fail(format!(
                    "task {age} is to be tried again from {} to {latest}, and stands {real:?}",
                    self.now
                )),
            }
        }
    }

    /// The time of a delayed task has come: it joins its queue as if it were new.
    pub(super) fn start_delayed(&mut self, age: Age) {
        let (now, event) = (self.now, self.event);
        let Some(task) = self.tasks.get_mut(&age) else { return };
        task.state = State::Pending;
        task.queued_at = now;
        task.pending_since = now;
        task.order = event;
        self.note_too_long_for(age);
    }

    /// The broker treats the task as one that waits in its queue: so its time has come.
    pub(super) fn start_if_due(&mut self, age: Option<Age>) {
        let Some(age) = age else { return };
        let due = super::time::Due::Start(age);
        if self.is_tick && self.may_happen(due) {
            self.happen(due);
        }
    }
}
