//! What the reference broker knows: everything by name, in ordered maps, nothing twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pinmesh_core::{Conn, DeathCause, LetterId, ProgressHead};
use pinmesh_protocol::command::StageTimes;
use pinmesh_protocol::id::{
    AttemptId, Dispatch, Incarnation, PeerId, Priority, RequestId, Slot, Submission, TaskId,
};
use pinmesh_protocol::limits::UPDATE_OVERHEAD_BYTES;
use pinmesh_protocol::status::Status;

use crate::record::Said;

/// A task, by the order in which tasks came in.
pub(super) type Age = u64;
/// A worker, from its HELLO until the broker has forgotten it.
pub(super) type WorkerNo = u64;

/// Who a session belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    Client(PeerId),
    Worker(WorkerNo),
    Host(PeerId),
}

/// One socket, from HELLO to the end of its session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) who: Who,
    /// The last word from it, or the end of a silence that it announced.
    pub(super) heard_at: u64,
    /// Since when its peer may be silent for as long as now.
    pub(super) limit_since: u64,
    pub(super) limit: Option<u64>,
    /// Ends taken from it, and of those acknowledged.
    pub(super) taken: u64,
    pub(super) acknowledged: u64,
    /// Bytes of the tasks of those that are not.
    pub(super) unacknowledged_bytes: u64,
    /// The most that is acknowledged, until this client has taken some of its updates.
    pub(super) held: Option<(u64, PeerId)>,
    /// Bytes of updates that came meanwhile.
    pub(super) held_bytes: u64,
    pub(super) aliases: BTreeMap<u32, String>,
}

/// An update of a running task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Update {
    pub(super) age: Age,
    pub(super) head: ProgressHead,
    pub(super) payload: Box<[u8]>,
}

impl Update {
    /// Bytes that it counts for.
    pub(super) const fn bytes(&self) -> u64 {
        self.payload.len() as u64 + UPDATE_OVERHEAD_BYTES
    }
}

/// What a client is told and acknowledges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum InLine {
    /// No task stands behind it.
    Answer,
    Result(Age),
    Update(Update),
}

/// A client's process.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// What it calls itself.
    pub(super) name: String,
    /// With whom it shares its turns: the name of its key, or what it calls itself.
    pub(super) account: String,
    pub(super) conn: Option<Conn>,
    pub(super) is_full: bool,
    /// When it is dropped, while it has no session.
    pub(super) drop_at: Option<u64>,
    pub(super) requests: BTreeMap<RequestId, Age>,
    /// What it was told in this session and has not acknowledged.
    pub(super) results: VecDeque<InLine>,
    /// Updates of kind `stream` that it has not been told in this session, in order.
    pub(super) untold: VecDeque<Update>,
    pub(super) acknowledged: u64,
}

/// What keeps a worker from being sent tasks, or nothing does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    /// Before the last part of READY.
    Greeting,
    Serving,
    /// No session.
    Away,
    /// Its process is gone.
    Dead,
}

/// A worker's process.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) peer_id: PeerId,
    pub(super) conn: Option<Conn>,
    pub(super) presence: Presence,
    /// When it is given up while it has no session, unless its supervisor speaks for it.
    pub(super) away_until: u64,
    pub(super) host: Option<PeerId>,
    pub(super) slot: Slot,
    pub(super) incarnation: Incarnation,
    pub(super) services: Vec<String>,
    pub(super) labels: Vec<String>,
    /// READY has begun and its process is not gone: its services are served.
    pub(super) is_placed: bool,
    pub(super) own_window: (u32, u64),
    /// What it holds, in the order in which it got it.
    pub(super) holds: Vec<Age>,
    /// How many of an earlier life of the broker it held beside those when that changed last.
    pub(super) beside: u64,
    pub(super) is_full: bool,
    /// It gave something back: nothing for it until then.
    pub(super) parked_until: Option<u64>,
    /// It was asked to give back all but the first, which has not ended since.
    pub(super) is_recalled: bool,
    /// A task that was next did not fit its bytes since anything changed about it.
    pub(super) is_passed_over: bool,
    /// Of READY; `None`: all of it was said.
    pub(super) next_part: Option<u32>,
    /// The event in which it said READY.
    pub(super) ready_at: u64,
}

/// A supervisor's process, which stands for its host.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) conn: Option<Conn>,
    pub(super) echoed_at: u64,
    pub(super) has_lease: bool,
    /// It has said HOST in this session.
    pub(super) is_listed: bool,
    /// The event in which it said HELLO.
    pub(super) hello_at: u64,
    /// The latest incarnation of each slot that is gone.
    pub(super) gone: BTreeMap<Slot, Incarnation>,
}

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Pending,
    /// It is not to start before then.
    Delayed(u64),
    InFlight,
    /// Its worker is gone after it had started; its end is waited for until then.
    Awaiting(u64),
    /// It is a request that waits for the task of its key, `Task::follows`.
    Following,
    Ended,
}

