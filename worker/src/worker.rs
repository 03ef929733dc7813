//! The builder: services and their handlers, and the ways to run them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use mio::unix::SourceFd;
use mio::{Interest, Waker};
use pinmesh_histogram::{IntervalRecorder, LatencyLog, Precision};
use pinmesh_protocol::id::{Incarnation, PeerId, Slot};
use pinmesh_protocol::limits::{LABELS_MAX, NAME_BYTES_MAX, SERVICES_MAX};
use pinmesh_protocol::selector::{Selector, is_label};
use pinmesh_session::worker::WorkerConfig;
use pinmesh_transport::{Endpoint, PeerKeys, Poller, Token};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use crate::error::WorkerError;
use crate::flags::{WorkerFlags, default_name};
use crate::handler::{Context, Failure, Handler, Input, Output, Service, raw, typed};
use crate::page::StatusPage;
use crate::process::{Inherited, Started, started};
use crate::run_loop::{RunLoop, RunLoopConfig};
use crate::supervisor::{self, SupervisorConfig};

/// Bytes of payload that a worker holds at most; a single task may be longer.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// Tasks that an embedded worker holds at most.
const EMBEDDED_WINDOW: u32 = 128;
/// What wakes the loop up besides its sockets, which have the numbers from 0.
const WAKE: Token = Token(usize::MAX);

/// A set of services and their handlers.
#[derive(Default)]
pub struct Worker {
    services: Vec<Service>,
    labels: Vec<String>,
    keys: Option<PeerKeys>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.services.iter().map(|service| &service.name)).finish()
    }
}

/// The command line of a worker that has no flags of its own.
#[derive(Parser, Debug)]
#[command(about = "Runs tasks of a pinmesh broker, one worker process a CPU", version)]
struct CommandLine {
    #[command(flatten)]
    flags: WorkerFlags,
}

impl Worker {
    /// A worker without services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `name` with a function from a deserializable input to a serializable result:
    /// `fn(In) -> Result<Out, E>` or `fn(&Context, In) -> Result<Out, E>`. The input is MessagePack
    /// or JSON, as its content type says, and the result is encoded like it. After an error, or a
    /// panic, the task is tried again, and ends FAILED with the error's text once its tries are used
    /// up; a [`Failure::last`] ends it so at once.
    #[must_use]
    pub fn service<S, H: Handler<S>>(mut self, name: impl Into<String>, handler: H) -> Self {
        self.services.push(Service { name: name.into(), handler: typed(handler) });
        self
    }

    /// Serves `name` with a function from one Protocol Buffers message to another.
    #[cfg(feature = "protobuf")]
    #[must_use]
    pub fn protobuf_service<F, In, Out, E>(mut self, name: impl Into<String>, handler: F) -> Self
    where
        F: FnMut(&Context<'_>, In) -> Result<Out, E> + Send + 'static,
        In: prost::Message + Default,
        Out: prost::Message,
        E: Into<Failure>,
    {
        let handler = crate::handler::protobuf(handler);
        self.services.push(Service { name: name.into(), handler });
        self
    }

    /// Serves `name` with a function on bytes, whatever their content type.
    #[must_use]
    pub fn raw_service<F, E>(mut self, name: impl Into<String>, handler: F) -> Self
    where
        F: FnMut(&Context<'_>, Input<'_>, &mut Output) -> Result<(), E> + Send + 'static,
        E: Into<Failure>,
    {
        self.services.push(Service { name: name.into(), handler: raw(handler) });
        self
    }

    /// Drops the services that `keep` does not want.
    #[must_use]
    pub fn retain(mut self, mut keep: impl FnMut(&str) -> bool) -> Self {
        self.services.retain(|service| keep(&service.name));
        self
    }

    /// Has this label: tasks may require it. `--label` adds more.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.labels.push(label.into());
        self
    }

