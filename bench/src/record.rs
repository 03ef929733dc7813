//! What a client records of the tasks that it gets back.

use pinmesh_client::RawReply;
use pinmesh_histogram::{Precision, Stage, StageHistograms};

use crate::timeline::record_stages;

/// The histograms of one client thread, and its counts. Only tasks that end inside the measured
/// interval are recorded; all are counted.
#[derive(Debug)]
pub(crate) struct Record {
    /// By stage.
    pub(crate) stages: StageHistograms,
    /// Tasks that ended well, warm-up included.
    pub(crate) succeeded: u64,
    /// Tasks that ended otherwise.
    pub(crate) failed: u64,
    /// Tasks whose output was not what their input asks for.
    pub(crate) wrong: u64,
    /// Tasks that had not ended when the client gave up.
    pub(crate) lost: u64,
    /// Starts that ended badly before a task ended well.
    pub(crate) retries: u64,
    /// How the first task that failed did so.
    pub(crate) first_failure: Option<String>,
}

impl Record {
    /// Without a task.
    pub(crate) fn new() -> Self {
        Self {
            stages: StageHistograms::new(Precision::Bench),
            succeeded: 0,
            failed: 0,
            wrong: 0,
            lost: 0,
            retries: 0,
            first_failure: None,
        }
    }

    /// Records the times of a task, ns.
    pub(crate) fn times(&mut self, reply: &RawReply) {
        let response_ns = u64::try_from(reply.response.as_nanos()).unwrap_or(u64::MAX);
        self.stages.record(Stage::Response, response_ns);
        let Some(stages) = &reply.stages else { return };
        record_stages(&mut self.stages, response_ns, stages);
    }

    /// Notes a task that did not end well.
    pub(crate) fn failure(&mut self, error: &pinmesh_client::Error) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| error.to_string());
    }

    /// Adds what another client has recorded.
    pub(crate) fn merge(&mut self, other: Self) {
        self.stages.merge(&other.stages);
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.retries += other.retries;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_records_count_everything_and_keep_the_first_failure() {
        let mut all = Record::new();
        for number in 1..=3_u64 {
            let mut one = Record::new();
            one.succeeded = number;
            one.stages.record(Stage::Response, number);
            if number > 1 {
                one.failure(&pinmesh_client::Error::Closed);
            }
            all.merge(one);
        }
        assert_eq!((all.succeeded, all.failed), (6, 2));
        assert_eq!(all.stages.count(Stage::Response), 3);
        assert!(all.first_failure.unwrap().contains("closed"));
    }
}
