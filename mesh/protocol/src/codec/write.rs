//! The hot commands, written: integers of the least width, each header in one piece.

use alloc::vec::Vec;

use crate::command::{Done, Payload, ServiceRef, StageTimes, Submit, Task, TaskResult, op};
use crate::cursor::marker;
use crate::id::PeerId;
use crate::limits::{HEADER_BYTES_MAX, OPTIONS_BYTES_MAX, SERVICE_BYTES_MAX};

/// The longest integer: its marker and eight bytes.
const UINT_MAX: usize = 9;
/// Bytes of a peer id: marker, length, sixteen.
const PEER_ID: usize = 18;
/// The longest start of an inline payload, and the longest reference to frames.
const PAYLOAD_MAX: usize = 1 + 3 * UINT_MAX;
/// The longest start of a str.
const STR_MAX: usize = 5;

// TASK has the longest header of the commands that carry a payload; what a client may put into
// SUBMIT must fit into it, or a worker would refuse what the broker took.
const _: () = assert!(
    2 + 11 * UINT_MAX + PEER_ID + STR_MAX + SERVICE_BYTES_MAX + OPTIONS_BYTES_MAX + PAYLOAD_MAX
        <= HEADER_BYTES_MAX
);

/// A piece of a header, built in place at the end of a batch. `N` is at least the sum of the
/// longest forms of what is put into it, which the callers count out.
struct Piece<'b, const N: usize> {
    bytes: &'b mut [u8; N],
    len: usize,
}

impl<const N: usize> Piece<'_, N> {
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    fn uint(&mut self, value: u64) {
        if value < 0x80 {
            return self.byte(value as u8);
        }
        let class = u8::from(value > 0xff)
            + u8::from(value > 0xffff)
            + u8::from(value > u64::from(u32::MAX));
        let wide = (value << (64 - (8_u32 << class))).to_be_bytes();
        // Always eight bytes; what is past the width is overwritten by what follows.
        let room = &mut self.bytes[self.len..self.len + UINT_MAX];
        room[0] = marker::UINT8 + class;
        room[1..].copy_from_slice(&wide);
        self.len += 1 + (1 << class);
    }

    #[inline]
    fn uint_or_nil(&mut self, value: Option<u64>) {
        match value {
            Some(value) => self.uint(value),
            None => self.byte(marker::NIL),
        }
    }

    #[inline]
    fn peer_id(&mut self, id: &PeerId) {
        let room = &mut self.bytes[self.len..self.len + PEER_ID];
        room[..2].copy_from_slice(&[marker::BIN8, 16]);
        room[2..].copy_from_slice(&id.0);
        self.len += PEER_ID;
    }

    #[inline]
    fn stages(&mut self, stages: Option<&StageTimes>) {
        let Some(stages) = stages else {
            return self.byte(marker::NIL);
        };
        self.byte(marker::FIXARRAY | 4);
        self.uint(stages.broker_wait_ns);
        self.uint(stages.transit_ns);
        self.uint(stages.worker_wait_ns);
        self.uint(stages.service_ns);
    }

    /// The start of an inline payload, or the whole of a reference to frames.
    #[inline]
    fn payload(&mut self, payload: &Payload<'_>) {
        match payload {
            Payload::Inline(bytes) => self.bin_len(bytes.len()),
            Payload::Frames(span) => {
                self.byte(marker::FIXARRAY | 3);
                self.uint(span.first.into());
                self.uint(span.frames.into());
                self.uint(span.bytes);
            }
        }
    }

    #[inline]
    fn bin_len(&mut self, len: usize) {
        if let Ok(len) = u8::try_from(len) {
            self.byte(marker::BIN8);
            self.byte(len);
        } else if let Ok(len) = u16::try_from(len) {
            self.byte(marker::BIN16);
            len.to_be_bytes().into_iter().for_each(|byte| self.byte(byte));
        } else {
            self.byte(marker::BIN32);
            (len as u32).to_be_bytes().into_iter().for_each(|byte| self.byte(byte));
        }
    }
}

