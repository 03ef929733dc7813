//! No two attempts of a task at once, and none that is superseded, outside the stated exceptions:
//!
//! * an attempt that was already running on a host whose supervisor is itself stopped;
//! * another broker, or another life of the broker, that was handed the request again;
//! * a worker without a supervisor that was silent for longer than its task may run.

use pinmesh_protocol::id::AttemptId;
use pinmesh_protocol::status::{EndStatus, LossKind};
use pinmesh_session::supervision::Note;
use pinmesh_session::worker::HeldTask;

use super::Checker;
use crate::clock::MS;
use crate::counters::Count;
use crate::task::Key;
use crate::worker::WorkerId;
use crate::world::World;

/// How long a supervisor that was stopped may take to kill what it should have killed meanwhile:
/// its loop's turn and the way of a signal.
const KILL_TIME: u64 = 5 * MS;

/// Where an attempt runs.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The process.
    pub worker: WorkerId,
    /// Its host; `None`: it has no supervisor.
    pub host: Option<usize>,
    /// The broker that sent it.
    pub broker: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RunSeen {
    place: Place,
    attempt: AttemptId,
}

impl Checker {
    /// A handler is entered.
    pub fn on_start(
        &mut self,
        world: &mut World,
        place: Place,
        attempt: AttemptId,
        key: Key,
        task: &HeldTask,
    ) {
        let name = self.worker_name(place.worker);
        let sent_as =
            Key { client: crate::task::client_of(task.client_id), request: task.request_id };
        if sent_as != key {
            self.fail(format!("{name} was sent the input of {key} as {sent_as}"));
        }
        let earlier = self.running.get(&key).cloned().unwrap_or_default();
        for run in &earlier {
            let is_same_task =
                run.attempt.epoch == attempt.epoch && run.attempt.task == attempt.task;
            let is_known = self.was_listed_before(run.attempt, attempt);
            let is_given_up = [attempt, run.attempt].iter().any(|it| self.given_up.contains(it));
            if !is_same_task && !is_known {
                world.counters.add(Count::OverlapBrokers);
            } else if is_given_up || (is_known && run.place.host.is_none()) {
                world.counters.add(Count::OverlapLoner);
            } else if self.is_held(world, run) {
                world.counters.add(Count::OverlapStopped);
            } else {
                let other = self.worker_name(run.place.worker);
                self.fail(format!(
                    "{name} starts {} while {other} runs {}",
                    self.attempt_name(attempt),
                    self.attempt_name(run.attempt)
                ));
            }
        }
        self.running.entry(key).or_default().push(RunSeen { place, attempt });
        self.check_latest(&name, attempt);
        let Some(asked) = self.requests.get_mut(&key) else {
            return self.fail(format!("{name} starts {key}, which nobody asked for"));
        };
        asked.starts += 1;
        if asked.runs_on && self.dead_clients.contains(&key.client) {
            world.counters.add(Count::RanOn);
        }
        if self.is_told {
            asked.ran_on.push(name.clone());
        }
        if asked.replays > 0 {
            world.counters.add(Count::ReplayStarted);
        }
        if asked.is_at_most_once && asked.starts > 1 + asked.replays {
            self.fail(format!("{name} starts {key}, at most once, a second time"));
        }
    }

    /// What a broker has sent again is not started where it was sent before.
    fn check_latest(&mut self, name: &str, attempt: AttemptId) {
        if !self.is_current(attempt.epoch) || self.given_up.contains(&attempt) {
            return;
        }
        let latest = self.sent(attempt.epoch, attempt.task).map(|sent| sent.dispatch);
        if latest != Some(attempt.dispatch) {
            self.fail(format!(
                "{name} starts {}, of which the latest dispatch is {latest:?}",
                self.attempt_name(attempt)
            ));
        }
    }

    /// Whether the supervisor of that run is stopped, or was just now.
    fn is_held(&self, world: &World, run: &RunSeen) -> bool {
        let seen = run.place.host.and_then(|host| self.hosts.get(&host));
        seen.is_some_and(|seen| {
            seen.is_held || (seen.went_on > 0 && world.now - seen.went_on <= KILL_TIME)
        })
    }

    /// Whether that attempt is in a handler at this moment.
    pub(super) fn is_running(&self, key: Key, attempt: AttemptId) -> bool {
        self.running.get(&key).is_some_and(|runs| runs.iter().any(|run| run.attempt == attempt))
    }

    /// A handler returns. The token of this run.
    pub fn on_end(
        &mut self,
        worker: WorkerId,
        attempt: AttemptId,
        key: Key,
        status: EndStatus,
    ) -> u64 {
        self.tokens += 1;
        self.outputs.insert(self.tokens, (key, attempt, status));
        if let Some(runs) = self.running.get_mut(&key) {
            runs.retain(|run| run.place.worker != worker);
            if runs.is_empty() {
                self.running.remove(&key);
            }
        }
        self.tokens
    }

    /// A worker's process is gone, and what it ran with it.
    pub fn on_death(&mut self, worker: WorkerId) {
        self.running.retain(|_, runs| {
            runs.retain(|run| run.place.worker != worker);
            !runs.is_empty()
        });
    }

    /// A supervisor says what it does.
    pub fn on_note(&mut self, world: &mut World, host: usize, note: &Note) {
        if let Note::Died { cause: LossKind::MaxRuntime, running: Some(attempt), .. } = note
            && let Some(key) = self.key_of(*attempt)
            && let Some(asked) = self.requests.get_mut(&key)
        {
            asked.overruns += 1;
        }
        match note {
            Note::Renewed => world.counters.add(Count::Renewed),
            Note::RenewalOverdue { .. } => world.counters.add(Count::RenewalOverdue),
            _ => {}
        }
        if let Note::LeaseEnded { .. } = note {
            world.digest(host as u64);
        }
    }

    /// Attempts that are in handlers.
    pub fn runs(&self) -> usize {
        self.running.values().map(Vec::len).sum()
    }
}
