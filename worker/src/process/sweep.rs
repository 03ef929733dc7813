//! Finding processes by the tag in their environment, and killing them.

use std::io::Read;

use pinmesh_protocol::id::PeerId;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::WORKER_VARIABLE;

/// Rounds of looking for tagged processes; each finds what was forked during the one before.
const SWEEPS_MAX: usize = 100;
/// The longest environment that is read, bytes.
const ENVIRONMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What the environment of every process of a host's workers has.
pub(super) fn host_tag(host: PeerId) -> String {
    format!("{WORKER_VARIABLE}={host}:")
}

/// Kills every process whose environment has a variable that begins so, until there is none.
pub(super) fn sweep(tag: &str) {
    for _ in 0..SWEEPS_MAX {
        if kill_tagged(tag) == 0 {
            return;
        }
    }
}

fn kill_tagged(tag: &str) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let own = getpid();
    let pids = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|&pid| pid != own);
    let is_killed = |&pid: &Pid| {
        if !has_tag(pid, tag) {
            return false;
        }
        // Asked again once it cannot become another process's number any more.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        has_tag(pid, tag) && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
    };
    pids.filter(is_killed).count()
}

/// A process that has died, reaped or not, has none.
fn has_tag(pid: Pid, tag: &str) -> bool {
    let Ok(file) = std::fs::File::open(format!("/proc/{}/environ", pid.as_raw_nonzero())) else {
        return false;
    };
    let mut environment = Vec::new();
    let read = file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut environment);
    read.is_ok() && environment.split(|&b| b == 0).any(|v| v.starts_with(tag.as_bytes()))
}
