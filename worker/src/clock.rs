//! The clock of the worker and its supervisor.

use pinmesh_session::Time;
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME: the same for every process of a host, so that times on the status page can be
/// compared, and it goes on while the host is suspended, as the broker that waits for the end of the
/// host's lease does.
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    Time(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells the two clocks apart on a host that has been suspended, or in a time namespace.
    #[test]
    fn time_goes_on_while_the_host_is_suspended() {
        let since_boot = || std::time::Duration::try_from(clock_gettime(ClockId::Boottime));
        let before = since_boot().unwrap().as_nanos();
        let now = u128::from(now().0);
        assert!((before..=since_boot().unwrap().as_nanos()).contains(&now));
    }
}
