//! Callbacks run on the client's own thread, one after the other. Nothing may wait there: what is
//! waited for would never come.

use std::cell::Cell;

use crate::completion::RawOutcome;

thread_local! {
    static IS_CLIENT_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread is a client's own.
pub(crate) fn enter() {
    IS_CLIENT_THREAD.set(true);
}

/// Whether this is a client's own thread, so that nothing may wait on it.
pub(crate) fn is_inside() -> bool {
    IS_CLIENT_THREAD.get()
}

/// What is called with a task's end.
pub(crate) struct OnEnd(pub(crate) Box<dyn FnOnce(RawOutcome) + Send>);

impl std::fmt::Debug for OnEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnEnd")
    }
}

impl OnEnd {
    /// Calls it; a panic ends there.
    pub(crate) fn call(self, outcome: RawOutcome) {
        let call = std::panic::AssertUnwindSafe(|| (self.0)(outcome));
        if std::panic::catch_unwind(call).is_err() {
            tracing::error!("a task's callback panicked; the client goes on");
        }
    }
}
