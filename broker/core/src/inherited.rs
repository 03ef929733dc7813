//! Attempts of an earlier life of this broker that workers still hold. A request that is submitted
//! again takes over the attempt that runs for it, so that a restart of the broker runs nothing
//! twice. Until that happens the attempt counts in its worker's window and its end is kept; after
//! `client_kept` nobody will come any more, and it is asked to stop.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use pinmesh_protocol::command::{CancelAttempt, FromBroker, Held};
use pinmesh_protocol::id::{AttemptId, Dispatch, Epoch, PeerId, RequestId, TaskId};
use pinmesh_protocol::status::HeldState;

use crate::event::{Body, Conn, DoneEvent};
use crate::group::LEVELS;
use crate::outbox::Outbox;
use crate::session::Peer;
use crate::slab::{Key, TaskKey, WorkerKey};
use crate::state::{State, Wake};
use crate::task::TaskState;
use crate::time::Time;
use crate::worker::WorkerState;

/// Whose request, and which.
type Request = (PeerId, RequestId);

/// The most that are known of all workers together; the windows of a fleet of a thousand.
const INHERITED_MAX: usize = 262_144;

/// See the module. Bounded by the windows of the workers that list them, and by [`INHERITED_MAX`];
/// what is beyond is stopped.
pub(crate) struct Inherited<B> {
    attempts: BTreeMap<AttemptId, Entry<B>>,
    by_worker: BTreeMap<WorkerKey, BTreeSet<AttemptId>>,
    /// When those that are unclaimed are forsaken.
    by_time: BTreeSet<(Time, AttemptId)>,
    /// Those that are unclaimed. Workers may bring several attempts of one request along.
    by_request: BTreeSet<(Request, AttemptId)>,
    /// The latest attempt that a task has taken over.
    by_task: BTreeMap<TaskKey, AttemptId>,
    has_timer: bool,
}

struct Entry<B> {
    worker: WorkerKey,
    /// Named by a READY whose last part has not come.
    is_listed: bool,
    standing: Standing<B>,
}

enum Standing<B> {
    /// Its request has not been submitted here so far.
    Unclaimed { request: Request, until: Time, end: Option<DoneEvent<B>> },
    /// This dispatch of the task stands for it.
    Adopted { task: TaskKey, dispatch: Dispatch },
    /// Nobody will ask for it; it counts in its worker's window until it has ended.
    Forsaken,
    /// Its request was sent to another worker, or has ended, before anybody said that this one has
    /// it: to be stopped at once. Counts as a forsaken one does.
    Superseded,
}

impl<B: Body> Entry<B> {
    /// Whether it keeps its worker busy beside what the broker has sent there.
    const fn is_beside(&self) -> bool {
        match &self.standing {
            Standing::Unclaimed { end, .. } => end.is_none(),
            Standing::Forsaken | Standing::Superseded => true,
            Standing::Adopted { .. } => false,
        }
    }

    const fn has_end(&self) -> bool {
        matches!(self.standing, Standing::Unclaimed { end: Some(_), .. })
    }

    fn kept_bytes(&self) -> u64 {
        match &self.standing {
            Standing::Unclaimed { end: Some(done), .. } => done.body.kept_bytes(),
            Standing::Unclaimed { .. }
            | Standing::Adopted { .. }
            | Standing::Forsaken
            | Standing::Superseded => 0,
        }
    }
}

