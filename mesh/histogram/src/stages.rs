//! One histogram for each stage.

use hdrhistogram::Histogram;

use crate::stage::Stage;

/// The longest time that is told apart, ns (60 s). Longer ones are recorded as this and counted as
/// overflow.
pub const VALUE_MAX_NS: u64 = 60_000_000_000;

/// How exactly values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Three significant digits (relative error below 0.1 %), 221 KB a stage: load generators.
    Bench,
    /// Two significant digits (relative error below 1 %), 31 KB a stage: broker and workers.
    Serving,
}

impl Precision {
    /// Significant decimal digits.
    pub fn digits(self) -> u8 {
        match self {
            Self::Bench => 3,
            Self::Serving => 2,
        }
    }
}

/// What is said of the times of one stage. All times are ns, and as exact as the histogram's
/// [`Precision`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// Values recorded.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Smallest value.
    pub min: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// 99.99th percentile.
    pub p9999: u64,
    /// Largest value, at most [`VALUE_MAX_NS`].
    pub max: u64,
    /// Values above [`VALUE_MAX_NS`]: those are in `count`, and in the percentiles as that maximum.
    pub overflow: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct StageHistogram {
    pub(crate) histogram: Histogram<u64>,
    pub(crate) overflow: u64,
}

impl StageHistogram {
    /// A histogram of [`VALUE_MAX_NS`] that saturates: it never grows.
    fn new(precision: Precision) -> Self {
        let histogram = Histogram::new_with_bounds(1, VALUE_MAX_NS, precision.digits())
            .expect("1 ns..60 s with 2 or 3 digits are bounds that a histogram may have");
        Self { histogram, overflow: 0 }
    }
}

/// The histograms of every stage, as recorded by one thread. One is made on the first value of its
/// stage, so unused stages cost nothing.
#[derive(Clone, Debug)]
pub struct StageHistograms {
    precision: Precision,
    stages: [Option<Box<StageHistogram>>; Stage::COUNT],
}

impl StageHistograms {
    /// Without a value.
    pub fn new(precision: Precision) -> Self {
        Self { precision, stages: Default::default() }
    }

    /// The precision given to [`StageHistograms::new`].
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Records one value, ns. A few ns; the first value of a stage allocates its histogram.
    #[inline]
    pub fn record(&mut self, stage: Stage, ns: u64) {
        let stage = self.stage_mut(stage);
        if ns > VALUE_MAX_NS {
            stage.overflow = stage.overflow.saturating_add(1);
        }
        stage.histogram.saturating_record(ns.min(VALUE_MAX_NS));
    }

    /// Adds what another has recorded. Values of a coarser one stay as coarse as they are.
    pub fn merge(&mut self, other: &Self) {
        for stage in Stage::ALL {
            if let Some(other) = &other.stages[stage.index()] {
                self.merge_stage(stage, &other.histogram, other.overflow);
            }
        }
    }

    /// Adds a histogram to a stage. Values that are too long for it are overflow.
    pub(crate) fn merge_stage(&mut self, stage: Stage, other: &Histogram<u64>, overflow: u64) {
        let own = self.stage_mut(stage);
        own.overflow = own.overflow.saturating_add(overflow);
        if own.histogram.add(other).is_ok() {
            return;
        }
        for step in other.iter_recorded() {
            let (ns, count) = (step.value_iterated_to(), step.count_at_value());
            if ns > VALUE_MAX_NS {
                own.overflow = own.overflow.saturating_add(count);
            }
            own.histogram.saturating_record_n(ns.min(VALUE_MAX_NS), count);
        }
    }

    /// Those of one stage alone, for a log of its own.
    pub fn only(&self, stage: Stage) -> Self {
        let mut only = Self::new(self.precision);
        only.stages[stage.index()].clone_from(&self.stages[stage.index()]);
        only
    }

    /// Forgets every value and keeps the memory.
    pub fn clear(&mut self) {
        for stage in self.stages.iter_mut().flatten() {
            if !stage.histogram.is_empty() {
                stage.histogram.reset();
            }
            stage.overflow = 0;
        }
    }

    /// Whether no stage has a value.
    pub fn is_empty(&self) -> bool {
        Stage::ALL.into_iter().all(|stage| self.count(stage) == 0)
    }

    /// Values recorded of a stage.
    pub fn count(&self, stage: Stage) -> u64 {
        self.recorded(stage).map_or(0, |stage| stage.histogram.len())
    }

