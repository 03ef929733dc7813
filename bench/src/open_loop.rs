//! `pinmesh-bench run`: response times of a mesh under a load that does not wait for it.

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use pinmesh_host::{CpuSelection, Environment};

use crate::{
    arrivals::{Arrivals, PLAN_MAX},
    build_info::BuildInfo,
    error::BenchError,
    generator::{Counts, OpenLoad, OpenLoop},
    interrupt::Interrupt,
    keys::KeyArgs,
    latency_files::LatencyFiles,
    mesh::{self, Mesh, MeshOptions},
    meter::{CpuTime, Meter, Sample},
    open_gates,
    open_report::OpenReport,
    open_run::{OpenConfig, OpenMeasured, OpenResult},
    output::JsonOutput,
    payload::Payload,
    progress::Progress,
    results::Taken,
    size::parse_size,
    timeline::Schedule,
};

/// How often outstanding tasks are counted.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looking at processes costs system calls, so it is done more rarely.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// Sends tasks at a planned rate (an open loop) and reports response times.
///
/// An open loop sends when it was planned, whatever the mesh does, and counts the response from
/// that moment: a stall is charged to everyone whom it delayed. A closed loop (`throughput`) waits
/// for the mesh and so hides exactly the tasks that would have waited; it finds rates, not times.
///
/// The run says FAIL and why, and exits with 3, when its numbers do not count: sends that were not
/// made, a generator that was late or too busy, a backlog that grows, a task that was lost, a debug
/// build.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Planned sends a second, such as 20000 or 20k. Above what the mesh carries the backlog grows
    /// and the run is not valid
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    rate: f64,

    /// How sends are spread over time
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    arrivals: Arrivals,

    /// The measured interval. p99.9 of R tasks a second wants 10,000 / R seconds at the least
    #[arg(long, default_value = "10s", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    duration: Duration,

    /// Time under load before it, at the least: MSER-5 cuts further what has not settled
    #[arg(long, default_value = "2s", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    warmup: Duration,

    /// Worker processes of the mesh that is started for the run
    #[arg(long, default_value_t = 1, value_name = "N", conflicts_with = "broker",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: u32,

    /// The CPUs that these workers are pinned to, such as 2-8, 2,4, all or no-smt; the first N of
    /// them are taken [default: the worker's own default]
    #[arg(long, value_name = "SET", conflicts_with = "broker")]
    cpus: Option<CpuSelection>,

    /// Bytes of a task's payload, such as 64 or 4KiB. From 8 on each carries its number, by which
    /// the output is checked
    #[arg(long, default_value = "64", value_name = "BYTES", value_parser = parse_size,
          conflicts_with = "service_time")]
    payload: usize,

    /// What the tasks ask for. The output of `echo` is checked against the input
    #[arg(long, default_value = "echo", value_name = "NAME")]
    service: String,

    /// How long `spin` keeps a CPU busy, or `sleep` waits, such as 50us: it is the payload
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration,
          required_if_eq_any([("service", "spin"), ("service", "sleep")]))]
    service_time: Option<Duration>,

    /// Clients, each with a session and a thread of its own, fed in turn by one generator
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    clients: u32,

    /// Runs, each with a mesh of its own. Five or more give an interval for each number; one long
    /// run gives none
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,

    /// Seed of the arrivals of the first run; each further run has the next. The same seed gives
    /// the same plan
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,

    /// Brokers that run already, such as tcp://10.0.0.7:5555; each client is given all of them
    /// [default: start a mesh and end it]
    #[arg(long, value_name = "ENDPOINT", num_args = 1..)]
    broker: Vec<String>,

    #[command(flatten)]
    keys: KeyArgs,

    /// The broker's process id, if it runs on this host: its CPU time is then charged
    #[arg(long, value_name = "PID", requires = "broker")]
    broker_pid: Option<u32>,

    /// Process ids of its supervisors or workers on this host; what descends from them is charged
    /// too
    #[arg(long, value_name = "PID,...", requires = "broker", value_delimiter = ',')]
    worker_pids: Vec<u32>,

    /// Write the report as JSON to this file; `-` writes it to stdout and the table to stderr
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the measured times into this folder, one HdrHistogram log (hlog) a stage; with several
    /// runs into run-1, run-2, ... in it [default: none]
    #[arg(long, value_name = "DIR")]
    hlog: Option<PathBuf>,
}

/// A number, `k` or `M` after it allowed.
fn parse_rate(text: &str) -> Result<f64, String> {
    let (digits, scale) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let rate = digits.parse::<f64>().map_err(|_| "must be a number, such as 20000 or 20k")? * scale;
    if (0.001..=10e6).contains(&rate) {
        Ok(rate)
    } else {
        Err("must be from 0.001 to 10M tasks a second".to_owned())
    }
}

