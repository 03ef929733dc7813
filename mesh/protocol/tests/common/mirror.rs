//! Every command once more, as tuples that rmp-serde reads and writes: what the cursor is held to.

use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::*;
use pinmesh_protocol::id::*;
use pinmesh_protocol::status::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::{Command, Direction, keep};

type Id = ByteArray<16>;
type Attempt = (u32, u64, u32);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Service {
    Alias(u32),
    Name(String),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Body {
    Frames(u32, u32, u64),
    Inline(ByteBuf),
}

type HelloWire = (u8, u32, u32, u8, Id, String, u64, u64);
type WelcomeWire = (u8, u32, u64, u32, u64, u64, u32, u32, u64, u64, u32);
type SubmitWire = (u8, u64, u32, Service, u8, Option<u64>, u32, Option<TaskOptions>, Body);
type ResultWire = (u8, u64, u32, u8, u32, Option<[u64; 4]>, u32, Body, Option<u64>);
#[rustfmt::skip]
type TaskWire = (u8, u64, u32, Id, u64, u32, Service, u32, Option<u64>, u64, u32, Option<TaskOptions>, Body);
type DoneWire = (u8, u32, u64, u32, u8, u64, u64, u32, Body);
type HeldWire = (u32, u64, u32, Id, u64, u32, u8);
type ReadyWire = (u8, Option<Id>, u16, u32, Vec<String>, u32, u64, Vec<HeldWire>, u32, u32);
type WorkerProgressWire = (u8, u32, u64, u32, u64, u8, u32, Body);
type ClientProgressWire = (u8, u64, u32, u32, u64, u8, u32, Body);
type HostWire = (u8, Vec<u16>, Vec<(u16, u32, Option<u16>, Vec<Attempt>)>);
type LostWire = (u8, u16, u32, u8, i32, Option<Attempt>, Vec<Attempt>);
type AttemptsWire = (u8, u16, Vec<Attempt>);
type CancelWire = (u8, u16, u32, u64, u32, bool);

fn pack<T: Serialize>(value: T) -> Vec<u8> {
    rmp_serde::to_vec_named(&value).unwrap()
}

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> T {
    rmp_serde::from_slice(bytes).unwrap()
}

fn id(id: PeerId) -> Id {
    Id::new(id.0)
}

fn peer(id: Id) -> PeerId {
    PeerId(id.into_array())
}

fn attempt(a: &AttemptId) -> Attempt {
    (a.epoch.0, a.task.0, a.dispatch.0)
}

fn attempt_id((epoch, task, dispatch): Attempt) -> AttemptId {
    AttemptId { epoch: Epoch(epoch), task: TaskId(task), dispatch: Dispatch(dispatch) }
}

fn attempt_ids(attempts: Vec<Attempt>) -> Vec<AttemptId> {
    attempts.into_iter().map(attempt_id).collect()
}

fn service(service: ServiceRef<'_>) -> Service {
    match service {
        ServiceRef::Alias(alias) => Service::Alias(alias),
        ServiceRef::Name(name) => Service::Name(name.into()),
    }
}

fn service_ref(service: Service) -> ServiceRef<'static> {
    match service {
        Service::Alias(alias) => ServiceRef::Alias(alias),
        Service::Name(name) => ServiceRef::Name(name.leak()),
    }
}

fn body(payload: Payload<'_>) -> Body {
    match payload {
        Payload::Inline(bytes) => Body::Inline(ByteBuf::from(bytes)),
        Payload::Frames(span) => Body::Frames(span.first, span.frames, span.bytes),
    }
}

fn payload(body: Body) -> Payload<'static> {
    match body {
        Body::Inline(bytes) => Payload::Inline(Vec::leak(bytes.into_vec())),
        Body::Frames(first, frames, bytes) => Payload::Frames(FrameSpan { first, frames, bytes }),
    }
}

