//! Processes of a host: workers, pinned before they start, watched by pidfd, and killed with all
//! that descends from them.
//!
//! Nothing outlives the supervisor:
//! * A worker has its own process group, which is killed as soon as it has died.
//! * Each process that descends from it carries its tag ([`WORKER_VARIABLE`]) in its environment.
//!   Whatever still has the tag of a dead worker is killed too, also if it left the group (setsid).
//! * A worker dies with its supervisor: by PDEATHSIG, and because it waits on the supervisor's
//!   pidfd, upon which it kills its group.
//! * A *keeper*, a process that does nothing but wait for the end of the supervisor, then kills
//!   whatever has the host's tag.
//!
//! The exception: a descendant that has removed the tag from its environment and left the process
//! group, or whose environment the supervisor may not read (another user's), is not found.

mod memory;
mod role;
mod sweep;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use pinmesh_host::{CpuId, CpuSet, HostError};
use pinmesh_protocol::id::{Incarnation, PeerId, Slot};
use pinmesh_session::supervision::Death;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};

pub use memory::{MemoryError, MemoryGroup, MemoryGroups};
pub use role::{Inherited, Keeper, Started, started};
use sweep::{host_tag, sweep};

/// Tells a worker what it is: `host:slot:incarnation:pid of the supervisor`.
pub const WORKER_VARIABLE: &str = "PINMESH_WORKER";
/// Tells a keeper what it is: `host:pid of the supervisor`.
pub const KEEPER_VARIABLE: &str = "PINMESH_KEEPER";

/// Why a process could not be started, or does not know what it is.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProcessError {
    /// The program could not be executed.
    Spawn {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The worker's CPU cannot be had.
    Cpu(HostError),
    /// The variable does not hold what a supervisor writes there.
    Variable {
        /// Its name.
        name: &'static str,
        /// What it holds.
        value: String,
    },
    /// The process that the variable names is not the parent.
    NotTheParent {
        /// The variable's name.
        name: &'static str,
        /// The supervisor that it names.
        supervisor: i32,
    },
    /// A system call failed.
    System {
        /// Which.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn { program, source } => write!(
                f,
                "{} could not be started: {source}; check that it may be executed and that the \
                 process limit (ulimit -u) leaves room",
                program.display()
            ),
            Self::Cpu(source) => write!(f, "the worker cannot be pinned: {source}"),
            Self::Variable { name, value } => write!(
                f,
                "{name}={value:?} is not what a supervisor writes; it is not meant to be set by \
                 hand: unset it"
            ),
            Self::NotTheParent { name, supervisor } => write!(
                f,
                "{name} says that process {supervisor} started this worker, but it did not or is \
                 gone; to start a supervisor from inside a worker, unset {name}"
            ),
            Self::System { call, errno } => write!(
                f,
                "{call} failed: {errno}; it needs Linux 5.4 or later and must not be forbidden by \
                 a seccomp filter"
            ),
        }
    }
}

impl std::error::Error for ProcessError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Spawn { source, .. } => Some(source),
            Self::Cpu(source) => Some(source),
            Self::System { errno, .. } => Some(errno),
            Self::Variable { .. } | Self::NotTheParent { .. } => None,
        }
    }
}

fn system(call: &'static str) -> impl Fn(Errno) -> ProcessError {
    move |errno| ProcessError::System { call, errno }
}

/// Starts the processes of one host.
#[derive(Clone, Debug)]
pub struct Spawner {
    host: PeerId,
    program: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
}

impl Spawner {
    /// Starts this program again, with the arguments that it has itself: by its path, so that a file
    /// that has been put in its place is what the next worker runs.
    pub fn of_this_program(host: PeerId) -> Self {
        let mut arguments = std::env::args_os();
        // Where it has no name any more, it is still there under this one.
        let itself = || PathBuf::from("/proc/self/exe");
        let program = std::env::current_exe().ok().filter(|path| path.exists());
        let program = program.unwrap_or_else(itself);
        let name = arguments.next().unwrap_or_else(|| program.clone().into());
        Self { host, program, name, arguments: arguments.collect() }
    }

    /// Starts another program.
    pub fn of_program(host: PeerId, program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { host, name: program.clone().into(), program, arguments }
    }

