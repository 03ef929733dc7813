//! The hot loop of a worker, one thread: receive a batch, run handlers, send a batch.
//!
//! Nothing is decided here: what may be taken, started, kept and sent again is the session
//! machine's to say. A pass goes on to the next task for at most [`FLUSH_AFTER_NS`], so that short
//! tasks are answered in batches and long ones at once, and the socket is read in between.

mod intake;
mod link;
mod speaker;
mod task;
mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use pinmesh_histogram::IntervalRecorder;
use pinmesh_session::Time;
use pinmesh_session::worker::{Event, Start, WorkerConfig, WorkerSession};
use pinmesh_transport::{
    Context as Sockets, Endpoint, Message, Poller, SocketOptions, TransportError,
};

use crate::clock;
use crate::handler::{Output, Service};
use crate::page::{StatusPage, WorkerCounts};
use link::{End, LinkIo, Ticket};
use wire::Wire;

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
    wire: Wire,
    services: Vec<Service>,
    page: Option<Arc<StatusPage>>,
    recorder: Option<IntervalRecorder>,
    output: Output,
    counts: WorkerCounts,
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
            wire: Wire {
                links: links.collect(),
                page: page.clone(),
                spin: config.spin,
                stop: config.stop,
                poller: config.poller,
                message: Message::default(),
                frame_lens: Vec::new(),
                fresh: Vec::new(),
                leave_by: None,
                is_in_handler: false,
                failure: None,
            },
            services: config.services,
            page,
            recorder: config.recorder,
            output: Output::default(),
            counts: WorkerCounts::default(),
            turn: 0,
        })
    }

    /// Runs until it is stopped or every broker has let it go.
    pub(crate) fn run(mut self) -> Result<(), TransportError> {
        loop {
            let pass_start = clock::now();
            self.show();
            let is_empty = self.wire.receive()?;
            self.wire.tick(pass_start, is_empty)?;
            let has_left = self.has_left();
            let more = self.work(pass_start);
            self.wire.failure.take().map_or(Ok(()), Err)?;
            self.wire.flush()?;
            self.record_interval();
            if has_left {
                break;
            }
            if is_empty && !more {
                self.show();
                self.wire.sleep(SLEEP_MAX_NS)?;
            }
        }
        for link in &mut self.wire.links {
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
        let unended = self.wire.links.iter().map(|link| link.session.unended()).sum();
        let open = self.wire.links.iter().filter(|link| link.session.is_open()).count();
        let Some(page) = &self.page else { return };
        page.turn(unended);
        self.counts.sessions = open as u64;
        page.set_counts(self.counts);
    }

    fn has_left(&self) -> bool {
        if self.wire.leave_by.is_some_and(|by| clock::now() >= by) {
            return true;
        }
        self.wire.links.iter().all(|link| {
            let has_nothing = link.session.unended() == 0 && link.session.unacknowledged() == 0;
            let is_leaving = self.wire.leave_by.is_some();
            link.session.has_left() || (is_leaving && has_nothing && !link.session.is_open())
        })
    }

    /// Runs tasks until the pass is over. Whether there is one that could start at once.
    fn work(&mut self, pass_start: Time) -> bool {
        let mut now = clock::now();
        loop {
            let Some((index, ticket)) = self.next(now) else { return false };
            if self.wire.links.iter().any(|link| link.io.has_waited(now, FLUSH_AFTER_NS)) {
                self.wire.links.iter_mut().for_each(|link| link.io.flush());
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
        for _ in 0..self.wire.links.len() {
            let index = self.turn;
            self.turn = (self.turn + 1) % self.wire.links.len();
            let link = &mut self.wire.links[index];
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
}

#[cfg(test)]
mod tests;
