//! From the frames of a message to events of the machine.

use std::fmt::Write as _;

use pinmesh_core::{Conn, DoneEvent, Event, ProgressEvent, Side, SubmitEvent};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::command::{Done, Hello, Payload, Refused, Submit, ToBroker, WorkerProgress};
use pinmesh_protocol::id::ContentType;
use pinmesh_protocol::limits;
use pinmesh_protocol::status::RefusedCode;
use pinmesh_transport::{Frame, Message, MessageFault};

use crate::body::{Body, take_frames};
use crate::bucket::Bucket;
use crate::outbound::Outbound;

/// What a task with options that cannot be read is told.
const BAD_OPTIONS: &str = "options: not a map of the options that this broker knows; \
                           a misspelt or newer option is refused, never ignored";

/// Peers that refuse the broker are told to the log so often a second: writing it may block.
const REFUSALS_LOGGED_PER_S: u32 = 10;

/// See the module.
pub(crate) struct Inbound {
    /// Lengths of a message's frames after the first; kept for its room.
    attachment_bytes: Vec<usize>,
    refusals: Bucket,
}

impl Default for Inbound {
    fn default() -> Self {
        Self { attachment_bytes: Vec::new(), refusals: Bucket::new(REFUSALS_LOGGED_PER_S) }
    }
}

