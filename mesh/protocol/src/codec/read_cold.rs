//! The commands that are not hot, read: handshakes, lists, progress.

use alloc::vec::Vec;

use super::read::not_here;
use super::source::{Read, Source};
use crate::command::{
    Accepted, Attempts, CancelAttempt, CancelRequest, ClientProgress, Fetched, FromBroker,
    Heartbeat, Held, Hello, Host, HostWorker, Lost, Ready, Refused, ServiceAlias, ToBroker,
    Welcome, Window, WorkerProgress, op,
};
use crate::cursor::{out_of_range, too_large};
use crate::id::{AttemptId, Dispatch, Epoch, Incarnation, RequestId, Slot, Submission, TaskId};
use crate::limits::{
    KEY_BYTES_MAX, LIST_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX, SERVICE_BYTES_MAX, SERVICES_MAX,
    WORKERS_MAX,
};
use crate::status::{FetchState, HeldState, LossKind, ProgressKind, RefusedCode, Role};

#[cold]
#[inline(never)]
pub(super) fn to_broker<'a>(
    source: &mut Source<'a>,
    op: u8,
    fields: usize,
) -> Read<(ToBroker<'a>, usize)> {
    let (name, needed) = match op {
        op::HELLO => ("HELLO", 7),
        op::REFUSED => ("REFUSED", 2),
        op::HEARTBEAT => ("HEARTBEAT", 2),
        op::GOODBYE => ("GOODBYE", 0),
        op::WINDOW => ("WINDOW", 2),
        op::SERVICE => ("SERVICE", 2),
        op::CANCEL => ("CANCEL", 2),
        op::FETCH => ("FETCH", 1),
        op::READY => ("READY", 9),
        op::RETURN => ("RETURN", 3),
        op::PROGRESS => ("PROGRESS", 7),
        op::HOST => ("HOST", 2),
        op::LOST => ("LOST", 6),
        op::RECALLED => ("RECALLED", 2),
        _ => return Err(not_here(source, op)),
    };
    let extra = source.extra(name, fields, needed)?;
    let command = match op {
        op::HELLO => ToBroker::Hello(hello(source)?),
        op::REFUSED => ToBroker::Refused(refused(source)?),
        op::HEARTBEAT => ToBroker::Heartbeat(heartbeat(source)?),
        op::GOODBYE => ToBroker::Goodbye,
        op::WINDOW => ToBroker::Window(window(source)?),
        op::SERVICE => ToBroker::Service(service_alias(source)?),
        op::CANCEL => ToBroker::Cancel(cancel_request(source)?),
        op::FETCH => ToBroker::Fetch(source.cursor.bin(KEY_BYTES_MAX, "key")?),
        op::READY => ToBroker::Ready(ready(source)?),
        op::RETURN => ToBroker::Return(source.attempt()?),
        op::PROGRESS => ToBroker::Progress(worker_progress(source)?),
        op::HOST => ToBroker::Host(host(source)?),
        op::LOST => ToBroker::Lost(lost(source)?),
        op::RECALLED => ToBroker::Recalled(attempts(source)?),
        _ => return Err(not_here(source, op)),
    };
    Ok((command, extra))
}

#[cold]
#[inline(never)]
pub(super) fn from_broker<'a>(
    source: &mut Source<'a>,
    op: u8,
    fields: usize,
) -> Read<(FromBroker<'a>, usize)> {
    let (name, needed) = match op {
        op::WELCOME => ("WELCOME", 10),
        op::REFUSED => ("REFUSED", 2),
        op::NO_SESSION => ("NO_SESSION", 0),
        op::HEARTBEAT => ("HEARTBEAT", 2),
        op::GOODBYE => ("GOODBYE", 0),
        op::WINDOW => ("WINDOW", 2),
        op::SERVICE => ("SERVICE", 2),
        op::ACCEPTED => ("ACCEPTED", 2),
        op::FETCHED => ("FETCHED", 2),
        op::PROGRESS => ("PROGRESS", 7),
        op::DRAIN => ("DRAIN", 0),
        op::RECALL => ("RECALL", 2),
        op::CANCEL => ("CANCEL", 5),
        _ => return Err(not_here(source, op)),
    };
    let extra = source.extra(name, fields, needed)?;
    let command = match op {
        op::WELCOME => FromBroker::Welcome(welcome(source)?),
        op::REFUSED => FromBroker::Refused(refused(source)?),
        op::NO_SESSION => FromBroker::NoSession,
        op::HEARTBEAT => FromBroker::Heartbeat(heartbeat(source)?),
        op::GOODBYE => FromBroker::Goodbye,
        op::WINDOW => FromBroker::Window(window(source)?),
        op::SERVICE => FromBroker::Service(service_alias(source)?),
        op::ACCEPTED => FromBroker::Accepted(Accepted {
            request_id: RequestId(source.cursor.uint("request_id")?),
            task: TaskId(source.cursor.uint("task")?),
        }),
        op::FETCHED => FromBroker::Fetched(Fetched {
            key: source.cursor.bin(KEY_BYTES_MAX, "key")?,
            state: source.known("state", FetchState::from_wire)?,
        }),
        op::PROGRESS => FromBroker::Progress(client_progress(source)?),
        op::DRAIN => FromBroker::Drain,
        op::RECALL => FromBroker::Recall(attempts(source)?),
        op::CANCEL => FromBroker::Cancel(cancel_attempt(source)?),
        _ => return Err(not_here(source, op)),
    };
    Ok((command, extra))
}

