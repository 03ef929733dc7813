//! Giving attempts back, and the leases outside which none may run.

use alloc::vec::Vec;

use pinmesh_protocol::command::{Host, HostWorker, ToBroker};
use pinmesh_protocol::id::{AttemptId, Epoch, Slot};
use pinmesh_protocol::limits::LIST_MAX;
use pinmesh_protocol::status::LossKind;

use super::ends::End;
use super::{Effects, Supervision};
use crate::slots::{BrokerIndex, Flip, SlotState};
use crate::time::Time;

impl Supervision {
    /// Takes back those attempts that have not been started, and says which.
    pub(super) fn recall<E: Effects>(
        &mut self,
        broker: BrokerIndex,
        slot: Slot,
        attempts: &[AttemptId],
        fx: &mut E,
    ) {
        if !self.child(slot).is_some_and(|child| child.is_alive()) {
            // LOST says more about these attempts than RECALLED could.
            return;
        }
        let recalled: Vec<_> = attempts
            .iter()
            .copied()
            .filter(|&attempt| take_back(slot, broker, attempt, fx))
            .collect();
        self.say_recalled(broker, slot, recalled, fx);
    }

    pub(super) fn say_recalled<E: Effects>(
        &mut self,
        broker: BrokerIndex,
        slot: Slot,
        attempts: Vec<AttemptId>,
        fx: &mut E,
    ) {
        let Some(link) = self.link(broker) else { return };
        for part in attempts.chunks(LIST_MAX) {
            link.push_end(End::recalled(slot, part.to_vec()), fx);
        }
    }

    pub(super) fn cancel<E: Effects>(
        &mut self,
        now: Time,
        broker: BrokerIndex,
        slot: Slot,
        attempt: AttemptId,
        is_hard: bool,
        fx: &mut E,
    ) {
        let Some(child) = self.child(slot).filter(|child| child.is_alive()) else { return };
        if take_back(slot, broker, attempt, fx) {
            self.say_recalled(broker, slot, alloc::vec![attempt], fx);
        } else if is_hard {
            child.cancel_hard(now, broker, attempt, fx);
        } else {
            fx.cancel(slot, broker, attempt);
        }
    }

    /// Writes a broker's lease on every page.
    pub(super) fn spread_lease<E: Effects>(&mut self, broker: BrokerIndex, fx: &mut E) {
        let Some((epoch, until)) = self.link(broker).and_then(|link| link.lease()) else { return };
        for child in self.children.iter().filter(|child| child.is_alive()) {
            fx.set_lease(child.slot(), broker, epoch, until);
        }
    }

    /// Takes back what waits of a broker whose lease has ended, and kills what runs.
    pub(super) fn end_lease<E: Effects>(&mut self, broker: BrokerIndex, epoch: Epoch, fx: &mut E) {
        for index in 0..self.children.len() {
            let child = &mut self.children[index];
            if !child.is_alive() {
                continue;
            }
            let slot = child.slot();
            fx.set_lease(slot, broker, epoch, Time(0));
            let mut recalled = Vec::new();
            for held in fx.held(slot) {
                if held.broker != broker {
                    continue;
                }
                match held.state {
                    SlotState::Waiting | SlotState::Claimed => {
                        match fx.flip(slot, broker, held.attempt) {
                            Flip::Recalled => recalled.push(held.attempt),
                            Flip::Claimed => child.kill(LossKind::LeaseEnded, fx),
                            Flip::Ended | Flip::AlreadyRecalled | Flip::Absent => {}
                        }
                    }
                    SlotState::Free | SlotState::Ended | SlotState::Recalled => {}
                }
            }
            self.say_recalled(broker, slot, recalled, fx);
        }
    }

    pub(super) fn send_host<E: Effects>(&mut self, broker: BrokerIndex, fx: &mut E) {
        if !self.link(broker).is_some_and(|link| link.is_open()) {
            return;
        }
        let mut workers = Vec::new();
        for child in self.children.iter().filter(|child| child.is_process()) {
            let slot = child.slot();
            let mut claimed: Vec<_> = fx
                .held(slot)
                .into_iter()
                .filter(|held| held.state == SlotState::Claimed && held.broker == broker)
                .map(|held| held.attempt)
                .collect();
            claimed.truncate(LIST_MAX);
            let cpu = self.config.cpus[usize::from(slot.0)];
            workers.push(HostWorker { slot, incarnation: child.incarnation(), cpu, claimed });
        }
        let mut cpus: Vec<u16> = self.config.cpus.iter().flatten().copied().collect();
        cpus.sort_unstable();
        cpus.dedup();
        fx.send(broker, &ToBroker::Host(Host { cpus, workers }));
    }
}

/// Takes an attempt back unless it has been started; `true` if the worker will not run it.
fn take_back<E: Effects>(slot: Slot, broker: BrokerIndex, attempt: AttemptId, fx: &mut E) -> bool {
    match fx.flip(slot, broker, attempt) {
        Flip::Recalled => true,
        Flip::Claimed | Flip::Ended | Flip::AlreadyRecalled => false,
        // The worker publishes first and looks at the table second; we enter first and look at the
        // page second: one of the two sees the other.
        Flip::Absent => {
            fx.refuse(slot, broker, attempt)
                && matches!(
                    fx.flip(slot, broker, attempt),
                    Flip::Absent | Flip::Recalled | Flip::AlreadyRecalled
                )
        }
    }
}
