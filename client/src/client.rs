//! The client: connecting, and the short forms of what [`Task`] can do.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use pinmesh_protocol::id::{PeerId, RequestId};
use pinmesh_protocol::limits::{NAME_BYTES_MAX, WINDOW_TASKS_MAX};
use pinmesh_protocol::rendezvous;
use pinmesh_session::client::{Cancel, ClientConfig, ClientCounters};
use pinmesh_transport::{
    Context, ContextOptions, Dealer, Endpoint, PeerKeys, Poller, SocketOptions, Token,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::completion::{Completions, lock};
use crate::handle::Handle;
use crate::io_loop::IoLoop;
use crate::map::Map;
use crate::net::Net;
use crate::payload::Bytes;
use crate::shared::{Bounds, Order, Shared};
use crate::task::Task;
use crate::{Error, Result};

/// Broker that a builder without one connects to.
pub const DEFAULT_BROKER: &str = "tcp://127.0.0.1:5555";
/// Brokers that one client may be given.
pub const BROKERS_MAX: usize = 256;
/// How long a client that is dropped goes on handing what is queued to its sockets.
const LINGER: Duration = Duration::from_secs(1);
/// Token of the waker; those of the sockets count from 0.
const WAKER: Token = Token(usize::MAX - 1);

/// How a client is made. See [`Client::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    brokers: Vec<String>,
    name: Option<String>,
    tasks: u32,
    bytes: u64,
    connect_timeout: Duration,
    keys: Option<PeerKeys>,
}

impl Builder {
    /// Adds a broker: `tcp://HOST:PORT` or `ipc:///PATH`. Tasks go to the one with the fewest
    /// outstanding, those with a [key](Task::key) to the one that is the key's, for which all
    /// clients must name a broker alike. Default: [`DEFAULT_BROKER`] alone.
    #[must_use]
    pub fn broker(mut self, endpoint: impl Into<String>) -> Self {
        self.brokers.push(endpoint.into());
        self
    }

    /// Its name for people, and what fairness between clients goes by. Default: `program@host`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The most tasks that may be unresolved, 1 to 1,000,000; more wait in `submit`, or are
    /// [`Error::Full`]. Default: 10,000. The broker's own window for this client, 10,000 unless
    /// configured, bounds how many of them it has been handed.
    #[must_use]
    pub fn window(mut self, tasks: u32) -> Self {
        self.tasks = tasks;
        self
    }

    /// The most bytes of their payloads; one task is always taken. Default: 256 MiB.
    #[must_use]
    pub fn window_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Encrypts, and shows the brokers who this is: its own key, which their `authorized_keys` must
    /// list as a client, and theirs; see [`PeerKeys::load`]. Default: no keys, for brokers on the
    /// same host. Needs a build with the feature `curve`.
    #[must_use]
    pub fn keys(mut self, keys: PeerKeys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// How long [`connect`](Self::connect) waits for the first session. Default: 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Starts the client and waits until a session with one of the brokers is open.
    ///
    /// # Errors
    /// [`Error::Unreachable`] after the connect timeout, [`Error::SessionRefused`], an argument out
    /// of its range, or the system out of resources.
    pub fn connect(self) -> Result<Client> {
        let timeout = self.connect_timeout;
        let client = self.start()?;
        client.wait_connected(timeout)?;
        Ok(client)
    }

    /// Starts the client without waiting. Tasks are queued, inside the client's window, until a
    /// broker is there.
    ///
    /// # Errors
    /// An argument out of its range, or the system out of resources.
    pub fn start(mut self) -> Result<Client> {
        if self.brokers.is_empty() {
            self.brokers.push(DEFAULT_BROKER.into());
        }
        if self.brokers.len() > BROKERS_MAX {
            let remedy = format!("a client takes at most {BROKERS_MAX}");
            return Err(Error::invalid("brokers", self.brokers.len(), &remedy));
        }
        if !(1..=WINDOW_TASKS_MAX).contains(&self.tasks) {
            let remedy = format!("must be from 1 to {WINDOW_TASKS_MAX}");
            return Err(Error::invalid("window", self.tasks, &remedy));
        }
        let name = self.name.unwrap_or_else(default_name);
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let remedy = format!("must have from 1 to {NAME_BYTES_MAX} bytes");
            return Err(Error::invalid("name", format!("`{name}`"), &remedy));
        }
        let endpoints: Result<Vec<Endpoint>> =
            self.brokers.iter().map(|text| Ok(text.parse::<Endpoint>()?)).collect();
        let bounds = Bounds { tasks: self.tasks, bytes: self.bytes };
        let options = PeerKeys::socket_options(self.keys.as_ref(), self.brokers.len())?;
        let endpoints = endpoints?.into_iter().zip(options).collect();
        let keys_hint = self.keys.map(|keys| keys_hint(&keys));
        Client::spawn(endpoints, name, bounds, keys_hint)
    }
}

