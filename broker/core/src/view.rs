//! What a broker holds, for tests and for people who ask. Nothing here changes anything.
//!
//! Each walk is bounded, so that whoever asks does not hold up the broker's loop: pages of services,
//! workers, hosts, clients and tasks take time linear in their length (a view costs some 100 to
//! 500 ns), an explanation looks at up to [`AHEAD_MAX`] tasks and at every worker once.

use alloc::string::String;
use alloc::vec::Vec;

use pinmesh_protocol::id::TaskId;
use pinmesh_protocol::id::{Dispatch, Incarnation, PeerId, Priority, RequestId, Slot, Submission};
use pinmesh_protocol::status::Status;

use crate::broker::Broker;
use crate::config::ServiceLimits;
use crate::dead::LetterId;
use crate::event::Body;
use crate::service::Service;
use crate::slab::{Key, TaskKey};
use crate::state::State;
use crate::task::{Owner, Task, TaskState};
use crate::time::{Span, Time};
use crate::worker::{Worker, WorkerState};

/// The most tasks that are counted before one; further on it says "at least".
pub const AHEAD_MAX: u32 = 10_000;

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskStanding {
    /// It waits for a worker.
    Pending,
    /// It waits for this moment: to be tried again, or to start at all.
    Delayed(Time),
    /// A worker has it.
    InFlight,
    /// Its worker is gone after it had started; its end may yet come (at-most-once only).
    AwaitingEnd,
    /// It has its outcome, which its client has not acknowledged, or its worker not let go.
    Ended(Status),
}

/// One task of a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskView {
    /// The broker's number for it.
    pub task: TaskId,
    /// Who waits for it; `None`: nobody any more.
    pub client_id: Option<PeerId>,
    /// The client's number for it.
    pub request_id: RequestId,
    /// The latest submission of it.
    pub submission: Submission,
    /// Where it stands.
    pub standing: TaskStanding,
    /// Whom it keeps busy at the moment, even if it has ended.
    pub worker: Option<PeerId>,
    /// Its sendings to workers so far.
    pub dispatch: Dispatch,
    /// Its starts that ended badly.
    pub tries: u32,
    /// The dead letter of which it is a replay; while it has not ended.
    pub replay_of: Option<LetterId>,
}

/// One service of a broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Tasks that wait, priority 1 first.
    pub pending: [u32; 10],
    /// Attempts that workers hold.
    pub in_flight: u32,
    /// Tasks that have not ended, wherever they are.
    pub tasks: u32,
    /// Bytes of payload of those.
    pub bytes: u64,
    /// Workers that have said READY for it.
    pub workers: u32,
    /// How long the oldest task of those that are next has been here.
    pub oldest_wait: Option<Span>,
    /// An operator has paused it.
    pub is_paused: bool,
    /// Its rate keeps it until then, from now.
    pub next_token: Option<Span>,
    /// What it may take up.
    pub limits: ServiceLimits,
}

/// What keeps a worker from being sent a task, or nothing does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WorkerStanding {
    /// It can be sent a task.
    Free,
    /// It holds as much as its window allows.
    Busy,
    /// It has said HELLO and not yet all of READY.
    Greeting,
    /// Its host has no lease, or has not said HOST.
    NoLease,
    /// Its connection does not take what is to be sent.
    Blocked,
    /// It gave a task back less than a heartbeat ago.
    Parked,
    /// It has no session.
    Away,
    /// It takes no more: it leaves, or wants nothing.
    Closed,
    /// Its process is gone; only late ends may still come.
    Dead,
}

/// One worker of a broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerView {
    /// Its process.
    pub peer_id: PeerId,
    /// What it calls itself.
    pub name: String,
    /// Its supervisor, if it has one.
    pub host: Option<PeerId>,
    /// What that one calls itself, if it is known.
    pub host_name: Option<String>,
    /// Its place there.
    pub slot: Slot,
    /// Its life there.
    pub incarnation: Incarnation,
    /// The CPU that it is pinned to, if its supervisor says so.
    pub cpu: Option<u16>,
    /// What it serves.
    pub services: Vec<String>,
    /// What it offers to tasks that require it, sorted.
    pub labels: Vec<String>,
    /// The most tasks that it is sent.
    pub window_tasks: u32,
    /// The most bytes.
    pub window_bytes: u64,
    /// Attempts that it holds, those of an earlier life of the broker included.
    pub in_flight: u32,
    /// Bytes of those.
    pub in_flight_bytes: u64,
    /// What keeps it from being sent more.
    pub standing: WorkerStanding,
}

