//! Sealed values that none of the configured keys opens. People must enter them again after the loss of a
//! master key.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;
use ward_db::Tx;

use super::OperatorError;
use crate::app::App;
use crate::context::Context;
use crate::error::ApiError;
use crate::gate::idempotency;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::integrations::{self, SecretAt};
use crate::twilio;
use crate::vault::{self, SealedRow, Vault};
use crate::workspaces;

/// Rows of one kind that one transaction reads.
const AT_ONCE: u32 = 200;

/// A sealed value that none of the configured keys opens.
#[derive(Clone, Debug, Serialize)]
pub struct UnopenedValue {
    pub workspace_id: WorkspaceId,
    /// The slug of that workspace, if the workspace exists.
    pub workspace: Option<String>,
    /// The integration that it belongs to; `None` for a Twilio account.
    pub integration_id: Option<IntegrationId>,
    /// The name of that integration, if the integration exists.
    pub integration: Option<String>,
    /// The path of the field, such as `auth/bearer_token` or `twilio/secondary_auth_token`.
    pub field: String,
}

impl fmt::Display for UnopenedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.field)?;
        if let Some(id) = self.integration_id {
            write!(f, " of integration {}", self.integration.as_deref().unwrap_or(&id.to_string()))?;
        }
        write!(f, " of workspace {}", self.workspace.as_deref().unwrap_or(&self.workspace_id.to_string()))
    }
}

/// The sealed values that no configured key opens.
#[derive(Default)]
pub struct LostSecrets {
    /// The number of values that were checked.
    pub sealed: usize,
    secrets: Vec<SealedRow<SecretAt>>,
    tokens: Vec<SealedRow<WorkspaceId>>,
    answers: Vec<SealedRow<String>>,
    /// The values that must be entered again. Answers kept for a replay are left out, because they expire
    /// within minutes.
    pub unopened: Vec<UnopenedValue>,
}

impl LostSecrets {
    /// Whether the keys open every value.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.tokens.is_empty() && self.answers.is_empty()
    }
}

/// The forgotten values, counted, with those that must be entered again.
#[derive(Debug, Default, Serialize)]
pub struct ForgottenSecrets {
    /// The number of forgotten values that must be entered again.
    pub forgotten: usize,
    /// The number of forgotten answers for replays, which expire within minutes anyway.
    pub forgotten_answers: usize,
    /// The values that must be entered again.
    pub enter_again: Vec<UnopenedValue>,
}

/// Tries every sealed value, and collects those that no key of `vault` opens.
pub async fn lost_secrets(app: &App, vault: &Vault) -> Result<LostSecrets, OperatorError> {
    let mut lost = LostSecrets::default();
    let mut after = None;
    loop {
        let from = after.clone();
        let rows = app
            .db
            .read_long("operator.sealed_secrets", move |tx| integrations::sealed_rows(tx, from.as_ref()))
            .await?;
        after = rows.last().map(|row| row.at.clone());
        lost.sealed += rows.len();
        lost.secrets.extend(unopened(rows, vault));
        if after.is_none() {
            break;
        }
    }
    let mut after = Some(WorkspaceId(Uuid::nil()));
    while let Some(from) = after {
        let rows = app
            .db
            .read_long("operator.sealed_tokens", move |tx| twilio::sealed_rows(tx, from, AT_ONCE))
            .await?;
        after = rows.last().map(|row| row.at);
        lost.sealed += rows.len();
        lost.tokens.extend(unopened(rows, vault));
    }
    let now = app.clock.now();
    let mut after = Some(String::new());
    while let Some(from) = after {
        let rows = app
            .db
            .read_long("operator.sealed_answers", move |tx| idempotency::sealed_rows(tx, now, &from, AT_ONCE))
            .await?;
        after = rows.last().map(|row| row.at.clone());
        lost.sealed += rows.len();
        lost.answers.extend(unopened(rows, vault));
    }
    let (secrets, tokens) = (lost.secrets.clone(), lost.tokens.clone());
    lost.unopened =
        app.db.read_long("operator.name_sealed", move |tx| name_all(tx, &secrets, &tokens)).await?;
    Ok(lost)
}

fn unopened<A>(rows: Vec<SealedRow<A>>, vault: &Vault) -> impl Iterator<Item = SealedRow<A>> {
    rows.into_iter().filter(|row| vault.open(&row.bytes, &row.place).is_err())
}

/// Adds the names of the workspaces and integrations.
fn name_all(
    tx: &mut Tx<'_>,
    secrets: &[SealedRow<SecretAt>],
    tokens: &[SealedRow<WorkspaceId>],
) -> Result<Vec<UnopenedValue>, OperatorError> {
    let mut named = Vec::with_capacity(secrets.len() + tokens.len());
    for (workspace_id, integration, field) in secrets
        .iter()
        .map(|row| (row.at.0, Some(row.at.1), row.at.2.as_str()))
        .chain(tokens.iter().map(|row| (row.at, None, twilio::field_of(&row.place))))
    {
        let workspace = workspaces::operator::find(tx, &workspace_id.to_string())?;
        let name = match integration {
            Some(id) => integrations::name(tx, workspace_id, id)?,
            None => None,
        };
        named.push(UnopenedValue {
            workspace_id,
            workspace: workspace.map(|found| found.workspace.slug),
            integration_id: integration,
            integration: name,
            field: field.to_owned(),
        });
    }
    Ok(named)
}

/// Forgets these values, each with an event in its workspace's audit, and then the keys that sealed them.
/// Afterwards the database accepts the key of `vault`. If `vault` has none, it accepts the key of the next
/// server.
pub async fn forget_secrets(
    app: &App,
    vault: &Vault,
    lost: LostSecrets,
) -> Result<ForgottenSecrets, OperatorError> {
    let mut forgotten = 0;
    let context = Context::of_operator(app.clock.now());
    for group in lost.secrets.chunk_by(|one, next| (one.at.0, one.at.1) == (next.at.0, next.at.1)) {
        let (rows, context) = (group.to_vec(), Context::of_operator(context.now));
        forgotten += app
            .db
            .write("operator.forget_secrets", move |tx| integrations::forget_secrets(tx, &context, &rows))
            .await?;
    }
    for mut tokens in lost.tokens.chunk_by(|one, next| one.at == next.at).map(<[_]>::to_vec) {
        // The loss of the first token deletes the account with the second one, so the second one goes first.
        tokens.reverse();
        for row in tokens {
            let context = Context::of_operator(context.now);
            let done =
                app.db.write("operator.forget_token", move |tx| twilio::forget(tx, &context, &row)).await?;
            forgotten += usize::from(done);
        }
    }
    let forgotten_answers = lost.answers.len();
    for row in lost.answers {
        app.db.write("operator.forget_answer", move |tx| idempotency::forget(tx, &row)).await?;
    }
    let current = vault.has_key().then(|| vault.check_value().to_owned());
    app.db
        .write("operator.forget_lost_keys", move |tx| -> Result<(), ApiError> {
            match &current {
                Some(current) => vault::keep_only(tx, current)?,
                None => vault::forget_all(tx)?,
            }
            Ok(())
        })
        .await?;
    Ok(ForgottenSecrets { forgotten, forgotten_answers, enter_again: lost.unopened })
}