/// A list of at most `max` elements, each `bytes_min` long or longer.
fn list<'a, T>(
    source: &mut Source<'a>,
    field: &'static str,
    max: usize,
    bytes_min: usize,
    mut element: impl FnMut(&mut Source<'a>) -> Read<T>,
) -> Read<Vec<T>> {
    let at = source.cursor.at();
    let len = source.cursor.array(field)?;
    if len > max {
        return Err(too_large(field, at, len as u64, max as u64));
    }
    // Room for what the bytes can hold, not for what they say.
    let room = len.min(source.cursor.rest().len() / bytes_min);
    let mut elements = Vec::with_capacity(room);
    for _ in 0..len {
        elements.push(element(source)?);
    }
    Ok(elements)
}

/// An array inside a command: at least `needed` fields, later ones stepped over.
fn nested<'a, T>(
    source: &mut Source<'a>,
    field: &'static str,
    needed: usize,
    read: impl FnOnce(&mut Source<'a>) -> Read<T>,
) -> Read<T> {
    let found = source.cursor.array(field)?;
    let extra = source.extra(field, found, needed)?;
    let value = read(source)?;
    source.skip(extra, field)?;
    Ok(value)
}

fn attempt_list(source: &mut Source<'_>, field: &'static str) -> Read<Vec<AttemptId>> {
    list(source, field, LIST_MAX, 4, |source| nested(source, field, 3, Source::attempt))
}

fn hello<'a>(source: &mut Source<'a>) -> Read<Hello<'a>> {
    Ok(Hello {
        version_min: source.cursor.u32("version_min")?,
        version_max: source.cursor.u32("version_max")?,
        role: source.known("role", Role::from_wire)?,
        peer_id: source.peer_id("peer_id")?,
        name: source.cursor.str(NAME_BYTES_MAX, "name")?,
        nonce: source.cursor.uint("nonce")?,
        features: source.cursor.uint("features")?,
    })
}

fn welcome(source: &mut Source<'_>) -> Read<Welcome> {
    Ok(Welcome {
        version: source.cursor.u32("version")?,
        nonce: source.cursor.uint("nonce")?,
        epoch: Epoch(source.cursor.u32("epoch")?),
        heartbeat_ns: source.cursor.uint("heartbeat_ns")?,
        lease_ns: source.cursor.uint("lease_ns")?,
        liveness: source.cursor.u32("liveness")?,
        window_tasks: source.window_tasks("window_tasks")?,
        window_bytes: source.cursor.uint("window_bytes")?,
        payload_bytes_max: source.cursor.uint("payload_bytes_max")?,
        header_bytes_max: source.cursor.u32("header_bytes_max")?,
    })
}

fn refused<'a>(source: &mut Source<'a>) -> Read<Refused<'a>> {
    Ok(Refused {
        code: source.known("code", RefusedCode::from_wire)?,
        reason: source.cursor.str(REASON_BYTES_MAX, "reason")?,
    })
}

fn heartbeat(source: &mut Source<'_>) -> Read<Heartbeat> {
    Ok(Heartbeat {
        sequence: source.cursor.uint("sequence")?,
        silence_ns: source.cursor.uint_or_nil("silence_ns")?,
    })
}

fn window(source: &mut Source<'_>) -> Read<Window> {
    Ok(Window { tasks: source.window_tasks("tasks")?, bytes: source.cursor.uint("bytes")? })
}

fn service_alias<'a>(source: &mut Source<'a>) -> Read<ServiceAlias<'a>> {
    Ok(ServiceAlias {
        alias: source.alias("alias")?,
        name: source.cursor.str(SERVICE_BYTES_MAX, "name")?,
    })
}

