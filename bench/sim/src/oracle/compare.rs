//! After an event: what is left of it, and whether both brokers hold the same.

use std::collections::BTreeMap;

use pinmesh_core::{Broker, Counts, Event, Ledger, TaskStanding, TaskView};
use pinmesh_protocol::id::TaskId;

use super::Oracle;
use super::allowed::name;
use super::book::{State, Task};
use super::clients::TASK_BYTES;
use super::inherited::Inherited;
use super::time::Due;
use crate::record::{Body, Said};

/// The longest words of the mesh on a task's end, bytes.
const WORDS_MAX: u64 = 300;

impl Oracle {
    /// Learns the number of a task that has come in.
    pub(super) fn learn(&mut self, core: &Broker<Body>) {
        let Some((age, task)) = self.tasks.last_key_value() else { return };
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
        while let Some(piece) = self.pieces.pop_front() {
            self.follow_piece(piece);
        }
        while let Some(due) = self.next_due().filter(|_| self.is_tick) {
            self.happen(due);
            while let Some(piece) = self.pieces.pop_front() {
                self.follow_piece(piece);
            }
        }
        while self.is_tick && core.counts().hosts < self.hosts.len() as u64 {
            let mut gone = self.hosts.keys().map(|id| Due::HostGone(*id));
            let Some(due) = gone.find(|due| self.may_happen(*due)) else { break };
            self.happen(due);
            while let Some(piece) = self.pieces.pop_front() {
                self.follow_piece(piece);
            }
        }
        self.match_the_rest();
        self.note_passed_over();
        self.note_limits();
    }

    /// What happened to tasks whose clients could not be told.
    fn settle_tasks(&mut self, core: &Broker<Body>) {
        let has_expired = self.tasks.values().any(|task| self.is_over(task));
        if !self.is_tick && !has_expired {
            return;
        }
        let views: Vec<TaskView> = core.tasks().collect();
        for view in views {
            let Some(age) = self.ids.get(&view.task).copied() else { continue };
            let state = self.tasks[&age].state;
            match view.standing {
                TaskStanding::Ended(status) if state != State::Ended => self.end_as(age, status),
                TaskStanding::Pending if self.tasks[&age].holder.is_some() => {
                    self.bring_back(Some(age));
                }
                _ => {}
            }
        }
    }

    /// Everything that both know must be the same.
    pub(super) fn compare(&mut self, event: &Event<'_, Body>, core: &Broker<Body>) {
        if self.failure.is_some() {
            return;
        }
        let differences = [
            self.untold(),
            self.unacknowledged(event),
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

    /// An end of which a client that can be told was not told.
    fn untold(&self) -> Option<String> {
        let mut untold = self.tasks.iter().filter(|(age, task)| {
            let client = task.client.and_then(|id| self.clients.get(&id));
            let can_be_told = client.is_some_and(|client| client.conn.is_some() && !client.is_full);
            task.state == State::Ended
                && !task.is_told
                && can_be_told
                && !task.client.is_some_and(|id| self.is_too_far_ahead(id, **age))
        });
        untold.next().map(|(_, task)| format!("no RESULT of {}: {:?}", name(task), task.end))
    }

    /// "ACK is sent once for each message read."
    fn unacknowledged(&self, event: &Event<'_, Body>) -> Option<String> {
        let Event::BatchEnd(conn) = event else { return None };
        let session = self.sessions.get(conn)?;
        (session.taken != session.acknowledged)
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
        if count == self.tasks.len() {
            return None;
        }
        let real: BTreeMap<TaskId, TaskView> = core.tasks().map(|view| (view.task, view)).collect();
        let mut missing =
            self.tasks.values().filter(|task| task.id.is_none_or(|id| !real.contains_key(&id)));
        missing.next().map(|task| format!("{} has vanished: {:?}", name(task), task.state))
    }

    fn view_of(&self, id: TaskId, task: &Task) -> TaskView {
        let holder = task.holder.and_then(|number| self.workers.get(&number));
        TaskView {
            task: id,
            client_id: task.client,
            request_id: task.request,
            submission: task.submission,
            standing: match (&task.state, &task.end) {
                (State::Pending, _) => TaskStanding::Pending,
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
        let outcomes = moved(ours.expired, real.expired) + moved(ours.cancelled, real.cancelled);
        let same = Ledger { expired: real.expired, cancelled: real.cancelled, ..ours.clone() };
        if same == *real && ours.ended() == real.ended() && outcomes <= 2 * self.ambiguous {
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
            expected.in_flight += u64::from(task.holder.is_some());
            match task.end.as_ref().map(|end| &end.said) {
                None => least += task.bytes,
                Some(Some(Said::Handler(bytes))) => least += bytes.len() as u64,
                Some(Some(Said::Text(_)) | None) => words += WORDS_MAX,
            }
        }
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
        let wakeup = core.next_wakeup().map(|at| at.0);
        wakeup.is_none_or(|wakeup| wakeup > at).then(|| {
            format!("{due:?} is due at {at}, and the broker wants to be woken up at {wakeup:?}")
        })
    }
}
