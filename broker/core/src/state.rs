//! Everything that the broker knows, and the few moves that all of `on_*` share: how a task ends, goes
//! back to waiting, leaves its worker, and is forgotten.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use pinmesh_protocol::command::StageTimes;
use pinmesh_protocol::id::PeerId;
use pinmesh_protocol::status::Status;

use crate::client::{Client, InLine};
use crate::config::CoreConfig;
use crate::dead::{Dead, Origin};
use crate::event::{Body, Conn};
use crate::flow::Flows;
use crate::group::Group;
use crate::inherited::Inherited;
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::offer::Offer;
use crate::outbox::Outbox;
use crate::progress::Progress;
use crate::random::Random;
use crate::service::Services;
use crate::session::{Peer, Sessions};
use crate::slab::{ClientKey, GroupKey, HostKey, Key, ServiceKey, Slab, TaskKey, WorkerKey};
use crate::task::{End, EndBody, Owner, Task, TaskState};
use crate::time::Time;
use crate::timer::TimerWheel;
use crate::worker::{Host, Place, Worker, WorkerState};

/// Why a timer goes off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    /// A session may have been silent for too long.
    Session(Conn),
    /// A lost client's time is up.
    ClientLost(ClientKey),
    /// A worker without a supervisor has had no session for too long.
    WorkerAway(WorkerKey),
    /// What a worker runs may have kept others waiting for too long.
    Head(WorkerKey),
    /// A worker that gave a task back may be fed again.
    Unpark(WorkerKey),
    /// A host's lease ends, or its tasks are to be requeued.
    Host(HostKey),
    /// Nobody has served the service for `service_wait`.
    Service(ServiceKey),
    /// A service may send its next task.
    Gate(ServiceKey),
    /// Attempts of an earlier epoch may have been unclaimed for too long.
    Inherited,
    /// Dead letters may have been kept for too long.
    Dead,
    /// A task's deadline, or its start while it is delayed, or, while it awaits its end, the end of
    /// that wait, or, once it has ended, of the time of its key.
    Task(TaskKey),
}

/// See the module.
pub(crate) struct State<B> {
    pub(crate) config: CoreConfig,
    pub(crate) now: Time,
    pub(crate) is_draining: bool,
    /// HELLOs of supervisors so far.
    pub(crate) turns: u64,
    /// Tasks that have come to wait, as new, so far.
    pub(crate) arrivals: u64,
    /// Tasks that are delayed.
    pub(crate) delayed: u64,
    pub(crate) jitter: Random,
    pub(crate) tasks: Slab<TaskKey, Task<B>>,
    pub(crate) services: Services,
    pub(crate) flows: Flows,
    pub(crate) groups: Slab<GroupKey, Group>,
    pub(crate) groups_by_offer: BTreeMap<Offer, GroupKey>,
    pub(crate) clients: Slab<ClientKey, Client>,
    pub(crate) workers: Slab<WorkerKey, Worker>,
    pub(crate) hosts: Slab<HostKey, Host>,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    pub(crate) places: BTreeMap<Place, WorkerKey>,
    pub(crate) inherited: Inherited<B>,
    pub(crate) keys: Keys,
    pub(crate) progress: Progress<B>,
    pub(crate) dead: Dead<B>,
    /// Tasks that are replays and have not ended; beside the tasks, so that the others pay nothing.
    pub(crate) origins: BTreeMap<TaskKey, Origin>,
    pub(crate) sessions: Sessions,
    pub(crate) timers: TimerWheel<Wake>,
    pub(crate) ledger: Ledger,
    /// Bytes of everything held, overhead included.
    pub(crate) bytes: u64,
    /// Services whose gates opened in this event, at most one for each attempt that it let go of.
    pub(crate) opened: Vec<ServiceKey>,
}

impl<B: Body> State<B> {
    pub(crate) fn new(config: CoreConfig) -> Self {
        Self {
            services: Services::new(&config),
            jitter: Random::new(config.jitter_seed),
            config,
            now: Time(0),
            is_draining: false,
            turns: 0,
            arrivals: 0,
            delayed: 0,
            tasks: Slab::new(),
            flows: Flows::new(),
            groups: Slab::new(),
            groups_by_offer: BTreeMap::new(),
            clients: Slab::new(),
            workers: Slab::new(),
            hosts: Slab::new(),
            peers: BTreeMap::new(),
            places: BTreeMap::new(),
            inherited: Inherited::new(),
            keys: Keys::default(),
            progress: Progress::new(),
            dead: Dead::new(),
            origins: BTreeMap::new(),
            sessions: Sessions::new(),
            timers: TimerWheel::new(),
            ledger: Ledger::default(),
            bytes: 0,
            opened: Vec::new(),
        }
    }

