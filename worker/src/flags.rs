//! The flags that every worker program has.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pinmesh_host::{CpuSelection, Topology, current_affinity};
use pinmesh_protocol::limits::WORKERS_MAX;
use pinmesh_protocol::selector::{NameError, is_label};
use pinmesh_transport::{Endpoint, PeerKeys};

use crate::error::WorkerError;
use crate::page::BROKERS_MAX;

/// How long a drain may take, by default.
const DRAIN_TIME: &str = "30s";

/// Flags of a worker program. A program with flags of its own flattens these into them:
/// `#[command(flatten)] flags: WorkerFlags`.
#[derive(Args, Clone, Debug)]
pub struct WorkerFlags {
    /// Broker to serve: its backend endpoint. Repeat it to serve several; they share the window
    #[arg(long = "backend", value_name = "ENDPOINT", default_value = "tcp://127.0.0.1:5556")]
    pub backends: Vec<String>,

    /// File with the secret key of this host, as `pinmesh keygen NAME --role worker` writes it, for
    /// brokers with keys. Default: no keys
    #[arg(long, value_name = "FILE", requires = "broker_keys")]
    pub key: Option<PathBuf>,

    /// Public key of the brokers, or a file that holds it. Repeat it in the order of --backend where
    /// each has another
    #[arg(
        long = "broker-key",
        value_name = "KEY|FILE",
        requires = "key",
        allow_hyphen_values = true
    )]
    pub broker_keys: Vec<String>,

    /// CPUs for workers: a list such as `2`, `2-8` or `2,4`, `all`, or `no-smt` (one CPU a core)
    #[arg(long, value_name = "SET", default_value = "all")]
    pub cpus: CpuSelection,

    /// Workers to start, on the first N of the CPUs; with more workers than CPUs they share them.
    /// Default: one a CPU
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,

    /// Name for people, in the broker's lists. Default: `program@host`
    #[arg(long)]
    pub name: Option<String>,

    /// Label of these workers, such as `gpu` or `disk=nvme`: tasks may require it. Repeat it to give
    /// several [default: none]
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,

    /// Label each worker with the NUMA node of its CPU as well: `numa=0`
    #[arg(long)]
    pub numa_label: bool,

    /// Tasks that one worker holds at most, for all brokers together, 1 to 1024; the broker adapts
    /// below it
    #[arg(long, value_name = "N", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub window: u32,

    /// How long an idle worker stays awake before it sleeps; saves the wake-up's latency and costs
    /// the CPU
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub spin: Duration,

    /// Record waits and service times to this file, one for each worker: the slot and the
    /// incarnation go before the extension (`w.hlog` becomes `w.0-1.hlog`). Default: not recorded
    #[arg(long, value_name = "FILE")]
    pub latency_log: Option<PathBuf>,

    /// How long a cancelled handler may go on at the end of a drain before it is killed
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub grace: Duration,

    /// How long a worker that holds tasks may stand still between two of them before it is killed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub stall_max: Duration,

    /// What one worker and all that it starts may take of memory, such as 2GiB; past it the kernel
    /// kills and its task is charged with a crash. Needs memory cgroups. Default: what the host has
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub worker_memory: Option<u64>,

    /// How long running tasks may take to end after SIGTERM or a broker's DRAIN, and at SIGHUP for
    /// each worker; a second SIGTERM ends the wait
    #[arg(long, value_name = "DURATION", default_value = DRAIN_TIME, value_parser = duration)]
    pub drain_time: Duration,
}

/// At least what a worker takes by itself.
fn size(text: &str) -> Result<u64, String> {
    const BYTES_MIN: u64 = 16 << 20;
    let size: bytesize::ByteSize =
        text.parse().map_err(|error| format!("{error}; write a size such as 512MiB or 2GiB"))?;
    if size.as_u64() < BYTES_MIN {
        return Err(format!("{text} is less than a worker takes by itself; write 16MiB or more"));
    }
    Ok(size.as_u64())
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number and a unit, such as 250ms or 5s"))
}

impl WorkerFlags {
    /// The endpoints, checked.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, WorkerError> {
        if self.backends.len() > BROKERS_MAX {
            let reason = format!(
                "a worker serves at most {BROKERS_MAX} brokers; start another supervisor for the \
                 rest"
            );
            return Err(flag("--backend", format!("{} times", self.backends.len()), reason));
        }
        let parse = |text: &String| {
            text.parse().map_err(|error| flag("--backend", text.clone(), format!("{error}")))
        };
        self.backends.iter().map(parse).collect()
    }

    /// The keys, if there are any.
    pub(crate) fn keys(&self) -> Result<Option<PeerKeys>, WorkerError> {
        let Some(file) = &self.key else { return Ok(None) };
        let keys = PeerKeys::load(file, &self.broker_keys)
            .and_then(|keys| keys.check(self.backends.len()).map(|()| keys));
        keys.map(Some).map_err(WorkerError::Keys)
    }

    /// The CPU of each worker.
    pub(crate) fn worker_cpus(&self) -> Result<Vec<Option<u16>>, WorkerError> {
        let set = self.cpus.resolve_here().map_err(WorkerError::Cpus)?;
        let workers = self.workers.unwrap_or(set.len());
        if workers > WORKERS_MAX || workers == 0 {
            let reason = format!("a host has 1 to {WORKERS_MAX} workers");
            return Err(flag("--workers", workers.to_string(), reason));
        }
        if workers > set.len() {
            tracing::warn!(workers, cpus = %set, "more workers than CPUs: they share them, and \
                figures are no longer per core");
        }
        let cpus = set.cycle(workers).map_err(WorkerError::Cpus)?;
        Ok(cpus.into_iter().map(|cpu| u16::try_from(cpu.index()).ok()).collect())
    }

    /// The labels of this process: a worker is pinned before it asks.
    pub(crate) fn labels(&self) -> Result<Vec<String>, WorkerError> {
        if let Some(label) = self.labels.iter().find(|label| !is_label(label)) {
            return Err(flag("--label", label.clone(), NameError::Label.to_string()));
        }
        let mut labels = self.labels.clone();
        if self.numa_label {
            let topology = Topology::read().map_err(WorkerError::Cpus)?;
            let cpu = current_affinity().map_err(WorkerError::Cpus)?.lowest();
            let node = cpu.and_then(|cpu| topology.cpu(cpu)).map_or(0, |cpu| cpu.node);
            labels.push(format!("numa={node}"));
        }
        Ok(labels)
    }

    /// The name, given or made up.
    pub(crate) fn worker_name(&self) -> String {
        self.name.clone().unwrap_or_else(default_name)
    }
}

fn flag(flag: &'static str, value: String, reason: String) -> WorkerError {
    WorkerError::Flag { flag, value, reason }
}

/// `program@host`.
pub(crate) fn default_name() -> String {
    let program = std::env::args_os().next().map(PathBuf::from);
    let program = program.as_deref().and_then(|path| path.file_name());
    let program = program.map_or_else(|| "worker".into(), |name| name.to_string_lossy());
    let system = rustix::system::uname();
    format!("{program}@{}", system.nodename().to_string_lossy())
}