impl<B: Body> Inherited<B> {
    pub(crate) const fn new() -> Self {
        Self {
            attempts: BTreeMap::new(),
            by_worker: BTreeMap::new(),
            by_time: BTreeSet::new(),
            by_request: BTreeSet::new(),
            by_task: BTreeMap::new(),
            has_timer: false,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Bytes of the ends that are kept.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.attempts.values().map(Entry::kept_bytes).sum()
    }

    /// How many keep this worker busy beside what the broker has sent there.
    pub(crate) fn count_beside(&self, worker: WorkerKey) -> u32 {
        self.of(worker).filter(|(_, entry)| entry.is_beside()).count() as u32
    }

    /// The session of this worker ended: what its READY had listed until then counts for nothing.
    pub(crate) fn unmark(&mut self, worker: WorkerKey) {
        for attempt in self.by_worker.get(&worker).into_iter().flatten() {
            if let Some(entry) = self.attempts.get_mut(attempt) {
                entry.is_listed = false;
            }
        }
    }

    /// Unclaimed attempts of a request, the one with the highest name first.
    fn unclaimed(&self, request: Request) -> Vec<AttemptId> {
        let highest = AttemptId {
            epoch: Epoch(u32::MAX),
            task: TaskId(u64::MAX),
            dispatch: Dispatch(u32::MAX),
        };
        let range = (request, AttemptId::default())..=(request, highest);
        self.by_request.range(range).rev().map(|(_, attempt)| *attempt).collect()
    }

    fn of(&self, worker: WorkerKey) -> impl Iterator<Item = (AttemptId, &Entry<B>)> {
        let attempts = self.by_worker.get(&worker).into_iter().flatten();
        attempts.map(|attempt| (*attempt, &self.attempts[attempt]))
    }

    /// Whether a worker with so large a window may bring one more along.
    fn has_room(&self, worker: WorkerKey, window_tasks: u32) -> bool {
        let brought = self.by_worker.get(&worker).map_or(0, BTreeSet::len);
        brought < (window_tasks as usize).min(LEVELS) && self.attempts.len() < INHERITED_MAX
    }

    fn insert(&mut self, attempt: AttemptId, entry: Entry<B>) {
        self.remove(attempt);
        match &entry.standing {
            Standing::Unclaimed { request, until, .. } => {
                self.by_request.insert((*request, attempt));
                self.by_time.insert((*until, attempt));
            }
            Standing::Adopted { task, .. } => {
                self.by_task.insert(*task, attempt);
            }
            Standing::Forsaken | Standing::Superseded => {}
        }
        self.by_worker.entry(entry.worker).or_default().insert(attempt);
        self.attempts.insert(attempt, entry);
    }

    fn remove(&mut self, attempt: AttemptId) -> Option<Entry<B>> {
        let entry = self.attempts.remove(&attempt)?;
        if let Some(its) = self.by_worker.get_mut(&entry.worker) {
            its.remove(&attempt);
            if its.is_empty() {
                self.by_worker.remove(&entry.worker);
            }
        }
        match &entry.standing {
            Standing::Unclaimed { request, until, .. } => {
                self.by_request.remove(&(*request, attempt));
                self.by_time.remove(&(*until, attempt));
            }
            Standing::Adopted { task, .. } => {
                if self.by_task.get(task) == Some(&attempt) {
                    self.by_task.remove(task);
                }
            }
            Standing::Forsaken | Standing::Superseded => {}
        }
        Some(entry)
    }
}

impl<B: Body> State<B> {
    /// The task and the dispatch of it that an attempt stands for, of whichever epoch.
    #[inline]
    pub(crate) fn resolve(&self, attempt: AttemptId) -> Option<(TaskKey, Dispatch)> {
        if attempt.epoch == self.config.epoch {
            let named = (TaskKey(attempt.task.0), attempt.dispatch);
            // A dispatch that stands for an adopted attempt was never sent under a name of this epoch.
            let adopted = self.inherited.by_task.get(&named.0);
            let is_sent = adopted.is_none_or(|adopted| self.resolve(*adopted) != Some(named));
            return is_sent.then_some(named);
        }
        match self.inherited.attempts.get(&attempt)?.standing {
            Standing::Adopted { task, dispatch } => Some((task, dispatch)),
            Standing::Unclaimed { .. } | Standing::Forsaken | Standing::Superseded => None,
        }
    }