/// Runs it; whether every run is valid.
pub(crate) fn run(args: &RunArgs, interrupt: &Interrupt) -> Result<bool, BenchError> {
    check(args)?;
    let build = BuildInfo::this();
    build.warn();
    let environment = Environment::read()?;
    let mut json = JsonOutput::open(args.json.clone())?;
    let config = config(args, environment.allowed.len())?;
    let mut results = Vec::new();
    for number in 1..=args.runs {
        let measured = match measure_once(args, number, interrupt) {
            Ok(measured) => measured,
            // What has been measured before is worth reporting.
            Err(BenchError::Interrupted) if !results.is_empty() => break,
            Err(error) => return Err(error),
        };
        let reasons = open_gates::reasons(&measured, &config, &build);
        let notes = open_gates::notes(&measured, &config);
        results.push(OpenResult::new(&measured, reasons, notes));
        if interrupt.has_come() {
            break;
        }
    }
    let report = OpenReport::new(results, config, build, environment);
    json.write(&report.text(), &report.json())?;
    Ok(report.is_valid())
}

/// What the grammar of the flags cannot say.
fn check(args: &RunArgs) -> Result<(), BenchError> {
    let total_s = (args.warmup + args.duration).as_secs_f64();
    if args.rate * total_s > PLAN_MAX {
        return Err(BenchError::Flags(format!(
            "--rate {} for {total_s:.0} s are more than the 50 million sends that one plan may \
             hold: shorten --duration, or divide the rate among several pinmesh-bench",
            args.rate
        )));
    }
    if args.duration.is_zero() {
        return Err(BenchError::Flags("--duration 0s: must be longer than nothing".to_owned()));
    }
    if args.service_time.is_some() && !matches!(args.service.as_str(), "spin" | "sleep") {
        return Err(BenchError::Flags(format!(
            "--service-time with --service {}: only spin and sleep are told how long to take",
            args.service
        )));
    }
    Ok(())
}

fn payload(args: &RunArgs) -> Payload {
    match args.service_time {
        Some(time) => Payload::time(time),
        None => Payload::numbered(args.payload, args.service == "echo"),
    }
}

fn config(args: &RunArgs, cpus_allowed: usize) -> Result<OpenConfig, BenchError> {
    let is_own = args.broker.is_empty();
    let program = |name| is_own.then(|| mesh::find(name)).transpose();
    Ok(OpenConfig {
        rate: args.rate,
        arrivals: args.arrivals,
        seed: args.seed,
        brokers: args.broker.clone(),
        encrypted: args.keys.are_on(),
        workers: is_own.then_some(args.workers),
        worker_cpus: args.cpus.clone(),
        cpus_allowed,
        clients: args.clients,
        payload_bytes: payload(args).bytes(),
        service: args.service.clone(),
        service_time_s: args.service_time.map(|time| time.as_secs_f64()),
        warmup: args.warmup,
        duration: args.duration,
        broker_program: program(mesh::BROKER)?,
        worker_program: program(mesh::WORKER)?,
    })
}

/// One run: a plan, a mesh, the load, and their end.
fn measure_once(
    args: &RunArgs,
    number: u32,
    interrupt: &Interrupt,
) -> Result<OpenMeasured, BenchError> {
    let seed = args.seed.wrapping_add(u64::from(number) - 1);
    let sends = args.arrivals.plan(args.rate, args.warmup + args.duration, seed);
    let schedule = Arc::new(Schedule::new(sends, args.warmup, args.duration));
    let files = match &args.hlog {
        None => None,
        Some(folder) if args.runs == 1 => Some(LatencyFiles::create(folder)?),
        Some(folder) => Some(LatencyFiles::create(&folder.join(format!("run-{number}")))?),
    };
    let (workers, cpus, curve) = (args.workers, args.cpus.clone(), args.keys.curve);
    let options = MeshOptions { workers, cpus, curve, latency_logs: None };
    let mesh = match args.broker.is_empty() {
        true => Some(Mesh::start(&options, interrupt)?),
        false => None,
    };
    let given = || Meter::given(args.broker_pid, &args.worker_pids);
    let meter = mesh.as_ref().map_or_else(given, Mesh::meter);
    let own = mesh.as_ref().map(|mesh| vec![mesh.frontend().to_owned()]);
    let load = OpenLoad {
        brokers: own.unwrap_or_else(|| args.broker.clone()),
        keys: args.keys.of_clients(mesh.as_ref())?,
        service: args.service.clone(),
        payload: payload(args),
        clients: args.clients,
    };
    let load = OpenLoop::start(load, Arc::clone(&schedule))?;
    let mut running = Running { load, mesh, meter, interrupt, outstanding: Vec::new() };
    let title = |what: &str| match args.runs {
        1 => what.to_owned(),
        runs => format!("run {number} of {runs}, {what}"),
    };
    if !running.wait(schedule.warmup_ns, title("warm-up"))? {
        return Err(BenchError::Interrupted);
    }
    let start = running.look()?;
    running.outstanding.clear();
    running.wait(schedule.end_ns, title("measuring"))?;
    let end = running.look()?;
    running.finish(&Interval { schedule: &schedule, seed, start, end }, files)
}

