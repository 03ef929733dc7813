//! What the client sends and what the worker answers. Both programs compile this one file, so that
//! neither can change a field alone; in a project of your own it would be a small crate.

use serde::{Deserialize, Serialize};

/// A European call: the right to buy at the strike, on one day.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// Today's price of the share.
    pub(crate) spot: f64,
    /// The price at which it may be bought.
    pub(crate) strike: f64,
    /// Riskless interest, a year: 0.03 is 3 %.
    pub(crate) rate: f64,
    /// Standard deviation of a year's return.
    pub(crate) volatility: f64,
    /// Time until the day.
    pub(crate) years: f64,
}

/// One task: a share of the paths.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) terms: Terms,
    pub(crate) paths: u32,
    /// The same for every task of a run.
    pub(crate) seed: u64,
    /// The task's own stream of random numbers: no two tasks simulate the same paths.
    pub(crate) stream: u64,
}

/// What the paths of one task say.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Estimate {
    pub(crate) price: f64,
    pub(crate) standard_error: f64,
}
