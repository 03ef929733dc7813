//! A program that runs: its three pipes, pumped by one thread, and its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, read, retry_on_intr, write};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::handler::Input;

/// The end of standard error that is told, bytes.
const LAST_WORDS_BYTES: usize = 2 * 1024;
/// Standard error that is held before all but its end is dropped, bytes.
const WORDS_BYTES_MAX: usize = 16 * 1024;
/// Reads of standard error in a row: with at least so many bytes each, more than a pipe holds.
const ERROR_READS_MAX: usize = 8;
/// The least room that a read is given, bytes: a whole pipe.
const READ_BYTES: usize = 64 * 1024;
/// A cancel is seen after so long at the latest.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How long the output may stay open after the program has ended.
const HELD_OPEN_MAX: Duration = Duration::from_secs(2);

/// Why a program was killed.
#[derive(Debug)]
pub(super) enum Stop {
    Cancelled,
    /// It has written more than may be.
    TooLong,
    /// It has ended, and something that it started has not let go of its output.
    HeldOpen,
    /// This call failed.
    System(&'static str, io::Error),
}

fn system(call: &'static str) -> impl Fn(Errno) -> Stop {
    move |errno| Stop::System(call, errno.into())
}

/// What can be done without waiting.
#[derive(Default)]
struct Ready {
    input: bool,
    output: bool,
    errors: bool,
    end: bool,
}

/// A program and its group. Dropping it kills and reaps them.
pub(super) struct Running {
    child: Child,
    pidfd: OwnedFd,
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    errors: Option<ChildStderr>,
    words: Vec<u8>,
    ended: Option<Instant>,
    is_reaped: bool,
}

impl Running {
    /// Starts a command with three pipes, in a process group of its own.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.process_group(0).spawn()?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let (input, output, errors) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pidfd = pidfd.inspect_err(|_| kill(&mut child))?;
        let (words, ended, is_reaped) = (Vec::new(), None, false);
        let running = Self { child, pidfd, input, output, errors, words, ended, is_reaped };
        for fd in [
            running.input.as_ref().map(AsFd::as_fd),
            running.output.as_ref().map(AsFd::as_fd),
            running.errors.as_ref().map(AsFd::as_fd),
        ] {
            fd.map_or(Ok(()), |fd| ioctl_fionbio(fd, true))?;
        }
        Ok(running)
    }

    /// Feeds it `input`, appends what it writes to `out`, and waits for its end. Whatever it left
    /// running in its group is killed.
    pub(super) fn pump(
        &mut self,
        input: Input<'_>,
        limit: u64,
        is_cancelled: &dyn Fn() -> bool,
        out: &mut Vec<u8>,
    ) -> Result<ExitStatus, Stop> {
        let mut chunks = input.chunks();
        let mut rest: &[u8] = &[];
        loop {
            while rest.is_empty() && self.input.is_some() {
                match chunks.next() {
                    Some(chunk) => rest = chunk,
                    None => self.input = None,
                }
            }
            let ready = self.wait()?;
            if ready.input {
                rest = self.feed(rest)?;
            }
            if ready.output {
                self.read_output(limit, out)?;
            }
            if ready.errors {
                self.read_errors()?;
            }
            if ready.end && self.ended.is_none() {
                self.ended = Some(Instant::now());
                self.input = None;
            }
            if is_cancelled() {
                return Err(Stop::Cancelled);
            }
            match self.ended {
                Some(_) if self.output.is_none() => break,
                Some(ended) if ended.elapsed() > HELD_OPEN_MAX => return Err(Stop::HeldOpen),
                Some(_) | None => {}
            }
        }
        self.read_errors()?;
        self.is_reaped = true;
        // Before it is reaped: until then its number, which is its group's, is nobody else's.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        self.child.wait().map_err(|error| Stop::System("wait", error))
    }

    fn wait(&self) -> Result<Ready, Stop> {
        let mut fds = Vec::with_capacity(4);
        let mut add = |fd, flags| fds.push(PollFd::from_borrowed_fd(fd, flags));
        let input = self.input.as_ref().map(|fd| add(fd.as_fd(), PollFlags::OUT)).is_some();
        let output = self.output.as_ref().map(|fd| add(fd.as_fd(), PollFlags::IN)).is_some();
        let errors = self.errors.as_ref().map(|fd| add(fd.as_fd(), PollFlags::IN)).is_some();
        if self.ended.is_none() {
            add(self.pidfd.as_fd(), PollFlags::IN);
        }
        match poll(&mut fds, Some(&LOOK_EVERY)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(system("poll")(errno)),
        }
        let mut flags = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = |is_there: bool| is_there && flags.next().unwrap_or(false);
        Ok(Ready {
            input: next(input),
            output: next(output),
            errors: next(errors),
            end: next(self.ended.is_none()),
        })
    }

    /// Writes what it takes; returns the rest. One that has closed its input wants no more.
    fn feed<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], Stop> {
        let Some(input) = &self.input else { return Ok(rest) };
        match retry_on_intr(|| write(input, rest)) {
            Ok(written) => Ok(&rest[written..]),
            Err(Errno::AGAIN) => Ok(rest),
            Err(Errno::PIPE) => {
                self.input = None;
                Ok(&[])
            }
            Err(errno) => Err(system("write")(errno)),
        }
    }

    fn read_output(&mut self, limit: u64, out: &mut Vec<u8>) -> Result<(), Stop> {
        let Some(output) = &self.output else { return Ok(()) };
        out.reserve(READ_BYTES);
        match retry_on_intr(|| read(output, spare_capacity(out))) {
            Ok(0) => self.output = None,
            Ok(_) if out.len() as u64 > limit => return Err(Stop::TooLong),
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(errno) => return Err(system("read")(errno)),
        }
        Ok(())
    }

    /// Reads standard error as far as it goes without waiting, and no longer than a full pipe takes:
    /// the output must not wait on a program that never stops complaining.
    fn read_errors(&mut self) -> Result<(), Stop> {
        for _ in 0..ERROR_READS_MAX {
            let Some(errors) = &self.errors else { break };
            self.words.reserve(WORDS_BYTES_MAX);
            match retry_on_intr(|| read(errors, spare_capacity(&mut self.words))) {
                Ok(0) => self.errors = None,
                Ok(_) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(system("read")(errno)),
            }
            if self.words.len() > WORDS_BYTES_MAX {
                self.words.drain(..self.words.len() - LAST_WORDS_BYTES);
            }
        }
        Ok(())
    }

    /// The end of its standard error, to follow how it ended.
    pub(super) fn last_words(&self) -> String {
        let start = self.words.len().saturating_sub(LAST_WORDS_BYTES);
        let words = String::from_utf8_lossy(&self.words[start..]);
        match words.trim() {
            "" => " and wrote nothing to standard error".to_owned(),
            words => format!(": {words}"),
        }
    }
}

/// Kills it and its group, and reaps it.
fn kill(child: &mut Child) {
    // Itself too: it may have left its group.
    let _ = child.kill();
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.wait();
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_reaped {
            kill(&mut self.child);
        }
    }
}
