//! Attempts of an earlier life of the broker that workers still hold. Their requests take them
//! over; until then they count in their workers' windows, and their ends are kept for a while.

use pinmesh_core::{Body as _, Conn, DoneEvent};
use pinmesh_protocol::command::Held;
use pinmesh_protocol::id::{AttemptId, PeerId, RequestId};
use pinmesh_protocol::status::HeldState;

use super::Oracle;
use super::book::{Age, Presence, State, Who, WorkerNo};
use crate::record::Body;

/// The most that one worker may bring along, whatever its window.
const BROUGHT_MAX: usize = 1024;

/// The most that all workers may bring along together.
const BROUGHT_IN_ALL_MAX: usize = 262_144;

/// What is to become of such an attempt.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// Its request has not come; after `until` it will not come any more.
    Unclaimed { client: PeerId, request: RequestId, until: u64, end: Option<Box<DoneEvent<Body>>> },
    /// This task goes on with it.
    Adopted(Age),
    /// Nobody asked for it in time.
    Forsaken,
    /// Its request is with another worker, or has ended.
    Superseded,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Inherited {
    pub(super) worker: WorkerNo,
    pub(super) is_listed: bool,
    pub(super) standing: Standing,
}

impl Inherited {
    /// Whether it keeps its worker busy beside what this life has sent there.
    pub(super) const fn is_beside(&self) -> bool {
        match &self.standing {
            Standing::Unclaimed { end, .. } => end.is_none(),
            Standing::Forsaken | Standing::Superseded => true,
            Standing::Adopted(_) => false,
        }
    }

    pub(super) const fn has_end(&self) -> bool {
        matches!(self.standing, Standing::Unclaimed { end: Some(_), .. })
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        match &self.standing {
            Standing::Unclaimed { end: Some(done), .. } => done.body.payload.len() as u64,
            _ => 0,
        }
    }
}

impl Oracle {
    /// How many a worker holds beside what this life has sent there.
    pub(super) fn beside(&self, number: WorkerNo) -> u64 {
        let its = self.inherited.values().filter(|entry| entry.worker == number);
        its.filter(|entry| entry.is_beside()).count() as u64
    }

    /// READY lists it. `false`: it is to be stopped hard.
    pub(super) fn inherit(&mut self, number: WorkerNo, held: &Held) -> bool {
        let attempt = held.attempt;
        if let Some(entry) = self.inherited.get_mut(&attempt) {
            // It is with one worker, whatever another one says.
            if entry.worker != number {
                return entry.has_end();
            }
            if matches!(entry.standing, Standing::Unclaimed { .. }) {
                entry.is_listed = true;
                return true;
            }
        } else if !self.has_room_for_more(number) {
            return false;
        }
        let client = self.clients.get(&held.client_id);
        let age = client.and_then(|client| client.requests.get(&held.request_id)).copied();
        if let Some(age) = age.map(|age| self.followed(age).unwrap_or(age)) {
            if self.can_adopt(age, number) {
                self.adopt(age, number, attempt);
                if let Some(task) = self.tasks.get_mut(&age) {
                    task.is_listed = true;
                }
                return true;
            }
            if held.state != HeldState::Ended {
                self.remember(number, attempt, Standing::Superseded);
            }
            return false;
        }
        let standing = Standing::Unclaimed {
            client: held.client_id,
            request: held.request_id,
            until: self.now.saturating_add(self.config.client_kept.0),
            end: None,
        };
        self.remember(number, attempt, standing);
        true
    }

    /// Whether its worker has not brought as many along as its window.
    fn has_room_for_more(&self, number: WorkerNo) -> bool {
        let brought = self.inherited.values().filter(|entry| entry.worker == number).count();
        let window = self.workers.get(&number).map_or(0, |worker| worker.own_window.0);
        brought < BROUGHT_MAX.min(window as usize) && self.inherited.len() < BROUGHT_IN_ALL_MAX
    }

    fn remember(&mut self, number: WorkerNo, attempt: AttemptId, standing: Standing) {
        self.inherited.insert(attempt, Inherited { worker: number, is_listed: true, standing });
        self.recount(number);
    }

    /// What a worker holds beside what was sent to it may have changed: then it may be offered
    /// again what it was passed over with.
    fn recount(&mut self, number: WorkerNo) {
        let beside = self.beside(number);
        if let Some(worker) = self.workers.get_mut(&number).filter(|worker| worker.beside != beside)
        {
            worker.beside = beside;
            worker.is_passed_over = false;
        }
    }

    fn can_adopt(&self, age: Age, number: WorkerNo) -> bool {
        let task = &self.tasks[&age];
        let worker = self.workers.get(&number);
        task.state == State::Pending
            && worker.is_some_and(|worker| {
                worker.presence != Presence::Dead && worker.serves(&task.service)
            })
    }

    /// The task goes on with this attempt, as its next dispatch.
    fn adopt(&mut self, age: Age, number: WorkerNo, attempt: AttemptId) {
        self.ledger.adopted += 1;
        self.inherited.remove(&attempt);
        self.recount(number);
        self.hold(age, number);
        let now = self.now;
        if let Some(task) = self.tasks.get_mut(&age) {
            task.attempt = attempt;
            task.dispatch.0 += 1;
            task.sent_at = now;
        }
        let standing = Standing::Adopted(age);
        self.inherited.insert(attempt, Inherited { worker: number, is_listed: false, standing });
        let limit = self.worker_silence_max(number).unwrap_or(self.silence_max());
        if let Some(worker) = self.workers.get_mut(&number).filter(|worker| worker.conn.is_none()) {
            worker.away_until = now.saturating_add(limit);
        }
    }

