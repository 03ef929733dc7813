//! The command line. Flags come before the file, the file before the defaults.

use std::path::PathBuf;

use clap::Parser;

use crate::config::{Config, ConfigError, ConfigLoader};

/// The pinmesh broker: takes tasks from clients and hands them to workers.
///
/// Prints one line on stdout when it is ready:
/// `pinmesh-broker ready frontend=ENDPOINT backend=ENDPOINT http=LISTEN`. Logs go to stderr; PINMESH_LOG sets
/// what is logged (`info`, `debug`, `pinmesh_broker=trace`).
///
/// SIGTERM, SIGINT or `pinmesh drain broker` drains: nothing new is accepted, what is held is
/// finished. A second signal ends the broker at once. SIGUSR1 logs the ledger. SIGHUP reads the authorized keys again, and nothing
/// else.
///
/// Exit codes: 0 drained, 1 failed while running, 2 wrong flags or configuration, 3 tasks or
/// unacknowledged results were left when the drain time or a second signal ended it.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "pinmesh-broker", version, max_term_width = 100)]
pub struct Cli {
    /// The TOML file with the settings. Without it every setting has its default; see
    /// --print-config
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the file and the flags, print `FILE: ok` or every error with its place, and exit with
    /// 0 or 2
    #[arg(long)]
    pub check_config: bool,

    /// Print the settings in force, file and flags included, as a file with comments, and exit
    #[arg(long, conflicts_with = "check_config")]
    pub print_config: bool,

    /// Where clients connect [default: tcp://127.0.0.1:5555]. tcp://HOST:PORT or ipc:///PATH; port
    /// 0 lets the system choose
    #[arg(long, value_name = "ENDPOINT")]
    pub frontend: Option<String>,

    /// Where workers and supervisors connect [default: tcp://127.0.0.1:5556]
    #[arg(long, value_name = "ENDPOINT")]
    pub backend: Option<String>,

    /// Where the admin API listens [default: 127.0.0.1:5557]. A loopback ADDRESS:PORT, which every
    /// user of this host can reach, unix:/PATH, which only this user can, or off
    #[arg(long, value_name = "LISTEN")]
    pub http: Option<String>,

    /// The broker's secret key, a file that `pinmesh keygen NAME --role broker` writes [default: no
    /// keys]. Everything is encrypted then, and only listed keys may connect
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,

    /// The public keys that may connect, a file of lines `name key role`, the role client or worker
    /// [default: no keys]. SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    pub authorized_keys: Option<String>,

    /// Bind where other hosts can connect although there are no keys [default: refused]. Everyone
    /// on that network may then submit and run tasks
    #[arg(long)]
    pub insecure: bool,

    /// The CPU that the event loop is pinned to [default: not pinned]. The broker does not start
    /// if it cannot be had
    #[arg(long, value_name = "ID")]
    pub cpu: Option<String>,

    /// The CPUs of libzmq's IO threads, such as 2-3, 2,4, all or no-smt [default: that of --cpu].
    /// On the event loop's own CPU they share its time
    #[arg(long, value_name = "CPUS")]
    pub io_cpu: Option<String>,

    /// libzmq's IO threads [default: 1]. One moves about a gigabyte a second
    #[arg(long, value_name = "N")]
    pub io_threads: Option<String>,

    /// How long the event loop stays awake before it sleeps [default: 0s]. More spares wake-ups
    /// and costs the CPU
    #[arg(long, value_name = "DURATION")]
    pub spin: Option<String>,

    /// How often each side sends HEARTBEAT [default: 1s]. Shorter finds dead peers sooner
    #[arg(long, value_name = "DURATION")]
    pub heartbeat: Option<String>,

    /// How long a host may go on without hearing from the broker [default: 10s]. Shorter frees the
    /// tasks of a lost host sooner, and cuts off hosts on a bad link sooner
    #[arg(long, value_name = "DURATION")]
    pub lease: Option<String>,

