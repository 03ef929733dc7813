//! One task, or many of the same kind, with options.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pinmesh_protocol::id::{ContentType, Priority, RequestId};
use pinmesh_protocol::limits::KEY_BYTES_MAX;
use pinmesh_protocol::rendezvous;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::callback::{self, OnEnd};
use crate::client::Client;
use crate::completion::{Completions, Slot, Ticket};
use crate::handle::{Decoder, Handle};
use crate::map::Map;
use crate::payload::{Bytes, Encoding, RawReply, Reply, decode, keep_raw};
use crate::plan::{Listens, Plan, WhenFull};
use crate::updates::{Listener, Update};
use crate::{Error, Result};

/// What to run and how. Made by [`Client::task`]; an option out of its range is told by the call
/// that hands the task in.
#[derive(Clone, Debug)]
pub struct Task<'c> {
    client: &'c Client,
    plan: Plan,
}

impl<'c> Task<'c> {
    pub(crate) fn new(client: &'c Client, service: &str) -> Self {
        Self { client, plan: Plan::new(client.shared.service(service)) }
    }

    /// From 1 to 10, the most urgent. Default: 5.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        match Priority::new(priority) {
            Some(priority) => self.plan.priority = priority,
            None => {
                let remedy = "must be from 1 to 10, the most urgent";
                self.plan.fault = Some(Error::invalid("priority", priority, remedy));
            }
        }
        self
    }

    /// After so long nobody wants the result: the task ends [`Error::Expired`]. Counts from the
    /// moment that it is handed in. Default: none.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.plan.deadline = Some(deadline);
        self
    }

    /// Not to be started before so long has passed since it was handed in. Until then it waits in
    /// its broker and counts there and in this client's window. Default: at once.
    #[must_use]
    pub fn start_after(mut self, start_after: Duration) -> Self {
        self.plan.start_after = Some(start_after);
        self
    }

    /// Kill it if it still runs when its deadline passes, where its worker has a supervisor. Default:
    /// its handler is asked to stop, and may go on. It ends [`Error::Expired`] either way.
    #[must_use]
    pub fn kill_at_deadline(self) -> Self {
        self.set(|options| options.kill_at_deadline = true)
    }

    /// The longest that a `call` waits: the task is then cancelled and the call ends
    /// [`Error::WaitTimedOut`]. Default: for ever.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.plan.timeout = Some(timeout);
        self
    }

    /// Only workers that have all these labels may run it (`pinmesh-worker --label`). The service with
    /// its labels, such as `resize{gpu,numa=1}`, is a service of its own: with its own queue, limits
    /// and turn, by that name in the broker's lists; its tasks end [`Error::NoService`] if there is no
    /// such worker for a while. [`Client::task`] takes that name too. Name all labels in one call.
    /// Default: none.
    ///
    /// ```no_run
    /// # fn main() -> pinmesh_client::Result<()> {
    /// # let client = pinmesh_client::Client::connect("tcp://127.0.0.1:5555")?;
    /// let near: Vec<u8> = client.task("resize").requires(["gpu", "numa=1"]).call(&b"image")?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn requires<L: Into<String>>(mut self, labels: impl IntoIterator<Item = L>) -> Self {
        let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
        self.plan.require(&self.client.shared, &labels);
        self
    }

    /// The longest that one attempt may run before it is killed. Default: the broker's, 1 h.
    #[must_use]
    pub fn max_runtime(mut self, max_runtime: Duration) -> Self {
        let ns = u64::try_from(max_runtime.as_nanos()).unwrap_or(u64::MAX);
        if ns == 0 {
            let remedy = "must be longer than nothing";
            self.plan.fault = Some(Error::invalid("max_runtime", "0", remedy));
        }
        self.set(|options| options.max_runtime_ns = Some(ns))
    }

    /// Starts that may end badly before the task ends for good, 1 or more: an error of its handler
    /// that is not its last word, a run past its max runtime, a crash of its worker. 1: it is never
    /// tried again. Default: the broker's, 3.
    #[must_use]
    pub fn tries_max(mut self, tries_max: u32) -> Self {
        if tries_max == 0 {
            self.plan.fault = Some(Error::invalid("tries_max", 0, "must be 1 or more"));
        }
        self.set(|options| options.tries_max = Some(tries_max))
    }

    /// How long it waits before it is tried again: a random time up to `first`, doubled before each
    /// further try, and `most` at the most. Default: the broker's, 1 s and 5 min.
    #[must_use]
    pub fn backoff(self, first: Duration, most: Duration) -> Self {
        let ns = |span: Duration| Some(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
        self.set(|options| {
            options.backoff_ns = ns(first);
            options.backoff_max_ns = ns(most);
        })
    }

    /// Never run it again, after a loss or an error: after a loss it ends [`Error::Lost`].
    #[must_use]
    pub fn at_most_once(self) -> Self {
        self.set(|options| options.at_most_once = true)
    }

    /// Tell [`Error::Busy`] instead of waiting and handing the task in again. While every broker is to
    /// be left alone with the service, because it said so to an earlier task, it is told at once.
    #[must_use]
    pub fn show_busy(mut self) -> Self {
        self.plan.shows_busy = true;
        self
    }

    /// Calls this with each update of the running task, on the client's own thread: while it runs
    /// nothing else comes to this client, and waiting there for a task is
    /// [`Error::InCallback`]. A panic is logged, and the task goes on.
    #[must_use]
    pub fn on_update(mut self, call: impl Fn(Update) + Send + Sync + 'static) -> Self {
        self.plan.listens = Listens::Call(Arc::new(call));
        self
    }

    /// Keeps the updates of the running task for [`Handle::updates`]. Of no effect on calls that give
    /// no handle.
    #[must_use]
    pub fn keep_updates(mut self) -> Self {
        self.plan.listens = Listens::Handle;
        self
    }

    /// What inputs that serde knows are encoded in. Default: MessagePack. The output is decoded by
    /// its own content type.
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.plan.encoding = encoding;
        self
    }

    /// What raw bytes are encoded in. Default: [`ContentType::RAW`]. Of no effect on the calls that
    /// encode their input themselves.
    #[must_use]
    pub fn content_type(mut self, content_type: ContentType) -> Self {
        self.plan.content_type = Some(content_type);
        self
    }

    /// Sends it where all tasks with this routing key go, 1 to 128 bytes (it says where, and makes
    /// nothing run once: that is [`idempotency_key`](Self::idempotency_key)): of several brokers the one that
    /// is the key's, by rendezvous hashing, whichever client asks and in whatever order it names
    /// the brokers. While that one is lost or BUSY, to the next of the key. The key stays in the
    /// client. Default: the broker with the fewest outstanding.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        let key = key.as_ref();
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let remedy = format!("must have from 1 to {KEY_BYTES_MAX} bytes");
            let key = format!("`{}`", String::from_utf8_lossy(key));
            self.plan.fault = Some(Error::invalid("key", key, &remedy));
        }
        self.plan.key = Some(rendezvous::hash(key));
        self
    }

    /// The idempotency key, 1 to 128 bytes: at its broker all requests with the same one, from
    /// whatever client, are one task, which runs once, and get its outcome; later ones too, while the
    /// broker keeps it ([`retention`](Self::retention)). The input and the options of the request that
    /// came first count. The key says which of several brokers it goes to, so that requests with the
    /// same one meet; it and [`key`](Self::key) exclude each other. What the task says while it runs
    /// is told to nobody. Default: none, and each request is a task of its own.
    ///
    /// ```no_run
    /// # fn main() -> pinmesh_client::Result<()> {
    /// # let client = pinmesh_client::Client::connect("tcp://127.0.0.1:5555")?;
    /// let invoice: u64 = client.task("invoice").idempotency_key("order-4711").call(&4711)?;
    /// // Asked again, by another process perhaps: no second invoice.
    /// let same: u64 = client.task("invoice").idempotency_key("order-4711").call(&4711)?;
    /// # assert_eq!(invoice, same);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn idempotency_key(mut self, key: impl AsRef<[u8]>) -> Self {
        let key = key.as_ref();
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let remedy = format!("must have from 1 to {KEY_BYTES_MAX} bytes");
            let key = format!("`{}`", String::from_utf8_lossy(key));
            self.plan.fault = Some(Error::invalid("idempotency_key", key, &remedy));
        }
        self.set(|options| options.key = Some(key.into()))
    }

    /// How long the broker keeps the outcome under the idempotency key, from the task's end. Default:
    /// the broker's, 10 min, and 1 h for a task of [`submit_detached`](Self::submit_detached). More
    /// than the broker's maximum, 24 h, is [`Error::Refused`].
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        let ns = u64::try_from(retention.as_nanos()).unwrap_or(u64::MAX);
        if ns == 0 {
            let remedy = "must be longer than nothing";
            self.plan.fault = Some(Error::invalid("retention", "0", remedy));
        }
        self.set(|options| options.retention_ns = Some(ns))
    }

    /// If this client is gone for good before it has started it runs all the same, and is tried
    /// again; its result is dropped. Default: it is cancelled.
    #[must_use]
    pub fn run_on(self) -> Self {
        self.set(|options| options.run_on = true)
    }

    fn set(mut self, set: impl FnOnce(&mut pinmesh_protocol::TaskOptions)) -> Self {
        self.plan.set(set);
        self
    }

    /// Runs one task for each input, at most `window` at a time (at least one), all with the options
    /// of this one but for its timeout. See [`Client::map`].
    pub fn map<I, In, Out>(&self, inputs: I, window: usize) -> Map<I::IntoIter, Out>
    where
        I: IntoIterator<Item = In>,
        In: Serialize,
        Out: DeserializeOwned,
    {
        Map::new(self.client.clone(), self.plan.clone(), inputs.into_iter(), window)
    }

    /// Runs it and waits for its output.
    ///
    /// # Errors
    /// How else it ended.
    pub fn call<In, Out>(&self, input: &In) -> Result<Out>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        self.call_reply(input).map(|reply| reply.value)
    }

    /// Runs it and waits for its output and how that came about.
    ///
    /// # Errors
    /// How else it ended.
    pub fn call_reply<In, Out>(&self, input: &In) -> Result<Reply<Out>>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        self.await_call(self.call_async(input)?)
    }

    /// Runs it on raw bytes and waits for its raw output.
    ///
    /// # Errors
    /// How else it ended.
    pub fn call_raw(&self, input: Vec<u8>) -> Result<RawReply> {
        self.await_call(self.submit_raw(input)?.cancelling_on_drop())
    }

    pub(crate) fn await_call<T>(&self, mut handle: Handle<T>) -> Result<Reply<T>> {
        match self.plan.timeout {
            None => handle.wait_reply(),
            Some(timeout) => handle.wait_reply_timeout(timeout),
        }
    }

    /// Hands it in. The handle is the call's future; dropping it cancels the task.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub fn call_async<In, Out>(&self, input: &In) -> Result<Handle<Out>>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        self.submit(input).map(Handle::cancelling_on_drop)
    }

    /// Hands it in; waits only while the client's window is full.
    ///
    /// # Errors
    /// The input cannot be encoded or is too long, an option is out of its range, or the client is
    /// closed.
    pub fn submit<In, Out>(&self, input: &In) -> Result<Handle<Out>>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        self.hand_in_encoded(input, WhenFull::Wait)
    }

    /// Hands it in without ever waiting.
    ///
    /// # Errors
    /// [`Error::Full`] while the client's window is; and those of [`submit`](Self::submit).
    pub fn try_submit<In, Out>(&self, input: &In) -> Result<Handle<Out>>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        self.hand_in_encoded(input, WhenFull::Fail)
    }

    /// Hands it in with raw bytes.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub fn submit_raw(&self, input: Vec<u8>) -> Result<Handle<Bytes>> {
        let content_type = self.plan.content_type.unwrap_or(ContentType::RAW);
        self.hand_in(input, content_type, keep_raw, WhenFull::Wait)
    }

    /// Hands it in with raw bytes, without ever waiting.
    ///
    /// # Errors
    /// Those of [`try_submit`](Self::try_submit).
    pub fn try_submit_raw(&self, input: Vec<u8>) -> Result<Handle<Bytes>> {
        let content_type = self.plan.content_type.unwrap_or(ContentType::RAW);
        self.hand_in(input, content_type, keep_raw, WhenFull::Fail)
    }

    /// Hands it in; `call` is called once, with its output or how else it ended, on the client's own
    /// thread. Callbacks run there one after the other and in the order of the ends: a slow one
    /// delays all that comes to this client. In one, no call waits: a `submit` that finds the window
    /// full is [`Error::Full`], waiting for a task is [`Error::InCallback`]. A panic is logged and
    /// harms nobody. When the client is closed, what has not ended is told [`Error::Closed`], on the
    /// thread that closes it or on the client's.
    ///
    /// ```no_run
    /// # fn main() -> pinmesh_client::Result<()> {
    /// # let client = pinmesh_client::Client::connect("tcp://127.0.0.1:5555")?;
    /// client.task("sum").submit_with(&[1, 2, 3], |sum: pinmesh_client::Result<u64>| match sum {
    ///     Ok(sum) => println!("{sum}"),
    ///     Err(error) => eprintln!("{error}"),
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit). Nothing is called then.
    pub fn submit_with<In, Out>(
        &self,
        input: &In,
        call: impl FnOnce(Result<Out>) + Send + 'static,
    ) -> Result<RequestId>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        let encoding = self.plan.encoding;
        let (input, content_type) = (encoding.encode(input)?, encoding.content_type());
        let call = OnEnd(Box::new(move |outcome| {
            call(outcome.and_then(decode).map(|reply| reply.value));
        }));
        let to = (Ticket::to_callback(call), self.plan.listens.listener(None));
        self.plan.send(&self.client.shared, input, content_type, to, WhenFull::Wait)
    }

    /// Hands it in for good and waits until the broker has it: from then on it goes on without this
    /// client, and its outcome is fetched by its [idempotency key](Self::idempotency_key), which it
    /// must have, with [`Client::fetch`]. Returns the broker's number of it. Waits at most
    /// [`timeout`](Self::timeout), if there is one.
    ///
    /// ```no_run
    /// # fn main() -> pinmesh_client::Result<()> {
    /// # let client = pinmesh_client::Client::connect("tcp://127.0.0.1:5555")?;
    /// client.task("report").idempotency_key("report-2026-11").submit_detached(&2026)?;
    /// // Here or in another process:
    /// let report: String = client.fetch("report-2026-11")?.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit); how it ended, if it did otherwise than by its handler before
    /// the broker had said that it has it; [`Error::WaitTimedOut`]: the broker may have it yet.
    pub fn submit_detached<In: Serialize + ?Sized>(&self, input: &In) -> Result<u64> {
        let encoding = self.plan.encoding;
        self.detach(encoding.encode(input)?, encoding.content_type())
    }

    /// As [`submit_detached`](Self::submit_detached), with raw bytes.
    ///
    /// # Errors
    /// As there.
    pub fn submit_detached_raw(&self, input: Vec<u8>) -> Result<u64> {
        let content_type = self.plan.content_type.unwrap_or(ContentType::RAW);
        self.detach(input, content_type)
    }

    fn detach(&self, input: Vec<u8>, content_type: ContentType) -> Result<u64> {
        if callback::is_inside() {
            return Err(Error::InCallback);
        }
        let mut plan = self.plan.clone();
        plan.set(|options| options.detached = true);
        let slot = Arc::new(Slot::new());
        let (sender, accepted) = channel();
        let to = (Ticket::to_slot(Arc::clone(&slot)), Listener::None, Some(sender));
        plan.send_noting(&self.client.shared, input, content_type, to, WhenFull::Wait)?;
        let task = match plan.timeout {
            None => accepted.recv().ok(),
            Some(waited) => match accepted.recv_timeout(waited) {
                Ok(task) => Some(task),
                Err(RecvTimeoutError::Timeout) => return Err(Error::WaitTimedOut { waited }),
                Err(RecvTimeoutError::Disconnected) => None,
            },
        };
        match task {
            Some(task) => Ok(task.0),
            // It ended first; the slot is filled just after its request was forgotten.
            None => slot.wait(None).unwrap_or(Err(Error::Closed)).map(|_| 0),
        }
    }

    /// Hands it in with raw bytes; its end goes to the queue with `token`. Waits only while the
    /// client's window is full.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit). Nothing goes to the queue then.
    pub fn submit_raw_to(
        &self,
        queue: &Completions,
        token: u64,
        input: Vec<u8>,
    ) -> Result<RequestId> {
        let content_type = self.plan.content_type.unwrap_or(ContentType::RAW);
        self.send_to(queue, token, input, content_type, WhenFull::Wait)
    }

    /// As [`submit_raw_to`](Self::submit_raw_to), without ever waiting.
    ///
    /// # Errors
    /// Those of [`try_submit`](Self::try_submit). Nothing goes to the queue then.
    pub fn try_submit_raw_to(
        &self,
        queue: &Completions,
        token: u64,
        input: Vec<u8>,
    ) -> Result<RequestId> {
        let content_type = self.plan.content_type.unwrap_or(ContentType::RAW);
        self.send_to(queue, token, input, content_type, WhenFull::Fail)
    }

    /// Hands it in; its end goes to the queue with `token`. Waits only while the client's window is
    /// full.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit). Nothing goes to the queue then.
    pub fn submit_to<In: Serialize + ?Sized>(
        &self,
        queue: &Completions,
        token: u64,
        input: &In,
    ) -> Result<RequestId> {
        self.plan.submit_to(&self.client.shared, queue, token, input)
    }

    pub(crate) fn send_to(
        &self,
        queue: &Completions,
        token: u64,
        input: Vec<u8>,
        content_type: ContentType,
        when_full: WhenFull,
    ) -> Result<RequestId> {
        let to = (Ticket::to_queue(queue.clone(), token), self.plan.listens.listener(None));
        self.plan.send(&self.client.shared, input, content_type, to, when_full)
    }

    fn hand_in_encoded<In, Out>(&self, input: &In, when_full: WhenFull) -> Result<Handle<Out>>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        let encoding = self.plan.encoding;
        let (input, content_type) = (encoding.encode(input)?, encoding.content_type());
        self.hand_in(input, content_type, decode, when_full)
    }

    pub(crate) fn hand_in<T>(
        &self,
        input: Vec<u8>,
        content_type: ContentType,
        decoder: Decoder<T>,
        when_full: WhenFull,
    ) -> Result<Handle<T>> {
        let slot = Arc::new(Slot::new());
        let ticket = Ticket::to_slot(Arc::clone(&slot));
        let shared = &self.client.shared;
        let listener = self.plan.listens.listener(Some(shared));
        let updates = match &listener {
            Listener::Queue(queue) => Some(Arc::clone(queue)),
            Listener::None | Listener::Call(_) => None,
        };
        let to = (ticket, listener);
        let request_id = self.plan.send(shared, input, content_type, to, when_full)?;
        Ok(Handle::new(slot, Arc::clone(shared), request_id, decoder, updates))
    }
}
