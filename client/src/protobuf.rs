//! Protocol Buffers messages as inputs and outputs.

use pinmesh_protocol::id::{ContentType, RequestId};
use prost::Message;

use crate::completion::Completions;
use crate::handle::Handle;
use crate::payload::{RawReply, Reply, mismatch};
use crate::plan::WhenFull;
use crate::task::Task;
use crate::{Error, Result};

fn decode<T: Message + Default>(reply: RawReply) -> Result<Reply<T>> {
    if reply.content_type != ContentType::PROTOBUF {
        return Err(mismatch::<T>(reply.content_type, "Protocol Buffers"));
    }
    let value = T::decode(&*reply.value).map_err(|error| Error::Decode {
        expected: std::any::type_name::<T>(),
        reason: error.to_string(),
    })?;
    Ok(reply.replace(value))
}

impl RawReply {
    /// Decodes an output that is a Protocol Buffers message.
    ///
    /// # Errors
    /// [`Error::Decode`]: its content type is another one, or it is no `T`.
    pub fn decode_protobuf<T: Message + Default>(self) -> Result<Reply<T>> {
        decode(self)
    }
}

impl Task<'_> {
    /// Runs it on a message and waits for the message that it gives.
    ///
    /// # Errors
    /// How else it ended.
    pub fn call_protobuf<In: Message, Out: Message + Default>(&self, input: &In) -> Result<Out> {
        let handle = self.submit_protobuf(input)?.cancelling_on_drop();
        self.await_call(handle).map(|reply| reply.value)
    }

    /// Hands it in with a message; waits only while the client's window is full.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub fn submit_protobuf<In: Message, Out: Message + Default>(
        &self,
        input: &In,
    ) -> Result<Handle<Out>> {
        self.hand_in(input.encode_to_vec(), ContentType::PROTOBUF, decode, WhenFull::Wait)
    }

    /// Hands it in with a message; its end goes to the queue with `token`. Waits only while the
    /// client's window is full. See [`RawReply::decode_protobuf`].
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit). Nothing goes to the queue then.
    pub fn submit_protobuf_to<In: Message>(
        &self,
        queue: &Completions,
        token: u64,
        input: &In,
    ) -> Result<RequestId> {
        let (input, content_type) = (input.encode_to_vec(), ContentType::PROTOBUF);
        self.send_to(queue, token, input, content_type, WhenFull::Wait)
    }
}
