//! Where the end of a task goes: to a handle's slot, or to a queue that many tasks share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::callback::{self, OnEnd};
use crate::payload::RawReply;
use crate::{Error, Result};

/// How a task ended, undecoded.
pub type RawOutcome = Result<RawReply>;

/// A lock whose holder has panicked guards plain data that is whole at every moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who waits for an end. Nobody is woken who has not asked for it, so a waiter that is running
/// already costs no system call.
#[derive(Debug, Default)]
pub(crate) enum Waiter {
    #[default]
    None,
    Thread(Thread),
    Task(Waker),
}

impl Waiter {
    pub(crate) fn wake(self) {
        match self {
            Self::None => {}
            Self::Thread(thread) => thread.unpark(),
            Self::Task(waker) => waker.wake(),
        }
    }
}

/// Sleeps until unparked or `until`; `false`: that has passed.
pub(crate) fn park(until: Option<Instant>) -> bool {
    match until {
        None => std::thread::park(),
        Some(until) => {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::park_timeout(left);
        }
    }
    true
}

#[derive(Debug)]
enum State {
    Pending(Waiter),
    Done(RawOutcome),
    Taken,
}

/// The place of one task's end.
#[derive(Debug)]
pub(crate) struct Slot(Mutex<State>);

impl Slot {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Pending(Waiter::None)))
    }

    fn complete(&self, outcome: RawOutcome) -> Waiter {
        let mut state = lock(&self.0);
        match &mut *state {
            State::Pending(waiter) => {
                let waiter = std::mem::take(waiter);
                *state = State::Done(outcome);
                waiter
            }
            State::Done(_) | State::Taken => Waiter::None,
        }
    }

    /// The end, or `None` after `waiter` has been left to be woken.
    pub(crate) fn take_or_wait(&self, waiter: impl FnOnce() -> Waiter) -> Option<RawOutcome> {
        let mut state = lock(&self.0);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Pending(_) => {
                *state = State::Pending(waiter());
                None
            }
            State::Done(outcome) => Some(outcome),
            State::Taken => Some(Err(Error::Taken)),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        !matches!(*lock(&self.0), State::Pending(_))
    }

    /// Waits for the end; `None`: it has not come until then.
    pub(crate) fn wait(&self, until: Option<Instant>) -> Option<RawOutcome> {
        loop {
            let this_thread = || Waiter::Thread(std::thread::current());
            if let Some(outcome) = self.take_or_wait(this_thread) {
                return Some(outcome);
            }
            if callback::is_inside() {
                return Some(Err(Error::InCallback));
            }
            if !park(until) {
                return None;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Ends {
    done: VecDeque<(u64, RawOutcome)>,
    waiter: Waiter,
    is_interrupted: bool,
}

/// Ends of many tasks in the order in which they come, each with the number that it was given when
/// it was handed in. Cheaper a task than a handle. Made by
/// [`Client::completions`](crate::Client::completions); used by one thread at a time.
#[derive(Clone, Debug, Default)]
pub struct Completions(Arc<Mutex<Ends>>);

impl Completions {
    /// The next end; waits for it. `None`: none has come within `timeout`, or the wait was
    /// [interrupted](Self::interrupt).
    pub fn recv_timeout(&self, timeout: Duration) -> Option<(u64, RawOutcome)> {
        self.next(Instant::now().checked_add(timeout))
    }

    /// The next end; waits for it, for ever if no task that goes here is under way.
    pub fn recv(&self) -> (u64, RawOutcome) {
        loop {
            if let Some(end) = self.next(None) {
                return end;
            }
        }
    }

    /// Moves every end that has come to `into`; returns how many.
    pub fn drain(&self, into: &mut Vec<(u64, RawOutcome)>) -> usize {
        let mut ends = lock(&self.0);
        let count = ends.done.len();
        into.extend(ends.done.drain(..));
        count
    }

    /// Ends a wait for the next end: the one that is under way, or else the next one. For another
    /// thread that has something to do for the one that waits here.
    pub fn interrupt(&self) {
        let mut ends = lock(&self.0);
        ends.is_interrupted = true;
        let waiter = std::mem::take(&mut ends.waiter);
        drop(ends);
        waiter.wake();
    }

    fn next(&self, until: Option<Instant>) -> Option<(u64, RawOutcome)> {
        loop {
            {
                let mut ends = lock(&self.0);
                if let Some(end) = ends.done.pop_front() {
                    return Some(end);
                }
                if std::mem::take(&mut ends.is_interrupted) {
                    return None;
                }
                ends.waiter = Waiter::Thread(std::thread::current());
            }
            if !park(until) {
                return None;
            }
        }
    }
}

/// The duty to tell a task's end, exactly once: one that is dropped untold tells
/// [`Error::Closed`].
#[derive(Debug)]
pub(crate) struct Ticket(Option<Target>);

#[derive(Debug)]
enum Target {
    Slot(Arc<Slot>),
    Queue(Completions, u64),
    Call(OnEnd),
}

impl Ticket {
    pub(crate) fn to_slot(slot: Arc<Slot>) -> Self {
        Self(Some(Target::Slot(slot)))
    }

    pub(crate) fn to_queue(queue: Completions, token: u64) -> Self {
        Self(Some(Target::Queue(queue, token)))
    }

    pub(crate) fn to_callback(call: OnEnd) -> Self {
        Self(Some(Target::Call(call)))
    }

    /// Tells the end; the waiter is to be woken.
    pub(crate) fn complete(mut self, outcome: RawOutcome) -> Waiter {
        self.tell(outcome)
    }

    /// Gives the duty up: the caller says itself that there is no task.
    pub(crate) fn void(mut self) {
        self.0 = None;
    }

    fn tell(&mut self, outcome: RawOutcome) -> Waiter {
        match self.0.take() {
            None => Waiter::None,
            Some(Target::Slot(slot)) => slot.complete(outcome),
            Some(Target::Call(call)) => {
                call.call(outcome);
                Waiter::None
            }
            Some(Target::Queue(queue, token)) => {
                let mut ends = lock(&queue.0);
                ends.done.push_back((token, outcome));
                std::mem::take(&mut ends.waiter)
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tell(Err(Error::Closed)).wake();
    }
}
