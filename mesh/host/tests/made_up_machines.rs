//! Topologies read from a sysfs that the test has made up.

// clippy.toml allows it in test functions only, not in what they share.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use pinmesh_host::{CacheKind, CpuId, CpuSelection, CpuSet, Topology};
use tempfile::TempDir;

struct Machine {
    root: TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join("devices/system").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn cache(&self, cpu: u32, index: u32, (level, kind, size): (u8, &str, &str), shared: &str) {
        let at = format!("cpu/cpu{cpu}/cache/index{index}");
        self.write(&format!("{at}/level"), &level.to_string());
        self.write(&format!("{at}/type"), kind);
        self.write(&format!("{at}/size"), size);
        self.write(&format!("{at}/shared_cpu_list"), shared);
    }

    fn topology(&self, allowed: &str) -> Topology {
        Topology::read_from(self.root.path(), &set(allowed))
    }

    /// Two packages of two cores of two threads, numbered as Linux does on x86: the second threads
    /// come after all the first ones. Cpu N and N + 4 share a core.
    fn two_sockets() -> Self {
        let machine = Self::new();
        machine.write("cpu/online", "0-7");
        machine.write("node/node0/cpulist", "0-1,4-5");
        machine.write("node/node1/cpulist", "2-3,6-7");
        machine.write("node/node2/cpulist", "");
        machine.write("node/possible", "0-2");
        for cpu in 0..8 {
            let (first, second) = (cpu % 4, cpu % 4 + 4);
            let package = first / 2;
            let core = format!("{first},{second}");
            let socket = if package == 0 { "0-1,4-5" } else { "2-3,6-7" };
            machine.write(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &core);
            machine.write(&format!("cpu/cpu{cpu}/topology/core_id"), &(first % 2).to_string());
            let package = package.to_string();
            machine.write(&format!("cpu/cpu{cpu}/topology/physical_package_id"), &package);
            machine.cache(cpu, 0, (1, "Data", "32K"), &core);
            machine.cache(cpu, 1, (1, "Instruction", "64K"), &core);
            machine.cache(cpu, 2, (3, "Unified", "16M"), socket);
        }
        machine
    }
}

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

fn cpu(id: u32) -> CpuId {
    CpuId::new(id).unwrap()
}

#[test]
fn a_machine_with_two_sockets_is_read_whole() {
    let topology = Machine::two_sockets().topology("0-7");
    assert_eq!(topology.cpus().len(), 8);
    assert_eq!(topology.core_count(), 4);
    assert_eq!(topology.package_count(), 2);
    assert!(topology.has_smt());

    let sixth = topology.cpu(cpu(6)).unwrap();
    assert_eq!((sixth.siblings.clone(), sixth.package, sixth.node), (set("2,6"), 1, 1));
    let nodes: Vec<_> = topology.nodes().iter().map(|node| (node.id, node.cpus.clone())).collect();
    assert_eq!(nodes, [(0, set("0-1,4-5")), (1, set("2-3,6-7"))]);
    assert_eq!(topology.cpu(cpu(8)), None);
}

#[test]
fn shared_caches_are_listed_once() {
    let topology = Machine::two_sockets().topology("0-7");
    assert_eq!(topology.caches().len(), 4 + 4 + 2);
    let nearest = &topology.caches()[0];
    assert_eq!((nearest.level, nearest.kind), (1, CacheKind::Data));
    assert_eq!((nearest.size_bytes, nearest.cpus.clone()), (32 << 10, set("0,4")));
    let last = topology.last_level_cache(cpu(3)).unwrap();
    assert_eq!((last.level, last.kind), (3, CacheKind::Unified));
    assert_eq!((last.size_bytes, last.cpus.clone()), (16 << 20, set("2-3,6-7")));
}