    /// A task has come in: an end that is kept for its request ends it, or else it takes over an
    /// attempt that runs. Others of the same request are superseded.
    pub(super) fn claim(&mut self, age: Age, client: PeerId) -> bool {
        let request = self.tasks[&age].request;
        let its = self.inherited.iter().rev().filter(|(_, entry)| match &entry.standing {
            Standing::Unclaimed { client: of, request: which, .. } => {
                (*of, *which) == (client, request)
            }
            _ => false,
        });
        let its: Vec<(AttemptId, Inherited)> =
            its.map(|(attempt, entry)| (*attempt, entry.clone())).collect();
        let ended = its.iter().position(|(_, entry)| entry.has_end());
        let chosen =
            ended.or_else(|| its.iter().position(|(_, entry)| self.can_adopt(age, entry.worker)));
        for (place, (attempt, entry)) in its.into_iter().enumerate() {
            let (number, has_end) = (entry.worker, entry.has_end());
            self.inherited.remove(&attempt);
            self.recount(number);
            match entry.standing {
                Standing::Unclaimed { end: Some(done), .. } if chosen == Some(place) => {
                    self.ledger.adopted += 1;
                    self.end_by_handler(age, &done);
                }
                _ if chosen == Some(place) => self.adopt(age, number, attempt),
                _ if has_end => self.ledger.stale_ends += 1,
                _ => {
                    self.remember(number, attempt, Standing::Superseded);
                    self.expect_cancel(number, attempt, true);
                }
            }
        }
        chosen.is_some()
    }

    /// DONE of an unclaimed attempt is kept for its request. `false`: it is an end like any other.
    pub(super) fn keep_end(
        &mut self,
        conn: Conn,
        number: WorkerNo,
        done: &DoneEvent<Body>,
    ) -> bool {
        // It counts as a task does: results keep their own room.
        let is_too_much = self.is_too_much(&done.body)
            || self.counts.bytes + done.body.payload_bytes() > self.config.memory_bytes_max;
        let Some(entry) = self.inherited.get_mut(&done.attempt) else { return false };
        if entry.worker != number || is_too_much {
            return false;
        }
        match &mut entry.standing {
            Standing::Unclaimed { end: end @ None, .. } => *end = Some(Box::new(done.clone())),
            _ => return false,
        }
        self.recount(number);
        self.count_end(conn, 0);
        true
    }

    /// One that no task stands behind has ended, or was given back.
    pub(super) fn end_inherited(&mut self, number: WorkerNo, attempt: AttemptId) {
        let entry = self.inherited.get(&attempt);
        if entry.is_some_and(|entry| entry.worker == number && entry.is_beside()) {
            self.inherited.remove(&attempt);
            self.recount(number);
        }
    }

    /// RECALLED names one that no task stands behind.
    pub(super) fn recall_inherited(&mut self, who: Who, attempt: AttemptId) {
        let Some(number) = self.inherited.get(&attempt).map(|entry| entry.worker) else { return };
        let is_its = match who {
            Who::Worker(sender) => sender == number,
            Who::Host(id) => {
                self.workers.get(&number).is_some_and(|worker| worker.host == Some(id))
            }
            Who::Client(_) => false,
        };
        if is_its {
            self.end_inherited(number, attempt);
        }
    }

    /// After the last part of READY: what is not listed is not held any more.
    pub(super) fn forget_unlisted(&mut self, number: WorkerNo) {
        self.inherited
            .retain(|_, entry| entry.worker != number || !entry.is_beside() || entry.is_listed);
        self.unmark(number);
        self.recount(number);
    }

    pub(super) fn unmark(&mut self, number: WorkerNo) {
        for entry in self.inherited.values_mut().filter(|entry| entry.worker == number) {
            entry.is_listed = false;
        }
    }

    /// A worker is forgotten: only ends that it left behind still matter.
    pub(super) fn forget_inherited_of(&mut self, number: WorkerNo) {
        self.inherited.retain(|_, entry| entry.worker != number || entry.has_end());
    }

    /// HOST says that one runs which is superseded: it can be stopped now.
    pub(super) fn stop_superseded(&mut self, attempt: AttemptId) {
        if let Some(entry) = self.inherited.get(&attempt)
            && matches!(entry.standing, Standing::Superseded)
        {
            self.expect_cancel(entry.worker, attempt, true);
        }
    }

    /// Its request has not come in time.
    pub(super) fn forsake(&mut self, attempt: AttemptId) {
        let Some(entry) = self.inherited.remove(&attempt) else { return };
        let number = entry.worker;
        self.recount(number);
        if entry.has_end() {
            self.ledger.stale_ends += 1;
        } else if self.workers.contains_key(&number) {
            self.remember(number, attempt, Standing::Forsaken);
            self.expect_cancel(number, attempt, false);
        }
    }
}