    /// How long a task waits for somebody to serve its service [default: 30s]. Then it ends
    /// NO_SERVICE
    #[arg(long, value_name = "DURATION")]
    pub service_wait: Option<String>,

    /// The longest that an attempt may run where its task does not say [default: 1h]. Then it is
    /// killed
    #[arg(long, value_name = "DURATION")]
    pub max_runtime: Option<String>,

    /// Starts of a task that may end badly where the task does not say [default: 3]. After the last
    /// one it ends for good
    #[arg(long, value_name = "N")]
    pub tries_max: Option<String>,

    /// The longest wait before a task's second try, where the task does not say [default: 1s]. It
    /// doubles before each further one; the wait is random, from nothing to that
    #[arg(long, value_name = "DURATION")]
    pub backoff: Option<String>,

    /// The longest wait before any try, where the task does not say [default: 5m]
    #[arg(long, value_name = "DURATION")]
    pub backoff_max: Option<String>,

    /// How long the outcome of a task with an idempotency key is kept, where the task does not say
    /// [default: 10m]. Requests with the same key get it meanwhile
    #[arg(long, value_name = "DURATION")]
    pub key_retention: Option<String>,

    /// The same for a detached task [default: 1h]
    #[arg(long, value_name = "DURATION")]
    pub detached_retention: Option<String>,

    /// The longest that a task may say [default: 24h]. One that asks for more is refused
    #[arg(long, value_name = "DURATION")]
    pub retention_max: Option<String>,

    /// The most tasks that a worker holds [default: 1024, the most there is]. It is sent what keeps it busy over its
    /// round trip, which is less most often
    #[arg(long, value_name = "N")]
    pub worker_window: Option<String>,

    /// The most unfinished tasks a client [default: 10000]
    #[arg(long, value_name = "N")]
    pub client_window: Option<String>,

    /// Tasks (512 bytes and their payload each), results and updates held in all [default: 1GiB].
    /// Past it SUBMIT is answered BUSY; the process may take more, see docs/memory.md
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,

    /// The most urgent task always goes first, however long the others wait [default: each
    /// priority gets its share: 10 a third, 1 one in 113]
    #[arg(long)]
    pub strict: bool,

    /// The most dead letters: tasks that failed for good, kept for `pinmesh dead` [default: 10000].
    /// Past it the oldest leaves; 0 keeps none
    #[arg(long, value_name = "N")]
    pub dead_letters: Option<String>,

    /// The most memory of dead letters, 1 KiB and their payload each, beside --memory [default:
    /// 256MiB]. Past it the oldest leave
    #[arg(long, value_name = "SIZE")]
    pub dead_bytes: Option<String>,

    /// How long a dead letter is kept [default: 7days]. All are gone when the broker ends
    #[arg(long, value_name = "DURATION")]
    pub dead_kept: Option<String>,

    /// How long a drain waits for what is held [default: 30s]. Then the broker ends with exit
    /// code 3
    #[arg(long, value_name = "DURATION")]
    pub drain_time: Option<String>,

    /// Write the stage histograms of every second to this file (hlog) [default: none]
    #[arg(long, value_name = "FILE")]
    pub latency_log: Option<String>,
}

