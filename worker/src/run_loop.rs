//! The hot loop of a worker, one thread: receive a batch, run handlers, send a batch.
//!
//! Nothing is decided here: what may be taken, started, kept and sent again is the session
//! machine's to say. A pass goes on to the next task for at most [`FLUSH_AFTER_NS`], so that short
//! tasks are answered in batches and long ones at once, and the socket is read in between.

mod intake;
mod link;
mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pinmesh_histogram::IntervalRecorder;
use pinmesh_session::Time;
use pinmesh_session::worker::{Event, Start, WorkerConfig, WorkerSession};
use pinmesh_transport::{
    Context as Sockets, Endpoint, Message, Pollable, Poller, SocketOptions, TransportError,
};

use crate::clock;
use crate::handler::{Output, Service};
use crate::page::{StatusPage, WorkerCounts};
use link::{End, LinkIo, Ticket};

/// Results older than this are sent before the next handler starts.
const FLUSH_AFTER_NS: u64 = 50_000;
/// Messages read from one broker before the others and the tasks have their turn.
const MESSAGES_MAX: usize = 64;
/// The longest sleep: the turn counter moves at least so often.
const SLEEP_MAX_NS: u64 = 1_000_000_000;
/// When to try a full socket again.
const BLOCKED_NS: u64 = 1_000_000;
/// How long a worker that is told to leave waits for its last ends to be acknowledged.
const LEAVE_MAX_NS: u64 = 5_000_000_000;

/// What a run loop is started with.
pub(crate) struct RunLoopConfig {
    /// Its brokers, and how to connect to each.
    pub(crate) endpoints: Vec<(Endpoint, SocketOptions)>,
    /// What it says to each; the windows are for all of them together.
    pub(crate) session: WorkerConfig,
    /// What it runs.
    pub(crate) services: Vec<Service>,
    /// The page that it shares with its supervisor.
    pub(crate) page: Option<StatusPage>,
    /// How long to stay awake when there is nothing to do.
    pub(crate) spin: Duration,
    /// Where to record waits and service times.
    pub(crate) recorder: Option<IntervalRecorder>,
    /// Raised to make it leave; whoever raises it wakes `poller`.
    pub(crate) stop: Arc<AtomicBool>,
    /// Has nothing registered but what wakes it up.
    pub(crate) poller: Poller,
}

struct Link {
    session: WorkerSession<End>,
    io: LinkIo,
}

/// The loop.
pub(crate) struct RunLoop {
    links: Vec<Link>,
    services: Vec<Service>,
    page: Option<Arc<StatusPage>>,
    spin: Duration,
    recorder: Option<IntervalRecorder>,
    stop: Arc<AtomicBool>,
    poller: Poller,
    message: Message,
    frame_lens: Vec<usize>,
    fresh: Vec<u32>,
    output: Output,
    counts: WorkerCounts,
    leave_by: Option<Time>,
    /// The link whose turn it is.
    turn: usize,
}

impl RunLoop {
    /// Makes the links; sockets are opened by the first pass.
    pub(crate) fn new(config: RunLoopConfig) -> Result<Self, TransportError> {
        let sockets = Sockets::new(&pinmesh_transport::ContextOptions::default())?;
        let page = config.page.map(Arc::new);
        let brokers = config.endpoints.len().max(1);
        let links = config.endpoints.into_iter().enumerate().map(|(index, (endpoint, options))| {
            let session = WorkerConfig {
                window_tasks: (config.session.window_tasks / brokers as u32).max(1),
                window_bytes: config.session.window_bytes / brokers as u64,
                seed: config.session.seed.wrapping_add(index as u64),
                ..config.session.clone()
            };
            Link {
                session: WorkerSession::new(session),
                io: LinkIo::new(
                    sockets.clone(),
                    (endpoint, options),
                    (index, brokers),
                    page.clone(),
                ),
            }
        });
        Ok(Self {
            links: links.collect(),
            services: config.services,
            page,
            spin: config.spin,
            recorder: config.recorder,
            stop: config.stop,
            poller: config.poller,
            message: Message::default(),
            frame_lens: Vec::new(),
            fresh: Vec::new(),
            output: Output::default(),
            counts: WorkerCounts::default(),
            leave_by: None,
            turn: 0,
        })
    }