/// One supervisor of a broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostView {
    /// Its process.
    pub peer_id: PeerId,
    /// What it calls itself.
    pub name: String,
    /// It has a session.
    pub is_connected: bool,
    /// Its workers may be sent tasks.
    pub has_lease: bool,
}

/// One client of a broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientView {
    /// Its process.
    pub peer_id: PeerId,
    /// What it calls itself.
    pub name: String,
    /// It has a session.
    pub is_connected: bool,
    /// Tasks that have not ended, or whose end it has not acknowledged.
    pub tasks: u32,
    /// Bytes of payload of those.
    pub bytes: u64,
    /// Results that it has not acknowledged.
    pub results: u64,
}

/// Why a task does not run yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// An operator has paused its service.
    Paused,
    /// Its service has as many attempts in flight as it may.
    InFlightMax(u32),
    /// Its service's rate allows the next one only so much later.
    Rate(Span),
    /// It is not to start before then, from now.
    Delayed(Span),
    /// Nobody serves its service.
    NoWorker,
    /// No worker that serves it can be sent a task: how many for what reason.
    NoFreeWorker(Vec<(WorkerStanding, u32)>),
}

/// A task, and what is to be said of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The task.
    pub view: TaskView,
    /// Its service.
    pub service: String,
    /// Its urgency.
    pub priority: Priority,
    /// Bytes of its payload.
    pub bytes: u64,
    /// How long ago it came in.
    pub age: Span,
    /// How long ago it was last sent to a worker.
    pub sent: Option<Span>,
    /// How long its result is wanted.
    pub deadline: Option<Span>,
    /// How long one attempt may run.
    pub max_runtime: Span,
    /// While it waits: how many of its client, service and priority stand before it, [`AHEAD_MAX`] at most.
    pub ahead: Option<u32>,
    /// While it waits: why.
    pub obstacles: Vec<Obstacle>,
}

