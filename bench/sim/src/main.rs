//! `pinmesh-sim`: campaigns, single seeds and scenarios.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use pinmesh_sim::campaign::{self, Failure, RunConfig};
use pinmesh_sim::world::Story;

/// The real broker, client, worker and supervisor machines in virtual time, with faults. Every
/// violation of what is promised ends the campaign, with the seed that repeats it.
#[derive(Debug, Parser)]
#[command(name = "pinmesh-sim", version)]
struct Flags {
    /// Seeds to run
    #[arg(long, default_value_t = 100, value_name = "N")]
    seeds: u64,
    /// Steps of each seed in trouble, before it is left to come to an end
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    steps: u64,
    /// The first seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    first_seed: u64,
    /// Seeds that run at the same time
    #[arg(long, default_value_t = 2, value_name = "N")]
    threads: usize,
    /// Only this seed
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "first_seed", "scenario"])]
    seed: Option<u64>,
    /// With --seed: tell everything that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Nothing goes wrong; such a run is refused as a proof
    #[arg(long)]
    no_faults: bool,
    /// Play a scenario instead, and tell what happens in it
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(path) = &flags.scenario {
        return play(path);
    }
    let config =
        RunConfig { seed: flags.first_seed, steps: flags.steps, has_faults: !flags.no_faults };
    let result = match flags.seed {
        Some(seed) => one(RunConfig { seed, ..config }, flags.trace),
        None => many(&flags, config),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            let commit = option_env!("PINMESH_SIM_COMMIT").unwrap_or("unknown");
            eprintln!("{failure}");
            eprintln!(
                "repeat: pinmesh-sim --seed {} --steps {} --trace (commit {commit})",
                failure.seed, flags.steps
            );
            ExitCode::FAILURE
        }
    }
}

fn one(config: RunConfig, is_traced: bool) -> Result<ExitCode, Box<Failure>> {
    let run = match is_traced {
        true => campaign::run(config, Story::Print)?,
        false => campaign::run_told(config)?,
    };
    println!("{}digest {:016x}", run.counters, run.digest);
    Ok(ExitCode::SUCCESS)
}

fn many(flags: &Flags, config: RunConfig) -> Result<ExitCode, Box<Failure>> {
    let begun = Instant::now();
    let seeds = flags.seeds;
    let progress = |done: u64| {
        if done.is_multiple_of(50) || done == seeds {
            eprintln!("{done} of {seeds} seeds, {:.1} s", begun.elapsed().as_secs_f64());
        }
    };
    let range = (flags.first_seed, seeds);
    let counters = campaign::campaign(range, config, flags.threads.max(1), progress)?;
    print!("{counters}");
    Ok(match campaign::objection(&counters, seeds) {
        None => {
            println!("{seeds} seeds x {} steps: no violation", flags.steps);
            ExitCode::SUCCESS
        }
        Some(objection) => {
            eprintln!("no violation, and no proof: {objection}");
            ExitCode::FAILURE
        }
    })
}

fn play(path: &std::path::Path) -> ExitCode {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("--scenario {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    };
    let played = pinmesh_sim::scenario::play(&text);
    for (at, line) in &played.story {
        println!("{} {line}", pinmesh_sim::world::At(*at));
    }
    match played.result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
