//! After an event: what is left of it, and whether both brokers hold the same.

use std::collections::BTreeMap;

use pinmesh_core::{Broker, Conn, Counts, Ledger, TaskStanding, TaskView, Time};
use pinmesh_protocol::id::TaskId;
use pinmesh_protocol::status::Status;

use super::Oracle;
use super::allowed::name;
use super::book::{Age, State, Task};
use super::clients::TASK_BYTES;
use super::inherited::Inherited;
use super::time::Due;
use crate::record::{Body, Effect, Said};

/// The longest words of the mesh on a task's end, bytes.
pub(super) const WORDS_MAX: u64 = 300;

impl Oracle {
    /// Learns the number of a task that has come in.
    pub(super) fn learn(&mut self, core: &Broker<Body>) {
        // Behind it there may be the request that follows it.
        let mut latest = self.tasks.iter().rev();
        let Some((age, task)) = latest.find(|(_, task)| task.follows.is_none()) else { return };
        if task.id.is_some() {
            return;
        }
        let age = *age;
        match core.tasks().find(|view| !self.ids.contains_key(&view.task)) {
            Some(view) => self.learn_id(age, view.task),
            None => self.fail("SUBMIT should have become a task"),
        }
    }

    /// Follows what no effect has told of.
    pub(super) fn settle(&mut self, core: &Broker<Body>) {
        self.settle_tasks(core);
        if !self.pieces.is_empty() {
            self.follow_pieces();
            self.settle_tasks(core);
        }
        if self.is_tick {
            self.settle_time(core);
        }
        self.match_the_rest();
        self.note_passed_over();
        self.note_limits();
    }

    fn follow_pieces(&mut self) {
        while let Some(piece) = self.pieces.pop_front() {
            self.follow_piece(piece);
            // Each is followed by an offer, before the next one.
            self.note_passed_over();
        }
    }

    /// What must have happened by now, and what may have happened where the broker holds less.
    fn settle_time(&mut self, core: &Broker<Body>) {
        while let Some(due) = self.next_due() {
            if self.was_looked_at_before(due, core) {
                continue;
            }
            self.happen(due);
            self.note_passed_over();
            self.follow_pieces();
        }
        while core.counts().hosts < self.hosts.len() as u64 {
            let mut gone = self.hosts.keys().map(|id| Due::HostGone(*id));
            let Some(due) = gone.find(|due| self.may_happen(*due)) else { break };
            self.happen(due);
            self.follow_pieces();
        }
        // An end that is kept is dropped without a word, with the others that are due, or before.
        while core.ledger().stale_ends > self.ledger.stale_ends {
            let kept = self.inherited.iter().filter(|(_, entry)| entry.has_end());
            let mut kept = kept.map(|(attempt, _)| Due::Forsaken(*attempt));
            let Some(due) = kept.find(|due| self.may_happen(*due)) else { break };
            self.happen(due);
        }
        while core.counts().workers < self.workers.len() as u64 {
            // It was looked at after its host was gone, not before.
            let again = self.now.saturating_add(self.silence_max());
            let mut away = self.workers.iter().filter(|(number, worker)| {
                let is_alone = self.worker_silence_max(**number).is_some();
                worker.conn.is_none() && worker.away_until == again && is_alone
            });
            let Some(number) = away.next().map(|(number, _)| *number) else { break };
            self.happen(Due::Away(number));
        }
    }