fn cancel_request(source: &mut Source<'_>) -> Read<CancelRequest> {
    Ok(CancelRequest {
        request_id: RequestId(source.cursor.uint("request_id")?),
        submission: Submission(source.cursor.u32("submission")?),
    })
}

fn cancel_attempt(source: &mut Source<'_>) -> Read<CancelAttempt> {
    Ok(CancelAttempt {
        slot: Slot(source.cursor.u16("slot")?),
        attempt: source.attempt()?,
        is_hard: source.cursor.bool("is_hard")?,
    })
}

fn ready<'a>(source: &mut Source<'a>) -> Read<Ready<'a>> {
    let host = if source.cursor.is_nil() { None } else { Some(source.peer_id("host")?) };
    let slot = Slot(source.cursor.u16("slot")?);
    let incarnation = Incarnation(source.cursor.u32("incarnation")?);
    let services = list(source, "services", SERVICES_MAX, 1, |source| {
        source.cursor.str(SERVICE_BYTES_MAX, "services")
    })?;
    let window_tasks = source.window_tasks("window_tasks")?;
    let window_bytes = source.cursor.uint("window_bytes")?;
    let held = list(source, "held", LIST_MAX, 25, |source| nested(source, "held", 7, held))?;
    let part_at = source.cursor.at();
    let part = source.cursor.u32("part")?;
    let parts = source.nonzero_u32("parts")?;
    if part >= parts {
        return Err(out_of_range("part", part_at, part.into(), u64::from(parts - 1)));
    }
    Ok(Ready { host, slot, incarnation, services, window_tasks, window_bytes, held, part, parts })
}

fn held(source: &mut Source<'_>) -> Read<Held> {
    Ok(Held {
        attempt: source.attempt()?,
        client_id: source.peer_id("held.client_id")?,
        request_id: RequestId(source.cursor.uint("held.request_id")?),
        submission: Submission(source.cursor.u32("held.submission")?),
        state: source.known("held.state", HeldState::from_wire)?,
    })
}

fn worker_progress<'a>(source: &mut Source<'a>) -> Read<WorkerProgress<'a>> {
    Ok(WorkerProgress {
        attempt: source.attempt()?,
        sequence: source.cursor.uint("sequence")?,
        kind: source.known("kind", ProgressKind::from_wire)?,
        content_type: source.content_type()?,
        payload: source.payload()?,
    })
}

fn client_progress<'a>(source: &mut Source<'a>) -> Read<ClientProgress<'a>> {
    Ok(ClientProgress {
        request_id: RequestId(source.cursor.uint("request_id")?),
        submission: Submission(source.cursor.u32("submission")?),
        dispatch: Dispatch(source.cursor.u32("dispatch")?),
        sequence: source.cursor.uint("sequence")?,
        kind: source.known("kind", ProgressKind::from_wire)?,
        content_type: source.content_type()?,
        payload: source.payload()?,
    })
}

fn host(source: &mut Source<'_>) -> Read<Host> {
    Ok(Host {
        cpus: list(source, "cpus", WORKERS_MAX, 1, |source| source.cursor.u16("cpus"))?,
        workers: list(source, "workers", WORKERS_MAX, 5, |source| {
            nested(source, "workers", 4, host_worker)
        })?,
    })
}

fn host_worker(source: &mut Source<'_>) -> Read<HostWorker> {
    Ok(HostWorker {
        slot: Slot(source.cursor.u16("workers.slot")?),
        incarnation: Incarnation(source.cursor.u32("workers.incarnation")?),
        cpu: if source.cursor.is_nil() { None } else { Some(source.cursor.u16("workers.cpu")?) },
        claimed: attempt_list(source, "workers.claimed")?,
    })
}

fn lost(source: &mut Source<'_>) -> Read<Lost> {
    Ok(Lost {
        slot: Slot(source.cursor.u16("slot")?),
        incarnation: Incarnation(source.cursor.u32("incarnation")?),
        cause: source.known("cause", LossKind::from_wire)?,
        detail: source.cursor.i32("detail")?,
        running: if source.cursor.is_nil() {
            None
        } else {
            Some(nested(source, "running", 3, Source::attempt)?)
        },
        started: attempt_list(source, "started")?,
    })
}

fn attempts(source: &mut Source<'_>) -> Read<Attempts> {
    Ok(Attempts {
        slot: Slot(source.cursor.u16("slot")?),
        attempts: attempt_list(source, "attempts")?,
    })
}
