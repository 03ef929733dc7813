//! What must hold after every step. Nothing here decides anything; everything is seen from outside
//! the machines: what was asked, what handlers really did, and what brokers said of it.

mod brokers;
mod requests;
mod runs;
mod updates;

use std::collections::{BTreeMap, BTreeSet};

use pinmesh_protocol::id::{AttemptId, Epoch, Incarnation, Slot, TaskId};
use pinmesh_protocol::status::EndStatus;

use crate::broker;
use crate::net::Owner;
use crate::task::{IdempotencyKey, Key};
use crate::worker::WorkerId;

pub use requests::Asked;
pub use runs::Place;

use brokers::LifeSeen;
use runs::RunSeen;
use updates::SaidSeen;

/// See the module.
#[derive(Debug, Default)]
pub struct Checker {
    failure: Option<String>,
    /// Whether somebody listens to the story.
    pub is_told: bool,
    requests: BTreeMap<Key, Asked>,
    by_key: BTreeMap<IdempotencyKey, Vec<Key>>,
    running: BTreeMap<Key, Vec<RunSeen>>,
    /// What handlers really returned, by token.
    outputs: BTreeMap<u64, (Key, AttemptId, EndStatus)>,
    tokens: u64,
    /// What handlers said while they ran, by token.
    said: BTreeMap<u64, SaidSeen>,
    /// Numbers of the updates of kind `stream` of each attempt.
    streams: BTreeMap<AttemptId, Vec<u64>>,
    /// What each request has heard: numbers by attempt, in order.
    heard: BTreeMap<Key, Vec<(AttemptId, Vec<u64>)>>,
    lives: BTreeMap<Epoch, LifeSeen>,
    attempts: BTreeMap<AttemptId, Key>,
    workers: BTreeMap<WorkerId, Option<(usize, Slot, Incarnation)>>,
    /// Places of workers without a supervisor.
    loners: BTreeMap<WorkerId, usize>,
    /// What a scenario calls its requests.
    names: BTreeMap<Key, String>,
    hosts: BTreeMap<usize, HostSeen>,
    /// Attempts on workers without a supervisor that were silent for so long that their brokers
    /// could give them up.
    given_up: BTreeSet<AttemptId>,
    /// Epochs of brokers that are up.
    current: BTreeMap<usize, Epoch>,
    dead_clients: BTreeSet<u32>,
    lost_seen: BTreeSet<(usize, Slot, Incarnation, u64)>,
    host_lives: BTreeMap<usize, u64>,
    has_drained_hosts: bool,
    events: u64,
}

/// What is known of a host's supervisor.
#[derive(Clone, Copy, Debug, Default)]
struct HostSeen {
    is_held: bool,
    went_on: u64,
}

impl Checker {
    /// One that has seen nothing.
    pub fn new(is_told: bool) -> Self {
        Self { is_told, ..Self::default() }
    }

    /// Notes a violation; the first one counts.
    pub fn fail(&mut self, text: String) {
        self.failure.get_or_insert(text);
    }

    /// The first violation.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// A supervisor is stopped or suspended, or goes on.
    pub fn on_host_held(&mut self, host: usize, is_held: bool, now: u64) {
        let seen = self.hosts.entry(host).or_default();
        if seen.is_held && !is_held {
            seen.went_on = now;
        }
        seen.is_held = is_held;
    }

    /// A host gets another supervisor.
    pub fn on_host_start(&mut self, host: usize) {
        *self.host_lives.entry(host).or_default() += 1;
        self.hosts.insert(host, HostSeen::default());
    }

    /// A host is asked to leave: what it runs may be asked to stop.
    pub const fn on_host_drain(&mut self) {
        self.has_drained_hosts = true;
    }

    /// A worker's process is started.
    pub fn on_worker_start(&mut self, id: WorkerId, place: Option<(usize, Slot, Incarnation)>) {
        self.workers.insert(id, place);
    }

    /// A worker without a supervisor is started in that place.
    pub fn on_loner_start(&mut self, id: WorkerId, place: usize) {
        self.workers.insert(id, None);
        self.loners.insert(id, place);
    }

    /// A client's process is gone.
    pub fn on_client_end(&mut self, number: u32) {
        self.dead_clients.insert(number);
    }

    /// The name of a worker in the story.
    pub fn worker_name(&self, id: WorkerId) -> String {
        match self.workers.get(&id) {
            Some(Some((host, slot, incarnation))) => format!("h{host}.{slot}#{incarnation}"),
            Some(None) | None => {
                let place = self.loners.get(&id).copied().unwrap_or_default();
                format!("l{place}#{}", id.0)
            }
        }
    }

    /// Gives a request a name in the story.
    pub fn name_request(&mut self, key: Key, name: String) {
        self.names.insert(key, name);
    }

    /// The name of a request in the story.
    pub fn key_name(&self, key: Key) -> String {
        self.names.get(&key).cloned().unwrap_or_else(|| key.to_string())
    }

    /// What is known of a request.
    pub fn asked(&self, key: Key) -> Option<&Asked> {
        self.requests.get(&key)
    }

    /// The name of a peer in the story.
    pub fn owner_name(&self, owner: Owner) -> String {
        match owner {
            Owner::Client(number) => format!("c{number}"),
            Owner::Supervisor(index) => format!("h{index}"),
            Owner::Worker(id) => self.worker_name(id),
            Owner::Rogue => "rogue".into(),
        }
    }

    /// The name of an attempt in the story: request, dispatch, and the broker's life if that is
    /// not its first.
    pub fn attempt_name(&self, attempt: AttemptId) -> String {
        let dispatch = attempt.dispatch;
        match self.attempts.get(&attempt) {
            Some(key) => {
                format!("{} d{dispatch}{}", self.key_name(*key), life_name(attempt.epoch))
            }
            None => format!("{attempt}"),
        }
    }

    /// The task of an attempt, if a broker has sent it.
    pub fn key_of(&self, attempt: AttemptId) -> Option<Key> {
        self.attempts.get(&attempt).copied()
    }

    /// The latest sending of a request, by whatever broker.
    pub fn latest_attempt(&self, key: Key) -> Option<AttemptId> {
        let mut attempts = self.attempts.iter().filter(|(_, of)| **of == key);
        attempts.next_back().map(|(attempt, _)| *attempt)
    }

    /// An attempt that some broker holds open on some worker, for a rogue to meddle with.
    pub fn any_attempt(&self, choice: u64) -> Option<AttemptId> {
        let life = self.lives.values().nth(choice as usize % self.lives.len().max(1))?;
        let (task, sent) = life.sent.iter().nth(choice as usize % life.sent.len().max(1))?;
        Some(AttemptId { epoch: life.epoch, task: *task, dispatch: sent.dispatch })
    }

    fn is_current(&self, epoch: Epoch) -> bool {
        self.current.values().any(|current| *current == epoch)
    }

    fn sent(&self, epoch: Epoch, task: TaskId) -> Option<&brokers::SentSeen> {
        self.lives.get(&epoch)?.sent.get(&task)
    }
}

fn life_name(epoch: Epoch) -> String {
    let (life, index) = (epoch.0 / 16, epoch.0 as usize % 16);
    if life > 1 || index > 0 { format!(" of {}{life}", broker::name(index)) } else { String::new() }
}
