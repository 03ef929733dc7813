//! What scheduling promises, measured on a mesh of real processes with the shipped configuration:
//! shares, a hog's neighbours, goodput under overload, and tails beside a model of the same queue.
//!
//! Each case starts a mesh of its own, prints what it found and says whether the promise was kept.
//! `scripts/scheduling.sh` runs them; times are only good as ratios inside one case.

mod bimodal;
mod hog;
mod model;
mod open_loop;
mod overload;
mod poison;
mod random;
mod sample;
mod shares;
mod tails;

use std::time::Duration;

use clap::ValueEnum;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Case {
    /// All ten priorities have work waiting: each gets its share of the workers' time.
    Shares,
    /// The same, and one task runs 1,000 times as long as the others of its service.
    SharesOutlier,
    /// A client with a million tasks waiting, and another one's single tasks.
    Hog,
    /// A handler that crashes in every way, and the tasks beside it.
    Poison,
    /// Twice as much is asked for as can be done.
    Overload,
    /// Sixteen workers that sleep, at three loads, beside the model of their queue.
    Tails,
    /// One task in 200 is 200 times as long: adaptive credit against a fixed one of 8.
    Bimodal,
}

/// What a case has found, for people, and whether the promise was kept.
#[derive(Debug)]
pub struct Findings {
    /// Lines of a table.
    pub lines: Vec<String>,
    /// What was not kept; empty: all was.
    pub broken: Vec<String>,
}

impl Findings {
    fn new() -> Self {
        Self { lines: Vec::new(), broken: Vec::new() }
    }

    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// A promise, and whether it was kept.
    fn hold(&mut self, holds: bool, promise: impl Into<String>) {
        if !holds {
            self.broken.push(promise.into());
        }
    }
}

/// Runs one case. `time` is how long load is put on where the case does not count tasks; longer
/// measures better.
pub fn run(case: Case, time: Duration, seed: u64) -> Findings {
    match case {
        Case::Shares => shares::run(time, false),
        Case::SharesOutlier => shares::run(time, true),
        Case::Hog => hog::run(),
        Case::Poison => poison::run(time, seed),
        Case::Overload => overload::run(time, seed),
        Case::Tails => tails::run(time, seed),
        Case::Bimodal => bimodal::run(time, seed),
    }
}