fn options(options: Option<&[u8]>) -> Option<TaskOptions> {
    options.map(|bytes| TaskOptions::decode(bytes).unwrap())
}

fn option_bytes(options: Option<TaskOptions>) -> Option<&'static [u8]> {
    options.map(|options| &*Vec::leak(options.encode()))
}

fn known<T>(value: u8, from_wire: impl Fn(u64) -> Option<T>) -> T {
    from_wire(value.into()).unwrap()
}

/// What rmp-serde writes for a command.
pub fn encode(command: &Command) -> Vec<u8> {
    match command {
        Command::To(command) => encode_to(command),
        Command::From(command) => encode_from(command),
    }
}

fn encode_to(command: &ToBroker<'_>) -> Vec<u8> {
    match command {
        ToBroker::Hello(c) => {
            let versions = (c.version_min, c.version_max);
            let role = c.role.to_wire();
            pack::<HelloWire>((
                1, versions.0, versions.1, role, id(c.peer_id), c.name.into(), c.nonce, c.features,
            ))
        }
        ToBroker::Refused(c) => pack((3, c.code.to_wire(), c.reason)),
        ToBroker::Heartbeat(c) => pack((5, c.sequence, c.silence_ns)),
        ToBroker::Goodbye => pack((6,)),
        ToBroker::Ack(n) => pack((7, n)),
        ToBroker::Window(c) => pack((8, c.tasks, c.bytes)),
        ToBroker::Service(c) => pack((9, c.alias, c.name)),
        ToBroker::Submit(c) => pack::<SubmitWire>((
            16,
            c.request_id.0,
            c.submission.0,
            service(c.service),
            c.priority.value(),
            c.deadline_ns,
            c.content_type.0,
            options(c.options),
            body(c.payload),
        )),
        ToBroker::Cancel(c) => pack((17, c.request_id, c.submission)),
        ToBroker::Fetch(key) => pack((18, serde_bytes::Bytes::new(key))),
        ToBroker::Ready(c) => pack::<ReadyWire>((
            34,
            c.host.map(id),
            c.slot.0,
            c.incarnation.0,
            c.services.iter().map(ToString::to_string).collect(),
            c.window_tasks,
            c.window_bytes,
            c.held.iter().map(held).collect(),
            c.part,
            c.parts,
        )),
        ToBroker::Done(c) => {
            let (epoch, task, dispatch) = attempt(&c.attempt);
            let (status, times) = (c.status.to_wire(), (c.residence_ns, c.service_ns));
            let (content_type, body) = (c.content_type.0, body(c.payload));
            pack::<DoneWire>((
                33, epoch, task, dispatch, status, times.0, times.1, content_type, body,
            ))
        }
        ToBroker::Return(a) => pack((35, a.epoch, a.task, a.dispatch)),
        ToBroker::Progress(c) => {
            let (epoch, task, dispatch) = attempt(&c.attempt);
            let (kind, content_type) = (c.kind.to_wire(), c.content_type.0);
            pack::<WorkerProgressWire>((
                36, epoch, task, dispatch, c.sequence, kind, content_type, body(c.payload),
            ))
        }
        ToBroker::Host(c) => {
            let workers = c.workers.iter().map(|worker| {
                let claimed = worker.claimed.iter().map(attempt).collect();
                (worker.slot.0, worker.incarnation.0, worker.cpu, claimed)
            });
            pack::<HostWire>((48, c.cpus.clone(), workers.collect()))
        }
        ToBroker::Lost(c) => pack::<LostWire>((
            49,
            c.slot.0,
            c.incarnation.0,
            c.cause.to_wire(),
            c.detail,
            c.running.as_ref().map(attempt),
            c.started.iter().map(attempt).collect(),
        )),
        ToBroker::Recalled(c) => attempts_wire(51, c),
    }
}

