//! Arbitrary commands.

use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::*;
use pinmesh_protocol::id::*;
use pinmesh_protocol::limits::{KEY_BYTES_MAX, SERVICES_MAX, WINDOW_TASKS_MAX};
use pinmesh_protocol::status::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Command, keep};

pub fn command() -> impl Strategy<Value = Command> {
    prop_oneof![to_broker().prop_map(Command::To), from_broker().prop_map(Command::From)]
}

/// Numbers of every width alike.
fn uint() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(number, shift)| number >> shift)
}

fn uint32() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0_u32..32).prop_map(|(number, shift)| number >> shift)
}

fn text(max: usize) -> impl Strategy<Value = &'static str> {
    vec(prop_oneof![Just('a'), Just('.'), Just('\u{e4}'), Just('\u{1f980}')], 0..=max / 4)
        .prop_map(|chars| &*String::leak(chars.into_iter().collect()))
}

fn bytes(max: usize) -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..=max).prop_map(|bytes| keep(&bytes))
}

fn peer_id() -> impl Strategy<Value = PeerId> {
    any::<[u8; 16]>().prop_map(PeerId)
}

fn attempt() -> impl Strategy<Value = AttemptId> {
    (uint32(), uint(), uint32()).prop_map(|(epoch, task, dispatch)| AttemptId {
        epoch: Epoch(epoch),
        task: TaskId(task),
        dispatch: Dispatch(dispatch),
    })
}

fn payload() -> impl Strategy<Value = Payload<'static>> {
    let frames = (1_u32..=64).prop_flat_map(|frames| {
        (Just(frames), 0..=u64::from(frames) * 1024 * 1024)
            .prop_map(|(frames, bytes)| Payload::Frames(FrameSpan { first: 1, frames, bytes }))
    });
    prop_oneof![
        8 => bytes(80).prop_map(Payload::Inline),
        1 => (any::<u8>(), 0_usize..70_000)
            .prop_map(|(byte, len)| Payload::Inline(Vec::leak(vec![byte; len]))),
        2 => frames,
    ]
}

fn service() -> impl Strategy<Value = ServiceRef<'static>> {
    prop_oneof![
        (0..SERVICES_MAX as u32).prop_map(ServiceRef::Alias),
        text(128).prop_map(ServiceRef::Name)
    ]
}

pub fn task_options() -> impl Strategy<Value = TaskOptions> {
    let limits = (option::of(1..=u64::MAX), option::of(1..=u32::MAX));
    let waits = (option::of(uint()), option::of(uint()), option::of(uint()));
    let key = (option::of(vec(any::<u8>(), 1..=KEY_BYTES_MAX)), option::of(1..=u64::MAX));
    (any::<[bool; 5]>(), limits, waits, key).prop_map(
        |(flags, limits, waits, (key, retention_ns))| {
            let [at_most_once, accepted, detached, run_on, kill_at_deadline] = flags;
            TaskOptions {
                at_most_once,
                accepted,
                max_runtime_ns: limits.0,
                tries_max: limits.1,
                backoff_ns: waits.0,
                backoff_max_ns: waits.1,
                start_after_ns: waits.2,
                kill_at_deadline,
                key: key.map(Into::into),
                detached,
                retention_ns,
                run_on,
            }
        },
    )
}

fn options() -> impl Strategy<Value = Option<&'static [u8]>> {
    option::of(task_options().prop_map(|options| &*Vec::leak(options.encode())))
}

fn content_type() -> impl Strategy<Value = ContentType> {
    uint32().prop_map(ContentType)
}

fn priority() -> impl Strategy<Value = Priority> {
    (1_u8..=10).prop_map(|value| Priority::new(value).unwrap())
}

fn submit() -> impl Strategy<Value = Submit<'static>> {
    let head = (uint(), uint32(), service(), priority(), option::of(uint()));
    (head, content_type(), options(), payload()).prop_map(
        |(
            (request, submission, service, priority, deadline_ns),
            content_type,
            options,
            payload,
        )| {
            Submit {
                request_id: RequestId(request),
                submission: Submission(submission),
                service,
                priority,
                deadline_ns,
                content_type,
                options,
                payload,
            }
        },
    )
}

fn task() -> impl Strategy<Value = Task<'static>> {
    (submit(), uint(), uint32(), peer_id(), uint32(), uint()).prop_map(
        |(submit, task, dispatch, client_id, tries, max_runtime_ns)| Task {
            task: TaskId(task),
            dispatch: Dispatch(dispatch),
            client_id,
            request_id: submit.request_id,
            submission: submit.submission,
            service: submit.service,
            tries,
            deadline_ns: submit.deadline_ns,
            max_runtime_ns,
            content_type: submit.content_type,
            options: submit.options,
            payload: submit.payload,
        },
    )
}

