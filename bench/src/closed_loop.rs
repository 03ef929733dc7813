//! Closed loop: each client keeps a fixed number of tasks outstanding and hands in another when one
//! ends. It finds what the mesh can carry; its response times are those of full queues.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pinmesh_client::{Builder, Client, Completions, Error, PeerKeys, RawOutcome, Task};

use crate::{error::BenchError, payload::Payload, record::Record};

/// How often a client without results looks whether the phase has changed.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the tasks that are outstanding at the end may take.
const LAST_RESULTS_TIME: Duration = Duration::from_secs(30);
/// The window of a client as it is built by default.
const CLIENT_WINDOW_DEFAULT: u32 = 10_000;
/// The largest window that a client may be built with.
const CLIENT_WINDOW_MAX: u32 = 1_000_000;

/// The load of one client.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Where the client connects.
    pub(crate) broker: String,
    /// What it connects with, if the broker has keys.
    pub(crate) keys: Option<PeerKeys>,
    /// What its tasks ask for.
    pub(crate) service: String,
    /// What the tasks carry.
    pub(crate) payload: Payload,
    /// Tasks outstanding.
    pub(crate) window: u32,
}

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const STOPPING: u8 = 2;

/// What a client and the one who measures share. On a line of its own, because the client writes it
/// all the time.
#[derive(Debug)]
#[repr(align(128))]
struct Shared {
    phase: AtomicU8,
    succeeded: AtomicU64,
}

/// Tells a client to stop when it is dropped: on an error nobody calls [`ClosedLoop::finish`].
#[derive(Debug)]
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.phase.store(STOPPING, Ordering::Relaxed);
    }
}

/// A client that runs.
#[derive(Debug)]
pub(crate) struct ClosedLoop {
    shared: StopOnDrop,
    thread: JoinHandle<Result<Record, BenchError>>,
}

impl ClosedLoop {
    /// Connects a client and starts its loop. Nothing is recorded before
    /// [`ClosedLoop::measure`].
    pub(crate) fn start(load: Load, number: u32) -> Result<Self, BenchError> {
        let builder = load.keys.iter().cloned().fold(Client::builder(), Builder::keys);
        let client = builder
            .broker(load.broker.clone())
            .name(format!("pinmesh-bench-{number}"))
            // Room is given back one turn of the client's thread after the result: twice the window
            // keeps the loop from running into its own limit.
            .window(load.window.saturating_mul(2).clamp(CLIENT_WINDOW_DEFAULT, CLIENT_WINDOW_MAX))
            .connect()
            .map_err(|source| BenchError::Connect { broker: load.broker.clone(), source })?;
        let phase = AtomicU8::new(WARMING);
        let shared = Arc::new(Shared { phase, succeeded: AtomicU64::new(0) });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("client-{number}"))
            .spawn(move || Loop::new(&client, &load, &theirs).run())
            .map_err(|source| BenchError::System { action: "start a client's thread", source })?;
        Ok(Self { shared: StopOnDrop(shared), thread })
    }

    /// Tasks that have ended well so far.
    pub(crate) fn succeeded(&self) -> u64 {
        self.shared.0.succeeded.load(Ordering::Relaxed)
    }

    /// Whether the loop has ended by itself, because of an error.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Records the times of tasks that end from now on.
    pub(crate) fn measure(&self) {
        self.shared.0.phase.store(MEASURING, Ordering::Relaxed);
    }

    /// Records no more, and hands in nothing more.
    pub(crate) fn stop(&self) {
        self.shared.0.phase.store(STOPPING, Ordering::Relaxed);
    }

    /// Waits for the last results, 30 s at most, and gives what was recorded.
    pub(crate) fn finish(self) -> Result<Record, BenchError> {
        self.stop();
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

struct Loop<'c> {
    task: Task<'c>,
    load: &'c Load,
    shared: &'c Shared,
    queue: Completions,
    next_number: u64,
    outstanding: u32,
    record: Record,
}

impl<'c> Loop<'c> {
    fn new(client: &'c Client, load: &'c Load, shared: &'c Shared) -> Self {
        Self {
            task: client.task(&load.service),
            load,
            shared,
            queue: client.completions(),
            next_number: 0,
            outstanding: 0,
            record: Record::new(),
        }
    }

    fn run(mut self) -> Result<Record, BenchError> {
        let mut ends: Vec<(u64, RawOutcome)> = Vec::new();
        let mut give_up: Option<Instant> = None;
        loop {
            let phase = self.shared.phase.load(Ordering::Relaxed);
            if phase == STOPPING {
                let until = *give_up.get_or_insert_with(|| Instant::now() + LAST_RESULTS_TIME);
                if self.outstanding == 0 || Instant::now() >= until {
                    break;
                }
            } else {
                self.fill()?;
            }
            if let Some(end) = self.queue.recv_timeout(LOOK_EVERY) {
                ends.push(end);
                self.queue.drain(&mut ends);
            }
            for (number, outcome) in ends.drain(..) {
                self.take(number, outcome, phase == MEASURING);
            }
            self.shared.succeeded.store(self.record.succeeded, Ordering::Relaxed);
        }
        self.record.lost = u64::from(self.outstanding);
        Ok(self.record)
    }

    /// Hands in as many tasks as the window has room for.
    fn fill(&mut self) -> Result<(), BenchError> {
        while self.outstanding < self.load.window {
            let payload = self.load.payload.of(self.next_number);
            match self.task.submit_raw_to(&self.queue, self.next_number, payload) {
                Ok(_) => {}
                // By bytes, or for the moment: results make room.
                Err(Error::Full { .. }) => return Ok(()),
                Err(source) => return Err(BenchError::Submit { source }),
            }
            self.next_number += 1;
            self.outstanding += 1;
        }
        Ok(())
    }

    fn take(&mut self, number: u64, outcome: RawOutcome, is_measured: bool) {
        self.outstanding -= 1;
        let reply = match outcome {
            Ok(reply) => reply,
            Err(error) => return self.record.failure(&error),
        };
        if !self.load.payload.is_answered_by(&reply.value, number) {
            self.record.wrong += 1;
            return;
        }
        self.record.succeeded += 1;
        self.record.retries += u64::from(reply.tries);
        if is_measured {
            self.record.times(&reply);
        }
    }
}
