//! `pinmesh-worker`: the ready-made worker.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use pinmesh_worker::{
    Program, Worker, WorkerError, WorkerFlags, ZSTD_LEVEL, builtin_services, exec_service,
    test_services, zstd_services,
};

/// Runs the ready-made services of pinmesh, one worker process a CPU, until SIGTERM. SIGHUP starts
/// the workers anew, one after the other, from the program's file as it is then.
///
/// Services: echo (the payload back), sleep and spin (wait, or keep the CPU busy, for the duration
/// in the payload), sha256 (the payload's digest, lowercase hex), zstd and unzstd (compress and
/// decompress the payload), and exec (run a program on it), which needs a command.
#[derive(Parser, Debug)]
#[command(name = "pinmesh-worker", version)]
struct CommandLine {
    #[command(flatten)]
    flags: WorkerFlags,

    /// Services to serve, comma-separated. Default: all of them, exec if there is a command
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    services: Option<Vec<String>>,

    /// Level of zstd, 1 (fastest) to 22 (smallest, and slow)
    #[arg(long, value_name = "LEVEL", default_value_t = ZSTD_LEVEL,
          value_parser = clap::value_parser!(i32).range(1..=22))]
    zstd_level: i32,

    /// Name of the service that runs the command, so that workers with other commands can share a
    /// mesh with this one
    #[arg(long, value_name = "NAME", default_value = "exec", requires = "command")]
    exec_as: String,

    /// After `--`: the program of exec and its arguments, such as `-- gzip -9n`. It runs once a task
    /// on the worker's CPU, with the payload on standard input; standard output is the result, and an
    /// exit status other than 0 the task's failure. No shell reads it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// Also serve services that fail, panic, exit and abort
    #[arg(long, hide = true)]
    test_services: bool,
}

impl CommandLine {
    fn worker(&self) -> Result<Worker, WorkerError> {
        let mut worker = zstd_services(builtin_services(), self.zstd_level);
        if !self.command.is_empty() {
            worker = exec_service(worker, &*self.exec_as, Program::find(&self.command)?);
        }
        if self.test_services {
            worker = test_services(worker);
        }
        let Some(wanted) = &self.services else { return Ok(worker) };
        if let Some(unknown) = wanted.iter().find(|name| !worker.services().any(|n| n == *name)) {
            let known: Vec<&str> = worker.services().collect();
            let reason = match &**unknown {
                "exec" if self.command.is_empty() => "exec needs the command that it is to run: \
                    write it last, after `--`, as in `pinmesh-worker --services exec -- gzip -9n`"
                    .to_owned(),
                _ => format!("there is no such service; take some of {}", known.join(", ")),
            };
            return Err(WorkerError::Flag { flag: "--services", value: unknown.clone(), reason });
        }
        Ok(worker.retain(|name| wanted.iter().any(|w| w == name)))
    }
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    match command_line.worker() {
        Ok(worker) => worker.main_with(&command_line.flags),
        Err(error) => {
            eprintln!("pinmesh-worker: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
