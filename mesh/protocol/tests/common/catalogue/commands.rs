//! Every command at least once, the hot ones in each of their forms.

use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::*;
use pinmesh_protocol::id::*;
use pinmesh_protocol::status::*;

use super::Exact;
use crate::common::{Command, keep};

/// An idempotency key.
const KEY: &[u8] = b"report-2024-11";

const CLIENT: PeerId = PeerId([
    0xc1, 0x1e, 0x47, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09,
]);
const HOST: PeerId = PeerId([
    0x40, 0x57, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12,
]);
const EPOCH: Epoch = Epoch(0x9e37_79b9);
const FRAMES: Payload<'static> =
    Payload::Frames(FrameSpan { first: 1, frames: 2, bytes: 1_500_000 });

fn attempt(task: u64, dispatch: u32) -> AttemptId {
    AttemptId { epoch: EPOCH, task: TaskId(task), dispatch: Dispatch(dispatch) }
}

/// The first task of slot 7 of the broker's store.
fn first() -> AttemptId {
    attempt(0x0001_0000_0007, 1)
}

pub(super) fn submit() -> Submit<'static> {
    Submit {
        request_id: RequestId(1),
        submission: Submission(1),
        service: ServiceRef::Name("echo"),
        priority: Priority::default(),
        deadline_ns: None,
        content_type: ContentType::MSGPACK,
        options: None,
        payload: Payload::Inline(b"\xa5hello"),
    }
}

pub(super) fn task() -> Task<'static> {
    Task {
        task: first().task,
        dispatch: Dispatch(1),
        client_id: CLIENT,
        request_id: RequestId(1),
        submission: Submission(1),
        service: ServiceRef::Name("echo"),
        tries: 0,
        deadline_ns: None,
        max_runtime_ns: 3_600_000_000_000,
        content_type: ContentType::MSGPACK,
        options: None,
        payload: Payload::Inline(b"\xa5hello"),
    }
}

pub(super) fn done() -> Done<'static> {
    Done {
        attempt: first(),
        status: EndStatus::Ok,
        residence_ns: 61_250,
        service_ns: 40_100,
        content_type: ContentType::MSGPACK,
        payload: Payload::Inline(b"\xa5hello"),
    }
}

pub(super) fn result() -> TaskResult<'static> {
    TaskResult {
        request_id: RequestId(1),
        submission: Submission(1),
        status: Status::Ok,
        tries: 0,
        stages: Some(StageTimes {
            broker_wait_ns: 2_100,
            transit_ns: 88_000,
            worker_wait_ns: 21_150,
            service_ns: 40_100,
        }),
        content_type: ContentType::MSGPACK,
        payload: Payload::Inline(b"\xa5hello"),
        retry_after_ns: None,
    }
}

fn failure(status: Status, tries: u32, text: &'static str) -> TaskResult<'static> {
    let payload = Payload::Inline(text.as_bytes());
    TaskResult { status, tries, content_type: ContentType::TEXT, payload, ..result() }
}

fn options(options: TaskOptions) -> Option<&'static [u8]> {
    Some(keep(&options.encode()))
}

fn hello(role: Role, peer_id: PeerId, name: &'static str) -> ToBroker<'static> {
    ToBroker::Hello(Hello {
        version_min: 1,
        version_max: 1,
        role,
        peer_id,
        name,
        nonce: 0x0123_4567_89ab_cdef,
        features: 0,
    })
}

fn ready() -> Ready<'static> {
    Ready {
        host: None,
        slot: Slot(0),
        incarnation: Incarnation(1),
        services: vec!["echo", "sha256"],
        labels: Vec::new(),
        window_tasks: 128,
        window_bytes: 8 * 1024 * 1024,
        held: Vec::new(),
        part: 0,
        parts: 1,
    }
}

fn held(task: u64, state: HeldState) -> Held {
    Held {
        attempt: attempt(task, 1),
        client_id: CLIENT,
        request_id: RequestId(task),
        submission: Submission(1),
        state,
    }
}

