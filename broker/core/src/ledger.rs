//! What came in, how it ended, and what is held: sums that must agree at every moment.

use pinmesh_protocol::status::Status;

/// Counts since the broker's start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// SUBMITs read.
    pub submitted: u64,
    /// Of those, answered BUSY.
    pub busy: u64,
    /// Answered REFUSED.
    pub refused: u64,
    /// A higher submission of a task that is held, or a request with the key of one: it takes that
    /// task's outcome.
    pub joined: u64,
    /// A repeat of a submission that is held.
    pub ignored: u64,
    /// A lower submission than the one that is held.
    pub stale: u64,
    /// Became tasks.
    pub accepted: u64,
    /// Tasks by outcome.
    pub ok: u64,
    /// See [`Status::Failed`].
    pub failed: u64,
    /// See [`Status::Expired`].
    pub expired: u64,
    /// See [`Status::TimedOut`].
    pub timed_out: u64,
    /// See [`Status::Crashed`].
    pub crashed: u64,
    /// See [`Status::Cancelled`].
    pub cancelled: u64,
    /// See [`Status::Lost`].
    pub lost: u64,
    /// See [`Status::NoService`].
    pub no_service: u64,
    /// Tasks that have not ended.
    pub held: u64,
    /// Sendings of a task to a worker.
    pub dispatched: u64,
    /// Attempts of an earlier epoch of this broker that a request submitted again has taken over.
    pub adopted: u64,
    /// Attempts that went back to waiting: their worker was lost, or gave them back.
    pub requeued: u64,
    /// Bad starts after which the task waits to be tried again.
    pub retried: u64,
    /// Ends of attempts that were not open any more: acknowledged and dropped.
    pub stale_ends: u64,
    /// Ends of attempts that their sender does not hold: acknowledged and dropped.
    pub foreign_ends: u64,
    /// Sessions refused for what their peer sent.
    pub malformed: u64,
    /// Commands from sockets without a session.
    pub no_session: u64,
    /// Updates of running tasks (PROGRESS) that were taken.
    pub updates: u64,
    /// Updates that were dropped: of an attempt that is not open, or taken before.
    pub stale_updates: u64,
    /// Times that a worker was held up because the client of its task had too many updates to take.
    pub held_up: u64,
    /// Tasks that failed for good and left a dead letter.
    pub dead: u64,
    /// Dead letters that left because there were too many, or bytes of them, or they were too old.
    pub dead_dropped: u64,
    /// Dead letters that an operator has thrown away.
    pub dead_purged: u64,
    /// Dead letters that became tasks again.
    pub replayed: u64,
    /// Replays that there was no room for: their letters stay.
    pub replay_busy: u64,
    /// Dead letters at the moment.
    pub dead_held: u64,
}

impl Ledger {
    /// Whether the sums agree.
    pub fn is_balanced(&self) -> bool {
        let submitted =
            self.busy + self.refused + self.joined + self.ignored + self.stale + self.accepted;
        let dead = self.dead_dropped + self.dead_purged + self.replayed + self.dead_held;
        self.submitted == submitted
            && self.accepted + self.replayed == self.ended() + self.held
            && self.dead == dead
    }

    /// Tasks that have ended, however.
    pub fn ended(&self) -> u64 {
        self.ok
            + self.failed
            + self.expired
            + self.timed_out
            + self.crashed
            + self.cancelled
            + self.lost
            + self.no_service
    }

    pub(crate) fn on_end(&mut self, status: Status) {
        let counter = match status {
            Status::Ok => &mut self.ok,
            Status::Failed => &mut self.failed,
            Status::Expired => &mut self.expired,
            Status::TimedOut => &mut self.timed_out,
            Status::Crashed => &mut self.crashed,
            Status::Cancelled => &mut self.cancelled,
            Status::Lost => &mut self.lost,
            Status::NoService => &mut self.no_service,
            Status::Busy | Status::Refused => {
                unreachable!("{status} answers a submission and never ends a task")
            }
        };
        *counter += 1;
        self.held -= 1;
    }
}
