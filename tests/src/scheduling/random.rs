//! Plans that a seed repeats.

use rand_distr::{Distribution, Exp1, StandardUniform};
use rand_pcg::Pcg64;

/// Random numbers of a seed.
pub(super) struct Random(Pcg64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Pcg64::new(seed.into(), 0))
    }

    /// In [0, 1).
    pub(super) fn uniform(&mut self) -> f64 {
        StandardUniform.sample(&mut self.0)
    }

    /// With mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        Exp1.sample(&mut self.0)
    }
}