    /// Ends a task: its client is told, now or as soon as it can be.
    #[inline]
    pub(crate) fn finish(
        &mut self,
        key: TaskKey,
        status: Status,
        stages: Option<StageTimes>,
        body: EndBody<B>,
        out: &mut impl Outbox<B>,
    ) {
        self.unqueue(key);
        let task = self.tasks.at_mut(key.index());
        assert_ne!(task.state, TaskState::Ended, "a task ends once");
        if let Some(timer) = task.timer.take() {
            self.timers.cancel(timer);
        }
        task.state = TaskState::Ended;
        self.bytes -= task.body.take().map_or(0, |body| body.kept_bytes());
        self.bytes += body.kept_bytes();
        task.end = Some(End { status, stages, body });
        let (service, owner, bytes) = (task.service, task.client(), task.payload_bytes);
        let queue = self.services.at_mut(service);
        queue.tasks -= 1;
        queue.bytes -= bytes;
        self.services.release(service);
        self.ledger.on_end(status);
        if !self.origins.is_empty() {
            self.origins.remove(&key);
        }
        if let Some(stages) = &stages {
            out.stages(stages);
        }
        if !self.progress.is_silent() {
            self.end_progress(key);
        }
        if matches!(self.tasks.at(key.index()).owner, Owner::Key(_)) {
            return self.end_for_followers(key, out);
        }
        let Some(owner) = owner.filter(|owner| self.clients.get(*owner).is_some()) else {
            return self.forget_if_over(key);
        };
        self.clients.at_mut(owner.index()).results.push(InLine::Result(key));
        self.send_results(owner, out);
    }

    /// Sends a client what has ended and is not yet sent, in order, as far ahead of its ACKs as it
    /// may: a peer that reads nothing must not fill the queues of the transport.
    #[inline]
    pub(crate) fn send_results(&mut self, key: ClientKey, out: &mut impl Outbox<B>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(conn) = client.conn.filter(|_| !client.is_full) else { return };
        while let Some(next) = client.results.first_unsent() {
            match next {
                InLine::Answer => {}
                InLine::Result(key) => {
                    let task = self.tasks.get(key);
                    let of = task.and_then(|task| {
                        task.shares().map_or(Some(task), |lead| self.tasks.get(lead))
                    });
                    if let Some((task, of)) = task.zip(of)
                        && let Some((head, body)) = task.result(of)
                    {
                        let bytes = of.end_bytes();
                        if !client.results.may_send(bytes, self.config.results_ahead_bytes) {
                            return;
                        }
                        client.results.add_ahead(bytes);
                        out.result(conn, &head, body);
                    }
                }
                InLine::Update(key) => {
                    if let Some(update) = self.progress.updates.get(key) {
                        let bytes = update.kept_bytes();
                        if !client.results.may_send(bytes, self.config.results_ahead_bytes) {
                            return;
                        }
                        client.results.add_ahead(bytes);
                        out.progress(conn, &update.head, &update.body);
                    }
                }
            }
            client.results.next_unsent();
        }
        if !client.latest.is_empty() {
            self.send_latest(key, out);
        }
    }

    /// Puts an attempt's task back into its queue, unharmed, among those as old as it is; a task that
    /// nobody waits for any more ends instead.
    pub(crate) fn requeue(&mut self, key: TaskKey, out: &mut impl Outbox<B>) {
        self.release(key);
        let task = self.tasks.at_mut(key.index());
        if task.state == TaskState::Ended {
            self.forget_if_over(key);
            return;
        }
        debug_assert_ne!(task.state, TaskState::Pending, "only an attempt goes back");
        self.ledger.requeued += 1;
        self.refund(key);
        self.stop_awaiting(key);
        let task = self.tasks.at(key.index());
        if task.cancel.is_some() || !self.is_wanted(key) {
            let text = EndBody::Fixed("cancelled before it was started");
            self.finish(key, Status::Cancelled, None, text, out);
            return;
        }
        let task = self.tasks.at_mut(key.index());
        task.state = TaskState::Pending;
        let service = task.service;
        self.wait(key, true);
        // What came in before those that wait may be due before them.
        if let Some(timer) = self.services.at_mut(service).timer.take() {
            self.timers.cancel(timer);
        }
        self.watch_service(service);
    }

    /// A late end is waited for no more: from here on the task's timer is its deadline's again.
    pub(crate) fn stop_awaiting(&mut self, key: TaskKey) {
        let task = self.tasks.at_mut(key.index());
        if task.state != TaskState::AwaitingEnd {
            return;
        }
        self.set_task_timer(key);
    }

