//! One task: claimed, run, ended.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use pinmesh_histogram::Stage;
use pinmesh_protocol::command::{Done, Payload};
use pinmesh_protocol::id::ContentType;
use pinmesh_protocol::status::EndStatus;
use pinmesh_session::Time;

use super::RunLoop;
use super::link::Ticket;
use super::speaker::Speaker;
use crate::clock;
use crate::handler::{Context, Failure, Input, Output, Service};

impl RunLoop {
    /// Runs one handler. Returns when it ended, which is when the next one starts.
    pub(super) fn run_one(&mut self, index: usize, ticket: Ticket, started: Time) -> Time {
        let link = &mut self.wire.links[index];
        let Some(&task) = link.session.task(ticket.index) else { return started };
        let slot = link.io.slot(ticket.index);
        if let Some(page) = &self.page
            && !page.claim(slot, started, task.max_runtime_ns)
        {
            link.session.recalled(ticket.index, &mut link.io);
            return started;
        }
        let slot_shown = self.page.as_deref().map(|page| (page, slot));
        let limit = link.session.payload_bytes_max();
        let stored = link.io.take_input(ticket.index);
        let speaker = Mutex::new(Speaker {
            wire: &mut self.wire,
            link: index,
            attempt: task.attempt,
            slot,
            sequence: 0,
            payload_bytes_max: limit,
        });
        let context = Context {
            task: &task,
            started,
            slot: slot_shown,
            payload_bytes_max: limit,
            voice: &speaker,
        };
        let service = &mut self.services[task.service as usize];
        let status = call(service, &context, stored.input(), &mut self.output, limit);
        let ended = clock::now();
        let link = &mut self.wire.links[index];
        link.io.put_input_back(ticket.index, stored);
        if let Some(page) = &self.page {
            page.end(slot);
        }
        let done = Done {
            attempt: task.attempt,
            status,
            residence_ns: ended.since(task.received),
            service_ns: ended.since(started),
            content_type: self.output.content_type,
            payload: Payload::Inline(&[]),
        };
        let (end, bytes) = link.io.encode_end(ticket.index, done, &mut self.output);
        link.session.end(ended, ticket.index, end, bytes, &mut link.io);
        match status {
            EndStatus::Failed | EndStatus::FailedFinal => self.counts.tasks_failed += 1,
            EndStatus::Ok | EndStatus::Cancelled => self.counts.tasks_ok += 1,
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.record(Stage::WorkerWait, started.since(task.received));
            recorder.record(Stage::Service, ended.since(started));
        }
        ended
    }
}

/// Calls the handler. Whatever it does, short of ending the process, `output` then has what is to
/// be told about the task.
fn call(
    service: &mut Service,
    context: &Context<'_>,
    input: Input<'_>,
    output: &mut Output,
    limit: u64,
) -> EndStatus {
    output.clear();
    let handler = &mut service.handler;
    let result = catch_unwind(AssertUnwindSafe(|| handler(context, input, output))).unwrap_or_else(
        |panic| Err(format!("the handler panicked: {}", panic_text(&*panic)).into()),
    );
    let failure = match result {
        Ok(()) if output.bytes.len() as u64 <= limit => return EndStatus::Ok,
        Ok(()) => Failure::last(format!(
            "the result has {} bytes, the broker takes {limit}; return less, or raise the \
             broker's payload limit",
            output.bytes.len()
        )),
        Err(failure) => failure,
    };
    let was_cancelled = context.is_cancelled();
    fail(output, failure.text, limit);
    match was_cancelled {
        true => EndStatus::Cancelled,
        false if failure.is_last => EndStatus::FailedFinal,
        false => EndStatus::Failed,
    }
}

/// Puts an error's text in the place of the result.
fn fail(output: &mut Output, mut text: String, limit: u64) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if text.len() > limit {
        let end = (0..=limit).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or(0));
    }
    output.content_type = ContentType::TEXT;
    output.bytes = text.into_bytes();
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}