impl<B: Body> Broker<B> {
    /// Every task, in no particular order. Takes time linear in what is held.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView> {
        let tasks = self.state.tasks.iter().filter(|(_, task)| !task.is_follower);
        tasks.map(|(key, task)| task_view(&self.state, key, task))
    }

    /// Tasks among so many places of the store, of one service or of all, and where the next page
    /// begins; `None`: this was the last one.
    pub fn tasks_page(
        &self,
        service: Option<&str>,
        (from, visits): (u32, u32),
    ) -> (Vec<TaskView>, Option<u32>) {
        let state = &self.state;
        let wanted = service.map(|name| state.services.named(name));
        let (page, next) = state.tasks.page(from, visits);
        let is_wanted = |task: &Task<B>| {
            !task.is_follower && wanted.is_none_or(|key| key == Some(task.service))
        };
        let page = page.filter(|(_, task)| is_wanted(task));
        (page.map(|(key, task)| task_view(state, key, task)).collect(), next)
    }

    /// So many services whose names come after `after`, in the order of their names.
    pub fn services_page(&self, after: Option<&str>, limit: usize) -> Vec<ServiceView> {
        let services = self.state.services.by_name_after(after).take(limit);
        services.map(|(_, service)| service_view(&self.state, service)).collect()
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<ServiceView> {
        let key = self.state.services.named(name)?;
        Some(service_view(&self.state, self.state.services.at(key)))
    }

    /// Workers among so many places, and where the next page begins; `None`: this was the last one.
    pub fn workers_page(&self, from: u32, visits: u32) -> (Vec<WorkerView>, Option<u32>) {
        let (page, next) = self.state.workers.page(from, visits);
        (page.map(|(_, worker)| worker_view(&self.state, worker)).collect(), next)
    }

    /// Supervisors among so many places, and where the next page begins; `None`: this was the last one.
    pub fn hosts_page(&self, from: u32, visits: u32) -> (Vec<HostView>, Option<u32>) {
        let (page, next) = self.state.hosts.page(from, visits);
        let page = page.map(|(_, host)| HostView {
            peer_id: host.peer_id,
            name: String::from(&*host.name),
            is_connected: host.conn.is_some(),
            has_lease: host.has_lease,
        });
        (page.collect(), next)
    }

    /// Clients among so many places, and where the next page begins; `None`: this was the last one.
    pub fn clients_page(&self, from: u32, visits: u32) -> (Vec<ClientView>, Option<u32>) {
        let (page, next) = self.state.clients.page(from, visits);
        let page = page.map(|(_, client)| ClientView {
            peer_id: client.peer_id,
            name: String::from(&*client.name),
            is_connected: client.conn.is_some(),
            tasks: client.tasks,
            bytes: client.bytes,
            results: client.results.len() as u64,
        });
        (page.collect(), next)
    }

    /// Where a task stands and why, if it is held.
    pub fn explain(&self, task: TaskId) -> Option<Explanation> {
        let state = &self.state;
        let key = TaskKey::from_bits(task.0);
        let task = state.tasks.get(key)?;
        // An ended task may have outlived its service.
        let service = state.services.get(task.service);
        let is_pending = task.state == TaskState::Pending;
        Some(Explanation {
            view: task_view(state, key, task),
            service: service.map_or_else(String::new, |service| service.name.clone()),
            priority: task.priority,
            bytes: task.payload_bytes,
            age: state.now.since(task.received_at),
            sent: (task.dispatch.0 > 0).then(|| state.now.since(task.dispatched_at)),
            deadline: task.deadline.map(|at| at.since(state.now)),
            max_runtime: task.max_runtime,
            ahead: service.filter(|_| is_pending).map(|service| ahead_of(state, service, key)),
            obstacles: match service.filter(|_| is_pending) {
                Some(service) => obstacles(state, service),
                None if task.state == TaskState::Delayed => {
                    alloc::vec![Obstacle::Delayed(task.start_at.since(state.now))]
                }
                None => Vec::new(),
            },
        })
    }

    /// The time of the last event.
    pub fn now(&self) -> Time {
        self.state.now
    }
}

fn ahead_of<B>(state: &State<B>, service: &Service, key: TaskKey) -> u32 {
    let waiting = service.waiting.beside(&state.tasks, &state.flows, key.index());
    let before = waiting.take(AHEAD_MAX as usize);
    before.take_while(|index| *index != key.index()).count() as u32
}

fn obstacles<B>(state: &State<B>, service: &Service) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if service.gate.is_paused {
        found.push(Obstacle::Paused);
    }
    if service.gate.in_flight >= service.limits.in_flight_max {
        found.push(Obstacle::InFlightMax(service.limits.in_flight_max));
    }
    if let Some(wait) = service.gate.wait(state.now) {
        found.push(Obstacle::Rate(wait));
    }
    if service.groups.is_empty() {
        found.push(Obstacle::NoWorker);
        return found;
    }
    let mut standings: Vec<(WorkerStanding, u32)> = Vec::new();
    let mut groups: Vec<_> = service.groups.iter().map(|serving| serving.group).collect();
    groups.sort_unstable();
    let is_serving =
        |worker: &Worker| worker.group.is_some_and(|group| groups.binary_search(&group).is_ok());
    for (_, worker) in state.workers.iter().filter(|(_, worker)| is_serving(worker)) {
        let standing = worker_standing(worker);
        match standings.iter_mut().find(|(known, _)| *known == standing) {
            Some((_, count)) => *count += 1,
            None => standings.push((standing, 1)),
        }
    }
    standings.sort_unstable();
    if standings.iter().all(|(standing, _)| *standing != WorkerStanding::Free) {
        found.push(Obstacle::NoFreeWorker(standings));
    }
    found
}

