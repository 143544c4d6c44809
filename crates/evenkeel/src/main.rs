//! The command line and the wiring of the rooms: what `evenkeel` does is done by the crates beside this one.

mod affinity;
mod balance_command;
mod check;
mod cli;
mod demo;
mod describe;
mod diagnose;
mod drill;
mod exit;
mod explain;
mod remote;
mod runtime;
mod source;
mod table;
mod terminal;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command, RunArgs};
use source::Origin;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => exit::refused(format_args!("{error:#}")),
    }
}

/// Runs one command. An error is what the system refused; what the user gave wrong has been said already.
fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check(args) => Ok(check::run(&args)),
        Command::Explain(args) => explain::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Balance(args) => balance_command::run(&args),
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&config::schema())?;
            exit::print(&format!("{schema}\n"));
            Ok(exit::WELL)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "evenkeel", &mut script);
            exit::print(&String::from_utf8_lossy(&script));
            Ok(exit::WELL)
        }
        Command::ReferenceConfig => {
            exit::print(&config::reference());
            Ok(exit::WELL)
        }
        Command::Run(args) => run(&args),
        Command::Status(args) => remote::status(&args),
        Command::Top(args) => top::run(&args),
        Command::Reload(args) => remote::reload(&args),
        Command::Upgrade(args) => remote::upgrade(&args),
        Command::Server(args) => remote::server(&args),
        Command::Drill(args) => drill::run(&args),
        Command::Affinity(args) => affinity::run(&args),
    }
}

/// Keeps this process to pages of the usual size. Its memory is many small things that come and go: in huge pages it
/// takes three times as much, and the kernel puts together again what was given back.
fn refuse_huge_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    if runtime::parent::is_needed() {
        return runtime::parent::run();
    }
    refuse_huge_pages();
    let origin = match Origin::find(args.file.as_deref()) {
        Ok(origin) => origin,
        Err(error) => return Ok(exit::wrong(error)),
    };
    let options = runtime::Options {
        watch: args.watch,
        strict: args.strict,
        upgrades: true,
    };
    runtime::run(origin, options)
}
