//! Quantiles of a few thousand times, exact.

use std::time::Duration;

/// Times in ascending order.
#[derive(Clone, Debug)]
pub(super) struct Sample(Vec<u64>);

impl Sample {
    /// Of times in nanoseconds.
    pub(super) fn of(times_ns: impl IntoIterator<Item = u64>) -> Self {
        let mut times: Vec<u64> = times_ns.into_iter().collect();
        times.sort_unstable();
        Self(times)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest that a share of `quantile` is not longer than, ns; 0 of none.
    pub(super) fn quantile_ns(&self, quantile: f64) -> u64 {
        let rank = (quantile * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or_default()
    }

    pub(super) fn p50(&self) -> Duration {
        Duration::from_nanos(self.quantile_ns(0.5))
    }

    pub(super) fn p99(&self) -> Duration {
        Duration::from_nanos(self.quantile_ns(0.99))
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.0.last().copied().unwrap_or_default())
    }
}
