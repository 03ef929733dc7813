//! What a supervisor tells a broker until it is acknowledged.

use alloc::vec::Vec;

use pinmesh_protocol::command::{Attempts, Lost, ToBroker};
use pinmesh_protocol::id::{AttemptId, Incarnation, Slot};
use pinmesh_protocol::limits::LIST_MAX;
use pinmesh_protocol::status::LossKind;

use crate::slots::BrokerIndex;

/// A worker's death, with the attempts of every broker.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) slot: Slot,
    pub(super) incarnation: Incarnation,
    pub(super) cause: LossKind,
    pub(super) detail: i32,
    pub(super) running: Option<(BrokerIndex, AttemptId)>,
    pub(super) started: Vec<(BrokerIndex, AttemptId)>,
}

/// Kept until acknowledged.
#[derive(Debug)]
pub(super) enum End {
    Lost(Lost),
    Recalled(Attempts),
}

impl End {
    /// The part of a loss that concerns one broker. The window of a worker bounds `started`, so
    /// that it fits one LOST.
    pub(super) fn lost(loss: &Loss, broker: BrokerIndex) -> Self {
        let of_broker = |&(of, attempt): &(BrokerIndex, _)| (of == broker).then_some(attempt);
        Self::Lost(Lost {
            slot: loss.slot,
            incarnation: loss.incarnation,
            cause: loss.cause,
            detail: loss.detail,
            running: loss.running.as_ref().and_then(of_broker),
            started: loss.started.iter().filter_map(of_broker).take(LIST_MAX).collect(),
        })
    }

    pub(super) fn recalled(slot: Slot, attempts: Vec<AttemptId>) -> Self {
        Self::Recalled(Attempts { slot, attempts })
    }

    /// Whether it names an attempt; if not, HOST says as much.
    pub(super) fn has_attempts(&self) -> bool {
        match self {
            Self::Lost(lost) => lost.running.is_some() || !lost.started.is_empty(),
            Self::Recalled(recalled) => !recalled.attempts.is_empty(),
        }
    }

    pub(super) fn command(&self) -> ToBroker<'static> {
        match self {
            Self::Lost(lost) => ToBroker::Lost(lost.clone()),
            Self::Recalled(recalled) => ToBroker::Recalled(recalled.clone()),
        }
    }
}