    /// Encrypts, and shows the brokers who this is: its own key, which their `authorized_keys` must
    /// list as a worker, and theirs; see [`PeerKeys::load`]. Default: no keys, for brokers on the
    /// same host. `--key` and `--broker-key` come before it.
    #[must_use]
    pub fn keys(mut self, keys: PeerKeys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Names of the services.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|service| service.name.as_str())
    }

    /// The whole of a program's `main`: reads the command line ([`WorkerFlags`]), logs to standard
    /// error (filter: `PINMESH_LOG`), and supervises one worker process for each CPU until SIGTERM.
    /// Call it first thing: the same program is started again for each worker.
    pub fn main(self) -> ExitCode {
        self.main_with(&CommandLine::parse().flags)
    }

    /// Like [`Worker::main`], with flags that the program has read.
    pub fn main_with(self, flags: &WorkerFlags) -> ExitCode {
        log_to_stderr();
        match self.run(flags) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error}");
                ExitCode::from(error.exit_code())
            }
        }
    }

    /// Like [`Worker::main_with`], without setting up a log. Returns after a drain.
    ///
    /// # Errors
    /// A service or a flag is not valid, or the system refuses what a worker needs.
    pub fn run(self, flags: &WorkerFlags) -> Result<(), WorkerError> {
        match started().map_err(WorkerError::Process)? {
            Started::Keeper(keeper) => keeper.run(),
            Started::Worker(inherited) => self.run_child(flags, inherited),
            Started::Supervisor => self.supervise(flags),
        }
    }

    fn supervise(mut self, flags: &WorkerFlags) -> Result<(), WorkerError> {
        // As each worker will: what that would refuse is refused here, once.
        self.labels.extend(flags.labels()?);
        self.check()?;
        flags.endpoints()?;
        let keys = flags.keys()?.or(self.keys);
        let config = SupervisorConfig {
            backends: flags.backends.clone(),
            cpus: flags.worker_cpus()?,
            name: flags.worker_name(),
            grace: flags.grace,
            stall_max: flags.stall_max,
            drain_time: flags.drain_time,
            overrun_signal: None,
            worker_memory_bytes: flags.worker_memory,
            keys,
        };
        supervisor::run(&config).map_err(WorkerError::Supervisor)
    }

    fn run_child(mut self, flags: &WorkerFlags, inherited: Inherited) -> Result<(), WorkerError> {
        let page = StatusPage::open(inherited.page).map_err(WorkerError::Page)?;
        let identity = Identity {
            host: Some(inherited.host),
            slot: inherited.slot,
            incarnation: inherited.incarnation,
            name: flags.worker_name(),
        };
        let (stop, poller) = (Arc::new(AtomicBool::new(false)), poller()?);
        let _signal = stop_on_sigterm(&stop, &poller)?;
        let recorder =
            flags.latency_log.as_deref().map(|path| recorder(path, &identity)).transpose()?;
        self.keys = flags.keys()?.or(self.keys);
        self.labels.extend(flags.labels()?);
        let config = self.config(identity, flags.window, flags.endpoints()?)?;
        let config =
            RunLoopConfig { page: Some(page), spin: flags.spin, recorder, ..config(stop, poller) };
        RunLoop::new(config).and_then(RunLoop::run).map_err(WorkerError::Transport)
    }

    /// Runs one worker in a thread of this process, without a supervisor: nothing is pinned, and a
    /// handler that hangs or takes the process down does so for good. For tests, and for programs
    /// that are no server.
    ///
    /// # Errors
    /// A service or an endpoint is not valid, or the system refuses a thread or descriptors.
    pub fn embed(self, backends: &[&str]) -> Result<Embedded, WorkerError> {
        let endpoints = backends.iter().map(|text| {
            text.parse().map_err(|error| WorkerError::Flag {
                flag: "backends",
                value: (*text).to_owned(),
                reason: format!("{error}"),
            })
        });
        let endpoints = endpoints.collect::<Result<Vec<Endpoint>, _>>()?;
        let identity = Identity {
            host: None,
            slot: Slot(0),
            incarnation: Incarnation(1),
            name: default_name(),
        };
        let (stop, mut poller) = (Arc::new(AtomicBool::new(false)), poller()?);
        let waker = poller.waker(WAKE).map_err(WorkerError::Transport)?;
        let config = self.config(identity, EMBEDDED_WINDOW, endpoints)?(stop.clone(), poller);
        let run_loop = RunLoop::new(config).map_err(WorkerError::Transport)?;
        let thread = std::thread::Builder::new()
            .name("pinmesh-worker".into())
            .spawn(move || run_loop.run().map_err(WorkerError::Transport))
            .map_err(WorkerError::System)?;
        Ok(Embedded { stop, waker, thread: Some(thread) })
    }

    /// Checks the services, and returns what makes the loop's configuration of what wakes it.
    fn config(
        self,
        identity: Identity,
        window_tasks: u32,
        endpoints: Vec<Endpoint>,
    ) -> Result<impl FnOnce(Arc<AtomicBool>, Poller) -> RunLoopConfig, WorkerError> {
        self.check()?;
        let sockets = PeerKeys::socket_options(self.keys.as_ref(), endpoints.len());
        let sockets = sockets.map_err(WorkerError::Keys)?;
        let mut random = [0; 24];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| WorkerError::System(errno.into()))?;
        let (peer_id, seed) = random.split_at(16);
        let session = WorkerConfig {
            peer_id: PeerId(peer_id.try_into().expect("split at 16 of 24")),
            name: shortened(identity.name),
            host: identity.host,
            slot: identity.slot,
            incarnation: identity.incarnation,
            services: self.services.iter().map(|service| service.name.clone()).collect(),
            labels: self.labels,
            window_tasks,
            window_bytes: WINDOW_BYTES,
            seed: u64::from_le_bytes(seed.try_into().expect("the other 8 of 24")),
        };
        Ok(move |stop, poller| RunLoopConfig {
            endpoints: endpoints.into_iter().zip(sockets).collect(),
            session,
            services: self.services,
            page: None,
            spin: Duration::ZERO,
            recorder: None,
            stop,
            poller,
        })
    }

    fn check(&self) -> Result<(), WorkerError> {
        if self.services.is_empty() || self.services.len() > SERVICES_MAX {
            return Err(WorkerError::ServiceCount(self.services.len()));
        }
        for (index, service) in self.services.iter().enumerate() {
            let name = &service.name;
            if Selector::parse(name).map_or(true, |selector| selector.is_selective()) {
                return Err(WorkerError::ServiceName(name.clone()));
            }
            if self.services[..index].iter().any(|other| other.name == *name) {
                return Err(WorkerError::ServiceTwice(name.clone()));
            }
        }
        if let Some(label) = self.labels.iter().find(|label| !is_label(label)) {
            return Err(WorkerError::Label(label.clone()));
        }
        if self.labels.len() > LABELS_MAX {
            return Err(WorkerError::LabelCount(self.labels.len()));
        }
        Ok(())
    }
}