/// Appends what `fill` puts into a piece.
#[inline]
fn piece<const N: usize>(out: &mut Vec<u8>, fill: impl FnOnce(&mut Piece<'_, N>)) {
    let start = out.len();
    out.extend_from_slice(&[0; N]);
    if let Some(bytes) = out.last_chunk_mut::<N>() {
        let mut piece = Piece { bytes, len: 0 };
        fill(&mut piece);
        let len = piece.len;
        out.truncate(start + len);
    }
}

#[inline]
fn array_and_op<const N: usize>(piece: &mut Piece<'_, N>, fields: u8, op: u8) {
    piece.byte(marker::FIXARRAY | (fields + 1));
    piece.byte(op);
}

/// Appends bytes whose start [`Piece::payload`] has written.
#[inline]
fn payload_bytes(out: &mut Vec<u8>, payload: &Payload<'_>) {
    if let Payload::Inline(bytes) = payload {
        out.extend_from_slice(bytes);
    }
}

/// Appends the start of a str and its bytes.
pub(super) fn put_str(out: &mut Vec<u8>, text: &str) {
    let len = text.len();
    match len {
        0..=0x1f => out.push(marker::FIXSTR | len as u8),
        0x20..=0xff => out.extend_from_slice(&[marker::STR8, len as u8]),
        0x100..=0xffff => {
            out.push(marker::STR16);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(marker::STR32);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends SUBMIT. Options that are `Some` have to be one MessagePack map
/// ([`crate::TaskOptions::encode`] writes such).
#[inline]
pub fn write_submit(out: &mut Vec<u8>, c: &Submit<'_>) {
    piece::<{ 2 + 3 * UINT_MAX }>(out, |piece| {
        array_and_op(piece, 8, op::SUBMIT);
        piece.uint(c.request_id.0);
        piece.uint(c.submission.0.into());
        if let ServiceRef::Alias(alias) = c.service {
            piece.uint(alias.into());
        }
    });
    if let ServiceRef::Name(name) = c.service {
        put_str(out, name);
    }
    piece::<{ 4 * UINT_MAX + PAYLOAD_MAX }>(out, |piece| {
        piece.byte(c.priority.value());
        piece.uint_or_nil(c.deadline_ns);
        piece.uint(c.content_type.0.into());
        if c.options.is_none() {
            piece.byte(marker::NIL);
            piece.payload(&c.payload);
        }
    });
    options_and_payload(out, c.options, &c.payload);
}

/// Appends TASK. Options that are `Some` have to be one MessagePack map.
#[inline]
pub fn write_task(out: &mut Vec<u8>, c: &Task<'_>) {
    piece::<{ 2 + 5 * UINT_MAX + PEER_ID }>(out, |piece| {
        array_and_op(piece, 12, op::TASK);
        piece.uint(c.task.0);
        piece.uint(c.dispatch.0.into());
        piece.peer_id(&c.client_id);
        piece.uint(c.request_id.0);
        piece.uint(c.submission.0.into());
        if let ServiceRef::Alias(alias) = c.service {
            piece.uint(alias.into());
        }
    });
    if let ServiceRef::Name(name) = c.service {
        put_str(out, name);
    }
    piece::<{ 5 * UINT_MAX + PAYLOAD_MAX }>(out, |piece| {
        piece.uint(c.tries.into());
        piece.uint_or_nil(c.deadline_ns);
        piece.uint(c.max_runtime_ns);
        piece.uint(c.content_type.0.into());
        if c.options.is_none() {
            piece.byte(marker::NIL);
            piece.payload(&c.payload);
        }
    });
    options_and_payload(out, c.options, &c.payload);
}

/// What is left of a command whose last fields are the options and the payload; where there are no
/// options, the start of the payload is already written.
#[inline]
fn options_and_payload(out: &mut Vec<u8>, options: Option<&[u8]>, payload: &Payload<'_>) {
    if let Some(map) = options {
        debug_assert!(is_map(map), "options are one MessagePack map");
        out.extend_from_slice(map);
        piece::<PAYLOAD_MAX>(out, |piece| piece.payload(payload));
    }
    payload_bytes(out, payload);
}

fn is_map(bytes: &[u8]) -> bool {
    matches!(bytes.first().copied(), Some(marker::FIXMAP..=0x8f | marker::MAP16 | marker::MAP32))
}

/// Appends DONE.
#[inline]
pub fn write_done(out: &mut Vec<u8>, c: &Done<'_>) {
    piece::<{ 2 + 7 * UINT_MAX + PAYLOAD_MAX }>(out, |piece| {
        array_and_op(piece, 8, op::DONE);
        piece.uint(c.attempt.epoch.0.into());
        piece.uint(c.attempt.task.0);
        piece.uint(c.attempt.dispatch.0.into());
        piece.byte(c.status.to_wire());
        piece.uint(c.residence_ns);
        piece.uint(c.service_ns);
        piece.uint(c.content_type.0.into());
        piece.payload(&c.payload);
    });
    payload_bytes(out, &c.payload);
}

/// Appends RESULT.
#[inline]
pub fn write_result(out: &mut Vec<u8>, c: &TaskResult<'_>) {
    piece::<{ 3 + 9 * UINT_MAX + PAYLOAD_MAX }>(out, |piece| {
        array_and_op(piece, 8, op::RESULT);
        piece.uint(c.request_id.0);
        piece.uint(c.submission.0.into());
        piece.byte(c.status.to_wire());
        piece.uint(c.tries.into());
        piece.stages(c.stages.as_ref());
        piece.uint(c.content_type.0.into());
        piece.payload(&c.payload);
    });
    payload_bytes(out, &c.payload);
    match c.retry_after_ns {
        None => out.push(marker::NIL),
        Some(value) => piece::<UINT_MAX>(out, |piece| piece.uint(value)),
    }
}

/// Appends ACK: "I have taken the first `n` of your ends in this session".
#[inline]
pub fn write_ack(out: &mut Vec<u8>, n: u64) {
    piece::<{ 2 + UINT_MAX }>(out, |piece| {
        array_and_op(piece, 1, op::ACK);
        piece.uint(n);
    });
}

/// Bytes of the header of a SUBMIT, that is all of it but an inline payload's bytes. A client
/// compares it with WELCOME's `header_bytes_max` before it sends.
pub fn submit_header_bytes(c: &Submit<'_>) -> usize {
    let service = match c.service {
        ServiceRef::Alias(alias) => uint_bytes(alias.into()),
        ServiceRef::Name(name) => {
            name.len()
                + match name.len() {
                    0..=0x1f => 1,
                    0x20..=0xff => 2,
                    0x100..=0xffff => 3,
                    _ => STR_MAX,
                }
        }
    };
    let payload = match c.payload {
        Payload::Inline(bytes) => match bytes.len() {
            0..=0xff => 2,
            0x100..=0xffff => 3,
            _ => 5,
        },
        Payload::Frames(span) => {
            1 + uint_bytes(span.first.into())
                + uint_bytes(span.frames.into())
                + uint_bytes(span.bytes)
        }
    };
    // The array, the op and the priority are a byte each.
    3 + uint_bytes(c.request_id.0)
        + uint_bytes(c.submission.0.into())
        + service
        + c.deadline_ns.map_or(1, uint_bytes)
        + uint_bytes(c.content_type.0.into())
        + c.options.map_or(1, <[u8]>::len)
        + payload
}

const fn uint_bytes(value: u64) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Appends an integer of the least width.
pub(super) fn put_uint(out: &mut Vec<u8>, value: u64) {
    piece::<UINT_MAX>(out, |piece| piece.uint(value));
}

/// Appends a peer id.
pub(super) fn put_peer_id(out: &mut Vec<u8>, id: &PeerId) {
    piece::<PEER_ID>(out, |piece| piece.peer_id(id));
}

/// Appends a payload.
pub(super) fn put_payload(out: &mut Vec<u8>, payload: &Payload<'_>) {
    piece::<PAYLOAD_MAX>(out, |piece| piece.payload(payload));
    payload_bytes(out, payload);
}

/// Appends a bin.
pub(super) fn put_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    put_payload(out, &Payload::Inline(bytes));
}
