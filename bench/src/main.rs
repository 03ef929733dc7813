//! `pinmesh-bench`: load, latency histograms and reports for a pinmesh. See `pinmesh-bench --help`.

#![deny(unsafe_code)]

mod build_info;
mod child;
mod closed_loop;
mod error;
mod gates;
mod interrupt;
mod mesh;
mod meter;
mod progress;
mod record;
mod report;
mod run;
mod size;
mod throughput;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{error::BenchError, interrupt::Interrupt, throughput::ThroughputArgs};

const EXIT_FAILED: u8 = 1;
const EXIT_NOT_VALID: u8 = 3;
const EXIT_INTERRUPTED: u8 = 130;

/// Measures what a pinmesh carries, and what it costs.
///
/// Without --broker each run starts a mesh of its own, with the pinmesh-broker and pinmesh-worker
/// that lie beside this program, and ends it.
///
/// Exit codes: 0 measured, 1 not measured, 2 wrong flags, 3 measured but not valid (the report says
/// why), 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "pinmesh-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Throughput(ThroughputArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_NOT_VALID),
        Err(error) => {
            eprintln!("pinmesh-bench: {error}");
            let is_interrupted = matches!(error, BenchError::Interrupted);
            ExitCode::from(if is_interrupted { EXIT_INTERRUPTED } else { EXIT_FAILED })
        }
    }
}

fn run(command: &Command) -> Result<bool, BenchError> {
    let interrupt = Interrupt::install()?;
    match command {
        Command::Throughput(args) => throughput::run(args, &interrupt),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_a_mesh_of_ones_own_exclude_a_given_broker() {
        let given = ["pinmesh-bench", "throughput", "--broker", "tcp://127.0.0.1:5555"];
        assert!(Cli::try_parse_from(given).is_ok());
        for flags in [["--workers", "2"], ["--cpus", "0-1"], ["--latency-logs", "/tmp"]] {
            let both = given.iter().chain(&flags);
            assert!(Cli::try_parse_from(both).is_err(), "{flags:?}");
        }
        assert!(Cli::try_parse_from(["pinmesh-bench", "throughput", "--broker-pid", "7"]).is_err());
    }
}
