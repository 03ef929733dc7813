//! What scheduling promises, measured; `scripts/scheduling.sh` builds what it needs and runs it.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use pinmesh_tests::run as run_program;
use pinmesh_tests::scheduling::{Case, run};

/// Measures shares, tails and overload on meshes of real processes with the shipped configuration.
#[derive(Parser)]
struct Flags {
    /// Seconds of load in each measurement
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Number that the plans of tasks come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What to measure [default: all]
    cases: Vec<Case>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let cases = if flags.cases.is_empty() { Case::value_variants() } else { &flags.cases };
    let config = run_program("pinmesh-broker", ["--print-config"]);
    println!("configuration of the broker, as shipped:\n{}", config.stdout);
    let mut is_kept = true;
    for case in cases {
        let name = case.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned());
        println!("\n== {name}");
        let findings = run(*case, Duration::from_secs(flags.seconds), flags.seed);
        findings.lines.iter().for_each(|line| println!("{line}"));
        findings.broken.iter().for_each(|promise| println!("NOT KEPT: {promise}"));
        is_kept &= findings.broken.is_empty();
    }
    if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
