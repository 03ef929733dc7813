//! Cores, packages, NUMA nodes and caches, as sysfs shows them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    path::Path,
};

use crate::{
    cpuset::{CpuId, CpuSet},
    error::HostError,
    files, pin,
};

/// The most cache levels and kinds that a CPU is looked at for; machines have three to five.
const CACHES_PER_CPU_MAX: u32 = 16;

/// One logical CPU and where it sits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: CpuId,
    /// The CPUs of its physical core, itself among them.
    pub siblings: CpuSet,
    /// Its package (socket).
    pub package: u32,
    /// Its NUMA node.
    pub node: u32,
}

/// A NUMA node that has CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// Its number.
    pub id: u32,
    /// Its CPUs.
    pub cpus: CpuSet,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CacheKind {
    /// Data only.
    Data,
    /// Instructions only.
    Instruction,
    /// Both.
    Unified,
}

/// One cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 is the nearest to the core.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// Its size, bytes; 0 if the kernel does not tell.
    pub size_bytes: u64,
    /// The CPUs that share it.
    pub cpus: CpuSet,
}

/// The online CPUs of a host and what they share. Never empty, and as complete as sysfs is: in
/// a container where files are missing, each CPU is its own core, in package 0 and node 0, without
/// caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// By ascending id.
    cpus: Vec<Cpu>,
    nodes: Vec<NumaNode>,
    caches: Vec<Cache>,
}

impl Topology {
    /// The topology of this host.
    ///
    /// # Errors
    /// [`HostError::Affinity`] if the kernel does not tell which CPUs this process may use: they
    /// are taken as online, whatever sysfs says.
    pub fn read() -> Result<Self, HostError> {
        Ok(Self::read_from(Path::new("/sys"), &pin::allowed()?))
    }

    /// The topology that a sysfs mounted at `sysfs` shows; the CPUs of `allowed` are online
    /// whatever it says.
    pub fn read_from(sysfs: &Path, allowed: &CpuSet) -> Self {
        let directory = sysfs.join("devices/system/cpu");
        let online = kernel_list(&directory.join("online")).unwrap_or_default().union(allowed);
        let listed_nodes = read_nodes(&sysfs.join("devices/system/node"));
        let mut cores = Cores::default();
        let mut cpus = Vec::with_capacity(online.len());
        for id in online.iter() {
            let at = directory.join(format!("cpu{id}"));
            cores.add(id, &at.join("topology"), &online);
            let package = files::number(&at.join("topology/physical_package_id")).unwrap_or(0);
            let listed = listed_nodes.iter().find(|node| node.cpus.contains(id));
            let node = listed.map(|node| node.id).or_else(|| linked_node(&at)).unwrap_or(0);
            cpus.push(Cpu { id, siblings: CpuSet::default(), package, node });
        }
        for cpu in &mut cpus {
            cpu.siblings = cores.siblings(cpu.id);
        }
        let nodes = group_nodes(&cpus);
        let caches = read_caches(&directory, &online);
        Self { cpus, nodes, caches }
    }

    /// The online CPUs, by ascending id.
    pub fn cpus(&self) -> &[Cpu] {
        &self.cpus
    }

    /// One CPU; `None` if it is not online.
    pub fn cpu(&self, id: CpuId) -> Option<&Cpu> {
        let position = self.cpus.binary_search_by_key(&id, |cpu| cpu.id).ok()?;
        self.cpus.get(position)
    }

    /// The NUMA nodes that have CPUs, by ascending id.
    pub fn nodes(&self) -> &[NumaNode] {
        &self.nodes
    }

    /// The caches, by level, kind and lowest CPU.
    pub fn caches(&self) -> &[Cache] {
        &self.caches
    }

    /// The largest cache that this CPU shares or owns, which is the one of the highest level.
    pub fn last_level_cache(&self, cpu: CpuId) -> Option<&Cache> {
        self.caches.iter().rev().find(|cache| cache.cpus.contains(cpu))
    }

    /// How many physical cores there are.
    pub fn core_count(&self) -> usize {
        self.cpus.iter().filter(|cpu| cpu.siblings.lowest() == Some(cpu.id)).count()
    }

    /// How many packages (sockets) there are.
    pub fn package_count(&self) -> usize {
        let mut packages: Vec<u32> = self.cpus.iter().map(|cpu| cpu.package).collect();
        packages.sort_unstable();
        packages.dedup();
        packages.len()
    }

    /// Whether a core has more than one online CPU (simultaneous multithreading).
    pub fn has_smt(&self) -> bool {
        self.cpus.iter().any(|cpu| cpu.siblings.len() > 1)
    }

    /// Of these CPUs, the lowest of each physical core. A CPU that is not online counts as a core
    /// of its own.
    pub fn one_per_core(&self, cpus: &CpuSet) -> CpuSet {
        let is_lowest_of_its_core = |&id: &CpuId| {
            let Some(cpu) = self.cpu(id) else { return true };
            cpu.siblings.iter().find(|&sibling| cpus.contains(sibling)) == Some(id)
        };
        cpus.iter().filter(is_lowest_of_its_core).collect()
    }
}

