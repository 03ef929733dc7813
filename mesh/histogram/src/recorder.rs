//! Recording by intervals: the totals of a process's life, and a log of its seconds.

use std::{
    sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    error::HistogramError,
    log::LatencyLog,
    stage::Stage,
    stages::{Precision, StageHistograms},
};

/// How long an interval is.
const INTERVAL: Duration = Duration::from_secs(1);
/// Intervals that may wait for the writer. When the disk is slower than that, the interval goes on
/// and becomes a longer one; nothing is lost.
const WAITING_MAX: usize = 2;

/// Histograms that are swapped out each second, merged into totals and, if there is a log, written
/// by a thread of its own: the thread that records never waits for the disk.
#[derive(Debug)]
pub struct IntervalRecorder {
    current: StageHistograms,
    totals: StageHistograms,
    interval_start: Instant,
    writer: Option<Writer>,
}

impl IntervalRecorder {
    /// Records totals only.
    pub fn new(precision: Precision, now: Instant) -> Self {
        Self {
            current: StageHistograms::new(precision),
            totals: StageHistograms::new(precision),
            interval_start: now,
            writer: None,
        }
    }

    /// Records totals and writes each interval to a log.
    ///
    /// # Errors
    /// [`HistogramError::WriterThread`] if the operating system refuses another thread.
    pub fn with_log(
        precision: Precision,
        log: LatencyLog,
        now: Instant,
    ) -> Result<Self, HistogramError> {
        let writer = Writer::start(log)?;
        Ok(Self { writer: Some(writer), ..Self::new(precision, now) })
    }

    /// Records one value, ns.
    #[inline]
    pub fn record(&mut self, stage: Stage, ns: u64) {
        self.current.record(stage, ns);
    }

    /// Whether the interval has lasted its second.
    #[inline]
    pub fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.interval_start) >= INTERVAL
    }

    /// Ends the interval: merges it into the totals and gives it to the log. Some 10 us.
    ///
    /// Returns what went wrong with the log, once; recording goes on without it from then on.
    pub fn rotate(&mut self, now: Instant) -> Option<HistogramError> {
        let mut error = None;
        if let Some(writer) = &mut self.writer {
            match writer.collect() {
                Ok(()) if writer.waiting >= WAITING_MAX => return None,
                Ok(()) => {}
                Err(problem) => {
                    error = Some(problem);
                    self.writer = None;
                }
            }
        }
        self.totals.merge(&self.current);
        let start = std::mem::replace(&mut self.interval_start, now);
        match &mut self.writer {
            Some(writer) if !self.current.is_empty() => {
                let empty = writer
                    .spare
                    .take()
                    .unwrap_or_else(|| StageHistograms::new(self.current.precision()));
                let histograms = std::mem::replace(&mut self.current, empty);
                if !writer.send(Interval { start, end: now, histograms }) {
                    self.writer = None;
                    error = Some(HistogramError::WriterThread { source: None });
                }
            }
            _ => self.current.clear(),
        }
        error
    }

    /// Everything recorded so far.
    pub fn totals(&self) -> StageHistograms {
        let mut totals = self.totals.clone();
        totals.merge(&self.current);
        totals
    }

    /// Forgets everything recorded so far, for example a warm-up. Intervals already in the log stay
    /// there.
    pub fn reset(&mut self, now: Instant) {
        self.current.clear();
        self.totals.clear();
        self.interval_start = now;
    }

    /// Ends the last interval, waits until the log is written, and returns the totals and what went
    /// wrong with the log if that has not been said yet.
    pub fn finish(mut self, now: Instant) -> (StageHistograms, Option<HistogramError>) {
        let mut error = None;
        if let Some(writer) = &mut self.writer
            && writer.waiting >= WAITING_MAX
            && let Err(problem) = writer.collect_one()
        {
            error = Some(problem);
            self.writer = None;
        }
        let error = error.or(self.rotate(now));
        let error = error.or(self.writer.take().and_then(Writer::finish));
        (self.totals, error)
    }
}

struct Interval {
    start: Instant,
    end: Instant,
    histograms: StageHistograms,
}

