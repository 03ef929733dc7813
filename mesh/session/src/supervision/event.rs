//! What a supervisor's machine is configured with, what happens to it and what it causes.

use alloc::string::String;
use alloc::vec::Vec;

use pinmesh_protocol::command::{FromBroker, ToBroker};
use pinmesh_protocol::id::{AttemptId, Epoch, Incarnation, PeerId, Slot};
use pinmesh_protocol::status::{LossKind, RefusedCode};

use crate::slots::{BrokerIndex, Flip, Glance, HeldSlot};
use crate::time::Time;

/// What the machine is told about its host, and how patient it is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The host's id, the `peer_id` of its sessions.
    pub host: PeerId,
    /// Its name, for people.
    pub name: String,
    /// CPU of each worker, in the order of the slots; `None`: not pinned.
    pub cpus: Vec<Option<u16>>,
    /// Brokers that it serves; they are numbered from 0.
    pub brokers: usize,
    /// Random; nonces and jitter come from it.
    pub seed: u64,
    /// Heartbeat interval assumed until WELCOME says another, nanoseconds.
    pub heartbeat_ns: u64,
    /// Missed heartbeats after which a broker is given up, until WELCOME says another number.
    pub liveness: u32,
    /// Wait before the first restart after a crash; doubles with each crash in a row of a worker
    /// that ran no task. Nanoseconds.
    pub restart_min_ns: u64,
    /// The longest wait before a restart, nanoseconds. Well below the time that a broker lets tasks
    /// wait for a worker.
    pub restart_max_ns: u64,
    /// A worker that lived this long was healthy: its crash counts as the first, nanoseconds.
    pub healthy_ns: u64,
    /// How long a worker that holds tasks may stand still between two of them, or be stopped,
    /// before it is killed, nanoseconds.
    pub stall_max_ns: u64,
    /// How long a drain may take before running attempts are cancelled, nanoseconds.
    pub drain_ns: u64,
    /// How long a cancelled attempt may go on at the end of a drain before SIGKILL, nanoseconds.
    pub grace_ns: u64,
    /// A signal, and how long to wait after it, before an attempt past its max runtime is killed.
    pub overrun_signal: Option<GraceSignal>,
    /// How often the pages are looked at while a worker holds tasks, nanoseconds. An attempt that
    /// overran its max runtime before it was first seen is killed so much later.
    pub watch_busy_ns: u64,
    /// How often the pages are looked at while none does, nanoseconds. A task that comes to an idle
    /// worker is first seen after so long.
    pub watch_idle_ns: u64,
}

/// A warning before a kill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GraceSignal {
    /// The number of the signal.
    pub signal: i32,
    /// How long the handler may go on after it, nanoseconds.
    pub grace_ns: u64,
}

impl Config {
    /// The defaults, for a host of these workers.
    pub fn new(host: PeerId, name: String, cpus: Vec<Option<u16>>, brokers: usize) -> Self {
        const MS: u64 = 1_000_000;
        Self {
            host,
            name,
            cpus,
            brokers,
            seed: u64::from_le_bytes(host.0[..8].try_into().unwrap_or_default()),
            heartbeat_ns: 1_000 * MS,
            liveness: 3,
            restart_min_ns: 100 * MS,
            restart_max_ns: 10_000 * MS,
            healthy_ns: 10_000 * MS,
            stall_max_ns: 10_000 * MS,
            drain_ns: 30_000 * MS,
            grace_ns: 5_000 * MS,
            overrun_signal: None,
            // Half of the 100 ms within which an attempt is to be dead after its max runtime.
            watch_busy_ns: 50 * MS,
            watch_idle_ns: 50 * MS,
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// It exited, with this code.
    Exited(i32),
    /// A signal ended it, of this number.
    Signalled(i32),
    /// The kernel killed it for want of memory, by SIGKILL.
    OutOfMemory,
}

/// What is done to a worker's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Finish what runs, give the rest back, leave (SIGTERM).
    Drain,
    /// Stop it so that its page stands still (SIGSTOP); the shell reports [`Event::Stopped`].
    Stop,
    /// Let it go on (SIGCONT).
    Continue,
    /// Kill it and its process group (SIGKILL).
    Kill,
    /// The configured warning.
    Warn(i32),
}

/// What happens to the machine.
#[derive(Debug)]
pub enum Event<'a> {
    /// Once, first.
    Start,
    /// The time of [`Supervision::next_wakeup`](super::Supervision::next_wakeup) has come. The shell has emptied its sockets first:
    /// silence is judged by what has been handed over.
    Tick,
    /// A broker's command.
    Received {
        /// Which broker.
        broker: BrokerIndex,
        /// The command.
        command: FromBroker<'a>,
    },
    /// A broker's message could not be read.
    Unreadable {
        /// Which broker.
        broker: BrokerIndex,
        /// What was wrong.
        code: RefusedCode,
    },
    /// A worker's process has ended, and its process group with it.
    Died {
        /// Whose.
        slot: Slot,
        /// How.
        death: Death,
    },
    /// A worker's process has been stopped, by us or by somebody else.
    Stopped(Slot),
    /// A worker's process goes on.
    Continued(Slot),
    /// Somebody wants the host to leave (SIGTERM); the second time: at once.
    Terminate,
    /// Somebody wants every worker started anew, one after the other (SIGHUP).
    Renew,
}

