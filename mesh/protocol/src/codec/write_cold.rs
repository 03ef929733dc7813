//! The commands that are not hot, written: handshakes, lists, progress.

use alloc::vec::Vec;

use super::write::{
    put_bin, put_payload, put_peer_id, put_str, put_uint, write_ack, write_done, write_result,
    write_submit, write_task,
};
use crate::command::{
    Attempts, ClientProgress, FromBroker, Heartbeat, Hello, Host, Lost, Ready, Refused,
    ServiceAlias, ToBroker, Welcome, Window, WorkerProgress, op,
};
use crate::cursor::marker;
use crate::id::AttemptId;
use crate::limits::REASON_BYTES_MAX;

/// Appends a command to a broker. Lists and texts are taken to be within [`crate::limits`]; a
/// receiver refuses them otherwise. Only the reason of a REFUSED is cut to its limit.
pub fn write_to_broker(out: &mut Vec<u8>, command: &ToBroker<'_>) {
    match command {
        ToBroker::Hello(hello) => write_hello(out, hello),
        ToBroker::Refused(refused) => write_refused(out, refused),
        ToBroker::Heartbeat(heartbeat) => write_heartbeat(out, heartbeat),
        ToBroker::Goodbye => begin(out, 0, op::GOODBYE),
        ToBroker::Ack(n) => write_ack(out, *n),
        ToBroker::Window(window) => write_window(out, window),
        ToBroker::Service(alias) => write_service_alias(out, alias),
        ToBroker::Submit(submit) => write_submit(out, submit),
        ToBroker::Cancel(cancel) => {
            begin(out, 3, op::CANCEL);
            put_uint(out, cancel.request_id.0);
            put_uint(out, cancel.submission.0.into());
            put_bool(out, cancel.is_hard);
        }
        ToBroker::Fetch(fetch) => {
            begin(out, 4, op::FETCH);
            put_uint(out, fetch.request_id.0);
            put_uint(out, fetch.submission.0.into());
            put_bin(out, fetch.key);
            put_bool(out, fetch.waits);
        }
        ToBroker::Ready(ready) => write_ready(out, ready),
        ToBroker::Done(done) => write_done(out, done),
        ToBroker::Return(attempt) => {
            begin(out, 3, op::RETURN);
            put_attempt(out, attempt);
        }
        ToBroker::Progress(progress) => write_worker_progress(out, progress),
        ToBroker::Host(host) => write_host(out, host),
        ToBroker::Lost(lost) => write_lost(out, lost),
        ToBroker::Recalled(attempts) => write_attempts(out, op::RECALLED, attempts),
    }
}

/// Appends a command from a broker; see [`write_to_broker`].
pub fn write_from_broker(out: &mut Vec<u8>, command: &FromBroker<'_>) {
    match command {
        FromBroker::Welcome(welcome) => write_welcome(out, welcome),
        FromBroker::Refused(refused) => write_refused(out, refused),
        FromBroker::NoSession => begin(out, 0, op::NO_SESSION),
        FromBroker::Heartbeat(heartbeat) => write_heartbeat(out, heartbeat),
        FromBroker::Goodbye => begin(out, 0, op::GOODBYE),
        FromBroker::Ack(n) => write_ack(out, *n),
        FromBroker::Window(window) => write_window(out, window),
        FromBroker::Service(alias) => write_service_alias(out, alias),
        FromBroker::Result(result) => write_result(out, result),
        FromBroker::Accepted(accepted) => {
            begin(out, 2, op::ACCEPTED);
            put_uint(out, accepted.request_id.0);
            put_uint(out, accepted.task.0);
        }
        FromBroker::Fetched(fetched) => {
            begin(out, 3, op::FETCHED);
            put_uint(out, fetched.request_id.0);
            put_uint(out, fetched.submission.0.into());
            out.push(fetched.state.to_wire());
        }
        FromBroker::Progress(progress) => write_client_progress(out, progress),
        FromBroker::Task(task) => write_task(out, task),
        FromBroker::Drain => begin(out, 0, op::DRAIN),
        FromBroker::Recall(attempts) => write_attempts(out, op::RECALL, attempts),
        FromBroker::Cancel(cancel) => {
            begin(out, 5, op::CANCEL);
            put_uint(out, cancel.slot.0.into());
            put_attempt(out, &cancel.attempt);
            put_bool(out, cancel.is_hard);
        }
    }
}

/// The array and the op; `fields` are those after the op, at most 14.
fn begin(out: &mut Vec<u8>, fields: u8, op: u8) {
    out.extend_from_slice(&[marker::FIXARRAY | (fields + 1), op]);
}

fn put_array(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=0x0f => out.push(marker::FIXARRAY | len as u8),
        0x10..=0xffff => {
            out.push(marker::ARRAY16);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(marker::ARRAY32);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

fn put_or_nil<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => put(out, value),
        None => out.push(marker::NIL),
    }
}

/// An integer of the least width, negative ones included.
fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { marker::TRUE } else { marker::FALSE });
}

