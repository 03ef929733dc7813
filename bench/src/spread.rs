//! How far repeated runs lie apart.

use serde::Serialize;

/// Of one number over several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The least.
    pub(crate) min: f64,
    /// The one in the middle, or between the two in the middle.
    pub(crate) median: f64,
    /// The greatest.
    pub(crate) max: f64,
    /// Arithmetic mean over runs.
    pub(crate) mean: f64,
    /// Half the width of the 95 % confidence interval of that mean, by Student's t: runs are
    /// independent, tasks of one run are not.
    pub(crate) ci95_half_width: f64,
}

/// 97.5 % quantile of Student's t by degrees of freedom, from 1.
const T_975: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

impl Spread {
    /// `None` unless there are several, all known.
    pub(crate) fn of(values: impl Iterator<Item = Option<f64>>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect::<Option<_>>()?;
        values.sort_by(f64::total_cmp);
        if values.len() < 2 {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        // Beyond the table the 30 degrees' quantile is a little too wide, never too narrow.
        let t = T_975[(values.len() - 2).min(T_975.len() - 1)];
        Some(Self {
            min: values[0],
            median: median(&values)?,
            max: values[values.len() - 1],
            mean,
            ci95_half_width: t * (squares / (count - 1.0) / count).sqrt(),
        })
    }
}

/// Of sorted values; `None` of none.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted.get(middle).copied(),
        _ => Some(f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, *sorted.get(middle)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0].into_iter().map(Some)).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of([Some(1.0)].into_iter()), None);
        assert_eq!(Spread::of([Some(1.0), None].into_iter()), None);
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_interval_is_that_of_the_textbook() {
        // Mean 3, standard deviation sqrt(2.5), so 2.776 * sqrt(2.5 / 5).
        let spread = Spread::of((1..=5).map(|value| Some(f64::from(value)))).unwrap();
        assert_eq!(spread.mean, 3.0);
        assert!((spread.ci95_half_width - 1.963).abs() < 1e-3, "{}", spread.ci95_half_width);
    }
}
