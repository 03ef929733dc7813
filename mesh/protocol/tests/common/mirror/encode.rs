//! Command to tuple to bytes.

use pinmesh_protocol::command::*;

use super::*;
use crate::common::Command;

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
                1,
                versions.0,
                versions.1,
                role,
                id(c.peer_id),
                c.name.into(),
                c.nonce,
                c.features,
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
        ToBroker::Cancel(c) => pack((17, c.request_id, c.submission, c.is_hard)),
        ToBroker::Fetch(c) => {
            pack((18, c.request_id, c.submission, serde_bytes::Bytes::new(c.key), c.waits))
        }
        ToBroker::Ready(c) => pack::<ReadyWire>((
            34,
            c.host.map(id),
            c.slot.0,
            c.incarnation.0,
            c.services.iter().map(ToString::to_string).collect(),
            c.labels.iter().map(ToString::to_string).collect(),
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
                33,
                epoch,
                task,
                dispatch,
                status,
                times.0,
                times.1,
                content_type,
                body,
            ))
        }
        ToBroker::Return(a) => pack((35, a.epoch, a.task, a.dispatch)),
        ToBroker::Progress(c) => {
            let (epoch, task, dispatch) = attempt(&c.attempt);
            let (kind, content_type) = (c.kind.to_wire(), c.content_type.0);
            pack::<WorkerProgressWire>((
                36,
                epoch,
                task,
                dispatch,
                c.sequence,
                kind,
                content_type,
                body(c.payload),
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
            c.kept_ns,
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
        FromBroker::Fetched(c) => pack((26, c.request_id, c.submission, c.state.to_wire())),
        FromBroker::Progress(c) => pack::<ClientProgressWire>((
            36,
            c.request_id.0,
            c.submission.0,
            c.task.0,
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