fn lost() -> Lost {
    Lost {
        slot: Slot(3),
        incarnation: Incarnation(2),
        cause: LossKind::Signalled,
        detail: 11,
        running: Some(first()),
        started: vec![attempt(8, 1), attempt(300, 2)],
    }
}

fn progress(kind: ProgressKind) -> WorkerProgress<'static> {
    WorkerProgress {
        attempt: first(),
        sequence: 1,
        kind,
        content_type: ContentType::MSGPACK,
        payload: Payload::Inline(&[0x19]),
    }
}

fn named<C>(vectors: Vec<(&'static str, C)>, wrap: impl Fn(C) -> Command) -> Vec<Exact> {
    vectors.into_iter().map(|(name, command)| Exact { name, command: wrap(command) }).collect()
}

pub(super) fn to_broker() -> Vec<Exact> {
    let mut all = sessions_to();
    all.extend(submits().into_iter().map(|(name, c)| (name, ToBroker::Submit(c))));
    all.extend(dones().into_iter().map(|(name, c)| (name, ToBroker::Done(c))));
    all.extend(workers_to());
    all.extend(hosts_to());
    named(all, Command::To)
}

fn sessions_to() -> Vec<(&'static str, ToBroker<'static>)> {
    let refused = Refused { code: RefusedCode::UnknownOp, reason: "unknown op 99" };
    let cancel = |is_hard| {
        let (request_id, submission) = (RequestId(1), Submission(1));
        ToBroker::Cancel(CancelRequest { request_id, submission, is_hard })
    };
    let fetch = |waits| {
        let (request_id, submission) = (RequestId(2), Submission(1));
        ToBroker::Fetch(Fetch { request_id, submission, key: KEY, waits })
    };
    vec![
        ("hello_client", hello(Role::Client, CLIENT, "report@db1")),
        ("hello_worker", hello(Role::Worker, HOST, "mini@db1")),
        ("hello_supervisor", hello(Role::Supervisor, HOST, "pinmesh-worker@db1")),
        ("refused_by_peer", ToBroker::Refused(refused)),
        ("heartbeat", ToBroker::Heartbeat(Heartbeat { sequence: 1, silence_ns: None })),
        (
            "heartbeat_before_64_mib",
            ToBroker::Heartbeat(Heartbeat { sequence: 200, silence_ns: Some(256_000_000_000) }),
        ),
        ("goodbye", ToBroker::Goodbye),
        ("ack_1", ToBroker::Ack(1)),
        ("ack_300", ToBroker::Ack(300)),
        ("ack_most", ToBroker::Ack(u64::MAX)),
        ("window_of_worker", ToBroker::Window(Window { tasks: 16, bytes: 1_048_576 })),
        ("service_alias", ToBroker::Service(ServiceAlias { alias: 0, name: "echo" })),
        ("cancel_request", cancel(false)),
        ("cancel_request_hard", cancel(true)),
        ("fetch", fetch(false)),
        ("fetch_waits", fetch(true)),
    ]
}

fn submits() -> Vec<(&'static str, Submit<'static>)> {
    let urgent = TaskOptions { at_most_once: true, accepted: true, ..TaskOptions::default() };
    let limited = TaskOptions {
        max_runtime_ns: Some(90_000_000_000),
        tries_max: Some(1),
        ..TaskOptions::default()
    };
    let patient = TaskOptions {
        backoff_ns: Some(0),
        backoff_max_ns: Some(3_600_000_000_000),
        ..TaskOptions::default()
    };
    let later = TaskOptions {
        start_after_ns: Some(60_000_000_000),
        kill_at_deadline: true,
        ..TaskOptions::default()
    };
    let keyed = TaskOptions { key: Some(KEY.into()), ..TaskOptions::default() };
    let detached =
        TaskOptions { detached: true, retention_ns: Some(7_200_000_000_000), ..keyed.clone() };
    let run_on = TaskOptions { run_on: true, ..TaskOptions::default() };
    vec![
        ("submit", submit()),
        ("submit_alias", Submit { service: ServiceRef::Alias(0), ..submit() }),
        ("submit_alias_most", Submit { service: ServiceRef::Alias(255), ..submit() }),
        ("submit_deadline", Submit { deadline_ns: Some(5_000_000_000), ..submit() }),
        ("submit_options", Submit { options: options(urgent), ..submit() }),
        ("submit_options_limits", Submit { options: options(limited), ..submit() }),
        ("submit_options_backoff", Submit { options: options(patient), ..submit() }),
        ("submit_options_later", Submit { options: options(later), ..submit() }),
        ("submit_options_key", Submit { options: options(keyed), ..submit() }),
        ("submit_options_detached", Submit { options: options(detached), ..submit() }),
        ("submit_options_run_on", Submit { options: options(run_on), ..submit() }),
        ("submit_options_empty", Submit { options: Some(&[0x80]), ..submit() }),
        ("submit_priority_10", Submit { priority: Priority::MAX, ..submit() }),
        ("submit_again", Submit { submission: Submission(2), ..submit() }),
        ("submit_empty_payload", Submit { payload: Payload::Inline(b""), ..submit() }),
        (
            "submit_payload_of_300",
            Submit {
                content_type: ContentType::RAW,
                payload: Payload::Inline(keep(&[0x2a; 300])),
                ..submit()
            },
        ),
        ("submit_frames", Submit { content_type: ContentType::RAW, payload: FRAMES, ..submit() }),
        (
            "submit_widest",
            Submit {
                request_id: RequestId(u64::MAX),
                submission: Submission(u32::MAX),
                service: ServiceRef::Name("\u{fc}bersetzung.de-en.v2-experimentell"),
                deadline_ns: Some(u64::MAX),
                content_type: ContentType(u32::MAX),
                ..submit()
            },
        ),
    ]
}

fn dones() -> Vec<(&'static str, Done<'static>)> {
    vec![
        ("done", done()),
        (
            "done_failed",
            Done {
                status: EndStatus::Failed,
                content_type: ContentType::TEXT,
                payload: Payload::Inline(b"no such file"),
                ..done()
            },
        ),
        (
            "done_failed_final",
            Done {
                status: EndStatus::FailedFinal,
                content_type: ContentType::TEXT,
                payload: Payload::Inline(b"no such file"),
                ..done()
            },
        ),
        (
            "done_cancelled",
            Done {
                status: EndStatus::Cancelled,
                content_type: ContentType::RAW,
                payload: Payload::Inline(b""),
                ..done()
            },
        ),
        ("done_frames", Done { content_type: ContentType::RAW, payload: FRAMES, ..done() }),
        (
            "done_zeroes",
            Done {
                attempt: AttemptId { epoch: Epoch(0), task: TaskId(0), dispatch: Dispatch(0) },
                residence_ns: 0,
                service_ns: 0,
                ..done()
            },
        ),
    ]
}

fn workers_to() -> Vec<(&'static str, ToBroker<'static>)> {
    let held = vec![
        held(7, HeldState::Waiting),
        held(300, HeldState::Claimed),
        held(70_000, HeldState::Ended),
    ];
    let supervised =
        Ready { host: Some(HOST), slot: Slot(3), incarnation: Incarnation(2), ..ready() };
    vec![
        ("ready", ToBroker::Ready(ready())),
        ("ready_labels", ToBroker::Ready(Ready { labels: vec!["gpu", "numa=1"], ..ready() })),
        ("ready_supervised", ToBroker::Ready(supervised.clone())),
        ("ready_held", ToBroker::Ready(Ready { held: held.clone(), ..supervised.clone() })),
        ("ready_part", ToBroker::Ready(Ready { held, part: 1, parts: 2, ..supervised })),
        ("return", ToBroker::Return(first())),
        ("progress_latest", ToBroker::Progress(progress(ProgressKind::Latest))),
        ("progress_stream", ToBroker::Progress(progress(ProgressKind::Stream))),
    ]
}

fn hosts_to() -> Vec<(&'static str, ToBroker<'static>)> {
    let worker = |slot, cpu, claimed| HostWorker {
        slot: Slot(slot),
        incarnation: Incarnation(1),
        cpu,
        claimed,
    };
    let workers = vec![worker(0, Some(2), vec![first()]), worker(1, None, vec![])];
    let exited =
        Lost { cause: LossKind::Exited, detail: 1, running: None, started: Vec::new(), ..lost() };
    let attempts = vec![first(), attempt(8, 1)];
    vec![
        ("host", ToBroker::Host(Host { cpus: vec![2, 3, 300], workers })),
        ("host_empty", ToBroker::Host(Host { cpus: vec![], workers: vec![] })),
        ("lost_signalled", ToBroker::Lost(lost())),
        ("lost_exited", ToBroker::Lost(exited.clone())),
        ("lost_detail_negative", ToBroker::Lost(Lost { detail: -1, ..exited.clone() })),
        ("lost_detail_least", ToBroker::Lost(Lost { detail: i32::MIN, ..exited.clone() })),
        ("lost_detail_minus_100", ToBroker::Lost(Lost { detail: -100, ..exited.clone() })),
        ("lost_detail_minus_1000", ToBroker::Lost(Lost { detail: -1000, ..exited })),
        ("recalled", ToBroker::Recalled(Attempts { slot: Slot(3), attempts })),
        (
            "recalled_sixteen",
            ToBroker::Recalled(Attempts {
                slot: Slot(3),
                attempts: (0..16).map(|task| attempt(task, 1)).collect(),
            }),
        ),
    ]
}

pub(super) fn from_broker() -> Vec<Exact> {
    let mut all = sessions_from();
    all.extend(results().into_iter().map(|(name, c)| (name, FromBroker::Result(c))));
    all.extend(tasks().into_iter().map(|(name, c)| (name, FromBroker::Task(c))));
    all.extend(others_from());
    named(all, Command::From)
}

fn sessions_from() -> Vec<(&'static str, FromBroker<'static>)> {
    let welcome = Welcome {
        version: 1,
        nonce: 0x0123_4567_89ab_cdef,
        epoch: EPOCH,
        heartbeat_ns: 1_000_000_000,
        lease_ns: 10_000_000_000,
        liveness: 3,
        window_tasks: 10_000,
        window_bytes: 268_435_456,
        payload_bytes_max: 67_108_864,
        header_bytes_max: 4096,
        kept_ns: 60_000_000_000,
    };
    let refused = Refused { code: RefusedCode::Malformed, reason: "priority: 11 is not in 1..=10" };
    vec![
        ("welcome_client", FromBroker::Welcome(welcome)),
        (
            "welcome_worker",
            FromBroker::Welcome(Welcome { window_tasks: 0, window_bytes: 0, ..welcome }),
        ),
        ("refused", FromBroker::Refused(refused)),
        ("no_session", FromBroker::NoSession),
        ("heartbeat_echo", FromBroker::Heartbeat(Heartbeat { sequence: 1, silence_ns: None })),
        ("goodbye_of_broker", FromBroker::Goodbye),
        ("ack_of_broker", FromBroker::Ack(1)),
        ("window", FromBroker::Window(Window { tasks: 5_000, bytes: 134_217_728 })),
        ("service_alias_of_broker", FromBroker::Service(ServiceAlias { alias: 1, name: "sha256" })),
    ]
}

fn results() -> Vec<(&'static str, TaskResult<'static>)> {
    let busy = failure(Status::Busy, 0, "the broker is full");
    let mut all = vec![
        ("result", result()),
        ("result_frames", TaskResult { payload: FRAMES, ..result() }),
        ("result_failed", failure(Status::Failed, 0, "no such file")),
        ("result_busy", TaskResult { stages: None, retry_after_ns: Some(50_000_000), ..busy }),
        (
            "result_widest",
            TaskResult {
                request_id: RequestId(u64::MAX),
                submission: Submission(u32::MAX),
                tries: u32::MAX,
                stages: Some(StageTimes {
                    broker_wait_ns: u64::MAX,
                    transit_ns: u64::from(u32::MAX) + 1,
                    worker_wait_ns: 65_536,
                    service_ns: 256,
                }),
                content_type: ContentType::APPLICATION,
                retry_after_ns: Some(u64::MAX),
                ..result()
            },
        ),
    ];
    let errors = [
        ("result_expired", Status::Expired, 0, "the deadline passed"),
        ("result_timed_out", Status::TimedOut, 1, "ran longer than 3600 s"),
        ("result_crashed", Status::Crashed, 3, "the worker died 3 times"),
        ("result_cancelled", Status::Cancelled, 0, "cancelled"),
        ("result_no_service", Status::NoService, 0, "nobody serves echo"),
        ("result_refused", Status::Refused, 0, "unknown option: at_most_twice"),
        ("result_lost", Status::Lost, 1, "the worker is gone"),
    ];
    all.extend(errors.into_iter().map(|(name, status, tries, text)| {
        (name, TaskResult { stages: None, ..failure(status, tries, text) })
    }));
    all
}

fn tasks() -> Vec<(&'static str, Task<'static>)> {
    let once = TaskOptions { at_most_once: true, ..TaskOptions::default() };
    vec![
        ("task", task()),
        ("task_alias", Task { service: ServiceRef::Alias(0), ..task() }),
        ("task_deadline", Task { deadline_ns: Some(4_999_000_000), ..task() }),
        ("task_options", Task { options: options(once), ..task() }),
        ("task_again", Task { dispatch: Dispatch(2), tries: 1, ..task() }),
        ("task_frames", Task { content_type: ContentType::RAW, payload: FRAMES, ..task() }),
        (
            "task_widest",
            Task {
                task: TaskId(u64::MAX),
                dispatch: Dispatch(u32::MAX),
                client_id: PeerId([0xff; 16]),
                request_id: RequestId(u64::MAX),
                submission: Submission(u32::MAX),
                tries: u32::MAX,
                deadline_ns: Some(u64::MAX),
                max_runtime_ns: u64::MAX,
                content_type: ContentType(u32::MAX),
                ..task()
            },
        ),
    ]
}

fn others_from() -> Vec<(&'static str, FromBroker<'static>)> {
    let fetched = |state| {
        let (request_id, submission) = (RequestId(2), Submission(1));
        FromBroker::Fetched(Fetched { request_id, submission, state })
    };
    let progress = |kind| {
        let progress = progress(kind);
        FromBroker::Progress(ClientProgress {
            request_id: RequestId(1),
            submission: Submission(1),
            task: progress.attempt.task,
            dispatch: progress.attempt.dispatch,
            sequence: progress.sequence,
            kind,
            content_type: progress.content_type,
            payload: progress.payload,
        })
    };
    let cancel =
        |is_hard| FromBroker::Cancel(CancelAttempt { slot: Slot(3), attempt: first(), is_hard });
    let attempts = vec![first(), attempt(8, 1)];
    vec![
        (
            "accepted",
            FromBroker::Accepted(Accepted { request_id: RequestId(1), task: first().task }),
        ),
        ("fetched_pending", fetched(FetchState::Pending)),
        ("fetched_unknown", fetched(FetchState::Unknown)),
        ("progress_latest_to_client", progress(ProgressKind::Latest)),
        ("progress_stream_to_client", progress(ProgressKind::Stream)),
        ("drain", FromBroker::Drain),
        ("recall", FromBroker::Recall(Attempts { slot: Slot(3), attempts })),
        ("cancel_attempt", cancel(false)),
        ("cancel_attempt_hard", cancel(true)),
    ]
}
