//! What the end-to-end tests of pinmesh stand on: broker, workers and commands as real processes,
//! load from the client library, raw peers, and a look at what the kernel says of it all.
//!
//! The tests are the files beside this library's `src`, one behaviour a file. They run the binaries
//! of the same build (see [`binary`]), on ports of the system's choice, and wait on what can be
//! observed, never for a time.
#![deny(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod binaries;
pub mod chaos;
mod keys;
mod ledger;
mod load;
mod mesh;
mod network;
mod observe;
#[allow(unsafe_code)]
mod process;
mod raw;
pub mod record;
pub mod scheduling;

use std::time::{Duration, Instant};

pub use binaries::{Turn, binary, turn};
pub use keys::KeyRing;
pub use ledger::Ledger;
pub use load::{Load, LoadReport};
pub use mesh::{Broker, FAST, Mesh, Supervisor, command, free_endpoint, run};
pub use network::Network;
pub use observe::{Seen, allowed_cpus, children, cpu_time, descendants, marked, own_cpus};
pub use process::{Finished, MARK, Process};
pub use raw::{RawPeer, hello, payload_of, ready, submit};

/// Far beyond what anything here takes on a busy machine; a test that needs it all has failed.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How long a process may take to say that it is ready.
pub const READY_LIMIT: Duration = Duration::from_secs(30);

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits until `look` finds something; `None` after `limit`.
pub fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// It does not hold within `limit`; `what` says what was waited for.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let found = wait_for(limit, || holds().then_some(()));
    assert!(found.is_some(), "{what}: not within {limit:?}");
}