    /// Runs until it is stopped or every broker has let it go.
    pub(crate) fn run(mut self) -> Result<(), TransportError> {
        loop {
            let pass_start = clock::now();
            self.show();
            let is_empty = self.receive()?;
            self.tick(pass_start, is_empty)?;
            let has_left = self.has_left();
            let more = self.work(pass_start);
            for link in &mut self.links {
                link.io.settle(&mut self.poller)?;
                link.io.flush();
            }
            self.record_interval();
            if has_left {
                break;
            }
            if is_empty && !more {
                self.show();
                self.sleep()?;
            }
        }
        for link in &mut self.links {
            link.io.flush();
        }
        if let Some(recorder) = self.recorder.take() {
            let (_, error) = recorder.finish(Instant::now());
            error.inspect(|error| tracing::warn!(%error, "latency log"));
        }
        Ok(())
    }

    /// Tells the supervisor how far this worker is.
    fn show(&mut self) {
        let unended = self.links.iter().map(|link| link.session.unended()).sum();
        let open = self.links.iter().filter(|link| link.session.is_open()).count();
        let Some(page) = &self.page else { return };
        page.turn(unended);
        self.counts.sessions = open as u64;
        page.set_counts(self.counts);
    }

    /// Time, leases, and whether to leave.
    fn tick(&mut self, now: Time, is_empty: bool) -> Result<(), TransportError> {
        if self.leave_by.is_none() && self.stop.load(Ordering::Relaxed) {
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

    fn has_left(&self) -> bool {
        if self.leave_by.is_some_and(|by| clock::now() >= by) {
            return true;
        }
        self.links.iter().all(|link| {
            let has_nothing = link.session.unended() == 0 && link.session.unacknowledged() == 0;
            let is_leaving = self.leave_by.is_some();
            link.session.has_left() || (is_leaving && has_nothing && !link.session.is_open())
        })
    }

    /// Runs tasks until the pass is over. Whether there is one that could start at once.
    fn work(&mut self, pass_start: Time) -> bool {
        let mut now = clock::now();
        loop {
            let Some((index, ticket)) = self.next(now) else { return false };
            if self.links.iter().any(|link| link.io.has_waited(now, FLUSH_AFTER_NS)) {
                self.links.iter_mut().for_each(|link| link.io.flush());
                // Sending is not the task's run time.
                now = clock::now();
            }
            now = self.run_one(index, ticket, now);
            if now.since(pass_start) >= FLUSH_AFTER_NS {
                return true;
            }
        }
    }

    /// The next task that may start, of the brokers in turn.
    fn next(&mut self, now: Time) -> Option<(usize, Ticket)> {
        for _ in 0..self.links.len() {
            let index = self.turn;
            self.turn = (self.turn + 1) % self.links.len();
            let link = &mut self.links[index];
            while let Some(ticket) = link.io.next_ticket() {
                if link.io.is_blocked() {
                    break;
                }
                if let Some(page) = &self.page {
                    // Read again for each task: the one before may have outlasted the lease.
                    let lease = page.lease(link.io.broker);
                    link.session.handle(now, Event::Lease(lease), &mut link.io);
                }
                match link.session.start(now, ticket.index, &mut link.io) {
                    Start::Run => {
                        link.io.queue.pop_front();
                        return Some((index, ticket));
                    }
                    Start::NotYet => break,
                    Start::GivenBack => {}
                }
            }
        }
        None
    }

    fn record_interval(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        let now = Instant::now();
        if recorder.is_due(now)
            && let Some(error) = recorder.rotate(now)
        {
            tracing::warn!(%error, "latency log");
        }
    }

    /// Waits for input, the next wake-up or a stop.
    fn sleep(&mut self) -> Result<(), TransportError> {
        let now = clock::now();
        let mut wait_ns = SLEEP_MAX_NS;
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

#[cfg(test)]
mod tests;
