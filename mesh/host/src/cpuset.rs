//! Sets of CPUs and their grammar.

use std::{fmt, str::FromStr};

use crate::error::HostError;

/// The most CPUs that are supported: ids are below it.
pub const CPUS_MAX: u32 = 4096;

/// The most workers that [`CpuSet::cycle`] places: one process for each CPU of the largest host.
pub const WORKERS_MAX: usize = 4096;

/// The longest text that is read as a CPU set, bytes. The longest canonical one, every other CPU of
/// [`CPUS_MAX`], has under 10,000.
pub const CPU_TEXT_BYTES_MAX: usize = 16 * 1024;

/// The kernel's number of one logical CPU, below [`CPUS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(u32);

impl CpuId {
    /// The CPU of this number.
    ///
    /// # Errors
    /// [`HostError::CpuTooLarge`] from [`CPUS_MAX`] on.
    pub fn new(id: u32) -> Result<Self, HostError> {
        if id < CPUS_MAX { Ok(Self(id)) } else { Err(too_large(id.to_string())) }
    }

    /// The number, as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl From<CpuId> for u32 {
    fn from(cpu: CpuId) -> Self {
        cpu.0
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn too_large(id: String) -> HostError {
    HostError::CpuTooLarge { id, id_max: CPUS_MAX - 1 }
}

/// A set of CPUs, in ascending order. It may be empty, as an answer of the host; text that is empty
/// is refused.
///
/// ```
/// use pinmesh_host::CpuSet;
///
/// let cpus: CpuSet = "8,0-2,3,2".parse().unwrap();
/// assert_eq!(cpus.to_string(), "0-3,8");
/// assert_eq!(cpus.first(2).unwrap().to_string(), "0-1");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuSet {
    /// Ascending, no duplicates.
    cpus: Vec<CpuId>,
}

impl CpuSet {
    /// The set of one CPU.
    pub fn single(cpu: CpuId) -> Self {
        Self { cpus: vec![cpu] }
    }

    /// How many CPUs there are.
    pub fn len(&self) -> usize {
        self.cpus.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.cpus.is_empty()
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = CpuId> + '_ {
        self.cpus.iter().copied()
    }

    /// The CPU of the smallest number.
    pub fn lowest(&self) -> Option<CpuId> {
        self.cpus.first().copied()
    }

    /// Whether this CPU is in the set.
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.cpus.binary_search(&cpu).is_ok()
    }

    /// Whether every CPU of this set is in the other.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|cpu| other.contains(cpu))
    }

    /// The CPUs that are in either.
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// The CPUs that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.iter().filter(|&cpu| other.contains(cpu)).collect()
    }

    /// The CPUs that are in this set and not in the other.
    pub fn difference(&self, other: &Self) -> Self {
        self.iter().filter(|&cpu| !other.contains(cpu)).collect()
    }

    /// The first `workers` CPUs, one for each worker (`--workers N`).
    ///
    /// # Errors
    /// [`HostError::NoWorkers`] for 0, [`HostError::TooManyWorkers`] if there are fewer CPUs.
    pub fn first(&self, workers: usize) -> Result<Self, HostError> {
        match workers {
            0 => Err(HostError::NoWorkers),
            _ if workers > self.len() => Err(HostError::TooManyWorkers {
                workers,
                workers_max: self.len(),
                cpus: Some(self.to_string()),
            }),
            _ => Ok(Self { cpus: self.cpus[..workers].to_vec() }),
        }
    }

    /// A CPU for each of `workers`, round robin: workers share CPUs where there are more of them,
    /// and what is measured then is no longer a figure per core.
    ///
    /// # Errors
    /// [`HostError::NoWorkers`] for 0, [`HostError::TooManyWorkers`] over [`WORKERS_MAX`],
    /// [`HostError::EmptyCpuSet`] if there is no CPU.
    pub fn cycle(&self, workers: usize) -> Result<Vec<CpuId>, HostError> {
        if workers == 0 {
            return Err(HostError::NoWorkers);
        }
        if workers > WORKERS_MAX {
            let workers_max = WORKERS_MAX;
            return Err(HostError::TooManyWorkers { workers, workers_max, cpus: None });
        }
        if self.is_empty() {
            return Err(HostError::EmptyCpuSet);
        }
        Ok(self.cpus.iter().copied().cycle().take(workers).collect())
    }

    /// Reads a list that the kernel wrote, where nothing at all is the empty set. `None` if it is
    /// no such list.
    pub(crate) fn from_kernel_list(list: &str) -> Option<Self> {
        if list.trim().is_empty() { Some(Self::default()) } else { list.parse().ok() }
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<I: IntoIterator<Item = CpuId>>(ids: I) -> Self {
        let mut cpus: Vec<CpuId> = ids.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        Self { cpus }
    }
}

/// cpuset syntax, ids, inclusive: `2`, `2-8`, `2,4`, `0-3,8`. Order and duplicates do not matter.
impl FromStr for CpuSet {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if text.len() > CPU_TEXT_BYTES_MAX {
            let (bytes, bytes_max) = (text.len(), CPU_TEXT_BYTES_MAX);
            return Err(HostError::CpuSetTooLong { bytes, bytes_max });
        }
        let text = text.trim();
        if text.is_empty() {
            return Err(HostError::EmptyCpuSet);
        }
        // A flag for each id, so that overlapping ranges cost time but no memory.
        let mut is_member = vec![false; CPUS_MAX as usize];
        for part in text.split(',') {
            let (first, last) = range(text, part.trim())?;
            is_member[first as usize..=last as usize].fill(true);
        }
        Ok((0..CPUS_MAX).filter(|&id| is_member[id as usize]).map(CpuId).collect())
    }
}

