//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use humantime::parse_duration;
use pinmesh_client::DEFAULT_BROKER;

use crate::admin;

const EXIT_CODES: &str = "\
Exit codes:
  0  everything that was asked for was done
  1  a task failed, did not end in time, or an input could not be read
  2  the command line is wrong, there is no such command, or a journal belongs to another map
  3  no broker could be reached, or it refused the session
  4  the output could not be written
  130  a call or a map was interrupted

`pinmesh NAME` runs the program `pinmesh-NAME` beside this one or on the PATH, so that
`pinmesh broker`, `pinmesh worker` and `pinmesh bench` work where those are installed.";

const RESULT_EXIT_CODES: &str = "\
Exit codes:
  0  the task has ended OK, and its output was printed
  1  the task has ended otherwise, or not in time (--timeout)
  2  the command line is wrong
  3  no broker could be reached, or it refused the session
  4  the output could not be written
  5  the task has not ended (without --wait)
  6  no broker knows the key: it was never given, or its retention has passed
  130  interrupted; the task goes on";

const ADMIN_EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the broker says why not: no such task, service, host, worker or dead letter, it has ended, or
     there is no room for a replay
  2  the command line is wrong
  3  no broker's admin API could be reached
  4  the output could not be written";

/// Submits tasks to a pinmesh broker, and shows operators what it does.
#[derive(Debug, Parser)]
#[command(name = "pinmesh", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the mesh.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Broker to submit to, tcp://HOST:PORT or ipc:///PATH; repeat it, or separate by commas, to
    /// spread tasks over several
    #[arg(
        long = "broker",
        value_name = "ENDPOINT",
        env = "PINMESH_BROKER",
        default_value = DEFAULT_BROKER,
        value_delimiter = ',',
        global = true
    )]
    pub(crate) brokers: Vec<String>,
    /// File with the secret key of this client, as `pinmesh keygen` writes it, for brokers with keys
    #[arg(long, value_name = "FILE", env = "PINMESH_KEY", global = true)]
    pub(crate) key: Option<PathBuf>,
    /// Public key of the brokers, or a file that holds it; repeat it in the order of the brokers
    /// where each has another
    #[arg(
        long = "broker-key",
        value_name = "KEY|FILE",
        env = "PINMESH_BROKER_KEY",
        value_delimiter = ',',
        allow_hyphen_values = true,
        global = true
    )]
    pub(crate) broker_keys: Vec<String>,
    /// How long to wait for a broker before giving up with exit code 3
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "60s",
        value_parser = parse_duration,
        global = true
    )]
    pub(crate) connect_timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one task and print its output
    #[command(after_help = EXIT_CODES)]
    Call(Call),
    /// Print the output of a task that was called with an idempotency key, by whomever
    #[command(after_help = RESULT_EXIT_CODES)]
    Result(Fetch),
    /// Run one task for each file or line; print the outputs, or write them to files
    #[command(after_help = EXIT_CODES)]
    Map(Box<Map>),
    /// Measure round trips to the broker
    #[command(after_help = EXIT_CODES)]
    Ping(Ping),
    /// Operators: what each service has waiting and running
    #[command(after_help = ADMIN_EXIT_CODES)]
    Services(admin::Plain),
    /// Operators: where workers are and what keeps them busy
    #[command(after_help = ADMIN_EXIT_CODES)]
    Workers(admin::Plain),
    /// Operators: supervisors of workers
    #[command(after_help = ADMIN_EXIT_CODES)]
    Hosts(admin::Plain),
    /// Operators: who has tasks here
    #[command(after_help = ADMIN_EXIT_CODES)]
    Clients(admin::Plain),
    /// Operators: the tasks that the broker holds
    #[command(after_help = ADMIN_EXIT_CODES)]
    Tasks(admin::Tasks),
    /// Operators: what came in, how it ended, and whether that adds up
    #[command(after_help = ADMIN_EXIT_CODES)]
    Ledger(admin::Plain),
    /// Operators: where a task stands, and why it does not run yet
    #[command(after_help = ADMIN_EXIT_CODES)]
    Explain(admin::OfTask),
    /// Operators: end a task that waits, or have one stopped that runs
    #[command(after_help = ADMIN_EXIT_CODES)]
    Cancel(admin::Cancel),
    /// Operators: send no more tasks of a service to workers
    #[command(after_help = ADMIN_EXIT_CODES)]
    Pause(admin::OfService),
    /// Operators: send a service's tasks again
    #[command(after_help = ADMIN_EXIT_CODES)]
    Resume(admin::OfService),
    /// Operators: end every waiting task of a service, CANCELLED
    #[command(after_help = ADMIN_EXIT_CODES)]
    Purge(admin::OfService),
    /// Operators: have a worker, a host or the broker finish what it holds and leave
    #[command(after_help = ADMIN_EXIT_CODES)]
    Drain(admin::Drain),
    /// Operators: tasks that failed for good: list, show, run again, throw away
    #[command(after_help = ADMIN_EXIT_CODES)]
    Dead(admin::Dead),
    /// Make a key for a broker, a worker host or a client
    #[command(after_help = EXIT_CODES)]
    Keygen(crate::keygen::Keygen),
    /// Print a script that completes this command's words in a shell
    #[command(after_help = crate::completions::USE)]
    Completions(crate::completions::Completions),
    /// `pinmesh-NAME`, beside this program or on the PATH
    #[command(external_subcommand)]
    External(Vec<OsString>),
}