    /// A worker that is away was looked at while its host, which is lost in the same tick, still spoke
    /// for it.
    fn was_looked_at_before(&mut self, due: Due, core: &Broker<Body>) -> bool {
        let Due::Away(number) = due else { return false };
        let Some(worker) = self.workers.get(&number) else { return false };
        let (id, host) = (worker.peer_id, worker.host);
        let is_host_lost = host.is_some_and(|host| self.hosts_lost.contains(&host));
        if !is_host_lost || core.workers_page(0, u32::MAX).0.iter().all(|view| view.peer_id != id) {
            return false;
        }
        let again = self.now.saturating_add(self.silence_max());
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.away_until = again;
        }
        true
    }

    /// Which tasks ended by time alone in this tick without anybody being told: where their workers
    /// were gone in the same tick that came after, or they would have ended by it.
    pub(super) fn note_ended_by_time(&mut self, core: &Broker<Body>, effects: &[Effect]) {
        let is_told = |request| {
            effects.iter().any(
                |effect| matches!(effect, Effect::Result { head, .. } if head.request_id == request),
            )
        };
        for view in core.tasks().filter(|view| !is_told(view.request_id)) {
            if let TaskStanding::Ended(status @ (Status::Expired | Status::NoService)) =
                view.standing
                && let Some(age) = self.ids.get(&view.task)
                && self.tasks[age].state != State::Ended
            {
                self.ended_by_time.insert(*age, status);
            }
        }
    }

    /// What happened to tasks whose clients could not be told.
    fn settle_tasks(&mut self, core: &Broker<Body>) {
        let has_expired = self.tasks.values().any(|task| self.is_over(task));
        if !self.is_tick && !has_expired {
            return;
        }
        let mut views: Vec<TaskView> = core.tasks().collect();
        // What ended by itself did so before its worker was gone, or it would have ended by that.
        let by_itself = [Status::Expired, Status::NoService].map(TaskStanding::Ended);
        views.sort_by_key(|view| !by_itself.contains(&view.standing));
        for view in views {
            let Some(age) = self.ids.get(&view.task).copied() else { continue };
            let state = self.tasks[&age].state;
            if view.tries > self.tasks[&age].tries && state != State::Ended {
                self.bring_back(Some(age));
            }
            match view.standing {
                TaskStanding::Ended(status) if state != State::Ended => self.end_as(age, status),
                TaskStanding::Pending if self.tasks[&age].holder.is_some() => {
                    self.bring_back(Some(age));
                }
                TaskStanding::Pending => self.start_if_due(Some(age)),
                _ => {}
            }
        }
        self.settle_vanished(core);
    }

    /// Of a task that nobody waits for only the sums tell how it has ended.
    fn settle_vanished(&mut self, core: &Broker<Body>) {
        let held: Vec<TaskId> = core.tasks().map(|view| view.task).collect();
        let is_gone = |task: &Task| {
            let is_held = task.id.is_none_or(|id| held.contains(&id));
            task.state != State::Ended && task.follows.is_none() && !is_held
        };
        let gone = self.tasks.iter().filter(|(_, task)| is_gone(task)).map(|(age, _)| *age);
        for age in gone.collect::<Vec<Age>>() {
            // What took one from its worker may have ended others.
            if self.tasks.get(&age).is_some_and(|task| task.holder.is_some()) {
                self.bring_back(Some(age));
            }
            let (real, ours) = (core.ledger(), &self.ledger);
            let sums = [
                (Due::Deadline(age), real.expired > ours.expired),
                (Due::NoService(age), real.no_service > ours.no_service),
            ];
            let mut due =
                sums.into_iter().filter(|(due, is_more)| *is_more && self.may_happen(*due));
            if let Some((due, _)) = due.next() {
                self.happen(due);
            }
        }
    }

    /// Everything that both know must be the same.
    pub(super) fn compare(&mut self, batch_end: Option<Conn>, core: &Broker<Body>) {
        if self.failure.is_some() {
            return;
        }
        let differences = [
            self.untold(),
            self.untold_updates(),
            self.held_for_nothing(),
            self.unacknowledged(batch_end),
            self.other_tasks(core),
            self.other_ledger(core.ledger()),
            self.other_counts(core.counts()),
            self.idle_beside_work(),
            self.late_wakeup(core),
        ];
        if let Some(text) = differences.into_iter().flatten().next() {
            self.fail(text);
        }
    }

    /// An end of which a client that can be told was not told. They are told in order: one that is
    /// too far ahead of the ACKs holds up the others.
    fn untold(&self) -> Option<String> {
        let untold = self.tasks.iter().filter(|(_, task)| {
            let client = task.client.and_then(|id| self.clients.get(&id));
            let can_be_told = client.is_some_and(|client| client.conn.is_some() && !client.is_full);
            task.state == State::Ended && !task.is_told && can_be_told
        });
        let untold: Vec<(&Age, &Task)> = untold.collect();
        let is_held_up = |of: &Task| {
            let mut its = untold.iter().filter(|(_, task)| task.client == of.client);
            of.client.is_some_and(|id| {
                self.is_update_far_ahead(id)
                    || its.any(|(age, _)| self.is_too_far_ahead(id, **age, WORDS_MAX))
            })
        };
        let missing = untold.iter().find(|(_, task)| !is_held_up(task));
        missing.map(|(_, task)| format!("no RESULT of {}: {:?}", name(task), task.end))
    }

    /// "ACK is sent once for each message read."
    fn unacknowledged(&self, batch_end: Option<Conn>) -> Option<String> {
        let conn = batch_end?;
        let session = self.sessions.get(&conn)?;
        let most = session.held.map_or(session.taken, |(most, _)| most.min(session.taken));
        (most > session.acknowledged)
            .then(|| format!("no ACK {} to {conn:?} behind its message", session.taken))
    }

    fn other_tasks(&self, core: &Broker<Body>) -> Option<String> {
        let mut count = 0;
        for view in core.tasks() {
            count += 1;
            let Some(age) = self.ids.get(&view.task) else {
                return Some(format!("the broker holds {view:?}, which is over"));
            };
            let task = &self.tasks[age];
            let expected = self.view_of(view.task, task);
            if view != expected {
                return Some(format!("{}: the broker has {view:?}, not {expected:?}", name(task)));
            }
        }
        let own = self.tasks.values().filter(|task| task.follows.is_none());
        if count == own.clone().count() {
            return None;
        }
        let real: BTreeMap<TaskId, TaskView> = core.tasks().map(|view| (view.task, view)).collect();
        let mut missing = own.filter(|task| task.id.is_none_or(|id| !real.contains_key(&id)));
        missing.next().map(|task| format!("{} has vanished: {:?}", name(task), task.state))
    }

    fn view_of(&self, id: TaskId, task: &Task) -> TaskView {
        let holder = task.holder.and_then(|number| self.workers.get(&number));
        TaskView {
            task: id,
            client_id: task.client.or(task.key.as_ref().map(|_| task.asked_by)),
            request_id: task.request,
            submission: task.submission,
            standing: match (&task.state, &task.end) {
                (State::Pending | State::Following, _) => TaskStanding::Pending,
                (State::Delayed(at), _) => TaskStanding::Delayed(Time(*at)),
                (State::InFlight, _) => TaskStanding::InFlight,
                (State::Awaiting(_), _) | (State::Ended, None) => TaskStanding::AwaitingEnd,
                (State::Ended, Some(end)) => TaskStanding::Ended(end.status),
            },
            worker: holder.map(|worker| worker.peer_id),
            dispatch: task.dispatch,
            tries: task.tries,
        }
    }

    /// The sums must be equal. Where more than one thing could end a task of which nothing is left
    /// to be seen, the broker's word counts.
    fn other_ledger(&mut self, real: &Ledger) -> Option<String> {
        if *real == self.ledger {
            return None;
        }
        let moved = |ours: u64, theirs: u64| ours.abs_diff(theirs);
        let ours = &self.ledger;
        let outcomes = moved(ours.expired, real.expired)
            + moved(ours.cancelled, real.cancelled)
            + moved(ours.no_service, real.no_service);
        let (expired, cancelled, no_service) = (real.expired, real.cancelled, real.no_service);
        let back = moved(ours.requeued, real.requeued);
        let requeued = real.requeued;
        let same = Ledger { expired, cancelled, no_service, requeued, ..ours.clone() };
        let is_clear = outcomes > 2 * self.ambiguous || back > self.ambiguous_back;
        if same == *real && ours.ended() == real.ended() && !is_clear {
            self.ledger = same;
            return None;
        }
        Some(format!("the sums are {real:?}, not {ours:?}"))
    }

    fn other_counts(&self, real: Counts) -> Option<String> {
        let mut expected = Counts {
            sessions: self.sessions.len() as u64,
            clients: self.clients.len() as u64,
            workers: self.workers.len() as u64,
            hosts: self.hosts.len() as u64,
            tasks: self.tasks.len() as u64,
            bytes: real.bytes,
            ..Counts::default()
        };
        let (mut least, mut words) = (TASK_BYTES * expected.tasks, 0);
        for task in self.tasks.values() {
            expected.pending += u64::from(task.state == State::Pending);
            expected.delayed += u64::from(matches!(task.state, State::Delayed(_)));
            expected.in_flight += u64::from(task.holder.is_some());
            least += task.key.as_ref().map_or(0, |key| key.cost(&task.service));
            let shares = task.follows.is_some_and(|follows| follows.shares);
            match task.end.as_ref().map(|end| &end.said) {
                _ if shares || task.state == State::Following => {}
                None => least += task.bytes,
                Some(Some(Said::Handler(bytes))) => least += bytes.len() as u64,
                Some(Some(Said::Text(_)) | None) => words += WORDS_MAX,
            }
        }
        least += self.update_bytes();
        least += self.inherited.values().map(Inherited::kept_bytes).sum::<u64>();
        if real != expected {
            return Some(format!("the broker holds {real:?}, not {expected:?}"));
        }
        let is_within = (least..=least + words).contains(&real.bytes);
        (!is_within).then(|| format!("{} bytes held, not {least} and words", real.bytes))
    }

    /// A broker that is not woken up in time forgets something.
    fn late_wakeup(&self, core: &Broker<Body>) -> Option<String> {
        let (at, due) = self.wake_at()?;
        if self.earliest(due).is_some_and(|earliest| earliest <= self.ticked_at) {
            // It may have happened in the last tick, less than a grain before its time here.
            return None;
        }
        let wakeup = core.next_wakeup().map(|at| at.0);
        wakeup.is_none_or(|wakeup| wakeup > at).then(|| {
            format!("{due:?} is due at {at}, and the broker wants to be woken up at {wakeup:?}")
        })
    }
}
