//! `completions`: the script for a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Context;
use crate::error::Failure;

/// Which shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nightshift completions bash > ~/.local/share/bash-completion/completions/nightshift
  nightshift completions zsh > \"${fpath[1]}/_nightshift\"
  nightshift completions fish > ~/.config/fish/completions/nightshift.fish")]
pub struct Arguments {
    /// bash, zsh, fish, elvish or powershell.
    shell: Shell,
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::Arguments::command(), "nightshift", &mut script);
    context.out.text(&String::from_utf8_lossy(&script))
}
