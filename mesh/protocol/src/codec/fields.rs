//! Fields that several commands have, read.

use crate::command::{Payload, ServiceRef};
use crate::cursor::{Cursor, marker, too_large};
use crate::error::{DecodeError, Expected};
use crate::id::{AttemptId, ContentType, Dispatch, Epoch, PeerId, Priority, TaskId};
use crate::limits::{
    DEPTH_MAX, HEADER_BYTES_MAX, OPTIONS_BYTES_MAX, SERVICE_BYTES_MAX, SERVICES_MAX,
    WINDOW_TASKS_MAX,
};

pub(crate) type Read<T> = Result<T, DecodeError>;

/// How many of `found` fields are left after the `needed` ones; `at` is where their array starts.
#[inline(always)]
pub(super) fn surplus(name: &'static str, at: usize, found: usize, needed: usize) -> Read<usize> {
    match found.checked_sub(needed) {
        Some(extra) => Ok(extra),
        None => Err(too_few(name, at, found, needed)),
    }
}

#[cold]
#[inline(never)]
const fn too_few(field: &'static str, at: usize, found: usize, needed: usize) -> DecodeError {
    DecodeError::TooFewFields { field, at, found, needed }
}

/// Steps over fields that a later version has added.
#[inline(always)]
pub(super) fn skip_fields(c: &mut Cursor<'_>, fields: usize, name: &'static str) -> Read<()> {
    for _ in 0..fields {
        c.skip(DEPTH_MAX, name)?;
    }
    Ok(())
}

/// Ends a command that started at `start` and carries `payload`: steps over later fields and
/// judges the length of the header.
#[inline(always)]
pub(super) fn end(
    c: &mut Cursor<'_>,
    start: usize,
    extra: usize,
    payload: Option<&Payload<'_>>,
) -> Read<()> {
    skip_fields(c, extra, "later field")?;
    let inline = match payload {
        None => return Ok(()),
        Some(Payload::Inline(bytes)) => bytes.len(),
        Some(Payload::Frames(_)) => 0,
    };
    let header = c.at() - start - inline;
    if header > HEADER_BYTES_MAX {
        return Err(too_large("header", start, header as u64, HEADER_BYTES_MAX as u64));
    }
    Ok(())
}

/// The start of a command: how many fields follow the op, and the op.
#[inline(always)]
pub(super) fn begin(c: &mut Cursor<'_>) -> Read<(usize, u64)> {
    let at = c.at();
    let fields = surplus("command", at, c.array("command")?, 1)?;
    Ok((fields, c.uint("op")?))
}

#[inline(always)]
pub(super) fn service<'a>(c: &mut Cursor<'a>) -> Read<ServiceRef<'a>> {
    const FIELD: &str = "service";
    match c.peek(FIELD)? {
        0..=0x7f | marker::UINT8..=0xd3 => alias(c, FIELD).map(ServiceRef::Alias),
        marker::FIXSTR..=0xbf | marker::STR8..=marker::STR32 => {
            c.str(SERVICE_BYTES_MAX, FIELD).map(ServiceRef::Name)
        }
        _ => Err(c.wrong_type(FIELD, Expected::NameOrAlias)),
    }
}

#[inline(always)]
pub(super) fn alias(c: &mut Cursor<'_>, field: &'static str) -> Read<u32> {
    Ok(c.uint_to(SERVICES_MAX as u64 - 1, field)? as u32)
}

/// The undecoded map of a task's options, or nil.
#[inline(always)]
pub(super) fn options<'a>(c: &mut Cursor<'a>) -> Read<Option<&'a [u8]>> {
    const FIELD: &str = "options";
    if c.is_nil() {
        return Ok(None);
    }
    match c.peek(FIELD)? {
        marker::FIXMAP..=0x8f | marker::MAP16 | marker::MAP32 => {}
        _ => return Err(c.wrong_type(FIELD, Expected::Map)),
    }
    let at = c.at();
    let map = c.skip(DEPTH_MAX, FIELD)?;
    if map.len() > OPTIONS_BYTES_MAX {
        return Err(too_large(FIELD, at, map.len() as u64, OPTIONS_BYTES_MAX as u64));
    }
    Ok(Some(map))
}

#[inline(always)]
pub(super) fn attempt(c: &mut Cursor<'_>) -> Read<AttemptId> {
    Ok(AttemptId {
        epoch: Epoch(c.u32("epoch")?),
        task: TaskId(c.uint("task")?),
        dispatch: Dispatch(c.u32("dispatch")?),
    })
}

#[inline(always)]
pub(super) fn peer_id(c: &mut Cursor<'_>, field: &'static str) -> Read<PeerId> {
    let at = c.at();
    let bytes = c.bin(16, field)?;
    match <[u8; 16]>::try_from(bytes) {
        Ok(id) => Ok(PeerId(id)),
        Err(_) => {
            let value = bytes.len() as i128;
            Err(DecodeError::OutOfRange { field, at, value, min: 16, max: 16 })
        }
    }
}

#[inline(always)]
pub(super) fn content_type(c: &mut Cursor<'_>) -> Read<ContentType> {
    c.u32("content_type").map(ContentType)
}

#[inline(always)]
pub(super) fn priority(c: &mut Cursor<'_>) -> Read<Priority> {
    let at = c.at();
    let value = c.uint("priority")?;
    match u8::try_from(value).ok().and_then(Priority::new) {
        Some(priority) => Ok(priority),
        None => Err(DecodeError::OutOfRange {
            field: "priority",
            at,
            value: value.into(),
            min: Priority::MIN.value().into(),
            max: Priority::MAX.value().into(),
        }),
    }
}

/// A number that is one of an enum's values.
#[inline(always)]
pub(super) fn known<T>(
    c: &mut Cursor<'_>,
    field: &'static str,
    from_wire: impl FnOnce(u64) -> Option<T>,
) -> Read<T> {
    let at = c.at();
    let value = c.uint(field)?;
    match from_wire(value) {
        Some(known) => Ok(known),
        None => Err(DecodeError::UnknownValue { field, at, value }),
    }
}

/// A count of tasks that a window may grant.
pub(super) fn window_tasks(c: &mut Cursor<'_>, field: &'static str) -> Read<u32> {
    Ok(c.uint_to(WINDOW_TASKS_MAX.into(), field)? as u32)
}

/// A number that may not be 0.
pub(super) fn nonzero_u32(c: &mut Cursor<'_>, field: &'static str) -> Read<u32> {
    let at = c.at();
    match c.u32(field)? {
        0 => Err(DecodeError::OutOfRange { field, at, value: 0, min: 1, max: u32::MAX.into() }),
        value => Ok(value),
    }
}
