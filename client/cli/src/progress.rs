//! How far `map` is, on standard error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::args::When;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// What has become of the inputs.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    /// Done by this run.
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// Done by an earlier run.
    pub(crate) skipped: u64,
}

impl Tally {
    fn ended(self) -> u64 {
        self.done + self.failed
    }
}

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines { said: Instant },
}

/// A bar with a known number of inputs, a counter without; lines where there is no terminal;
/// nothing where nobody looks.
pub(crate) struct Progress {
    shown: Shown,
    start: Instant,
    total: Option<u64>,
}

impl Progress {
    /// Whether somebody looks.
    pub(crate) fn is_wanted(when: When) -> bool {
        match when {
            When::Auto => io::stderr().is_terminal(),
            When::Always => true,
            When::Never => false,
        }
    }

    /// `skipped`: inputs among the `total` that an earlier run has done.
    pub(crate) fn new(when: When, total: Option<u64>, skipped: u64) -> Self {
        let start = Instant::now();
        let shown = match Self::is_wanted(when) {
            false => Shown::Nothing,
            true if io::stderr().is_terminal() => Shown::Bar(bar(total, skipped)),
            true => Shown::Lines { said: start },
        };
        Self { shown, start, total }
    }

    /// Shows where it is now. Cheap enough for every turn.
    pub(crate) fn update(&mut self, tally: Tally, in_flight: usize) {
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                bar.set_position(tally.skipped + tally.ended());
                bar.set_message(format!("{} failed, {in_flight} in flight", tally.failed));
            }
            Shown::Lines { said } if said.elapsed() < LINE_EVERY => {}
            Shown::Lines { said } => {
                *said = Instant::now();
                let line = line(tally, in_flight, self.total, self.start.elapsed());
                say(line.as_bytes());
            }
        }
    }

    /// Says something without tearing the bar.
    pub(crate) fn say(&self, line: &[u8]) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| say(line)),
            Shown::Nothing | Shown::Lines { .. } => say(line),
        }
    }

    /// Takes the bar away and says what has become of it all.
    pub(crate) fn finish(&self, tally: Tally) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
        let took = self.start.elapsed();
        let rate = tally.done as f64 / took.as_secs_f64().max(1e-9);
        let took = humantime::format_duration(Duration::from_millis(took.as_millis() as u64));
        let Tally { done, failed, skipped } = tally;
        let mut line = format!("pinmesh: {done} done, {failed} failed");
        if skipped > 0 {
            let _ = write!(line, ", {skipped} done before");
        }
        let _ = write!(line, " in {took} ({rate:.0}/s)");
        say(line.as_bytes());
    }
}

fn bar(total: Option<u64>, skipped: u64) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{wide_bar:.cyan/blue} {human_pos}/{human_len}  {rate}  {eta} left  {msg}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} done  {rate}  {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key(
            "rate",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.0}/s", state.per_sec());
            },
        ));
    }
    // What is skipped took no time, and should not raise the rate.
    bar.set_position(skipped);
    bar.reset_eta();
    bar
}

/// The bar's words without a terminal.
fn line(tally: Tally, in_flight: usize, total: Option<u64>, took: Duration) -> String {
    let at = tally.skipped + tally.ended();
    let rate = tally.ended() as f64 / took.as_secs_f64().max(1e-9);
    let mut line = format!("pinmesh: {at}");
    if let Some(total) = total {
        let _ = write!(line, "/{total}");
    }
    let _ = write!(line, " inputs, {rate:.0}/s");
    if let Some(total) = total
        && rate > 0.0
    {
        let left = Duration::from_secs_f64((total.saturating_sub(at) as f64 / rate).min(1e9));
        let left = Duration::from_secs(left.as_secs());
        let _ = write!(line, ", {} left", humantime::format_duration(left));
    }
    let _ = write!(line, ", {} failed, {in_flight} in flight", tally.failed);
    line
}

/// A line on standard error. Where that is closed there is nobody to tell.
pub(crate) fn say(line: &[u8]) {
    let mut line = line.to_vec();
    line.push(b'\n');
    let _ = io::stderr().write_all(&line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_how_fast_and_how_long_yet() {
        let tally = Tally { done: 90, failed: 10, skipped: 100 };
        assert_eq!(
            line(tally, 7, Some(500), Duration::from_secs(10)),
            "pinmesh: 200/500 inputs, 10/s, 30s left, 10 failed, 7 in flight"
        );
        assert_eq!(
            line(Tally::default(), 0, None, Duration::ZERO),
            "pinmesh: 0 inputs, 0/s, 0 failed, 0 in flight"
        );
    }
}
