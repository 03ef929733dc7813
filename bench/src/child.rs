//! Processes of the mesh: started so that none outlives this one, ended and reaped on every path.
//!
//! The only module with unsafe code: what a child does between fork and exec.

#![allow(unsafe_code)]

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{self, BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};

use crate::{error::BenchError, interrupt::Interrupt};

/// Lines of stderr that are kept for a failure's message.
const STDERR_LINES_MAX: usize = 200;
/// Longer lines are cut.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// How often a wait looks whether the child still runs and nobody has interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a child that was asked to end may take before it is killed.
const TERM_TIME: Duration = Duration::from_secs(10);

/// The latest lines of a child's stderr, with the number of lines that there were before them.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    dropped: usize,
}

/// A child and what it says. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    program: &'static str,
    child: Child,
    stdout: Receiver<String>,
    stderr: Arc<Mutex<Tail>>,
}

impl Process {
    /// Starts a program. To be called on the main thread, because the child is killed when the
    /// thread that has started it ends.
    pub(crate) fn start(
        program: &'static str,
        path: &Path,
        arguments: &[OsString],
    ) -> Result<Self, BenchError> {
        let mut command = Command::new(path);
        command
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: ^C at the terminal goes to this process alone, which ends the run
            // in order.
            .process_group(0);
        let parent = getpid();
        // SAFETY: the closure runs between fork and exec and makes system calls only (prctl,
        // getppid); it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || die_with(parent));
        }
        let spawned = command.spawn();
        let mut child =
            spawned.map_err(|source| BenchError::Spawn { program: path.to_owned(), source })?;
        let (lines, stdout) = sync_channel(16);
        let stderr = Arc::new(Mutex::new(Tail::default()));
        if let Some(pipe) = child.stdout.take() {
            // Nobody reads after the first lines; the pipe is drained all the same.
            follow(pipe, move |line| drop(lines.try_send(line)));
        }
        if let Some(pipe) = child.stderr.take() {
            let tail = Arc::clone(&stderr);
            follow(pipe, move |line| lock(&tail).push(line));
        }
        Ok(Self { program, child, stdout, stderr })
    }

    /// Its name.
    pub(crate) fn program(&self) -> &'static str {
        self.program
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line on stdout.
    pub(crate) fn first_line(
        &mut self,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<String, BenchError> {
        let start = Instant::now();
        loop {
            match self.stdout.recv_timeout(LOOK_EVERY) {
                Ok(line) => return Ok(line),
                // It has closed its stdout: it has ended, or is about to.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_EVERY),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.check()?;
            if interrupt.has_come() {
                return Err(BenchError::Interrupted);
            }
            if start.elapsed() >= limit {
                let (program, stderr) = (self.program, self.stderr_tail());
                return Err(BenchError::NotReady { program, waited: limit, stderr });
            }
        }
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(source) => Err(BenchError::System { action: "wait for a process", source }),
        }
    }

    fn ended(&self, status: ExitStatus) -> BenchError {
        BenchError::Ended { program: self.program, status, stderr: self.stderr_tail() }
    }

    /// The last lines that it wrote to stderr.
    pub(crate) fn stderr_tail(&self) -> String {
        let tail = lock(&self.stderr);
        if tail.lines.is_empty() {
            return "(nothing)".to_owned();
        }
        tail.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Lines that it has written to stderr so far: a mark for [`Process::stderr_since`].
    pub(crate) fn stderr_mark(&self) -> usize {
        let tail = lock(&self.stderr);
        tail.dropped + tail.lines.len()
    }

    /// The first line that it wrote to stderr since the mark and that `pick` takes.
    pub(crate) fn stderr_since<T>(
        &self,
        mark: usize,
        pick: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let tail = lock(&self.stderr);
        tail.lines.iter().skip(mark.saturating_sub(tail.dropped)).find_map(|line| pick(line))
    }

    /// Sends a signal. The child is not reaped before its exit has been seen here, so the id is its
    /// own.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid().cast_signed()) {
            // It may have ended by itself, which is what is wanted, or is found at the next look.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to end, waits, kills it if need be, and reaps it. `None` if it had to be killed.
    pub(crate) fn stop(&mut self) -> Option<ExitStatus> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        self.signal(Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < TERM_TIME {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => thread::sleep(LOOK_EVERY),
                Err(_) => break,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Tail {
    fn push(&mut self, line: String) {
        if self.lines.len() == STDERR_LINES_MAX {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(line);
    }
}

/// A lock whose holder has panicked guards plain lines.
fn lock(tail: &Mutex<Tail>) -> MutexGuard<'_, Tail> {
    tail.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In the child: it is killed when its parent ends, also if that has happened already.
fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
}

/// Gives each line of a pipe to `take`, on a thread that ends with the pipe.
fn follow(pipe: impl Read + Send + 'static, take: impl Fn(String) + Send + 'static) {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => take(String::from_utf8_lossy(&line).trim_end().to_owned()),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn shell(script: &str) -> Process {
        let arguments = ["-c", script].map(OsString::from);
        Process::start("sh", &PathBuf::from("/bin/sh"), &arguments).unwrap()
    }

    #[test]
    fn the_first_line_is_waited_for_and_the_process_is_reaped() {
        let mut process = shell("echo ready; exec cat /dev/zero > /dev/null");
        let line = process.first_line(Duration::from_secs(60), &Interrupt::default()).unwrap();
        assert_eq!(line, "ready");
        process.check().unwrap();
        let pid = process.pid();
        assert!(process.stop().is_some());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_process_that_ends_too_early_is_an_error_with_what_it_said() {
        let mut process = shell("echo cannot bind >&2; exit 3");
        let limit = Duration::from_secs(60);
        let error = process.first_line(limit, &Interrupt::default()).unwrap_err();
        assert!(matches!(error, BenchError::Ended { .. }), "{error}");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        // The thread that reads may be behind the exit.
        let start = Instant::now();
        while !process.stderr_tail().contains("cannot bind") {
            assert!(start.elapsed() < limit, "stderr was not kept");
            thread::yield_now();
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Process::start("x", Path::new("/nonexistent/x"), &[]).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/x"), "{error}");
    }

    #[test]
    fn only_the_latest_lines_are_kept_and_marks_stay_good() {
        let mut tail = Tail::default();
        (0..STDERR_LINES_MAX + 5).for_each(|number| tail.push(number.to_string()));
        assert_eq!(tail.lines.len(), STDERR_LINES_MAX);
        assert_eq!(tail.dropped, 5);
        assert_eq!(tail.lines.front().unwrap(), "5");
    }
}
