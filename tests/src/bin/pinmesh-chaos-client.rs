//! A client that writes down each submission before it makes it, and each outcome as it comes. Ends
//! after SIGTERM, once every task has an outcome.
#![allow(clippy::unwrap_used, reason = "a record with a gap proves nothing")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use pinmesh_client::{Client, Completions, RawOutcome, Task};
use pinmesh_tests::record::{Action, Event, Order, Recorder, TaskKey};

/// How long it looks for a second outcome of some task once all have one.
const SURPLUS_WAIT: Duration = Duration::from_millis(200);
const CLOSE_LIMIT: Duration = Duration::from_secs(20);
const MS: u64 = 1_000_000;

/// Keeps tasks under way and writes down what becomes of them.
#[derive(Parser)]
struct Flags {
    /// Broker to submit to
    #[arg(long)]
    broker: String,
    /// Folder of the records
    #[arg(long)]
    folder: PathBuf,
    /// Which client of the run this is
    #[arg(long)]
    number: u32,
    /// Tasks to keep under way
    #[arg(long)]
    window: usize,
    /// Long ones beside them, for the service `long`
    #[arg(long, default_value_t = 0)]
    long_window: usize,
    /// How long these run, milliseconds
    #[arg(long, default_value_t = 0)]
    long_ms: u64,
    /// The longest that the others sleep, milliseconds
    #[arg(long, default_value_t = 20)]
    sleep_ms: u64,
    /// Bytes of each payload [default: mostly a few]
    #[arg(long)]
    bytes: Option<usize>,
}

struct Run<'c> {
    flags: &'c Flags,
    recorder: Recorder,
    work: Task<'c>,
    long: Task<'c>,
    queue: Completions,
    next: u64,
    /// Tasks without an outcome: what must come back, and whether they are long.
    open: HashMap<u64, (Vec<u8>, bool)>,
    long_open: usize,
}

impl Run<'_> {
    fn order(&self, is_long: bool) -> (Order, usize) {
        let number = self.next;
        let key = TaskKey { client: self.flags.number, number };
        if is_long {
            let ns = self.flags.long_ms * MS;
            return (Order { key, action: Action::Sleep, ns }, 0);
        }
        let (action, ns) = match number % 16 {
            3 => (Action::Spin, MS),
            _ => (Action::Sleep, (1 + number * 7 % self.flags.sleep_ms) * MS),
        };
        let length = match number % 512 {
            // A frame of its own.
            511 => 40 * 1024,
            _ => (number * 37 % 300) as usize,
        };
        (Order { key, action, ns }, self.flags.bytes.unwrap_or(length))
    }

    fn submit(&mut self, is_long: bool) {
        let (order, length) = self.order(is_long);
        let (number, payload) = (self.next, order.payload(length));
        self.recorder.note(Event::Submit { number, is_long });
        let task = if is_long { &self.long } else { &self.work };
        task.submit_raw_to(&self.queue, number, payload.clone()).expect("the client is open");
        self.open.insert(number, (payload, is_long));
        self.long_open += usize::from(is_long);
        self.next += 1;
    }

    fn fill(&mut self) {
        while self.long_open < self.flags.long_window {
            self.submit(true);
        }
        while self.open.len() - self.long_open < self.flags.window {
            self.submit(false);
        }
    }

    fn take(&mut self, number: u64, outcome: RawOutcome) {
        let sent = self.open.remove(&number);
        if sent.as_ref().is_some_and(|(_, is_long)| *is_long) {
            self.long_open -= 1;
        }
        let failure = match (outcome, sent) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(reply), Some((sent, _))) if *reply.value != *sent => {
                Some(format!("{} wrong bytes for {}", reply.value.len(), sent.len()))
            }
            // A second outcome is the recorder's to find.
            (Ok(_), _) => None,
        };
        self.recorder.note(Event::Outcome { number, failure });
    }

    fn go_on(&mut self, stop: &AtomicBool) {
        loop {
            match stop.load(Ordering::Relaxed) {
                false => self.fill(),
                true if self.open.is_empty() => break,
                true => {}
            }
            if let Some((number, outcome)) = self.queue.recv_timeout(Duration::from_millis(50)) {
                self.take(number, outcome);
            }
        }
        while let Some((number, outcome)) = self.queue.recv_timeout(SURPLUS_WAIT) {
            self.take(number, outcome);
        }
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    log.log_internal_errors(false).init();
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop)).unwrap();
    let recorder = Recorder::create(&flags.folder, &format!("client-{}", flags.number)).unwrap();
    // It does not wait for its broker, which may be away.
    let client = Client::builder().broker(&flags.broker).start().expect("a valid endpoint");
    println!("pinmesh-chaos-client ready");
    let mut run = Run {
        flags: &flags,
        recorder,
        work: client.task("work"),
        long: client.task("long"),
        queue: client.completions(),
        next: 0,
        open: HashMap::new(),
        long_open: 0,
    };
    run.go_on(&stop);
    let Run { recorder, .. } = run;
    match client.close(CLOSE_LIMIT) {
        Ok(()) => {
            recorder.note(Event::Closed);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
