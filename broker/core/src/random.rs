//! Random numbers from a seed: the same for the same seed, everywhere.

/// SplitMix64 (Steele, Lea and Flood, 2014): one addition and a mixing function.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `most`, both included, each as likely as the others.
    pub(crate) const fn up_to(&mut self, most: u64) -> u64 {
        // The bias of the multiplication is below 2^-64 times the range (Lemire, 2019).
        ((self.next() as u128 * (most as u128 + 1)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_numbers() {
        let mut random = Random::new(1_234_567);
        let numbers = [random.next(), random.next(), random.next()];
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(numbers, published);
    }

    #[test]
    fn draws_reach_both_ends_and_fill_the_middle_evenly() {
        let mut random = Random::new(7);
        let mut counts = [0_u32; 5];
        (0..50_000).for_each(|_| counts[random.up_to(4) as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(random.up_to(0), 0);
        assert!((0..64).any(|_| random.up_to(u64::MAX) > u64::MAX / 2));
    }
}
