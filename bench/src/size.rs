//! Sizes as they are written in flags.

/// Bytes: `64`, `64B`, `4KiB`, `1MiB`, `10kB`, `1MB`, at most 64 MiB, the largest payload.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    const MAX: usize = 64 << 20;
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let scale = match unit.trim_start() {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        other => return Err(format!("unit `{other}`: must be B, kB, MB, KiB or MiB")),
    };
    let number: usize =
        digits.parse().map_err(|_| "must be a whole number of bytes, such as 64 or 4KiB")?;
    number
        .checked_mul(scale)
        .filter(|bytes| *bytes <= MAX)
        .ok_or_else(|| "must be at most 64MiB, the largest payload of a task".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_a_maximum() {
        for (text, bytes) in
            [("0", 0), ("64", 64), ("64B", 64), ("4KiB", 4096), ("1 MB", 1_000_000)]
        {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        for text in ["", "x", "-1", "1.5", "4k", "65MiB", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
