//! Handlers: what a worker runs for a service, and what a handler may know of its task.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pinmesh_protocol::id::{AttemptId, ContentType, PeerId, RequestId, Submission};
use pinmesh_protocol::payload::{from_msgpack, to_msgpack};
use pinmesh_protocol::status::ProgressKind;
use pinmesh_session::Time;
use pinmesh_session::worker::HeldTask;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock;
use crate::page::StatusPage;

/// What a handler may know of the task that it runs.
///
/// (client id, request id) names the request for good and the dispatch counts its attempts at one
/// broker: write all three beside what the handler changes elsewhere, and a second run of the same
/// request can be told from a new one.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub(crate) task: &'a HeldTask,
    pub(crate) started: Time,
    /// The page and the slot on it, where there is a supervisor.
    pub(crate) slot: Option<(&'a StatusPage, usize)>,
    pub(crate) payload_bytes_max: u64,
    pub(crate) voice: &'a Mutex<dyn Say + 'a>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let task = ("task", self.task);
        f.debug_struct("Context").field(task.0, task.1).finish_non_exhaustive()
    }
}

impl Context<'_> {
    /// The attempt: broker's epoch, task, dispatch.
    pub fn attempt(&self) -> AttemptId {
        self.task.attempt
    }

    /// The client process that submitted the task.
    pub fn client_id(&self) -> PeerId {
        self.task.client_id
    }

    /// The client's number for it.
    pub fn request_id(&self) -> RequestId {
        self.task.request_id
    }

    /// Which handing-in of the request this is.
    pub fn submission(&self) -> Submission {
        self.task.submission
    }

    /// Starts of the task that ended badly before this one.
    pub fn tries(&self) -> u32 {
        self.task.tries
    }

    /// Encoding of the payload.
    pub fn content_type(&self) -> ContentType {
        self.task.content_type
    }

    /// Bytes that the result may have: what the task's broker takes. A longer one ends FAILED.
    pub fn payload_bytes_max(&self) -> u64 {
        self.payload_bytes_max
    }

    /// Whether the handler should stop: its client cancelled the task, or the worker is to leave. A
    /// handler that then returns an error ends as cancelled. Costs a load; ask as often as you like.
    pub fn is_cancelled(&self) -> bool {
        self.slot.is_some_and(|(page, index)| page.is_cancelled(index))
    }

    /// Tells the client how far the task is: of these updates only the newest matters, older ones
    /// may be dropped on the way. Never waits. MessagePack, or JSON where the task came in that.
    ///
    /// # Errors
    /// The value cannot be encoded, or is longer than a payload may be.
    pub fn progress<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), UpdateError> {
        let (content_type, bytes) = self.encode(value)?;
        self.progress_raw(content_type, &bytes)
    }

    /// As [`progress`](Self::progress), of bytes.
    ///
    /// # Errors
    /// As there.
    pub fn progress_raw(&self, content_type: ContentType, bytes: &[u8]) -> Result<(), UpdateError> {
        self.say(ProgressKind::Latest, content_type, bytes)
    }

    /// Gives the client a part of the result ahead of the rest: each of these comes, in order, once,
    /// before the result. Waits while 8 MiB of them, or the client's share of the broker's memory, are
    /// not acknowledged.
    ///
    /// # Errors
    /// As [`progress`](Self::progress); [`UpdateError::Cancelled`] if the handler is asked to stop
    /// while it waits here.
    pub fn emit<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), UpdateError> {
        let (content_type, bytes) = self.encode(value)?;
        self.emit_raw(content_type, &bytes)
    }

    /// As [`emit`](Self::emit), of bytes.
    ///
    /// # Errors
    /// As there.
    pub fn emit_raw(&self, content_type: ContentType, bytes: &[u8]) -> Result<(), UpdateError> {
        self.say(ProgressKind::Stream, content_type, bytes)
    }

    fn encode<T: Serialize + ?Sized>(
        &self,
        value: &T,
    ) -> Result<(ContentType, Vec<u8>), UpdateError> {
        let encoded = match self.content_type() {
            ContentType::JSON => {
                let bytes = serde_json::to_vec(value).map_err(|error| error.to_string());
                bytes.map(|bytes| (ContentType::JSON, bytes))
            }
            _ => {
                let bytes = to_msgpack(value).map_err(|error| error.to_string());
                bytes.map(|bytes| (ContentType::MSGPACK, bytes))
            }
        };
        encoded.map_err(UpdateError::Encode)
    }

    fn say(
        &self,
        kind: ProgressKind,
        content_type: ContentType,
        bytes: &[u8],
    ) -> Result<(), UpdateError> {
        // Whoever panicked there has left it whole: a handler's panic ends its task only.
        let mut voice = self.voice.lock().unwrap_or_else(PoisonError::into_inner);
        voice.say(kind, content_type, bytes)
    }

    /// Time until nobody wants the result any more; `None`: there is no deadline.
    pub fn time_left(&self) -> Option<Duration> {
        let deadline = self.task.deadline?;
        Some(Duration::from_nanos(deadline.since(clock::now())))
    }

    /// Time until the supervisor kills the process over this attempt.
    pub fn runtime_left(&self) -> Duration {
        let end = self.started.after(self.task.max_runtime_ns);
        Duration::from_nanos(end.since(clock::now()))
    }
}

