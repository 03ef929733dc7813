//! Children that never outlive their test, and everything that they say.
//!
//! The only module with unsafe code: what a child does between fork and exec.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};

use crate::{LIMIT, wait_for};

/// Variable in the environment of every process that a test starts, and so of all that descend from
/// it; its value names the one that was started.
pub const MARK: &str = "PINMESH_TESTS_MARK";

/// Lines of one stream that are kept; a process that says more has its oldest ones dropped.
const LINES_MAX: usize = 20_000;
/// Lines of a process's log that are shown when its test fails.
const SHOWN_MAX: usize = 150;

/// What a process has said on one stream.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    dropped: usize,
    is_over: bool,
}

impl Lines {
    fn follow(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let own = lines.clone();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut bytes = Vec::new();
            while matches!(pipe.read_until(b'\n', &mut bytes), Ok(1..)) {
                own.push(String::from_utf8_lossy(&bytes).trim_end().to_owned());
                bytes.clear();
            }
            own.with(|said| said.is_over = true);
        });
        lines
    }

    fn push(&self, line: String) {
        self.with(|said| {
            if said.lines.len() == LINES_MAX {
                said.lines.drain(..LINES_MAX / 2);
                said.dropped += LINES_MAX / 2;
            }
            said.lines.push(line);
        });
    }

    fn with<T>(&self, see: impl FnOnce(&mut Said) -> T) -> T {
        see(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lines so far.
    fn count(&self) -> usize {
        self.with(|said| said.dropped + said.lines.len())
    }

    /// The first line from number `mark` on in which `look` finds something.
    fn find<T>(&self, mark: usize, look: impl FnMut(&String) -> Option<T>) -> Option<T> {
        self.with(|said| said.lines.iter().skip(mark.saturating_sub(said.dropped)).find_map(look))
    }

    fn text(&self) -> String {
        self.with(|said| said.lines.join("\n"))
    }

    /// Waits for the end of the stream: everything that was said is here then.
    fn wait_for_end(&self) {
        let is_over = || self.with(|said| said.is_over).then_some(());
        assert!(wait_for(LIMIT, is_over).is_some(), "somebody still holds the process's output");
    }
}

/// A child and what it says. Dropping it kills it; its log is shown if the test has failed.
#[derive(Debug)]
pub struct Process {
    name: String,
    mark: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
    ended: Option<ExitStatus>,
}

/// A process that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; -N if signal N ended it.
    pub code: i32,
    /// Everything on standard output, without the last line end.
    pub stdout: String,
    /// Everything on standard error, without the last line end.
    pub stderr: String,
}

impl Process {
    /// Starts a command. The kernel kills it when the calling thread ends, however that comes.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let program = command.get_program().to_owned();
        let name = std::path::Path::new(&program).file_name().unwrap_or(&program);
        let name = name.to_string_lossy().into_owned();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{count}", std::process::id());
        command.env(MARK, &mark).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let parent = getpid();
        // SAFETY: the closure runs between fork and exec and makes system calls only (prctl,
        // getppid); it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have ended before the kernel was told.
                if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
            });
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let stdout = Lines::follow(child.stdout.take().expect("piped"));
        let stderr = Lines::follow(child.stderr.take().expect("piped"));
        Self { name, mark, child, stdout, stderr, ended: None }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The value of [`MARK`] in its environment.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // It is not reaped before it is waited for, so the number is its own.
        if self.ended.is_none() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Kills it by SIGKILL and reaps it.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child");
        }
        self.ended.is_some()
    }

    /// The first line on standard output.
    ///
    /// # Panics
    /// There is none within `limit`.
    #[track_caller]
    pub fn first_line(&mut self, limit: Duration) -> String {
        let line = wait_for(limit, || {
            let line = self.stdout.find(0, |line| Some(line.clone()));
            if line.is_some() || !self.has_ended() { line.map(Some) } else { Some(None) }
        });
        match line {
            Some(Some(line)) => line,
            Some(None) => panic!("{} ended ({:?}) and said nothing", self.name, self.ended),
            None => panic!("{} says nothing after {limit:?}", self.name),
        }
    }

    /// What it has said on standard error, the last lines of it.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// Lines on standard error so far.
    pub fn log_mark(&self) -> usize {
        self.stderr.count()
    }

    /// The first line on standard error from a mark on in which `look` finds something; waits for it.
    ///
    /// # Panics
    /// There is none within [`LIMIT`]; `what` says what was looked for.
    #[track_caller]
    pub fn log_line<T>(
        &self,
        mark: usize,
        what: &str,
        mut look: impl FnMut(&str) -> Option<T>,
    ) -> T {
        wait_for(LIMIT, || self.stderr.find(mark, |line| look(line)))
            .unwrap_or_else(|| panic!("{}: no {what} in its log", self.name))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It has not ended within [`LIMIT`].
    #[track_caller]
    pub fn wait(&mut self) -> Finished {
        let ended = wait_for(LIMIT, || self.has_ended().then_some(()));
        assert!(ended.is_some(), "{} has not ended within {LIMIT:?}", self.name);
        self.stdout.wait_for_end();
        self.stderr.wait_for_end();
        let status = self.ended.expect("it has just ended");
        let code = status.code().unwrap_or_else(|| -status.signal().unwrap_or_default());
        Finished { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let text = self.stderr.text();
            let skipped = text.lines().count().saturating_sub(SHOWN_MAX);
            eprintln!("---- {} (process {}), {:?}", self.name, self.pid(), self.ended);
            text.lines().skip(skipped).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A command without the settings of whoever runs the tests.
pub(crate) fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in ["LOG", "BROKER", "KEY", "BROKER_KEY", "WORKER", "KEEPER"] {
        command.env_remove(format!("PINMESH_{variable}"));
    }
    command
}
