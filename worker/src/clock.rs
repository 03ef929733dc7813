//! The clock of the worker and its supervisor.

use pinmesh_session::Time;
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC, the same for every process of a host, so that times on the status page can be
/// compared.
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::Monotonic);
    Time(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}
