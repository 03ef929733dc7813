//! Open loop: one thread hands tasks in when they were planned, whatever the mesh does; another
//! takes the results. Neither waits for the other.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pinmesh_client::{Builder, Client, Completions, Error, PeerKeys, Task};
use rustix::{
    thread::set_current_timer_slack,
    time::{ClockId, clock_gettime},
};

use crate::{
    error::BenchError,
    payload::Payload,
    results::{Taken, Taking, Token},
    timeline::Schedule,
};

/// The most that a client may be given: the plan is to decide, not the window.
const CLIENT_WINDOW: u32 = 1_000_000;
/// Before a send the generator sleeps to this long before it and spins the rest: a sleep may end so
/// much too late.
const SPIN: Duration = Duration::from_millis(1);
/// Pause before a send is tried again that found the client's window full.
const FULL_RETRY: Duration = Duration::from_micros(50);
/// How long after the end of the plan sends that are late may still be made.
const LATE_SENDS_TIME: Duration = Duration::from_secs(1);
/// How often the generator says what CPU time it has used.
const REPORT_EVERY: Duration = Duration::from_millis(1);

/// What is to be sent, and where.
#[derive(Clone, Debug)]
pub(crate) struct OpenLoad {
    /// Where each client connects.
    pub(crate) brokers: Vec<String>,
    /// What they connect with, if the brokers have keys.
    pub(crate) keys: Option<PeerKeys>,
    /// What the tasks ask for.
    pub(crate) service: String,
    /// Their payloads.
    pub(crate) payload: Payload,
    /// Clients, which take turns.
    pub(crate) clients: u32,
}

/// What the sending thread says, on a line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Sender {
    pub(crate) sent: AtomicU64,
    window_full: AtomicU64,
    busy_ns: AtomicU64,
    cpu_ns: AtomicU64,
    pub(crate) has_ended: AtomicBool,
    has_failed: AtomicBool,
}

/// What the taking thread says.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Taker {
    pub(crate) ended: AtomicU64,
}

/// What the threads of an open loop share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stop: AtomicBool,
    pub(crate) sender: Sender,
    pub(crate) taker: Taker,
}

/// What has been counted until one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Tasks sent.
    pub(crate) sent: u64,
    /// Tasks ended.
    pub(crate) ended: u64,
    /// Sends that found the window of their client full, and were late.
    pub(crate) window_full: u64,
    /// Time in which the generator made and handed in tasks, ns.
    pub(crate) busy_ns: u64,
    /// CPU time of the generator, its spinning included, ns.
    pub(crate) cpu_ns: u64,
}

impl Counts {
    /// What has been counted since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(earlier.sent),
            ended: self.ended.saturating_sub(earlier.ended),
            window_full: self.window_full.saturating_sub(earlier.window_full),
            busy_ns: self.busy_ns.saturating_sub(earlier.busy_ns),
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
        }
    }
}

/// An open loop under way. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct OpenLoop {
    shared: Arc<Shared>,
    start: Instant,
    /// Here too, because a client whose last clone is dropped lets go of its tasks.
    clients: Vec<Client>,
    sender: Option<JoinHandle<Result<(), BenchError>>>,
    taker: Option<JoinHandle<Taken>>,
}

impl OpenLoop {
    /// Connects the clients and starts to send.
    pub(crate) fn start(load: OpenLoad, schedule: Arc<Schedule>) -> Result<Self, BenchError> {
        let clients = (0..load.clients)
            .map(|number| connect(&load, number))
            .collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(Shared::default());
        let queue = Completions::default();
        let spawn = |source| BenchError::System { action: "start the generator's threads", source };
        let start = Instant::now();

        let taking = Taking::new(
            Arc::clone(&schedule),
            load.payload.clone(),
            Arc::clone(&shared),
            queue.clone(),
        );
        let taker = thread::Builder::new().name("results".to_owned());
        let taker = taker.spawn(move || taking.run()).map_err(spawn)?;
        let mut this =
            Self { shared, start, clients: clients.clone(), sender: None, taker: Some(taker) };

        let shared = Arc::clone(&this.shared);
        let sender = thread::Builder::new().name("generator".to_owned());
        let sending = move || {
            let _end = EndOnDrop(Arc::clone(&shared));
            let tasks = clients.iter().map(|client| client.task(&load.service)).collect();
            let pace = Pace { start, reported: start, shared: &shared };
            let sent =
                Sending { tasks, pace, queue, payload: load.payload, schedule: &schedule }.run();
            shared.sender.has_failed.store(sent.is_err(), Ordering::Relaxed);
            sent
        };
        this.sender = Some(sender.spawn(sending).map_err(spawn)?);
        Ok(this)
    }

    /// The moment that the plan counts from.
    pub(crate) fn started_at(&self) -> Instant {
        self.start
    }

    /// What has been counted so far.
    pub(crate) fn counts(&self) -> Counts {
        let Shared { sender, taker, .. } = &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // In this order: what has ended was sent before.
        let ended = taker.ended.load(Ordering::Acquire);
        Counts {
            sent: read(&sender.sent),
            ended,
            window_full: read(&sender.window_full),
            busy_ns: read(&sender.busy_ns),
            cpu_ns: read(&sender.cpu_ns),
        }
    }