#[test]
fn no_smt_takes_one_cpu_of_each_core_that_may_be_used() {
    let machine = Machine::two_sockets();
    let no_smt = |allowed| {
        CpuSelection::NoSmt.resolve(&machine.topology(allowed), &set(allowed)).unwrap().to_string()
    };
    assert_eq!(no_smt("0-7"), "0-3");
    assert_eq!(no_smt("2-7"), "2-5");
    assert_eq!(no_smt("4-7"), "4-7");
    assert_eq!(no_smt("1,5"), "1");
}

#[test]
fn siblings_that_are_offline_do_not_count() {
    let machine = Machine::two_sockets();
    machine.write("cpu/online", "0-3");
    let topology = machine.topology("0-3");
    assert!(!topology.has_smt());
    assert_eq!(topology.core_count(), 4);
    assert_eq!(topology.caches().last().unwrap().cpus, set("2-3"));
}

#[test]
fn without_any_file_each_allowed_cpu_is_its_own_core() {
    let topology = Topology::read_from(Path::new("/nonexistent"), &set("1,3"));
    assert_eq!(topology.cpus().iter().map(|cpu| cpu.id).collect::<CpuSet>(), set("1,3"));
    assert_eq!((topology.core_count(), topology.package_count()), (2, 1));
    assert_eq!(topology.nodes().len(), 1);
    assert!(!topology.has_smt());
    assert!(topology.caches().is_empty());
    assert_eq!(topology.one_per_core(&set("1,3")), set("1,3"));
}

#[test]
fn core_numbers_stand_in_for_missing_sibling_lists() {
    let machine = Machine::new();
    for cpu in 0..4 {
        machine.write(&format!("cpu/cpu{cpu}/topology/core_id"), &(cpu / 2).to_string());
        machine.write(&format!("cpu/cpu{cpu}/topology/physical_package_id"), "0");
    }
    let topology = machine.topology("0-3");
    assert_eq!(topology.one_per_core(&set("0-3")), set("0,2"));
    assert_eq!(topology.cpu(cpu(3)).unwrap().siblings, set("2-3"));
}

#[test]
fn a_node_is_known_by_the_link_in_the_cpus_directory_too() {
    let machine = Machine::new();
    machine.write("cpu/cpu1/node1/cpulist", "1");
    let topology = machine.topology("0-1");
    assert_eq!(topology.cpu(cpu(0)).unwrap().node, 0);
    assert_eq!(topology.cpu(cpu(1)).unwrap().node, 1);
}

#[test]
fn files_that_make_no_sense_are_as_good_as_missing() {
    let machine = Machine::new();
    machine.write("cpu/online", "none");
    machine.write("cpu/cpu0/topology/thread_siblings_list", "7-2");
    machine.write("cpu/cpu0/topology/physical_package_id", "-1");
    machine.write("cpu/cpu0/cache/index0/level", "one");
    // Says that it shares a core with a CPU that does not say so.
    machine.write("cpu/cpu1/topology/thread_siblings_list", "0-1");
    machine.write("cpu/cpu2/topology/thread_siblings_list", "0-1");
    machine.cache(2, 0, (1, "Victim", "huge"), "2");
    machine.cache(2, 1, (2, "Unified", "huge"), "x");
    machine.write("node/node0/cpulist", "?");
    let topology = machine.topology("0-2");
    let siblings: Vec<_> = topology.cpus().iter().map(|cpu| cpu.siblings.to_string()).collect();
    assert_eq!(siblings, ["0-1", "0-1", "2"]);
    assert_eq!(topology.core_count(), 2);
    assert_eq!(topology.caches().len(), 1);
    assert_eq!(topology.caches()[0].size_bytes, 0);
    assert_eq!(topology.caches()[0].cpus, set("2"));
}

#[test]
fn this_host_has_every_cpu_that_this_process_may_use() {
    let topology = Topology::read().unwrap();
    let allowed = pinmesh_host::allowed().unwrap();
    assert!(allowed.iter().all(|cpu| topology.cpu(cpu).is_some()));
    assert!(topology.one_per_core(&allowed).is_subset(&allowed));
    assert!(topology.core_count() <= topology.cpus().len());
}
