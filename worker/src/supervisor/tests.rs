//! A supervisor with real workers and a broker that the test plays. This test program starts
//! itself again as the supervisor, which starts it again as the workers.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::codec::write_from_broker;
use pinmesh_protocol::command::{Attempts, FromBroker, Heartbeat, Host, Lost, ToBroker, Welcome};
use pinmesh_protocol::id::{AttemptId, Dispatch, Epoch, Incarnation, Slot, TaskId};
use pinmesh_protocol::status::{LossKind, Role};
use pinmesh_session::slots::BrokerIndex;
use pinmesh_transport::{
    Context, ContextOptions, Message, Poller, Router, RoutingId, SendOutcome, SocketOptions, Token,
};
use rustix::process::{Pid, Signal, kill_process};

use super::{SupervisorConfig, run};
use crate::clock::now;
use crate::page::{StatusPage, WorkerCounts};
use crate::process::{Started, WORKER_VARIABLE, started};

const BACKEND: &str = "PINMESH_TEST_BACKEND";
/// Max runtime of the attempt that the first incarnation of a worker runs, ms; absent: none.
const RUNS: &str = "PINMESH_TEST_RUNS_MS";
const STAGE: [&str; 4] =
    ["--exact", "supervisor::tests::another_role_is_played", "--nocapture", "--test-threads=1"];
const LIMIT: Duration = Duration::from_secs(30);
const EPOCH: Epoch = Epoch(77);
const HEARTBEAT_NS: u64 = 50_000_000;

fn attempt(task: u64) -> AttemptId {
    AttemptId { epoch: EPOCH, task: TaskId(task), dispatch: Dispatch(1) }
}

/// What the supervisor said.
#[derive(Debug, PartialEq)]
enum Said {
    Hello,
    Host(Host),
    Lost(Lost),
    Recalled(Attempts),
    Goodbye,
}

/// A broker that welcomes, echoes and acknowledges, and remembers the rest.
struct Broker {
    _context: Context,
    router: Router,
    poller: Poller,
    peer: RoutingId,
    ends: u64,
    is_mute: bool,
    said: Vec<Said>,
    supervisor: Child,
    stdout: Option<BufReader<std::process::ChildStdout>>,
}

impl Broker {
    fn start(workers: usize, runs_ms: Option<u64>) -> Self {
        Self::start_by(Command::new("/proc/self/exe"), workers, runs_ms)
    }

    /// With a supervisor that `command` starts, given this program's arguments.
    fn start_by(mut command: Command, workers: usize, runs_ms: Option<u64>) -> Self {
        let context = Context::new(&ContextOptions::default()).unwrap();
        let endpoint = "tcp://127.0.0.1:0".parse().unwrap();
        let mut router = Router::bind(&context, &endpoint, &SocketOptions::default()).unwrap();
        let mut poller = Poller::new().unwrap();
        poller.register(&mut router, Token(0)).unwrap();
        command.args(STAGE).env_remove(WORKER_VARIABLE).stdin(Stdio::null());
        command.env(BACKEND, format!("{workers} {}", router.endpoint()));
        if let Some(runs_ms) = runs_ms {
            command.env(RUNS, runs_ms.to_string());
        }
        let mut supervisor = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = supervisor.stdout.take().map(BufReader::new);
        Self {
            _context: context,
            router,
            poller,
            peer: RoutingId::NONE,
            ends: 0,
            is_mute: false,
            said: Vec::new(),
            supervisor,
            stdout,
        }
    }

    fn send(&mut self, command: &FromBroker<'_>) {
        let mut bytes = Vec::new();
        write_from_broker(&mut bytes, command);
        let outcome = self.router.send(self.peer, &bytes, &mut Vec::new()).unwrap();
        assert_ne!(outcome, SendOutcome::Full);
    }

    /// Plays the broker until the supervisor has said what is looked for.
    fn until<T>(&mut self, mut look: impl FnMut(&Said) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        let mut looked = 0;
        loop {
            for said in &self.said[looked..] {
                if let Some(found) = look(said) {
                    return found;
                }
            }
            looked = self.said.len();
            assert!(Instant::now() < end, "{:#?}", self.said);
            self.turn();
        }
    }