/// What payloads are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// Bytes in and bytes out, as they are
    Raw,
    /// Text in; text, or JSON, out
    Text,
    /// JSON here, MessagePack to the handler; its output as JSON, raw bytes as they are
    Json,
    /// MessagePack in; the output as JSON, raw bytes as they are
    Msgpack,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Text => "text",
            Self::Json => "json",
            Self::Msgpack => "msgpack",
        }
    }
}

/// Whether something is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum When {
    /// A bar, if standard error is a terminal
    Auto,
    /// A bar there, a line a second elsewhere
    Always,
    /// Nothing but failures and the summary
    Never,
}

/// How tasks are to run.
#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    /// What payloads are
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    pub(crate) format: Format,
    /// Urgency, 1 to 10; 10 has the greatest share of the workers and goes first within it
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub(crate) priority: u8,
    /// After so long a task is of no use and ends EXPIRED, counted from its submission [default:
    /// none]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) deadline: Option<Duration>,
    /// Kill what still runs when its deadline passes [default: ask it to stop]
    #[arg(long, requires = "deadline")]
    pub(crate) kill_at_deadline: bool,
    /// Not to start before so long has passed since its submission [default: at once]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) start_after: Option<Duration>,
    /// How long to wait for the output, in a map for the next one; what has not ended is then
    /// cancelled, with exit code 1 [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Only workers that have this label may run it. Repeat it to require several [default: none]
    #[arg(long = "require", value_name = "LABEL")]
    pub(crate) labels: Vec<String>,
    /// The longest that one attempt may run before its worker is killed [default: the broker's,
    /// 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) max_runtime: Option<Duration>,
    /// How often a task may start and end badly (an error, a run past its max runtime, a crash)
    /// before it ends for good; 1: it is never tried again [default: the broker's, 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tries: Option<u32>,
    /// The longest wait before a task's second try, doubled before each further one; the wait is
    /// random, from nothing to that [default: the broker's, 1s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) backoff: Option<Duration>,
    /// Never run a task again; after its worker or broker was lost it ends LOST
    #[arg(long)]
    pub(crate) at_most_once: bool,
    /// Print outputs that are no text to a terminal too
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Call {
    /// The service to call
    pub(crate) service: String,
    /// The input: text, `-` for standard input, `@FILE` for a file's content
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) payload: OsString,
    /// With several brokers: send it where all tasks with this key go, 1 to 128 bytes, so that they
    /// meet; to another while that broker is lost or busy [default: the one with the fewest
    /// outstanding]
    #[arg(long, value_name = "KEY")]
    pub(crate) affinity: Option<String>,
    /// The idempotency key, 1 to 128 bytes: all calls with the same one are one task, which runs
    /// once, and get its outcome, later ones too. It says where the task goes as well [default: none]
    #[arg(long, value_name = "KEY", conflicts_with_all = ["affinity", "progress"])]
    pub(crate) idempotency_key: Option<String>,
    /// How long the broker keeps the outcome under that key [default: the broker's, 10m; with
    /// --detach 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "idempotency_key")]
    pub(crate) retention: Option<Duration>,
    /// Do not wait for the output: end, with exit code 0, as soon as the broker has the task, which
    /// goes on by itself. `pinmesh result KEY` prints its output
    #[arg(long, requires = "idempotency_key")]
    pub(crate) detach: bool,
    /// If this command is gone before the task starts the task runs all the same [default: it is
    /// cancelled after 60s]
    #[arg(long)]
    pub(crate) run_on: bool,
    /// Show what the task says while it runs, a line each on standard error
    #[arg(long)]
    pub(crate) progress: bool,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// The idempotency key of the task
    #[arg(value_name = "KEY")]
    pub(crate) of_key: String,
    /// Wait until the task has ended [default: exit code 5 if it has not]
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait; then exit code 1, and the task goes on [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
    /// What the output is
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    pub(crate) format: Format,
    /// Print an output that is no text to a terminal too
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("inputs").required(true))]
#[command(group = clap::ArgGroup::new("kept").required(false))]
pub(crate) struct Map {
    /// The service to run
    pub(crate) service: String,
    /// Files, one a task; folders stand for the files in them, sorted, without symbolic links
    #[arg(long, value_name = "PATH", num_args = 1.., group = "inputs")]
    pub(crate) files: Vec<PathBuf>,
    /// A file that lists files, one a task, separated by line ends or by NUL; `-` for standard input
    #[arg(long, value_name = "FILE", group = "inputs")]
    pub(crate) files_from: Option<PathBuf>,
    /// A file of lines, one a task; `-` for standard input
    #[arg(long, value_name = "FILE", group = "inputs")]
    pub(crate) lines: Option<PathBuf>,
    /// The most tasks under way at a time
    #[arg(long, value_name = "TASKS", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) window: u32,
    /// Print in the order of the inputs instead of as the tasks end
    #[arg(long, conflicts_with = "output_dir")]
    pub(crate) ordered: bool,
    /// What to print for each task: {result}, {input}, {index}, \t, \n, \0, \\, {{ and }}; a line
    /// end follows
    #[arg(
        long,
        value_name = "TEMPLATE",
        default_value = "{result}  {input}",
        conflicts_with = "output_dir"
    )]
    pub(crate) output_format: crate::template::Template,
    /// Print to this file instead of standard output; it is overwritten unless --resume goes on
    #[arg(long, value_name = "FILE", group = "kept")]
    pub(crate) output: Option<PathBuf>,
    /// Write each result to a file of its own in this folder, named like the input: its path below
    /// the folder that was given, or the number of the line. Files are there whole or not at all
    #[arg(long, value_name = "DIR", group = "kept")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Added to the names of the files in --output-dir, such as `.zst`
    #[arg(
        long,
        value_name = "SUFFIX",
        default_value = "",
        hide_default_value = true,
        requires = "output_dir"
    )]
    pub(crate) suffix: String,
    /// Note in this file which inputs are done; a map that was cut short, even by kill -9, goes on
    /// from there when it is given the same inputs. Those that failed run again
    #[arg(long, value_name = "JOURNAL", requires = "kept")]
    pub(crate) resume: Option<PathBuf>,
    /// Write the inputs that failed to this file, one JSON object a line, instead of to standard
    /// error: index, input, status, message
    #[arg(long, value_name = "FILE")]
    pub(crate) errors: Option<PathBuf>,
    /// Stop once more than so many inputs have failed, with exit code 1 [default: never]
    #[arg(long, value_name = "N")]
    pub(crate) max_errors: Option<u64>,
    /// With several brokers: the key of each task, 1 to 128 bytes, with {input} and {index}; tasks
    /// with one key go to the same broker, to another while that one is lost or busy [default: the
    /// one with the fewest outstanding]
    #[arg(long, value_name = "TEMPLATE", value_parser = crate::template::Template::of_inputs)]
    pub(crate) affinity: Option<crate::template::Template>,
    /// Whether to show how far it is
    #[arg(long, value_enum, default_value_t = When::Auto)]
    pub(crate) progress: When,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// How many round trips
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// The pause between two
    #[arg(short, long, value_name = "DURATION", default_value = "200ms",
        value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// How long to wait for each echo
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}
