//! CPU time, memory and context switches of processes, as the kernel accounts for them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use crate::{error::HostError, files, sys};

/// What a process has used so far, and uses now. A process that has ended but is not yet reaped
/// still has its CPU time, and no memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Process id.
    pub pid: u32,
    /// When this sample was taken.
    pub sampled_at: Instant,
    /// CPU time since its start, user and system, ns, over all its threads, ended ones too;
    /// children are not in it. A thread of another process that runs at this instant is counted up
    /// to its last scheduler tick (1 to 10 ms ago).
    pub cpu_time_ns: u64,
    /// Resident memory (RSS), bytes.
    pub resident_bytes: u64,
    /// The most that was ever resident (VmHWM), bytes.
    pub resident_peak_bytes: u64,
    /// Threads that are alive.
    pub threads: u64,
    /// Times that its threads gave up their CPU to wait, over the threads that are alive.
    pub voluntary_switches: u64,
    /// Times that the scheduler took the CPU from its threads, over the threads that are alive.
    pub involuntary_switches: u64,
    /// Clock ticks from boot to the start of the process: tells a reused process id.
    start_ticks: u64,
}

/// What a process used between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageDifference {
    /// Time between the samples.
    pub elapsed: Duration,
    /// CPU time spent between them, ns.
    pub cpu_time_ns: u64,
    /// Resident memory at the later sample, bytes.
    pub resident_bytes: u64,
    /// How much the resident memory has grown (negative: shrunk), bytes.
    pub resident_growth_bytes: i64,
    /// The most that was ever resident, bytes, since the start of the process.
    pub resident_peak_bytes: u64,
    /// Threads that are alive at the later sample.
    pub threads: u64,
    /// Times that its threads gave up their CPU to wait. Too few, down to 0, if threads have ended.
    pub voluntary_switches: u64,
    /// Times that the scheduler took the CPU from its threads. Too few likewise.
    pub involuntary_switches: u64,
}

impl ProcessUsage {
    /// Samples a process.
    ///
    /// # Errors
    /// [`HostError::ProcessGone`] if there is none of this id; [`HostError::Unreadable`] or
    /// [`HostError::Malformed`] if `/proc` does not show it as expected.
    pub fn of(pid: u32) -> Result<Self, HostError> {
        let directory = Path::new("/proc").join(pid.to_string());
        // Process ids start at 1, and 0 would mean the caller to the clock.
        let process = match libc::pid_t::try_from(pid) {
            Ok(process) if process > 0 => process,
            _ => return Err(HostError::ProcessGone { pid }),
        };
        let stat = Stat::read(pid, &directory)?;
        let cpu_time_ns = match sys::process_cpu_time_ns(process) {
            Ok(time_ns) => time_ns,
            Err(error) if is_gone(&error) => return Err(HostError::ProcessGone { pid }),
            // A sandbox without the clocks of other processes: ticks of 10 ms have to do.
            Err(_) => stat.cpu_time_ns,
        };
        let sampled_at = Instant::now();
        let status = read(pid, directory.join("status"))?;
        let threads = files::field(&status, "Threads").ok_or_else(|| HostError::Malformed {
            path: format!("/proc/{pid}/status"),
            field: "Threads",
        })?;
        // Missing for a process without memory: a kernel thread, or one that has ended.
        let kibibytes = |field| files::field(&status, field).unwrap_or(0);
        let switches = Switches::of_threads(pid, &directory)?;
        Ok(Self {
            pid,
            sampled_at,
            cpu_time_ns,
            resident_bytes: kibibytes("VmRSS").saturating_mul(1024),
            resident_peak_bytes: kibibytes("VmHWM").saturating_mul(1024),
            threads,
            voluntary_switches: switches.voluntary,
            involuntary_switches: switches.involuntary,
            start_ticks: stat.start_ticks,
        })
    }

    /// Samples the calling process.
    ///
    /// # Errors
    /// As [`ProcessUsage::of`].
    pub fn of_self() -> Result<Self, HostError> {
        Self::of(process::id())
    }

