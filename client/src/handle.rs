//! The result of a task that is under way.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pinmesh_protocol::id::RequestId;
use pinmesh_session::client::Cancel;

use crate::completion::{Slot, Waiter};
use crate::payload::{RawReply, Reply};
use crate::shared::Shared;
use crate::updates::{Queue, Updates};
use crate::{Error, Result};

/// Turns what came into what was asked for, in the thread that takes it.
pub(crate) type Decoder<T> = fn(RawReply) -> Result<Reply<T>>;

/// A task that is under way: a future on any executor, and [`wait`](Self::wait) without one.
///
/// Dropping it lets the task go on, unless it is one of
/// [`call_async`](crate::Task::call_async), which is cancelled.
#[must_use = "a handle is the only way to the task's result"]
pub struct Handle<T> {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    request_id: RequestId,
    decoder: Decoder<T>,
    cancels_on_drop: bool,
    updates: Option<Arc<Queue>>,
}

impl<T> Handle<T> {
    pub(crate) fn new(
        slot: Arc<Slot>,
        shared: Arc<Shared>,
        request_id: RequestId,
        decoder: Decoder<T>,
        updates: Option<Arc<Queue>>,
    ) -> Self {
        Self { slot, shared, request_id, decoder, cancels_on_drop: false, updates }
    }

    pub(crate) fn cancelling_on_drop(mut self) -> Self {
        self.cancels_on_drop = true;
        self
    }

    /// The client's number of the task, unique for the life of the client.
    pub fn request_id(&self) -> u64 {
        self.request_id.0
    }

    /// Whether the task has ended, so that waiting takes no time.
    pub fn is_done(&self) -> bool {
        self.slot.is_done()
    }

    /// Asks for the task to be stopped. The handle then tells [`Error::Cancelled`], or how the task
    /// ended if that was faster.
    pub fn cancel(&self) {
        self.shared.cancel(self.request_id, Cancel::Soft);
    }

    /// As [`cancel`](Self::cancel), but does not wait for a handler that is running to look: its
    /// worker is killed over it and started again, and the other tasks there go back unharmed. A
    /// worker without a supervisor is not killed.
    pub fn cancel_hard(&self) {
        self.shared.cancel(self.request_id, Cancel::Hard);
    }

    /// What the task says while it runs, if it was asked for with
    /// [`Task::keep_updates`](crate::Task::keep_updates); else there is nothing. To be taken once: of
    /// two readers each gets a part.
    ///
    /// ```no_run
    /// # fn main() -> pinmesh_client::Result<()> {
    /// # let client = pinmesh_client::Client::connect("tcp://127.0.0.1:5555")?;
    /// let handle = client.task("train").keep_updates().submit::<_, f64>(&1000)?;
    /// for update in handle.updates() {
    ///     println!("{}: {}", update.sequence, update.decode::<f64>()?);
    /// }
    /// println!("done: {}", handle.wait()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn updates(&self) -> Updates {
        Updates(self.updates.clone())
    }

    /// Waits for the output.
    ///
    /// # Errors
    /// How else the task ended.
    pub fn wait(self) -> Result<T> {
        self.wait_reply().map(|reply| reply.value)
    }

    /// Waits for the output and how it came about.
    ///
    /// # Errors
    /// How else the task ended.
    pub fn wait_reply(self) -> Result<Reply<T>> {
        let outcome = self.slot.wait(None).unwrap_or(Err(Error::Taken));
        outcome.and_then(self.decoder)
    }

    /// Waits for the output, at most so long.
    ///
    /// # Errors
    /// [`Error::WaitTimedOut`]: the task goes on and the handle stays good. Or how else the task
    /// ended.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<T> {
        self.wait_reply_timeout(timeout).map(|reply| reply.value)
    }

    /// As [`wait_timeout`](Self::wait_timeout), with how the output came about.
    ///
    /// # Errors
    /// As there.
    pub fn wait_reply_timeout(&mut self, timeout: Duration) -> Result<Reply<T>> {
        match self.slot.wait(Instant::now().checked_add(timeout)) {
            Some(outcome) => outcome.and_then(self.decoder),
            None => Err(Error::WaitTimedOut { waited: timeout }),
        }
    }
}

impl<T> Future for Handle<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.slot.take_or_wait(|| Waiter::Task(context.waker().clone())) {
            Some(outcome) => Poll::Ready(outcome.and_then(self.decoder).map(|reply| reply.value)),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        if self.cancels_on_drop && !self.slot.is_done() {
            self.cancel();
        }
    }
}

impl<T> std::fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}