fn held(held: &Held) -> HeldWire {
    let (epoch, task, dispatch) = attempt(&held.attempt);
    let (request, submission) = (held.request_id.0, held.submission.0);
    (epoch, task, dispatch, id(held.client_id), request, submission, held.state.to_wire())
}

fn attempts_wire(op: u8, c: &Attempts) -> Vec<u8> {
    pack::<AttemptsWire>((op, c.slot.0, c.attempts.iter().map(attempt).collect()))
}

fn encode_from(command: &FromBroker<'_>) -> Vec<u8> {
    match command {
        FromBroker::Welcome(c) => pack::<WelcomeWire>((
            2,
            c.version,
            c.nonce,
            c.epoch.0,
            c.heartbeat_ns,
            c.lease_ns,
            c.liveness,
            c.window_tasks,
            c.window_bytes,
            c.payload_bytes_max,
            c.header_bytes_max,
        )),
        FromBroker::Refused(c) => pack((3, c.code.to_wire(), c.reason)),
        FromBroker::NoSession => pack((4,)),
        FromBroker::Heartbeat(c) => pack((5, c.sequence, c.silence_ns)),
        FromBroker::Goodbye => pack((6,)),
        FromBroker::Ack(n) => pack((7, n)),
        FromBroker::Window(c) => pack((8, c.tasks, c.bytes)),
        FromBroker::Service(c) => pack((9, c.alias, c.name)),
        FromBroker::Result(c) => pack::<ResultWire>((
            24,
            c.request_id.0,
            c.submission.0,
            c.status.to_wire(),
            c.tries,
            c.stages.map(|s| [s.broker_wait_ns, s.transit_ns, s.worker_wait_ns, s.service_ns]),
            c.content_type.0,
            body(c.payload),
            c.retry_after_ns,
        )),
        FromBroker::Accepted(c) => pack((25, c.request_id, c.task)),
        FromBroker::Fetched(c) => pack((26, serde_bytes::Bytes::new(c.key), c.state.to_wire())),
        FromBroker::Progress(c) => pack::<ClientProgressWire>((
            36,
            c.request_id.0,
            c.submission.0,
            c.dispatch.0,
            c.sequence,
            c.kind.to_wire(),
            c.content_type.0,
            body(c.payload),
        )),
        FromBroker::Task(c) => pack::<TaskWire>((
            32,
            c.task.0,
            c.dispatch.0,
            id(c.client_id),
            c.request_id.0,
            c.submission.0,
            service(c.service),
            c.tries,
            c.deadline_ns,
            c.max_runtime_ns,
            c.content_type.0,
            options(c.options),
            body(c.payload),
        )),
        FromBroker::Drain => pack((37,)),
        FromBroker::Recall(c) => attempts_wire(50, c),
        FromBroker::Cancel(c) => {
            let (epoch, task, dispatch) = attempt(&c.attempt);
            pack::<CancelWire>((17, c.slot.0, epoch, task, dispatch, c.is_hard))
        }
    }
}

/// What rmp-serde reads in one command.
pub fn decode(direction: Direction, bytes: &[u8]) -> Command {
    // Each command is an array of fewer than 16 fields, its op below 128.
    match direction {
        Direction::ToBroker => Command::To(decode_to(bytes[1], bytes)),
        Direction::FromBroker => Command::From(decode_from(bytes[1], bytes)),
    }
}

fn refused(bytes: &[u8]) -> Refused<'static> {
    let (_, code, reason): (u8, u8, String) = unpack(bytes);
    Refused { code: known(code, RefusedCode::from_wire), reason: reason.leak() }
}

fn heartbeat(bytes: &[u8]) -> Heartbeat {
    let (_, sequence, silence_ns): (u8, u64, Option<u64>) = unpack(bytes);
    Heartbeat { sequence, silence_ns }
}

fn window(bytes: &[u8]) -> Window {
    let (_, tasks, bytes): (u8, u32, u64) = unpack(bytes);
    Window { tasks, bytes }
}

