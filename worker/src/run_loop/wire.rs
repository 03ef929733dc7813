//! What the loop has towards its brokers: their links, and what a pass does to them. Apart from the
//! services, so that a handler that has to wait with what it says can let time pass meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pinmesh_session::Time;
use pinmesh_session::worker::Event;
use pinmesh_transport::{Message, Pollable, Poller, TransportError};

use super::{BLOCKED_NS, LEAVE_MAX_NS, Link, SLEEP_MAX_NS};
use crate::clock;
use crate::page::StatusPage;

/// See the module.
pub(super) struct Wire {
    pub(super) links: Vec<Link>,
    pub(super) page: Option<Arc<StatusPage>>,
    pub(super) spin: Duration,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) poller: Poller,
    pub(super) message: Message,
    pub(super) frame_lens: Vec<usize>,
    pub(super) fresh: Vec<u32>,
    pub(super) leave_by: Option<Time>,
    /// Time passes inside a handler.
    pub(super) is_in_handler: bool,
    /// What went wrong while a handler ran.
    pub(super) failure: Option<TransportError>,
}

impl Wire {
    /// Time, leases, and whether to leave.
    pub(super) fn tick(&mut self, now: Time, is_empty: bool) -> Result<(), TransportError> {
        // A supervised worker leaves behind its handler: the wait for ACKs begins then.
        let may_leave = !self.is_in_handler || self.page.is_none();
        if may_leave && self.leave_by.is_none() && self.stop.load(Ordering::Relaxed) {
            self.leave_by = Some(now.after(LEAVE_MAX_NS));
            for link in &mut self.links {
                link.session.handle(now, Event::Drain { give_back: true }, &mut link.io);
            }
        }
        for link in &mut self.links {
            if let Some(page) = &self.page {
                let lease = page.lease(link.io.broker);
                link.session.handle(now, Event::Lease(lease), &mut link.io);
            }
            let is_due = link.session.next_wakeup().is_some_and(|(at, _)| now >= at);
            // Liveness is judged only of a socket that was read empty.
            if is_due && is_empty {
                link.session.handle(now, Event::Tick, &mut link.io);
            }
            link.io.settle(&mut self.poller)?;
        }
        Ok(())
    }

    /// Sends what has been written.
    pub(super) fn flush(&mut self) -> Result<(), TransportError> {
        for link in &mut self.links {
            link.io.settle(&mut self.poller)?;
            link.io.flush();
        }
        Ok(())
    }

    /// Waits until the sockets have something, the next wake-up or a stop, for so long at most.
    pub(super) fn sleep(&mut self, most_ns: u64) -> Result<(), TransportError> {
        let now = clock::now();
        let mut wait_ns = SLEEP_MAX_NS.min(most_ns);
        for link in &self.links {
            if let Some((at, _)) = link.session.next_wakeup() {
                wait_ns = wait_ns.min(at.since(now));
            }
            if let Some((ns, _)) = link.session.retry_start_ns() {
                wait_ns = wait_ns.min(ns);
            }
            if link.io.has_unsent() {
                wait_ns = wait_ns.min(BLOCKED_NS);
            }
        }
        if let Some(by) = self.leave_by {
            wait_ns = wait_ns.min(by.since(now));
        }
        let mut sockets: Vec<&mut dyn Pollable> = Vec::with_capacity(self.links.len());
        for link in &mut self.links {
            if let Some(dealer) = &mut link.io.dealer {
                sockets.push(dealer);
            }
        }
        let timeout = Some(Duration::from_nanos(wait_ns));
        let _ = self.poller.wait(&mut sockets, timeout, self.spin)?;
        Ok(())
    }
}