    /// What the latest dispatch of a task is called towards its worker.
    pub(crate) fn attempt_of(&self, key: TaskKey) -> AttemptId {
        let dispatch = self.tasks.at(key.index()).dispatch;
        let adopted = self.inherited.by_task.get(&key).copied();
        adopted
            .filter(|attempt| self.resolve(*attempt) == Some((key, dispatch)))
            .unwrap_or(AttemptId { epoch: self.config.epoch, task: TaskId(key.bits()), dispatch })
    }

    /// READY lists an attempt of an earlier epoch. `false`: it is superseded.
    pub(crate) fn inherit(&mut self, worker: WorkerKey, held: &Held) -> bool {
        if let Some(entry) = self.inherited.attempts.get_mut(&held.attempt) {
            if entry.worker != worker {
                // An attempt is with one worker, whatever another one says; its end may have
                // outlived that worker's session.
                return entry.has_end();
            }
            if matches!(entry.standing, Standing::Unclaimed { .. }) {
                // Known from an earlier session: its time does not begin anew.
                entry.is_listed = true;
                return true;
            }
        } else if !self.has_room_for_inherited(worker) {
            return false;
        }
        let request = (held.client_id, held.request_id);
        match self.task_of_request(request).map(|task| self.followed(task).unwrap_or(task)) {
            Some(task) if self.can_adopt(task, worker) => {
                self.forget_inherited(held.attempt);
                self.adopt(task, worker, held.attempt);
                self.tasks.at_mut(task.index()).is_listed = true;
                true
            }
            Some(_) => {
                if held.state != HeldState::Ended {
                    self.remember(worker, held.attempt, Standing::Superseded);
                }
                false
            }
            None => {
                let until = self.now.after(self.config.client_kept);
                let standing = Standing::Unclaimed { request, until, end: None };
                self.remember(worker, held.attempt, standing);
                self.watch_inherited();
                true
            }
        }
    }

    fn has_room_for_inherited(&self, worker: WorkerKey) -> bool {
        let (window_tasks, _) = self.workers.at(worker.index()).own_window;
        self.inherited.has_room(worker, window_tasks)
    }

    /// Notes that a worker holds an attempt that no task of this life stands behind.
    fn remember(&mut self, worker: WorkerKey, attempt: AttemptId, standing: Standing<B>) {
        self.forget_inherited(attempt);
        let entry = Entry { worker, is_listed: true, standing };
        self.count_beside(worker, u32::from(entry.is_beside()), 0);
        self.inherited.insert(attempt, entry);
    }

    /// A worker that lists an attempt as its own may go on with it for this task.
    fn can_adopt(&self, task: TaskKey, worker: WorkerKey) -> bool {
        let task = self.tasks.at(task.index());
        let worker = self.workers.get(worker).filter(|worker| worker.state != WorkerState::Dead);
        let group = worker.and_then(|worker| worker.group);
        let mut serving = self.services.at(task.service).groups.iter();
        task.state == TaskState::Pending && serving.any(|serving| Some(serving.group) == group)
    }

    /// The task, which is pending, is with that worker already.
    fn adopt(&mut self, key: TaskKey, worker: WorkerKey, attempt: AttemptId) {
        self.ledger.adopted += 1;
        self.unqueue(key);
        self.occupy(key, worker.index());
        let task = self.tasks.at_mut(key.index());
        task.dispatch.0 += 1;
        task.is_closed = false;
        task.dispatched_at = self.now;
        let standing = Standing::Adopted { task: key, dispatch: task.dispatch };
        self.inherited.insert(attempt, Entry { worker, is_listed: false, standing });
        if self.workers.at(worker.index()).conn.is_none() {
            self.watch_away(worker);
        }
    }

