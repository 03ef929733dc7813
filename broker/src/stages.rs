//! Stage histograms of the broker, and their log.

use std::path::Path;
use std::time::Instant;

use pinmesh_histogram::{HistogramError, IntervalRecorder, LatencyLog, Precision, Stage};
use pinmesh_protocol::command::StageTimes;

/// See the module.
pub(crate) struct Stages {
    recorder: IntervalRecorder,
    has_log: bool,
}

impl Stages {
    /// Totals only, or a log of every second too.
    pub(crate) fn new(log: Option<&Path>, now: Instant) -> Result<Self, HistogramError> {
        let recorder = match log {
            None => IntervalRecorder::new(Precision::Serving, now),
            Some(path) => {
                let log = LatencyLog::create(path, "pinmesh-broker")?;
                IntervalRecorder::with_log(Precision::Serving, log, now)?
            }
        };
        Ok(Self { recorder, has_log: log.is_some() })
    }

    #[inline]
    pub(crate) fn record(&mut self, stages: &StageTimes) {
        self.recorder.record(Stage::BrokerWait, stages.broker_wait_ns);
        self.recorder.record(Stage::Transit, stages.transit_ns);
        self.recorder.record(Stage::WorkerWait, stages.worker_wait_ns);
        self.recorder.record(Stage::Service, stages.service_ns);
    }

    /// Whether the event loop has to come by each second although nothing happens.
    pub(crate) fn has_log(&self) -> bool {
        self.has_log
    }

    /// Ends the interval if it has lasted its second.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.recorder.is_due(now)
            && let Some(error) = self.recorder.rotate(now)
        {
            tracing::error!("{error}; the broker goes on without the latency log");
            self.has_log = false;
        }
    }

    /// Writes what is left, and logs the totals.
    pub(crate) fn finish(self, now: Instant) {
        let (totals, error) = self.recorder.finish(now);
        if let Some(error) = error {
            tracing::error!("{error}");
        }
        for stage in [Stage::BrokerWait, Stage::Transit, Stage::WorkerWait, Stage::Service] {
            if let Some(summary) = totals.summary(stage) {
                tracing::info!(
                    stage = stage.name(),
                    count = summary.count,
                    p50_ns = summary.p50,
                    p99_ns = summary.p99,
                    max_ns = summary.max,
                    "stage"
                );
            }
        }
    }
}
