//! Choices: the same for the same seed, everywhere.

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x6a09_e667_f3bc_c908)
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 if that is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        // The high half of a product: no bias worth speaking of, and no division.
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// A number in `from..=to`.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// `true` once in `count` times.
    pub const fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// `true` in so many of a hundred cases.
    pub const fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A length between `from` and `to`, each order of magnitude as likely as the next.
    pub const fn scale(&mut self, from: u64, to: u64) -> u64 {
        let bits = (to / from).ilog2() as u64 + 1;
        let base = from << self.below(bits);
        let length = base + self.below(base);
        if length > to { to } else { length }
    }

    /// A waiting time with that mean, nanoseconds, as between independent events. A sum of powers
    /// of two by the leading zeros of a random word comes close enough to the exponential, and is
    /// the same on every machine, which a logarithm need not be.
    pub const fn wait(&mut self, mean: u64) -> u64 {
        let whole = self.next().leading_zeros() as u64;
        let fraction = self.below(mean + 1);
        // Each leading zero is worth mean times ln 2.
        whole * (mean / 1000) * 693 + fraction * 693 / 1000
    }
}

/// Spreads the bits of a number.
pub const fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn waits_have_the_mean_that_was_asked_for() {
        let mut random = Random::new(1);
        let sum: u64 = (0..100_000).map(|_| random.wait(1_000_000)).sum();
        let mean = sum / 100_000;
        assert!((950_000..1_110_000).contains(&mean), "{mean}");
    }

    #[test]
    fn scales_stay_inside_their_bounds() {
        let mut random = Random::new(1);
        assert!((0..10_000).all(|_| (1_000..=5_000).contains(&random.scale(1_000, 5_000))));
    }
}
