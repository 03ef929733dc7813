//! The supervisor's shell: its sockets, its children and their pages. It decides nothing; that is
//! done by [`pinmesh_session::supervision`].
//!
//! One thread. It sleeps until a broker speaks, a child dies or stops, a signal comes, or the
//! machine wants to be woken: a few times a second, whatever the workers do.

mod log;
mod shell;
mod signals;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::id::PeerId;
use pinmesh_protocol::limits::{NAME_BYTES_MAX, WORKERS_MAX};
use pinmesh_protocol::status::RefusedCode;
use pinmesh_session::slots::BrokerIndex;
use pinmesh_session::supervision::{Config, Event, GraceSignal, Supervision};
use pinmesh_transport::{Endpoint, Message, PeerKeys, SocketOptions, TransportError};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::clock::now;
use crate::error::PageError;
use crate::page::BROKERS_MAX;
use crate::process::{MemoryError, MemoryGroups, ProcessError, Spawner};
use shell::Shell;
use tracing::info;

/// Messages that are read from one broker before the others have their turn.
const MESSAGES_MAX: usize = 64;
/// Descriptors that a worker costs its supervisor: its page and its pidfd.
const WORKER_DESCRIPTORS: usize = 2;
/// Descriptors of the socket to one broker, generously.
const BROKER_DESCRIPTORS: usize = 16;
/// Descriptors of everything else, and those that starting a process takes for a moment.
const OTHER_DESCRIPTORS: usize = 64;
/// How long a full queue towards a broker is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// What a supervisor is to do.
#[derive(Clone, Debug)]
pub struct SupervisorConfig {
    /// Backends of the brokers to serve, such as `tcp://127.0.0.1:5556`.
    pub backends: Vec<String>,
    /// CPU of each worker; `None`: not pinned.
    pub cpus: Vec<Option<u16>>,
    /// The host's name, for people: `program@host`.
    pub name: String,
    /// How long cancelled attempts may go on at the end of a drain before they are killed.
    pub grace: Duration,
    /// How long a worker with tasks may stand still between two of them before it is killed.
    pub stall_max: Duration,
    /// How long a drain may take before what still runs is cancelled.
    pub drain_time: Duration,
    /// A signal for a worker whose attempt is past its max runtime, and how long it then has
    /// before it is killed; `None`: it is killed at once.
    pub overrun_signal: Option<(i32, Duration)>,
    /// What a worker and all that it starts may take of memory together, bytes; past it the kernel
    /// kills. `None`: what the host has.
    pub worker_memory_bytes: Option<u64>,
    /// Its keys; `None`: the brokers have none.
    pub keys: Option<PeerKeys>,
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self {
            backends: Vec::new(),
            cpus: Vec::new(),
            name: String::new(),
            grace: Duration::from_secs(5),
            stall_max: Duration::from_secs(10),
            drain_time: Duration::from_secs(30),
            overrun_signal: None,
            worker_memory_bytes: None,
            keys: None,
        }
    }
}

/// Why a supervisor cannot go on. It has killed its workers then.
#[derive(Debug)]
#[non_exhaustive]
pub enum SupervisorError {
    /// A part of the configuration is out of range.
    Config {
        /// The flag.
        flag: &'static str,
        /// Its value, or how many there are.
        value: String,
        /// The range and the remedy.
        remedy: &'static str,
    },
    /// A socket failed.
    Transport(TransportError),
    /// A process could not be started or watched.
    Process(ProcessError),
    /// A status page could not be made.
    Page(PageError),
    /// The memory of workers cannot be bounded.
    Memory(MemoryError),
    /// The system refused something.
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl fmt::Display for SupervisorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { flag, value, remedy } => write!(f, "{flag} {value}: {remedy}"),
            Self::Transport(source) => source.fmt(f),
            Self::Process(source) => source.fmt(f),
            Self::Page(source) => source.fmt(f),
            Self::Memory(source) => write!(f, "--worker-memory: {source}"),
            Self::System { what, source } => write!(
                f,
                "{what}: {source}; check the limits of open files (ulimit -n) and processes \
                 (ulimit -u)"
            ),
        }
    }
}

impl std::error::Error for SupervisorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config { .. } => None,
            Self::Transport(source) => Some(source),
            Self::Process(source) => Some(source),
            Self::Page(source) => Some(source),
            Self::Memory(source) => Some(source),
            Self::System { source, .. } => Some(source),
        }
    }
}

impl From<TransportError> for SupervisorError {
    fn from(source: TransportError) -> Self {
        Self::Transport(source)
    }
}

impl From<ProcessError> for SupervisorError {
    fn from(source: ProcessError) -> Self {
        Self::Process(source)
    }
}

impl SupervisorConfig {
    /// The brokers, and how to connect to each.
    fn check(&self) -> Result<Vec<(Endpoint, SocketOptions)>, SupervisorError> {
        let wrong = |flag, value: usize, remedy| {
            Err(SupervisorError::Config { flag, value: format!("given {value} times"), remedy })
        };
        if self.backends.is_empty() || self.backends.len() > BROKERS_MAX {
            let remedy = "name the backend of 1 to 16 brokers";
            return wrong("--backend", self.backends.len(), remedy);
        }
        if self.cpus.is_empty() || self.cpus.len() > WORKERS_MAX {
            return wrong("--workers", self.cpus.len(), "a host has 1 to 1024 workers");
        }
        if self.name.len() > NAME_BYTES_MAX {
            let remedy = "a name has at most 256 bytes";
            return Err(SupervisorError::Config {
                flag: "--name",
                value: self.name.clone(),
                remedy,
            });
        }
        let options = PeerKeys::socket_options(self.keys.as_ref(), self.backends.len())?;
        let links = self.backends.iter().zip(options);
        links.map(|(backend, options)| Ok((backend.parse()?, options))).collect()
    }

