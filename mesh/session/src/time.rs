//! Time as the machines are given it.

/// Nanoseconds on the caller's monotonic clock, from a start of the caller's choosing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// Later than any moment that a clock reaches.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `ns` nanoseconds later; [`Time::NEVER`] if that is past the end of time.
    #[must_use]
    pub const fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// Nanoseconds since `earlier`; 0 if that is in fact later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
