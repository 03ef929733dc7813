//! The CPU time of broker, workers and clients, each charged apart, from the kernel's own accounting.

use std::{collections::BTreeMap, fs, process};

use pinmesh_host::{HostError, ProcessUsage};

/// Processes of one side of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// These processes and all that descend from them: a supervisor and its workers.
    Trees(Vec<u32>),
    /// This process alone.
    One(u32),
    /// Nobody knows which they are: a mesh that was there before.
    Unknown,
}

/// The sides of a mesh.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    pub(crate) broker: Side,
    pub(crate) workers: Side,
}

/// What each side has used until one moment. `None`: unknown.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    broker: Option<Vec<ProcessUsage>>,
    workers: Option<Vec<ProcessUsage>>,
    clients: Vec<ProcessUsage>,
}

/// What was used between two samples, ns. `None`: unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub(crate) broker: Option<u64>,
    pub(crate) workers: Option<u64>,
    pub(crate) clients: Option<u64>,
}

impl Meter {
    /// Of a mesh that was there before, as far as its process ids are given.
    pub(crate) fn given(broker: Option<u32>, workers: &[u32]) -> Self {
        let workers = workers.to_vec();
        Self {
            broker: broker.map_or(Side::Unknown, Side::One),
            workers: if workers.is_empty() { Side::Unknown } else { Side::Trees(workers) },
        }
    }

    /// Samples every process of every side.
    ///
    /// # Errors
    /// A process that was given is gone, or `/proc` cannot be read.
    pub(crate) fn sample(&self) -> Result<Sample, HostError> {
        Ok(Sample {
            broker: self.broker.sample()?,
            workers: self.workers.sample()?,
            clients: vec![ProcessUsage::of_self()?],
        })
    }
}

impl Side {
    fn sample(&self) -> Result<Option<Vec<ProcessUsage>>, HostError> {
        match self {
            Self::Unknown => Ok(None),
            Self::One(pid) => Ok(Some(vec![ProcessUsage::of(*pid)?])),
            Self::Trees(roots) => {
                let mut usages = Vec::new();
                for pid in with_descendants(roots, &parents()) {
                    match ProcessUsage::of(pid) {
                        Ok(usage) => usages.push(usage),
                        // One that has ended since the listing; a difference will tell.
                        Err(HostError::ProcessGone { .. }) if !roots.contains(&pid) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(Some(usages))
            }
        }
    }
}

impl Sample {
    /// What was used since an earlier sample, and what is wrong with that: a process that came or
    /// went between the two is charged in part only.
    pub(crate) fn since(&self, earlier: &Self) -> (CpuTime, Vec<String>) {
        let mut problems = Vec::new();
        let mut side = |name, later: Option<&Vec<_>>, earlier: Option<&Vec<_>>| {
            difference(name, later?, earlier?, &mut problems)
        };
        let time = CpuTime {
            broker: side("broker", self.broker.as_ref(), earlier.broker.as_ref()),
            workers: side("workers", self.workers.as_ref(), earlier.workers.as_ref()),
            clients: side("clients", Some(&self.clients), Some(&earlier.clients)),
        };
        (time, problems)
    }
}

fn difference(
    name: &str,
    later: &[ProcessUsage],
    earlier: &[ProcessUsage],
    problems: &mut Vec<String>,
) -> Option<u64> {
    let mut sum = 0_u64;
    for usage in later {
        let Some(before) = earlier.iter().find(|before| before.pid == usage.pid) else {
            problems.push(format!("{name}: process {} started during the measurement", usage.pid));
            sum = sum.saturating_add(usage.cpu_time_ns);
            continue;
        };
        match usage.since(before) {
            Ok(difference) => sum = sum.saturating_add(difference.cpu_time_ns),
            Err(error) => problems.push(format!("{name}: {error}")),
        }
    }
    for before in earlier {
        if !later.iter().any(|usage| usage.pid == before.pid) {
            problems.push(format!("{name}: process {} ended during the measurement", before.pid));
        }
    }
    (!later.is_empty()).then_some(sum)
}

/// Every process with its parent, as far as `/proc` shows them.
fn parents() -> BTreeMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let parent = |name: &str| {
        let pid: u32 = name.parse().ok()?;
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parent_of(&String::from_utf8_lossy(&stat))?))
    };
    entries.flatten().filter_map(|entry| parent(entry.file_name().to_str()?)).collect()
}

/// The parent in a line of `/proc/PID/stat`: the second field after the name in parentheses, which
/// may hold any byte.
fn parent_of(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The roots, and all that have one of them above them; each once.
fn with_descendants(roots: &[u32], parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    let mut next: Vec<u32> = roots.to_vec();
    while let Some(pid) = next.pop() {
        if !found.contains(&pid) && pid != process::id() {
            found.push(pid);
            next.extend(parents.iter().filter(|(_, parent)| **parent == pid).map(|(pid, _)| *pid));
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn descendants_are_found_whatever_their_depth() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 5), (7, 99)]);
        assert_eq!(with_descendants(&[2], &parents), [2, 3, 4]);
        assert_eq!(with_descendants(&[5, 3, 3], &parents), [3, 4, 5, 6]);
        assert_eq!(parent_of("7 (a) b) S 42 7 7"), Some(42));
        assert_eq!(parent_of("nonsense"), None);
    }

    #[test]
    fn a_child_is_charged_to_its_side_and_its_end_is_a_problem() {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let unknown = Side::Unknown;
        // This process is no root, because its own descendants include the tests' other children.
        let meter = Meter { broker: unknown, workers: Side::Trees(vec![child.id()]) };
        let first = meter.sample().unwrap();
        let (time, problems) = meter.sample().unwrap().since(&first);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(time.broker, None);
        assert!(time.workers.is_some() && time.clients.is_some());

        child.kill().unwrap();
        child.wait().unwrap();
        assert!(meter.sample().is_err(), "its root is gone");
        let gone = Sample { workers: Some(Vec::new()), ..first.clone() };
        let (time, problems) = gone.since(&first);
        assert_eq!(time.workers, None);
        assert!(problems[0].contains("ended during the measurement"), "{problems:?}");
    }
}
