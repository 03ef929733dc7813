//! `completions`: scripts that complete the command's words.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::{Failure, OK};
use crate::tasks::write_out;

pub(crate) const USE: &str = "\
For example:
  bash  pinmesh completions bash >~/.local/share/bash-completion/completions/pinmesh
  zsh   pinmesh completions zsh >~/.zfunc/_pinmesh      (with ~/.zfunc in the fpath)
  fish  pinmesh completions fish >~/.config/fish/completions/pinmesh.fish";

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Completions) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pinmesh", &mut script);
    write_out(&script)?;
    Ok(OK)
}
