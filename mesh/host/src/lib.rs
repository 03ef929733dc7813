//! What the machine is: CPU sets, topology, pinning, and the CPU time and memory of processes.
//! Linux only.
//!
//! A CPU set is written in cpuset syntax (`2`, `2-8`, `2,4`, `0-3,8`), or as `all` or `no-smt`, and
//! is resolved once, at the start of a process, against what that process may use:
//!
//! ```
//! use pinmesh_host::{CpuSelection, ProcessUsage, current_affinity, pin_current_thread};
//!
//! # fn main() -> Result<(), pinmesh_host::HostError> {
//! // What `--cpus no-smt --workers 1` means on this machine.
//! let selection: CpuSelection = "no-smt".parse()?;
//! let cpus = selection.resolve_here()?.first(1)?;
//! let cpu = cpus.lowest().expect("first(1) holds one CPU");
//!
//! // Pinning is checked against the allowed CPUs before, and with the kernel after.
//! pin_current_thread(cpu)?;
//! assert_eq!(current_affinity()?, cpus);
//!
//! // What a piece of work cost this process.
//! let before = ProcessUsage::of_self()?;
//! let work: u64 = (0..100_000).sum();
//! let cost = ProcessUsage::of_self()?.since(&before)?;
//! println!("{work}: {} ns of CPU, {} bytes resident", cost.cpu_time_ns, cost.resident_bytes);
//! # Ok(())
//! # }
//! ```
//!
//! # Which CPUs may be used
//! [`allowed`] is the affinity mask of the process's main thread as it was when this crate first
//! asked for it, so a thread that is started by a pinned thread, and inherits its mask, may still
//! be pinned elsewhere. A child process cannot know that: it inherits the mask of the thread that
//! spawned it and takes it for its limit. Spawn it under [`while_pinned_to`] the CPUs that it shall
//! use.

#![deny(unsafe_code)]

mod accounting;
mod cpuset;
mod environment;
mod error;
mod files;
mod pin;
mod selection;
mod sys;
mod topology;

pub use accounting::{ProcessUsage, UsageDifference};
pub use cpuset::{CPU_TEXT_BYTES_MAX, CPUS_MAX, CpuId, CpuSet, WORKERS_MAX};
pub use environment::Environment;
pub use error::HostError;
pub use pin::{
    allowed, current_affinity, pin_current_thread, pin_current_thread_to, while_pinned_to,
};
pub use selection::CpuSelection;
pub use topology::{Cache, CacheKind, Cpu, NumaNode, Topology};