    /// Whether the generator has ended before its plan, because of an error.
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.sender.has_failed.load(Ordering::Relaxed)
    }

    /// Sends no more.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the sends that are late, a second at most, and the last results, 30 s at most.
    pub(crate) fn finish(mut self) -> Result<Taken, BenchError> {
        let sent = self.sender.take().map(JoinHandle::join);
        let taken = self.taker.take().map(JoinHandle::join);
        self.clients.clear();
        match (sent, taken) {
            (Some(Err(panic)), _) | (_, Some(Err(panic))) => std::panic::resume_unwind(panic),
            (Some(Ok(Err(error))), _) => Err(error),
            (Some(Ok(Ok(()))), Some(Ok(taken))) => Ok(taken),
            (None, _) | (_, None) => unreachable!("threads are taken here only, and this is once"),
        }
    }
}

impl Drop for OpenLoop {
    fn drop(&mut self) {
        self.stop();
    }
}

fn connect(load: &OpenLoad, number: u32) -> Result<Client, BenchError> {
    let OpenLoad { brokers, keys, .. } = load;
    let builder = Client::builder().name(format!("pinmesh-bench-{number}")).window(CLIENT_WINDOW);
    let builder = keys.iter().cloned().fold(builder, Builder::keys);
    let builder = brokers.iter().fold(builder, |builder, broker| builder.broker(broker.clone()));
    builder.connect().map_err(|source| BenchError::Connect { broker: brokers.join(", "), source })
}

/// Says that nothing more is sent, by whatever way the generator ends.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.sender.has_ended.store(true, Ordering::Release);
    }
}

/// The clock of the generator.
struct Pace<'s> {
    start: Instant,
    reported: Instant,
    shared: &'s Shared,
}

impl Pace<'_> {
    fn since_start_ns(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_nanos() as u64
    }

    /// Waits until a moment of the plan; returns when it really is.
    fn wait(&mut self, at_ns: u64) -> Instant {
        let at = self.start + Duration::from_nanos(at_ns);
        let mut now = Instant::now();
        while now < at {
            let left = at - now;
            if left > SPIN {
                self.report(now);
                // In pieces, so that a stop is seen.
                thread::sleep((left - SPIN).min(Duration::from_millis(20)));
                if self.shared.stop.load(Ordering::Relaxed) {
                    return Instant::now();
                }
            } else {
                std::hint::spin_loop();
            }
            now = Instant::now();
        }
        now
    }

    /// Says what CPU time was used; a system call, so not all the time.
    fn report(&mut self, now: Instant) {
        if now.saturating_duration_since(self.reported) >= REPORT_EVERY {
            self.reported = now;
            let used = clock_gettime(ClockId::ThreadCPUTime);
            let ns = used.tv_sec.unsigned_abs() * 1_000_000_000 + used.tv_nsec.unsigned_abs();
            self.shared.sender.cpu_ns.store(ns, Ordering::Relaxed);
        }
    }

    fn is_over(&self, now: Instant, schedule: &Schedule) -> bool {
        let last = Duration::from_nanos(schedule.end_ns) + LATE_SENDS_TIME;
        self.shared.stop.load(Ordering::Relaxed) || now.saturating_duration_since(self.start) > last
    }
}

struct Sending<'s> {
    tasks: Vec<Task<'s>>,
    pace: Pace<'s>,
    queue: Completions,
    payload: Payload,
    schedule: &'s Schedule,
}

impl Sending<'_> {
    fn run(mut self) -> Result<(), BenchError> {
        // Sleeps then end less late; where it is refused, they do not.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let mut after = Instant::now();
        for (number, &intended_ns) in self.schedule.sends_ns.iter().enumerate() {
            let payload = self.payload.of(number as u64);
            let ready = Instant::now();
            let now = self.pace.wait(intended_ns);
            if self.pace.is_over(now, self.schedule) {
                break;
            }
            if !self.send(number, intended_ns, now, payload)? {
                break;
            }
            let sender = &self.pace.shared.sender;
            sender.sent.store(number as u64 + 1, Ordering::Relaxed);
            let done = Instant::now();
            let busy = ready.duration_since(after) + done.duration_since(now);
            // One writer: no need for an atomic addition.
            let busy_ns = sender.busy_ns.load(Ordering::Relaxed) + busy.as_nanos() as u64;
            sender.busy_ns.store(busy_ns, Ordering::Relaxed);
            self.pace.report(done);
            after = done;
        }
        Ok(())
    }

    /// Hands a task in. With no room in the window it comes later, is counted, and its lag says by
    /// how much; false: it is too late.
    fn send(
        &mut self,
        number: usize,
        intended_ns: u64,
        mut now: Instant,
        mut payload: Vec<u8>,
    ) -> Result<bool, BenchError> {
        let task = &self.tasks[number % self.tasks.len()];
        let mut is_counted = false;
        loop {
            let lag_ns = self.pace.since_start_ns(now).saturating_sub(intended_ns);
            let token = Token { number: number as u64, lag_ns }.pack();
            match task.try_submit_raw_to(&self.queue, token, payload) {
                Ok(_) => return Ok(true),
                Err(Error::Full { .. }) => {}
                Err(source) => return Err(BenchError::Submit { source }),
            }
            if !is_counted {
                is_counted = true;
                self.pace.shared.sender.window_full.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(FULL_RETRY);
            now = Instant::now();
            if self.pace.is_over(now, self.schedule) {
                return Ok(false);
            }
            payload = self.payload.of(number as u64);
        }
    }
}
