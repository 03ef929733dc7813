//! Tasks that are not to start yet: they stand in no queue, and a timer brings them back.
//!
//! How long a task waits before it is tried again is exponential backoff with full jitter: a random
//! time between nothing and `backoff` doubled with each bad start, but for `backoff_max`.

use crate::event::Body;
use crate::outbox::Outbox;
use crate::slab::{Key, TaskKey};
use crate::state::{State, Wake};
use crate::task::TaskState;
use crate::time::{Span, Time};

impl<B: Body> State<B> {
    /// After a bad start that was counted: whether the task is tried again, which it then waits
    /// for. `false`: it is to end, because its tries are used up, because it may run once only, or
    /// because nobody would take what another try brings.
    pub(crate) fn retry(&mut self, key: TaskKey) -> bool {
        let task = self.tasks.at(key.index());
        if task.is_at_most_once
            || task.cancel.is_some()
            || task.tries >= task.tries_max
            || !self.is_wanted(key)
        {
            return false;
        }
        let most = backoff(task.backoff, task.backoff_max, task.tries);
        let until = self.now.after(Span(self.jitter.up_to(most.0)));
        if task.deadline.is_some_and(|deadline| deadline <= until) {
            return false;
        }
        self.unqueue(key);
        self.ledger.retried += 1;
        self.tasks.at_mut(key.index()).is_closed = true;
        self.delay(key, until);
        true
    }

    /// A task that stands in no queue, and with no worker, waits until then.
    pub(crate) fn delay(&mut self, key: TaskKey, until: Time) {
        self.delayed += 1;
        let task = self.tasks.at_mut(key.index());
        task.state = TaskState::Delayed;
        task.start_at = until;
        self.set_task_timer(key);
    }

    /// The time of a delayed task has come: it joins its queue as if it were new.
    pub(crate) fn start_delayed(&mut self, key: TaskKey, out: &mut impl Outbox<B>) {
        self.unqueue(key);
        self.arrivals += 1;
        let task = self.tasks.at_mut(key.index());
        task.state = TaskState::Pending;
        task.age = self.arrivals;
        task.queued_at = self.now;
        self.set_task_timer(key);
        self.enqueue(key, out);
    }

    /// Sets the timer that the task needs where it stands: for its start, or else its deadline.
    pub(crate) fn set_task_timer(&mut self, key: TaskKey) {
        let task = self.tasks.at_mut(key.index());
        if let Some(timer) = task.timer.take() {
            self.timers.cancel(timer);
        }
        let start = (task.state == TaskState::Delayed).then_some(task.start_at);
        let at = start.into_iter().chain(task.deadline).min();
        task.timer = at.map(|at| self.timers.set(at, Wake::Task(key)));
    }
}

/// The longest wait after so many bad starts: `first`, doubled with each one beyond the first.
fn backoff(first: Span, most: Span, tries: u32) -> Span {
    let doublings = tries.saturating_sub(1).min(63);
    Span(first.0.saturating_mul(1 << doublings)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_with_each_bad_start_up_to_its_limit() {
        let second = Span::from_secs(1);
        let waits = (1..=10).map(|tries| backoff(second, Span::from_secs(300), tries).0);
        let seconds: alloc::vec::Vec<_> = waits.map(|ns| ns / second.0).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(backoff(second, Span(u64::MAX), u32::MAX), Span(u64::MAX));
        assert_eq!(backoff(Span(0), second, 40), Span(0));
    }
}