/// What the machine causes, and what it may look at.
pub trait Effects {
    /// Closes the broker's socket, if there is one, and opens another.
    fn connect(&mut self, broker: BrokerIndex);
    /// Sends a command on the broker's socket.
    fn send(&mut self, broker: BrokerIndex, command: &ToBroker<'_>);
    /// Starts a worker with a new status page. `false`: it could not be started.
    fn spawn(&mut self, slot: Slot, incarnation: Incarnation) -> bool;
    /// Sends a signal to the worker in a slot.
    fn signal(&mut self, slot: Slot, signal: Signal);
    /// Writes a lease on the worker's page; outside it nothing of the broker is started.
    /// `Time(0)`: it has ended, and the worker gives up its session, because tasks that are unread
    /// there may be requeued.
    fn set_lease(&mut self, slot: Slot, broker: BrokerIndex, epoch: Epoch, until: Time);
    /// Looks at the worker's page.
    fn glance(&mut self, slot: Slot) -> Glance;
    /// Whether the worker has said READY to every broker.
    fn is_ready(&mut self, slot: Slot) -> bool;
    /// Everything that the worker's page lists.
    fn held(&mut self, slot: Slot) -> Vec<HeldSlot>;
    /// Takes an attempt back if it waits.
    fn flip(&mut self, slot: Slot, broker: BrokerIndex, attempt: AttemptId) -> Flip;
    /// Enters an attempt in the page's refusal table. `false`: the table is full.
    fn refuse(&mut self, slot: Slot, broker: BrokerIndex, attempt: AttemptId) -> bool;
    /// Sets the cooperative cancel flag of an attempt that runs.
    fn cancel(&mut self, slot: Slot, broker: BrokerIndex, attempt: AttemptId);
    /// A change of state, for the log.
    fn note(&mut self, note: Note);
    /// All is done: the supervisor may leave.
    fn exit(&mut self);
}

/// A change of state that somebody may want to read of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// A session with a broker is open.
    Opened {
        /// Which broker.
        broker: BrokerIndex,
        /// Its life.
        epoch: Epoch,
    },
    /// A session, or an attempt to open one, has ended.
    Closed {
        /// Which broker.
        broker: BrokerIndex,
        /// Why.
        why: CloseReason,
        /// Until it is tried again, nanoseconds.
        retry_in_ns: u64,
    },
    /// A broker's lease on this host has ended.
    LeaseEnded {
        /// Which broker.
        broker: BrokerIndex,
        /// Its life.
        epoch: Epoch,
    },
    /// A worker's process has been started.
    Started {
        /// Its place.
        slot: Slot,
        /// Its life.
        incarnation: Incarnation,
    },
    /// A worker is in its loop.
    Up {
        /// Its place.
        slot: Slot,
        /// Its life.
        incarnation: Incarnation,
    },
    /// Every worker serves every broker, for the first time.
    Ready,
    /// An attempt is past its max runtime, and its worker is killed over it.
    Overrun {
        /// The worker's place.
        slot: Slot,
        /// Which attempt.
        attempt: AttemptId,
        /// How long it has been running now, nanoseconds.
        ran_ns: u64,
        /// How long it might, nanoseconds.
        max_runtime_ns: u64,
    },
    /// A worker is being killed.
    Killing {
        /// Its place.
        slot: Slot,
        /// Why.
        cause: LossKind,
    },
    /// A worker has died.
    Died {
        /// Its place.
        slot: Slot,
        /// Its life.
        incarnation: Incarnation,
        /// Why.
        cause: LossKind,
        /// Exit code or signal number.
        detail: i32,
        /// What was in the handler.
        running: Option<AttemptId>,
        /// Whether it had never reached its loop.
        was_starting: bool,
    },
    /// A worker will be started again.
    RestartIn {
        /// Its place.
        slot: Slot,
        /// After so long, nanoseconds.
        delay_ns: u64,
        /// Crashes in a row.
        failures: u32,
    },
    /// A worker could not be started.
    SpawnFailed {
        /// Its place.
        slot: Slot,
    },
    /// One worker after the other is started anew.
    Renewing,
    /// A worker took too long to leave, and is killed: what it ran goes back.
    RenewalOverdue {
        /// Its place.
        slot: Slot,
    },
    /// Each worker has been started anew.
    Renewed,
    /// The host takes no more and leaves when its workers have finished.
    Draining,
    /// The drain took too long: running attempts are asked to stop.
    DrainOverdue,
    /// The host has left.
    Drained,
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// No answer to HELLO.
    NoWelcome,
    /// No word for the missed-heartbeat budget.
    Silent,
    /// The broker does not know the session.
    NoSession,
    /// The broker refused it.
    Refused(RefusedCode),
    /// The broker's message could not be read.
    Unreadable(RefusedCode),
    /// The broker left.
    Goodbye,
}
