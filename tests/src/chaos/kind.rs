//! The kinds of damage, and how long each lasts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// SIGKILL; whatever nobody else starts again is started again at once.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Stop,
}

/// To whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Victim {
    /// One worker process.
    Worker,
    /// Every worker process of the mesh.
    AllWorkers,
    /// The supervisors of one of two hosts.
    Supervisor,
    /// The broker.
    Broker,
    /// The client.
    Client,
}

/// One sort of damage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A signal to processes.
    Signal(Fault, Victim),
    /// One of two hosts is cut off: for less than liveness, for longer than a lease, and for longer
    /// than it takes to requeue what it held.
    Cut(CutLength),
    /// Nothing breaks, but the cables of client and workers carry 8 Mbit/s, and payloads are long.
    SlowLink,
}

/// For how long a host is cut off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CutLength {
    /// 1 s.
    Short,
    /// 15 s.
    Middle,
    /// 60 s.
    Long,
}

const VICTIMS: [(&str, Victim); 5] = [
    ("worker", Victim::Worker),
    ("all-workers", Victim::AllWorkers),
    ("supervisor", Victim::Supervisor),
    ("broker", Victim::Broker),
    ("client", Victim::Client),
];
const CUTS: [(&str, CutLength); 3] =
    [("cut-1", CutLength::Short), ("cut-15", CutLength::Middle), ("cut-60", CutLength::Long)];

impl Kind {
    /// Every kind.
    pub fn all() -> Vec<Self> {
        let signal = |fault| VICTIMS.map(|(_, victim)| Self::Signal(fault, victim));
        let mut kinds = signal(Fault::Kill).to_vec();
        kinds.extend(signal(Fault::Stop));
        kinds.extend(CUTS.map(|(_, length)| Self::Cut(length)));
        kinds.push(Self::SlowLink);
        kinds
    }

    /// Whether its hosts are network namespaces.
    pub fn needs_network(self) -> bool {
        matches!(self, Self::Cut(_) | Self::SlowLink)
    }

    /// Whether attempts can outlive a lease: then there are tasks that run for longer than one.
    pub fn ends_leases(self) -> bool {
        matches!(
            self,
            Self::Signal(Fault::Stop, Victim::Supervisor | Victim::Broker)
                | Self::Cut(CutLength::Middle | CutLength::Long)
        )
    }

    /// Whether a host or a supervisor may stay silent, so that what it holds waits for its lease.
    pub fn is_silent(self) -> bool {
        self.ends_leases() || self == Self::Signal(Fault::Kill, Victim::Supervisor)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Signal(fault, victim) => {
                let fault = if *fault == Fault::Kill { "kill" } else { "stop" };
                let name = VICTIMS.iter().find(|(_, known)| known == victim);
                format!("{fault}-{}", name.map_or("", |(name, _)| name))
            }
            Self::Cut(length) => {
                let name = CUTS.iter().find(|(_, known)| known == length);
                name.map_or("", |(name, _)| name).to_owned()
            }
            Self::SlowLink => "slow-link".to_owned(),
        };
        f.pad(&name)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = Self::all();
        kinds.iter().find(|kind| kind.to_string() == text).copied().ok_or_else(|| {
            let names: Vec<String> = kinds.iter().map(Self::to_string).collect();
            format!("`{text}` is no kind of damage; there are {}", names.join(", "))
        })
    }
}

/// How a mesh is configured, and how long the damage lasts with it.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Flags of the broker.
    pub broker_flags: Vec<String>,
    /// Its configuration file; empty: the defaults.
    pub broker_config: String,
    /// Flags of supervisors.
    pub worker_flags: Vec<String>,
    /// The lease, as configured.
    pub lease: Duration,
    /// How long a process is stopped.
    pub stop: Duration,
    /// How long a host is cut off, each length.
    pub cuts: [Duration; 3],
    /// The payload that goes over the slow link, bytes.
    pub slow_bytes: usize,
}

impl Timing {
    /// Work goes on within so long of healing.
    pub const RESUME_MAX: Duration = Duration::from_secs(10);
    /// What a silent host held goes on within so long: 1.1 leases, the grace and 2 s, as shipped.
    pub const SILENT_MAX: Duration = Duration::from_secs(18);

    /// The shipped configuration, and the damage that is promised to be survived.
    pub fn shipped() -> Self {
        Self {
            broker_flags: Vec::new(),
            broker_config: String::new(),
            worker_flags: Vec::new(),
            lease: Duration::from_secs(10),
            stop: Duration::from_secs(30),
            cuts: [1, 15, 60].map(Duration::from_secs),
            slow_bytes: 64 << 20,
        }
    }

    /// The same ways in a tenth of the time.
    pub fn fast() -> Self {
        Self {
            broker_flags: crate::FAST.map(str::to_owned).to_vec(),
            broker_config: "[sessions]\ngrace = \"300ms\"\n".to_owned(),
            worker_flags: vec!["--stall-max=2s".to_owned()],
            lease: Duration::from_secs(2),
            stop: Duration::from_secs(5),
            cuts: [200, 2_300, 6_000].map(Duration::from_millis),
            slow_bytes: 3 << 20,
        }
    }

    /// How long a host is cut off.
    pub fn cut(&self, length: CutLength) -> Duration {
        self.cuts[length as usize]
    }

    /// How long the long tasks run: some outlive the lease whenever the damage comes.
    pub fn long(&self) -> Duration {
        self.lease * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let kinds = Kind::all();
        assert_eq!(kinds.len(), 14);
        for kind in kinds {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("kill-cat".parse::<Kind>().unwrap_err().contains("stop-broker"));
    }
}