/// A broker does not answer whom it does not let in, so its silence has one more reason.
fn keys_hint(keys: &PeerKeys) -> String {
    let own = keys.public();
    format!("or its authorized_keys does not list {own} as client, or its key is another")
}

/// `program@host`, cut to what the wire takes.
fn default_name() -> String {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let program = program.as_deref().and_then(|path| path.file_name());
    let program = program.map_or("client".into(), |name| name.to_string_lossy());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    let mut name = format!("{program}@{host}");
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    name
}

fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let flags = rustix::rand::GetRandomFlags::empty();
    match rustix::rand::getrandom(&mut bytes, flags) {
        Ok(count) if count == N => Ok(bytes),
        Ok(_) => Err(Error::System { action: "draw random bytes", reason: "too few".into() }),
        Err(error) => Err(Error::System { action: "draw random bytes", reason: error.to_string() }),
    }
}

/// The one who owns the IO thread: dropped with the last clone of the client.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    io_thread: ThreadId,
    /// Locked until it has ended, so that each who closes the client waits for that.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Owner {
    fn close(&self, timeout: Duration, awaits_results: bool) {
        let now = Instant::now();
        let until = now.checked_add(timeout).unwrap_or(now + Duration::from_secs(1 << 30));
        // Fails only if it was closed before.
        let _ = self.shared.order(Order::Close { until, awaits_results });
        // A waker that the IO thread calls may drop the last clone there.
        if self.io_thread == std::thread::current().id() {
            return;
        }
        let mut thread = lock(&self.thread);
        if let Some(thread) = thread.take() {
            // A panic of that thread was printed, and its tasks have been told.
            let _ = thread.join();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close(LINGER, false);
    }
}

/// Submits tasks to the mesh. Cheap to clone; clones share one IO thread and one window.
///
/// Dropping the last clone hands what is queued to the sockets, for a second at most, and tells
/// every handle that is left [`Error::Closed`]. See [`close`](Self::close) for waiting longer.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    owner: Arc<Owner>,
}

impl Client {
    /// Connects to one broker with everything else at its default.
    ///
    /// # Errors
    /// Those of [`Builder::connect`].
    pub fn connect(broker: impl Into<String>) -> Result<Self> {
        Self::builder().broker(broker).connect()
    }

