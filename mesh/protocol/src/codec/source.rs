//! A message while it is read: its bytes, and which of its frames a payload has named.

use crate::command::{FrameSpan, Payload, ServiceRef};
use crate::cursor::{Cursor, marker, too_large};
use crate::error::{DecodeError, Expected, FrameFault};
use crate::id::{AttemptId, ContentType, Dispatch, Epoch, PeerId, Priority, TaskId};
use crate::limits::{
    DEPTH_MAX, FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX, FRAMES_MAX, HEADER_BYTES_MAX,
    OPTIONS_BYTES_MAX, SERVICE_BYTES_MAX, SERVICES_MAX,
};

pub(crate) type Read<T> = Result<T, DecodeError>;

/// A message while it is read.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) cursor: Cursor<'a>,
    attachment_lens: &'a [usize],
    is_frames_taken: bool,
    /// Where the command that is being read starts.
    start: usize,
    /// Bytes of its inline payload; `None`: it carries no payload.
    inline: Option<usize>,
}

impl<'a> Source<'a> {
    pub(crate) const fn new(first: &'a [u8], attachment_lens: &'a [usize]) -> Self {
        Self {
            cursor: Cursor::new(first),
            attachment_lens,
            is_frames_taken: false,
            start: 0,
            inline: None,
        }
    }

    /// Whether the sizes of the frames are within the limits; once a message.
    pub(crate) fn check_frames(&self) -> Read<()> {
        let first = self.cursor.rest().len();
        if first > FIRST_FRAME_BYTES_MAX {
            return Err(too_large("first frame", 0, first as u64, FIRST_FRAME_BYTES_MAX as u64));
        }
        let frames = self.attachment_lens.len();
        if frames > FRAMES_MAX {
            return Err(too_large("frames of a message", first, frames as u64, FRAMES_MAX as u64));
        }
        match self.attachment_lens.iter().find(|len| **len > FRAME_BYTES_MAX) {
            Some(len) => Err(too_large("frame", first, *len as u64, FRAME_BYTES_MAX as u64)),
            None => Ok(()),
        }
    }

    /// Whether every frame was named.
    pub(crate) fn check_named(&self) -> Read<()> {
        if self.is_frames_taken || self.attachment_lens.is_empty() {
            return Ok(());
        }
        Err(DecodeError::WrongFrames {
            at: self.cursor.at(),
            fault: FrameFault::Unnamed { present: self.attachment_lens.len() },
        })
    }

    /// Reads the start of a command: how many fields follow the op, and the op.
    #[inline]
    pub(crate) fn begin(&mut self) -> Read<(usize, u64)> {
        self.start = self.cursor.at();
        self.inline = None;
        let len = self.cursor.array("command")?;
        if len == 0 {
            return Err(self.too_few("command", 0, 1));
        }
        let op = self.cursor.uint("op")?;
        Ok((len - 1, op))
    }

    /// Where the command starts.
    pub(crate) const fn start(&self) -> usize {
        self.start
    }

    /// Steps over the fields that a later version may have added, and judges the header's length.
    #[inline]
    pub(crate) fn end(&mut self, extra: usize) -> Read<()> {
        if extra > 0 {
            self.skip(extra, "later field")?;
        }
        if let Some(inline) = self.inline {
            let header = self.cursor.at() - self.start - inline;
            if header > HEADER_BYTES_MAX {
                let max = HEADER_BYTES_MAX as u64;
                return Err(too_large("header", self.start, header as u64, max));
            }
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn skip(&mut self, values: usize, field: &'static str) -> Read<()> {
        (0..values).try_for_each(|_| self.cursor.skip(DEPTH_MAX, field).map(drop))
    }

    /// How many of `found` fields are left after the `needed` ones.
    #[inline]
    pub(crate) fn extra(&self, name: &'static str, found: usize, needed: usize) -> Read<usize> {
        found.checked_sub(needed).ok_or_else(|| self.too_few(name, found, needed))
    }

    #[cold]
    fn too_few(&self, field: &'static str, found: usize, needed: usize) -> DecodeError {
        DecodeError::TooFewFields { field, at: self.start, found, needed }
    }

    #[inline]
    pub(crate) fn payload(&mut self) -> Read<Payload<'a>> {
        const FIELD: &str = "payload";
        match self.cursor.peek(FIELD)? {
            marker::BIN8..=marker::BIN32 => {
                let bytes = self.cursor.bin(FIRST_FRAME_BYTES_MAX, FIELD)?;
                self.inline = Some(bytes.len());
                Ok(Payload::Inline(bytes))
            }
            marker::FIXARRAY..=0x9f | marker::ARRAY16 | marker::ARRAY32 => {
                self.inline = Some(0);
                self.frames(FIELD).map(Payload::Frames)
            }
            _ => Err(self.cursor.wrong_type(FIELD, Expected::BinOrFrames)),
        }
    }

    #[cold]
    #[inline(never)]
    fn frames(&mut self, field: &'static str) -> Read<FrameSpan> {
        let at = self.cursor.at();
        let found = self.cursor.array(field)?;
        let extra = self.extra(field, found, 3)?;
        let first = self.cursor.uint("payload.first")?;
        let frames = self.cursor.uint("payload.frames")?;
        let bytes = self.cursor.uint("payload.bytes")?;
        self.skip(extra, field)?;
        let wrong = |fault| Err(DecodeError::WrongFrames { at, fault });
        if self.is_frames_taken {
            return wrong(FrameFault::Twice);
        }
        let present = self.attachment_lens.len();
        if first != 1 || frames == 0 || frames != present as u64 {
            return wrong(FrameFault::Span { first, frames, present });
        }
        let sum = self.attachment_lens.iter().fold(0_u64, |sum, len| sum + *len as u64);
        if sum != bytes {
            return wrong(FrameFault::Bytes { said: bytes, present: sum });
        }
        self.is_frames_taken = true;
        Ok(FrameSpan { first: 1, frames: present as u32, bytes })
    }

    #[inline]
    pub(crate) fn service(&mut self) -> Read<ServiceRef<'a>> {
        const FIELD: &str = "service";
        match self.cursor.peek(FIELD)? {
            marker::FIXSTR..=0xbf | marker::STR8..=marker::STR32 => {
                self.cursor.str(SERVICE_BYTES_MAX, FIELD).map(ServiceRef::Name)
            }
            0..=0x7f | marker::UINT8..=0xd3 => self.alias(FIELD).map(ServiceRef::Alias),
            _ => Err(self.cursor.wrong_type(FIELD, Expected::NameOrAlias)),
        }
    }

