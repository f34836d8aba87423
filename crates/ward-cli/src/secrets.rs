//! `ward secrets`: the operator's master key, and the values sealed under it.

use std::io::IsTerminal as _;

use ward::app::CommandAccess;
use ward::config::{Config, create_master_key};
use ward::operator::{self, ForgottenSecrets, LostSecrets};

use crate::args::SecretsAction;
use crate::failure::Failure;
use crate::operate::on;
use crate::show;
use crate::show::Output;

pub fn run(config: Config, action: &SecretsAction, out: Output) -> Result<(), Failure> {
    match action {
        SecretsAction::CreateKey => create(&config, out),
        SecretsAction::Rotate => rotate(config, out),
        SecretsAction::Forget { yes } => forget(config, *yes, out),
    }
}

fn create(config: &Config, out: Output) -> Result<(), Failure> {
    let path = create_master_key(&config.master_key)?.display().to_string();
    if out.is_json() {
        return Ok(out.one(&serde_json::json!({ "master_key_file": path }))?);
    }
    show::line(&format!("created {path}"));
    out.remark("Keep a copy of the file elsewhere: sealed values cannot be read without it. Every replica needs the same key.");
    Ok(())
}

fn rotate(config: Config, out: Output) -> Result<(), Failure> {
    on(config, CommandAccess::Seal, async |app| {
        let rotated = operator::rotate_secrets(&app, |progress| {
            out.remark(&format!("{} of {} values sealed under the current key", progress.done, progress.of));
        })
        .await?;
        out.one(&rotated)?;
        for what in &rotated.unopened {
            out.remark(&format!("cannot be opened with these keys: {what}"));
        }
        match rotated.left {
            0 => Ok(()),
            left if left <= rotated.unopened.len() => {
                Err("some values cannot be opened and stay under a previous key. Add the missing key to former_master_keys, \
                     or forget those values with `ward secrets forget`; then run this command again"
                    .into())
            }
            _ => Err("a running server still seals under a previous key: give it the new key, then run this command again".into()),
        }
    })
}

/// Lists the values that no given key opens, and forgets them after a confirmation.
fn forget(config: Config, yes: bool, out: Output) -> Result<(), Failure> {
    on(config, CommandAccess::Alone, async |app| {
        let lost = operator::lost_secrets(&app, &app.vault).await?;
        if lost.is_empty() && app.vault.has_key() && app.check_master_key().await.is_ok() {
            out.remark("The master key opens every sealed value: there is nothing to forget.");
            return if out.is_json() { Ok(out.one(&ForgottenSecrets::default())?) } else { Ok(()) };
        }
        let question = format!(
            "{} of {} sealed values cannot be opened with the given keys.",
            lost.unopened.len(),
            lost.sealed
        );
        if !confirmed(&question, &lost, yes, out)? {
            return Err(
                "nothing was forgotten: run the command again with --yes to forget these values".into()
            );
        }
        let forgotten = operator::forget_secrets(&app, &app.vault, lost).await?;
        if out.is_json() {
            out.one(&forgotten)?;
        } else {
            out.many(&forgotten.enter_again, &COLUMNS)?;
            show::line(&format!("forgot {} sealed values; enter these again", forgotten.forgotten));
            if forgotten.forgotten_answers > 0 {
                show::line(&format!("forgot {} answers kept for replays too", forgotten.forgotten_answers));
            }
        }
        out.remark(if app.vault.has_key() {
            "The database uses the given master key from now on."
        } else {
            "`ward secrets create-key` creates a new master key; the next `ward serve` uses it."
        });
        Ok(())
    })
}

/// The columns of the table of lost values.
const COLUMNS: [&str; 5] = ["workspace", "workspace_id", "integration", "integration_id", "field"];

/// Whether the operator confirmed: by the flag, or by the answer to a question. Without either the values are
/// only listed.
fn confirmed(question: &str, lost: &LostSecrets, yes: bool, out: Output) -> Result<bool, Failure> {
    if yes {
        return Ok(true);
    }
    out.many(&lost.unopened, &COLUMNS)?;
    out.remark(question);
    if out.is_json() || !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    out.remark("Type yes to forget them. They must then be entered again.");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}
