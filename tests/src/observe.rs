//! What the kernel says of processes.

use std::collections::BTreeMap;
use std::fs;

use crate::MARK;

/// One life of a process: its number is another's one day, its start is not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Seen {
    /// Its number.
    pub pid: i32,
    /// When it started, clock ticks since the system's start.
    start: u64,
}

impl Seen {
    /// The process that has this number now; `None`: none runs.
    pub fn now(pid: i32) -> Option<Self> {
        let stat = Stat::of(pid)?;
        stat.runs.then_some(Self { pid, start: stat.start })
    }

    /// Whether it still runs. One that is dead and not reaped does not.
    pub fn is_alive(&self) -> bool {
        Self::now(self.pid) == Some(*self)
    }
}

struct Stat {
    parent: i32,
    start: u64,
    runs: bool,
    ticks: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            runs: !matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            ticks: number(11)? + number(12)?,
            start: number(19)?,
        })
    }
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("this is Linux");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn has_variable(pid: i32, is_it: impl Fn(&str) -> bool) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| is_it(&String::from_utf8_lossy(entry)))
}

/// Children of a process whose environment has this variable.
pub fn children(parent: i32, variable: &str) -> Vec<Seen> {
    let start = format!("{variable}=");
    let is_child = |pid: &i32| Stat::of(*pid).is_some_and(|stat| stat.parent == parent);
    let has_it = |pid: &i32| has_variable(*pid, |entry| entry.starts_with(&start));
    pids().into_iter().filter(is_child).filter(has_it).filter_map(Seen::now).collect()
}

/// Every process that descends from one, itself excluded.
pub fn descendants(root: i32) -> Vec<Seen> {
    let parents: BTreeMap<i32, i32> =
        pids().into_iter().filter_map(|pid| Some((pid, Stat::of(pid)?.parent))).collect();
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        let children = parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid);
        next.extend(children.clone());
        found.extend(children.filter_map(Seen::now));
    }
    found
}

/// Every process that was started as, or descends from, the one with this value of [`MARK`], also
/// those whose parents are gone.
pub fn marked(mark: &str) -> Vec<Seen> {
    let wanted = format!("{MARK}={mark}");
    let is_marked = |pid: &i32| has_variable(*pid, |entry| entry == wanted);
    pids().into_iter().filter(is_marked).filter_map(Seen::now).collect()
}

/// CPU time that a process has used, clock ticks (10 ms).
pub fn cpu_time(pid: i32) -> u64 {
    Stat::of(pid).map_or(0, |stat| stat.ticks)
}

fn allowed(status: &str) -> Option<String> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(line.trim().to_owned())
}

/// The CPUs that each thread of a process may run on, as the kernel lists them.
///
/// # Panics
/// The process is gone.
pub fn allowed_cpus(pid: i32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    // A thread may end meanwhile.
    tasks.flatten().filter_map(|task| allowed(task.path().join("status").to_str()?)).collect()
}

/// The CPUs that this process may run on.
///
/// # Panics
/// The kernel's list cannot be read.
pub fn own_cpus() -> Vec<u32> {
    let list = allowed("/proc/self/status").expect("Linux lists them");
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u32>().expect("the kernel's grammar");
        number(first)..=number(last)
    };
    list.split(',').flat_map(range).collect()
}
