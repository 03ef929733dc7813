//! `pinmesh-bench throughput`: what a mesh carries when it is saturated.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use pinmesh_host::{CpuSelection, Environment};

use crate::{
    build_info::BuildInfo,
    closed_loop::{ClosedLoop, Load},
    error::BenchError,
    gates,
    interrupt::Interrupt,
    keys::KeyArgs,
    mesh::{self, Logs, Mesh, MeshOptions, TaskTraffic},
    meter::{Meter, Sample},
    output::JsonOutput,
    payload::Payload,
    progress::Progress,
    record::Record,
    report::Report,
    run::{Measured, RunConfig, RunResult},
    size::parse_size,
};

/// How often the one who measures looks at clients, mesh and signals.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looking at processes costs system calls, so it is done more rarely.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// Saturates a mesh: each client keeps a window of tasks outstanding (a closed loop) and hands in
/// another when one ends.
///
/// A closed loop waits for the mesh: it finds what the mesh carries, but when the mesh stalls it
/// sends nothing, and so does not see what the stall would have done to others. For response times
/// use `run`, an open loop, which sends when planned, whatever the mesh does.
///
/// It finds tasks/s, and the CPU time a task of broker, workers and clients; that of the clients
/// includes checking outputs and recording times. Its response times are those of full queues and
/// not comparable with those of an open loop.
#[derive(Args, Clone, Debug)]
pub(crate) struct ThroughputArgs {
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
    #[arg(long, default_value = "64", value_name = "BYTES", value_parser = parse_size)]
    payload: usize,

    /// Tasks that each client keeps outstanding. Too few leave the mesh idle, more than fill it
    /// only lengthen the queues
    #[arg(long, default_value_t = 1000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    window: u32,

    /// Clients, each with a session and two threads of its own, all in this process
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    clients: u32,

    /// What the tasks ask for. The output of `echo` is checked against the input
    #[arg(long, default_value = "echo", value_name = "NAME")]
    service: String,

    /// The measured interval
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// Time before it, which is not measured
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    warmup: Duration,

    /// Runs, each with a mesh of its own. Five or more show how far they lie apart
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,

    /// A broker that runs already, such as tcp://10.0.0.7:5555 [default: start a mesh and end it]
    #[arg(long, value_name = "ENDPOINT")]
    broker: Option<String>,

    #[command(flatten)]
    keys: KeyArgs,

    /// That broker's process id, if it runs on this host: its CPU time is then charged
    #[arg(long, value_name = "PID", requires = "broker")]
    broker_pid: Option<u32>,

    /// Process ids of its supervisors or workers on this host; what descends from them is charged
    /// too
    #[arg(long, value_name = "PID,...", requires = "broker", value_delimiter = ',')]
    worker_pids: Vec<u32>,

    /// Let broker and workers of the mesh that is started write their latency logs (hlog) into this
    /// folder, and show them [default: no logs, as shipped]
    #[arg(long, value_name = "DIR", conflicts_with = "broker")]
    latency_logs: Option<PathBuf>,

    /// Write the report as JSON to this file; `-` writes it to stdout and the table to stderr
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs it; whether every run is valid.
pub(crate) fn run(args: &ThroughputArgs, interrupt: &Interrupt) -> Result<bool, BenchError> {
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
        let reasons = gates::reasons(&measured, &config, &build);
        let notes = gates::notes(&measured, &config);
        results.push(RunResult::new(&measured, reasons, notes));
        if interrupt.has_come() {
            break;
        }
    }
    let report = Report::new(results, config, build, environment)
        .expect("at least one run is made, or its error was returned");
    json.write(&report.text(), &report.json())?;
    Ok(report.is_valid())
}

fn config(args: &ThroughputArgs, cpus_allowed: usize) -> Result<RunConfig, BenchError> {
    let is_own = args.broker.is_none();
    let program = |name| is_own.then(|| mesh::find(name)).transpose();
    Ok(RunConfig {
        broker: args.broker.clone(),
        encrypted: args.keys.are_on(),
        workers: is_own.then_some(args.workers),
        worker_cpus: args.cpus.clone(),
        cpus_allowed,
        clients: args.clients,
        window: args.window,
        payload_bytes: args.payload,
        service: args.service.clone(),
        warmup: args.warmup,
        duration: args.duration,
        broker_program: program(mesh::BROKER)?,
        worker_program: program(mesh::WORKER)?,
    })
}

