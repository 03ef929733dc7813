//! What a measurement was taken on.

use std::path::Path;

use crate::{cpuset::CpuSet, error::HostError, files, pin, topology::Topology};

/// The machine and its settings at one moment, to be kept with a result. What the kernel does not
/// tell is `None`, 0 or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Environment {
    /// The host's name.
    pub hostname: Option<String>,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: Option<String>,
    /// The processor's model.
    pub cpu_model: Option<String>,
    /// Logical CPUs that are online.
    pub logical_cpus: usize,
    /// Physical cores among them.
    pub physical_cores: usize,
    /// Packages (sockets).
    pub packages: usize,
    /// NUMA nodes that have CPUs.
    pub numa_nodes: usize,
    /// Whether a core has more than one online CPU.
    pub smt: bool,
    /// The CPUs that this process may use.
    pub allowed: CpuSet,
    /// CPUs that the kernel keeps other work away from (`isolcpus=`).
    pub isolated: CpuSet,
    /// The frequency governor; several, joined by commas, if the CPUs do not have the same one.
    pub governor: Option<String>,
    /// Memory of the host, bytes.
    pub memory_bytes: u64,
}

impl Environment {
    /// The environment of this process.
    ///
    /// # Errors
    /// [`HostError::Affinity`] if the kernel does not tell which CPUs this process may use.
    pub fn read() -> Result<Self, HostError> {
        Ok(Self::read_from(Path::new("/proc"), Path::new("/sys"), &pin::allowed()?))
    }

    /// The environment that the given procfs and sysfs show to a process that may use `allowed`.
    pub fn read_from(procfs: &Path, sysfs: &Path, allowed: &CpuSet) -> Self {
        let topology = Topology::read_from(sysfs, allowed);
        let cpus = sysfs.join("devices/system/cpu");
        let isolated = files::text(&cpus.join("isolated"));
        let meminfo = files::text(&procfs.join("meminfo")).unwrap_or_default();
        Self {
            hostname: files::text(&procfs.join("sys/kernel/hostname")),
            kernel: files::text(&procfs.join("sys/kernel/osrelease")),
            cpu_model: files::text(&procfs.join("cpuinfo")).and_then(|text| cpu_model(&text)),
            logical_cpus: topology.cpus().len(),
            physical_cores: topology.core_count(),
            packages: topology.package_count(),
            numa_nodes: topology.nodes().len(),
            smt: topology.has_smt(),
            allowed: allowed.clone(),
            isolated: isolated.and_then(|list| CpuSet::from_kernel_list(&list)).unwrap_or_default(),
            governor: governor(&cpus, &topology),
            memory_bytes: files::field(&meminfo, "MemTotal").unwrap_or(0).saturating_mul(1024),
        }
    }
}

/// The first of the names that the architectures use: x86, then ARM boards, POWER, RISC-V.
fn cpu_model(cpuinfo: &str) -> Option<String> {
    let value = |name: &str| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            let value = value.trim();
            (key.trim() == name && !value.is_empty()).then(|| value.to_owned())
        })
    };
    ["model name", "Model", "cpu", "uarch"].into_iter().find_map(value)
}

fn governor(cpus: &Path, topology: &Topology) -> Option<String> {
    let read = |id| files::text(&cpus.join(format!("cpu{id}/cpufreq/scaling_governor")));
    let mut governors: Vec<String> =
        topology.cpus().iter().filter_map(|cpu| read(cpu.id)).collect();
    governors.sort_unstable();
    governors.dedup();
    if governors.is_empty() { None } else { Some(governors.join(",")) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn made_up() -> Environment {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        write(at, "proc/sys/kernel/hostname", "rack7\n");
        write(at, "proc/sys/kernel/osrelease", "6.12.0-metal\n");
        write(at, "proc/cpuinfo", "processor\t: 0\nmodel\t\t: 1\nmodel name\t: Fast 9000\n");
        write(at, "proc/meminfo", "MemTotal:       1024 kB\nMemFree:        12 kB\n");
        write(at, "sys/devices/system/cpu/online", "0-3\n");
        write(at, "sys/devices/system/cpu/isolated", "2-3\n");
        for cpu in 0..4 {
            let cpu_at = format!("sys/devices/system/cpu/cpu{cpu}");
            let siblings = if cpu % 2 == 0 { "0,2" } else { "1,3" };
            write(at, &format!("{cpu_at}/topology/thread_siblings_list"), siblings);
            let governor = if cpu == 3 { "powersave\n" } else { "performance\n" };
            write(at, &format!("{cpu_at}/cpufreq/scaling_governor"), governor);
        }
        let allowed = "0-2".parse().unwrap();
        Environment::read_from(&at.join("proc"), &at.join("sys"), &allowed)
    }

    #[test]
    fn everything_that_the_kernel_tells_is_in_it() {
        let environment = made_up();
        let expected = Environment {
            hostname: Some("rack7".to_owned()),
            kernel: Some("6.12.0-metal".to_owned()),
            cpu_model: Some("Fast 9000".to_owned()),
            logical_cpus: 4,
            physical_cores: 2,
            packages: 1,
            numa_nodes: 1,
            smt: true,
            allowed: "0-2".parse().unwrap(),
            isolated: "2-3".parse().unwrap(),
            governor: Some("performance,powersave".to_owned()),
            memory_bytes: 1 << 20,
        };
        assert_eq!(environment, expected);
    }

    #[test]
    fn missing_files_leave_gaps_and_no_error() {
        let nowhere = Path::new("/nonexistent");
        let environment = Environment::read_from(nowhere, nowhere, &"0-1".parse().unwrap());
        assert_eq!(environment.logical_cpus, 2);
        assert_eq!(environment.physical_cores, 2);
        assert_eq!(environment.cpu_model, None);
        assert_eq!(environment.governor, None);
        assert!(environment.isolated.is_empty());
        assert_eq!(environment.memory_bytes, 0);
    }

    #[test]
    fn this_host_can_be_described() {
        let environment = Environment::read().unwrap();
        assert!(environment.logical_cpus >= environment.allowed.len());
        assert!(environment.physical_cores >= 1);
        assert!(environment.kernel.is_some());
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_survives_json() {
        for environment in [made_up(), Environment::read().unwrap()] {
            let json = serde_json::to_string(&environment).unwrap();
            assert_eq!(serde_json::from_str::<Environment>(&json).unwrap(), environment);
        }
        let json = serde_json::to_value(made_up()).unwrap();
        assert_eq!(json["allowed"], "0-2");
    }
}