/// Which CPUs form a core. Cores are disjoint even where the lists of sysfs contradict one another,
/// so that a CPU is never counted twice.
#[derive(Default)]
struct Cores {
    /// Each core under its lowest CPU.
    members: BTreeMap<CpuId, Vec<CpuId>>,
    core_of: BTreeMap<CpuId, CpuId>,
    /// Cores by package, die and core id, for a sysfs that has these but no sibling lists.
    by_number: BTreeMap<(u32, u32, u32), CpuId>,
}

impl Cores {
    /// Adds a CPU; CPUs come in ascending order.
    fn add(&mut self, cpu: CpuId, topology: &Path, online: &CpuSet) {
        let core = self.core(cpu, topology, online);
        self.members.entry(core).or_default().push(cpu);
        self.core_of.insert(cpu, core);
    }

    fn core(&mut self, cpu: CpuId, topology: &Path, online: &CpuSet) -> CpuId {
        // The newer name first; both mean the same.
        let listed = ["core_cpus_list", "thread_siblings_list"]
            .iter()
            .find_map(|name| kernel_list(&topology.join(name)))
            .filter(|siblings| siblings.contains(cpu));
        if let Some(siblings) = listed {
            let lowest = siblings.intersection(online).lowest().unwrap_or(cpu);
            // A lower sibling has been added, and says which core it belongs to.
            return self.core_of.get(&lowest).copied().unwrap_or(cpu);
        }
        let Some(core_id) = files::number::<u32>(&topology.join("core_id")) else { return cpu };
        let Some(package) = files::number::<u32>(&topology.join("physical_package_id")) else {
            return cpu;
        };
        let die = files::number::<u32>(&topology.join("die_id")).unwrap_or(0);
        *self.by_number.entry((package, die, core_id)).or_insert(cpu)
    }

    fn siblings(&self, cpu: CpuId) -> CpuSet {
        let core = self.core_of.get(&cpu).unwrap_or(&cpu);
        self.members.get(core).into_iter().flatten().copied().collect()
    }
}

fn kernel_list(path: &Path) -> Option<CpuSet> {
    CpuSet::from_kernel_list(&files::text(path)?)
}

/// The number in names such as `node3`.
fn numbered(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

/// The numbers of the entries of a directory that are named `prefix` and a number.
fn numbered_entries(directory: &Path, prefix: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> =
        entries.filter_map(|entry| numbered(entry.file_name().to_str()?, prefix)).collect();
    numbers.sort_unstable();
    numbers
}

fn read_nodes(directory: &Path) -> Vec<NumaNode> {
    let read = |id| {
        let cpus = kernel_list(&directory.join(format!("node{id}/cpulist")))?;
        Some(NumaNode { id, cpus })
    };
    numbered_entries(directory, "node").into_iter().filter_map(read).collect()
}

/// The `nodeN` link in the directory of a CPU.
fn linked_node(cpu: &Path) -> Option<u32> {
    numbered_entries(cpu, "node").first().copied()
}

fn group_nodes(cpus: &[Cpu]) -> Vec<NumaNode> {
    let mut nodes: BTreeMap<u32, Vec<CpuId>> = BTreeMap::new();
    for cpu in cpus {
        nodes.entry(cpu.node).or_default().push(cpu.id);
    }
    nodes.into_iter().map(|(id, cpus)| NumaNode { id, cpus: cpus.into_iter().collect() }).collect()
}

fn read_caches(directory: &Path, online: &CpuSet) -> Vec<Cache> {
    // Each CPU lists the caches that it shares, so one cache is met once for each of its CPUs.
    let mut caches = BTreeMap::new();
    for cpu in online.iter() {
        for index in 0..CACHES_PER_CPU_MAX {
            let at = directory.join(format!("cpu{cpu}/cache/index{index}"));
            let Some(level) = files::number::<u8>(&at.join("level")) else { break };
            let Some(kind) = files::text(&at.join("type")).and_then(|kind| cache_kind(&kind))
            else {
                continue;
            };
            let shared = kernel_list(&at.join("shared_cpu_list")).unwrap_or_default();
            let cpus = shared.intersection(online).union(&CpuSet::single(cpu));
            if let Entry::Vacant(entry) = caches.entry((level, kind, cpus.lowest())) {
                let size_bytes = files::text(&at.join("size")).map_or(0, |size| bytes(&size));
                entry.insert(Cache { level, kind, size_bytes, cpus });
            }
        }
    }
    caches.into_values().collect()
}

fn cache_kind(name: &str) -> Option<CacheKind> {
    match name {
        "Data" => Some(CacheKind::Data),
        "Instruction" => Some(CacheKind::Instruction),
        "Unified" => Some(CacheKind::Unified),
        _ => None,
    }
}

/// The kernel writes cache sizes as `32K`; anything that is not such a size is 0.
fn bytes(size: &str) -> u64 {
    let (digits, unit) = match size.strip_suffix(['K', 'M']) {
        Some(digits) if size.ends_with('M') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 10),
        None => (size, 1),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).unwrap_or(0)
}
