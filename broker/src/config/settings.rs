//! Every setting: where it stands, what it means, how it is read and shown.

use std::path::PathBuf;
use std::time::Duration;

use pinmesh_host::{CpuId, CpuSelection};
use pinmesh_protocol::limits;
use pinmesh_transport::Endpoint;

use super::Config;
use super::services::COUNT_MAX;
use super::value::{MEMORY_MAX, Value, show_bytes, show_duration, show_span};

pub(super) const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// The most tries that may be set.
pub(super) const TRIES_MAX: u32 = 1_000_000;

/// One setting of the file.
pub(super) struct Setting {
    /// The table that it stands in.
    pub(super) section: &'static str,
    /// Its name there.
    pub(super) key: &'static str,
    /// What it is and what follows from it, for people.
    pub(super) doc: &'static str,
    /// Reads it; the error says what would be right.
    pub(super) set: fn(&mut Config, Value<'_>) -> Result<(), String>,
    /// Its value as TOML; `None` if it is absent and may be.
    pub(super) show: fn(&Config) -> Option<String>,
}

fn quoted(text: impl std::fmt::Display) -> Option<String> {
    Some(format!("\"{text}\""))
}

fn plain(value: impl std::fmt::Display) -> Option<String> {
    Some(value.to_string())
}

fn endpoint(value: Value<'_>) -> Result<Endpoint, String> {
    value.text()?.parse().map_err(|error: pinmesh_transport::TransportError| error.to_string())
}

fn cpus(value: Value<'_>) -> Result<CpuSelection, String> {
    value.text()?.parse().map_err(|error: pinmesh_host::HostError| error.to_string())
}

fn cpu(value: Value<'_>) -> Result<CpuId, String> {
    let id = value.count_u32(0, pinmesh_host::CPUS_MAX - 1)?;
    CpuId::new(id).map_err(|error| error.to_string())
}

fn file(value: Value<'_>, without: &str) -> Result<PathBuf, String> {
    match value.text()? {
        "" => Err(format!("must name a file; leave the key out for {without}")),
        path => Ok(path.into()),
    }
}

/// Every setting, by section.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        section: "listen",
        key: "frontend",
        doc: "Where clients connect: tcp://HOST:PORT or ipc:///PATH; port 0 or * lets the system \
              choose.",
        set: |c, v| endpoint(v).map(|value| c.frontend = value),
        show: |c| quoted(&c.frontend),
    },
    Setting {
        section: "listen",
        key: "backend",
        doc: "Where workers and supervisors connect.",
        set: |c, v| endpoint(v).map(|value| c.backend = value),
        show: |c| quoted(&c.backend),
    },
    Setting {
        section: "listen",
        key: "http",
        doc: "Where the admin API listens (docs/admin.md): a loopback address such as \
              127.0.0.1:5557, port 0 lets the system choose; unix:/PATH, for this user only; or \
              off.",
        set: |c, v| v.text()?.parse().map(|value| c.http = value),
        show: |c| quoted(&c.http),
    },
    Setting {
        section: "listen",
        key: "insecure",
        doc: "Bind where other hosts can connect although there are no keys: everyone on that \
              network may then submit and run tasks.",
        set: |c, v| v.boolean().map(|value| c.insecure = value),
        show: |c| plain(c.insecure),
    },
    Setting {
        section: "security",
        key: "key",
        doc: "File of the broker's secret key, as `pinmesh keygen NAME --role broker` writes it: \
              everything is encrypted then, and only keys of `authorized_keys` may connect; \
              absent: no keys.",
        set: |c, v| file(v, "no keys").map(|path| c.key = Some(path)),
        show: |c| c.key.as_ref().map(|path| format!("{path:?}")),
    },
    Setting {
        section: "security",
        key: "authorized_keys",
        doc: "File of the public keys that may connect, `name key role` on each line, the role \
              client or worker. Read again on SIGHUP.",
        set: |c, v| file(v, "no keys").map(|path| c.authorized_keys = Some(path)),
        show: |c| c.authorized_keys.as_ref().map(|path| format!("{path:?}")),
    },
    Setting {
        section: "cpu",
        key: "pin",
        doc: "The CPU that the event loop is pinned to; absent: not pinned.",
        set: |c, v| cpu(v).map(|value| c.cpu = Some(value)),
        show: |c| c.cpu.map(|cpu| cpu.to_string()),
    },
    Setting {
        section: "cpu",
        key: "io",
        doc: "The CPUs of libzmq's IO threads, such as \"2-3\"; absent: the CPU of `pin`.",
        set: |c, v| cpus(v).map(|value| c.io_cpus = Some(value)),
        show: |c| c.io_cpus.as_ref().and_then(quoted),
    },
    Setting {
        section: "cpu",
        key: "io_threads",
        doc: "libzmq's IO threads. One moves about a gigabyte a second.",
        set: |c, v| v.count_u32(1, 16).map(|value| c.io_threads = value),
        show: |c| plain(c.io_threads),
    },
    Setting {
        section: "cpu",
        key: "spin",
        doc: "How long the event loop stays awake before it sleeps. More spares wake-ups and costs \
              the CPU; \"0s\" sleeps at once.",
        set: |c, v| v.duration(Duration::ZERO, SECOND).map(|value| c.spin = value),
        show: |c| quoted(show_duration(c.spin)),
    },
    Setting {
        section: "sessions",
        key: "heartbeat",
        doc: "How often each side sends HEARTBEAT. Shorter finds dead peers sooner.",
        set: |c, v| v.span(10 * MS, MINUTE).map(|value| c.core.heartbeat = value),
        show: |c| quoted(show_span(c.core.heartbeat)),
    },
    Setting {
        section: "sessions",
        key: "liveness",
        doc: "Heartbeats in a row that may be missed before a session is dead.",
        set: |c, v| v.count_u32(1, 100).map(|value| c.core.liveness = value),
        show: |c| plain(c.core.liveness),
    },
    Setting {
        section: "sessions",
        key: "lease",
        doc: "How long a host may go on without hearing from the broker; when it ends, the host \
              kills this broker's attempts. Longer than heartbeat x liveness.",
        set: |c, v| v.span(50 * MS, HOUR).map(|value| c.core.lease = value),
        show: |c| quoted(show_span(c.core.lease)),
    },
    Setting {
        section: "sessions",
        key: "grace",
        doc: "Added to 1.1 leases before what a silent host held is requeued, and to the max \
              runtime of a busy worker without a supervisor before it counts as dead.",
        set: |c, v| v.span(10 * MS, HOUR).map(|value| c.core.grace = value),
        show: |c| quoted(show_span(c.core.grace)),
    },
    Setting {
        section: "sessions",
        key: "client_kept",
        doc: "How long a lost client's tasks and results are kept for its return.",
        set: |c, v| v.span(10 * MS, DAY).map(|value| c.core.client_kept = value),
        show: |c| quoted(show_span(c.core.client_kept)),
    },
    Setting {
        section: "tasks",
        key: "service_wait",
        doc: "How long a task waits for somebody to serve its service before it ends NO_SERVICE.",
        set: |c, v| v.span(MS, DAY).map(|value| c.core.service_wait = value),
        show: |c| quoted(show_span(c.core.service_wait)),
    },
    Setting {
        section: "tasks",
        key: "max_runtime",
        doc: "The longest that an attempt may run where its task does not say; then it is killed.",
        set: |c, v| v.span(MS, 30 * DAY).map(|value| c.core.max_runtime = value),
        show: |c| quoted(show_span(c.core.max_runtime)),
    },
    Setting {
        section: "tasks",
        key: "crashes_max",
        doc: "Deaths of a worker under a task after which the task ends CRASHED.",
        set: |c, v| v.count_u32(1, 1_000).map(|value| c.core.crashes_max = value),
        show: |c| plain(c.core.crashes_max),
    },
    Setting {
        section: "tasks",
        key: "tries_max",
        doc: "Starts of a task that may end badly (a retryable failure, a run past its max runtime, a \
              crash) where the task does not say; after the last one it ends for good.",
        set: |c, v| v.count_u32(1, TRIES_MAX).map(|value| c.core.tries_max = value),
        show: |c| plain(c.core.tries_max),
    },
    Setting {
        section: "tasks",
        key: "backoff",
        doc: "The longest wait before a task's second try, doubled before each further one; the wait \
              is random between nothing and that. Where the task does not say.",
        set: |c, v| v.span(Duration::ZERO, DAY).map(|value| c.core.backoff = value),
        show: |c| quoted(show_span(c.core.backoff)),
    },
    Setting {
        section: "tasks",
        key: "backoff_max",
        doc: "The longest wait before any try of a task that does not say.",
        set: |c, v| v.span(Duration::ZERO, 30 * DAY).map(|value| c.core.backoff_max = value),
        show: |c| quoted(show_span(c.core.backoff_max)),
    },
    Setting {
        section: "tasks",
        key: "key_retention",
        doc: "How long the outcome of a task with an idempotency key is kept after its end, where the \
              task does not say: requests with the same key get it at once.",
        set: |c, v| v.span(MS, 30 * DAY).map(|value| c.core.key_kept = value),
        show: |c| quoted(show_span(c.core.key_kept)),
    },
    Setting {
        section: "tasks",
        key: "detached_retention",
        doc: "The same for a detached task.",
        set: |c, v| v.span(MS, 30 * DAY).map(|value| c.core.detached_kept = value),
        show: |c| quoted(show_span(c.core.detached_kept)),
    },
    Setting {
        section: "tasks",
        key: "retention_max",
        doc: "The longest that a task may say; one that asks for more is REFUSED. It bounds the two \
              defaults too.",
        set: |c, v| v.span(MS, 30 * DAY).map(|value| c.core.kept_max = value),
        show: |c| quoted(show_span(c.core.kept_max)),
    },
    Setting {
        section: "tasks",
        key: "retry_after",
        doc: "When a client that was told BUSY may try again.",
        set: |c, v| v.span(MS, HOUR).map(|value| c.core.retry_after = value),
        show: |c| quoted(show_span(c.core.retry_after)),
    },
    Setting {
        section: "limits",
        key: "keys",
        doc: "Idempotency keys known at once, those with kept outcomes included; past it a task with a \
              new one is BUSY.",
        set: |c, v| v.count_u32(1, 10_000_000).map(|value| c.core.keys_max = value),
        show: |c| plain(c.core.keys_max),
    },
    Setting {
        section: "limits",
        key: "keys_bytes",
        doc: "Bytes of idempotency keys (256 each and their own) and of the outcomes kept under them, \
              which are part of `memory`; past it a task with a new key is BUSY.",
        set: |c, v| v.bytes(1024, MEMORY_MAX).map(|value| c.core.keys_bytes_max = value),
        show: |c| quoted(show_bytes(c.core.keys_bytes_max)),
    },
    Setting {
        section: "limits",
        key: "client_window_tasks",
        doc: "The most unfinished tasks a client.",
        set: |c, v| {
            let max = limits::WINDOW_TASKS_MAX;
            v.count_u32(1, max).map(|value| c.core.client_window_tasks = value)
        },
        show: |c| plain(c.core.client_window_tasks),
    },
    Setting {
        section: "limits",
        key: "client_window_bytes",
        doc: "The most payload of a client's unfinished tasks; at least `payload`.",
        set: |c, v| v.bytes(1_024, MEMORY_MAX).map(|value| c.core.client_window_bytes = value),
        show: |c| quoted(show_bytes(c.core.client_window_bytes)),
    },
    Setting {
        section: "limits",
        key: "worker_window_tasks",
        doc: "The most tasks that a worker holds, 1024 at most. It is sent what keeps it busy over its round trip, \
              which is less most often.",
        set: |c, v| {
            // So many counts of tasks in flight are told apart.
            v.count_u32(1, 1_024).map(|value| c.core.worker_window_tasks = value)
        },
        show: |c| plain(c.core.worker_window_tasks),
    },
    Setting {
        section: "limits",
        key: "worker_window_bytes",
        doc: "The most payload that a worker holds; one task is always allowed.",
        set: |c, v| v.bytes(1_024, MEMORY_MAX).map(|value| c.core.worker_window_bytes = value),
        show: |c| quoted(show_bytes(c.core.worker_window_bytes)),
    },
    Setting {
        section: "limits",
        key: "memory",
        doc: "Tasks (512 bytes and their payload each), results and updates held in all; past it \
              SUBMIT is answered BUSY. Results that nobody acknowledges may take as much again, then \
              they are dropped and their tasks end FAILED.",
        set: |c, v| v.bytes(1 << 20, MEMORY_MAX).map(|value| c.core.memory_bytes_max = value),
        show: |c| quoted(show_bytes(c.core.memory_bytes_max)),
    },
    Setting {
        section: "limits",
        key: "payload",
        doc: "The longest payload of a task or result.",
        set: |c, v| {
            let max = limits::PAYLOAD_BYTES_MAX;
            v.bytes(1_024, max).map(|value| c.core.payload_bytes_max = value)
        },
        show: |c| quoted(show_bytes(c.core.payload_bytes_max)),
    },
    Setting {
        section: "limits",
        key: "client_stream_bytes",
        doc: "`stream` updates of running tasks that wait for a client's ACK; past it their \
              handlers wait in `emit`. All clients together: `memory`.",
        set: |c, v| v.bytes(1_024, MEMORY_MAX).map(|value| c.core.stream_bytes_max = value),
        show: |c| quoted(show_bytes(c.core.stream_bytes_max)),
    },
    Setting {
        section: "limits",
        key: "sessions",
        doc: "Clients, workers and supervisors together; the next one is refused.",
        set: |c, v| v.count_u32(1, 1_000_000).map(|value| c.core.sessions_max = value),
        show: |c| plain(c.core.sessions_max),
    },
    Setting {
        section: "limits",
        key: "services",
        doc: "Services known at once, served or waited for. The last quarter is for what is served: \
              names that clients make up keep no worker out.",
        set: |c, v| v.count_u32(1, 1_000_000).map(|value| c.core.services_max = value),
        show: |c| plain(c.core.services_max),
    },
    Setting {
        section: "scheduling",
        key: "fixed_credit",
        doc: "Every worker is sent as much as its window allows, and not what keeps it busy: short \
              tasks then wait behind long ones.",
        set: |c, v| v.boolean().map(|value| c.core.is_credit_fixed = value),
        show: |c| plain(c.core.is_credit_fixed),
    },
    Setting {
        section: "scheduling",
        key: "recall",
        doc: "What waits at a worker behind a task that runs longer than it should is taken back for \
              another worker.",
        set: |c, v| v.boolean().map(|value| c.core.recalls = value),
        show: |c| plain(c.core.recalls),
    },
    Setting {
        section: "scheduling",
        key: "strict",
        doc: "The most urgent task always goes first, however long the others wait; false: each \
              priority gets its share (10: 33.9 %, 1: 0.88 % where all ten wait).",
        set: |c, v| v.boolean().map(|value| c.core.is_strict = value),
        show: |c| plain(c.core.is_strict),
    },
    Setting {
        section: "defaults",
        key: "pending_max",
        doc: "Tasks that may wait, of each service; past it SUBMIT is answered BUSY. For one service: \
              [services.NAME], with rate = \"100/s\" and burst as well (docs/admin.md).",
        set: |c, v| {
            v.count_u32(1, COUNT_MAX).map(|value| c.core.service_limits.pending_max = value)
        },
        show: |c| plain(c.core.service_limits.pending_max),
    },
    Setting {
        section: "defaults",
        key: "in_flight_max",
        doc: "Attempts of each service that workers may hold at once; past it tasks wait.",
        set: |c, v| {
            v.count_u32(1, COUNT_MAX).map(|value| c.core.service_limits.in_flight_max = value)
        },
        show: |c| plain(c.core.service_limits.in_flight_max),
    },
    Setting {
        section: "defaults",
        key: "bytes_max",
        doc: "Payload of the unfinished tasks of each service, one always may come in; past it \
              SUBMIT is answered BUSY.",
        set: |c, v| v.bytes(1_024, MEMORY_MAX).map(|value| c.core.service_limits.bytes_max = value),
        show: |c| quoted(show_bytes(c.core.service_limits.bytes_max)),
    },
    Setting {
        section: "dead",
        key: "letters",
        doc: "Dead letters: tasks that ended FAILED, TIMED_OUT or CRASHED, kept for an operator to \
              look at and run again (docs/admin.md). Past it the oldest leaves; 0 keeps none.",
        set: |c, v| v.count_u32(0, COUNT_MAX).map(|value| c.core.dead_letters_max = value),
        show: |c| plain(c.core.dead_letters_max),
    },
    Setting {
        section: "dead",
        key: "bytes",
        doc: "Dead letters (1 KiB and their payload each), beside `limits.memory`; past it the \
              oldest leave.",
        set: |c, v| v.bytes(1_024, MEMORY_MAX).map(|value| c.core.dead_bytes_max = value),
        show: |c| quoted(show_bytes(c.core.dead_bytes_max)),
    },
    Setting {
        section: "dead",
        key: "kept",
        doc: "How long a dead letter is kept, as long as the broker's process lives.",
        set: |c, v| v.span(SECOND, 366 * DAY).map(|value| c.core.dead_kept = value),
        show: |c| quoted(show_span(c.core.dead_kept)),
    },
    Setting {
        section: "drain",
        key: "time",
        doc: "How long a drain waits for what is held; then the broker ends with exit code 3.",
        set: |c, v| v.duration(MS, DAY).map(|value| c.drain_time = value),
        show: |c| quoted(show_duration(c.drain_time)),
    },
    Setting {
        section: "log",
        key: "latency",
        doc: "A file for the stage histograms of every second (hlog); absent: none.",
        set: |c, v| file(v, "no log").map(|path| c.latency_log = Some(path)),
        show: |c| c.latency_log.as_ref().map(|path| format!("{path:?}")),
    },
];