struct Identity {
    host: Option<PeerId>,
    slot: Slot,
    incarnation: Incarnation,
    name: String,
}

/// A worker that runs in a thread of this process. Dropping it stops it.
#[derive(Debug)]
pub struct Embedded {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<Result<(), WorkerError>>>,
}

impl Embedded {
    /// Gives back what has not started, finishes what has, and waits until the brokers have
    /// acknowledged it, for at most 5 s.
    ///
    /// # Errors
    /// What ended the worker before.
    pub fn stop(mut self) -> Result<(), WorkerError> {
        self.leave();
        self.wait()
    }

    /// Waits until every broker has drained it, or it has failed.
    ///
    /// # Errors
    /// What ended it.
    pub fn join(mut self) -> Result<(), WorkerError> {
        self.wait()
    }

    fn leave(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // It fails only if the poller is gone, and with it the loop.
        let _ = self.waker.wake();
    }

    fn wait(&mut self) -> Result<(), WorkerError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.leave();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn poller() -> Result<Poller, WorkerError> {
    Poller::new().map_err(WorkerError::Transport)
}

/// Raises `stop` on SIGTERM and wakes the poller. The stream is to be kept as long as the poller.
fn stop_on_sigterm(stop: &Arc<AtomicBool>, poller: &Poller) -> Result<UnixStream, WorkerError> {
    let (reader, writer) = UnixStream::pair().map_err(WorkerError::System)?;
    reader.set_nonblocking(true).map_err(WorkerError::System)?;
    // The flag first: the loop that the stream wakes must find it raised.
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(stop))
        .map_err(WorkerError::System)?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, writer)
        .map_err(WorkerError::System)?;
    let fd = reader.as_raw_fd();
    poller
        .registry()
        .register(&mut SourceFd(&fd), WAKE, Interest::READABLE)
        .map_err(WorkerError::System)?;
    Ok(reader)
}

