//! The hot commands, read, and which op is which command.

use super::fields::{
    Read, attempt, begin, content_type, end, known, options, peer_id, priority, service,
    skip_fields, surplus,
};
use super::frames::Frames;
use super::read_cold as cold;
use crate::command::{Done, FromBroker, StageTimes, Submit, Task, TaskResult, ToBroker, op};
use crate::cursor::Cursor;
use crate::error::DecodeError;
use crate::id::{Dispatch, RequestId, Submission, TaskId};
use crate::status::{EndStatus, Status};

/// The next command of a message to a broker; `None`: one that may be ignored was stepped over.
/// After an error the cursor is where the command starts.
#[inline(always)]
pub(crate) fn to_broker<'a>(
    cursor: &mut Cursor<'a>,
    frames: &mut Frames<'a>,
) -> Read<Option<ToBroker<'a>>> {
    let mut local = cursor.local();
    let c = &mut local;
    let start = c.at();
    let (fields, op) = begin(c)?;
    let command = match op as u8 {
        _ if op >= u64::from(op::IGNORABLE) => {
            skip_fields(c, fields, "ignorable command")?;
            cursor.advance_to(&local);
            return Ok(None);
        }
        op::SUBMIT => {
            let extra = surplus("SUBMIT", start, fields, 8)?;
            let submit = submit(c, frames)?;
            end(c, start, extra, Some(&submit.payload))?;
            ToBroker::Submit(submit)
        }
        op::DONE => {
            let extra = surplus("DONE", start, fields, 8)?;
            let done = done(c, frames)?;
            end(c, start, extra, Some(&done.payload))?;
            ToBroker::Done(done)
        }
        op::ACK => {
            let extra = surplus("ACK", start, fields, 1)?;
            let n = c.uint("n")?;
            end(c, start, extra, None)?;
            ToBroker::Ack(n)
        }
        op => {
            let (command, next) = cold::to_broker(c.local(), frames, start, op, fields)?;
            c.advance_to(&next);
            command
        }
    };
    cursor.advance_to(&local);
    Ok(Some(command))
}

/// The next command of a message from a broker; else like [`to_broker`].
#[inline(always)]
pub(crate) fn from_broker<'a>(
    cursor: &mut Cursor<'a>,
    frames: &mut Frames<'a>,
) -> Read<Option<FromBroker<'a>>> {
    let mut local = cursor.local();
    let c = &mut local;
    let start = c.at();
    let (fields, op) = begin(c)?;
    let command = match op as u8 {
        _ if op >= u64::from(op::IGNORABLE) => {
            skip_fields(c, fields, "ignorable command")?;
            cursor.advance_to(&local);
            return Ok(None);
        }
        op::TASK => {
            let extra = surplus("TASK", start, fields, 12)?;
            let task = task(c, frames)?;
            end(c, start, extra, Some(&task.payload))?;
            FromBroker::Task(task)
        }
        op::RESULT => {
            let extra = surplus("RESULT", start, fields, 8)?;
            let result = result(c, frames)?;
            end(c, start, extra, Some(&result.payload))?;
            FromBroker::Result(result)
        }
        op::ACK => {
            let extra = surplus("ACK", start, fields, 1)?;
            let n = c.uint("n")?;
            end(c, start, extra, None)?;
            FromBroker::Ack(n)
        }
        op => {
            let (command, next) = cold::from_broker(c.local(), frames, start, op, fields)?;
            c.advance_to(&next);
            command
        }
    };
    cursor.advance_to(&local);
    Ok(Some(command))
}

/// What an op is that the direction does not have.
#[cold]
pub(super) const fn not_here(at: usize, op: u8) -> DecodeError {
    match op {
        op::HELLO..=op::SERVICE
        | op::SUBMIT..=op::FETCH
        | op::RESULT..=op::FETCHED
        | op::TASK..=op::DRAIN
        | op::HOST..=op::RECALLED => DecodeError::WrongDirection { at, op },
        _ => DecodeError::UnknownOp { at, op: op as u64 },
    }
}

#[inline(always)]
fn submit<'a>(c: &mut Cursor<'a>, frames: &mut Frames<'a>) -> Read<Submit<'a>> {
    Ok(Submit {
        request_id: RequestId(c.uint("request_id")?),
        submission: Submission(c.u32("submission")?),
        service: service(c)?,
        priority: priority(c)?,
        deadline_ns: c.uint_or_nil("deadline_ns")?,
        content_type: content_type(c)?,
        options: options(c)?,
        payload: frames.payload(c)?,
    })
}

#[inline(always)]
fn task<'a>(c: &mut Cursor<'a>, frames: &mut Frames<'a>) -> Read<Task<'a>> {
    Ok(Task {
        task: TaskId(c.uint("task")?),
        dispatch: Dispatch(c.u32("dispatch")?),
        client_id: peer_id(c, "client_id")?,
        request_id: RequestId(c.uint("request_id")?),
        submission: Submission(c.u32("submission")?),
        service: service(c)?,
        tries: c.u32("tries")?,
        deadline_ns: c.uint_or_nil("deadline_ns")?,
        max_runtime_ns: c.uint("max_runtime_ns")?,
        content_type: content_type(c)?,
        options: options(c)?,
        payload: frames.payload(c)?,
    })
}

#[inline(always)]
fn done<'a>(c: &mut Cursor<'a>, frames: &mut Frames<'a>) -> Read<Done<'a>> {
    Ok(Done {
        attempt: attempt(c)?,
        status: known(c, "status", EndStatus::from_wire)?,
        residence_ns: c.uint("residence_ns")?,
        service_ns: c.uint("service_ns")?,
        content_type: content_type(c)?,
        payload: frames.payload(c)?,
    })
}

#[inline(always)]
fn result<'a>(c: &mut Cursor<'a>, frames: &mut Frames<'a>) -> Read<TaskResult<'a>> {
    Ok(TaskResult {
        request_id: RequestId(c.uint("request_id")?),
        submission: Submission(c.u32("submission")?),
        status: known(c, "status", Status::from_wire)?,
        tries: c.u32("tries")?,
        stages: stages(c)?,
        content_type: content_type(c)?,
        payload: frames.payload(c)?,
        retry_after_ns: c.uint_or_nil("retry_after_ns")?,
    })
}

#[inline(always)]
fn stages(c: &mut Cursor<'_>) -> Read<Option<StageTimes>> {
    if c.is_nil() {
        return Ok(None);
    }
    let extra = surplus("stages", c.at(), c.array("stages")?, 4)?;
    let times = StageTimes {
        broker_wait_ns: c.uint("stages.broker_wait_ns")?,
        transit_ns: c.uint("stages.transit_ns")?,
        worker_wait_ns: c.uint("stages.worker_wait_ns")?,
        service_ns: c.uint("stages.service_ns")?,
    };
    skip_fields(c, extra, "stages")?;
    Ok(Some(times))
}
