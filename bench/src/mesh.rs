//! A mesh of one's own: broker and workers as they are shipped, started for one run and ended with
//! it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use pinmesh_client::PeerKeys;
use pinmesh_histogram::{HistogramError, Precision, StageHistograms, read_log};
use pinmesh_host::CpuSelection;
use rustix::process::Signal;

use crate::{
    child::Process,
    error::BenchError,
    interrupt::Interrupt,
    keys::MeshKeys,
    meter::{Meter, Side},
};

/// The broker.
pub(crate) const BROKER: &str = "pinmesh-broker";
/// The supervisor of the workers.
pub(crate) const WORKER: &str = "pinmesh-worker";
/// Starting takes tens of milliseconds; a machine that swaps may take long.
const READY_TIME: Duration = Duration::from_secs(60);
/// How long the broker may take to report its counters.
const REPORT_TIME: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What mesh to start. Everything that is not here is as shipped.
#[derive(Clone, Debug)]
pub(crate) struct MeshOptions {
    /// Worker processes.
    pub(crate) workers: u32,
    /// The CPUs that they are pinned to, the first `workers` of them; `None`: the worker's default.
    pub(crate) cpus: Option<CpuSelection>,
    /// Whether it gets keys, and everything is encrypted.
    pub(crate) curve: bool,
    /// A folder for the latency logs of broker and workers; `None`: they write none.
    pub(crate) latency_logs: Option<PathBuf>,
}

/// A running mesh. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Mesh {
    // Workers are dropped, and so ended, first: the broker then has nobody to wait for.
    workers: Process,
    broker: Process,
    frontend: String,
    keys: Option<MeshKeys>,
    latency_logs: Option<PathBuf>,
}

/// What a broker has sent to workers, counted since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskTraffic {
    /// TASK commands.
    pub(crate) tasks: u64,
    /// Messages that held them.
    pub(crate) messages: u64,
}

impl Mesh {
    /// Starts broker and workers and waits until they are ready. To be called on the main thread.
    pub(crate) fn start(options: &MeshOptions, interrupt: &Interrupt) -> Result<Self, BenchError> {
        let logs = options.latency_logs.as_deref();
        logs.map_or(Ok(()), remove_worker_logs)?;
        let mut arguments = [
            "--frontend",
            "tcp://127.0.0.1:0",
            "--backend",
            "tcp://127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ]
        .map(OsString::from)
        .to_vec();
        arguments.extend(log_arguments(logs, BROKER_LOG));
        let keys = options.curve.then(MeshKeys::make).transpose()?;
        arguments.extend(keys.iter().flat_map(MeshKeys::of_broker));
        let mut broker = Process::start(BROKER, &find(BROKER)?, &arguments)?;
        let line = broker.first_line(READY_TIME, interrupt)?;
        let endpoint = |key| ready_field(BROKER, &line, key);
        let (frontend, backend) = (endpoint("frontend")?, endpoint("backend")?);

        let mut arguments: Vec<OsString> =
            vec!["--backend".into(), backend.into(), "--workers".into()];
        arguments.push(options.workers.to_string().into());
        if let Some(cpus) = &options.cpus {
            arguments.extend(["--cpus".into(), cpus.to_string().into()]);
        }
        arguments.extend(log_arguments(logs, WORKER_LOG));
        arguments.extend(keys.iter().flat_map(MeshKeys::of_workers));
        let mut workers = Process::start(WORKER, &find(WORKER)?, &arguments)?;
        let line = workers.first_line(READY_TIME, interrupt)?;
        ready_field(WORKER, &line, "workers")?;
        Ok(Self { workers, broker, frontend, keys, latency_logs: options.latency_logs.clone() })
    }

    /// Where clients connect.
    pub(crate) fn frontend(&self) -> &str {
        &self.frontend
    }

    /// What clients connect with, if it has keys.
    pub(crate) fn client_keys(&self) -> Option<&PeerKeys> {
        self.keys.as_ref().map(MeshKeys::of_clients)
    }

    /// Whose CPU time is whose.
    pub(crate) fn meter(&self) -> Meter {
        Meter {
            broker: Side::One(self.broker.pid()),
            workers: Side::Trees(vec![self.workers.pid()]),
        }
    }

    /// An error if broker or workers have ended.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        self.broker.check()?;
        self.workers.check()
    }

    /// Asks the broker for its counters (SIGUSR1, answered in its log). `None` if it does not answer
    /// in time, as when PINMESH_LOG silences it.
    pub(crate) fn task_traffic(&self) -> Option<TaskTraffic> {
        let mark = self.broker.stderr_mark();
        self.broker.signal(Signal::USR1);
        let start = Instant::now();
        while start.elapsed() < REPORT_TIME {
            if let Some(traffic) = self.broker.stderr_since(mark, parse_traffic) {
                return Some(traffic);
            }
            thread::sleep(LOOK_EVERY);
        }
        None
    }

    /// Ends workers and broker, and reads what they logged. Says also what was not in order.
    pub(crate) fn stop(mut self) -> Result<(Logs, Vec<String>), BenchError> {
        let mut problems = Vec::new();
        for process in [&mut self.workers, &mut self.broker] {
            match process.stop() {
                Some(status) if status.success() => {}
                Some(status) => {
                    problems.push(format!("{} ended with {status}", process.program()));
                }
                None => {
                    problems.push(format!("{} had to be killed", process.program()));
                }
            }
        }
        let logs = match &self.latency_logs {
            None => Logs::default(),
            Some(folder) => Logs::read(folder)?,
        };
        Ok((logs, problems))
    }
}