fn alias(bytes: &[u8]) -> ServiceAlias<'static> {
    let (_, alias, name): (u8, u32, String) = unpack(bytes);
    ServiceAlias { alias, name: name.leak() }
}

fn attempts(bytes: &[u8]) -> Attempts {
    let (_, slot, attempts): AttemptsWire = unpack(bytes);
    Attempts { slot: Slot(slot), attempts: attempt_ids(attempts) }
}

fn decode_to(op: u8, bytes: &[u8]) -> ToBroker<'static> {
    match op {
        1 => {
            let (_, version_min, version_max, role, id, name, nonce, features): HelloWire =
                unpack(bytes);
            let (role, peer_id, name) = (known(role, Role::from_wire), peer(id), name.leak());
            ToBroker::Hello(Hello { version_min, version_max, role, peer_id, name, nonce, features })
        }
        3 => ToBroker::Refused(refused(bytes)),
        5 => ToBroker::Heartbeat(heartbeat(bytes)),
        6 => ToBroker::Goodbye,
        7 => ToBroker::Ack(unpack::<(u8, u64)>(bytes).1),
        8 => ToBroker::Window(window(bytes)),
        9 => ToBroker::Service(alias(bytes)),
        16 => {
            let w: SubmitWire = unpack(bytes);
            ToBroker::Submit(Submit {
                request_id: RequestId(w.1),
                submission: Submission(w.2),
                service: service_ref(w.3),
                priority: Priority::new(w.4).unwrap(),
                deadline_ns: w.5,
                content_type: ContentType(w.6),
                options: option_bytes(w.7),
                payload: payload(w.8),
            })
        }
        17 => {
            let (_, request_id, submission): (u8, RequestId, Submission) = unpack(bytes);
            ToBroker::Cancel(CancelRequest { request_id, submission })
        }
        18 => ToBroker::Fetch(keep(&unpack::<(u8, ByteBuf)>(bytes).1)),
        33 => {
            let w: DoneWire = unpack(bytes);
            ToBroker::Done(Done {
                attempt: attempt_id((w.1, w.2, w.3)),
                status: known(w.4, EndStatus::from_wire),
                residence_ns: w.5,
                service_ns: w.6,
                content_type: ContentType(w.7),
                payload: payload(w.8),
            })
        }
        34 => ToBroker::Ready(ready(unpack(bytes))),
        35 => {
            let (_, epoch, task, dispatch): (u8, u32, u64, u32) = unpack(bytes);
            ToBroker::Return(attempt_id((epoch, task, dispatch)))
        }
        36 => {
            let w: WorkerProgressWire = unpack(bytes);
            ToBroker::Progress(WorkerProgress {
                attempt: attempt_id((w.1, w.2, w.3)),
                sequence: w.4,
                kind: known(w.5, ProgressKind::from_wire),
                content_type: ContentType(w.6),
                payload: payload(w.7),
            })
        }
        48 => {
            let (_, cpus, workers): HostWire = unpack(bytes);
            let workers = workers.into_iter().map(|(slot, incarnation, cpu, claimed)| HostWorker {
                slot: Slot(slot),
                incarnation: Incarnation(incarnation),
                cpu,
                claimed: attempt_ids(claimed),
            });
            ToBroker::Host(Host { cpus, workers: workers.collect() })
        }
        49 => {
            let (_, slot, incarnation, cause, detail, running, started): LostWire = unpack(bytes);
            ToBroker::Lost(Lost {
                slot: Slot(slot),
                incarnation: Incarnation(incarnation),
                cause: known(cause, LossKind::from_wire),
                detail,
                running: running.map(attempt_id),
                started: attempt_ids(started),
            })
        }
        51 => ToBroker::Recalled(attempts(bytes)),
        other => panic!("no command {other} to a broker"),
    }
}

