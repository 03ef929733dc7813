//! Limits and times of a broker, as the shell hands them to the machine.

use alloc::collections::BTreeMap;
use alloc::string::String;

use pinmesh_protocol::id::Epoch;
use pinmesh_protocol::limits;

use crate::gate::Rate;
use crate::time::Span;

/// What one service may take up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceLimits {
    /// Tasks that wait; past it SUBMIT is answered BUSY.
    pub pending_max: u32,
    /// Attempts that workers hold at once; past it tasks wait.
    pub in_flight_max: u32,
    /// Bytes of payload of its tasks that have not ended, one task always may come in; past it SUBMIT
    /// is answered BUSY.
    pub bytes_max: u64,
    /// How fast tasks are sent to workers; `None`: as fast as they can take them.
    pub rate: Option<Rate>,
    /// What holds for its tasks where they do not say.
    pub task_defaults: TaskDefaults,
}

/// What a service says of its tasks; `None`: what the broker says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TaskDefaults {
    /// The longest that one attempt may run.
    pub max_runtime: Option<Span>,
    /// Starts that may end badly; at least 1.
    pub tries_max: Option<u32>,
    /// The longest wait before the second try; it doubles with each.
    pub backoff: Option<Span>,
    /// The longest wait before any try.
    pub backoff_max: Option<Span>,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            pending_max: 1_000_000,
            in_flight_max: 1_000_000,
            bytes_max: 1024 * 1024 * 1024,
            rate: None,
            task_defaults: TaskDefaults::default(),
        }
    }
}

/// What a broker's machine is told once, at its start.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This life of the broker.
    pub epoch: Epoch,
    /// Random and told to nobody: with it no client can choose request ids that are slow to find.
    pub hash_seed: u64,
    /// How often each side sends HEARTBEAT.
    pub heartbeat: Span,
    /// Heartbeats in a row that may be missed before a session is dead.
    pub liveness: u32,
    /// How long a host may go on without hearing from the broker.
    pub lease: Span,
    /// Added to a lease before what the host held is requeued, and to a busy unsupervised worker's
    /// max runtime before it counts as dead.
    pub grace: Span,
    /// How long a task waits for somebody to serve its service.
    pub service_wait: Span,
    /// How long a lost client's tasks and results are kept.
    pub client_kept: Span,
    /// The longest that an attempt may run where its task does not say.
    pub max_runtime: Span,
    /// Crashes of a worker under a task after which the task ends CRASHED.
    pub crashes_max: u32,
    /// Starts of a task that may end badly, crashes included, where the task does not say.
    pub tries_max: u32,
    /// The longest wait before the second try of a task that does not say; it doubles with each.
    pub backoff: Span,
    /// The longest wait before any try of a task that does not say.
    pub backoff_max: Span,
    /// Random: what the waits between tries are drawn from.
    pub jitter_seed: u64,
    /// A client's window, tasks.
    pub client_window_tasks: u32,
    /// A client's window, bytes.
    pub client_window_bytes: u64,
    /// The largest window of a worker, tasks. What keeps it busy may be less.
    pub worker_window_tasks: u32,
    /// The largest window of a worker, bytes; one task is always allowed.
    pub worker_window_bytes: u64,
    /// Payloads and results held in all, bytes; past it SUBMIT is answered BUSY, and past twice as
    /// much a result is dropped and its task ends FAILED.
    pub memory_bytes_max: u64,
    /// Bytes of results that a client may be sent ahead of its ACKs; one result always may.
    pub results_ahead_bytes: u64,
    /// Bytes of `stream` updates that may wait for a client's ACK; past it the workers that send
    /// them are acknowledged no further. All clients together: `memory_bytes_max`.
    pub stream_bytes_max: u64,
    /// Dead letters; past it the oldest leaves. 0: none is kept.
    pub dead_letters_max: u32,
    /// Bytes of dead letters, beside `memory_bytes_max`; past it the oldest leave.
    pub dead_bytes_max: u64,
    /// How long a dead letter is kept.
    pub dead_kept: Span,
    /// Clients, workers and supervisors together.
    pub sessions_max: u32,
    /// Services known at once, served or waited for; the last quarter is for what is served.
    pub services_max: u32,
    /// How long the outcome of a task with an idempotency key is kept, where it does not say.
    pub key_kept: Span,
    /// The same for a detached one.
    pub detached_kept: Span,
    /// The longest that a task may say.
    pub kept_max: Span,
    /// Idempotency keys known at once; past it a SUBMIT with a new one is answered BUSY.
    pub keys_max: u32,
    /// Bytes of keys and of the outcomes that are kept under them; past it the same.
    pub keys_bytes_max: u64,
    /// The time after which a client that was told BUSY may try again.
    pub retry_after: Span,
    /// A worker is sent as much as its window allows, and not what keeps it busy.
    pub is_credit_fixed: bool,
    /// What waits at a worker behind a task that runs longer than it should is taken back for others.
    pub recalls: bool,
    /// The most urgent task always goes first, however long the others wait.
    pub is_strict: bool,
    /// The longest payload, bytes.
    pub payload_bytes_max: u64,
    /// Limits of each service that has none of its own.
    pub service_limits: ServiceLimits,
    /// Limits of single services by name. These are known from the start and never forgotten; they
    /// are part of `services_max`.
    pub own_service_limits: BTreeMap<String, ServiceLimits>,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            epoch: Epoch(1),
            hash_seed: 0,
            heartbeat: Span::from_secs(1),
            liveness: 3,
            lease: Span::from_secs(10),
            grace: Span::from_secs(5),
            service_wait: Span::from_secs(30),
            client_kept: Span::from_secs(60),
            max_runtime: Span::from_secs(3600),
            crashes_max: 3,
            tries_max: 3,
            backoff: Span::from_secs(1),
            backoff_max: Span::from_secs(300),
            jitter_seed: 0,
            client_window_tasks: 10_000,
            client_window_bytes: 256 * 1024 * 1024,
            worker_window_tasks: 1_024,
            worker_window_bytes: 8 * 1024 * 1024,
            memory_bytes_max: 1024 * 1024 * 1024,
            results_ahead_bytes: 64 * 1024 * 1024,
            stream_bytes_max: 16 * 1024 * 1024,
            dead_letters_max: 10_000,
            dead_bytes_max: 256 * 1024 * 1024,
            dead_kept: Span::from_secs(7 * 24 * 3_600),
            sessions_max: 16_384,
            services_max: 4_096,
            key_kept: Span::from_secs(600),
            detached_kept: Span::from_secs(3600),
            kept_max: Span::from_secs(24 * 3600),
            keys_max: 100_000,
            keys_bytes_max: 128 * 1024 * 1024,
            retry_after: Span::from_millis(100),
            is_credit_fixed: false,
            recalls: true,
            is_strict: false,
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX,
            service_limits: ServiceLimits::default(),
            own_service_limits: BTreeMap::new(),
        }
    }
}

impl CoreConfig {
    /// How long after its last echo a host's tasks are requeued: 1.1 leases and the grace.
    pub const fn host_requeue(&self) -> Span {
        Span(self.lease.0 + self.lease.0 / 10 + self.grace.0)
    }
}
