//! Which CPUs a configuration asks for, before the host has been asked.

use std::{fmt, str::FromStr};

use crate::{cpuset::CpuSet, error::HostError, pin, topology::Topology};

/// A CPU set as it is written in a flag or a field, parsed but not yet resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum CpuSelection {
    /// `all`: every CPU that this process may use.
    #[default]
    All,
    /// `no-smt`: of those, one for each physical core.
    NoSmt,
    /// These ids.
    Ids(CpuSet),
}

impl CpuSelection {
    /// The CPUs that are meant, on a host of this topology, by a process that may use `allowed`.
    ///
    /// # Errors
    /// [`HostError::CpuNotAllowed`] if an id is not in `allowed`; [`HostError::EmptyCpuSet`] if
    /// nothing is left.
    pub fn resolve(&self, topology: &Topology, allowed: &CpuSet) -> Result<CpuSet, HostError> {
        let cpus = match self {
            Self::All => allowed.clone(),
            Self::NoSmt => topology.one_per_core(allowed),
            Self::Ids(cpus) => {
                pin::check_allowed(cpus, allowed)?;
                cpus.clone()
            }
        };
        if cpus.is_empty() { Err(HostError::EmptyCpuSet) } else { Ok(cpus) }
    }

    /// The CPUs that are meant on this host by this process.
    ///
    /// # Errors
    /// As [`CpuSelection::resolve`], and [`HostError::Affinity`] if the kernel does not tell what
    /// this process may use.
    pub fn resolve_here(&self) -> Result<CpuSet, HostError> {
        self.resolve(&Topology::read()?, &pin::allowed()?)
    }
}

impl FromStr for CpuSelection {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        match text.trim() {
            "all" => Ok(Self::All),
            "no-smt" => Ok(Self::NoSmt),
            _ => text.parse().map(Self::Ids),
        }
    }
}

impl fmt::Display for CpuSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::NoSmt => f.write_str("no-smt"),
            Self::Ids(cpus) => cpus.fmt(f),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for CpuSelection {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for CpuSelection {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(selection: &str, allowed: &str) -> Result<String, HostError> {
        let allowed: CpuSet = allowed.parse().unwrap();
        // A root without files: each CPU is its own core.
        let topology = Topology::read_from("/nonexistent".as_ref(), &allowed);
        let selection: CpuSelection = selection.parse()?;
        selection.resolve(&topology, &allowed).map(|cpus| cpus.to_string())
    }

    #[test]
    fn all_is_what_the_process_may_use() {
        assert_eq!(resolve("all", "2-3,7").unwrap(), "2-3,7");
        assert_eq!(resolve(" no-smt ", "2-3,7").unwrap(), "2-3,7");
        assert_eq!(resolve("7,2", "2-3,7").unwrap(), "2,7");
    }

    #[test]
    fn a_cpu_outside_the_allowed_set_is_refused_with_the_cause() {
        let refusal = resolve("2-5", "2-3,7").unwrap_err();
        assert!(matches!(refusal, HostError::CpuNotAllowed { .. }));
        let message = refusal.to_string();
        assert!(message.starts_with("CPU 4-5 may not be used by this process"), "{message}");
        assert!(message.contains("limited to 2-3,7 by its cpuset or by taskset"), "{message}");
    }

    #[test]
    fn display_is_what_parses() {
        for text in ["all", "no-smt", "0-3,8"] {
            assert_eq!(text.parse::<CpuSelection>().unwrap().to_string(), text);
        }
        assert!(matches!("ALL".parse::<CpuSelection>(), Err(HostError::NotACpu { .. })));
    }
}
