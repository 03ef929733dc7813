//! Broker and workers as they are shipped.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use pinmesh_client::Client;
use rustix::process::Signal;

use crate::process::clean_command;
use crate::{Finished, Ledger, Process, READY_LIMIT, Seen, binary, children, eventually};

/// Flags of a broker that finds dead peers in a second or two. The shipped settings take 16 s, and
/// go the same ways.
pub const FAST: [&str; 4] = ["--heartbeat", "200ms", "--lease", "2s"];

/// One of our programs, ready to be started with arguments.
pub fn command(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = clean_command(binary(program));
    command.args(arguments);
    command
}

/// Runs one of our programs to its end.
pub fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Finished {
    Process::start(command(program, arguments)).wait()
}

/// A loopback endpoint that a broker can bind again after it was killed: its port is below those
/// that the system gives to clients, so that no other test takes it meanwhile.
///
/// # Panics
/// No port is free.
pub fn free_endpoint() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let free = (0..2_000).find_map(|_| {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    });
    format!("tcp://127.0.0.1:{}", free.expect("one of 2,000 ports is free"))
}

/// The value of `key=` in a line of readiness.
#[track_caller]
fn field(line: &str, key: &str) -> String {
    let find = |word: &str| Some(word.strip_prefix(key)?.strip_prefix('=')?.to_owned());
    line.split(' ').find_map(find).unwrap_or_else(|| panic!("no `{key}=` in `{line}`"))
}

/// A broker.
#[derive(Debug)]
pub struct Broker {
    /// Its process.
    pub process: Process,
    /// Where clients connect.
    pub frontend: String,
    /// Where workers connect.
    pub backend: String,
    /// Where the admin API listens; `None`: nowhere.
    pub http: Option<String>,
    arguments: Vec<String>,
}

impl Broker {
    /// Starts one on ports of the system's choice and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_at("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", arguments)
    }

    /// Starts one on these endpoints.
    #[track_caller]
    pub fn start_at(frontend: &str, backend: &str, arguments: &[&str]) -> Self {
        let mut command = command("pinmesh-broker", arguments);
        command.args(["--frontend", frontend, "--backend", backend]);
        if !arguments.contains(&"--http") {
            command.args(["--http", "127.0.0.1:0"]);
        }
        let arguments = arguments.iter().map(|&text| text.to_owned()).collect();
        Self { arguments, ..Self::run(command) }
    }

    /// Starts one with a command that has all its arguments.
    #[track_caller]
    pub fn run(command: Command) -> Self {
        let mut process = Process::start(command);
        let line = process.first_line(READY_LIMIT);
        assert!(line.starts_with("pinmesh-broker ready "), "{line}");
        let (frontend, backend) = (field(&line, "frontend"), field(&line, "backend"));
        let http = line.contains(" http=").then(|| field(&line, "http"));
        Self { process, frontend, backend, http, arguments: Vec::new() }
    }

    /// Starts another in its place, on the same endpoints and with the same flags.
    pub fn start_again(&mut self) {
        self.process.kill();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        *self = Self::start_at(&self.frontend, &self.backend, &arguments);
    }

    /// Its ledger, now.
    pub fn ledger(&self) -> Ledger {
        let mark = self.process.log_mark();
        self.process.signal(Signal::USR1);
        self.process.log_line(mark, "ledger", Ledger::parse)
    }

    /// Asks it to drain and waits for its end; its last ledger.
    ///
    /// # Panics
    /// It does not end, or not as one that has lost nothing.
    #[track_caller]
    pub fn drain(mut self) -> Ledger {
        let mark = self.process.log_mark();
        self.process.signal(Signal::TERM);
        let finished = self.process.wait();
        assert_eq!(finished.code, 0, "the broker ended with tasks or results left");
        let ledger = self.process.log_line(mark, "ledger", Ledger::parse);
        ledger.assert_balanced();
        assert_eq!(ledger.count("held"), 0, "{ledger:?}");
        ledger
    }

    /// A client of it.
    ///
    /// # Panics
    /// It cannot connect.
    #[track_caller]
    pub fn client(&self) -> Client {
        self.client_named("test")
    }

    /// A client of it with a name, by which fairness goes.
    ///
    /// # Panics
    /// It cannot connect.
    #[track_caller]
    pub fn client_named(&self, name: &str) -> Client {
        Client::builder()
            .broker(&self.frontend)
            .name(name)
            .connect_timeout(READY_LIMIT)
            .connect()
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A supervisor and its workers: the ready-made ones, with the services that go wrong on purpose.
#[derive(Debug)]
pub struct Supervisor {
    /// The supervisor's process.
    pub process: Process,
    /// The CPUs of its workers, as its readiness line has them.
    pub cpus: String,
    workers: usize,
}

impl Supervisor {
    /// Starts one and waits until every worker serves.
    #[track_caller]
    pub fn start(backend: &str, workers: usize, arguments: &[&str]) -> Self {
        let mut command = command("pinmesh-worker", ["--test-services", "--backend", backend]);
        // Before the others: whatever follows a `--` is a program's.
        command.arg("--workers").arg(workers.to_string()).args(arguments);
        Self::watch(command, workers)
    }

    /// Starts one with a command that has all its arguments but `--workers`.
    #[track_caller]
    pub fn run(mut command: Command, workers: usize) -> Self {
        command.arg("--workers").arg(workers.to_string());
        Self::watch(command, workers)
    }

    #[track_caller]
    fn watch(command: Command, workers: usize) -> Self {
        let mut process = Process::start(command);
        let line = process.first_line(READY_LIMIT);
        assert!(line.starts_with("pinmesh-worker ready "), "{line}");
        assert_eq!(field(&line, "workers"), workers.to_string());
        Self { process, cpus: field(&line, "cpus"), workers }
    }

    /// Its worker processes that are alive.
    pub fn workers(&self) -> Vec<Seen> {
        children(self.process.pid(), "PINMESH_WORKER")
    }

    /// Waits until as many workers as it has are alive, none of them one of `dead`.
    #[track_caller]
    pub fn wait_for_workers(&self, dead: &[Seen]) -> Vec<Seen> {
        let mut workers = Vec::new();
        eventually("every worker is started again", crate::LIMIT, || {
            workers = self.workers();
            workers.len() == self.workers && !workers.iter().any(|worker| dead.contains(worker))
        });
        workers
    }
}

/// A broker with one supervisor. The supervisor ends first.
#[derive(Debug)]
pub struct Mesh {
    /// The workers.
    pub supervisor: Supervisor,
    /// The broker.
    pub broker: Broker,
}

impl Mesh {
    /// Starts both.
    #[track_caller]
    pub fn start(workers: usize, broker_arguments: &[&str]) -> Self {
        let broker = Broker::start(broker_arguments);
        let supervisor = Supervisor::start(&broker.backend, workers, &[]);
        Self { supervisor, broker }
    }

    /// A client of it.
    #[track_caller]
    pub fn client(&self) -> Client {
        self.broker.client()
    }

    /// Runs `pinmesh` against it.
    pub fn pinmesh(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Finished {
        let mut command = command("pinmesh", arguments);
        command.env("PINMESH_BROKER", &self.broker.frontend);
        Process::start(command).wait()
    }
}