    /// What was used since an earlier sample of the same process.
    ///
    /// # Errors
    /// [`HostError::DifferentProcess`] if the earlier sample is of another process, which may have
    /// had the same id.
    pub fn since(&self, earlier: &Self) -> Result<UsageDifference, HostError> {
        if self.pid != earlier.pid || self.start_ticks != earlier.start_ticks {
            let (pid, earlier_pid) = (self.pid, earlier.pid);
            return Err(HostError::DifferentProcess { pid, earlier_pid });
        }
        Ok(UsageDifference {
            elapsed: self.sampled_at.saturating_duration_since(earlier.sampled_at),
            cpu_time_ns: self.cpu_time_ns.saturating_sub(earlier.cpu_time_ns),
            resident_bytes: self.resident_bytes,
            resident_growth_bytes: self.resident_bytes.wrapping_sub(earlier.resident_bytes) as i64,
            resident_peak_bytes: self.resident_peak_bytes,
            threads: self.threads,
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(earlier.involuntary_switches),
        })
    }
}

impl UsageDifference {
    /// CPUs kept busy on average: CPU time by elapsed time, 1.0 is one whole CPU. 0 if no time
    /// has passed.
    pub fn cpus_busy(&self) -> f64 {
        let elapsed_ns = self.elapsed.as_nanos() as f64;
        if elapsed_ns > 0.0 { self.cpu_time_ns as f64 / elapsed_ns } else { 0.0 }
    }
}

/// What is needed of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_time_ns: u64,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: u32, directory: &Path) -> Result<Self, HostError> {
        let path = directory.join("stat");
        let malformed = |field| HostError::Malformed { path: path.display().to_string(), field };
        let text = read(pid, path.clone())?;
        Self::parse(&text, sys::clock_ticks_per_second()).map_err(malformed)
    }

    /// The error is the name of the field, as in proc(5).
    fn parse(text: &str, ticks_per_second: u64) -> Result<Self, &'static str> {
        // The program's name stands in parentheses and may hold any byte, parentheses and spaces
        // too; the last one closes it.
        let (_, rest) = text.rsplit_once(')').ok_or("comm")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and `rest` starts with field 3.
        let field = |number: usize, name: &'static str| -> Result<u64, &'static str> {
            fields.get(number - 3).and_then(|text| text.parse().ok()).ok_or(name)
        };
        let ticks = field(14, "utime")?.saturating_add(field(15, "stime")?);
        let cpu_time_ns = ticks.saturating_mul(1_000_000_000 / ticks_per_second);
        Ok(Self { cpu_time_ns, start_ticks: field(22, "starttime")? })
    }
}

#[derive(Default)]
struct Switches {
    voluntary: u64,
    involuntary: u64,
}

impl Switches {
    /// Summed over the live threads: `/proc/PID/status` itself has those of the main thread only.
    fn of_threads(pid: u32, directory: &Path) -> Result<Self, HostError> {
        let tasks = directory.join("task");
        let unreadable = |error| unreadable(pid, tasks.clone(), error);
        let mut sum = Self::default();
        for entry in fs::read_dir(&tasks).map_err(unreadable)? {
            // A thread may end between the listing and the reading: it is no longer alive.
            let Ok(entry) = entry else { continue };
            let Some(status) = files::text(&entry.path().join("status")) else { continue };
            let count = |field| files::field(&status, field).unwrap_or(0);
            sum.voluntary = sum.voluntary.saturating_add(count("voluntary_ctxt_switches"));
            sum.involuntary = sum.involuntary.saturating_add(count("nonvoluntary_ctxt_switches"));
        }
        Ok(sum)
    }
}

/// Reads a file of `/proc/PID`. Names in it may be any bytes, so it need not be UTF-8.
fn read(pid: u32, path: PathBuf) -> Result<String, HostError> {
    match fs::read(&path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => Err(unreadable(pid, path, error)),
    }
}

fn unreadable(pid: u32, path: PathBuf, source: io::Error) -> HostError {
    if is_gone(&source) {
        return HostError::ProcessGone { pid };
    }
    HostError::Unreadable { path: path.display().to_string(), source }
}

