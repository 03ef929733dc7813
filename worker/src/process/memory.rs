//! A memory cgroup for each worker, where the host allows one: it tells a worker that the kernel
//! has killed for want of memory from one that somebody else has killed, and can bound what a
//! worker takes.
//!
//! cgroup v1: a folder below the supervisor's own in the memory hierarchy. cgroup v2: a folder below
//! the supervisor's own, which must be given to it alone (systemd: `Delegate=yes`), because there
//! only groups without processes have groups with memory below them: the supervisor moves itself
//! into one of its own.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pinmesh_protocol::id::{Incarnation, PeerId, Slot};

/// Where the supervisor itself is in cgroup v2.
const SUPERVISOR: &str = "pinmesh-supervisor";

/// Which interface the host has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    V1,
    V2,
}

/// Why workers have no memory cgroups.
#[derive(Debug)]
#[non_exhaustive]
pub enum MemoryError {
    /// Neither interface has memory here.
    Absent,
    /// The folder may not be used so.
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("this host has no memory cgroup, v1 or v2"),
            Self::Refused { path, source } => write!(
                f,
                "{}: {source}; run the supervisor as root, or give it a cgroup of its own (systemd: \
                 Delegate=yes)",
                path.display()
            ),
        }
    }
}

impl std::error::Error for MemoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Absent => None,
            Self::Refused { source, .. } => Some(source),
        }
    }
}

fn refused(path: &Path) -> impl Fn(io::Error) -> MemoryError {
    move |source| MemoryError::Refused { path: path.to_owned(), source }
}

/// Makes the groups of one host.
#[derive(Clone, Debug)]
pub struct MemoryGroups {
    version: Version,
    parent: PathBuf,
    host: PeerId,
    limit_bytes: Option<u64>,
}

impl MemoryGroups {
    /// Finds out where groups can be made, and makes one to be sure. `limit_bytes`: what a worker
    /// and all that it starts may take together.
    ///
    /// # Errors
    /// The host allows none.
    pub fn find(host: PeerId, limit_bytes: Option<u64>) -> Result<Self, MemoryError> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (groups, mounts) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
        let found = own_group(&groups, &mounts).ok_or(MemoryError::Absent)?;
        let (version, parent) = found;
        if version == Version::V2 {
            delegate_memory(&parent)?;
        }
        let this = Self { version, parent, host, limit_bytes };
        let trial = this.make(Slot(0), Incarnation(0));
        trial.map_err(refused(&this.parent))?;
        Ok(this)
    }

    /// Whether workers are bounded.
    pub const fn has_limit(&self) -> bool {
        self.limit_bytes.is_some()
    }

    /// The group of one life of a worker, with nobody in it.
    ///
    /// # Errors
    /// The folder cannot be made or its limit not be set.
    pub fn make(&self, slot: Slot, incarnation: Incarnation) -> io::Result<MemoryGroup> {
        let folder = |incarnation: Incarnation| {
            self.parent.join(format!("{}{slot}-{incarnation}", prefix(self.host)))
        };
        // Where what a worker had started took its time to be gone.
        let _ = fs::remove_dir(folder(Incarnation(incarnation.0.wrapping_sub(1))));
        let folder = folder(incarnation);
        fs::create_dir(&folder)?;
        let group = MemoryGroup { version: self.version, folder };
        if let Some(bytes) = self.limit_bytes {
            group.bound(bytes)?;
        }
        Ok(group)
    }
}

fn prefix(host: PeerId) -> String {
    format!("pinmesh-{host}-")
}

/// Removes the groups that a host has left behind; those with processes stay.
pub(super) fn remove_groups(host: PeerId) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (groups, mounts) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
    let Some((version, own)) = own_group(&groups, &mounts) else { return };
    let parent = match version {
        Version::V1 => Some(own.as_path()),
        // The keeper was started by a supervisor that had moved into its own group.
        Version::V2 => own.parent(),
    };
    let Some(Ok(entries)) = parent.map(fs::read_dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix(host)) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// One worker's group. Dropping it removes it, if nobody is in it any more.
#[derive(Debug)]
pub struct MemoryGroup {
    version: Version,
    folder: PathBuf,
}

impl MemoryGroup {
    /// Puts a process into it; what it starts from now on comes along.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }

    /// Bounds what its processes take together, swap included.
    fn bound(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.to_string();
        let (limit, swap, swap_bytes) = match self.version {
            Version::V1 => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", &*bytes),
            Version::V2 => ("memory.max", "memory.swap.max", "0"),
        };
        fs::write(self.folder.join(limit), &bytes)?;
        let swap = self.folder.join(swap);
        // A kernel that does not account for swap has no such file.
        if swap.exists() { fs::write(swap, swap_bytes) } else { Ok(()) }
    }

