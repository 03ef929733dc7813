//! Latency logs of a run, one a stage, for HdrHistogram's own tools.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use pinmesh_histogram::{LatencyLog, Stage};

use crate::{error::BenchError, timeline::Interval};

/// `response.hlog`, `send_lag.hlog` and so on in one folder.
#[derive(Debug)]
pub(crate) struct LatencyFiles(Vec<(Stage, LatencyLog)>);

impl LatencyFiles {
    /// Makes the folder and the files, before anything is measured, so that a wrong path costs no
    /// run.
    pub(crate) fn create(folder: &Path) -> Result<Self, BenchError> {
        fs::create_dir_all(folder)
            .map_err(|source| BenchError::Write { path: folder.to_owned(), source })?;
        let create = |stage: Stage| {
            let path = folder.join(format!("{stage}.hlog"));
            Ok((stage, LatencyLog::create(path, &format!("pinmesh-bench run; {stage}"))?))
        };
        Stage::ALL.into_iter().map(create).collect::<Result<_, _>>().map(Self)
    }

    /// Writes the intervals that were measured, the first of which began at `start`.
    pub(crate) fn write(
        mut self,
        start: Instant,
        length: Duration,
        intervals: &[Interval],
    ) -> Result<(), BenchError> {
        for (number, interval) in (0..).zip(intervals) {
            let from = start + length * number;
            for (stage, log) in &mut self.0 {
                log.write(from, from + length, &interval.stages.only(*stage))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pinmesh_histogram::read_log;

    use super::*;
    use crate::{
        arrivals::Arrivals,
        timeline::{Schedule, Timeline},
    };

    #[test]
    fn each_stage_has_a_log_with_the_measured_intervals() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new/run-1");
        let files = LatencyFiles::create(&folder).unwrap();
        let second = Duration::from_secs(1);
        let plan = Arrivals::Constant.plan(100.0, 11 * second, 1);
        let schedule = Schedule::new(plan, second, 10 * second);
        let mut timeline = Timeline::new(&schedule);
        (0..1100).for_each(|number| timeline.record(&schedule, number, 7, 1000, None));
        let start = Instant::now();
        files.write(start, schedule.interval(), timeline.intervals_from(2)).unwrap();

        let steady = read_log(folder.join("response.hlog")).unwrap();
        let summary = steady.summary(Stage::Response).unwrap();
        // Three digits: 1007 ns lie in a bin of their own.
        assert_eq!((summary.count, summary.min, summary.max), (800, 1007, 1007));
        assert!(steady.summary(Stage::SendLag).is_none());
        let lag = read_log(folder.join("send_lag.hlog")).unwrap();
        assert_eq!(lag.count(Stage::SendLag), 800);
        assert!(read_log(folder.join("service.hlog")).unwrap().is_empty());
        let text = fs::read_to_string(folder.join("response.hlog")).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("Tag=response,")).count(), 8);
    }
}
