//! The frames after the first of a message, and whether a payload has named them.

use crate::command::{FrameSpan, Payload};
use crate::cursor::{Cursor, marker, too_large};
use crate::error::{DecodeError, Expected, FrameFault};
use crate::limits::{FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX, FRAMES_MAX};

use super::fields::{Read, skip_fields, surplus};

const FIELD: &str = "payload";

/// The frames after the first of a message that is being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames<'a> {
    lens: &'a [usize],
    is_taken: bool,
}

impl<'a> Frames<'a> {
    pub(crate) const fn new(lens: &'a [usize]) -> Self {
        Self { lens, is_taken: false }
    }

    /// Whether the sizes of the frames are within the limits; `first` is the first one's length.
    pub(crate) fn check_sizes(&self, first: usize) -> Read<()> {
        if first > FIRST_FRAME_BYTES_MAX {
            return Err(too_large("first frame", 0, first as u64, FIRST_FRAME_BYTES_MAX as u64));
        }
        let count = self.lens.len();
        if count > FRAMES_MAX {
            return Err(too_large("frames of a message", first, count as u64, FRAMES_MAX as u64));
        }
        match self.lens.iter().find(|len| **len > FRAME_BYTES_MAX) {
            Some(len) => Err(too_large("frame", first, *len as u64, FRAME_BYTES_MAX as u64)),
            None => Ok(()),
        }
    }

    /// Whether every frame was named; `at` is the end of the first one.
    pub(crate) fn check_named(&self, at: usize) -> Read<()> {
        if self.is_taken || self.lens.is_empty() {
            return Ok(());
        }
        let fault = FrameFault::Unnamed { present: self.lens.len() };
        Err(DecodeError::WrongFrames { at, fault })
    }

    /// The next value, a payload: a bin, or a reference to all of these frames.
    #[inline(always)]
    pub(crate) fn payload(&mut self, c: &mut Cursor<'a>) -> Read<Payload<'a>> {
        match c.peek(FIELD)? {
            marker::BIN8..=marker::BIN32 => {
                c.bin(FIRST_FRAME_BYTES_MAX, FIELD).map(Payload::Inline)
            }
            marker::FIXARRAY..=0x9f | marker::ARRAY16 | marker::ARRAY32 => {
                let (span, next) = self.span(c.local())?;
                c.advance_to(&next);
                Ok(Payload::Frames(span))
            }
            _ => Err(c.wrong_type(FIELD, Expected::BinOrFrames)),
        }
    }

    #[cold]
    #[inline(never)]
    fn span(&mut self, mut c: Cursor<'a>) -> Read<(FrameSpan, Cursor<'a>)> {
        let at = c.at();
        let extra = surplus(FIELD, at, c.array(FIELD)?, 3)?;
        let first = c.uint("payload.first")?;
        let frames = c.uint("payload.frames")?;
        let bytes = c.uint("payload.bytes")?;
        skip_fields(&mut c, extra, FIELD)?;
        let wrong = |fault| Err(DecodeError::WrongFrames { at, fault });
        if self.is_taken {
            return wrong(FrameFault::Twice);
        }
        let present = self.lens.len();
        if first != 1 || frames == 0 || frames != present as u64 {
            return wrong(FrameFault::Span { first, frames, present });
        }
        let sum = self.lens.iter().fold(0_u64, |sum, len| sum + *len as u64);
        if sum != bytes {
            return wrong(FrameFault::Bytes { said: bytes, present: sum });
        }
        self.is_taken = true;
        Ok((FrameSpan { first: 1, frames: present as u32, bytes }, c))
    }
}
