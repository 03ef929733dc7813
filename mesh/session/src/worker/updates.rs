//! What a handler says while it runs. `stream` is kept until the broker has acknowledged it and
//! sent again in the next session, as an end is; of `latest` the newest waits while it is said faster
//! than it may be sent.

use pinmesh_protocol::limits::{STREAM_BYTES_MAX, UPDATE_OVERHEAD_BYTES};

use super::link::Link;
use super::{Kept, WorkerOutbox, WorkerSession};
use crate::Time;

/// A worker sends so many of kind `latest` in a row, and from then on one an interval: a client need
/// not see more, and the broker's loop is everybody's.
const LATEST_BURST: u64 = 8;
/// See [`LATEST_BURST`], nanoseconds.
const LATEST_INTERVAL_NS: u64 = 10_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Updates<E> {
    /// Of kind `stream`, unacknowledged: how many, and their bytes.
    pub(super) count: usize,
    pub(super) bytes: u64,
    /// The newest of kind `latest`, and the length of its payload, while it may not be sent yet.
    waiting: Option<(u64, E)>,
    /// When the interval of the latest one ends (GCRA, ITU-T I.371).
    interval_end: Time,
}

impl<E> Updates<E> {
    pub(super) const fn new() -> Self {
        Self { count: 0, bytes: 0, waiting: None, interval_end: Time(0) }
    }

    /// One of kind `stream` is acknowledged, or given up.
    pub(super) const fn remove(&mut self, bytes: u64) {
        self.count -= 1;
        self.bytes -= bytes;
    }

    /// Whether one of kind `latest` may be sent now; counts it.
    fn may_send(&mut self, now: Time) -> bool {
        if self.interval_end > now.after((LATEST_BURST - 1) * LATEST_INTERVAL_NS) {
            return false;
        }
        self.interval_end = self.interval_end.max(now).after(LATEST_INTERVAL_NS);
        true
    }
}

impl<E> WorkerSession<E> {
    /// Whether an update of kind `stream` with so long a payload may be emitted now. If not, the
    /// handler waits until the broker has acknowledged some.
    pub fn admits_update(&self, payload_bytes: u64) -> bool {
        let bytes_max = STREAM_BYTES_MAX.min(self.config.window_bytes);
        let bytes = self.updates.bytes.saturating_add(payload_bytes + UPDATE_OVERHEAD_BYTES);
        self.updates.count == 0 || bytes <= bytes_max
    }

    /// An update of kind `stream`, encoded; the caller has asked [`Self::admits_update`].
    pub fn emit(
        &mut self,
        now: Time,
        mut update: E,
        payload_bytes: u64,
        out: &mut impl WorkerOutbox<E>,
    ) {
        // A number later than this one's would be out of order.
        self.send_latest(now, out);
        if matches!(self.link, Link::Open(_)) {
            self.announce(now, payload_bytes, out);
            out.send_end(&mut update);
        }
        let bytes = payload_bytes + UPDATE_OVERHEAD_BYTES;
        self.updates.count += 1;
        self.updates.bytes += bytes;
        self.acks.push(Kept::Update { bytes, update });
    }

    /// An update of kind `latest`, encoded: it is sent, or waits in the place of the one before.
    pub fn latest(
        &mut self,
        now: Time,
        update: E,
        payload_bytes: u64,
        out: &mut impl WorkerOutbox<E>,
    ) {
        self.updates.waiting = Some((payload_bytes, update));
        if matches!(self.link, Link::Open(_)) && self.updates.may_send(now) {
            self.send_latest(now, out);
        }
    }

    /// What waits of kind `latest` goes out, or is dropped where there is no session.
    pub(super) fn send_latest(&mut self, now: Time, out: &mut impl WorkerOutbox<E>) {
        if let Some((bytes, mut update)) = self.updates.waiting.take()
            && matches!(self.link, Link::Open(_))
        {
            self.announce(now, bytes, out);
            out.send_end(&mut update);
        }
    }
}