fn ready(w: ReadyWire) -> Ready<'static> {
    let held = w.7.into_iter().map(|h| Held {
        attempt: attempt_id((h.0, h.1, h.2)),
        client_id: peer(h.3),
        request_id: RequestId(h.4),
        submission: Submission(h.5),
        state: known(h.6, HeldState::from_wire),
    });
    Ready {
        host: w.1.map(peer),
        slot: Slot(w.2),
        incarnation: Incarnation(w.3),
        services: w.4.into_iter().map(|name| &*name.leak()).collect(),
        window_tasks: w.5,
        window_bytes: w.6,
        held: held.collect(),
        part: w.8,
        parts: w.9,
    }
}

fn decode_from(op: u8, bytes: &[u8]) -> FromBroker<'static> {
    match op {
        2 => {
            let w: WelcomeWire = unpack(bytes);
            FromBroker::Welcome(Welcome {
                version: w.1,
                nonce: w.2,
                epoch: Epoch(w.3),
                heartbeat_ns: w.4,
                lease_ns: w.5,
                liveness: w.6,
                window_tasks: w.7,
                window_bytes: w.8,
                payload_bytes_max: w.9,
                header_bytes_max: w.10,
            })
        }
        3 => FromBroker::Refused(refused(bytes)),
        4 => FromBroker::NoSession,
        5 => FromBroker::Heartbeat(heartbeat(bytes)),
        6 => FromBroker::Goodbye,
        7 => FromBroker::Ack(unpack::<(u8, u64)>(bytes).1),
        8 => FromBroker::Window(window(bytes)),
        9 => FromBroker::Service(alias(bytes)),
        17 => {
            let (_, slot, epoch, task, dispatch, is_hard): CancelWire = unpack(bytes);
            let attempt = attempt_id((epoch, task, dispatch));
            FromBroker::Cancel(CancelAttempt { slot: Slot(slot), attempt, is_hard })
        }
        24 => {
            let w: ResultWire = unpack(bytes);
            let stages = w.5.map(|[broker_wait_ns, transit_ns, worker_wait_ns, service_ns]| {
                StageTimes { broker_wait_ns, transit_ns, worker_wait_ns, service_ns }
            });
            FromBroker::Result(TaskResult {
                request_id: RequestId(w.1),
                submission: Submission(w.2),
                status: known(w.3, Status::from_wire),
                tries: w.4,
                stages,
                content_type: ContentType(w.6),
                payload: payload(w.7),
                retry_after_ns: w.8,
            })
        }
        25 => {
            let (_, request_id, task): (u8, RequestId, TaskId) = unpack(bytes);
            FromBroker::Accepted(Accepted { request_id, task })
        }
        26 => {
            let (_, key, state): (u8, ByteBuf, u8) = unpack(bytes);
            let state = known(state, FetchState::from_wire);
            FromBroker::Fetched(Fetched { key: keep(&key), state })
        }
        32 => FromBroker::Task(task(unpack(bytes))),
        36 => {
            let w: ClientProgressWire = unpack(bytes);
            FromBroker::Progress(ClientProgress {
                request_id: RequestId(w.1),
                submission: Submission(w.2),
                dispatch: Dispatch(w.3),
                sequence: w.4,
                kind: known(w.5, ProgressKind::from_wire),
                content_type: ContentType(w.6),
                payload: payload(w.7),
            })
        }
        37 => FromBroker::Drain,
        50 => FromBroker::Recall(attempts(bytes)),
        other => panic!("no command {other} from a broker"),
    }
}

fn task(w: TaskWire) -> Task<'static> {
    Task {
        task: TaskId(w.1),
        dispatch: Dispatch(w.2),
        client_id: peer(w.3),
        request_id: RequestId(w.4),
        submission: Submission(w.5),
        service: service_ref(w.6),
        tries: w.7,
        deadline_ns: w.8,
        max_runtime_ns: w.9,
        content_type: ContentType(w.10),
        options: option_bytes(w.11),
        payload: payload(w.12),
    }
}