fn task_view<B: Body>(state: &State<B>, key: TaskKey, task: &Task<B>) -> TaskView {
    let holder = task.occupies.then(|| state.workers.get(task.worker)).flatten();
    TaskView {
        task: TaskId(key.bits()),
        client_id: match task.owner {
            Owner::Client(_) | Owner::Key(_) => state.client_id(task),
            Owner::Nobody(_) => None,
        },
        request_id: task.request_id,
        submission: task.submission,
        standing: standing(task),
        worker: holder.map(|worker| worker.peer_id),
        dispatch: task.dispatch,
        tries: task.tries,
        replay_of: state.origins.get(&key).map(|origin| origin.letter),
    }
}

fn service_view<B>(state: &State<B>, service: &Service) -> ServiceView {
    let waiting = &service.waiting;
    let flows = waiting.flows(&state.tasks, &state.flows).take(AHEAD_MAX as usize);
    let next = flows.filter_map(|mut flow| flow.next());
    let oldest = next.map(|index| state.tasks.at(index).received_at).min();
    let groups = service.groups.iter().filter_map(|serving| state.groups.get(serving.group));
    ServiceView {
        name: service.name.clone(),
        pending: waiting.counts(),
        in_flight: service.gate.in_flight,
        tasks: service.tasks,
        bytes: service.bytes,
        workers: groups.map(|group| group.workers).sum(),
        oldest_wait: oldest.map(|at| state.now.since(at)),
        is_paused: service.gate.is_paused,
        next_token: service.gate.wait(state.now),
        limits: service.limits,
    }
}

fn worker_view<B>(state: &State<B>, worker: &Worker) -> WorkerView {
    let host = worker.host.and_then(|id| match state.peers.get(&id)? {
        crate::session::Peer::Host(key) => state.hosts.get(*key),
        crate::session::Peer::Client(_) | crate::session::Peer::Worker(_) => None,
    });
    // Those of a dead one may be known no more.
    let services = worker.services.iter().filter_map(|key| state.services.get(*key));
    let group = worker.group.and_then(|group| state.groups.get(group));
    let labels = group.into_iter().flat_map(|group| &group.offer.labels).cloned().map(String::from);
    WorkerView {
        peer_id: worker.peer_id,
        name: String::from(&*worker.name),
        host: worker.host,
        host_name: host.map(|host| String::from(&*host.name)),
        slot: worker.slot,
        incarnation: worker.incarnation,
        cpu: host.and_then(|host| host.cpus.get(&worker.slot).copied()),
        services: services.map(|service| service.name.clone()).collect(),
        labels: labels.collect(),
        window_tasks: worker.window_tasks,
        window_bytes: worker.window_bytes,
        in_flight: worker.held(),
        in_flight_bytes: worker.in_flight_bytes,
        standing: worker_standing(worker),
    }
}

fn worker_standing(worker: &Worker) -> WorkerStanding {
    match worker.state {
        WorkerState::Greeting => WorkerStanding::Greeting,
        WorkerState::Away => WorkerStanding::Away,
        WorkerState::Dead => WorkerStanding::Dead,
        WorkerState::Serving if worker.window_tasks == 0 => WorkerStanding::Closed,
        WorkerState::Serving if !worker.has_lease => WorkerStanding::NoLease,
        WorkerState::Serving if worker.is_full => WorkerStanding::Blocked,
        WorkerState::Serving if worker.parked_until.is_some() => WorkerStanding::Parked,
        WorkerState::Serving if worker.has_credit() => WorkerStanding::Free,
        WorkerState::Serving => WorkerStanding::Busy,
    }
}

fn standing<B>(task: &Task<B>) -> TaskStanding {
    match (task.state, &task.end) {
        (TaskState::Pending | TaskState::Following(_), _) => TaskStanding::Pending,
        (TaskState::Delayed, _) => TaskStanding::Delayed(task.start_at),
        (TaskState::InFlight, _) => TaskStanding::InFlight,
        (TaskState::AwaitingEnd, _) => TaskStanding::AwaitingEnd,
        (TaskState::Ended, Some(end)) => TaskStanding::Ended(end.status),
        (TaskState::Ended, None) => unreachable!("an ended task has its end"),
    }
}