/// Where what a handler says goes.
pub(crate) trait Say: Send {
    fn say(
        &mut self,
        kind: ProgressKind,
        content_type: ContentType,
        payload: &[u8],
    ) -> Result<(), UpdateError>;
}

/// Why an update did not go out. The task may go on without it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UpdateError {
    /// The value cannot be encoded.
    Encode(String),
    /// It is longer than the task's broker takes, bytes.
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The handler is asked to stop.
    Cancelled,
}

impl Display for UpdateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Encode(why) => write!(f, "the update cannot be encoded: {why}"),
            Self::TooLong { bytes, bytes_max } => write!(
                f,
                "the update has {bytes} bytes, the broker takes {bytes_max}; send it in parts"
            ),
            Self::Cancelled => f.write_str("the handler is asked to stop"),
        }
    }
}

impl std::error::Error for UpdateError {}

/// A task's payload, as it came: one piece up to 1 MiB, several beyond.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub(crate) pieces: Pieces<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Pieces<'a> {
    One(&'a [u8]),
    Frames(&'a [pinmesh_transport::Frame]),
}

impl<'a> Input<'a> {
    /// The bytes, piece by piece, uncopied.
    pub fn chunks(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (one, frames): (_, &[_]) = match self.pieces {
            Pieces::One(bytes) => (Some(bytes), &[]),
            Pieces::Frames(frames) => (None, frames),
        };
        one.into_iter().chain(frames.iter().map(|frame| &**frame))
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.chunks().map(<[u8]>::len).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in one piece: copied only if they came in several.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        match self.pieces {
            Pieces::One(bytes) => Cow::Borrowed(bytes),
            Pieces::Frames([frame]) => Cow::Borrowed(frame),
            Pieces::Frames(_) => {
                let mut all = Vec::with_capacity(self.len());
                self.chunks().for_each(|chunk| all.extend_from_slice(chunk));
                Cow::Owned(all)
            }
        }
    }
}

/// Why a handler failed, and whether another try may mend it.
///
/// Every error that can be displayed becomes one that may be tried again, with its text, so that `?`
/// works in a handler that returns `Result<_, Failure>`; [`last`](Self::last) makes one that must
/// not. The text goes to the client.
///
/// ```
/// use pinmesh_worker::Failure;
///
/// fn read(input: String) -> Result<String, Failure> {
///     if input.contains("..") {
///         return Err(Failure::last("the path leaves the folder")); // as wrong at the next try
///     }
///     Ok(std::fs::read_to_string(input)?) // may be mended at the next try
/// }
///
/// assert!(read("../etc".into()).unwrap_err().is_last());
/// assert!(!read("/no/such/file".into()).unwrap_err().is_last());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub(crate) text: String,
    pub(crate) is_last: bool,
}

impl Failure {
    /// One that another try would not mend, a wrong input say: the task ends FAILED at once.
    pub fn last(text: impl Display) -> Self {
        Self { text: text.to_string(), is_last: true }
    }

    /// Whether it ends the task whatever tries are left.
    pub const fn is_last(&self) -> bool {
        self.is_last
    }

    /// What the client is told.
    pub fn text(&self) -> &str {
        &self.text
    }
}

// `Failure` itself must not be displayed: this conversion would then be one of itself, too.
impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { text: error.to_string(), is_last: false }
    }
}

/// Where a raw handler puts its result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Encoding of the bytes; [`ContentType::RAW`] unless the handler says otherwise.
    pub content_type: ContentType,
    /// The result. Reused from task to task, so that small results cost no allocation.
    pub bytes: Vec<u8>,
}

impl Default for Output {
    fn default() -> Self {
        Self { content_type: ContentType::RAW, bytes: Vec::new() }
    }
}

impl Output {
    pub(crate) fn clear(&mut self) {
        self.content_type = ContentType::RAW;
        self.bytes.clear();
    }
}

