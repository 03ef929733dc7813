//! The stages that a task's time is divided into.

use std::fmt;

/// A part of a task's time. Stages are recorded apart and never summed: the sum of percentiles is
/// no percentile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// In the broker: from the receipt of the task to its dispatch.
    BrokerWait,
    /// From the dispatch to the receipt of the end, less the time in the worker: both ways together,
    /// because clocks of two hosts cannot tell one from the other.
    Transit,
    /// In the worker: from the receipt of the task to the start of its handler.
    WorkerWait,
    /// In the handler.
    Service,
    /// At the client: from the send (open loop: the *intended* send) to the result.
    Response,
    /// Response less the time between the broker's receipt of the task and its end there: the
    /// client's own queues and the way to the broker and back.
    ClientPath,
    /// At a load generator: from the intended send to the actual one.
    SendLag,
    /// At a load generator: from the actual send to the result, which HdrHistogram and wrk2 call
    /// service time. While the sender is held up it leaves the wait out; [`Stage::Response`] does
    /// not.
    RoundTrip,
}

impl Stage {
    /// How many stages there are.
    pub const COUNT: usize = 8;

    /// Every stage, in the order in which they are shown.
    pub const ALL: [Self; Self::COUNT] = [
        Self::BrokerWait,
        Self::Transit,
        Self::WorkerWait,
        Self::Service,
        Self::ClientPath,
        Self::Response,
        Self::SendLag,
        Self::RoundTrip,
    ];

    /// The name in logs (the `Tag` of a line), tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::BrokerWait => "broker_wait",
            Self::Transit => "transit",
            Self::WorkerWait => "worker_wait",
            Self::Service => "service",
            Self::Response => "response",
            Self::ClientPath => "client_path",
            Self::SendLag => "send_lag",
            Self::RoundTrip => "round_trip",
        }
    }

    /// The stage of a name, `None` if there is none.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_found_by_its_name_and_has_a_place_of_its_own() {
        let mut places = [false; Stage::COUNT];
        for stage in Stage::ALL {
            assert_eq!(Stage::from_name(stage.name()), Some(stage));
            assert!(!places[stage.index()], "{stage} shares its place");
            places[stage.index()] = true;
        }
        assert_eq!(Stage::from_name("lunch"), None);
    }
}
