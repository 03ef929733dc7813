//! Small files of procfs and sysfs, where a missing one is an answer too.

use std::{fs, path::Path, str::FromStr};

/// The trimmed text of a file; `None` if it is missing, unreadable, not UTF-8 or blank.
pub(crate) fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let trimmed = text.trim();
    if trimmed.is_empty() { None } else { Some(trimmed.to_owned()) }
}

/// The number that a file consists of.
pub(crate) fn number<T: FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// The number after `name:` in a file of such lines (`/proc/PID/status`, `/proc/meminfo`); a unit
/// behind it is left to the caller.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        value.split_ascii_whitespace().next()?.parse().ok()
    })
}