fn put_int(out: &mut Vec<u8>, value: i32) {
    match value {
        0.. => put_uint(out, u64::from(value.cast_unsigned())),
        -32..=-1 => out.push((value as i8).cast_unsigned()),
        -0x80..=-33 => out.extend_from_slice(&[marker::INT8, (value as i8).cast_unsigned()]),
        -0x8000..=-0x81 => {
            out.push(marker::INT8 + 1);
            out.extend_from_slice(&(value as i16).to_be_bytes());
        }
        _ => {
            out.push(marker::INT8 + 2);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// The three fields of an attempt, in the command itself.
fn put_attempt(out: &mut Vec<u8>, attempt: &AttemptId) {
    put_uint(out, attempt.epoch.0.into());
    put_uint(out, attempt.task.0);
    put_uint(out, attempt.dispatch.0.into());
}

fn put_attempt_array(out: &mut Vec<u8>, attempt: &AttemptId) {
    put_array(out, 3);
    put_attempt(out, attempt);
}

fn put_attempt_list(out: &mut Vec<u8>, attempts: &[AttemptId]) {
    put_array(out, attempts.len());
    attempts.iter().for_each(|attempt| put_attempt_array(out, attempt));
}

fn write_hello(out: &mut Vec<u8>, c: &Hello<'_>) {
    begin(out, 7, op::HELLO);
    put_uint(out, c.version_min.into());
    put_uint(out, c.version_max.into());
    out.push(c.role.to_wire());
    put_peer_id(out, &c.peer_id);
    put_str(out, c.name);
    put_uint(out, c.nonce);
    put_uint(out, c.features);
}

fn write_welcome(out: &mut Vec<u8>, c: &Welcome) {
    begin(out, 11, op::WELCOME);
    put_uint(out, c.version.into());
    put_uint(out, c.nonce);
    put_uint(out, c.epoch.0.into());
    put_uint(out, c.heartbeat_ns);
    put_uint(out, c.lease_ns);
    put_uint(out, c.liveness.into());
    put_uint(out, c.window_tasks.into());
    put_uint(out, c.window_bytes);
    put_uint(out, c.payload_bytes_max);
    put_uint(out, c.header_bytes_max.into());
    put_uint(out, c.kept_ns);
}

fn write_refused(out: &mut Vec<u8>, c: &Refused<'_>) {
    begin(out, 2, op::REFUSED);
    out.push(c.code.to_wire());
    let mut end = c.reason.len().min(REASON_BYTES_MAX);
    while !c.reason.is_char_boundary(end) {
        end -= 1;
    }
    put_str(out, &c.reason[..end]);
}

fn write_heartbeat(out: &mut Vec<u8>, c: &Heartbeat) {
    begin(out, 2, op::HEARTBEAT);
    put_uint(out, c.sequence);
    put_or_nil(out, c.silence_ns, put_uint);
}

fn write_window(out: &mut Vec<u8>, c: &Window) {
    begin(out, 2, op::WINDOW);
    put_uint(out, c.tasks.into());
    put_uint(out, c.bytes);
}

fn write_service_alias(out: &mut Vec<u8>, c: &ServiceAlias<'_>) {
    begin(out, 2, op::SERVICE);
    put_uint(out, c.alias.into());
    put_str(out, c.name);
}

fn write_ready(out: &mut Vec<u8>, c: &Ready<'_>) {
    begin(out, 10, op::READY);
    put_or_nil(out, c.host.as_ref(), put_peer_id);
    put_uint(out, c.slot.0.into());
    put_uint(out, c.incarnation.0.into());
    put_array(out, c.services.len());
    c.services.iter().for_each(|name| put_str(out, name));
    put_array(out, c.labels.len());
    c.labels.iter().for_each(|label| put_str(out, label));
    put_uint(out, c.window_tasks.into());
    put_uint(out, c.window_bytes);
    put_array(out, c.held.len());
    for held in &c.held {
        put_array(out, 7);
        put_attempt(out, &held.attempt);
        put_peer_id(out, &held.client_id);
        put_uint(out, held.request_id.0);
        put_uint(out, held.submission.0.into());
        out.push(held.state.to_wire());
    }
    put_uint(out, c.part.into());
    put_uint(out, c.parts.into());
}

fn write_worker_progress(out: &mut Vec<u8>, c: &WorkerProgress<'_>) {
    begin(out, 7, op::PROGRESS);
    put_attempt(out, &c.attempt);
    put_uint(out, c.sequence);
    out.push(c.kind.to_wire());
    put_uint(out, c.content_type.0.into());
    put_payload(out, &c.payload);
}

fn write_client_progress(out: &mut Vec<u8>, c: &ClientProgress<'_>) {
    begin(out, 8, op::PROGRESS);
    put_uint(out, c.request_id.0);
    put_uint(out, c.submission.0.into());
    put_uint(out, c.task.0);
    put_uint(out, c.dispatch.0.into());
    put_uint(out, c.sequence);
    out.push(c.kind.to_wire());
    put_uint(out, c.content_type.0.into());
    put_payload(out, &c.payload);
}

fn write_host(out: &mut Vec<u8>, c: &Host) {
    begin(out, 2, op::HOST);
    put_array(out, c.cpus.len());
    c.cpus.iter().for_each(|cpu| put_uint(out, (*cpu).into()));
    put_array(out, c.workers.len());
    for worker in &c.workers {
        put_array(out, 4);
        put_uint(out, worker.slot.0.into());
        put_uint(out, worker.incarnation.0.into());
        put_or_nil(out, worker.cpu.map(u64::from), put_uint);
        put_attempt_list(out, &worker.claimed);
    }
}

fn write_lost(out: &mut Vec<u8>, c: &Lost) {
    begin(out, 6, op::LOST);
    put_uint(out, c.slot.0.into());
    put_uint(out, c.incarnation.0.into());
    out.push(c.cause.to_wire());
    put_int(out, c.detail);
    put_or_nil(out, c.running.as_ref(), put_attempt_array);
    put_attempt_list(out, &c.started);
}

fn write_attempts(out: &mut Vec<u8>, op: u8, c: &Attempts) {
    begin(out, 2, op);
    put_uint(out, c.slot.0.into());
    put_attempt_list(out, &c.attempts);
}
