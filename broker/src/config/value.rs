//! Values of settings, as the file or a flag gives them, turned into what the broker uses.

use std::time::Duration;

use pinmesh_core::Span;

/// The most that any limit of bytes may be set to.
pub(super) const MEMORY_MAX: u64 = 1 << 44;

const UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TiB", 1 << 40),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// One value before it is understood.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// From the command line, where everything is text.
    Flag(&'a str),
    /// A TOML string.
    Text(&'a str),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Boolean(bool),
    /// Anything else that TOML has, by the name of its type.
    Other(&'static str),
}

impl<'a> Value<'a> {
    fn kind(self) -> &'static str {
        match self {
            Self::Flag(_) | Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::Other(kind) => kind,
        }
    }

    /// A string.
    pub(super) fn text(self) -> Result<&'a str, String> {
        match self {
            Self::Flag(text) | Self::Text(text) => Ok(text),
            _ => Err(format!("must be a string in quotes, is {}", self.kind())),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(self) -> Result<bool, String> {
        match self {
            Self::Boolean(value) => Ok(value),
            Self::Flag("true") => Ok(true),
            Self::Flag("false") => Ok(false),
            _ => Err(format!("must be true or false without quotes, is {}", self.kind())),
        }
    }

    /// A whole number of a range.
    pub(super) fn count(self, min: u64, max: u64) -> Result<u64, String> {
        let range = || format!("must be a whole number from {min} to {max}");
        let value = match self {
            Self::Integer(value) => u64::try_from(value).map_err(|_| range())?,
            Self::Flag(text) => text.parse().map_err(|_| range())?,
            _ => return Err(format!("{} without quotes, is {}", range(), self.kind())),
        };
        match value {
            0 if min > 0 => {
                Err(format!("0 does not mean unlimited: {}; name the limit that you want", range()))
            }
            _ if (min..=max).contains(&value) => Ok(value),
            _ => Err(range()),
        }
    }

    /// A whole number of a range, as 32 bits.
    pub(super) fn count_u32(self, min: u32, max: u32) -> Result<u32, String> {
        let value = self.count(min.into(), max.into())?;
        u32::try_from(value).map_err(|_| format!("must be at most {max}"))
    }

    /// A length of time of a range.
    pub(super) fn duration(self, min: Duration, max: Duration) -> Result<Duration, String> {
        let example = "must be a duration with its unit, such as \"10s\" or \"250ms\"";
        let text = match self {
            Self::Flag(text) | Self::Text(text) => text,
            _ => return Err(format!("{example}, is {}", self.kind())),
        };
        let value =
            humantime::parse_duration(text).map_err(|error| format!("{example}: {error}"))?;
        if (min..=max).contains(&value) {
            return Ok(value);
        }
        let range = format!("must be from {} to {}", show_duration(min), show_duration(max));
        if value.is_zero() {
            return Err(format!("0 does not mean for ever: {range}; name the time that you want"));
        }
        Err(range)
    }

    /// A length of time of a range, in the machine's own type.
    pub(super) fn span(self, min: Duration, max: Duration) -> Result<Span, String> {
        self.duration(min, max).map(span_of)
    }

    /// Bytes: `"256MiB"`, `"1GB"`, or an integer of bytes.
    pub(super) fn bytes(self, min: u64, max: u64) -> Result<u64, String> {
        let example = "must be a size such as \"256MiB\", or a whole number of bytes";
        let value = match self {
            Self::Integer(value) => u64::try_from(value).map_err(|_| example.to_owned())?,
            Self::Flag(text) | Self::Text(text) => {
                parse_bytes(text).ok_or_else(|| example.to_owned())?
            }
            _ => return Err(format!("{example}, is {}", self.kind())),
        };
        if (min..=max).contains(&value) {
            return Ok(value);
        }
        let range = format!("must be from {} to {}", show_bytes(min), show_bytes(max));
        if value == 0 {
            return Err(format!(
                "0 does not mean unlimited: {range}; name the limit that you want"
            ));
        }
        Err(range)
    }
}

/// A duration as the machine counts it; saturates after 584 years.
pub(crate) fn span_of(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, scale) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*scale)
}

/// The size with the largest binary unit that needs no fraction.
pub(super) fn show_bytes(bytes: u64) -> String {
    let binary = UNITS.iter().filter(|(name, _)| name.ends_with("iB"));
    let fits = |(_, scale): &&(&str, u64)| bytes >= *scale && bytes.is_multiple_of(*scale);
    match binary.filter(fits).max_by_key(|(_, scale)| *scale) {
        Some((name, scale)) => format!("{}{name}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

/// The duration as it is written in a file.
pub(super) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The machine's duration as it is written in a file.
pub(super) fn show_span(span: Span) -> String {
    show_duration(Duration::from_nanos(span.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_reads_back_as_it_is_shown() {
        for bytes in [1, 1023, 1024, 60_000, 8 << 20, 256 << 20, 1 << 30, (1 << 30) + 1, 3 << 40] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes), "{}", show_bytes(bytes));
        }
        assert_eq!(parse_bytes("1 gb"), Some(1_000_000_000));
        assert_eq!(parse_bytes("4096"), Some(4096));
        for wrong in ["", "MiB", "-1", "1.5GiB", "1 XB", "99999999999999999999", "99999999999GiB"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn zero_is_refused_with_the_remedy() {
        let zeros = [
            Value::Integer(0).count(1, 9),
            Value::Text("0s").duration(Duration::from_secs(1), Duration::MAX).map(|_| 0),
            Value::Text("0B").bytes(1, 9),
        ];
        for zero in zeros {
            let error = zero.unwrap_err();
            assert!(error.contains("0 does not mean") && error.contains("name the"), "{error}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_by_name() {
        let error = Value::Boolean(true).count(1, 9).unwrap_err();
        assert!(error.contains("is a boolean"), "{error}");
        let error = Value::Integer(5).duration(Duration::ZERO, Duration::MAX).unwrap_err();
        assert!(error.contains("with its unit") && error.contains("an integer"), "{error}");
        assert!(Value::Text("3").count(1, 9).is_err());
        assert_eq!(Value::Flag("3").count(1, 9), Ok(3));
    }
}
