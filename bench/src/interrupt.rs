//! SIGINT and SIGTERM: the first ends the run in order, a second one the process at once (and what
//! it has started dies with it).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::error::BenchError;

/// Whether a signal has come. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals over.
    pub(crate) fn install() -> Result<Self, BenchError> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the handler that ends the process must not see the first signal's flag.
            let registered =
                flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupt.0))
                    .and_then(|_| flag::register(signal, Arc::clone(&interrupt.0)));
            registered.map_err(|source: io::Error| BenchError::System {
                action: "handle SIGINT and SIGTERM",
                source,
            })?;
        }
        Ok(interrupt)
    }

    /// Whether a signal has come.
    pub(crate) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
