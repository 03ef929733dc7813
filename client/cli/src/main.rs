//! The `pinmesh` command: submits tasks, and runs the other programs of the mesh.
#![forbid(unsafe_code)]

mod admin;
mod args;
mod completions;
mod external;
mod failure;
mod feed;
mod format;
mod inputs;
mod keygen;
mod map;
mod progress;
mod signals;
mod tasks;
mod template;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match &cli.command {
        Command::Call(args) => tasks::call(&cli.connection, args),
        Command::Result(args) => tasks::result(&cli.connection, args),
        Command::Map(args) => map::map(&cli.connection, args),
        Command::Ping(args) => tasks::ping(&cli.connection, args),
        Command::Services(args) => admin::services(args),
        Command::Workers(args) => admin::workers(args),
        Command::Hosts(args) => admin::hosts(args),
        Command::Clients(args) => admin::clients(args),
        Command::Tasks(args) => admin::tasks(args),
        Command::Ledger(args) => admin::ledger(args),
        Command::Explain(args) => admin::explain(args),
        Command::Cancel(args) => admin::cancel(args),
        Command::Pause(args) => admin::pause(args),
        Command::Resume(args) => admin::resume(args),
        Command::Purge(args) => admin::purge(args),
        Command::Drain(args) => admin::drain(args),
        Command::Dead(args) => admin::dead(args),
        Command::Keygen(args) => keygen::run(args),
        Command::Completions(args) => completions::run(args),
        Command::External(words) => Err(external::run(words)),
    };
    match ended {
        Ok(code) => code.into(),
        Err(failure) => {
            progress::say(format!("pinmesh: {}", failure.message).as_bytes());
            failure.code.into()
        }
    }
}