/// The histograms, emptied, and how it went.
type Written = (StageHistograms, Result<(), HistogramError>);

/// The recording thread's side of the thread that writes.
#[derive(Debug)]
struct Writer {
    intervals: SyncSender<Interval>,
    written: Receiver<Written>,
    /// Sent and not yet back.
    waiting: usize,
    spare: Option<StageHistograms>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(log: LatencyLog) -> Result<Self, HistogramError> {
        let (intervals, to_write) = sync_channel(WAITING_MAX);
        let (done, written) = sync_channel(WAITING_MAX);
        let thread = thread::Builder::new()
            .name("latency-log".to_owned())
            .spawn(move || write_all(log, &to_write, &done))
            .map_err(|source| HistogramError::WriterThread { source: Some(source) })?;
        Ok(Self { intervals, written, waiting: 0, spare: None, thread })
    }

    /// Takes back what has been written meanwhile.
    fn collect(&mut self) -> Result<(), HistogramError> {
        loop {
            match self.written.try_recv() {
                Ok(written) => self.take_back(written)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    return Err(HistogramError::WriterThread { source: None });
                }
            }
        }
    }

    /// Waits for one interval to be written.
    fn collect_one(&mut self) -> Result<(), HistogramError> {
        let written = self.written.recv();
        self.take_back(written.map_err(|RecvError| HistogramError::WriterThread { source: None })?)
    }

    fn take_back(&mut self, (histograms, result): Written) -> Result<(), HistogramError> {
        self.waiting = self.waiting.saturating_sub(1);
        self.spare = Some(histograms);
        result
    }

    /// False if the thread has ended. Never blocks: no more than the channel holds are waiting.
    fn send(&mut self, interval: Interval) -> bool {
        self.waiting += 1;
        self.intervals.try_send(interval).is_ok()
    }

    fn finish(mut self) -> Option<HistogramError> {
        let mut error = None;
        while self.waiting > 0 && error.is_none() {
            error = self.collect_one().err();
        }
        drop(self.intervals);
        match self.thread.join() {
            Ok(()) => error,
            Err(_) => error.or(Some(HistogramError::WriterThread { source: None })),
        }
    }
}

/// Ends with the channel or with the first error, after which the file is left alone.
fn write_all(mut log: LatencyLog, intervals: &Receiver<Interval>, done: &SyncSender<Written>) {
    while let Ok(Interval { start, end, mut histograms }) = intervals.recv() {
        let result = log.write(start, end, &histograms);
        let failed = result.is_err();
        histograms.clear();
        if done.send((histograms, result)).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_full_disk(now: Instant) -> IntervalRecorder {
        IntervalRecorder::with_log(Precision::Serving, LatencyLog::on_a_full_disk(), now).unwrap()
    }

    #[test]
    fn a_full_disk_is_reported_once_and_recording_goes_on() {
        let start = Instant::now();
        let mut recorder = on_a_full_disk(start);
        let limit = start + Duration::from_secs(60);
        let mut recorded = 0;
        let error = loop {
            recorder.record(Stage::Service, 1);
            recorded += 1;
            if let Some(error) = recorder.rotate(Instant::now()) {
                break error;
            }
            assert!(Instant::now() < limit, "no error in a minute");
            thread::yield_now();
        };
        assert!(matches!(error, HistogramError::Write { .. }), "{error}");
        for _ in 0..3 {
            recorder.record(Stage::Service, 1);
            recorded += 1;
            assert!(recorder.rotate(Instant::now()).is_none());
        }
        let (totals, error) = recorder.finish(Instant::now());
        assert!(error.is_none());
        assert_eq!(totals.count(Stage::Service), recorded);
    }

    #[test]
    fn an_error_of_the_last_interval_is_reported_at_the_end() {
        let mut recorder = on_a_full_disk(Instant::now());
        recorder.record(Stage::Service, 1);
        let (totals, error) = recorder.finish(Instant::now());
        assert!(matches!(error, Some(HistogramError::Write { .. })), "{error:?}");
        assert_eq!(totals.count(Stage::Service), 1);
    }
}
