//! Interval logs, read back.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::{
    decode,
    error::HistogramError,
    log::OVERFLOW_COMMENT,
    stage::Stage,
    stages::{Precision, StageHistograms},
};

/// Longer than any line that a histogram of ours comes to.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Reads a log and merges all its intervals. Lines without a tag, or with one that is no stage, are
/// skipped, and so is a last line without an end: its writer was killed.
///
/// # Errors
/// [`HistogramError::Read`] if the file cannot be read, [`HistogramError::Malformed`] if a line is
/// none of an interval log.
pub fn read_log(path: impl AsRef<Path>) -> Result<StageHistograms, HistogramError> {
    let path = path.as_ref();
    let unreadable = |source| HistogramError::Read { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut merged = StageHistograms::new(Precision::Bench);
    let mut overflow = 0;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let limit = LINE_BYTES_MAX as u64;
        reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(unreadable)?;
        let malformed =
            |reason| HistogramError::Malformed { path: path.to_owned(), line: number, reason };
        if line.len() == LINE_BYTES_MAX {
            return Err(malformed(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        if line.last() != Some(&b'\n') {
            break;
        }
        if let Some(count) = overflow_comment(&line) {
            overflow = count;
        } else if let Some(entry) = IntervalLogIterator::new(&line).next() {
            let entry = entry.map_err(|_| malformed("neither a comment nor an interval".into()))?;
            merge(&mut merged, &entry, overflow).map_err(malformed)?;
            overflow = 0;
        }
    }
    Ok(merged)
}

fn overflow_comment(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    text.strip_prefix('#')?
        .strip_prefix(OVERFLOW_COMMENT)?
        .trim_end()
        .strip_suffix(']')?
        .parse()
        .ok()
}

fn merge(merged: &mut StageHistograms, entry: &LogEntry<'_>, overflow: u64) -> Result<(), String> {
    let LogEntry::Interval(interval) = entry else { return Ok(()) };
    let Some(stage) = interval.tag().and_then(|tag| Stage::from_name(tag.as_str())) else {
        return Ok(());
    };
    merged.merge_stage(stage, &decode::histogram(interval.encoded_histogram())?, overflow);
    Ok(())
}
