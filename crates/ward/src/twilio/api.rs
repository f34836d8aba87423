//! The JSON routes of a workspace's Twilio account, and the route for Twilio's callbacks.

use serde::Serialize;
use serde_json::Value;
use ward_contract::RuleProblem;
use ward_db::Timestamp;

use super::{Account, Mode, actions, callback, callback_url, secondary_token_place, store, token_place};
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Open, Reply, Request, Sent};
use crate::ids::WorkspaceId;
use crate::text;

#[derive(Serialize)]
struct TwilioSetupResponse {
    configured: bool,
    account_sid: Option<String>,
    auth_token_reference: Option<String>,
    secondary_auth_token_reference: Option<String>,
    status_callback_url: Option<String>,
    reconciliation: Option<Mode>,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
}

impl TwilioSetupResponse {
    fn of(request: &Request, workspace: WorkspaceId, account: Option<Account>) -> Self {
        Self {
            configured: account.is_some(),
            auth_token_reference: account.is_some().then(|| token_place(workspace)),
            secondary_auth_token_reference: account
                .as_ref()
                .filter(|account| account.secondary_auth_token.is_some())
                .map(|_| secondary_token_place(workspace)),
            status_callback_url: callback_url(request.app.config.public_url.as_deref(), workspace),
            reconciliation: account.as_ref().map(|account| account.reconciliation),
            created_at: account.as_ref().map(|account| account.created_at),
            updated_at: account.as_ref().map(|account| account.updated_at),
            account_sid: account.map(|account| account.account_sid),
        }
    }
}

/// The value rule of Twilio's tokens. The validator has trimmed the white space around them. A token with
/// other white space or invisible characters would refuse every callback.
pub fn token_rule(value: &Value) -> Vec<RuleProblem> {
    let stray = value.as_str().is_some_and(|token| token.chars().any(text::is_stray));
    let problem = || RuleProblem::here("must not contain white space or an invisible character".to_owned());
    stray.then(problem).into_iter().collect()
}

pub async fn get(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let account = request.app.db.read("calls.twilio_setup", move |tx| store::get(tx, workspace)).await?;
    Reply::ok(&TwilioSetupResponse::of(&request, workspace, account))
}

pub async fn set(
    request: Request,
    (entry, sent): (Entry, Sent<actions::TwilioSetupRequest>),
) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let account = actions::set(&request.app, entry, sent.value).await?;
    Reply::ok(&TwilioSetupResponse::of(&request, workspace, Some(account)))
}

pub async fn delete(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    actions::remove(&request.app, entry).await?;
    Ok(Reply::no_content())
}

pub async fn receive(mut request: Request, _: Open) -> Result<Reply, ApiError> {
    let verified = callback::verify(&mut request).await?;
    let workspace = request.workspace().ok_or_else(ApiError::callback_refused)?;
    actions::receive(&request.app, request.context.clone(), workspace, verified).await?;
    Ok(Reply::no_content())
}
