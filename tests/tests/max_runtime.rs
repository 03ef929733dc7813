//! Max runtime: what runs longer is dead soon after, whoever waits behind it is not harmed, and no
//! attempt dies for another one.
//!
//! `scripts/max_runtime.sh` runs the same with more tries, and judges how soon "soon" is; without it
//! the only time that is asserted is that none was killed early.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pinmesh_client::{Bytes, Client, Error, Handle};
use pinmesh_tests::{Broker, LIMIT, Supervisor, binary, turn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::time::{ClockId, clock_gettime};

/// As in `examples/runtime_worker.rs`.
const RECORD: u64 = 56;
const FOR_EVER_NS: u64 = u64::MAX;
const SPINNER_MAX: Duration = Duration::from_millis(200);
/// Tasks that wait behind each spinner.
const NEIGHBOURS: u64 = 20;
const NEAR_MISS_MAX: Duration = Duration::from_millis(5);
/// Near misses run for so much more or less than their limit, nanoseconds.
const NEAR_NS: u64 = 400_000;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What a handler has written down of its last run.
struct Record {
    start_ns: u64,
    alive_ns: u64,
    end_ns: u64,
    process: u64,
    attempt: String,
}

struct Farm {
    broker: Broker,
    supervisor: Supervisor,
    client: Client,
    records: File,
    next: u64,
    _folder: tempfile::TempDir,
}

impl Farm {
    fn start(workers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        let records = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let broker = Broker::start(&[]);
        let mut command = Command::new(worker_program());
        command.env("RUNTIME_RECORDS", path).args(["--backend", &broker.backend]);
        let supervisor = Supervisor::run(command, workers);
        let client = broker.client();
        Self { broker, supervisor, client, records, next: 0, _folder: folder }
    }

    /// Hands a task in. Its number.
    fn submit(&mut self, run_ns: u64, max: Duration) -> (u64, Handle<Bytes>) {
        let number = self.next;
        self.next += 1;
        let input = [number.to_le_bytes(), run_ns.to_le_bytes()].concat();
        let task = self.client.task("run").max_runtime(max).tries_max(1);
        (number, task.submit_raw(input).unwrap())
    }

    fn record(&self, number: u64) -> Record {
        let mut bytes = [0; RECORD as usize];
        self.records.read_exact_at(&mut bytes, number * RECORD).unwrap();
        let field = |at: usize| u64::from_le_bytes(bytes[8 * at..8 * at + 8].try_into().unwrap());
        Record {
            start_ns: field(0),
            alive_ns: field(1),
            end_ns: field(2),
            process: field(3),
            attempt: format!("{:08x}/{:x}/{}", field(4), field(5), field(6)),
        }
    }

    /// Lets everybody leave. What the supervisor has said: its kills over max runtime, and how many
    /// workers have died.
    fn end(mut self) -> (Vec<Kill>, usize) {
        self.supervisor.process.signal(Signal::TERM);
        let finished = self.supervisor.process.wait();
        self.broker.drain();
        let deaths = finished.stderr.lines().filter(|line| line.contains("worker died")).count();
        (finished.stderr.lines().filter_map(Kill::parse).collect(), deaths)
    }
}

fn worker_program() -> PathBuf {
    let beside = binary("pinmesh-worker");
    let program = beside.with_file_name("examples").join("runtime_worker");
    let build = "build it with `cargo build -p pinmesh-tests --examples`";
    assert!(program.is_file(), "{} is missing: {build}", program.display());
    program
}

/// What the supervisor says of a kill.
struct Kill {
    attempt: String,
    /// The time of day, UTC, nanoseconds.
    at_ns: u64,
    ran: Duration,
    max: Duration,
}

impl Kill {
    fn parse(line: &str) -> Option<Self> {
        let (stamp, fields) = line.split_once("a task is past its max runtime")?;
        let field = |key: &str| {
            let find = |word: &str| word.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
            fields.split(' ').find_map(find).unwrap_or_else(|| panic!("no {key}= in {line}"))
        };
        let (ran, max) = (parse_duration(&field("ran")), parse_duration(&field("max_runtime")));
        Some(Self { attempt: field("attempt"), at_ns: time_of_day(stamp), ran, max })
    }
}

const DAY_NS: u64 = 86_400_000_000_000;

/// The time of day in a log's stamp, `2026-01-31T23:59:59.000001Z`, nanoseconds.
fn time_of_day(stamp: &str) -> u64 {
    let (_, time) = stamp.split_once('T').expect("a date comes first");
    let (time, _) = time.split_once('Z').expect("it is in UTC");
    let part = |text: &str| text.parse::<f64>().unwrap();
    let seconds = time.split(':').fold(0.0, |sum, text| 60.0 * sum + part(text));
    (seconds * 1e6).round() as u64 * 1_000
}

/// What to add to this process's clock for the time of day, nanoseconds.
fn time_of_day_offset() -> u64 {
    let (monotonic, day) = (now_ns(), clock_gettime(ClockId::Realtime));
    let day_ns = (day.tv_sec as u64 % 86_400) * 1_000_000_000 + day.tv_nsec as u64;
    (DAY_NS + day_ns - monotonic % DAY_NS) % DAY_NS
}

/// A duration as `Debug` writes it.
fn parse_duration(text: &str) -> Duration {
    let at = text.find(|c: char| c.is_alphabetic() || c == 'µ').expect("it has a unit");
    let unit = match &text[at..] {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        unit => panic!("{unit}"),
    };
    Duration::from_secs_f64(text[..at].parse::<f64>().unwrap() * unit)
}

/// Least, median, 90th and 99th percentile, most.
fn distribution(what: &str, mut ns: Vec<u64>) -> String {
    ns.sort_unstable();
    let ms = |share: f64| ns[((ns.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    if ns.is_empty() {
        return format!("{what}: none");
    }
    let (least, p50, p90, p99, most) = (ms(0.0), ms(0.5), ms(0.9), ms(0.99), ms(1.0));
    format!(
        "{what}, ms: min {least:.2}  p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  max {most:.2}  \
         n {}",
        ns.len()
    )
}

/// When the process was dead, by this process's clock.
fn death_of(process: i32) -> impl FnOnce() -> u64 {
    let pidfd = pidfd_open(Pid::from_raw(process).unwrap(), PidfdFlags::empty()).unwrap();
    move || {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
        assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "the spinner lives on");
        now_ns()
    }
}

#[test]
fn what_spins_for_ever_is_killed_and_its_prefetched_neighbours_succeed() {
    let _turn = turn();
    let tries = setting("PINMESH_MAX_RUNTIME_TRIES", 3);
    let mut farm = Farm::start(1);
    let mut delays = Vec::new();
    for _ in 0..tries {
        let worker = farm.supervisor.wait_for_workers(&[])[0];
        let death = death_of(worker.pid);
        let (number, spinner) = farm.submit(FOR_EVER_NS, SPINNER_MAX);
        let neighbours: Vec<_> = (0..NEIGHBOURS).map(|_| farm.submit(0, LIMIT).1).collect();
        let dead_ns = death();
        let record = farm.record(number);
        assert_eq!(record.process, worker.pid as u64, "it died before the spinner came to it");
        let error = spinner.wait().expect_err("it never ends");
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        for neighbour in neighbours {
            let reply = neighbour.wait_reply().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(reply.tries, 0, "a neighbour was charged");
        }
        let delay_ns = dead_ns - record.start_ns;
        assert!(delay_ns >= SPINNER_MAX.as_nanos() as u64, "killed after {delay_ns} ns");
        delays.push(delay_ns);
    }
    let bound_ms = setting("PINMESH_MAX_RUNTIME_BOUND_MS", LIMIT.as_millis() as u64);
    let late = delays.iter().filter(|&&ns| ns > bound_ms * 1_000_000).count();
    let (kills, deaths) = farm.end();
    assert_eq!((kills.len() as u64, deaths as u64), (tries, tries));
    println!("{}", distribution("from the handler's start to the process's death", delays));
    let ran = kills.iter().map(|kill| kill.ran.as_nanos() as u64).collect();
    println!("{}", distribution("run time at the kill, as the supervisor has it", ran));
    assert_eq!(late, 0, "of {tries} tries took longer than {bound_ms} ms");
}

#[test]
fn of_tasks_as_long_as_their_limit_none_dies_early_or_for_another() {
    let _turn = turn();
    let tasks = setting("PINMESH_MAX_RUNTIME_NEAR_MISSES", 600);
    let mut farm = Farm::start(2);
    let limit_ns = NEAR_MISS_MAX.as_nanos() as u64;
    // Spread evenly around the limit, in no order.
    let run_ns = |number: u64| limit_ns - NEAR_NS + number * 7_919 % 1_000 * (2 * NEAR_NS) / 1_000;
    let handles: Vec<_> = (0..tasks).map(|n| farm.submit(run_ns(n), NEAR_MISS_MAX)).collect();
    let (mut timed_out, mut alive) = (BTreeMap::new(), Vec::new());
    let mut unsaid = 0;
    for (number, handle) in handles {
        let end = handle.wait_reply();
        let record = farm.record(number);
        match end {
            Ok(reply) => {
                assert_eq!(reply.tries, 0, "charged for another");
                assert!(record.end_ns >= record.start_ns + run_ns(number));
            }
            Err(Error::TimedOut { .. }) => {
                // Its handler may have noted its end and not have come to say so on the page.
                unsaid += usize::from(record.end_ns != 0);
                let seen_ns = now_ns() - record.start_ns;
                assert!(seen_ns >= limit_ns, "known as timed out after {seen_ns} ns");
                alive.push(record.alive_ns - record.start_ns);
                let earlier = timed_out.insert(record.attempt, record.start_ns);
                assert_eq!(earlier, None, "one attempt, two tasks");
            }
            Err(error) => panic!("{error}"),
        }
    }
    let offset = time_of_day_offset();
    let (kills, deaths) = farm.end();
    let mut ran = Vec::new();
    for kill in &kills {
        let start_ns = timed_out.get(&kill.attempt).expect("who is killed is told so");
        ran.push((kill.at_ns + 2 * DAY_NS - offset - start_ns % DAY_NS) % DAY_NS);
        assert!(kill.ran >= kill.max && kill.max == NEAR_MISS_MAX, "after {:?}", kill.ran);
    }
    // Every death was over one task, which is the one that timed out.
    let killed: BTreeSet<_> = kills.iter().map(|kill| kill.attempt.clone()).collect();
    assert_eq!((killed.len(), deaths), (kills.len(), kills.len()));
    assert!(killed.iter().eq(timed_out.keys()));
    // The moment between a handler's end and the word of it is short: few are met in it.
    assert!(unsaid <= 3 + timed_out.len() / 5, "{unsaid} of {} had ended", timed_out.len());
    let early = alive.iter().filter(|&&ns| ns < limit_ns - 2 * 50_000).count();
    println!(
        "{tasks} near misses: {} ran over and were killed, {unsaid} of them between the handler's end and its word",
        timed_out.len()
    );
    println!("{}", distribution("from the handler's own start to the kill", ran));
    println!("{}", distribution("last sign of life of the killed after their start", alive));
    println!("{early} of them gave no sign in the last 100 us before their limit: they had no CPU");
}