impl Cli {
    /// The configuration in force: defaults, the file, the flags.
    ///
    /// # Errors
    /// Every problem in file and flags.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut loader = ConfigLoader::new();
        if let Some(path) = &self.config {
            loader.file(path);
        }
        for (flag, section, key, value) in self.settings() {
            if let Some(value) = value {
                loader.flag(flag, section, key, value);
            }
        }
        loader.finish()
    }

    /// Flag, section, key, value.
    fn settings(&self) -> [(&'static str, &'static str, &'static str, Option<&str>); 29] {
        [
            ("--frontend", "listen", "frontend", self.frontend.as_deref()),
            ("--backend", "listen", "backend", self.backend.as_deref()),
            ("--http", "listen", "http", self.http.as_deref()),
            ("--insecure", "listen", "insecure", self.insecure.then_some("true")),
            ("--key", "security", "key", self.key.as_deref()),
            ("--authorized-keys", "security", "authorized_keys", self.authorized_keys.as_deref()),
            ("--cpu", "cpu", "pin", self.cpu.as_deref()),
            ("--io-cpu", "cpu", "io", self.io_cpu.as_deref()),
            ("--io-threads", "cpu", "io_threads", self.io_threads.as_deref()),
            ("--spin", "cpu", "spin", self.spin.as_deref()),
            ("--heartbeat", "sessions", "heartbeat", self.heartbeat.as_deref()),
            ("--lease", "sessions", "lease", self.lease.as_deref()),
            ("--service-wait", "tasks", "service_wait", self.service_wait.as_deref()),
            ("--max-runtime", "tasks", "max_runtime", self.max_runtime.as_deref()),
            ("--tries-max", "tasks", "tries_max", self.tries_max.as_deref()),
            ("--backoff", "tasks", "backoff", self.backoff.as_deref()),
            ("--backoff-max", "tasks", "backoff_max", self.backoff_max.as_deref()),
            ("--key-retention", "tasks", "key_retention", self.key_retention.as_deref()),
            (
                "--detached-retention",
                "tasks",
                "detached_retention",
                self.detached_retention.as_deref(),
            ),
            ("--retention-max", "tasks", "retention_max", self.retention_max.as_deref()),
            ("--worker-window", "limits", "worker_window_tasks", self.worker_window.as_deref()),
            ("--client-window", "limits", "client_window_tasks", self.client_window.as_deref()),
            ("--memory", "limits", "memory", self.memory.as_deref()),
            ("--strict", "scheduling", "strict", self.strict.then_some("true")),
            ("--dead-letters", "dead", "letters", self.dead_letters.as_deref()),
            ("--dead-bytes", "dead", "bytes", self.dead_bytes.as_deref()),
            ("--dead-kept", "dead", "kept", self.dead_kept.as_deref()),
            ("--drain-time", "drain", "time", self.drain_time.as_deref()),
            ("--latency-log", "log", "latency", self.latency_log.as_deref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_names_a_setting_and_every_default_in_the_help_is_true() {
        let config = Config::default();
        let shown = config.to_toml();
        for (flag, section, key, _) in Cli::default().settings() {
            let mut loader = ConfigLoader::new();
            loader.flag(flag, section, key, "?");
            let _ = loader.finish();
        }
        for default in [
            "frontend = \"tcp://127.0.0.1:5555\"",
            "backend = \"tcp://127.0.0.1:5556\"",
            "http = \"127.0.0.1:5557\"",
            "io_threads = 1",
            "spin = \"0s\"",
            "heartbeat = \"1s\"",
            "lease = \"10s\"",
            "service_wait = \"30s\"",
            "max_runtime = \"1h\"",
            "tries_max = 3",
            "backoff = \"1s\"",
            "backoff_max = \"5m\"",
            "key_retention = \"10m\"",
            "detached_retention = \"1h\"",
            "retention_max = \"1day\"",
            "worker_window_tasks = 1024",
            "client_window_tasks = 10000",
            "memory = \"1GiB\"",
            "recall = true",
            "strict = false",
            "letters = 10000",
            "bytes = \"256MiB\"",
            "kept = \"7days\"",
            "time = \"30s\"",
        ] {
            assert!(shown.contains(default), "{default} is not in\n{shown}");
        }
    }

    #[test]
    fn a_wrong_flag_is_named_with_its_value() {
        let cli = Cli::parse_from(["pinmesh-broker", "--cpu", "x", "--spin", "1"]);
        let error = cli.load().unwrap_err().to_string();
        assert!(error.contains("--cpu x: must be a whole number from 0"), "{error}");
        assert!(error.contains("--spin 1: must be a duration with its unit"), "{error}");
    }
}
