//! The commands that are not hot, read: handshakes, lists, progress.

use alloc::vec::Vec;

use super::fields::{
    Read, alias, attempt, content_type, end, known, nonzero_u32, peer_id, skip_fields, surplus,
    window_tasks,
};
use super::frames::Frames;
use super::read::not_here;
use crate::command::{
    Accepted, Attempts, CancelAttempt, CancelRequest, ClientProgress, Fetch, Fetched, FromBroker,
    Heartbeat, Held, Hello, Host, HostWorker, Lost, Ready, Refused, ServiceAlias, ToBroker,
    Welcome, Window, WorkerProgress, op,
};
use crate::cursor::{Cursor, out_of_range, too_large};
use crate::id::{AttemptId, Dispatch, Epoch, Incarnation, RequestId, Slot, Submission, TaskId};
use crate::limits::{
    KEY_BYTES_MAX, LABEL_BYTES_MAX, LABELS_MAX, LIST_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX,
    SERVICE_BYTES_MAX, SERVICES_MAX, WORKERS_MAX,
};
use crate::status::{FetchState, HeldState, LossKind, ProgressKind, RefusedCode, Role};

#[cold]
#[inline(never)]
pub(super) fn to_broker<'a>(
    mut cursor: Cursor<'a>,
    frames: &mut Frames<'a>,
    start: usize,
    op: u8,
    fields: usize,
) -> Read<(ToBroker<'a>, Cursor<'a>)> {
    let (name, needed) = match op {
        op::HELLO => ("HELLO", 7),
        op::REFUSED => ("REFUSED", 2),
        op::HEARTBEAT => ("HEARTBEAT", 2),
        op::GOODBYE => ("GOODBYE", 0),
        op::WINDOW => ("WINDOW", 2),
        op::SERVICE => ("SERVICE", 2),
        op::CANCEL => ("CANCEL", 3),
        op::FETCH => ("FETCH", 4),
        op::READY => ("READY", 10),
        op::RETURN => ("RETURN", 3),
        op::PROGRESS => ("PROGRESS", 7),
        op::HOST => ("HOST", 2),
        op::LOST => ("LOST", 6),
        op::RECALLED => ("RECALLED", 2),
        _ => return Err(not_here(start, op)),
    };
    let extra = surplus(name, start, fields, needed)?;
    let c = &mut cursor;
    let command = match op {
        op::HELLO => ToBroker::Hello(hello(c)?),
        op::REFUSED => ToBroker::Refused(refused(c)?),
        op::HEARTBEAT => ToBroker::Heartbeat(heartbeat(c)?),
        op::GOODBYE => ToBroker::Goodbye,
        op::WINDOW => ToBroker::Window(window(c)?),
        op::SERVICE => ToBroker::Service(service_alias(c)?),
        op::CANCEL => ToBroker::Cancel(cancel_request(c)?),
        op::FETCH => ToBroker::Fetch(fetch(c)?),
        op::READY => ToBroker::Ready(ready(c)?),
        op::RETURN => ToBroker::Return(attempt(c)?),
        op::PROGRESS => ToBroker::Progress(worker_progress(c, frames)?),
        op::HOST => ToBroker::Host(host(c)?),
        op::LOST => ToBroker::Lost(lost(c)?),
        op::RECALLED => ToBroker::Recalled(attempts(c)?),
        _ => return Err(not_here(start, op)),
    };
    let payload = match &command {
        ToBroker::Progress(progress) => Some(&progress.payload),
        _ => None,
    };
    end(c, start, extra, payload)?;
    Ok((command, cursor))
}