/// A run under way. Dropping it ends load and mesh.
struct Running<'i> {
    // Before the mesh, so that on an error the load is told to stop first.
    load: OpenLoop,
    mesh: Option<Mesh>,
    meter: Meter,
    interrupt: &'i Interrupt,
    /// Outstanding tasks at each look.
    outstanding: Vec<u64>,
}

/// Everything that is counted, at one moment.
struct Moment {
    at: Instant,
    counts: Counts,
    cpu: Sample,
}

/// The measured interval.
struct Interval<'s> {
    schedule: &'s Schedule,
    seed: u64,
    start: Moment,
    end: Moment,
}

impl Running<'_> {
    /// Lets the load run until a moment of the plan; false if a signal cut it short. An error if
    /// broker or workers have ended.
    fn wait(&mut self, until_ns: u64, title: String) -> Result<bool, BenchError> {
        let until = self.load.started_at() + Duration::from_nanos(until_ns);
        let mut checked = Instant::now();
        let total = until.saturating_duration_since(checked);
        let mut progress = Progress::start(title, total, self.load.counts().ended);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            thread::sleep(left.min(LOOK_EVERY));
            if self.interrupt.has_come() {
                self.load.stop();
                return Ok(false);
            }
            let counts = self.load.counts();
            self.outstanding.push(counts.sent.saturating_sub(counts.ended));
            if checked.elapsed() >= CHECK_EVERY {
                checked = Instant::now();
                if let Some(mesh) = &mut self.mesh {
                    mesh.check()?;
                }
                progress.show(counts.ended);
                // Before the end of the plan it ends with an error only, which `finish` tells.
                if self.load.has_failed() {
                    return Ok(true);
                }
            }
        }
    }

    fn look(&self) -> Result<Moment, BenchError> {
        let cpu = self.meter.sample()?;
        Ok(Moment { at: Instant::now(), counts: self.load.counts(), cpu })
    }

    /// Ends load and mesh, and puts together what was measured.
    fn finish(
        self,
        interval: &Interval<'_>,
        files: Option<LatencyFiles>,
    ) -> Result<OpenMeasured, BenchError> {
        let Interval { schedule, seed, start, end } = interval;
        let started_at = self.load.started_at();
        let Taken { record, timeline, sent } = self.load.finish()?;
        let mut problems = match self.mesh {
            Some(mesh) => mesh.stop()?.1,
            None => Vec::new(),
        };
        let (cpu, cpu_problems) = end.cpu.since(&start.cpu);
        problems.extend(cpu_problems);
        let steady = timeline.steady(schedule, sent);
        let interval = schedule.interval();
        let cut = interval * u32::try_from(steady.intervals_cut).unwrap_or(u32::MAX);
        if let Some(files) = files {
            let from = started_at + Duration::from_nanos(schedule.warmup_ns) + cut;
            files.write(from, interval, timeline.intervals_from(steady.intervals_cut))?;
        }
        let counts = end.counts.since(&start.counts);
        Ok(OpenMeasured {
            seed: *seed,
            planned: schedule.planned(),
            unsent: schedule.sends_ns.len() as u64 - sent,
            counts,
            elapsed: end.at.saturating_duration_since(start.at),
            cpu: without_spinning(cpu, &counts),
            record,
            steady,
            cut,
            outstanding: self.outstanding,
            problems,
        })
    }
}

/// Of the generator only its work is charged to the clients: what it spins is the price of sending
/// on time, and no user pays it.
fn without_spinning(cpu: CpuTime, counts: &Counts) -> CpuTime {
    let spinning_ns = counts.cpu_ns.saturating_sub(counts.busy_ns);
    CpuTime { clients: cpu.clients.map(|ns| ns.saturating_sub(spinning_ns)), ..cpu }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_may_have_a_unit_and_have_bounds() {
        for (text, rate) in [("20000", 2e4), ("20k", 2e4), ("1.5M", 1.5e6), ("0.5", 0.5)] {
            assert_eq!(parse_rate(text), Ok(rate));
        }
        for text in ["", "x", "0", "-1", "k", "11M", "nan", "inf"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spinning_is_not_charged() {
        let cpu = CpuTime { broker: None, workers: Some(1), clients: Some(100) };
        let counts = Counts { busy_ns: 10, cpu_ns: 70, ..Counts::default() };
        let without = CpuTime { broker: None, workers: Some(1), clients: Some(40) };
        assert_eq!(without_spinning(cpu, &counts), without);
    }
}
