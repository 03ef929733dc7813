//! The hot commands, read, and which op is which command.

use super::read_cold as cold;
use super::source::{Read, Source};
use crate::command::{Done, FromBroker, StageTimes, Submit, Task, TaskResult, ToBroker, op};
use crate::error::DecodeError;
use crate::id::{Dispatch, RequestId, Submission, TaskId};
use crate::status::{EndStatus, Status};

/// The next command of a message to a broker; `None`: one that may be ignored was stepped over.
#[inline]
pub(crate) fn to_broker<'a>(source: &mut Source<'a>) -> Read<Option<ToBroker<'a>>> {
    let (fields, op) = source.begin()?;
    let (command, extra) = match op as u8 {
        _ if op >= u64::from(op::IGNORABLE) => return ignore(source, fields),
        op::SUBMIT => {
            let extra = source.extra("SUBMIT", fields, 8)?;
            (ToBroker::Submit(submit(source)?), extra)
        }
        op::DONE => {
            let extra = source.extra("DONE", fields, 8)?;
            (ToBroker::Done(done(source)?), extra)
        }
        op::ACK => {
            let extra = source.extra("ACK", fields, 1)?;
            (ToBroker::Ack(source.cursor.uint("n")?), extra)
        }
        op => cold::to_broker(source, op, fields)?,
    };
    source.end(extra)?;
    Ok(Some(command))
}

/// The next command of a message from a broker; `None`: one that may be ignored was stepped over.
#[inline]
pub(crate) fn from_broker<'a>(source: &mut Source<'a>) -> Read<Option<FromBroker<'a>>> {
    let (fields, op) = source.begin()?;
    let (command, extra) = match op as u8 {
        _ if op >= u64::from(op::IGNORABLE) => return ignore(source, fields),
        op::TASK => {
            let extra = source.extra("TASK", fields, 12)?;
            (FromBroker::Task(task(source)?), extra)
        }
        op::RESULT => {
            let extra = source.extra("RESULT", fields, 8)?;
            (FromBroker::Result(result(source)?), extra)
        }
        op::ACK => {
            let extra = source.extra("ACK", fields, 1)?;
            (FromBroker::Ack(source.cursor.uint("n")?), extra)
        }
        op => cold::from_broker(source, op, fields)?,
    };
    source.end(extra)?;
    Ok(Some(command))
}

#[cold]
fn ignore<T>(source: &mut Source<'_>, fields: usize) -> Read<Option<T>> {
    source.skip(fields, "ignorable command")?;
    Ok(None)
}

/// What an op is that the direction does not have.
#[cold]
pub(super) fn not_here(source: &Source<'_>, op: u8) -> DecodeError {
    let at = source.start();
    match op {
        op::HELLO..=op::SERVICE
        | op::SUBMIT..=op::FETCH
        | op::RESULT..=op::FETCHED
        | op::TASK..=op::DRAIN
        | op::HOST..=op::RECALLED => DecodeError::WrongDirection { at, op },
        _ => DecodeError::UnknownOp { at, op: op.into() },
    }
}

#[inline]
fn submit<'a>(source: &mut Source<'a>) -> Read<Submit<'a>> {
    Ok(Submit {
        request_id: RequestId(source.cursor.uint("request_id")?),
        submission: Submission(source.cursor.u32("submission")?),
        service: source.service()?,
        priority: source.priority()?,
        deadline_ns: source.cursor.uint_or_nil("deadline_ns")?,
        content_type: source.content_type()?,
        options: source.options()?,
        payload: source.payload()?,
    })
}

#[inline]
fn task<'a>(source: &mut Source<'a>) -> Read<Task<'a>> {
    Ok(Task {
        task: TaskId(source.cursor.uint("task")?),
        dispatch: Dispatch(source.cursor.u32("dispatch")?),
        client_id: source.peer_id("client_id")?,
        request_id: RequestId(source.cursor.uint("request_id")?),
        submission: Submission(source.cursor.u32("submission")?),
        service: source.service()?,
        tries: source.cursor.u32("tries")?,
        deadline_ns: source.cursor.uint_or_nil("deadline_ns")?,
        max_runtime_ns: source.cursor.uint("max_runtime_ns")?,
        content_type: source.content_type()?,
        options: source.options()?,
        payload: source.payload()?,
    })
}

#[inline]
fn done<'a>(source: &mut Source<'a>) -> Read<Done<'a>> {
    Ok(Done {
        attempt: source.attempt()?,
        status: source.known("status", EndStatus::from_wire)?,
        residence_ns: source.cursor.uint("residence_ns")?,
        service_ns: source.cursor.uint("service_ns")?,
        content_type: source.content_type()?,
        payload: source.payload()?,
    })
}

#[inline]
fn result<'a>(source: &mut Source<'a>) -> Read<TaskResult<'a>> {
    Ok(TaskResult {
        request_id: RequestId(source.cursor.uint("request_id")?),
        submission: Submission(source.cursor.u32("submission")?),
        status: source.known("status", Status::from_wire)?,
        tries: source.cursor.u32("tries")?,
        stages: stages(source)?,
        content_type: source.content_type()?,
        payload: source.payload()?,
        retry_after_ns: source.cursor.uint_or_nil("retry_after_ns")?,
    })
}

#[inline]
fn stages(source: &mut Source<'_>) -> Read<Option<StageTimes>> {
    if source.cursor.is_nil() {
        return Ok(None);
    }
    let found = source.cursor.array("stages")?;
    let extra = source.extra("stages", found, 4)?;
    let times = StageTimes {
        broker_wait_ns: source.cursor.uint("stages.broker_wait_ns")?,
        transit_ns: source.cursor.uint("stages.transit_ns")?,
        worker_wait_ns: source.cursor.uint("stages.worker_wait_ns")?,
        service_ns: source.cursor.uint("stages.service_ns")?,
    };
    if extra > 0 {
        source.skip(extra, "stages")?;
    }
    Ok(Some(times))
}