    /// The percentiles of a stage; `None` if it has no value.
    pub fn summary(&self, stage: Stage) -> Option<Percentiles> {
        let stage = self.recorded(stage)?;
        let histogram = &stage.histogram;
        let max = histogram.max().min(VALUE_MAX_NS);
        // A histogram answers with the upper end of the bin, which may be above the largest value.
        let at = |quantile| histogram.value_at_quantile(quantile).min(max);
        Some(Percentiles {
            count: histogram.len(),
            mean: histogram.mean(),
            min: histogram.min(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max,
            overflow: stage.overflow,
        })
    }

    /// The smallest value that at least this share of a stage's values (0..=1) do not exceed, ns;
    /// `None` if it has no value.
    pub fn quantile(&self, stage: Stage, share: f64) -> Option<u64> {
        let histogram = &self.recorded(stage)?.histogram;
        Some(histogram.value_at_quantile(share).min(histogram.max()).min(VALUE_MAX_NS))
    }

    /// The histogram of a stage, for iteration and export; `None` if it has no value.
    pub fn histogram(&self, stage: Stage) -> Option<&Histogram<u64>> {
        self.recorded(stage).map(|stage| &stage.histogram)
    }

    /// The histogram and the overflow of a stage that has values.
    pub(crate) fn recorded(&self, stage: Stage) -> Option<&StageHistogram> {
        self.stages[stage.index()].as_deref().filter(|stage| !stage.histogram.is_empty())
    }

    #[inline]
    fn stage_mut(&mut self, stage: Stage) -> &mut StageHistogram {
        let precision = self.precision;
        self.stages[stage.index()].get_or_insert_with(|| first_use(precision))
    }
}

/// Apart, so that the hot path stays small enough to be inlined.
#[cold]
#[inline(never)]
fn first_use(precision: Precision) -> Box<StageHistogram> {
    Box::new(StageHistogram::new(precision))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: the smallest value that a share of the values does not exceed.
    fn naive(sorted: &[u64], share: f64) -> u64 {
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }

    fn assert_close(found: u64, exact: u64, precision: Precision) {
        let error = found.abs_diff(exact) as f64;
        let allowed = exact as f64 / 10_f64.powi(i32::from(precision.digits()));
        assert!(error <= allowed.max(1.0), "{found} for {exact} with {precision:?}");
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_a_sorted_list_within_the_precision(
            values in prop::collection::vec(
                (0_u32..36).prop_flat_map(|bits| 0_u64..=(1 << bits)).prop_map(|ns| ns.min(VALUE_MAX_NS)),
                1..400,
            ),
            bench in any::<bool>(),
        ) {
            let precision = if bench { Precision::Bench } else { Precision::Serving };
            let mut histograms = StageHistograms::new(precision);
            for &value in &values {
                histograms.record(Stage::Service, value);
            }
            let mut sorted = values;
            sorted.sort_unstable();
            let summary = histograms.summary(Stage::Service).unwrap();
            prop_assert_eq!(summary.count, sorted.len() as u64);
            prop_assert_eq!(summary.overflow, 0);
            let shares = [
                (summary.min, 0.0),
                (summary.p50, 0.5),
                (summary.p90, 0.9),
                (summary.p99, 0.99),
                (summary.p999, 0.999),
                (summary.p9999, 0.9999),
                (summary.max, 1.0),
            ];
            for (found, share) in shares {
                assert_close(found, naive(&sorted, share), precision);
            }
            let mean = sorted.iter().map(|&ns| ns as f64).sum::<f64>() / sorted.len() as f64;
            assert_close(summary.mean as u64, mean as u64, precision);
        }
    }

    #[test]
    fn a_stage_without_a_value_has_no_summary() {
        let mut histograms = StageHistograms::new(Precision::Serving);
        assert!(histograms.is_empty());
        histograms.record(Stage::Transit, 7);
        assert!(histograms.summary(Stage::Service).is_none());
        assert!(histograms.summary(Stage::Transit).is_some());
        histograms.clear();
        assert!(histograms.summary(Stage::Transit).is_none());
        assert!(histograms.is_empty());
    }

    #[test]
    fn values_above_a_minute_are_kept_as_a_minute_and_counted_as_overflow() {
        let mut histograms = StageHistograms::new(Precision::Bench);
        for ns in [0, 1, VALUE_MAX_NS, VALUE_MAX_NS + 1, u64::MAX] {
            histograms.record(Stage::Response, ns);
        }
        let summary = histograms.summary(Stage::Response).unwrap();
        assert_eq!(summary.count, 5);
        assert_eq!(summary.overflow, 2);
        assert_eq!(summary.max, VALUE_MAX_NS);
        assert_eq!(summary.min, 0);
    }

    #[test]
    fn merging_is_recording_everything_in_one() {
        let mut both = StageHistograms::new(Precision::Bench);
        let mut merged = StageHistograms::new(Precision::Bench);
        for part in 0..3_u64 {
            let mut one = StageHistograms::new(Precision::Bench);
            for value in 0..500_u64 {
                let ns = value * value * (part + 1) * 1_000_000;
                one.record(Stage::ALL[(value % 3) as usize], ns);
                both.record(Stage::ALL[(value % 3) as usize], ns);
            }
            merged.merge(&one);
        }
        for stage in Stage::ALL {
            assert_eq!(merged.summary(stage), both.summary(stage));
        }
        assert!(merged.summary(Stage::ALL[0]).unwrap().overflow > 0);
    }

    #[test]
    fn a_coarse_one_merged_into_a_fine_one_stays_within_the_coarse_precision() {
        let mut coarse = StageHistograms::new(Precision::Serving);
        (1..=1000_u64).for_each(|number| coarse.record(Stage::Service, number * 12_345));
        let mut fine = StageHistograms::new(Precision::Bench);
        fine.merge(&coarse);
        let summary = fine.summary(Stage::Service).unwrap();
        assert_eq!(summary.count, 1000);
        assert_close(summary.p50, 500 * 12_345, Precision::Serving);
        assert_close(summary.p99, 990 * 12_345, Precision::Serving);
    }
}
