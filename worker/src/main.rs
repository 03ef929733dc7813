//! `pinmesh-worker`: the ready-made worker.

use std::process::ExitCode;

use clap::Parser;
use pinmesh_worker::{WorkerFlags, builtin_services, test_services};

/// Runs the ready-made services of pinmesh, one worker process a CPU, until SIGTERM.
///
/// Services: echo (the payload back), sleep and spin (wait, or keep the CPU busy, for the duration
/// in the payload), sha256 (the payload's digest, lowercase hex).
#[derive(Parser, Debug)]
#[command(name = "pinmesh-worker", version)]
struct CommandLine {
    #[command(flatten)]
    flags: WorkerFlags,

    /// Services to serve, comma-separated. Default: all of them
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    services: Option<Vec<String>>,

    /// Also serve services that fail, panic, exit and abort
    #[arg(long, hide = true)]
    test_services: bool,
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let mut worker = builtin_services();
    if command_line.test_services {
        worker = test_services(worker);
    }
    if let Some(wanted) = &command_line.services {
        if let Some(unknown) = wanted.iter().find(|name| !worker.services().any(|n| n == *name)) {
            let known: Vec<&str> = worker.services().collect();
            eprintln!("--services `{unknown}`: there is no such service; take some of {known:?}");
            return ExitCode::from(2);
        }
        worker = worker.retain(|name| wanted.iter().any(|w| w == name));
    }
    worker.main_with(&command_line.flags)
}