/// One run: a mesh, clients, warm-up, measurement, and their end.
fn measure_once(
    args: &ThroughputArgs,
    number: u32,
    interrupt: &Interrupt,
) -> Result<Measured, BenchError> {
    let mesh = match &args.broker {
        Some(_) => None,
        None => Some(Mesh::start(&mesh_options(args, number)?, interrupt)?),
    };
    let meter =
        mesh.as_ref().map_or_else(|| Meter::given(args.broker_pid, &args.worker_pids), Mesh::meter);
    let broker = args.broker.clone();
    let broker = broker.or(mesh.as_ref().map(|mesh| mesh.frontend().to_owned()));
    let load = Load {
        broker: broker.unwrap_or_default(),
        keys: args.keys.of_clients(mesh.as_ref())?,
        service: args.service.clone(),
        payload: Payload::numbered(args.payload, args.service == "echo"),
        window: args.window,
    };
    let clients = (0..args.clients)
        .map(|number| ClosedLoop::start(load.clone(), number))
        .collect::<Result<Vec<_>, _>>()?;
    let mut running = Running { mesh, meter, clients, interrupt };
    let title = |what: &str| match args.runs {
        1 => what.to_owned(),
        runs => format!("run {number} of {runs}, {what}"),
    };
    if !running.wait(args.warmup, title("warm-up"))? {
        return Err(BenchError::Interrupted);
    }
    running.clients.iter().for_each(ClosedLoop::measure);
    let start = running.look()?;
    running.wait(args.duration, title("measuring"))?;
    let end = running.look()?;
    running.finish(&start, &end)
}

fn mesh_options(args: &ThroughputArgs, number: u32) -> Result<MeshOptions, BenchError> {
    let folder = args.latency_logs.as_ref().map(|folder| match args.runs {
        1 => folder.clone(),
        _ => folder.join(format!("run-{number}")),
    });
    if let Some(folder) = &folder {
        std::fs::create_dir_all(folder)
            .map_err(|source| BenchError::Write { path: folder.clone(), source })?;
    }
    let (workers, cpus, curve) = (args.workers, args.cpus.clone(), args.keys.curve);
    Ok(MeshOptions { workers, cpus, curve, latency_logs: folder })
}

/// A run under way. Dropping it ends clients and mesh.
struct Running<'i> {
    // Before the mesh, so that on an error clients are dropped, and so told to stop, first.
    clients: Vec<ClosedLoop>,
    mesh: Option<Mesh>,
    meter: Meter,
    interrupt: &'i Interrupt,
}

/// Everything that is counted, at one moment.
struct Moment {
    at: Instant,
    tasks: u64,
    cpu: Sample,
    traffic: Option<TaskTraffic>,
}

impl Running<'_> {
    fn succeeded(&self) -> u64 {
        self.clients.iter().map(ClosedLoop::succeeded).sum()
    }

    /// Lets the load run; false if a signal cut it short. An error if broker, workers or a client
    /// have ended.
    fn wait(&mut self, time: Duration, title: String) -> Result<bool, BenchError> {
        let start = Instant::now();
        let mut checked = start;
        let mut progress = Progress::start(title, time, self.succeeded());
        loop {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(true);
            }
            thread::sleep(left.min(LOOK_EVERY));
            if self.interrupt.has_come() {
                return Ok(false);
            }
            if checked.elapsed() >= CHECK_EVERY {
                checked = Instant::now();
                if let Some(mesh) = &mut self.mesh {
                    mesh.check()?;
                }
                self.check_clients()?;
                progress.show(self.succeeded());
            }
        }
    }

    /// A client ends by itself only with an error.
    fn check_clients(&mut self) -> Result<(), BenchError> {
        match self.clients.iter().position(ClosedLoop::has_ended) {
            Some(at) => self.clients.swap_remove(at).finish().map(drop),
            None => Ok(()),
        }
    }

    fn look(&self) -> Result<Moment, BenchError> {
        let traffic = self.mesh.as_ref().and_then(Mesh::task_traffic);
        let cpu = self.meter.sample()?;
        Ok(Moment { at: Instant::now(), tasks: self.succeeded(), cpu, traffic })
    }

    /// Ends clients and mesh, and puts together what was measured.
    fn finish(self, start: &Moment, end: &Moment) -> Result<Measured, BenchError> {
        let mut record = Record::new();
        self.clients.iter().for_each(ClosedLoop::stop);
        for client in self.clients {
            record.merge(client.finish()?);
        }
        let (logs, mut problems) = match self.mesh {
            Some(mesh) => mesh.stop()?,
            None => (Logs::default(), Vec::new()),
        };
        let (cpu, cpu_problems) = end.cpu.since(&start.cpu);
        problems.extend(cpu_problems);
        let traffic = match (start.traffic, end.traffic) {
            (Some(start), Some(end)) => Some(TaskTraffic {
                tasks: end.tasks.saturating_sub(start.tasks),
                messages: end.messages.saturating_sub(start.messages),
            }),
            _ => None,
        };
        Ok(Measured {
            tasks: end.tasks.saturating_sub(start.tasks),
            elapsed: end.at.saturating_duration_since(start.at),
            cpu,
            traffic,
            record,
            logs,
            problems,
        })
    }
}