    /// A request has come, and is pending: an attempt that runs for it is its own, an end that is
    /// kept ends it. `true`: it is not pending any more.
    pub(crate) fn claim_inherited(&mut self, key: TaskKey, out: &mut impl Outbox<B>) -> bool {
        let task = self.tasks.at(key.index());
        let Some(client_id) = self.client_id(task) else { return false };
        let request = (client_id, task.request_id);
        let mut attempts = self.inherited.unclaimed(request);
        let has_end = |attempt: &AttemptId| self.inherited.attempts[attempt].has_end();
        let can_go_on =
            |attempt: &AttemptId| self.can_adopt(key, self.inherited.attempts[attempt].worker);
        let chosen = attempts.iter().position(has_end);
        let chosen = chosen.or_else(|| attempts.iter().position(can_go_on));
        let chosen = chosen.map(|place| attempts.remove(place));
        if let Some(attempt) = chosen
            && let Some(entry) = self.forget_inherited(attempt)
        {
            match entry.standing {
                Standing::Unclaimed { end: Some(done), .. } => {
                    self.ledger.adopted += 1;
                    self.end_by_handler(key, done, out);
                }
                _ => {
                    self.adopt(key, entry.worker, attempt);
                    // It is listed anew, if something before did not fit it.
                    self.feed(entry.worker, out);
                }
            }
        }
        if !attempts.is_empty() {
            attempts.into_iter().for_each(|attempt| self.supersede(attempt, out));
            // Some of their workers may have credit again.
            self.dispatch_all(out);
        }
        chosen.is_some()
    }

    /// The request of an unclaimed attempt has gone another way.
    fn supersede(&mut self, attempt: AttemptId, out: &mut impl Outbox<B>) {
        let Some(entry) = self.forget_inherited(attempt) else { return };
        if entry.has_end() {
            self.ledger.stale_ends += 1;
            return;
        }
        self.remember(entry.worker, attempt, Standing::Superseded);
        self.stop_inherited(entry.worker, attempt, true, out);
    }

    /// DONE of an attempt that is unclaimed is kept for its request; any other is handed back.
    pub(crate) fn keep_end(
        &mut self,
        conn: Conn,
        key: WorkerKey,
        done: DoneEvent<B>,
    ) -> Option<DoneEvent<B>> {
        // As a task would count: an end that nobody may ever ask for takes no room from results.
        let is_too_much = self.objection_to_result(&done.body).is_some()
            || self.bytes.saturating_add(done.body.kept_bytes()) > self.config.memory_bytes_max;
        let Some(entry) = self.inherited.attempts.get_mut(&done.attempt) else { return Some(done) };
        match &mut entry.standing {
            Standing::Unclaimed { end, .. }
                if end.is_none() && entry.worker == key && !is_too_much =>
            {
                self.bytes += done.body.kept_bytes();
                *end = Some(done);
            }
            Standing::Unclaimed { .. }
            | Standing::Adopted { .. }
            | Standing::Forsaken
            | Standing::Superseded => {
                return Some(done);
            }
        }
        self.count_beside(key, 0, 1);
        if let Some(session) = self.sessions.get_mut(conn) {
            session.take_end(u64::MAX);
        }
        None
    }

    /// An attempt that no task stands behind has ended, or was given back by this worker.
    pub(crate) fn end_inherited(&mut self, worker: WorkerKey, attempt: AttemptId) {
        let entry = self.inherited.attempts.get(&attempt);
        if entry.is_some_and(|entry| entry.worker == worker && entry.is_beside()) {
            self.forget_inherited(attempt);
        }
    }

    /// RECALLED names an attempt that no task stands behind.
    pub(crate) fn recall_inherited(
        &mut self,
        peer: Peer,
        attempt: AttemptId,
        out: &mut impl Outbox<B>,
    ) {
        let Some(key) = self.inherited.attempts.get(&attempt).map(|entry| entry.worker) else {
            return;
        };
        let is_its_own = match peer {
            Peer::Worker(sender) => sender == key,
            Peer::Host(host) => {
                let host = self.hosts.at(host.index()).peer_id;
                self.workers.get(key).is_some_and(|worker| worker.host == Some(host))
            }
            Peer::Client(_) => false,
        };
        if is_its_own {
            self.end_inherited(key, attempt);
            self.feed(key, out);
        }
    }