fn recorder(path: &Path, identity: &Identity) -> Result<IntervalRecorder, WorkerError> {
    let path = log_path(path, identity);
    let log = LatencyLog::create(path, "pinmesh-worker").map_err(WorkerError::LatencyLog)?;
    IntervalRecorder::with_log(Precision::Serving, log, Instant::now())
        .map_err(WorkerError::LatencyLog)
}

/// `w.hlog` of slot 0 in its first life is `w.0-1.hlog`.
fn log_path(path: &Path, identity: &Identity) -> PathBuf {
    let mut extension = format!("{}-{}", identity.slot, identity.incarnation);
    if let Some(own) = path.extension() {
        extension.push('.');
        extension.push_str(&own.to_string_lossy());
    }
    path.with_extension(extension)
}

fn shortened(mut name: String) -> String {
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    name
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PINMESH_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // It would complain of a broken standard error there, panic over that, and take the host down.
    let log = log.log_internal_errors(false);
    // A program that has set up a log of its own keeps it.
    let _ = log.with_writer(std::io::stderr).with_ansi(is_terminal).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_life_of_a_worker_has_a_latency_log_of_its_own() {
        let identity = Identity {
            host: None,
            slot: Slot(3),
            incarnation: Incarnation(2),
            name: String::new(),
        };
        assert_eq!(log_path(Path::new("/tmp/w.hlog"), &identity), Path::new("/tmp/w.3-2.hlog"));
        assert_eq!(log_path(Path::new("w"), &identity), Path::new("w.3-2"));
    }

    #[test]
    fn a_log_whose_reader_is_gone_does_not_end_the_process() {
        const IS_CHILD: &str = "PINMESH_TEST_LOGS";
        if std::env::var_os(IS_CHILD).is_some() {
            log_to_stderr();
            return tracing::error!("nobody reads this");
        }
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = std::process::Command::new("/proc/self/exe");
        let this = "worker::tests::a_log_whose_reader_is_gone_does_not_end_the_process";
        child.args(["--exact", this, "--nocapture"]).env(IS_CHILD, "1").stderr(writer);
        assert!(child.stdout(std::process::Stdio::null()).status().unwrap().success());
    }

    #[test]
    fn services_without_a_name_or_with_the_same_one_are_refused() {
        let echo = |input: u32| Ok::<_, String>(input);
        let error = Worker::new().check().unwrap_err();
        assert!(matches!(error, WorkerError::ServiceCount(0)), "{error}");
        let error = Worker::new().service("", echo).check().unwrap_err();
        assert!(matches!(error, WorkerError::ServiceName(_)), "{error}");
        let error = Worker::new().service("a", echo).service("a", echo).check().unwrap_err();
        assert!(matches!(error, WorkerError::ServiceTwice(_)), "{error}");
    }
}