    /// The worker of this attempt is no longer busy with it.
    #[inline]
    pub(crate) fn release(&mut self, key: TaskKey) {
        let task = self.tasks.at_mut(key.index());
        if !task.occupies {
            return;
        }
        task.occupies = false;
        task.is_listed = false;
        let (index, bytes, service) = (task.worker.index(), task.payload_bytes, task.service);
        let work = core::mem::take(&mut task.work);
        task.is_probe = false;
        let has_ended = task.state == TaskState::Ended;
        self.unlist(index);
        let worker = self.workers.at_mut(index);
        if worker.in_flight.first() == Some(key.index()) {
            worker.head_since = self.now;
            worker.is_recalled = false;
        }
        worker.in_flight.remove(&mut self.tasks, key.index());
        worker.in_flight_bytes -= bytes;
        worker.work -= work;
        self.list(index);
        self.leave_gate(service);
        if has_ended {
            self.services.release(service);
        }
    }

    /// Occupies a worker with an attempt.
    #[inline]
    pub(crate) fn occupy(&mut self, key: TaskKey, index: u32) {
        self.unlist(index);
        let task = self.tasks.at_mut(key.index());
        let (bytes, service, work) = (task.payload_bytes, task.service, task.work);
        task.state = TaskState::InFlight;
        task.occupies = true;
        task.worker = self.workers.key_at(index);
        let worker = self.workers.at_mut(index);
        if worker.in_flight.is_empty() {
            worker.head_since = self.now;
        }
        worker.in_flight.push_back(&mut self.tasks, key.index());
        worker.in_flight_bytes += bytes;
        worker.work += work;
        self.list(index);
        self.watch_head(index);
        self.enter_gate(service);
    }

    /// Offers a worker's credit to its group, if it has any.
    #[inline]
    pub(crate) fn list(&mut self, index: u32) {
        let worker = self.workers.at(index);
        if worker.level.is_none()
            && worker.has_credit()
            && let Some(group) = worker.group.and_then(|group| self.groups.get_mut(group))
        {
            group.list(&mut self.workers, index);
        }
    }

    /// Takes that offer back.
    #[inline]
    pub(crate) fn unlist(&mut self, index: u32) {
        let worker = self.workers.at(index);
        if worker.level.is_some()
            && let Some(group) = worker.group.and_then(|group| self.groups.get_mut(group))
        {
            group.unlist(&mut self.workers, index);
        }
    }

    /// Forgets a task that has ended once neither its client nor a worker has anything to do with it.
    #[inline]
    pub(crate) fn forget_if_over(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get(key) else { return };
        if task.state != TaskState::Ended || task.occupies || self.is_awaited(task) {
            return;
        }
        let shared = task.shares();
        self.bytes -= task.kept_bytes();
        self.tasks.discard(key);
        if let Some(lead) = shared {
            self.release_shared(lead);
        }
    }

    /// Whether another attempt of the task is worth its while.
    pub(crate) fn is_wanted(&self, key: TaskKey) -> bool {
        let task = self.tasks.at(key.index());
        task.runs_on
            || match task.owner {
                Owner::Client(_) => self.is_awaited(task),
                Owner::Key(_) => self.keys.is_waited_for(key),
                Owner::Nobody(_) => false,
            }
    }

    /// Whether somebody is to be told how the task ends, and has not acknowledged it.
    #[inline]
    pub(crate) fn is_awaited(&self, task: &Task<B>) -> bool {
        match task.owner {
            Owner::Client(key) => self.clients.get(key).is_some(),
            Owner::Key(_) => true,
            Owner::Nobody(_) => false,
        }
    }

    /// The id of the client that asked for the task; `None`: it is forgotten.
    pub(crate) fn client_id(&self, task: &Task<B>) -> Option<PeerId> {
        match task.owner {
            Owner::Client(key) => self.clients.get(key).map(|client| client.peer_id),
            Owner::Key(peer_id) | Owner::Nobody(peer_id) => Some(peer_id),
        }
    }

    /// A worker leaves its group and its place; late ends may still come in its session.
    pub(crate) fn bury(&mut self, index: u32) {
        self.unlist(index);
        self.leave_group(index);
        let key = self.workers.key_at(index);
        let worker = self.workers.at_mut(index);
        worker.state = WorkerState::Dead;
        if let Some(place) = worker.place()
            && self.places.get(&place) == Some(&key)
        {
            self.places.remove(&place);
        }
    }

    /// Starts the wait of a service that nobody serves and somebody waits for.
    pub(crate) fn watch_service(&mut self, key: ServiceKey) {
        let service = self.services.at_mut(key);
        if service.timer.is_none() && service.groups.is_empty() && service.waiting.len() > 0 {
            let at = service.unserved_since.after(self.config.service_wait).max(self.now);
            service.timer = Some(self.timers.set(at, Wake::Service(key)));
        }
    }
}