    #[inline]
    pub(crate) fn alias(&mut self, field: &'static str) -> Read<u32> {
        Ok(self.cursor.uint_to(SERVICES_MAX as u64 - 1, field)? as u32)
    }

    /// The undecoded map of a task's options, or nil.
    #[inline]
    pub(crate) fn options(&mut self) -> Read<Option<&'a [u8]>> {
        if self.cursor.is_nil() { Ok(None) } else { self.options_map().map(Some) }
    }

    #[cold]
    #[inline(never)]
    fn options_map(&mut self) -> Read<&'a [u8]> {
        const FIELD: &str = "options";
        match self.cursor.peek(FIELD)? {
            marker::FIXMAP..=0x8f | marker::MAP16 | marker::MAP32 => {}
            _ => return Err(self.cursor.wrong_type(FIELD, Expected::Map)),
        }
        let at = self.cursor.at();
        let map = self.cursor.skip(DEPTH_MAX, FIELD)?;
        if map.len() > OPTIONS_BYTES_MAX {
            return Err(too_large(FIELD, at, map.len() as u64, OPTIONS_BYTES_MAX as u64));
        }
        Ok(map)
    }

    #[inline]
    pub(crate) fn attempt(&mut self) -> Read<AttemptId> {
        Ok(AttemptId {
            epoch: Epoch(self.cursor.u32("epoch")?),
            task: TaskId(self.cursor.uint("task")?),
            dispatch: Dispatch(self.cursor.u32("dispatch")?),
        })
    }

    #[inline]
    pub(crate) fn peer_id(&mut self, field: &'static str) -> Read<PeerId> {
        let at = self.cursor.at();
        let bytes = self.cursor.bin(16, field)?;
        <[u8; 16]>::try_from(bytes).map(PeerId).map_err(|_| DecodeError::OutOfRange {
            field,
            at,
            value: bytes.len() as i128,
            min: 16,
            max: 16,
        })
    }

    #[inline]
    pub(crate) fn content_type(&mut self) -> Read<ContentType> {
        self.cursor.u32("content_type").map(ContentType)
    }

    #[inline]
    pub(crate) fn priority(&mut self) -> Read<Priority> {
        const FIELD: &str = "priority";
        let at = self.cursor.at();
        let value = self.cursor.uint(FIELD)?;
        match u8::try_from(value).ok().and_then(Priority::new) {
            Some(priority) => Ok(priority),
            None => Err(DecodeError::OutOfRange {
                field: FIELD,
                at,
                value: value.into(),
                min: Priority::MIN.value().into(),
                max: Priority::MAX.value().into(),
            }),
        }
    }

    /// A number that is one of an enum's values.
    #[inline]
    pub(crate) fn known<T>(
        &mut self,
        field: &'static str,
        from_wire: impl FnOnce(u64) -> Option<T>,
    ) -> Read<T> {
        let at = self.cursor.at();
        let value = self.cursor.uint(field)?;
        from_wire(value).ok_or(DecodeError::UnknownValue { field, at, value })
    }

    /// A count of tasks that a window may grant.
    pub(crate) fn window_tasks(&mut self, field: &'static str) -> Read<u32> {
        let max = u64::from(crate::limits::WINDOW_TASKS_MAX);
        Ok(self.cursor.uint_to(max, field)? as u32)
    }

    /// A number that may not be 0.
    pub(crate) fn nonzero_u32(&mut self, field: &'static str) -> Read<u32> {
        let at = self.cursor.at();
        match self.cursor.u32(field)? {
            0 => Err(DecodeError::OutOfRange { field, at, value: 0, min: 1, max: u32::MAX.into() }),
            value => Ok(value),
        }
    }
}
