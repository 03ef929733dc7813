//! The context: libzmq's IO threads, and where they run.

use std::fmt;
use std::sync::Arc;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;
use crate::error::TransportError;
use crate::options::zmq_error;
use crate::raw::{self, Errno, RawContext, RawSocket};

/// How many IO threads there are and where they run.
#[derive(Clone, Debug)]
pub struct ContextOptions {
    /// IO threads, at least 1. One moves about a gigabyte a second.
    pub io_threads: u32,
    /// The CPUs that the IO threads may run on. None: they inherit the mask of the thread that
    /// calls [`Context::new`], so call it before pinning that thread, or after, on purpose.
    pub io_cpus: Option<Vec<usize>>,
    /// Most sockets of the context, at least 1.
    pub sockets_max: u32,
    /// Put before the names of libzmq's threads: at most 15 bytes; empty for none. The system
    /// cuts the whole name at 15, so a short one tells more. Without effect where libzmq was built
    /// without draft functions.
    pub thread_name: String,
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self { io_threads: 1, io_cpus: None, sockets_max: 1_023, thread_name: "pm".into() }
    }
}

/// What the libzmq of this build can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Its version: major, minor, patch.
    pub version: (i32, i32, i32),
    /// Whether it can encrypt and authenticate. Keys are refused where it cannot.
    pub curve: bool,
    /// Whether it has draft options, among them the batch size.
    pub draft: bool,
}

impl Capabilities {
    /// Asks libzmq.
    #[must_use]
    pub fn of_this_build() -> Self {
        Self {
            version: zmq::version(),
            curve: zmq::has("curve").unwrap_or(false),
            draft: zmq::has("draft").unwrap_or(false),
        }
    }
}

/// The IO threads that sockets share. Cloning shares it.
///
/// The last of its sockets and clones to go waits for what is still queued, for at most
/// [`linger_ms`](crate::SocketOptions::linger_ms).
#[derive(Clone)]
pub struct Context {
    raw: Arc<RawContext>,
}

impl Context {
    /// Starts the IO threads.
    ///
    /// # Errors
    /// A count out of range, a CPU that this process may not run on, or libzmq out of resources.
    pub fn new(options: &ContextOptions) -> Result<Self> {
        raw::init_process();
        let raw = RawContext::new().map_err(|errno| zmq_error("zmq_ctx_new", "", errno))?;
        let at_least_one = |name, value: u32, most: u32| {
            if (1..=most).contains(&value) {
                return Ok(i32::try_from(value).unwrap_or(i32::MAX));
            }
            let reason = format!("must be from 1 to {most}");
            Err(TransportError::Option { name, value: value.to_string(), reason })
        };
        let io_threads = at_least_one("io_threads", options.io_threads, 64)?;
        let sockets_max = at_least_one("sockets_max", options.sockets_max, 65_535)?;
        let refused = |name: &str, errno: Errno| zmq_error("zmq_ctx_set", name, errno);
        raw.set(zmq_sys::ZMQ_IO_THREADS, io_threads).map_err(|e| refused("ZMQ_IO_THREADS", e))?;
        // One more than asked for: the socket below, which closes in the background.
        raw.set(zmq_sys::ZMQ_MAX_SOCKETS, sockets_max.saturating_add(1))
            .map_err(|e| refused("ZMQ_MAX_SOCKETS", e))?;
        name_threads(&raw, &options.thread_name)?;
        match &options.io_cpus {
            None => start_threads(&raw)?,
            Some(cpus) => {
                let cpus = usable_cpus(cpus)?;
                on_cpus(&cpus, || start_threads(&raw))?;
            }
        }
        Ok(Self { raw })
    }

    pub(crate) fn raw(&self) -> &Arc<RawContext> {
        &self.raw
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Context")
    }
}

fn name_threads(raw: &RawContext, name: &str) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    if name.len() > 15 || name.contains('\0') {
        let reason = "must be at most 15 bytes, none of them zero".into();
        return Err(TransportError::Option { name: "thread_name", value: name.into(), reason });
    }
    // libzmq takes any value of four bytes for a number.
    let padded = format!("{name}{}", if name.len() == 4 { "-" } else { "" });
    match raw.set_bytes(zmq_sys::ZMQ_THREAD_NAME_PREFIX, padded.as_bytes()) {
        // Such a libzmq does not name its threads either: they keep their creator's name.
        Ok(()) | Err(Errno(libc::ENOTSUP)) => Ok(()),
        Err(errno) => Err(zmq_error("zmq_ctx_set_ext", "ZMQ_THREAD_NAME_PREFIX", errno)),
    }
}

/// Makes the first socket of a context, which starts its threads with this thread's CPU mask.
fn start_threads(raw: &Arc<RawContext>) -> Result<()> {
    RawSocket::new(raw, zmq_sys::ZMQ_DEALER)
        .map(drop)
        .map_err(|errno| zmq_error("zmq_socket", "for the first socket", errno))
}

/// The CPUs as a mask, if this thread may run on every one of them.
fn usable_cpus(cpus: &[usize]) -> Result<CpuSet> {
    let bad = |reason: String| TransportError::Option {
        name: "io_cpus",
        value: format!("{cpus:?}"),
        reason,
    };
    let allowed = sched_getaffinity(None)
        .map_err(|error| bad(format!("cannot read this thread's CPU mask: {error}")))?;
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU || !allowed.is_set(cpu) {
            return Err(bad(format!(
                "CPU {cpu} is not among those that this thread may run on; see \
                 `taskset -cp {}`",
                std::process::id()
            )));
        }
        set.set(cpu);
    }
    if cpus.is_empty() {
        return Err(bad("name at least one CPU, or leave it out".into()));
    }
    Ok(set)
}

/// Runs `work` with this thread on the given CPUs, then puts it back.
///
/// libzmq's own ZMQ_THREAD_AFFINITY_CPU_ADD does nothing in a plain build and aborts the process
/// where the CPU cannot be had; threads inherit their creator's mask in any build.
fn on_cpus<T>(cpus: &CpuSet, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let failed = |error: rustix::io::Errno| TransportError::Poll {
        action: "move this thread to the IO threads' CPUs",
        source: error.into(),
    };
    let before = sched_getaffinity(None).map_err(failed)?;
    sched_setaffinity(None, cpus).map_err(failed)?;
    let result = work();
    sched_setaffinity(None, &before).map_err(failed)?;
    result
}
