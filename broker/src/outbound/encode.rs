//! Each effect, encoded where it is to be sent from.

use pinmesh_core::{Conn, Outbox, ResultBody, ResultHead, TaskHead};
use pinmesh_protocol::codec::{write_ack, write_from_broker, write_result, write_task};
use pinmesh_protocol::command::{FromBroker, Payload, ServiceRef, StageTimes, Task, TaskResult};
use pinmesh_protocol::id::ContentType;

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

impl Outbox<Body> for Outbound {
    #[inline]
    fn task(&mut self, to: Conn, head: &TaskHead, body: &Body) {
        self.counters.tasks += 1;
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
