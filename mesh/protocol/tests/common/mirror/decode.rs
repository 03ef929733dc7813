//! Bytes to tuple to command.

use pinmesh_protocol::command::*;
use pinmesh_protocol::status::*;

use super::*;
use crate::common::{Command, Direction, keep};

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
            ToBroker::Hello(Hello {
                version_min,
                version_max,
                role,
                peer_id,
                name,
                nonce,
                features,
            })
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
            let (_, request_id, submission, is_hard): (u8, RequestId, Submission, bool) =
                unpack(bytes);
            ToBroker::Cancel(CancelRequest { request_id, submission, is_hard })
        }
        18 => {
            let (_, request_id, submission, key, waits): (
                u8,
                RequestId,
                Submission,
                ByteBuf,
                bool,
            ) = unpack(bytes);
            ToBroker::Fetch(Fetch { request_id, submission, key: keep(&key), waits })
        }
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
    let held = w.8.into_iter().map(|h| Held {
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
        labels: w.5.into_iter().map(|label| &*label.leak()).collect(),
        window_tasks: w.6,
        window_bytes: w.7,
        held: held.collect(),
        part: w.9,
        parts: w.10,
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
                kept_ns: w.11,
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
            let (_, request_id, submission, state): (u8, RequestId, Submission, u8) = unpack(bytes);
            let state = known(state, FetchState::from_wire);
            FromBroker::Fetched(Fetched { request_id, submission, state })
        }
        32 => FromBroker::Task(task(unpack(bytes))),
        36 => {
            let w: ClientProgressWire = unpack(bytes);
            FromBroker::Progress(ClientProgress {
                request_id: RequestId(w.1),
                submission: Submission(w.2),
                task: TaskId(w.3),
                dispatch: Dispatch(w.4),
                sequence: w.5,
                kind: known(w.6, ProgressKind::from_wire),
                content_type: ContentType(w.7),
                payload: payload(w.8),
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