#[cold]
#[inline(never)]
pub(super) fn from_broker<'a>(
    mut cursor: Cursor<'a>,
    frames: &mut Frames<'a>,
    start: usize,
    op: u8,
    fields: usize,
) -> Read<(FromBroker<'a>, Cursor<'a>)> {
    let (name, needed) = match op {
        op::WELCOME => ("WELCOME", 11),
        op::REFUSED => ("REFUSED", 2),
        op::NO_SESSION => ("NO_SESSION", 0),
        op::HEARTBEAT => ("HEARTBEAT", 2),
        op::GOODBYE => ("GOODBYE", 0),
        op::WINDOW => ("WINDOW", 2),
        op::SERVICE => ("SERVICE", 2),
        op::ACCEPTED => ("ACCEPTED", 2),
        op::FETCHED => ("FETCHED", 3),
        op::PROGRESS => ("PROGRESS", 8),
        op::DRAIN => ("DRAIN", 0),
        op::RECALL => ("RECALL", 2),
        op::CANCEL => ("CANCEL", 5),
        _ => return Err(not_here(start, op)),
    };
    let extra = surplus(name, start, fields, needed)?;
    let c = &mut cursor;
    let command = match op {
        op::WELCOME => FromBroker::Welcome(welcome(c)?),
        op::REFUSED => FromBroker::Refused(refused(c)?),
        op::NO_SESSION => FromBroker::NoSession,
        op::HEARTBEAT => FromBroker::Heartbeat(heartbeat(c)?),
        op::GOODBYE => FromBroker::Goodbye,
        op::WINDOW => FromBroker::Window(window(c)?),
        op::SERVICE => FromBroker::Service(service_alias(c)?),
        op::ACCEPTED => FromBroker::Accepted(Accepted {
            request_id: RequestId(c.uint("request_id")?),
            task: TaskId(c.uint("task")?),
        }),
        op::FETCHED => FromBroker::Fetched(Fetched {
            request_id: RequestId(c.uint("request_id")?),
            submission: Submission(c.u32("submission")?),
            state: known(c, "state", FetchState::from_wire)?,
        }),
        op::PROGRESS => FromBroker::Progress(client_progress(c, frames)?),
        op::DRAIN => FromBroker::Drain,
        op::RECALL => FromBroker::Recall(attempts(c)?),
        op::CANCEL => FromBroker::Cancel(cancel_attempt(c)?),
        _ => return Err(not_here(start, op)),
    };
    let payload = match &command {
        FromBroker::Progress(progress) => Some(&progress.payload),
        _ => None,
    };
    end(c, start, extra, payload)?;
    Ok((command, cursor))
}

/// A list of at most `max` elements, each `bytes_min` long or longer.
fn list<'a, T>(
    c: &mut Cursor<'a>,
    field: &'static str,
    max: usize,
    bytes_min: usize,
    mut element: impl FnMut(&mut Cursor<'a>) -> Read<T>,
) -> Read<Vec<T>> {
    let at = c.at();
    let len = c.array(field)?;
    if len > max {
        return Err(too_large(field, at, len as u64, max as u64));
    }
    // Room for what the bytes can hold, not for what they say.
    let room = len.min(c.rest().len() / bytes_min);
    let mut elements = Vec::with_capacity(room);
    for _ in 0..len {
        elements.push(element(c)?);
    }
    Ok(elements)
}

/// An array inside a command: at least `needed` fields, later ones stepped over.
fn nested<'a, T>(
    c: &mut Cursor<'a>,
    field: &'static str,
    needed: usize,
    read: impl FnOnce(&mut Cursor<'a>) -> Read<T>,
) -> Read<T> {
    let extra = surplus(field, c.at(), c.array(field)?, needed)?;
    let value = read(c)?;
    skip_fields(c, extra, field)?;
    Ok(value)
}

fn attempt_list(c: &mut Cursor<'_>, field: &'static str) -> Read<Vec<AttemptId>> {
    list(c, field, LIST_MAX, 4, |c| nested(c, field, 3, attempt))
}

fn hello<'a>(c: &mut Cursor<'a>) -> Read<Hello<'a>> {
    Ok(Hello {
        version_min: c.u32("version_min")?,
        version_max: c.u32("version_max")?,
        role: known(c, "role", Role::from_wire)?,
        peer_id: peer_id(c, "peer_id")?,
        name: c.str(NAME_BYTES_MAX, "name")?,
        nonce: c.uint("nonce")?,
        features: c.uint("features")?,
    })
}

fn welcome(c: &mut Cursor<'_>) -> Read<Welcome> {
    Ok(Welcome {
        version: c.u32("version")?,
        nonce: c.uint("nonce")?,
        epoch: Epoch(c.u32("epoch")?),
        heartbeat_ns: c.uint("heartbeat_ns")?,
        lease_ns: c.uint("lease_ns")?,
        liveness: c.u32("liveness")?,
        window_tasks: window_tasks(c, "window_tasks")?,
        window_bytes: c.uint("window_bytes")?,
        payload_bytes_max: c.uint("payload_bytes_max")?,
        header_bytes_max: c.u32("header_bytes_max")?,
        kept_ns: c.uint("kept_ns")?,
    })
}

fn refused<'a>(c: &mut Cursor<'a>) -> Read<Refused<'a>> {
    Ok(Refused {
        code: known(c, "code", RefusedCode::from_wire)?,
        reason: c.str(REASON_BYTES_MAX, "reason")?,
    })
}

fn heartbeat(c: &mut Cursor<'_>) -> Read<Heartbeat> {
    Ok(Heartbeat { sequence: c.uint("sequence")?, silence_ns: c.uint_or_nil("silence_ns")? })
}

fn window(c: &mut Cursor<'_>) -> Read<Window> {
    Ok(Window { tasks: window_tasks(c, "tasks")?, bytes: c.uint("bytes")? })
}

fn service_alias<'a>(c: &mut Cursor<'a>) -> Read<ServiceAlias<'a>> {
    Ok(ServiceAlias { alias: alias(c, "alias")?, name: c.str(SERVICE_BYTES_MAX, "name")? })
}