/// Opening a file of a process that is gone says ENOENT, reading one that was open ESRCH.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::{
        hint,
        process::{Child, Command, Stdio},
        sync::mpsc,
        thread,
    };

    use super::*;

    /// A child that waits for the end of its standard input.
    fn waiting_child() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Spends CPU time of the calling thread.
    fn burn(cpu_time: Duration) {
        let spent = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        let end = spent() + cpu_time;
        while spent() < end {
            hint::spin_loop();
        }
    }

    #[test]
    fn this_process_has_used_cpu_and_memory() {
        let before = ProcessUsage::of_self().unwrap();
        burn(Duration::from_millis(1));
        let after = ProcessUsage::of_self().unwrap();
        assert_eq!(after.pid, process::id());
        assert!(after.resident_bytes > 0);
        assert!(after.resident_peak_bytes >= after.resident_bytes);
        assert!(after.threads >= 1);
        let difference = after.since(&before).unwrap();
        assert!(difference.cpu_time_ns >= 1_000_000);
        assert!(difference.cpus_busy() > 0.0);
    }

    #[test]
    fn cpu_time_of_ended_threads_is_counted() {
        let before = ProcessUsage::of_self().unwrap();
        thread::spawn(|| burn(Duration::from_millis(50))).join().unwrap();
        let difference = ProcessUsage::of_self().unwrap().since(&before).unwrap();
        assert!(difference.cpu_time_ns >= 50_000_000, "{difference:?}");
    }

    #[test]
    fn context_switches_of_every_live_thread_are_counted() {
        let (sender, receiver) = mpsc::sync_channel::<()>(0);
        let (answer, answered) = mpsc::sync_channel::<()>(0);
        let echo =
            thread::spawn(move || while receiver.recv().is_ok() && answer.send(()).is_ok() {});
        let before = ProcessUsage::of_self().unwrap().voluntary_switches;
        // Each exchange blocks at least one of the two threads, sooner or later.
        let limit = Instant::now() + Duration::from_secs(60);
        while ProcessUsage::of_self().unwrap().voluntary_switches < before + 10 {
            assert!(Instant::now() < limit, "no switch was counted in a minute");
            sender.send(()).unwrap();
            answered.recv().unwrap();
        }
        drop(sender);
        echo.join().unwrap();
    }

    #[test]
    fn another_process_can_be_sampled_until_it_is_reaped() {
        let mut child = waiting_child();
        let running = ProcessUsage::of(child.id()).unwrap();
        assert_eq!(running.threads, 1);

        child.kill().unwrap();
        // A process that has ended has no memory left: that is how its end shows here.
        let limit = Instant::now() + Duration::from_secs(60);
        let mut ended = ProcessUsage::of(child.id()).unwrap();
        while ended.resident_bytes > 0 {
            assert!(Instant::now() < limit, "the child did not end in a minute");
            ended = ProcessUsage::of(child.id()).unwrap();
        }
        assert!(ended.cpu_time_ns >= running.cpu_time_ns);
        assert_eq!(ended.since(&running).unwrap().resident_bytes, 0);

        child.wait().unwrap();
        let error = ProcessUsage::of(child.id()).unwrap_err();
        assert!(matches!(error, HostError::ProcessGone { pid } if pid == child.id()), "{error}");
    }

    #[test]
    fn ids_that_no_process_can_have_are_gone() {
        for pid in [0, u32::MAX, i32::MAX as u32] {
            let error = ProcessUsage::of(pid).unwrap_err();
            assert!(matches!(error, HostError::ProcessGone { .. }), "{pid}: {error}");
        }
    }

    #[test]
    fn samples_of_different_processes_are_not_compared() {
        let this = ProcessUsage::of_self().unwrap();
        let reused = ProcessUsage { start_ticks: this.start_ticks + 1, ..this.clone() };
        let other = ProcessUsage { pid: this.pid + 1, ..this.clone() };
        for sample in [reused, other] {
            let error = sample.since(&this).unwrap_err();
            assert!(matches!(error, HostError::DifferentProcess { .. }), "{error}");
        }
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = |name: &str| {
            format!("7 ({name}) S 1 7 7 0 -1 4194560 1 0 0 0 25 5 0 0 20 0 1 0 43880 3133440 359")
        };
        for name in ["cat", "a b", "x) R 9 (y", ""] {
            let stat = Stat::parse(&line(name), 100).unwrap();
            assert_eq!(stat, Stat { cpu_time_ns: 300_000_000, start_ticks: 43880 }, "{name}");
        }
        assert_eq!(Stat::parse("7 cat", 100), Err("comm"));
        assert_eq!(Stat::parse("7 (cat) S 1", 100), Err("utime"));
    }
}