fn done() -> impl Strategy<Value = Done<'static>> {
    (attempt(), select(EndStatus::ALL), uint(), uint(), content_type(), payload()).prop_map(
        |(attempt, status, residence_ns, service_ns, content_type, payload)| Done {
            attempt,
            status,
            residence_ns,
            service_ns,
            content_type,
            payload,
        },
    )
}

fn result() -> impl Strategy<Value = TaskResult<'static>> {
    let stages = (uint(), uint(), uint(), uint()).prop_map(|(a, b, c, d)| StageTimes {
        broker_wait_ns: a,
        transit_ns: b,
        worker_wait_ns: c,
        service_ns: d,
    });
    let head = (uint(), uint32(), select(Status::ALL), uint32(), option::of(stages));
    (head, content_type(), payload(), option::of(uint())).prop_map(
        |((request, submission, status, tries, stages), content_type, payload, retry_after_ns)| {
            TaskResult {
                request_id: RequestId(request),
                submission: Submission(submission),
                status,
                tries,
                stages,
                content_type,
                payload,
                retry_after_ns,
            }
        },
    )
}

fn ready() -> impl Strategy<Value = Ready<'static>> {
    let held = (attempt(), peer_id(), uint(), uint32(), select(HeldState::ALL)).prop_map(
        |(attempt, client_id, request, submission, state)| Held {
            attempt,
            client_id,
            request_id: RequestId(request),
            submission: Submission(submission),
            state,
        },
    );
    let names = (vec(text(128), 0..20), vec(text(64), 0..10));
    let head = (option::of(peer_id()), any::<u16>(), uint32(), names);
    let parts = (1_u32..100).prop_flat_map(|parts| (0..parts, Just(parts)));
    (head, 0..=WINDOW_TASKS_MAX, uint(), vec(held, 0..20), parts).prop_map(
        |(head, window_tasks, window_bytes, held, (part, parts))| {
            let (host, slot, incarnation, (services, labels)) = head;
            Ready {
                host,
                slot: Slot(slot),
                incarnation: Incarnation(incarnation),
                services,
                labels,
                window_tasks,
                window_bytes,
                held,
                part,
                parts,
            }
        },
    )
}

fn host() -> impl Strategy<Value = Host> {
    let worker = (any::<u16>(), uint32(), option::of(any::<u16>()), vec(attempt(), 0..5)).prop_map(
        |(slot, incarnation, cpu, claimed)| HostWorker {
            slot: Slot(slot),
            incarnation: Incarnation(incarnation),
            cpu,
            claimed,
        },
    );
    (vec(any::<u16>(), 0..40), vec(worker, 0..20))
        .prop_map(|(cpus, workers)| Host { cpus, workers })
}

fn lost() -> impl Strategy<Value = Lost> {
    let detail = (any::<i32>(), 0_u32..32).prop_map(|(number, shift)| number >> shift);
    let attempts = (option::of(attempt()), vec(attempt(), 0..20));
    (any::<u16>(), uint32(), select(LossKind::ALL), detail, attempts).prop_map(
        |(slot, incarnation, cause, detail, (running, started))| Lost {
            slot: Slot(slot),
            incarnation: Incarnation(incarnation),
            cause,
            detail,
            running,
            started,
        },
    )
}

fn attempts() -> impl Strategy<Value = Attempts> {
    (any::<u16>(), vec(attempt(), 0..20))
        .prop_map(|(slot, attempts)| Attempts { slot: Slot(slot), attempts })
}

fn refused() -> impl Strategy<Value = Refused<'static>> {
    (select(RefusedCode::ALL), text(512)).prop_map(|(code, reason)| Refused { code, reason })
}

fn heartbeat() -> impl Strategy<Value = Heartbeat> {
    (uint(), option::of(uint()))
        .prop_map(|(sequence, silence_ns)| Heartbeat { sequence, silence_ns })
}

fn window() -> impl Strategy<Value = Window> {
    (0..=WINDOW_TASKS_MAX, uint()).prop_map(|(tasks, bytes)| Window { tasks, bytes })
}

fn alias() -> impl Strategy<Value = ServiceAlias<'static>> {
    (0..SERVICES_MAX as u32, text(128)).prop_map(|(alias, name)| ServiceAlias { alias, name })
}