fn cancel_request(c: &mut Cursor<'_>) -> Read<CancelRequest> {
    Ok(CancelRequest {
        request_id: RequestId(c.uint("request_id")?),
        submission: Submission(c.u32("submission")?),
        is_hard: c.bool("is_hard")?,
    })
}

fn cancel_attempt(c: &mut Cursor<'_>) -> Read<CancelAttempt> {
    Ok(CancelAttempt {
        slot: Slot(c.u16("slot")?),
        attempt: attempt(c)?,
        is_hard: c.bool("is_hard")?,
    })
}

fn ready<'a>(c: &mut Cursor<'a>) -> Read<Ready<'a>> {
    let host = if c.is_nil() { None } else { Some(peer_id(c, "host")?) };
    let slot = Slot(c.u16("slot")?);
    let incarnation = Incarnation(c.u32("incarnation")?);
    let services = list(c, "services", SERVICES_MAX, 1, |c| c.str(SERVICE_BYTES_MAX, "services"))?;
    let labels = list(c, "labels", LABELS_MAX, 1, |c| c.str(LABEL_BYTES_MAX, "labels"))?;
    let window_tasks = window_tasks(c, "window_tasks")?;
    let window_bytes = c.uint("window_bytes")?;
    let held = list(c, "held", LIST_MAX, 25, |c| nested(c, "held", 7, held))?;
    let part_at = c.at();
    let part = c.u32("part")?;
    let parts = nonzero_u32(c, "parts")?;
    if part >= parts {
        return Err(out_of_range("part", part_at, part.into(), u64::from(parts - 1)));
    }
    Ok(Ready {
        host,
        slot,
        incarnation,
        services,
        labels,
        window_tasks,
        window_bytes,
        held,
        part,
        parts,
    })
}

fn held(c: &mut Cursor<'_>) -> Read<Held> {
    Ok(Held {
        attempt: attempt(c)?,
        client_id: peer_id(c, "held.client_id")?,
        request_id: RequestId(c.uint("held.request_id")?),
        submission: Submission(c.u32("held.submission")?),
        state: known(c, "held.state", HeldState::from_wire)?,
    })
}

fn fetch<'a>(c: &mut Cursor<'a>) -> Read<Fetch<'a>> {
    Ok(Fetch {
        request_id: RequestId(c.uint("request_id")?),
        submission: Submission(c.u32("submission")?),
        key: c.bin(KEY_BYTES_MAX, "key")?,
        waits: c.bool("waits")?,
    })
}

fn worker_progress<'a>(c: &mut Cursor<'a>, frames: &mut Frames<'a>) -> Read<WorkerProgress<'a>> {
    Ok(WorkerProgress {
        attempt: attempt(c)?,
        sequence: c.uint("sequence")?,
        kind: known(c, "kind", ProgressKind::from_wire)?,
        content_type: content_type(c)?,
        payload: frames.payload(c)?,
    })
}

fn client_progress<'a>(c: &mut Cursor<'a>, frames: &mut Frames<'a>) -> Read<ClientProgress<'a>> {
    Ok(ClientProgress {
        request_id: RequestId(c.uint("request_id")?),
        submission: Submission(c.u32("submission")?),
        task: TaskId(c.uint("task")?),
        dispatch: Dispatch(c.u32("dispatch")?),
        sequence: c.uint("sequence")?,
        kind: known(c, "kind", ProgressKind::from_wire)?,
        content_type: content_type(c)?,
        payload: frames.payload(c)?,
    })
}

fn host(c: &mut Cursor<'_>) -> Read<Host> {
    Ok(Host {
        cpus: list(c, "cpus", WORKERS_MAX, 1, |c| c.u16("cpus"))?,
        workers: list(c, "workers", WORKERS_MAX, 5, |c| nested(c, "workers", 4, host_worker))?,
    })
}

fn host_worker(c: &mut Cursor<'_>) -> Read<HostWorker> {
    Ok(HostWorker {
        slot: Slot(c.u16("workers.slot")?),
        incarnation: Incarnation(c.u32("workers.incarnation")?),
        cpu: if c.is_nil() { None } else { Some(c.u16("workers.cpu")?) },
        claimed: attempt_list(c, "workers.claimed")?,
    })
}

fn lost(c: &mut Cursor<'_>) -> Read<Lost> {
    Ok(Lost {
        slot: Slot(c.u16("slot")?),
        incarnation: Incarnation(c.u32("incarnation")?),
        cause: known(c, "cause", LossKind::from_wire)?,
        detail: c.i32("detail")?,
        running: if c.is_nil() { None } else { Some(nested(c, "running", 3, attempt)?) },
        started: attempt_list(c, "started")?,
    })
}

fn attempts(c: &mut Cursor<'_>) -> Read<Attempts> {
    Ok(Attempts { slot: Slot(c.u16("slot")?), attempts: attempt_list(c, "attempts")? })
}
