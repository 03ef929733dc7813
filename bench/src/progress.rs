//! What is going on, for somebody who waits at a terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::report::thousands;

const EVERY: Duration = Duration::from_secs(1);

/// A line on stderr that is written over; nothing unless stderr is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    title: String,
    last: Instant,
    last_tasks: u64,
    total_s: f64,
    start: Instant,
}

impl Progress {
    /// Starts a line for something that takes so long.
    pub(crate) fn start(title: String, total: Duration, tasks: u64) -> Self {
        let now = Instant::now();
        Self {
            is_shown: io::stderr().is_terminal(),
            title,
            last: now,
            last_tasks: tasks,
            total_s: total.as_secs_f64(),
            start: now,
        }
    }

    /// Shows the rate of the last second, once a second.
    pub(crate) fn show(&mut self, tasks: u64) {
        let now = Instant::now();
        let since = now.saturating_duration_since(self.last);
        if !self.is_shown || since < EVERY {
            return;
        }
        let rate = tasks.saturating_sub(self.last_tasks) as f64 / since.as_secs_f64();
        let elapsed_s = now.saturating_duration_since(self.start).as_secs_f64();
        let (title, total_s) = (&self.title, self.total_s);
        // Nobody reads it: not worth an error.
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{title}: {elapsed_s:.0} of {total_s:.0} s, {} tasks/s",
            thousands(rate)
        );
        (self.last, self.last_tasks) = (now, tasks);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