fn hello() -> impl Strategy<Value = Hello<'static>> {
    (uint32(), uint32(), select(Role::ALL), peer_id(), text(256), uint(), uint()).prop_map(
        |(version_min, version_max, role, peer_id, name, nonce, features)| Hello {
            version_min,
            version_max,
            role,
            peer_id,
            name,
            nonce,
            features,
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let times = (uint(), uint(), uint32());
    let limits = (0..=WINDOW_TASKS_MAX, uint(), uint(), uint32(), uint());
    (uint32(), uint(), uint32(), times, limits).prop_map(
        |(version, nonce, epoch, (heartbeat_ns, lease_ns, liveness), limits)| Welcome {
            version,
            nonce,
            epoch: Epoch(epoch),
            heartbeat_ns,
            lease_ns,
            liveness,
            window_tasks: limits.0,
            window_bytes: limits.1,
            payload_bytes_max: limits.2,
            header_bytes_max: limits.3,
            kept_ns: limits.4,
        },
    )
}

fn worker_progress() -> impl Strategy<Value = WorkerProgress<'static>> {
    (attempt(), uint(), select(ProgressKind::ALL), content_type(), payload()).prop_map(
        |(attempt, sequence, kind, content_type, payload)| WorkerProgress {
            attempt,
            sequence,
            kind,
            content_type,
            payload,
        },
    )
}

fn client_progress() -> impl Strategy<Value = ClientProgress<'static>> {
    (worker_progress(), uint(), uint32()).prop_map(|(progress, request, submission)| {
        ClientProgress {
            request_id: RequestId(request),
            submission: Submission(submission),
            task: progress.attempt.task,
            dispatch: progress.attempt.dispatch,
            sequence: progress.sequence,
            kind: progress.kind,
            content_type: progress.content_type,
            payload: progress.payload,
        }
    })
}

pub fn to_broker() -> impl Strategy<Value = ToBroker<'static>> {
    prop_oneof![
        hello().prop_map(ToBroker::Hello),
        refused().prop_map(ToBroker::Refused),
        heartbeat().prop_map(ToBroker::Heartbeat),
        Just(ToBroker::Goodbye),
        uint().prop_map(ToBroker::Ack),
        window().prop_map(ToBroker::Window),
        alias().prop_map(ToBroker::Service),
        submit().prop_map(ToBroker::Submit),
        (uint(), uint32(), any::<bool>()).prop_map(|(request, submission, is_hard)| {
            ToBroker::Cancel(CancelRequest {
                request_id: RequestId(request),
                submission: Submission(submission),
                is_hard,
            })
        }),
        (uint(), uint32(), bytes(128), any::<bool>()).prop_map(
            |(request, submission, key, waits)| {
                ToBroker::Fetch(Fetch {
                    request_id: RequestId(request),
                    submission: Submission(submission),
                    key,
                    waits,
                })
            }
        ),
        ready().prop_map(ToBroker::Ready),
        done().prop_map(ToBroker::Done),
        attempt().prop_map(ToBroker::Return),
        worker_progress().prop_map(ToBroker::Progress),
        host().prop_map(ToBroker::Host),
        lost().prop_map(ToBroker::Lost),
        attempts().prop_map(ToBroker::Recalled),
    ]
}

pub fn from_broker() -> impl Strategy<Value = FromBroker<'static>> {
    prop_oneof![
        welcome().prop_map(FromBroker::Welcome),
        refused().prop_map(FromBroker::Refused),
        Just(FromBroker::NoSession),
        heartbeat().prop_map(FromBroker::Heartbeat),
        Just(FromBroker::Goodbye),
        uint().prop_map(FromBroker::Ack),
        window().prop_map(FromBroker::Window),
        alias().prop_map(FromBroker::Service),
        result().prop_map(FromBroker::Result),
        (uint(), uint()).prop_map(|(request, task)| FromBroker::Accepted(Accepted {
            request_id: RequestId(request),
            task: TaskId(task),
        })),
        (uint(), uint32(), select(FetchState::ALL)).prop_map(|(request, submission, state)| {
            FromBroker::Fetched(Fetched {
                request_id: RequestId(request),
                submission: Submission(submission),
                state,
            })
        }),
        client_progress().prop_map(FromBroker::Progress),
        task().prop_map(FromBroker::Task),
        Just(FromBroker::Drain),
        attempts().prop_map(FromBroker::Recall),
        (any::<u16>(), attempt(), any::<bool>()).prop_map(|(slot, attempt, is_hard)| {
            FromBroker::Cancel(CancelAttempt { slot: Slot(slot), attempt, is_hard })
        }),
    ]
}