    /// Whether the kernel has killed one of its processes for want of memory.
    pub fn has_run_out(&self) -> bool {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        oom_kills(&text) > 0
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The line `oom_kill N`, which both versions have.
fn oom_kills(text: &str) -> u64 {
    let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    text.lines().find_map(count).unwrap_or_default()
}

/// The folder of this process's own group, where memory is counted.
fn own_group(groups: &str, mounts: &str) -> Option<(Version, PathBuf)> {
    let v1 = mount_of(mounts, |kind, options| {
        kind == "cgroup" && options.split(',').any(|option| option == "memory")
    });
    let v2 = mount_of(mounts, |kind, _| kind == "cgroup2");
    let path = |is_it: &dyn Fn(&str, &str) -> bool| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            is_it(number, names).then(|| path.to_owned())
        })
    };
    let in_v1 = path(&|_, names| names.split(',').any(|name| name == "memory"));
    if let (Some(mount), Some(path)) = (v1, in_v1) {
        return Some((Version::V1, mount.folder(&path)));
    }
    let in_v2 = path(&|number, names| number == "0" && names.is_empty());
    let folder = v2?.folder(&in_v2?);
    Some((Version::V2, folder))
}

struct Mount {
    root: String,
    point: PathBuf,
}

impl Mount {
    /// Where a group is to be found; what is mounted may be a part of the hierarchy.
    fn folder(&self, path: &str) -> PathBuf {
        let below = path.strip_prefix(self.root.as_str()).unwrap_or(path);
        self.point.join(below.trim_start_matches('/'))
    }
}

/// The first mount of /proc/self/mountinfo of a kind: see proc_pid_mountinfo(5).
fn mount_of(mounts: &str, is_it: impl Fn(&str, &str) -> bool) -> Option<Mount> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (name, options) = (kind.next()?, kind.nth(1)?);
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let root = if root == "/" { String::new() } else { root.to_owned() };
        is_it(name, options).then(|| Mount { root, point: point.into() })
    })
}

/// Lets groups below `own` have memory, and moves this process out of the way.
fn delegate_memory(own: &Path) -> Result<(), MemoryError> {
    let controllers = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    if !controllers.split_whitespace().any(|name| name == "memory") {
        return Err(MemoryError::Absent);
    }
    let leaf = own.join(SUPERVISOR);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(refused(&leaf)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let pid = std::process::id().to_string();
    fs::write(leaf.join("cgroup.procs"), &pid).map_err(refused(&leaf))?;
    let subtree = own.join("cgroup.subtree_control");
    fs::write(&subtree, "+memory").map_err(|error| {
        // Somebody else is in the group: it is not ours alone.
        let _ = fs::write(own.join("cgroup.procs"), &pid);
        let _ = fs::remove_dir(&leaf);
        refused(&subtree)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_either_version() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/batch/job\n0::/unified\n";
        let v1 = "42 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        let v2 =
            "40 31 0:32 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let both = format!("{v2}{v1}");
        let folder = PathBuf::from("/sys/fs/cgroup/memory/batch/job");
        assert_eq!(own_group(groups, &both), Some((Version::V1, folder)));
        let folder = PathBuf::from("/sys/fs/cgroup/unified");
        assert_eq!(own_group("0::/unified\n", v2), Some((Version::V2, folder)));
        assert_eq!(own_group("0::/unified\n", v1), None);
        assert_eq!(own_group("", v2), None);
    }

    #[test]
    fn a_part_of_the_hierarchy_may_be_mounted() {
        let mount = "42 31 0:33 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let found = own_group("4:memory:/docker/ab/own\n", mount);
        assert_eq!(found, Some((Version::V1, PathBuf::from("/sys/fs/cgroup/memory/own"))));
    }

    #[test]
    fn kills_for_want_of_memory_are_read_in_either_version() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 7\noom 3\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(oom_kills("oom 3\n"), 0);
    }

    #[test]
    fn a_group_that_is_not_given_to_the_supervisor_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(delegate_memory(folder.path()), Err(MemoryError::Absent)));
        std::fs::write(folder.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        // What is written is found in files that nobody reads here.
        delegate_memory(folder.path()).unwrap();
        let written = std::fs::read_to_string(folder.path().join("cgroup.subtree_control"));
        assert_eq!(written.unwrap(), "+memory");
        let error = delegate_memory(Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(error, MemoryError::Absent), "{error}");
    }
}
