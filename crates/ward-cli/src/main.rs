//! The binary `ward`: the server, and the operator's commands beside it.
//!
//! Nothing is decided here. The command line is read by [`args`], what it means is the library's, and this crate shows
//! what came of it: for people by default, as JSON with `--json`.

mod args;
mod backup;
mod health;
mod operate;
mod serve;
mod show;
mod welcome;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use ward::config::{ConfigError, RawSettings, Resolved};

use crate::args::{Cli, Command, Flags};

/// Requests allocate little but often, on all threads at once: about a tenth faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a command fails with; it is shown with its causes.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            show::failure(failure.as_ref());
            // As for a wrong command line: what was asked for cannot be, rather than did not work.
            ExitCode::from(if failure.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let resolve = |flags: Flags| -> Result<Resolved, Failure> {
        Ok(RawSettings::gather(cli.config.as_deref(), std::env::vars_os(), flags)?.resolve()?)
    };
    match cli.command {
        Command::Serve { settings } => serve::run(resolve(settings.0)?.config),
        Command::Config { settings, json } => {
            show::settings(&resolve(settings.0)?.in_force, json);
            Ok(())
        }
        Command::Migrate { settings, json } => operate::migrate(&resolve(settings.0)?.config, json),
        Command::Workspace { action, settings } => operate::workspace(resolve(settings.0)?.config, action),
        Command::Key { action, settings } => operate::key(resolve(settings.0)?.config, action),
        Command::Sync { action, settings } => operate::sync(resolve(settings.0)?.config, action),
        Command::Calls { action, settings } => operate::calls(resolve(settings.0)?.config, action),
        Command::Db { action, settings } => operate::database(resolve(settings.0)?.config, action),
        Command::Backup { to, settings, json } => backup::back_up(&resolve(settings.0)?.config, &to, json),
        Command::Restore { file, check: true, settings, json } => {
            resolve(settings.0)?;
            backup::check(&file, json)
        }
        Command::Restore { file, check: false, settings, json } => {
            backup::restore(&resolve(settings.0)?.config, &file, json)
        }
        Command::Secrets { action, settings } => operate::secrets(resolve(settings.0)?.config, &action),
        Command::Openapi => operate::openapi(),
        Command::Health { settings } => health::ask(&resolve(settings.0)?.config),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "ward", &mut std::io::stdout());
            Ok(())
        }
    }
}
