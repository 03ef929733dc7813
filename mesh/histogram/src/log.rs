//! Interval logs, written in the format of HdrHistogram's own tools.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use hdrhistogram::serialization::{
    V2DeflateSerializer,
    interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag},
};

use crate::{error::HistogramError, stage::Stage, stages::StageHistograms};

/// Starts the comment that holds the overflow of the line after it; other readers skip comments.
pub(crate) const OVERFLOW_COMMENT: &str = "[Overflow: ";

/// An HdrHistogram interval log (V2, deflated), one line a stage and interval, tagged with the
/// stage's name. Times are ns, timestamps are seconds since the `BaseTime` of its header.
#[derive(Debug)]
pub struct LatencyLog {
    path: PathBuf,
    file: File,
    started_at: Instant,
    buffer: Vec<u8>,
}

impl LatencyLog {
    /// Creates the file, or empties one that is there, and writes the header.
    ///
    /// `origin` is named in the header: the program that records.
    ///
    /// # Errors
    /// [`HistogramError::Create`] if the file cannot be created, [`HistogramError::Write`] if the
    /// header cannot be written.
    pub fn create(path: impl AsRef<Path>, origin: &str) -> Result<Self, HistogramError> {
        let path = path.as_ref().to_owned();
        let file = File::create(&path)
            .map_err(|source| HistogramError::Create { path: path.clone(), source })?;
        let mut log = Self { path, file, started_at: Instant::now(), buffer: Vec::new() };
        let now = SystemTime::now();
        let header = IntervalLogWriterBuilder::new()
            .add_comment(&format!("[Histogram log format version 1.3; {origin}; values in ns]"))
            .with_start_time(now)
            .with_base_time(now)
            .begin_log_with(&mut log.buffer, &mut V2DeflateSerializer::new())
            .map(drop);
        header.map_err(|source| log.error(source))?;
        log.buffer.extend_from_slice(
            b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\
              \"Interval_Compressed_Histogram\"\n",
        );
        log.write_out()?;
        Ok(log)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a line for each stage that has values, all with one write, so that what is there
    /// after a crash is whole intervals.
    ///
    /// # Errors
    /// [`HistogramError::Write`]; the file then may end in a part of a line and is to be left alone.
    pub fn write(
        &mut self,
        start: Instant,
        end: Instant,
        histograms: &StageHistograms,
    ) -> Result<(), HistogramError> {
        let since_start = start.saturating_duration_since(self.started_at);
        let length = end.saturating_duration_since(start);
        self.encode(since_start, length, histograms).map_err(|source| self.error(source))?;
        self.write_out()
    }

    fn encode(
        &mut self,
        start: Duration,
        length: Duration,
        histograms: &StageHistograms,
    ) -> io::Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let mut writer =
            IntervalLogWriterBuilder::new().begin_log_with(&mut self.buffer, &mut serializer)?;
        for stage in Stage::ALL {
            let Some(recorded) = histograms.recorded(stage) else { continue };
            if recorded.overflow > 0 {
                writer.write_comment(&format!("{OVERFLOW_COMMENT}{}]", recorded.overflow))?;
            }
            let tag = Tag::new(stage.name());
            writer.write_histogram(&recorded.histogram, start, length, tag).map_err(|error| {
                match error {
                    IntervalLogWriterError::IoError(error) => error,
                    IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
                }
            })?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), HistogramError> {
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|source| self.error(source))
    }

    /// A log whose disk has become full after the header was written.
    #[cfg(test)]
    pub(crate) fn on_a_full_disk() -> Self {
        let path = PathBuf::from("/dev/full");
        let file = File::create(&path).unwrap();
        Self { path, file, started_at: Instant::now(), buffer: Vec::new() }
    }

    fn error(&self, source: io::Error) -> HistogramError {
        HistogramError::Write { path: self.path.clone(), source }
    }
}