    /// Everything that can be set.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            brokers: Vec::new(),
            name: None,
            tasks: 10_000,
            bytes: 256 << 20,
            connect_timeout: Duration::from_secs(10),
            keys: None,
        }
    }

    fn spawn(
        endpoints: Vec<(Endpoint, SocketOptions)>,
        name: String,
        bounds: Bounds,
        keys_hint: Option<String>,
    ) -> Result<Self> {
        let names: Vec<_> = endpoints.iter().map(|(endpoint, _)| endpoint.to_string()).collect();
        let brokers = names.iter().map(|name| rendezvous::hash(name.as_bytes())).collect();
        let shared = Arc::new(Shared::new(names, bounds, keys_hint));
        let context = Context::new(&ContextOptions::default())?;
        for (endpoint, options) in &endpoints {
            // One that cannot be connected to at all is told here, not by a timeout.
            drop(Dealer::connect(&context, endpoint, options)?);
        }
        let mut poller = Poller::new()?;
        shared.set_waker(poller.waker(WAKER)?);
        let config = ClientConfig {
            peer_id: PeerId(random_bytes()?),
            name: name.into(),
            seed: u64::from_ne_bytes(random_bytes()?),
            brokers,
            unresolved_max: bounds.tasks as usize,
        };
        let net = Net::new(context, endpoints, poller, Arc::clone(&shared));
        let io_loop = IoLoop::new(config, net, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("pinmesh-client".into())
            .spawn(move || io_loop.run())
            .map_err(|error| Error::System {
                action: "start the client's IO thread",
                reason: error.to_string(),
            })?;
        let (io_thread, thread) = (thread.thread().id(), Mutex::new(Some(thread)));
        let owner = Owner { shared: Arc::clone(&shared), io_thread, thread };
        Ok(Self { shared, owner: Arc::new(owner) })
    }

    /// Waits until a session with one of the brokers is open.
    ///
    /// # Errors
    /// [`Error::Unreachable`] after `timeout`, [`Error::SessionRefused`], [`Error::Closed`].
    pub fn wait_connected(&self, timeout: Duration) -> Result<()> {
        self.shared.wait_open(timeout)
    }

    /// A task with options; reuse one for many of the same kind.
    pub fn task(&self, service: &str) -> Task<'_> {
        Task::new(self, service)
    }

    /// Runs a task and waits for its output. Input and output are MessagePack.
    ///
    /// # Errors
    /// How else the task ended.
    pub fn call<In, Out>(&self, service: &str, input: &In) -> Result<Out>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        self.task(service).call(input)
    }

    /// Hands a task in; waits only while the client's window is full. Input and output are
    /// MessagePack. Dropping the handle lets the task go on.
    ///
    /// # Errors
    /// The input cannot be encoded, is too long, or the client is closed.
    pub fn submit<In, Out>(&self, service: &str, input: &In) -> Result<Handle<Out>>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        self.task(service).submit(input)
    }

    /// As [`submit`](Self::submit), but never waits.
    ///
    /// # Errors
    /// [`Error::Full`] while the client's window is; and as there.
    pub fn try_submit<In, Out>(&self, service: &str, input: &In) -> Result<Handle<Out>>
    where
        In: Serialize + ?Sized,
        Out: DeserializeOwned,
    {
        self.task(service).try_submit(input)
    }

    /// Runs a task on raw bytes and waits for its raw output.
    ///
    /// # Errors
    /// How else the task ended.
    pub fn call_raw(&self, service: &str, input: &[u8]) -> Result<Bytes> {
        self.task(service).call_raw(input.to_vec()).map(|reply| reply.value)
    }

    /// Hands a task with raw bytes in; waits only while the client's window is full.
    ///
    /// # Errors
    /// The input is too long, or the client is closed.
    pub fn submit_raw(&self, service: &str, input: Vec<u8>) -> Result<Handle<Bytes>> {
        self.task(service).submit_raw(input)
    }

    /// Runs one task for each input, at most `window` at a time (at least one), and gives the
    /// outputs in the order in which they come, each with the place of its input. Inputs are pulled
    /// as the window has room for them. Dropping the iterator cancels what is under way. With options:
    /// [`Task::map`].
    pub fn map<I, In, Out>(&self, service: &str, inputs: I, window: usize) -> Map<I::IntoIter, Out>
    where
        I: IntoIterator<Item = In>,
        In: Serialize,
        Out: DeserializeOwned,
    {
        self.task(service).map(inputs, window)
    }

    /// A queue for the ends of many tasks: see [`Task::submit_raw_to`].
    pub fn completions(&self) -> Completions {
        Completions::default()
    }

    /// Measures a round trip to the first broker with an open session; waits for one, `timeout` in
    /// all. Returns the round trip and the epoch, the number of the broker's life.
    ///
    /// # Errors
    /// [`Error::Unreachable`] after `timeout`, [`Error::Closed`].
    pub fn ping(&self, timeout: Duration) -> Result<(Duration, u32)> {
        let (sender, receiver) = channel();
        self.shared.order(Order::Ping(sender))?;
        match receiver.recv_timeout(timeout) {
            Ok(pong) => Ok((Duration::from_nanos(pong.round_trip_ns), pong.epoch.0)),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Err(Error::Closed),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Err(Error::Unreachable {
                endpoints: self.shared.endpoints.join(", "),
                waited: timeout,
                reason: "no echo".into(),
            }),
        }
    }

    /// Asks for a task to be stopped. It then ends [`Error::Cancelled`], or as it ended if that was
    /// faster.
    pub fn cancel(&self, request_id: RequestId) {
        self.shared.cancel(request_id, Cancel::Soft);
    }

    /// As [`cancel`](Self::cancel), but kills what runs: see [`Handle::cancel_hard`].
    pub fn cancel_hard(&self, request_id: RequestId) {
        self.shared.cancel(request_id, Cancel::Hard);
    }

    /// Tasks that have been handed in and not ended.
    pub fn unresolved(&self) -> u32 {
        self.shared.unresolved()
    }

    /// What the client has counted, as of the IO thread's last turn.
    pub fn counters(&self) -> ClientCounters {
        self.shared.counters()
    }

    /// Waits until every task has ended, at most `timeout`, then closes the client and all its
    /// clones. What has not ended by then is told [`Error::Closed`].
    ///
    /// # Errors
    /// [`Error::WaitTimedOut`]: some had not ended.
    pub fn close(self, timeout: Duration) -> Result<()> {
        self.owner.close(timeout, true);
        let is_late = self.shared.is_cut_short();
        if is_late { Err(Error::WaitTimedOut { waited: timeout }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_two_that_close_a_client_is_told_whether_all_had_ended() {
        let client = Client::builder().broker("tcp://127.0.0.1:1").start().unwrap();
        let _handle = client.submit_raw("echo", Vec::new()).unwrap();
        let patient = client.clone();
        let patient = std::thread::spawn(move || patient.close(Duration::from_secs(30)));
        while client.owner.thread.try_lock().is_ok_and(|thread| thread.is_some()) {
            std::thread::yield_now();
        }
        let told = client.close(Duration::ZERO);
        assert!(matches!(told, Err(Error::WaitTimedOut { .. })), "{told:?}");
        assert!(matches!(patient.join().unwrap(), Err(Error::WaitTimedOut { .. })));
    }
}
