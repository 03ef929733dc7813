//! Payloads on their way in and out: MessagePack by default, JSON, Protocol Buffers or raw bytes on
//! request. What comes is decoded by its own content type, whatever went.

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

impl RawReply {
    /// Decodes the output, MessagePack or JSON by its content type.
    ///
    /// # Errors
    /// [`Error::Decode`]: its content type is another one, or it is no `T`.
    pub fn decode<T: DeserializeOwned>(self) -> Result<Reply<T>> {
        decode(self)
    }
}

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

/// What inputs that serde knows are encoded in.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum Encoding {
    /// Compact and fast; structs become arrays, and bytes need `serde_bytes`.
    #[default]
    MessagePack,
    /// For handlers that take nothing else, and for reading along.
    Json,
}

impl Encoding {
    pub(crate) fn content_type(self) -> ContentType {
        match self {
            Self::MessagePack => ContentType::MSGPACK,
            Self::Json => ContentType::JSON,
        }
    }

    pub(crate) fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>> {
        match self {
            Self::MessagePack => to_msgpack(value).map_err(|error| error.to_string()),
            Self::Json => serde_json::to_vec(value).map_err(|error| error.to_string()),
        }
        .map_err(|reason| Error::Encode { reason })
    }
}

/// For people: what a content type is, with its number.
fn description(content_type: ContentType) -> String {
    let name = match content_type {
        ContentType::RAW => "raw bytes",
        ContentType::MSGPACK => "MessagePack",
        ContentType::JSON => "JSON",
        ContentType::PROTOBUF => "Protocol Buffers",
        ContentType::TEXT => "text",
        _ => return format!("content type {content_type}"),
    };
    format!("{name} (content type {content_type})")
}

/// The output came as something else than was asked for.
pub(crate) fn mismatch<T>(found: ContentType, wanted: &str) -> Error {
    let expected = std::any::type_name::<T>();
    let found = description(found);
    let reason = format!("it came as {found}, not as {wanted}; ask for the raw bytes");
    Error::Decode { expected, reason }
}

/// Decodes an output by its content type: MessagePack or JSON.
pub(crate) fn decode<T: DeserializeOwned>(reply: RawReply) -> Result<Reply<T>> {
    let value = decode_bytes(reply.content_type, &reply.value)?;
    Ok(reply.replace(value))
}

/// As [`decode`], of anything that came.
pub(crate) fn decode_bytes<T: DeserializeOwned>(
    content_type: ContentType,
    bytes: &[u8],
) -> Result<T> {
    let value = match content_type {
        ContentType::MSGPACK => from_msgpack(bytes).map_err(|error| error.to_string()),
        ContentType::JSON => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        other => return Err(mismatch::<T>(other, "MessagePack or JSON")),
    };
    let expected = std::any::type_name::<T>();
    value.map_err(|reason| Error::Decode { expected, reason })
}

/// Hands the bytes over as they came.
pub(crate) fn keep_raw(reply: RawReply) -> Result<RawReply> {
    Ok(reply)
}
