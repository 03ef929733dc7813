//! Each effect, encoded where it is to be sent from.

use pinmesh_core::{Body as _, Conn, Outbox, ProgressHead, ResultBody, ResultHead, TaskHead};
use pinmesh_protocol::codec::{write_ack, write_from_broker, write_result, write_task};
use pinmesh_protocol::command::{
    ClientProgress, FromBroker, Heartbeat, Payload, ServiceRef, StageTimes, Task, TaskResult,
};
use pinmesh_protocol::id::ContentType;
use pinmesh_protocol::limits::{FRAME_BYTES_MAX, SILENCE_BYTES_PER_S};

use super::Outbound;
use crate::body::{Body, Stored};
use crate::connections::Batch;

/// The payload of a body in a batch, its frames attached.
#[inline]
fn payload<'a>(batch: &mut Batch, body: &'a Body) -> Payload<'a> {
    match body.stored() {
        Stored::Inline(bytes) => Payload::Inline(bytes),
        Stored::Frames(frames) => {
            let mut frames = frames.borrow_mut();
            let shares = frames.iter_mut().map(|frame| {
                let bytes = frame.len();
                (frame.share(), bytes)
            });
            Payload::Frames(batch.attach(shares))
        }
    }
}

impl Outbound {
    /// Before a long payload: says for how long there may be nothing else to hear. In a message of
    /// its own, because a message arrives as a whole. Number 0: no echo has it.
    #[inline]
    fn announce(&mut self, to: Conn, body: &Body) {
        if body.payload_bytes() > FRAME_BYTES_MAX as u64 {
            self.announce_silence(to, body.payload_bytes());
        }
    }

    #[cold]
    fn announce_silence(&mut self, to: Conn, bytes: u64) {
        let Some(connection) = self.room(to) else { return };
        let silence_ns = Some(bytes.saturating_mul(1_000_000_000) / SILENCE_BYTES_PER_S);
        let heartbeat = FromBroker::Heartbeat(Heartbeat { sequence: 0, silence_ns });
        write_from_broker(connection.batch.bytes_mut(), &heartbeat);
        connection.batch.count();
        self.send_batch(to);
    }
}

impl Outbox<Body> for Outbound {
    #[inline]
    fn task(&mut self, to: Conn, head: &TaskHead, body: &Body) {
        self.counters.tasks += 1;
        self.announce(to, body);
        let Some(connection) = self.room(to) else { return };
        connection.has_task = true;
        let batch = &mut connection.batch;
        let payload = payload(batch, body);
        let task = Task {
            task: head.task,
            dispatch: head.dispatch,
            client_id: head.client_id,
            request_id: head.request_id,
            submission: head.submission,
            service: ServiceRef::Alias(head.service_alias),
            tries: head.tries,
            deadline_ns: head.deadline_ns,
            max_runtime_ns: head.max_runtime_ns,
            content_type: body.content_type(),
            options: body.options(),
            payload,
        };
        write_task(batch.bytes_mut(), &task);
        batch.count();
    }

    #[inline]
    fn result(&mut self, to: Conn, head: &ResultHead, body: ResultBody<'_, Body>) {
        if let ResultBody::Handler(body) = body {
            self.announce(to, body);
        }
        let Some(connection) = self.room(to) else { return };
        let batch = &mut connection.batch;
        let (content_type, payload) = match body {
            ResultBody::Handler(body) => (body.content_type(), payload(batch, body)),
            ResultBody::Text(text) => (ContentType::TEXT, Payload::Inline(text.as_bytes())),
        };
        let result = TaskResult {
            request_id: head.request_id,
            submission: head.submission,
            status: head.status,
            tries: head.tries,
            stages: head.stages,
            content_type,
            payload,
            retry_after_ns: head.retry_after_ns,
        };
        write_result(batch.bytes_mut(), &result);
        batch.count();
    }

    fn progress(&mut self, to: Conn, head: &ProgressHead, body: &Body) {
        self.announce(to, body);
        let Some(connection) = self.room(to) else { return };
        let batch = &mut connection.batch;
        let payload = payload(batch, body);
        let progress = ClientProgress {
            request_id: head.request_id,
            submission: head.submission,
            task: head.task,
            dispatch: head.dispatch,
            sequence: head.sequence,
            kind: head.kind,
            content_type: body.content_type(),
            payload,
        };
        write_from_broker(batch.bytes_mut(), &FromBroker::Progress(progress));
        batch.count();
    }

    fn send(&mut self, to: Conn, command: FromBroker<'_>) {
        if !self.may_answer(to, &command) {
            return;
        }
        let Some(connection) = self.room(to) else { return };
        if matches!(command, FromBroker::Welcome(_)) {
            connection.has_session = true;
            connection.is_closing = false;
        }
        let bytes = connection.batch.bytes_mut();
        match command {
            FromBroker::Ack(taken) => write_ack(bytes, taken),
            _ => write_from_broker(bytes, &command),
        }
        connection.batch.count();
    }

    fn close(&mut self, conn: Conn) {
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.has_session = false;
        }
        self.forget_when_flushed(conn);
    }

    #[inline]
    fn stages(&mut self, stages: &StageTimes) {
        self.stages.record(stages);
    }
}
