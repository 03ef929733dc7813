//! Continuous load from the client library, each end counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pinmesh_client::{Client, RawOutcome, Task};

use crate::{LIMIT, eventually};

/// Long enough to travel as a frame of its own.
const LONG_BYTES: usize = 40 * 1024;
/// Failures that are kept word by word.
const FAILURES_MAX: usize = 20;

/// What has become of the tasks of a load that is over.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Tasks that were handed in.
    pub submitted: u64,
    /// Tasks that ended OK with the right output.
    pub ok: u64,
    /// Tasks that ended otherwise.
    pub failed: u64,
    /// Tasks whose output was not what their input asks for.
    pub wrong: u64,
    /// Ends beyond the first of a task.
    pub surplus: u64,
    /// Tasks that ended OK after a start that ended badly.
    pub retried: u64,
    /// How the first ones failed.
    pub failures: Vec<String>,
}

impl LoadReport {
    /// Every task ended once, and well.
    ///
    /// # Panics
    /// One did not.
    #[track_caller]
    pub fn assert_all_ok(&self) {
        assert!(self.submitted > 0, "the load was none");
        let Self { submitted, ok, failed, wrong, surplus, .. } = self;
        assert_eq!((ok, failed, wrong, surplus), (submitted, &0, &0, &0), "{self:?}");
    }
}

/// Tasks that keep coming until [`Load::finish`]: mostly echoes of a few bytes, among them some that
/// spin, sleep, or are too long for a batch.
#[derive(Debug)]
pub struct Load {
    client: Client,
    shared: Arc<Shared>,
    thread: JoinHandle<LoadReport>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    submitted: AtomicU64,
    ended: AtomicU64,
    /// Every task with a lower number has ended.
    settled: AtomicU64,
}

impl Load {
    /// Starts a load that keeps `window` tasks under way.
    pub fn start(client: Client, window: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let (own_client, own_shared) = (client.clone(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || work(&own_client, window, &own_shared));
        Self { client, shared, thread }
    }

    /// Waits until so many more tasks have ended.
    ///
    /// # Panics
    /// They have not within [`LIMIT`].
    #[track_caller]
    pub fn progress(&self, tasks: u64) {
        let target = self.shared.ended.load(Ordering::Relaxed) + tasks;
        self.wait_until(&self.shared.ended, target);
    }

    /// Waits until every task that was handed in before has ended.
    ///
    /// # Panics
    /// They have not within [`LIMIT`].
    #[track_caller]
    pub fn settle(&self) {
        let target = self.shared.submitted.load(Ordering::Relaxed);
        self.wait_until(&self.shared.settled, target);
    }

    #[track_caller]
    fn wait_until(&self, count: &AtomicU64, target: u64) {
        eventually("tasks of the load end", LIMIT, || {
            count.load(Ordering::Relaxed) >= target || self.thread.is_finished()
        });
        assert!(!self.thread.is_finished(), "the load ended by itself");
    }

    /// Hands no more tasks in and waits until all have ended.
    ///
    /// # Panics
    /// They have not within [`LIMIT`].
    #[track_caller]
    pub fn finish(self) -> LoadReport {
        self.shared.stop.store(true, Ordering::Relaxed);
        if crate::wait_for(LIMIT, || self.thread.is_finished().then_some(())).is_none() {
            let (left, counters) = (self.client.unresolved(), self.client.counters());
            panic!("{left} tasks have not ended within {LIMIT:?}; {counters:?}");
        }
        let report = self.thread.join().expect("the load does not panic");
        let closed = self.client.close(Duration::from_secs(10));
        assert!(closed.is_ok(), "{closed:?}");
        report
    }
}

/// What the task with this number is: its service, as a place in [`SERVICES`], and its input.
fn input(number: u64) -> (usize, Vec<u8>) {
    if number % 512 == 511 {
        return (0, number.to_le_bytes().repeat(LONG_BYTES / 8));
    }
    match number % 16 {
        3 => (1, b"1ms".to_vec()),
        11 => (2, b"2ms".to_vec()),
        _ => {
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.resize(8 + (number * 37 % 300) as usize, number as u8);
            (0, bytes)
        }
    }
}

const SERVICES: [&str; 3] = ["echo", "spin", "sleep"];

fn work(client: &Client, window: u64, shared: &Shared) -> LoadReport {
    let tasks: Vec<Task<'_>> = SERVICES.iter().map(|service| client.task(service)).collect();
    let queue = client.completions();
    let mut report = LoadReport::default();
    // Ends of each task.
    let mut ends: Vec<u8> = Vec::new();
    let (mut under_way, mut settled) = (0, 0);
    loop {
        let is_stopping = shared.stop.load(Ordering::Relaxed);
        while !is_stopping && under_way < window {
            let number = report.submitted;
            let (service, bytes) = input(number);
            tasks[service].submit_raw_to(&queue, number, bytes).expect("the client is open");
            ends.push(0);
            report.submitted += 1;
            under_way += 1;
        }
        shared.submitted.store(report.submitted, Ordering::Relaxed);
        if under_way == 0 && is_stopping {
            // One more would be a second end of some task.
            if let Some((number, _)) = queue.recv_timeout(Duration::ZERO) {
                report.surplus += 1;
                report.failures.push(format!("task {number} ended again"));
            }
            return report;
        }
        let Some((number, outcome)) = queue.recv_timeout(Duration::from_millis(50)) else {
            continue;
        };
        under_way -= 1;
        let count = &mut ends[number as usize];
        *count = count.saturating_add(1);
        if *count > 1 {
            report.surplus += 1;
        } else {
            note(&mut report, number, outcome);
        }
        settled += ends[settled..].iter().take_while(|count| **count > 0).count();
        shared.settled.store(settled as u64, Ordering::Relaxed);
        shared.ended.fetch_add(1, Ordering::Relaxed);
    }
}

fn note(report: &mut LoadReport, number: u64, outcome: RawOutcome) {
    let (service, sent) = input(number);
    let failure = match outcome {
        Ok(reply) if service != 0 || *reply.value == *sent => {
            report.ok += 1;
            report.retried += u64::from(reply.tries > 0);
            return;
        }
        Ok(reply) => {
            report.wrong += 1;
            format!("{} bytes came back for {}", reply.value.len(), sent.len())
        }
        Err(error) => {
            report.failed += 1;
            error.to_string()
        }
    };
    if report.failures.len() < FAILURES_MAX {
        report.failures.push(format!("task {number} ({}): {failure}", SERVICES[service]));
    }
}
