//! What a process is: supervisor, keeper or worker.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::thread;

use pinmesh_protocol::id::{Incarnation, PeerId, Slot};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpgrp, getpid, getppid, kill_current_process_group, kill_process,
    pidfd_open, set_parent_process_death_signal,
};

use super::memory::remove_groups;
use super::sweep::{host_tag, sweep};
use super::{KEEPER_VARIABLE, ProcessError, WORKER_VARIABLE, system};

/// What this process is to be.
#[derive(Debug)]
pub enum Started {
    /// Started by somebody: the supervisor of a host.
    Supervisor,
    /// Started by a supervisor: see the module.
    Keeper(Keeper),
    /// Started by a supervisor: a worker.
    Worker(Inherited),
}

/// What a supervisor gives a worker.
#[derive(Debug)]
pub struct Inherited {
    /// The host's id.
    pub host: PeerId,
    /// The worker's place on it.
    pub slot: Slot,
    /// Its life there.
    pub incarnation: Incarnation,
    /// Its status page.
    pub page: OwnedFd,
}

/// Waits for the end of a supervisor. See the module.
#[derive(Debug)]
pub struct Keeper {
    host: PeerId,
    supervisor: OwnedFd,
}

/// Finds out what this process is. To be called first in `main`, by its first thread: a worker is
/// bound to its supervisor's life here.
///
/// # Errors
/// The environment says something that it should not, or the supervisor is already gone.
pub fn started() -> Result<Started, ProcessError> {
    if let Some(value) = std::env::var_os(KEEPER_VARIABLE) {
        let invalid = || invalid(KEEPER_VARIABLE, &value);
        let text = value.to_str().ok_or_else(invalid)?;
        let (host, supervisor) = text.split_once(':').ok_or_else(invalid)?;
        let host = parse_host(host).ok_or_else(invalid)?;
        let supervisor = parent(KEEPER_VARIABLE, supervisor.parse().map_err(|_| invalid())?)?;
        return Ok(Started::Keeper(Keeper { host, supervisor }));
    }
    let Some(value) = std::env::var_os(WORKER_VARIABLE) else { return Ok(Started::Supervisor) };
    let invalid = || invalid(WORKER_VARIABLE, &value);
    let mut fields = value.to_str().ok_or_else(invalid)?.split(':');
    let mut next = || fields.next().ok_or_else(invalid);
    let host = parse_host(next()?).ok_or_else(invalid)?;
    let slot = Slot(next()?.parse().map_err(|_| invalid())?);
    let incarnation = Incarnation(next()?.parse().map_err(|_| invalid())?);
    let supervisor: i32 = next()?.parse().map_err(|_| invalid())?;
    // Set before the parent is looked at: if it dies in between, one of the two notices.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(system("prctl"))?;
    let supervisor = parent(WORKER_VARIABLE, supervisor)?;
    let page = take_stdin()?;
    watch(supervisor)?;
    Ok(Started::Worker(Inherited { host, slot, incarnation, page }))
}

fn invalid(name: &'static str, value: &OsString) -> ProcessError {
    ProcessError::Variable { name, value: value.to_string_lossy().into_owned() }
}

fn parse_host(text: &str) -> Option<PeerId> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut host = [0; 16];
    for (byte, digits) in host.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(PeerId(host))
}

/// A pidfd of the parent, if it is this process.
fn parent(name: &'static str, supervisor: i32) -> Result<OwnedFd, ProcessError> {
    let is_parent = || getppid().is_some_and(|parent| parent.as_raw_nonzero().get() == supervisor);
    let gone = ProcessError::NotTheParent { name, supervisor };
    let Some(pid) = Pid::from_raw(supervisor).filter(|_| is_parent()) else { return Err(gone) };
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(system("pidfd_open"))?;
    // Still the parent, so that the number was its own when it was opened.
    if is_parent() { Ok(pidfd) } else { Err(gone) }
}

/// Takes the page from standard input, and leaves /dev/null there.
fn take_stdin() -> Result<OwnedFd, ProcessError> {
    let page = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
        .map_err(system("fcntl(F_DUPFD_CLOEXEC)"))?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())
        .map_err(system("open(/dev/null)"))?;
    rustix::stdio::dup2_stdin(&null).map_err(system("dup2"))?;
    Ok(page)
}

/// Kills this process and its group when the supervisor is gone.
fn watch(supervisor: OwnedFd) -> Result<(), ProcessError> {
    let has_group = getpgrp() == getpid();
    let wait = move || {
        wait_for_end(&supervisor);
        if has_group {
            let _ = kill_current_process_group(Signal::KILL);
        }
        let _ = kill_process(getpid(), Signal::KILL);
    };
    let thread = thread::Builder::new().name("pm-parent".into()).stack_size(64 * 1024);
    thread.spawn(wait).map(drop).map_err(|source| {
        let errno = Errno::from_io_error(&source).unwrap_or(Errno::AGAIN);
        ProcessError::System { call: "clone", errno }
    })
}

fn wait_for_end(process: &OwnedFd) {
    loop {
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(0) | Err(Errno::INTR | Errno::AGAIN | Errno::NOMEM) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

impl Keeper {
    /// Waits for the end of the supervisor, kills what it left behind, and exits.
    pub fn run(self) -> ! {
        wait_for_end(&self.supervisor);
        sweep(&host_tag(self.host));
        remove_groups(self.host);
        std::process::exit(0)
    }
}