    fn machine(&self, host: PeerId) -> Config {
        let name = self.name.clone();
        let mut config = Config::new(host, name, self.cpus.clone(), self.backends.len());
        config.grace_ns = nanoseconds(self.grace);
        config.stall_max_ns = nanoseconds(self.stall_max);
        config.drain_ns = nanoseconds(self.drain_time);
        config.overrun_signal = self
            .overrun_signal
            .map(|(signal, grace)| GraceSignal { signal, grace_ns: nanoseconds(grace) });
        config
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Starts the workers, this same program each, and looks after them until SIGTERM, SIGINT or a
/// broker's DRAIN takes the host out of service. At SIGHUP it starts each of them anew, one after the
/// other, from the program's file as it is then. To be called by the process's first thread:
/// workers die with the thread that started them.
///
/// # Errors
/// The configuration is out of range, or the system refuses what a supervisor cannot do without.
pub fn run(config: &SupervisorConfig) -> Result<(), SupervisorError> {
    let endpoints = config.check()?;
    raise_descriptor_limit(config)?;
    let host = random_host()?;
    let spawner = Spawner::of_this_program(host);
    let memory = memory_groups(config, host)?;
    let mut shell = Shell::new(config, endpoints, spawner, memory)?;
    log::starting(config, host);
    let mut machine = Supervision::new(config.machine(host));
    machine.handle(now(), Event::Start, &mut shell);
    let mut message = Message::default();
    while !shell.has_left() {
        receive(&mut machine, &mut shell, &mut message)?;
        shell.report_children(|shell, event| machine.handle(now(), event, shell));
        for _ in 0..shell.terminations() {
            machine.handle(now(), Event::Terminate, &mut shell);
        }
        if shell.has_renewal() {
            machine.handle(now(), Event::Renew, &mut shell);
        }
        if machine.next_wakeup().is_some_and(|(due, _)| due <= now()) {
            machine.handle(now(), Event::Tick, &mut shell);
        }
        let is_all_sent = shell.flush()?;
        let due = machine.next_wakeup().map(|(due, _)| Duration::from_nanos(due.since(now())));
        let timeout = if is_all_sent { due } else { Some(due.unwrap_or_default().min(FULL_PAUSE)) };
        if !shell.has_left() {
            shell.wait(timeout)?;
        }
    }
    shell.flush()?;
    Ok(())
}

/// Groups that tell whether a worker ran out of memory; only a limit needs them.
fn memory_groups(
    config: &SupervisorConfig,
    host: PeerId,
) -> Result<Option<MemoryGroups>, SupervisorError> {
    match MemoryGroups::find(host, config.worker_memory_bytes) {
        Ok(groups) => Ok(Some(groups)),
        Err(error) if config.worker_memory_bytes.is_none() => {
            info!("a worker that the kernel kills for want of memory will look killed: {error}");
            Ok(None)
        }
        Err(error) => Err(SupervisorError::Memory(error)),
    }
}

/// Asks for as many open files as the workers need, and no more: they inherit the limit.
fn raise_descriptor_limit(config: &SupervisorConfig) -> Result<(), SupervisorError> {
    let needed = (WORKER_DESCRIPTORS * config.cpus.len()
        + BROKER_DESCRIPTORS * config.backends.len()
        + OTHER_DESCRIPTORS) as u64;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    limit.current = Some(needed);
    setrlimit(Resource::Nofile, limit).map_err(|_| SupervisorError::Config {
        flag: "--workers",
        value: config.cpus.len().to_string(),
        remedy: "more than the limit of open files (ulimit -Hn) allows: raise it (LimitNOFILE), or \
                 start fewer",
    })
}

fn random_host() -> Result<PeerId, SupervisorError> {
    let mut host = PeerId([0; 16]);
    rustix::rand::getrandom(&mut host.0, rustix::rand::GetRandomFlags::empty()).map_err(
        |errno| SupervisorError::System { what: "getrandom failed", source: errno.into() },
    )?;
    Ok(host)
}

/// Hands the machine what the brokers have sent.
fn receive(
    machine: &mut Supervision,
    shell: &mut Shell,
    message: &mut Message,
) -> Result<(), SupervisorError> {
    for index in 0..shell.brokers() {
        for _ in 0..MESSAGES_MAX {
            if !shell.receive(index, message)? {
                break;
            }
            read(machine, shell, index, message);
        }
    }
    Ok(())
}

fn read(machine: &mut Supervision, shell: &mut Shell, index: usize, message: &Message) {
    // `SupervisorConfig::check` bounds the number of brokers.
    let broker = BrokerIndex(u16::try_from(index).unwrap_or(u16::MAX));
    let session = shell.session(index);
    if message.fault.is_some() {
        let code = RefusedCode::TooLarge;
        machine.handle(now(), Event::Unreadable { broker, code }, shell);
        return;
    }
    let lengths: Vec<usize> = message.frames.iter().skip(1).map(|frame| frame.len()).collect();
    let mut reader = BatchReader::new(message.body(), &lengths);
    while let Some(command) = reader.next_from_broker() {
        let event = match command {
            Ok(command) => Event::Received { broker, command },
            Err(error) => Event::Unreadable { broker, code: error.code() },
        };
        machine.handle(now(), event, shell);
        if shell.session(index) != session {
            // The rest belongs to a socket that is gone.
            return;
        }
    }
    if let Err(error) = reader.finish() {
        machine.handle(now(), Event::Unreadable { broker, code: error.code() }, shell);
    }
}
