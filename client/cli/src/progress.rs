//! How far `map` is, on standard error, if that is a terminal.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar with a known number of tasks, a counter without; nothing where nobody looks.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Whether somebody looks.
    pub(crate) fn is_wanted() -> bool {
        io::stderr().is_terminal()
    }

    pub(crate) fn new(total: Option<u64>) -> Self {
        if !Self::is_wanted() {
            return Self { bar: ProgressBar::hidden() };
        }
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{bar:40} {human_pos}/{human_len} tasks  {per_sec}  {eta} left {msg}",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {human_pos} tasks  {per_sec} {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// One more task has ended; `failed`: all that have failed.
    pub(crate) fn advance(&self, failed: u64) {
        if failed > 0 {
            self.bar.set_message(format!("({failed} failed)"));
        }
        self.bar.inc(1);
    }

    /// Says something without tearing the bar.
    pub(crate) fn say(&self, line: &[u8]) {
        self.bar.suspend(|| say(line));
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line on standard error. Where that is closed there is nobody to tell.
pub(crate) fn say(line: &[u8]) {
    let mut line = line.to_vec();
    line.push(b'\n');
    let _ = io::stderr().write_all(&line);
}
