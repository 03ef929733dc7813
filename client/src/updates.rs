//! What tasks say while they run: to a callback, or kept for whoever reads it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use pinmesh_protocol::id::{ContentType, RequestId};
pub use pinmesh_protocol::status::ProgressKind;
use serde::de::DeserializeOwned;

use crate::Result;
use crate::completion::{Waiter, lock, park};
use crate::payload::{Bytes, decode_bytes};
use crate::shared::{Order, Shared};

/// Bytes of updates that may lie unread in all handles together; past it nothing is acknowledged, and
/// the handlers that say more wait.
pub(crate) const UNREAD_BYTES_MAX: u64 = 16 << 20;
/// What an update counts beside its payload, bytes.
const OVERHEAD_BYTES: u64 = 128;

/// An update of a running task.
#[derive(Debug)]
#[non_exhaustive]
pub struct Update {
    /// The client's number of the task.
    pub request_id: RequestId,
    /// Which attempt says it: a repeated one has a higher number and begins anew, so what an earlier
    /// one gave is to be dropped, or kept if parts are equal whoever makes them. After a restart of the
    /// broker numbers begin anew, and what was heard may come once more, in order.
    pub dispatch: u32,
    /// Counts up within the attempt; numbers are missing where a newer `latest` took their place.
    pub sequence: u64,
    /// Whether each matters or only the newest.
    pub kind: ProgressKind,
    /// Encoding of the value.
    pub content_type: ContentType,
    /// The value, as it came.
    pub value: Bytes,
}

impl Update {
    /// The value, MessagePack or JSON by its content type.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode): its content type is another one, or it is no `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        decode_bytes(self.content_type, &self.value)
    }

    fn bytes(&self) -> u64 {
        self.value.len() as u64 + OVERHEAD_BYTES
    }
}

/// A callback for updates.
pub(crate) type OnUpdate = Arc<dyn Fn(Update) + Send + Sync>;

/// Who listens to a task.
#[derive(Clone, Default)]
pub(crate) enum Listener {
    /// Nobody.
    #[default]
    None,
    /// A callback, on the client's IO thread.
    Call(OnUpdate),
    /// Whoever reads its handle.
    Queue(Arc<Queue>),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Call(_) => "Call",
            Self::Queue(_) => "Queue",
        })
    }
}

impl Listener {
    /// An update has come.
    pub(crate) fn hear(&self, update: Update) {
        match self {
            Self::None => {}
            Self::Call(call) => {
                if catch_unwind(AssertUnwindSafe(|| call(update))).is_err() {
                    tracing::error!("a callback for updates panicked; the task goes on");
                }
            }
            Self::Queue(queue) => queue.push(update),
        }
    }

    /// The task has ended: nothing more will come.
    pub(crate) fn end(&self) {
        if let Self::Queue(queue) = self {
            let mut state = lock(&queue.state);
            state.is_over = true;
            let waiter = std::mem::take(&mut state.waiter);
            drop(state);
            waiter.wake();
        }
    }
}

/// How much lies unread in all handles of a client.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    bytes: AtomicU64,
    /// The machine was told to acknowledge nothing.
    pub(crate) is_held: AtomicBool,
}

impl Unread {
    pub(crate) fn is_too_much(&self) -> bool {
        self.bytes.load(Ordering::Acquire) > UNREAD_BYTES_MAX
    }
}

#[derive(Debug, Default)]
struct State {
    updates: VecDeque<Update>,
    is_over: bool,
    waiter: Waiter,
}

/// Updates of one task that have not been read.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    shared: Arc<Shared>,
}

impl Queue {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { state: Mutex::default(), shared }
    }

    fn push(&self, update: Update) {
        let mut state = lock(&self.state);
        let unread = &self.shared.unread.bytes;
        unread.fetch_add(update.bytes(), Ordering::AcqRel);
        // Of two that stand next to each other only the newer one matters.
        if update.kind == ProgressKind::Latest
            && let Some(last) = state.updates.back_mut()
            && (last.kind, last.dispatch) == (ProgressKind::Latest, update.dispatch)
        {
            unread.fetch_sub(last.bytes(), Ordering::AcqRel);
            *last = update;
        } else {
            state.updates.push_back(update);
        }
        let waiter = std::mem::take(&mut state.waiter);
        drop(state);
        waiter.wake();
    }

    /// The next one, or that there is none any more; `Pending` after `waiter` has been left.
    fn take_or_wait(&self, waiter: impl FnOnce() -> Waiter) -> Poll<Option<Update>> {
        let mut state = lock(&self.state);
        match state.updates.pop_front() {
            Some(update) => {
                drop(state);
                self.has_read(update.bytes());
                Poll::Ready(Some(update))
            }
            None if state.is_over => Poll::Ready(None),
            None => {
                state.waiter = waiter();
                Poll::Pending
            }
        }
    }

    fn has_read(&self, bytes: u64) {
        let unread = &self.shared.unread;
        unread.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if unread.is_held.load(Ordering::Acquire) && !unread.is_too_much() {
            // A closed client has nothing to go on with.
            let _ = self.shared.order(Order::GoOn);
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bytes = state.updates.iter().map(Update::bytes).sum();
        self.has_read(bytes);
    }
}

/// The updates of a task, in order: an iterator that waits for the next one, and ends when the task
/// has ended and all are read. Made by [`Handle::updates`](crate::Handle::updates).
///
/// Read it to its end or drop it: while 16 MiB lie unread in all handles of a client, nothing that
/// comes to it is acknowledged, and the handlers that say more wait.
#[derive(Debug)]
pub struct Updates(pub(crate) Option<Arc<Queue>>);

impl Updates {
    /// The next one without a thread that waits: to be awaited on any executor.
    pub async fn next_async(&mut self) -> Option<Update> {
        let queue = self.0.as_ref()?;
        std::future::poll_fn(|context| queue.take_or_wait(|| Waiter::Task(context.waker().clone())))
            .await
    }

    /// The next one that is there already.
    pub fn try_next(&mut self) -> Option<Update> {
        match self.0.as_ref()?.take_or_wait(|| Waiter::None) {
            Poll::Ready(next) => next,
            Poll::Pending => None,
        }
    }
}

impl Iterator for Updates {
    type Item = Update;

    fn next(&mut self) -> Option<Update> {
        let queue = self.0.as_ref()?;
        loop {
            let this_thread = || Waiter::Thread(std::thread::current());
            match queue.take_or_wait(this_thread) {
                Poll::Ready(next) => return next,
                Poll::Pending => park(None),
            };
        }
    }
}
