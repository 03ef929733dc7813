//! A token bucket: so many a second, and as many at once.

use pinmesh_core::Time;

const SECOND_NS: u64 = 1_000_000_000;

/// See the module.
pub(crate) struct Bucket {
    per_s: u32,
    /// What is left, in nanoseconds of refill: a token costs a second divided by the rate.
    left_ns: u64,
    refilled_at: Time,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_s: u32) -> Self {
        Self { per_s: per_s.max(1), left_ns: SECOND_NS, refilled_at: Time(0) }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Time) -> bool {
        let passed = now.since(self.refilled_at).0;
        self.refilled_at = now;
        self.left_ns = self.left_ns.saturating_add(passed).min(SECOND_NS);
        let cost = SECOND_NS / u64::from(self.per_s);
        if self.left_ns < cost {
            return false;
        }
        self.left_ns -= cost;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_its_rate_and_no_more() {
        let mut bucket = Bucket::new(100);
        let taken = |bucket: &mut Bucket, now| (0..500).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, Time(0)), 100);
        assert_eq!(taken(&mut bucket, Time(SECOND_NS / 2)), 50);
        assert_eq!(taken(&mut bucket, Time(100 * SECOND_NS)), 100);
    }
}
