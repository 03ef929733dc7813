//! What can go wrong on this floor, as one enum.

use std::{error, fmt, io};

/// Why a CPU set, a pin or a sample was refused. Each message names the value and the remedy; the
/// caller puts the flag or field in front of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum HostError {
    /// A CPU set without a single CPU.
    EmptyCpuSet,
    /// The text of a CPU set is longer than any that is needed.
    CpuSetTooLong {
        /// Length of the text, bytes.
        bytes: usize,
        /// The longest that is read, bytes.
        bytes_max: usize,
    },
    /// Nothing between two commas, or before or after one.
    EmptyPart {
        /// The whole CPU set.
        text: String,
    },
    /// A part that is neither an id nor a range of ids.
    NotACpu {
        /// The whole CPU set.
        text: String,
        /// The part that cannot be read.
        part: String,
    },
    /// An id beyond the largest that is supported.
    CpuTooLarge {
        /// The id, as it was written.
        id: String,
        /// The largest id.
        id_max: u32,
    },
    /// A range whose first id is greater than its last.
    ReversedRange {
        /// The whole CPU set.
        text: String,
        /// The first id of the range.
        first: u32,
        /// The last id of the range.
        last: u32,
    },
    /// CPUs that this process may not use.
    CpuNotAllowed {
        /// Those of the wanted CPUs that it may not use.
        refused: String,
        /// All that it may use.
        allowed: String,
    },
    /// Zero workers were asked for.
    NoWorkers,
    /// More workers than CPUs, or than are supported at all.
    TooManyWorkers {
        /// Workers asked for.
        workers: usize,
        /// CPUs in the set, or the bound.
        workers_max: usize,
        /// The CPU set; `None` if the bound was passed.
        cpus: Option<String>,
    },
    /// The kernel refused to tell or to change an affinity mask.
    Affinity {
        /// What was asked of it.
        action: &'static str,
        /// The CPUs in question.
        cpus: String,
        /// What it answered.
        source: io::Error,
    },
    /// The kernel accepted a pin, and yet the thread is not where it was put.
    PinNotEffective {
        /// Where it was put.
        wanted: String,
        /// Where it is.
        found: String,
    },
    /// There is no process of this id (any more).
    ProcessGone {
        /// Process id.
        pid: u32,
    },
    /// Two samples of one process id belong to different processes.
    DifferentProcess {
        /// Process id of the later sample.
        pid: u32,
        /// Process id of the earlier one.
        earlier_pid: u32,
    },
    /// A file that describes a process or the host could not be read.
    Unreadable {
        /// Path of the file.
        path: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A file that describes a process does not have the form that proc(5) gives it.
    Malformed {
        /// Path of the file.
        path: String,
        /// The field that is missing or not a number.
        field: &'static str,
    },
}

const FORMS: &str = "write ids such as `2`, `2-8`, `2,4`, `0-3,8`, or `all` or `no-smt` alone";

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyCpuSet => write!(f, "the CPU set is empty: {FORMS}"),
            Self::CpuSetTooLong { bytes, bytes_max } => {
                write!(f, "a CPU set of {bytes} bytes is over {bytes_max}: write it as ranges")
            }
            Self::EmptyPart { text } => write!(
                f,
                "CPU set `{text}` has a comma with nothing beside it: remove the comma or add an id"
            ),
            Self::NotACpu { text, part } => {
                write!(f, "`{part}` in CPU set `{text}` is not a CPU id or a range: {FORMS}")
            }
            Self::CpuTooLarge { id, id_max } => {
                write!(f, "CPU {id} is too large: ids go from 0 to {id_max}")
            }
            Self::ReversedRange { text, first, last } => write!(
                f,
                "range `{first}-{last}` in CPU set `{text}` is reversed: write `{last}-{first}`"
            ),
            Self::CpuNotAllowed { refused, allowed } => write!(
                f,
                "CPU {refused} may not be used by this process, which is limited to {allowed} by \
                 its cpuset or by taskset: choose from {allowed}, or widen that limit"
            ),
            Self::NoWorkers => write!(f, "0 workers would do nothing: ask for 1 or more"),
            Self::TooManyWorkers { workers, workers_max, cpus: Some(cpus) } => write!(
                f,
                "{workers} workers do not fit on the {workers_max} CPUs of the set {cpus}, one \
                 each: ask for {workers_max} or fewer, widen the set, or allow oversubscription"
            ),
            Self::TooManyWorkers { workers, workers_max, cpus: None } => {
                write!(f, "{workers} workers are too many: ask for {workers_max} or fewer")
            }
            Self::Affinity { action, cpus, source } => write!(
                f,
                "the kernel refused to {action} {cpus} ({source}): check that these CPUs are \
                 online and in the cpuset of this process"
            ),
            Self::PinNotEffective { wanted, found } => write!(
                f,
                "pinned to CPU {wanted} but running on {found}: the cpuset of this process has \
                 changed, or this kernel or sandbox ignores pinning; check its cpuset"
            ),
            Self::ProcessGone { pid } => {
                write!(f, "process {pid} is gone: sample it before it is reaped")
            }
            Self::DifferentProcess { pid, earlier_pid } => write!(
                f,
                "the samples of pid {earlier_pid} and pid {pid} are not of one process: compare \
                 samples of the same one, and take a new first sample after a restart"
            ),
            Self::Unreadable { path, source } => write!(
                f,
                "{path} cannot be read ({source}): run as the same user, with /proc mounted"
            ),
            Self::Malformed { path, field } => write!(
                f,
                "{path} has no readable `{field}`: check that /proc there is a Linux proc(5)"
            ),
        }
    }
}

impl error::Error for HostError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Affinity { source, .. } | Self::Unreadable { source, .. } => Some(source),
            Self::EmptyCpuSet
            | Self::CpuSetTooLong { .. }
            | Self::EmptyPart { .. }
            | Self::NotACpu { .. }
            | Self::CpuTooLarge { .. }
            | Self::ReversedRange { .. }
            | Self::CpuNotAllowed { .. }
            | Self::NoWorkers
            | Self::TooManyWorkers { .. }
            | Self::PinNotEffective { .. }
            | Self::ProcessGone { .. }
            | Self::DifferentProcess { .. }
            | Self::Malformed { .. } => None,
        }
    }
}