/// How a task ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct End {
    pub(super) status: Status,
    pub(super) stages: Option<StageTimes>,
    /// `None`: in the mesh's words.
    pub(super) said: Option<Said>,
}

/// The idempotency key of a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub(super) bytes: Box<[u8]>,
    /// Requests may join, or get the outcome.
    pub(super) is_listed: bool,
    /// How long the outcome is kept, and, once it has ended, until when.
    pub(super) kept: u64,
    pub(super) until: Option<u64>,
}

/// A request with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Follows {
    /// The task.
    pub(super) lead: Age,
    /// It was handed in by SUBMIT: with the last of them the task is cancelled.
    pub(super) is_submitted: bool,
    /// It has ended with the task.
    pub(super) shares: bool,
}

/// A task from its acceptance until nobody needs it any more.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// Who waits for it.
    pub(super) client: Option<PeerId>,
    /// Who asked for it.
    pub(super) asked_by: PeerId,
    /// It runs even if nobody waits for it.
    pub(super) runs_on: bool,
    /// It has this key; `None`: none, or none any more.
    pub(super) key: Option<Key>,
    /// It is a request with a key, for that task.
    pub(super) follows: Option<Follows>,
    pub(super) request: RequestId,
    pub(super) submission: Submission,
    pub(super) service: String,
    /// What its client called itself when it came in.
    pub(super) account: String,
    pub(super) priority: Priority,
    pub(super) is_at_most_once: bool,
    /// What runs when its deadline passes is killed.
    pub(super) kills_at_deadline: bool,
    /// Its client has cancelled it; `true`: hard.
    pub(super) cancelled: Option<bool>,
    /// The end of its latest attempt was taken, and it was not the task's.
    pub(super) is_closed: bool,
    pub(super) state: State,
    /// Whom it keeps busy.
    pub(super) holder: Option<WorkerNo>,
    /// Sendings so far, the name of the latest one towards its worker, and who got it.
    pub(super) dispatch: Dispatch,
    pub(super) attempt: AttemptId,
    pub(super) sent_to: Option<WorkerNo>,
    pub(super) is_listed: bool,
    pub(super) tries: u32,
    /// Of those, deaths of its worker.
    pub(super) crashes: u32,
    /// How the last one came about.
    pub(super) crash: Option<DeathCause>,
    /// The dead letter of which it is a replay, and what the client of that called itself.
    pub(super) replay_of: Option<LetterId>,
    pub(super) replay_client: Option<Option<String>>,
    pub(super) tries_max: u32,
    pub(super) backoff: u64,
    pub(super) backoff_max: u64,
    pub(super) received_at: u64,
    /// The event in which it came to wait, as new, and when that was.
    pub(super) order: u64,
    pub(super) queued_at: u64,
    /// Since when it has waited, as new or again.
    pub(super) pending_since: u64,
    pub(super) sent_at: u64,
    pub(super) deadline: Option<u64>,
    pub(super) max_runtime: u64,
    pub(super) bytes: u64,
    pub(super) end: Option<End>,
    /// The number of the latest update of which dispatch.
    pub(super) said: (Dispatch, u64),
    /// Of kind `latest`, not told yet.
    pub(super) latest: Option<Update>,
    /// Its client was told of the end in this session.
    pub(super) is_told: bool,
    /// The broker's number for it, once that is known.
    pub(super) id: Option<TaskId>,
}

impl Worker {
    /// A process that has just said HELLO.
    pub(super) const fn new(peer_id: PeerId, conn: Conn) -> Self {
        Self {
            peer_id,
            conn: Some(conn),
            presence: Presence::Greeting,
            away_until: 0,
            host: None,
            slot: Slot(0),
            incarnation: Incarnation(0),
            services: Vec::new(),
            labels: Vec::new(),
            is_placed: false,
            own_window: (0, 0),
            holds: Vec::new(),
            beside: 0,
            is_full: false,
            parked_until: None,
            is_recalled: false,
            is_passed_over: false,
            next_part: Some(0),
            ready_at: 0,
        }
    }

    /// Services and labels without order or repetition: workers with the same are a group.
    pub(super) fn group(&self) -> [BTreeSet<&str>; 2] {
        [&self.services, &self.labels].map(|names| names.iter().map(String::as_str).collect())
    }
}

impl Task {
    /// "An attempt is open until its end is taken or the next dispatch."
    pub(super) const fn is_open(&self) -> bool {
        match self.state {
            State::Pending => self.dispatch.0 > 0 && !self.is_closed,
            State::InFlight | State::Awaiting(_) => true,
            State::Delayed(_) | State::Following | State::Ended => false,
        }
    }
}
