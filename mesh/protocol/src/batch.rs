//! The commands of one message, read and built, together with the frames that follow them.

use alloc::vec::Vec;

use crate::codec::{self, Frames};
use crate::command::{FrameSpan, FromBroker, ToBroker};
use crate::cursor::Cursor;
use crate::error::DecodeError;
use crate::limits::{BATCH_BYTES, FRAME_BYTES_MAX, FRAMES_MAX};

/// Reads the commands of one message in place. A bad one ends the reading but not the effect of
/// those before it.
///
/// ```
/// use pinmesh_protocol::batch::{BatchReader, BatchWriter};
/// use pinmesh_protocol::codec::write_ack;
/// use pinmesh_protocol::command::ToBroker;
///
/// let mut batch = BatchWriter::<Vec<u8>>::new();
/// write_ack(batch.bytes_mut(), 7);
/// batch.count();
///
/// let mut reader = BatchReader::new(batch.bytes(), &[]);
/// assert_eq!(reader.next_to_broker(), Some(Ok(ToBroker::Ack(7))));
/// assert_eq!(reader.next_to_broker(), None);
/// assert_eq!(reader.finish(), Ok(()));
/// ```
#[derive(Debug)]
pub struct BatchReader<'a> {
    /// After an error it is where the bad command starts.
    cursor: Cursor<'a>,
    frames: Frames<'a>,
    state: State,
    ignored: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The sizes of the frames are not checked yet.
    New,
    Reading,
    Failed,
}

impl<'a> BatchReader<'a> {
    /// Reads the commands in `first`, the first frame of a message; `attachment_lens` are the
    /// lengths of the frames after it.
    #[inline]
    pub fn new(first: &'a [u8], attachment_lens: &'a [usize]) -> Self {
        let (cursor, frames) = (Cursor::new(first), Frames::new(attachment_lens));
        Self { cursor, frames, state: State::New, ignored: 0 }
    }

    /// The next command to a broker. `None` after the last one, and for ever after an error.
    /// Commands that may be ignored (op 128 and up) are stepped over and counted.
    #[inline]
    pub fn next_to_broker(&mut self) -> Option<Result<ToBroker<'a>, DecodeError>> {
        self.next(codec::to_broker)
    }

    /// The next command from a broker; else like [`Self::next_to_broker`].
    #[inline]
    pub fn next_from_broker(&mut self) -> Option<Result<FromBroker<'a>, DecodeError>> {
        self.next(codec::from_broker)
    }

    #[inline]
    fn next<T>(
        &mut self,
        read: impl Fn(&mut Cursor<'a>, &mut Frames<'a>) -> Result<Option<T>, DecodeError>,
    ) -> Option<Result<T, DecodeError>> {
        if self.state != State::Reading {
            if self.state == State::Failed {
                return None;
            }
            self.state = State::Reading;
            if let Err(error) = self.frames.check_sizes(self.cursor.rest().len()) {
                self.state = State::Failed;
                return Some(Err(error));
            }
        }
        while !self.cursor.rest().is_empty() {
            match read(&mut self.cursor, &mut self.frames) {
                Ok(Some(command)) => return Some(Ok(command)),
                Ok(None) => self.ignored += 1,
                Err(error) => {
                    self.state = State::Failed;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// Commands that were stepped over.
    pub fn ignored(&self) -> u32 {
        self.ignored
    }

    /// Bytes of the first frame from the bad command on; 0 without an error.
    pub fn discarded(&self) -> usize {
        if self.state == State::Failed { self.cursor.rest().len() } else { 0 }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::WrongFrames`] if frames followed the first one and no payload named them. A
    /// command that was stepped over may have, so nothing is said then, nor after another error.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.state == State::Failed || self.ignored > 0 {
            return Ok(());
        }
        if self.state == State::New {
            self.frames.check_sizes(self.cursor.rest().len())?;
        }
        self.frames.check_named(self.cursor.at())
    }
}

/// The message that is being built for one peer; `F` is a frame of the transport.
///
/// Room is kept across [`Self::clear`], so a peer's batches cost no allocation once it is warm.
#[derive(Debug)]
pub struct BatchWriter<F> {
    bytes: Vec<u8>,
    attachments: Vec<F>,
    commands: u32,
}

impl<F> Default for BatchWriter<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> BatchWriter<F> {
    /// An empty message.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), attachments: Vec::new(), commands: 0 }
    }

    /// Whether there is nothing to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of the first frame.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Commands that were [`Self::count`]ed.
    #[inline]
    pub fn commands(&self) -> u32 {
        self.commands
    }

    /// Whether it is to be sent before another command is put into it: it is long enough, or has
    /// frames, which only one payload of a message may.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || !self.attachments.is_empty()
    }

    /// Where the `write_*` functions of [`crate::codec`] append.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Notes that one command was written.
    #[inline]
    pub fn count(&mut self) {
        self.commands += 1;
    }

    /// Adds the frames of a large payload, each with its length, and returns the span for its
    /// [`crate::command::Payload::Frames`]. Once a message: [`Self::is_full`] afterwards. Each is
    /// at most [`FRAME_BYTES_MAX`] long and there are at most [`FRAMES_MAX`], or the receiver
    /// refuses the message.
    pub fn attach(&mut self, frames: impl IntoIterator<Item = (F, usize)>) -> FrameSpan {
        debug_assert!(self.attachments.is_empty(), "one payload of a message has frames");
        let first = self.attachments.len() as u32 + 1;
        let mut bytes = 0;
        self.attachments.extend(frames.into_iter().map(|(frame, len)| {
            debug_assert!(len <= FRAME_BYTES_MAX, "a longer payload is cut into several frames");
            bytes += len as u64;
            frame
        }));
        debug_assert!(self.attachments.len() <= FRAMES_MAX, "longer payloads are not sent");
        FrameSpan { first, frames: self.attachments.len() as u32 + 1 - first, bytes }
    }

    /// The first frame.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The frames after it.
    #[inline]
    pub fn attachments_mut(&mut self) -> &mut Vec<F> {
        &mut self.attachments
    }

    /// Starts the next message.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.attachments.clear();
        self.commands = 0;
    }
}
