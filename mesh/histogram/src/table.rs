//! Percentiles as text.

use std::fmt::Write as _;

use crate::{
    stage::Stage,
    stages::{Percentiles, StageHistograms},
};

/// A time with three significant digits and a unit that suits it: `999 ns`, `1.25 us`, `60.0 s`.
pub fn format_ns(ns: f64) -> String {
    let units = [("s", 1e9), ("ms", 1e6), ("us", 1e3)];
    // Thresholds are where three digits round up to the next unit: 999.6 us is 1.00 ms.
    for (unit, scale) in units {
        let value = ns / scale;
        if value >= 0.9995 {
            return format!("{} {unit}", three_digits(value));
        }
    }
    format!("{ns:.0} ns")
}

fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

impl StageHistograms {
    /// The percentiles of every stage that has values, a line each, with a heading; every line ends
    /// with a newline.
    pub fn table(&self) -> String {
        let mut text = String::new();
        line(
            &mut text,
            "stage",
            &["count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"].map(str::to_owned),
        );
        let mut overflow = 0_u64;
        for stage in Stage::ALL {
            let Some(summary) = self.summary(stage) else { continue };
            line(&mut text, stage.name(), &columns(&summary));
            overflow = overflow.saturating_add(summary.overflow);
        }
        if overflow > 0 {
            text.push_str(&format!("{overflow} values above 60 s were taken as 60 s\n"));
        }
        text
    }
}

fn columns(summary: &Percentiles) -> [String; 8] {
    [
        summary.count.to_string(),
        format_ns(summary.mean),
        format_ns(summary.p50 as f64),
        format_ns(summary.p90 as f64),
        format_ns(summary.p99 as f64),
        format_ns(summary.p999 as f64),
        format_ns(summary.p9999 as f64),
        format_ns(summary.max as f64),
    ]
}

fn line(text: &mut String, name: &str, columns: &[String; 8]) {
    let [count, rest @ ..] = columns;
    let _ = write!(text, "{name:<12} {count:>10}");
    for column in rest {
        let _ = write!(text, " {column:>9}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::Precision;

    #[test]
    fn times_have_three_digits_and_a_unit_that_suits_them() {
        let cases = [
            (0.0, "0 ns"),
            (1.0, "1 ns"),
            (999.0, "999 ns"),
            (999.7, "1.00 us"),
            (1_000.0, "1.00 us"),
            (12_340.0, "12.3 us"),
            (123_456.0, "123 us"),
            (999_600.0, "1.00 ms"),
            (9_996_000.0, "10.0 ms"),
            (60_000_000_000.0, "60.0 s"),
        ];
        for (ns, expected) in cases {
            assert_eq!(format_ns(ns), expected);
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_stage_with_values_and_all_are_equally_wide() {
        let mut histograms = StageHistograms::new(Precision::Bench);
        for number in 1..=100_u64 {
            histograms.record(Stage::Service, number * 1000);
            histograms.record(Stage::Response, number * 1_000_000);
        }
        let table = histograms.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
        assert!(lines[1].starts_with("service"), "{table}");
        assert!(lines[2].contains("50.0 ms"), "{table}");

        histograms.record(Stage::Response, u64::MAX);
        assert!(histograms.table().ends_with("1 values above 60 s were taken as 60 s\n"));
    }
}
