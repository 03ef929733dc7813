//! The naive reference broker is called here, before and after each event of a machine.

use pinmesh_core::{CoreConfig, Counts, Event, Ledger, Time};

use crate::record::{Body, Effect};

/// See the module.
#[derive(Debug)]
pub struct Oracle {
    now: Time,
}

impl Oracle {
    /// For a broker at the start of its life.
    pub fn new(_: &CoreConfig) -> Self {
        Self { now: Time(0) }
    }

    /// An event, before the machine takes it.
    pub fn before(&mut self, now: Time, _: &Event<'_, Body>) {
        self.now = self.now.max(now);
    }

    /// What the machine made of it.
    ///
    /// # Errors
    /// What a broker may not do.
    pub fn after(&mut self, _: &[Effect], _: &Ledger, _: Counts) -> Result<(), String> {
        Ok(())
    }
}