const BROKER_LOG: &str = "broker.hlog";
const WORKER_LOG: &str = "workers.hlog";

fn log_arguments(folder: Option<&Path>, file: &str) -> Vec<OsString> {
    folder.map_or_else(Vec::new, |folder| {
        vec!["--latency-log".into(), folder.join(file).into_os_string()]
    })
}

/// What broker and workers recorded themselves, over their whole life.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    pub(crate) broker: Option<StageHistograms>,
    pub(crate) workers: Option<StageHistograms>,
}

impl Logs {
    /// Reads the broker's log and those of the workers, each of which adds its slot and incarnation
    /// to the name: `workers.0-1.hlog`.
    fn read(folder: &Path) -> Result<Self, BenchError> {
        let broker = read_log(folder.join(BROKER_LOG))?;
        let mut workers = StageHistograms::new(Precision::Bench);
        for path in worker_logs(folder)? {
            workers.merge(&read_log(&path)?);
        }
        Ok(Self { broker: Some(broker), workers: Some(workers) })
    }
}

/// The logs of workers in a folder.
fn worker_logs(folder: &Path) -> Result<Vec<PathBuf>, BenchError> {
    let unreadable = |source| HistogramError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("workers.") && name.ends_with(".hlog") {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes the worker logs of an earlier run: it may have had more workers, and their logs would
/// be taken for those of this one.
fn remove_worker_logs(folder: &Path) -> Result<(), BenchError> {
    for path in worker_logs(folder)? {
        fs::remove_file(&path).map_err(|source| BenchError::Write { path, source })?;
    }
    Ok(())
}

/// A program of the mesh: beside this one, so that both are of one build, or else in PATH.
pub(crate) fn find(program: &'static str) -> Result<PathBuf, BenchError> {
    let own = env::current_exe()
        .map_err(|source| BenchError::System { action: "find this program's folder", source })?;
    let beside = own.parent().unwrap_or(Path::new(".")).to_owned();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(beside.clone()).chain(env::split_paths(&path));
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or(BenchError::ProgramMissing { program, beside })
}

/// A field of the line that a program prints when it is ready: `PROGRAM ready key=value ...`.
fn ready_field(program: &'static str, line: &str, key: &str) -> Result<String, BenchError> {
    let fields = line.strip_prefix(program).and_then(|rest| rest.strip_prefix(" ready "));
    let value = fields.and_then(|fields| {
        fields.split_ascii_whitespace().find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
    });
    value.map(str::to_owned).ok_or_else(|| BenchError::ReadyLine { program, line: line.to_owned() })
}

/// `... N tasks in M messages ...` of the broker's line of traffic.
fn parse_traffic(line: &str) -> Option<TaskTraffic> {
    let (_, traffic) = line.split_once("traffic: ")?;
    let words: Vec<&str> = traffic.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    words.windows(5).find_map(|words| match words {
        [tasks, "tasks", "in", messages, "messages"] => {
            Some(TaskTraffic { tasks: tasks.parse().ok()?, messages: messages.parse().ok()? })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_readiness_line_are_found_by_their_key() {
        let line = "pinmesh-broker ready frontend=tcp://127.0.0.1:7 backend=tcp://127.0.0.1:8";
        assert_eq!(ready_field(BROKER, line, "backend").unwrap(), "tcp://127.0.0.1:8");
        for (line, key) in [(line, "end"), ("pinmesh-broker", "backend"), ("hello", "backend")] {
            let error = ready_field(BROKER, line, key).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
    }

    #[test]
    fn tasks_and_messages_are_found_in_the_line_of_traffic() {
        let line = "2026-01-01T00:00:00Z  INFO pinmesh_broker: traffic: in 9 messages 12 commands 80 \
                    bytes, out 8 messages 9 commands 7 bytes, 4000 tasks in 50 messages (80.0 a \
                    message), 6 turns";
        assert_eq!(parse_traffic(line), Some(TaskTraffic { tasks: 4000, messages: 50 }));
        assert_eq!(parse_traffic("traffic: none"), None);
        assert_eq!(parse_traffic("4000 tasks in 50 messages"), None);
    }

    #[test]
    fn a_program_that_is_nowhere_is_an_error_with_the_remedy() {
        let error = find("pinmesh-nobody").unwrap_err().to_string();
        assert!(error.contains("cargo build --release"), "{error}");
    }

    #[test]
    fn logs_of_several_workers_are_merged_and_those_of_an_earlier_run_removed() {
        use pinmesh_histogram::{IntervalRecorder, LatencyLog, Stage};

        let folder = tempfile::tempdir().unwrap();
        for (file, stage) in [
            ("broker.hlog", Stage::BrokerWait),
            ("workers.0-1.hlog", Stage::Service),
            ("workers.1-1.hlog", Stage::Service),
        ] {
            let log = LatencyLog::create(folder.path().join(file), "test").unwrap();
            let now = Instant::now();
            let mut recorder = IntervalRecorder::with_log(Precision::Serving, log, now).unwrap();
            recorder.record(stage, 5);
            assert!(recorder.finish(now).1.is_none());
        }
        let logs = Logs::read(folder.path()).unwrap();
        assert_eq!(logs.broker.unwrap().count(Stage::BrokerWait), 1);
        assert_eq!(logs.workers.unwrap().count(Stage::Service), 2);

        remove_worker_logs(folder.path()).unwrap();
        assert_eq!(worker_logs(folder.path()).unwrap(), Vec::<PathBuf>::new());
        assert!(folder.path().join("broker.hlog").exists());
    }
}
