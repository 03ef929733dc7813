//! Plans that a seed repeats.

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (OOPSLA 2014). Written out so
/// that a seed gives the same plan whatever the versions of our dependencies.
pub(super) struct SplitMix64(pub(super) u64);

impl SplitMix64 {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// In (0, 1].
    pub(super) fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// With mean 1, by inversion.
    pub(super) fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }
}
