//! The bounded queue through which the HTTP thread asks the event loop: each entry is something to do
//! at the loop's desk, and answers on its own. Nothing waits in the loop for anybody.

use std::sync::Arc;
use std::time::Duration;

use mio::Waker;
use pinmesh_core::{AdminCommand, AdminObjection, AdminReply, Broker, Time};
use tokio::sync::{mpsc, oneshot};

use crate::body::Body;
use crate::outbound::Outbound;

/// Entries that may wait; the next one is refused.
const QUEUE_MAX: usize = 64;
/// Entries that the loop takes in one turn, so that those who ask do not hold up the mesh.
const TURN_MAX: usize = 4;
/// How long an answer may take before whoever asked is told that the loop is busy.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What those who ask may use: the machine, and what its effects go to.
pub(crate) struct Desk<'a> {
    /// The machine.
    pub(crate) broker: &'a mut Broker<Body>,
    /// The loop's clock.
    pub(crate) now: Time,
    outbound: &'a mut Outbound,
    /// Somebody wants the broker to drain.
    pub(crate) wants_drain: bool,
}

impl Desk<'_> {
    /// Lets the machine obey an operator.
    pub(crate) fn administer(
        &mut self,
        command: AdminCommand<'_>,
    ) -> Result<AdminReply, AdminObjection> {
        self.broker.administer(self.now, command, self.outbound)
    }
}

type Errand = Box<dyn FnOnce(&mut Desk<'_>) + Send>;

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unanswered {
    /// The queue is full.
    Full,
    /// The loop has not come to it in time.
    Late,
    /// The loop has ended.
    Gone,
}

/// The end of those who ask.
#[derive(Clone)]
pub(crate) struct Asker {
    errands: mpsc::Sender<Errand>,
    waker: Arc<Waker>,
}

impl Asker {
    /// Has this done at the loop's desk and waits for its answer.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Desk<'_>) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        let errand: Errand = Box::new(move |desk| {
            // Whoever asked may have hung up.
            let _ = reply.send(errand(desk));
        });
        self.errands.try_send(errand).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::Full,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Gone,
        })?;
        self.waker.wake().map_err(|_| Unanswered::Gone)?;
        match tokio::time::timeout(ANSWER_MAX, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Unanswered::Gone),
            Err(_) => Err(Unanswered::Late),
        }
    }
}

/// The loop's end.
pub(crate) struct AdminQueue {
    errands: mpsc::Receiver<Errand>,
    has_more: bool,
}

impl AdminQueue {
    /// Both ends; the waker ends the loop's wait.
    pub(crate) fn new(waker: Arc<Waker>) -> (Asker, Self) {
        let (sender, errands) = mpsc::channel(QUEUE_MAX);
        (Asker { errands: sender, waker }, Self { errands, has_more: false })
    }

    /// Whether something may be left that the waker will not tell of again.
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Does some of what is asked. Returns whether somebody wants the broker to drain.
    pub(crate) fn serve(
        &mut self,
        broker: &mut Broker<Body>,
        outbound: &mut Outbound,
        now: Time,
    ) -> bool {
        let mut desk = Desk { broker, now, outbound, wants_drain: false };
        for _ in 0..TURN_MAX {
            let Ok(errand) = self.errands.try_recv() else {
                self.has_more = false;
                return desk.wants_drain;
            };
            errand(&mut desk);
        }
        self.has_more = true;
        desk.wants_drain
    }
}
