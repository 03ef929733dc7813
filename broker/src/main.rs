//! `pinmesh-broker`: see `pinmesh-broker --help`.
#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use pinmesh_broker::cli::Cli;
use pinmesh_broker::config::Config;
use pinmesh_broker::error::BrokerError;
use pinmesh_broker::event_loop::{Ended, EventLoop};
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_CUT_SHORT: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match cli.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if cli.print_config {
        return print(&config.to_toml());
    }
    if cli.check_config {
        let file = cli.config.as_ref().map_or("defaults".into(), |path| path.display().to_string());
        return print(&format!("{file}: ok\n"));
    }
    if let Err(error) = start_log() {
        eprintln!("{error}");
        return ExitCode::from(EXIT_USAGE);
    }
    match serve(&config) {
        Ok(Ended::Drained) => {
            tracing::info!("drained");
            ExitCode::SUCCESS
        }
        Ok(Ended::CutShort { tasks, results }) => {
            tracing::error!(
                tasks,
                results,
                "the drain was cut short: so many tasks have not ended, so many results were not \
                 acknowledged"
            );
            ExitCode::from(EXIT_CUT_SHORT)
        }
        Err(error) => {
            // Not `eprintln!`, which panics where nobody reads: the exit code has to be true.
            let _ = writeln!(std::io::stderr(), "pinmesh-broker: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn serve(config: &Config) -> Result<Ended, BrokerError> {
    raise_descriptor_limit(config.core.sessions_max);
    let event_loop = EventLoop::new(config)?;
    let (frontend, backend) = event_loop.endpoints();
    let http = event_loop.http().map(|http| format!(" http={http}")).unwrap_or_default();
    let ready = format!("pinmesh-broker ready frontend={frontend} backend={backend}{http}\n");
    if print(&ready) != ExitCode::SUCCESS {
        tracing::warn!("stdout is closed: nobody learns that the broker is ready");
    }
    event_loop.run()
}

fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}

fn start_log() -> Result<(), String> {
    let filter = match std::env::var("PINMESH_LOG") {
        Ok(text) => EnvFilter::try_new(&text)
            .map_err(|error| format!("PINMESH_LOG={text}: {error}; try `info` or `debug`"))?,
        Err(_) => EnvFilter::new("info"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would complain of a broken standard error there, panic over that, and end the broker.
        .log_internal_errors(false)
        .init();
    Ok(())
}

/// libzmq spins when it runs out of descriptors, so as many as allowed are asked for.
fn raise_descriptor_limit(sessions_max: u32) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let needed = u64::from(sessions_max) + 64;
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if allowed < needed {
        tracing::warn!(
            allowed,
            needed,
            "fewer open files are allowed than [limits] sessions needs; raise LimitNOFILE or \
             lower sessions"
        );
    }
}
