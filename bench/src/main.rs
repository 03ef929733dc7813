//! `pinmesh-bench`: load, latency histograms and reports for a pinmesh. See `pinmesh-bench --help`.

#![deny(unsafe_code)]

mod arrivals;
mod build_info;
mod child;
mod closed_loop;
mod error;
mod gates;
mod generator;
mod interrupt;
mod keys;
mod latency_files;
mod mesh;
mod meter;
mod open_gates;
mod open_loop;
mod open_report;
mod open_run;
mod output;
mod payload;
mod progress;
mod record;
mod report;
mod results;
mod run;
mod size;
mod spread;
mod throughput;
mod timeline;
mod warmup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    error::BenchError, interrupt::Interrupt, open_loop::RunArgs, throughput::ThroughputArgs,
};

const EXIT_FAILED: u8 = 1;
const EXIT_FLAGS: u8 = 2;
const EXIT_NOT_VALID: u8 = 3;
const EXIT_INTERRUPTED: u8 = 130;

/// Measures what a pinmesh carries, what it costs, and how long its tasks take.
///
/// `run` is an open loop: it sends when planned, whatever the mesh does, and so measures response
/// times as users would feel them. `throughput` is a closed loop: it waits for results before it
/// sends more, and so finds the most that the mesh carries, but no response times.
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
    Run(RunArgs),
    Throughput(ThroughputArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_NOT_VALID),
        Err(error) => {
            eprintln!("pinmesh-bench: {error}");
            ExitCode::from(match error {
                BenchError::Interrupted => EXIT_INTERRUPTED,
                BenchError::Flags(_) => EXIT_FLAGS,
                _ => EXIT_FAILED,
            })
        }
    }
}

fn run(command: &Command) -> Result<bool, BenchError> {
    let interrupt = Interrupt::install()?;
    match command {
        Command::Run(args) => open_loop::run(args, &interrupt),
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

    #[test]
    fn keys_are_those_of_a_given_broker_or_made_for_a_mesh_of_ones_own() {
        for command in ["throughput", "run --rate 1k"] {
            let parse = |flags: &str| {
                let line = format!("pinmesh-bench {command} {flags}");
                Cli::try_parse_from(line.split_whitespace()).is_ok()
            };
            assert!(parse("--curve"));
            assert!(parse("--broker tcp://127.0.0.1:1 --key a.key --broker-key b.pub"));
            assert!(!parse("--broker tcp://127.0.0.1:1 --curve"));
            assert!(!parse("--key a.key --broker-key b.pub"));
            assert!(!parse("--broker tcp://127.0.0.1:1 --key a.key"));
            assert!(!parse("--broker tcp://127.0.0.1:1 --broker-key b.pub"));
        }
    }

    #[test]
    fn a_service_that_is_told_its_time_needs_one() {
        let parse = |flags: &str| {
            Cli::try_parse_from(format!("pinmesh-bench run --rate 1k {flags}").split_whitespace())
        };
        assert!(parse("").is_ok());
        assert!(parse("--service spin").is_err());
        assert!(parse("--service spin --service-time 50us").is_ok());
        assert!(parse("--service spin --service-time 50us --payload 64").is_err());
        assert!(parse("--broker tcp://127.0.0.1:1 tcp://127.0.0.1:2 --arrivals constant").is_ok());
        assert!(parse("--broker tcp://127.0.0.1:1 --workers 2").is_err());
        assert!(Cli::try_parse_from(["pinmesh-bench", "run"]).is_err());
    }
}
