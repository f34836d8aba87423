//! The binary `ward`: the server, and the operator's commands beside it.
//!
//! This crate decides nothing. [`args`] parses the command line, the library executes the commands, and this
//! crate prints the results: as text by default, as JSON with `--json`.

mod args;
mod backup;
mod client;
mod completions;
mod doctor;
mod failure;
mod flags;
mod health;
mod operate;
mod scan;
mod secrets;
mod serve;
mod show;
mod welcome;

use std::process::ExitCode;

use clap::Parser as _;
use ward::app::OpenError;
use ward::config::{ConfigError, LogFormat, RawSettings, ResolvedSettings};
use ward::operator::OperatorError;

use crate::args::{Cli, Command};
use crate::failure::{CodedFailure, Failure};
use crate::flags::{CommonSettings, Flags, Global};
use crate::show::Output;

/// Requests allocate little but often, on all threads at once. This allocator makes them about a tenth faster
/// than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let out = Output::new(cli.global.json);
    match run(cli, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(coded) = failure.downcast_ref::<CodedFailure>() {
                out.error(&coded.message, &coded.code, &coded.because);
                return ExitCode::from(coded.exit);
            }
            out.failure(failure.as_ref(), code_of(failure.as_ref()));
            // 2 is also the code for a wrong command line: the request itself was wrong.
            ExitCode::from(if failure.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

/// Prints why the command line was refused, or the help that it asked for.
fn refused(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if json && error.use_stderr() {
        let text = error.to_string();
        Output::new(true).error(text.trim().trim_start_matches("error: "), "usage", &[]);
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// A short name of the kind of failure, for scripts.
fn code_of(failure: &(dyn std::error::Error + Send + Sync + 'static)) -> &'static str {
    if let Some(error) = failure.downcast_ref::<OperatorError>() {
        return error.code();
    }
    match failure.downcast_ref::<OpenError>() {
        Some(OpenError::Database(_)) => "database",
        Some(OpenError::OldSchema(_)) => "old_schema",
        Some(OpenError::OtherMasterKey | OpenError::Vault(_)) => "master_key",
        Some(OpenError::Config(_)) => "config",
        Some(_) => "not_started",
        None if failure.is::<ConfigError>() => "config",
        None => "failed",
    }
}

fn run(cli: Cli, out: Output) -> Result<(), Failure> {
    let Global { config, json: _, settings: CommonSettings(common) } = cli.global;
    let resolve = |flags: Flags| -> Result<ResolvedSettings, Failure> {
        let flags = common.iter().cloned().chain(flags);
        let mut resolved = RawSettings::gather(config.as_deref(), std::env::vars_os(), flags)?.resolve()?;
        if out.is_json() && resolved.config.log == LogFormat::Auto {
            // Standard error then holds one JSON object per line in every case.
            resolved.config.log = LogFormat::Json;
        }
        Ok(resolved)
    };
    let plain = || Ok::<_, Failure>(resolve(Flags::new())?.config);
    match cli.command {
        Command::Serve { settings } => serve::run(resolve(settings.0)?.config, out),
        Command::Config { settings } => Ok(out.settings(&resolve(settings.0)?.in_force)?),
        Command::Api { flags, called } => client::run(client::api(flags, called, out)),
        Command::Login(arguments) => client::run(client::login(arguments, out)),
        Command::Claim(arguments) => client::run(client::claim(arguments, out)),
        Command::Logout { profile } => client::logout(profile.as_deref(), out),
        Command::Profiles { default } => client::profiles(default, out),
        Command::Migrate => operate::migrate(&plain()?, out),
        Command::Workspace { action } => operate::workspace(plain()?, action, out),
        Command::Key { action } => operate::key(plain()?, action, out),
        Command::Member { action } => operate::member(plain()?, action, out),
        Command::Sync { action } => operate::sync(plain()?, action, out),
        Command::Calls { action } => operate::calls(plain()?, action, out),
        Command::Twilio { action } => operate::twilio(plain()?, action, out),
        Command::Db { action } => operate::database(plain()?, action, out),
        Command::Backup { to } => backup::back_up(&plain()?, &to, out),
        Command::Restore { file, check: true } => {
            plain()?;
            backup::check(&file, out)
        }
        Command::Restore { file, check: false } => backup::restore(&plain()?, &file, out),
        Command::Secrets { action } => secrets::run(plain()?, &action, out),
        Command::Doctor { settings } => doctor::run(&resolve(settings.0)?, out),
        Command::Openapi => operate::openapi(&plain()?),
        Command::Health { settings } => health::ask(&resolve(settings.0)?.config, out),
        Command::Completions { shell } => {
            completions::print(shell);
            Ok(())
        }
        Command::Man { folder } => operate::manual(&folder, out),
    }
}