impl Inbound {
    /// Hands every command of a message to the machine, which is `handle`.
    ///
    /// Stops at the first command that is wrong, and as soon as the peer has no session: whatever
    /// follows would only be answered NO_SESSION again.
    pub(crate) fn message(
        &mut self,
        side: Side,
        message: &mut Message,
        outbound: &mut Outbound,
        handle: &mut impl FnMut(Event<'_, Body>, &mut Outbound),
    ) {
        let bytes: usize = message.frames.iter().map(|frame| frame.len()).sum();
        outbound.counters.inbound.messages += 1;
        outbound.counters.inbound.bytes += bytes as u64;
        if message.fault == Some(MessageFault::ForeignRoutingId) {
            outbound.counters.foreign += 1;
            return;
        }
        let Some(conn) = outbound.connections.find_or_insert(side, message.from) else {
            outbound.counters.strangers_suppressed += 1;
            return;
        };
        match message.fault {
            Some(fault) => {
                refuse(conn, RefusedCode::TooLarge, &fault.to_string(), outbound, handle);
            }
            None => self.commands(conn, side, &mut message.frames, outbound, handle),
        }
        if has_session(outbound, conn) {
            handle(Event::BatchEnd(conn), outbound);
        } else {
            outbound.forget_when_flushed(conn);
        }
    }

    fn commands(
        &mut self,
        conn: Conn,
        side: Side,
        frames: &mut [Frame],
        outbound: &mut Outbound,
        handle: &mut impl FnMut(Event<'_, Body>, &mut Outbound),
    ) {
        let Some((first, attachments)) = frames.split_first_mut() else { return };
        self.attachment_bytes.clear();
        self.attachment_bytes.extend(attachments.iter().map(|frame| frame.len()));
        let mut reader = BatchReader::new(first, &self.attachment_bytes);
        let mut commands = 0;
        let error = loop {
            match reader.next_to_broker() {
                Some(Ok(command)) => {
                    commands += 1;
                    if let ToBroker::Hello(hello) = &command {
                        log_hello(conn, hello, first.user_id());
                    }
                    if let ToBroker::Refused(refused) = &command
                        && self.refusals.take(outbound.now)
                    {
                        log_refusal(conn, refused);
                    }
                    handle(event((conn, side), command, first, attachments), outbound);
                    if !has_session(outbound, conn) {
                        break None;
                    }
                }
                Some(Err(error)) => break Some(error),
                None => {
                    outbound.counters.ignored += u64::from(reader.ignored());
                    outbound.counters.discarded_bytes += reader.discarded() as u64;
                    break reader.finish().err();
                }
            }
        };
        outbound.counters.inbound.commands += commands;
        if let Some(error) = error {
            refuse(conn, error.code(), &error, outbound, handle);
        }
    }
}

#[cold]
fn log_hello(conn: Conn, hello: &Hello<'_>, authorized_as: Option<&str>) {
    tracing::debug!(conn = conn.0, role = ?hello.role, name = hello.name, authorized_as, "HELLO");
}

#[cold]
fn log_refusal(conn: Conn, refused: &Refused<'_>) {
    tracing::warn!(
        conn = conn.0,
        code = %refused.code,
        reason = refused.reason,
        "a peer refused the broker and leaves"
    );
}

#[inline]
fn has_session(outbound: &Outbound, conn: Conn) -> bool {
    outbound.connections.get(conn).is_some_and(|connection| connection.has_session)
}

#[cold]
fn refuse(
    conn: Conn,
    code: RefusedCode,
    reason: &dyn std::fmt::Display,
    outbound: &mut Outbound,
    handle: &mut impl FnMut(Event<'_, Body>, &mut Outbound),
) {
    let mut text = String::new();
    let _ = write!(text, "{reason}");
    while text.len() > limits::REASON_BYTES_MAX {
        text.pop();
    }
    tracing::debug!(conn = conn.0, %code, reason = text, "malformed");
    outbound.counters.on_malformed(code);
    handle(Event::Malformed(conn, code, &text), outbound);
}

/// The event that a command is.
#[inline]
fn event<'a>(
    (conn, side): (Conn, Side),
    command: ToBroker<'a>,
    first: &'a Frame,
    attachments: &mut [Frame],
) -> Event<'a, Body> {
    match command {
        ToBroker::Done(done) => done_event(conn, &done, attachments),
        ToBroker::Submit(submit) => submit_event(conn, &submit, attachments),
        ToBroker::Ack(taken) => Event::Ack(conn, taken),
        ToBroker::Heartbeat(heartbeat) => Event::Heartbeat(conn, heartbeat),
        ToBroker::Hello(hello) => Event::Hello(conn, side, hello, first.user_id()),
        ToBroker::Goodbye | ToBroker::Refused(_) => Event::Goodbye(conn),
        ToBroker::Window(window) => Event::Window(conn, window),
        ToBroker::Service(alias) => Event::Service(conn, alias),
        ToBroker::Cancel(request) => Event::Cancel(conn, request),
        ToBroker::Fetch(fetch) => Event::Fetch(conn, fetch),
        ToBroker::Ready(ready) => Event::Ready(conn, ready),
        ToBroker::Return(attempt) => Event::Return(conn, attempt),
        ToBroker::Progress(progress) => progress_event(conn, &progress, attachments),
        ToBroker::Host(host) => Event::Host(conn, host),
        ToBroker::Lost(lost) => Event::Lost(conn, lost),
        ToBroker::Recalled(attempts) => Event::Recalled(conn, attempts),
    }
}

#[inline]
fn submit_event<'a>(conn: Conn, submit: &Submit<'a>, attachments: &mut [Frame]) -> Event<'a, Body> {
    let options = match submit.options {
        None => Ok(TaskOptions::default()),
        Some(options) => TaskOptions::decode(options).map_err(|_| BAD_OPTIONS),
    };
    Event::Submit(
        conn,
        SubmitEvent {
            request_id: submit.request_id,
            submission: submit.submission,
            service: submit.service,
            priority: submit.priority,
            deadline_ns: submit.deadline_ns,
            options,
            body: body(submit.content_type, submit.options, submit.payload, attachments),
        },
    )
}

#[inline]
fn done_event<'a>(conn: Conn, done: &Done<'a>, attachments: &mut [Frame]) -> Event<'a, Body> {
    Event::Done(
        conn,
        DoneEvent {
            attempt: done.attempt,
            status: done.status,
            residence_ns: done.residence_ns,
            service_ns: done.service_ns,
            body: body(done.content_type, None, done.payload, attachments),
        },
    )
}

fn progress_event<'a>(
    conn: Conn,
    progress: &WorkerProgress<'a>,
    attachments: &mut [Frame],
) -> Event<'a, Body> {
    Event::Progress(
        conn,
        ProgressEvent {
            attempt: progress.attempt,
            sequence: progress.sequence,
            kind: progress.kind,
            body: body(progress.content_type, None, progress.payload, attachments),
        },
    )
}

#[inline]
fn body(
    content_type: ContentType,
    options: Option<&[u8]>,
    payload: Payload<'_>,
    attachments: &mut [Frame],
) -> Body {
    match payload {
        Payload::Inline(bytes) => Body::inline(content_type, options, bytes),
        Payload::Frames(span) => {
            Body::framed(content_type, options, take_frames(attachments, span))
        }
    }
}