    fn turn(&mut self) {
        let mut message = Message::default();
        while self.router.recv(&mut message).unwrap() {
            self.read(&message);
        }
        let pause = Some(Duration::from_millis(50));
        let _ = self.poller.wait(&mut [&mut self.router], pause, Duration::ZERO).unwrap();
    }

    fn read(&mut self, message: &Message) {
        let mut reader = BatchReader::new(message.body(), &[]);
        let ends = self.ends;
        while let Some(command) = reader.next_to_broker() {
            match command.unwrap() {
                ToBroker::Hello(hello) => {
                    assert_eq!(hello.role, Role::Supervisor);
                    self.peer = message.from;
                    self.ends = 0;
                    self.said.push(Said::Hello);
                    if !self.is_mute {
                        self.welcome(hello.nonce);
                    }
                }
                ToBroker::Heartbeat(Heartbeat { sequence, .. }) if !self.is_mute => {
                    self.send(&FromBroker::Heartbeat(Heartbeat { sequence, silence_ns: None }));
                }
                ToBroker::Heartbeat(_) => {}
                ToBroker::Host(host) => self.said.push(Said::Host(host)),
                ToBroker::Lost(lost) => {
                    self.ends += 1;
                    self.said.push(Said::Lost(lost));
                }
                ToBroker::Recalled(recalled) => {
                    self.ends += 1;
                    self.said.push(Said::Recalled(recalled));
                }
                ToBroker::Goodbye => self.said.push(Said::Goodbye),
                other => panic!("{other:?}"),
            }
        }
        if self.ends != ends && !self.is_mute {
            self.send(&FromBroker::Ack(self.ends));
        }
    }

    fn welcome(&mut self, nonce: u64) {
        self.send(&FromBroker::Welcome(Welcome {
            version: 1,
            nonce,
            epoch: EPOCH,
            heartbeat_ns: HEARTBEAT_NS,
            lease_ns: 20 * HEARTBEAT_NS,
            liveness: 100,
            window_tasks: 0,
            window_bytes: 0,
            payload_bytes_max: 1 << 20,
            header_bytes_max: 4096,
            kept_ns: 60_000_000_000,
        }));
    }

    /// Waits for the line that says what runs where.
    fn until_ready(&mut self) -> String {
        self.until(|said| matches!(said, Said::Host(_)).then_some(()));
        let stdout = self.stdout.take().unwrap();
        let (line, found) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = stdout.lines().map_while(Result::ok);
            // The workers write there too, and libtest leaves lines open.
            let ready =
                lines.find_map(|line| Some(line[line.find("pinmesh-worker ready")?..].to_owned()));
            let _ = line.send(ready);
            lines.for_each(drop);
        });
        let end = Instant::now() + LIMIT;
        loop {
            self.turn();
            if let Ok(line) = found.try_recv() {
                return line.expect("the supervisor said that it is ready");
            }
            assert!(Instant::now() < end);
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.supervisor), signal).unwrap();
    }

    fn until_exit(&mut self) -> Option<i32> {
        let end = Instant::now() + LIMIT;
        loop {
            self.turn();
            if let Some(status) = self.supervisor.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

fn lost(said: &Said) -> Option<(LossKind, Incarnation, Option<AttemptId>)> {
    match said {
        Said::Lost(lost) => Some((lost.cause, lost.incarnation, lost.running)),
        _ => None,
    }
}

/// Number of the process in a slot's worker, by its tag.
fn pid_of_worker(slot: u16, incarnation: u32, supervisor: u32) -> Pid {
    let tag = format!(":{slot}:{incarnation}:{supervisor}");
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let is_it = environment.split(|&b| b == 0).any(|variable| {
                variable.starts_with(WORKER_VARIABLE.as_bytes())
                    && variable.ends_with(tag.as_bytes())
            });
            if is_it {
                let pid = entry.file_name().to_str().unwrap().parse().unwrap();
                return Pid::from_raw(pid).unwrap();
            }
        }
    }
    panic!("there is no worker in slot {slot}");
}

