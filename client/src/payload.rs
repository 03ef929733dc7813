//! Payloads on their way in and out: MessagePack by default, raw bytes on request.

use std::ops::Deref;
use std::time::Duration;

use pinmesh_protocol::command::StageTimes;
use pinmesh_protocol::id::ContentType;
use pinmesh_protocol::limits::{FRAME_BYTES_MAX, INLINE_BYTES_MAX, PAYLOAD_BYTES_MAX};
use pinmesh_protocol::payload::{from_msgpack, to_msgpack};
use pinmesh_transport::Frame;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Bytes that came: a vector, or a frame of the socket library that is not copied.
pub struct Bytes(Repr);

enum Repr {
    Vec(Vec<u8>),
    Frame(Frame),
}

impl Bytes {
    /// The bytes as a vector; copies those that a frame holds.
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Repr::Vec(bytes) => bytes,
            Repr::Frame(frame) => frame.to_vec(),
        }
    }

    /// What came as frames of its own: one is kept as it is, several are put together.
    pub(crate) fn from_frames(frames: Vec<Frame>) -> Self {
        let mut frames = frames;
        if frames.len() == 1
            && let Some(frame) = frames.pop()
        {
            return Self(Repr::Frame(frame));
        }
        let mut bytes = Vec::with_capacity(frames.iter().map(|frame| frame.len()).sum());
        frames.iter().for_each(|frame| bytes.extend_from_slice(frame));
        Self(Repr::Vec(bytes))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Repr::Vec(bytes))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Vec(bytes) => bytes,
            Repr::Frame(frame) => frame,
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq<[u8]> for Bytes {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

/// The output of a task and how it came about.
#[derive(Debug)]
#[non_exhaustive]
pub struct Reply<T> {
    /// The handler's output.
    pub value: T,
    /// Encoding of the output as it came.
    pub content_type: ContentType,
    /// Starts of the task that ended badly before this one.
    pub tries: u32,
    /// Times inside the mesh, as the broker and the worker measured them.
    pub stages: Option<StageTimes>,
    /// From handing the task in to its result, as this process measured it.
    pub response: Duration,
}

/// A reply whose output is not decoded.
pub type RawReply = Reply<Bytes>;

impl<T> Reply<T> {
    pub(crate) fn replace<U>(self, value: U) -> Reply<U> {
        let Self { content_type, tries, stages, response, .. } = self;
        Reply { value, content_type, tries, stages, response }
    }
}

/// A handler's input on its way to the socket.
#[derive(Debug)]
pub(crate) enum Input {
    /// Copied into the batch.
    Inline(Vec<u8>),
    /// Frames of their own, shared at each sending.
    Frames(Vec<Frame>),
}

impl Input {
    /// Takes bytes over; only those longer than a frame are copied, once.
    pub(crate) fn new(bytes: Vec<u8>) -> Result<Self> {
        if bytes.len() as u64 > PAYLOAD_BYTES_MAX {
            let (bytes, bytes_max) = (bytes.len() as u64, PAYLOAD_BYTES_MAX);
            return Err(Error::TooLarge { what: "the payload", bytes, bytes_max });
        }
        Ok(if bytes.len() < INLINE_BYTES_MAX {
            Self::Inline(bytes)
        } else if bytes.len() <= FRAME_BYTES_MAX {
            Self::Frames(vec![Frame::from(bytes)])
        } else {
            Self::Frames(bytes.chunks(FRAME_BYTES_MAX).map(Frame::copy_of).collect())
        })
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Frames(frames) => frames.iter().map(|frame| frame.len() as u64).sum(),
        }
    }
}

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    to_msgpack(value).map_err(|error| Error::Encode { reason: error.to_string() })
}

/// Decodes a MessagePack output.
pub(crate) fn decode<T: DeserializeOwned>(reply: RawReply) -> Result<Reply<T>> {
    let expected = std::any::type_name::<T>();
    if reply.content_type != ContentType::MSGPACK {
        let found = reply.content_type;
        let reason = format!(
            "it came as content type {found}, not as MessagePack ({}); ask for the raw bytes",
            ContentType::MSGPACK
        );
        return Err(Error::Decode { expected, reason });
    }
    let value = from_msgpack(&reply.value)
        .map_err(|error| Error::Decode { expected, reason: error.to_string() })?;
    Ok(reply.replace(value))
}

/// Hands the bytes over as they came.
pub(crate) fn keep_raw(reply: RawReply) -> Result<RawReply> {
    Ok(reply)
}
