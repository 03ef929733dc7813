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

use pinmesh_client::{Client, Completions, Error, RawOutcome, Task};

use crate::{error::BenchError, record::Record};

/// How often a client without results looks whether the phase has changed.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the tasks that are outstanding at the end may take.
const LAST_RESULTS_TIME: Duration = Duration::from_secs(30);
/// The window of a client as it is built by default.
const CLIENT_WINDOW_DEFAULT: u32 = 10_000;
/// The largest window that a client may be built with.
const CLIENT_WINDOW_MAX: u32 = 1_000_000;
/// Bytes of a payload that hold the task's number.
const NUMBER_BYTES: usize = 8;

/// The load of one client.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Where the client connects.
    pub(crate) broker: String,
    /// What its tasks ask for.
    pub(crate) service: String,
    /// Bytes of a payload.
    pub(crate) payload_bytes: usize,
    /// Tasks outstanding.
    pub(crate) window: u32,
    /// Whether the output must equal the input.
    pub(crate) is_echo: bool,
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
        let client = Client::builder()
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
    /// What each payload starts from: the number is written over its beginning.
    template: Vec<u8>,
    next_number: u64,
    outstanding: u32,
    record: Record,
}

impl<'c> Loop<'c> {
    fn new(client: &'c Client, load: &'c Load, shared: &'c Shared) -> Self {
        // Not all zeros, so that an output of zeros is not taken for an echo.
        let template = (0..load.payload_bytes).map(|at| (at % 251) as u8).collect();
        Self {
            task: client.task(&load.service),
            load,
            shared,
            queue: client.completions(),
            template,
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
            let mut payload = self.template.clone();
            let number = self.next_number.to_le_bytes();
            let length = payload.len().min(NUMBER_BYTES);
            payload[..length].copy_from_slice(&number[..length]);
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
        if self.load.is_echo && !is_echo(&reply.value, number, self.load.payload_bytes) {
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

/// Whether an output has the length and the number of its input.
fn is_echo(output: &[u8], number: u64, payload_bytes: usize) -> bool {
    let length = payload_bytes.min(NUMBER_BYTES);
    output.len() == payload_bytes && output[..length] == number.to_le_bytes()[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_has_the_length_and_the_number_of_its_input() {
        let mut output = vec![9; 64];
        output[..8].copy_from_slice(&7_u64.to_le_bytes());
        assert!(is_echo(&output, 7, 64));
        assert!(!is_echo(&output, 8, 64));
        assert!(!is_echo(&output, 7, 63));
        assert!(!is_echo(&[], 7, 64));
        assert!(is_echo(&[], 7, 0));
        assert!(is_echo(&[1, 2, 0], 0x201, 3));
    }
}
