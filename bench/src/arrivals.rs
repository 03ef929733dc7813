//! Intended send times, planned before the run: whatever the mesh does meanwhile, the plan stands.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// Sends that one plan may hold (400 MB).
pub(crate) const PLAN_MAX: f64 = 50e6;

/// How sends are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// Independent of each other, as from many users: gaps are exponential
    Poisson,
    /// Evenly spaced, which no crowd of users is: it flatters queues
    Constant,
}

impl Arrivals {
    /// Its name in flags, tables and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Constant => "constant",
        }
    }

    /// Intended send times in `[0, total)`, ns from the start, ascending. The same arguments give
    /// the same plan.
    pub(crate) fn plan(self, rate_per_s: f64, total: Duration, seed: u64) -> Vec<u64> {
        let total_s = total.as_secs_f64();
        let expected = (rate_per_s * total_s).min(PLAN_MAX);
        let mut sends_ns = Vec::with_capacity((expected * 1.01) as usize + 16);
        let mut random = SplitMix64(seed);
        let mut at_s = 0.0;
        for number in 0.. {
            at_s = match self {
                Self::Poisson => at_s + random.exponential() / rate_per_s,
                // Not a running sum: rounding must not change the rate.
                Self::Constant => f64::from(number) / rate_per_s,
            };
            if at_s >= total_s || sends_ns.len() as f64 >= PLAN_MAX {
                break;
            }
            sends_ns.push((at_s * 1e9) as u64);
        }
        sends_ns
    }
}

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (OOPSLA 2014). Written out so
/// that a seed gives the same plan whatever the versions of our dependencies.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// With mean 1, by inversion.
    fn exponential(&mut self) -> f64 {
        // In (0, 1]: the logarithm of 0 is none.
        let uniform = ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -uniform.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps_s(sends_ns: &[u64]) -> Vec<f64> {
        sends_ns.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e9).collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn splitmix_gives_the_published_numbers() {
        let mut random = SplitMix64(1_234_567);
        let numbers = [random.next(), random.next(), random.next()];
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(numbers, published);
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let plan = Arrivals::Poisson.plan(10_000.0, Duration::from_secs(20), 7);
        // 200,000 expected, standard deviation 447.
        assert!(plan.len().abs_diff(200_000) < 5 * 447, "{}", plan.len());
        let gaps = gaps_s(&plan);
        let mean = mean(&gaps);
        assert!((mean - 1e-4).abs() < 1e-6, "{mean}");
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let variation = variance.sqrt() / mean;
        assert!((variation - 1.0).abs() < 0.02, "{variation}");
        let above_mean = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((above_mean - (-1.0_f64).exp()).abs() < 0.01, "{above_mean}");
    }

    #[test]
    fn constant_gaps_are_equal_and_do_not_drift() {
        let plan = Arrivals::Constant.plan(3.0, Duration::from_secs(1000), 7);
        assert_eq!(plan.len(), 3000);
        assert_eq!((plan[0], plan[2997]), (0, 999_000_000_000));
        assert!(gaps_s(&plan).iter().all(|gap| (gap - 1.0 / 3.0).abs() < 1e-8));
    }

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        let plan = |seed| Arrivals::Poisson.plan(1000.0, Duration::from_secs(1), seed);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        assert!(plan(3).is_sorted());
    }
}