    /// Starts a worker, which runs on its CPU from its first instruction on. Its status page
    /// becomes its standard input.
    ///
    /// To be called by a thread that lives as long as the workers shall: PDEATHSIG goes by it.
    ///
    /// # Errors
    /// The CPU cannot be had, or the program cannot be executed.
    pub fn spawn(
        &self,
        slot: Slot,
        incarnation: Incarnation,
        cpu: Option<u16>,
        page: BorrowedFd<'_>,
    ) -> Result<Process, ProcessError> {
        let page = page.try_clone_to_owned().map_err(|source| self.failed(source))?;
        let mut command = self.command();
        command.stdin(Stdio::from(page)).env(WORKER_VARIABLE, self.tag(slot, incarnation));
        let Some(cpu) = cpu else { return self.start(&mut command) };
        let cpus = CpuId::new(u32::from(cpu)).map(CpuSet::single).map_err(ProcessError::Cpu)?;
        pinmesh_host::while_pinned_to(&cpus, || self.start(&mut command))
            .map_err(ProcessError::Cpu)?
    }

    /// Starts a keeper.
    ///
    /// # Errors
    /// The program cannot be executed.
    pub fn spawn_keeper(&self) -> Result<Process, ProcessError> {
        let mut command = self.command();
        let supervisor = getpid().as_raw_nonzero();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .env_remove(WORKER_VARIABLE)
            .env(KEEPER_VARIABLE, format!("{}:{supervisor}", self.host));
        self.start(&mut command)
    }

    /// Kills every process that descends from this life of a worker. Blocks for some milliseconds.
    pub fn sweep(&self, slot: Slot, incarnation: Incarnation) {
        sweep(&format!("{WORKER_VARIABLE}={}:{slot}:{incarnation}:", self.host));
    }

    /// Kills every process that descends from a worker of this host.
    pub fn sweep_all(&self) {
        sweep(&host_tag(self.host));
    }

    fn tag(&self, slot: Slot, incarnation: Incarnation) -> String {
        format!("{}:{slot}:{incarnation}:{}", self.host, getpid().as_raw_nonzero())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0(&self.name).args(&self.arguments).process_group(0);
        command
    }

    fn start(&self, command: &mut Command) -> Result<Process, ProcessError> {
        let mut child = command.spawn().map_err(|source| self.failed(source))?;
        let pid = Pid::from_child(&child);
        // Nobody else reaps, so that the number cannot be another process's by now.
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).inspect_err(|_| {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = child.wait();
        });
        Ok(Process { pid, pidfd: pidfd.map_err(system("pidfd_open"))? })
    }

    fn failed(&self, source: io::Error) -> ProcessError {
        ProcessError::Spawn { program: self.program.clone(), source }
    }
}

/// What has become of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is gone, and so is its process group.
    Died(Death),
    /// A signal stopped it.
    Stopped,
    /// It goes on.
    Continued,
}

/// A child. Dropping it neither kills nor reaps.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

impl AsFd for Process {
    /// The pidfd, which is readable once the process is dead.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Process {
    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends it a signal; nothing happens if it is dead.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Kills it and its process group; nothing happens if they are dead.
    pub fn kill(&self) {
        // Itself first, and by pidfd: it may have left its group.
        self.signal(Signal::KILL);
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    /// What has become of it since the last call. Once it has said [`Change::Died`], the process is
    /// reaped and must not be asked again.
    pub fn change(&self) -> Option<Change> {
        let all = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED;
        let status = self.wait(all | WaitIdOptions::NOWAIT)?;
        if status.stopped() || status.continued() {
            // Taken from the kernel now, and as it is now: it may have changed in between.
            let status = self.wait(WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED)?;
            return Some(if status.stopped() { Change::Stopped } else { Change::Continued });
        }
        // Before it is reaped: until then its number, which is its group's, is nobody else's.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let status = self.wait(WaitIdOptions::EXITED)?;
        Some(Change::Died(match status.terminating_signal() {
            Some(signal) => Death::Signalled(signal),
            None => Death::Exited(status.exit_status().unwrap_or_default()),
        }))
    }

    fn wait(&self, options: WaitIdOptions) -> Option<rustix::process::WaitIdStatus> {
        let id = WaitId::PidFd(self.pidfd.as_fd());
        waitid(id, options | WaitIdOptions::NOHANG).ok().flatten()
    }
}
