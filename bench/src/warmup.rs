//! Where the steady part of a run begins.

/// Values a batch: the five of MSER-5.
pub(crate) const BATCH: usize = 5;

/// What MSER says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Batches to leave out at the beginning.
    Batches(usize),
    /// The best cut lies at the end of what may be cut: the run has not settled.
    NotSettled,
}

/// MSER on batch means: the cut `d` that makes `sum((x_i - mean)^2) / (n - d)^2` over the batches
/// that are left the least, looked for in the first half. With batches of five it is MSER-5.
///
/// Source: K. P. White, M. J. Cobb, S. C. Spratt: A comparison of five steady-state truncation
/// heuristics for simulation, Winter Simulation Conference 2000.
pub(crate) fn mser(means: &[f64]) -> Cut {
    let half = means.len() / 2;
    let (mut best, mut best_score) = (0, f64::INFINITY);
    // Backwards by Welford's update: nothing is subtracted that is nearly equal.
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for (at, &value) in means.iter().enumerate().rev() {
        count += 1.0;
        let difference = value - mean;
        mean += difference / count;
        squares += difference * (value - mean);
        let score = squares / (count * count);
        // Of equal cuts the shortest.
        if at <= half && score <= best_score {
            (best, best_score) = (at, score);
        }
    }
    let is_at_the_end = means.len() >= 20 && best * 20 >= half * 19;
    if is_at_the_end { Cut::NotSettled } else { Cut::Batches(best) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, term by term.
    fn score(left: &[f64]) -> f64 {
        let count = left.len() as f64;
        let mean = left.iter().sum::<f64>() / count;
        left.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count * count)
    }

    #[test]
    fn of_a_known_series_the_transient_is_cut() {
        // Scores of the cuts 0 to 4: 11.1, 1.01, 0.0417, 0.0480, 0.0625.
        let series = [30.0, 9.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0];
        assert!((score(&series[2..]) - 1.5 / 36.0).abs() < 1e-12);
        assert_eq!(mser(&series), Cut::Batches(2));
    }

    #[test]
    fn the_cut_is_the_one_of_the_definition() {
        // A decay over a sawtooth with a period that is no divisor of anything here.
        let series: Vec<f64> = (0..400)
            .map(|at| 5000.0 * (-f64::from(at) / 15.0).exp() + f64::from(at * 7 % 13))
            .collect();
        let scores: Vec<f64> = (0..=200).map(|cut| score(&series[cut..])).collect();
        let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let Cut::Batches(cut) = mser(&series) else { panic!("it settles") };
        assert!((scores[cut] - least).abs() <= 1e-9 * least, "{cut}");
        assert!((50..150).contains(&cut), "{cut}");
    }

    #[test]
    fn of_a_steady_series_nothing_is_cut() {
        assert_eq!(mser(&[7.0; 100]), Cut::Batches(0));
        let series: Vec<f64> = (0..1000).map(|at| f64::from(at % 4)).collect();
        assert!(matches!(mser(&series), Cut::Batches(0..=3)));
        assert_eq!(mser(&[]), Cut::Batches(0));
    }

    #[test]
    fn a_series_that_only_grows_has_not_settled() {
        let series: Vec<f64> = (0..1000).map(f64::from).collect();
        assert_eq!(mser(&series), Cut::NotSettled);
    }
}