    /// After the last part of READY: what this worker does not list any more it does not hold.
    pub(crate) fn forget_unlisted(&mut self, worker: WorkerKey) {
        let beside = self.inherited.of(worker).filter(|(_, entry)| entry.is_beside());
        let unlisted = beside.filter(|(_, entry)| !entry.is_listed);
        let unlisted: Vec<_> = unlisted.map(|(attempt, _)| attempt).collect();
        for attempt in unlisted {
            self.forget_inherited(attempt);
        }
        self.inherited.unmark(worker);
    }

    /// A worker is forgotten: only the ends that it left behind still matter.
    pub(crate) fn forget_inherited_of(&mut self, worker: WorkerKey) {
        let attempts: Vec<_> = self.inherited.of(worker).map(|(attempt, _)| attempt).collect();
        for attempt in attempts {
            let entry = self.inherited.attempts.get(&attempt);
            if entry.is_some_and(|entry| !entry.has_end()) {
                self.inherited.remove(attempt);
            }
        }
    }

    fn forget_inherited(&mut self, attempt: AttemptId) -> Option<Entry<B>> {
        let entry = self.inherited.remove(attempt)?;
        self.bytes -= entry.kept_bytes();
        self.count_beside(entry.worker, 0, u32::from(entry.is_beside()));
        Some(entry)
    }

    /// What is beside counts against the credit of its worker.
    fn count_beside(&mut self, key: WorkerKey, more: u32, less: u32) {
        if more != less && self.workers.get(key).is_some() {
            self.unlist(key.index());
            let worker = self.workers.at_mut(key.index());
            worker.beside = worker.beside + more - less;
            self.list(key.index());
        }
    }

    fn task_of_request(&self, (client, request): Request) -> Option<TaskKey> {
        match self.peers.get(&client)? {
            Peer::Client(key) => self.clients.get(*key)?.request(request),
            Peer::Worker(_) | Peer::Host(_) => None,
        }
    }

    /// HOST names a claimed attempt: one that is superseded, and whose worker came before its
    /// supervisor, can be stopped now.
    pub(crate) fn stop_superseded(&self, attempt: AttemptId, out: &mut impl Outbox<B>) {
        if let Some(entry) = self.inherited.attempts.get(&attempt)
            && let Standing::Superseded = entry.standing
        {
            self.stop_inherited(entry.worker, attempt, true, out);
        }
    }

    fn stop_inherited(
        &self,
        worker: WorkerKey,
        attempt: AttemptId,
        is_hard: bool,
        out: &mut impl Outbox<B>,
    ) {
        let Some(slot) = self.workers.get(worker).map(|worker| worker.slot) else { return };
        if let Some(conn) = self.overseer_conn(worker) {
            out.send(conn, FromBroker::Cancel(CancelAttempt { slot, attempt, is_hard }));
        }
    }

    fn watch_inherited(&mut self) {
        if self.inherited.has_timer {
            return;
        }
        if let Some((until, _)) = self.inherited.by_time.first() {
            self.inherited.has_timer = true;
            self.timers.set(*until, Wake::Inherited);
        }
    }

    /// Requests that were not submitted again within `client_kept` will not be.
    pub(crate) fn on_inherited_timer(&mut self, out: &mut impl Outbox<B>) {
        self.inherited.has_timer = false;
        let due = self.inherited.by_time.iter().take_while(|(until, _)| *until <= self.now);
        let over: Vec<_> = due.map(|(_, attempt)| *attempt).collect();
        for attempt in over {
            let Some(entry) = self.forget_inherited(attempt) else { continue };
            if entry.has_end() {
                self.ledger.stale_ends += 1;
                continue;
            }
            if self.workers.get(entry.worker).is_some() {
                self.remember(entry.worker, attempt, Standing::Forsaken);
                self.stop_inherited(entry.worker, attempt, false, out);
            }
        }
        self.watch_inherited();
        // Some of the workers may have credit again.
        self.dispatch_all(out);
    }
}