/// The first and last id of one part, both below [`CPUS_MAX`] and in order.
fn range(text: &str, part: &str) -> Result<(u32, u32), HostError> {
    if part.is_empty() {
        return Err(HostError::EmptyPart { text: text.to_owned() });
    }
    let not_a_cpu = || HostError::NotACpu { text: text.to_owned(), part: part.to_owned() };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let is_id = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    if !is_id(first) || !is_id(last) {
        return Err(not_a_cpu());
    }
    let (first, last) = (id(first)?, id(last)?);
    if first > last {
        return Err(HostError::ReversedRange { text: text.to_owned(), first, last });
    }
    Ok((first, last))
}

fn id(digits: &str) -> Result<u32, HostError> {
    // Digits that do not fit the integer are too large, not malformed.
    match digits.parse() {
        Ok(id) if id < CPUS_MAX => Ok(id),
        _ => Err(too_large(digits.to_owned())),
    }
}

/// The canonical short form: ascending, neighbours joined to ranges. Empty for the empty set.
impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.cpus.chunk_by(|left, right| left.0 + 1 == right.0);
        for (position, run) in runs.enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match run {
                [only] => write!(f, "{only}")?,
                [first, .., last] => write!(f, "{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for CpuSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for CpuSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    fn message(text: &str) -> String {
        text.parse::<CpuSet>().unwrap_err().to_string()
    }

    #[test]
    fn every_documented_form_is_read() {
        let ids = |text| set(text).iter().map(u32::from).collect::<Vec<_>>();
        assert_eq!(ids("2"), [2]);
        assert_eq!(ids("2-8"), [2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(ids("2,4"), [2, 4]);
        assert_eq!(ids("0-3,8"), [0, 1, 2, 3, 8]);
        assert_eq!(ids(" 8 , 0-1\n"), [0, 1, 8]);
        assert_eq!(ids("5-5"), [5]);
        assert_eq!(ids("4095"), [4095]);
    }

    #[test]
    fn order_and_duplicates_do_not_matter() {
        assert_eq!(set("8,0-3,2,2-3,1"), set("0-3,8"));
    }

    #[test]
    fn display_is_the_canonical_short_form() {
        assert_eq!(set("0,1,2,3,5,7,8").to_string(), "0-3,5,7-8");
        assert_eq!(CpuSet::default().to_string(), "");
    }

    #[test]
    fn a_refusal_names_the_value_and_the_remedy() {
        assert_eq!(message("1,8-2"), "range `8-2` in CPU set `1,8-2` is reversed: write `2-8`");
        assert_eq!(message("4096"), "CPU 4096 is too large: ids go from 0 to 4095");
        assert_eq!(
            message("0-99999999999999999999"),
            "CPU 99999999999999999999 is too large: ids go from 0 to 4095"
        );
        assert!(message("1,,2").starts_with("CPU set `1,,2` has a comma with nothing beside it"));
        assert!(message("x").starts_with("`x` in CPU set `x` is not a CPU id or a range: write"));
        assert!(message("").starts_with("the CPU set is empty: write"));
    }

    #[test]
    fn what_is_not_in_the_grammar_is_refused() {
        for text in ["-", "1-", "-1", "1-2-3", "+1", "0x2", "1 2", "1- 2", "all,2", "no-smt", "1:2"]
        {
            let refusal = text.parse::<CpuSet>().unwrap_err();
            assert!(matches!(refusal, HostError::NotACpu { .. }), "{text}: {refusal}");
        }
        for text in [",", "1,", ",1", "1, ,2"] {
            let refusal = text.parse::<CpuSet>().unwrap_err();
            assert!(matches!(refusal, HostError::EmptyPart { .. }), "{text}: {refusal}");
        }
        let long = "1,".repeat(CPU_TEXT_BYTES_MAX);
        assert!(matches!(long.parse::<CpuSet>(), Err(HostError::CpuSetTooLong { .. })));
        assert!(matches!(CpuId::new(CPUS_MAX), Err(HostError::CpuTooLarge { .. })));
    }

    #[test]
    fn workers_take_the_first_cpus_of_the_set() {
        assert_eq!(set("2,4,6-8").first(3).unwrap(), set("2,4,6"));
        assert_eq!(set("2,4").first(2).unwrap(), set("2,4"));
        assert!(matches!(set("2").first(0), Err(HostError::NoWorkers)));
        let refusal = set("2,4").first(3).unwrap_err().to_string();
        assert!(refusal.starts_with("3 workers do not fit on the 2 CPUs of the set 2,4"));
        assert!(refusal.ends_with("or allow oversubscription"));
    }

    #[test]
    fn oversubscription_goes_round_robin_up_to_a_bound() {
        let ids = |workers| {
            set("2,4").cycle(workers).map(|cpus| Vec::from_iter(cpus.into_iter().map(u32::from)))
        };
        assert_eq!(ids(5).unwrap(), [2, 4, 2, 4, 2]);
        assert!(matches!(ids(0), Err(HostError::NoWorkers)));
        assert!(matches!(ids(WORKERS_MAX + 1), Err(HostError::TooManyWorkers { cpus: None, .. })));
        assert!(matches!(CpuSet::default().cycle(1), Err(HostError::EmptyCpuSet)));
    }

    #[test]
    fn sets_can_be_combined() {
        let (left, right) = (set("0-3"), set("2-5"));
        assert_eq!(left.union(&right), set("0-5"));
        assert_eq!(left.intersection(&right), set("2-3"));
        assert_eq!(left.difference(&right), set("0-1"));
        assert!(set("2-3").is_subset(&left));
        assert!(!right.is_subset(&left));
    }
}