#[test]
fn a_host_comes_up_and_leaves_when_it_is_told_to() {
    let mut broker = Broker::start(2, None);
    assert_eq!(broker.until_ready(), "pinmesh-worker ready workers=2 cpus=none");
    let workers = broker.until(|said| match said {
        Said::Host(host) => Some(host.workers.len()),
        _ => None,
    });
    assert_eq!(workers, 2);
    broker.signal(Signal::TERM);
    broker.until(|said| matches!(said, Said::Goodbye).then_some(()));
    assert_eq!(broker.until_exit(), Some(0));
}

#[test]
fn a_host_has_more_workers_than_the_soft_limit_of_open_files_allows() {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -Sn 48 && exec "$0" "$@""#]);
    shell.arg(std::env::current_exe().unwrap());
    let mut broker = Broker::start_by(shell, 24, None);
    assert_eq!(broker.until_ready(), "pinmesh-worker ready workers=24 cpus=none");
}

#[test]
fn an_attempt_past_its_max_runtime_is_killed_and_its_worker_started_again() {
    let mut broker = Broker::start(1, Some(100));
    let (cause, incarnation, running) = broker.until(lost);
    assert_eq!(
        (cause, incarnation, running),
        (LossKind::MaxRuntime, Incarnation(1), Some(attempt(1)))
    );
    broker.until(|said| match said {
        Said::Host(host) => {
            host.workers.iter().any(|worker| worker.incarnation.0 == 2).then_some(())
        }
        _ => None,
    });
}

#[test]
fn a_worker_that_is_killed_by_somebody_else_is_charged() {
    let mut broker = Broker::start(1, Some(3_600_000));
    broker.until_ready();
    let pid = pid_of_worker(0, 1, broker.supervisor.id());
    kill_process(pid, Signal::KILL).unwrap();
    let (cause, _, running) = broker.until(lost);
    assert_eq!((cause, running), (LossKind::Signalled, Some(attempt(1))));
}

#[test]
fn a_recalled_attempt_that_has_not_come_is_refused_and_a_running_one_is_not() {
    let mut broker = Broker::start(1, Some(3_600_000));
    broker.until_ready();
    let attempts = vec![attempt(1), attempt(2)];
    broker.send(&FromBroker::Recall(Attempts { slot: Slot(0), attempts }));
    let recalled = broker.until(|said| match said {
        Said::Recalled(recalled) => Some(recalled.attempts.clone()),
        _ => None,
    });
    assert_eq!(recalled, [attempt(2)]);
}

#[test]
fn what_runs_is_killed_when_the_broker_is_silent_until_the_lease_has_ended() {
    let mut broker = Broker::start(1, Some(3_600_000));
    broker.until_ready();
    broker.is_mute = true;
    let (cause, _, running) = broker.until(lost);
    assert_eq!((cause, running), (LossKind::LeaseEnded, Some(attempt(1))));
}

/// Not a test by itself: what the program does when the tests above start it again.
#[test]
fn another_role_is_played() {
    let Ok(backend) = std::env::var(BACKEND) else { return };
    match started().unwrap() {
        Started::Supervisor => play_supervisor(&backend),
        Started::Keeper(keeper) => keeper.run(),
        Started::Worker(inherited) => {
            let page = StatusPage::open(inherited.page).unwrap();
            play_worker(&page, inherited.incarnation);
        }
    }
}

fn play_supervisor(backend: &str) {
    let (workers, backend) = backend.split_once(' ').unwrap();
    let config = SupervisorConfig {
        backends: vec![backend.to_owned()],
        cpus: vec![None; workers.parse().unwrap()],
        name: "test".to_owned(),
        ..SupervisorConfig::default()
    };
    run(&config).unwrap();
}

fn play_worker(page: &StatusPage, incarnation: Incarnation) {
    page.turn(0);
    if let Ok(runs_ms) = std::env::var(RUNS)
        && incarnation == Incarnation(1)
    {
        page.publish(0, BrokerIndex(0), attempt(1));
        assert!(page.claim(0, now(), runs_ms.parse::<u64>().unwrap() * 1_000_000));
        page.turn(1);
    }
    page.set_counts(WorkerCounts { sessions: 1, ..WorkerCounts::default() });
    loop {
        std::thread::park();
    }
}
