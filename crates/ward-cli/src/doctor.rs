//! `ward doctor`: checks the installation, and gives a remedy for each problem.

use serde_json::json;
use ward::config::settings::by_key;
use ward::config::{Config, ResolvedSettings, Source};
use ward::operator::doctor::{self, Finding, Health};

use crate::failure::Failure;
use crate::show::Output;
use crate::{health, show};

/// Prints a line for each check, and fails when something must be done.
pub fn run(resolved: &ResolvedSettings, out: Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut found = vec![Finding::ok("settings", "they fit together")];
    found.extend(settings_file(resolved));
    found.extend(runtime.block_on(doctor::examine(&resolved.config)));
    found.push(server(&resolved.config));
    let problems = found.iter().filter(|finding| finding.status == Health::Problem).count();
    if out.is_json() {
        out.one(&json!({ "problems": problems, "findings": found }))?;
    } else {
        for finding in &found {
            show::line(&text(finding));
        }
    }
    match problems {
        0 => Ok(()),
        1 => Err("there is 1 problem: the line above says what to do".into()),
        count => Err(format!("there are {count} problems: the lines above say what to do").into()),
    }
}

fn text(finding: &Finding) -> String {
    let status = match finding.status {
        Health::Ok => "ok",
        Health::Note => "note",
        Health::Problem => "PROBLEM",
    };
    let line = format!("{status:<8} {:<14} {}", finding.check, finding.message);
    match &finding.action {
        Some(action) => format!("{line}\n{:24}to do: {action}", ""),
        None => line,
    }
}

/// Checks that only the owner can read a settings file with a secret.
fn settings_file(resolved: &ResolvedSettings) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt as _;
    let with_secret = resolved.in_force.iter().find_map(|setting| match &setting.source {
        Source::File(path) if by_key(setting.key)?.secret => Some((setting.key, path)),
        _ => None,
    });
    let (key, path) = with_secret?;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    Some(if mode & 0o077 != 0 {
        Finding::problem(
            "settings file",
            format!("{} holds {key}, and other users can read it (mode {mode:04o})", path.display()),
            format!("chmod 600 {}", path.display()),
        )
    } else {
        Finding::ok("settings file", format!("only its owner can read {}", path.display()))
    })
}

/// Checks whether the server with these settings answers. A server that does not run is not a problem of the
/// installation.
fn server(config: &Config) -> Finding {
    match health::find(config) {
        (asked, Ok(status)) => Finding::ok("server", format!("{asked} is {status}")),
        (asked, Err(error)) => {
            Finding::note("server", format!("{asked} does not answer: {error}; `ward serve` starts a server"))
        }
    }
}