/// A handler as the run loop calls it.
pub(crate) type BoxHandler =
    Box<dyn FnMut(&Context<'_>, Input<'_>, &mut Output) -> Result<(), Failure> + Send>;

/// A service and its handler.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) handler: BoxHandler,
}

/// A function that can serve a service with MessagePack or JSON in and out: `Fn(In) -> Result<Out, E>` or
/// `Fn(&Context, In) -> Result<Out, E>`, where `In` can be deserialized, `Out` serialized and `E`
/// displayed, or a [`Failure`]. `Signature` only tells the two apart.
pub trait Handler<Signature>: Send + 'static {
    /// The input that it takes.
    type In: DeserializeOwned;
    /// The result that it gives.
    type Out: Serialize;
    /// What it fails with: anything that can be displayed, or a [`Failure`].
    type Error: Into<Failure>;

    /// Runs it once.
    ///
    /// # Errors
    /// The handler's own.
    fn run(&mut self, context: &Context<'_>, input: Self::In) -> Result<Self::Out, Self::Error>;
}

impl<F, In, Out, E> Handler<fn(In) -> Result<Out, E>> for F
where
    F: FnMut(In) -> Result<Out, E> + Send + 'static,
    In: DeserializeOwned,
    Out: Serialize,
    E: Into<Failure>,
{
    type In = In;
    type Out = Out;
    type Error = E;

    fn run(&mut self, _: &Context<'_>, input: In) -> Result<Out, E> {
        self(input)
    }
}

impl<F, In, Out, E> Handler<fn(&Context<'_>, In) -> Result<Out, E>> for F
where
    F: FnMut(&Context<'_>, In) -> Result<Out, E> + Send + 'static,
    In: DeserializeOwned,
    Out: Serialize,
    E: Into<Failure>,
{
    type In = In;
    type Out = Out;
    type Error = E;

    fn run(&mut self, context: &Context<'_>, input: In) -> Result<Out, E> {
        self(context, input)
    }
}

/// Wraps a typed handler: decodes its input by its content type, encodes its result alike.
pub(crate) fn typed<S, H: Handler<S>>(mut handler: H) -> BoxHandler {
    Box::new(move |context, input, output| {
        let content_type = context.content_type();
        let bytes = input.bytes();
        let unencoded = |error: &dyn Display| {
            Failure::last(format!("the handler's result cannot be encoded: {error}"))
        };
        let mut run = |input| handler.run(context, input).map_err(Into::into);
        output.content_type = content_type;
        match content_type {
            ContentType::MSGPACK => {
                let input = from_msgpack(&bytes).map_err(|error| unfit(&error))?;
                output.bytes = to_msgpack(&run(input)?).map_err(|error| unencoded(&error))?;
            }
            ContentType::JSON => {
                let input = serde_json::from_slice(&bytes).map_err(|error| unfit(&error))?;
                let result = run(input)?;
                serde_json::to_writer(&mut output.bytes, &result)
                    .map_err(|error| unencoded(&error))?;
            }
            _ => {
                return Err(Failure::last(format!(
                    "the handler takes MessagePack (content type 1) or JSON (2), the task has \
                     content type {content_type}; submit it as one of the two"
                )));
            }
        }
        Ok(())
    })
}

fn unfit(error: &dyn Display) -> Failure {
    Failure::last(format!("the payload does not fit the handler's input: {error}"))
}

/// Wraps a handler of Protocol Buffers messages.
#[cfg(feature = "protobuf")]
pub(crate) fn protobuf<F, In, Out, E>(mut handler: F) -> BoxHandler
where
    F: FnMut(&Context<'_>, In) -> Result<Out, E> + Send + 'static,
    In: prost::Message + Default,
    Out: prost::Message,
    E: Into<Failure>,
{
    Box::new(move |context, input, output| {
        let content_type = context.content_type();
        if content_type != ContentType::PROTOBUF {
            return Err(Failure::last(format!(
                "the handler takes Protocol Buffers (content type 3), the task has content type \
                 {content_type}; submit it with that content type"
            )));
        }
        let input = In::decode(&*input.bytes()).map_err(|error| unfit(&error))?;
        let result = handler(context, input).map_err(Into::into)?;
        output.content_type = ContentType::PROTOBUF;
        output.bytes.reserve(result.encoded_len());
        result.encode_raw(&mut output.bytes);
        Ok(())
    })
}

/// Wraps a raw handler.
pub(crate) fn raw<F, E>(mut handler: F) -> BoxHandler
where
    F: FnMut(&Context<'_>, Input<'_>, &mut Output) -> Result<(), E> + Send + 'static,
    E: Into<Failure>,
{
    Box::new(move |context, input, output| handler(context, input, output).map_err(Into::into))
}
