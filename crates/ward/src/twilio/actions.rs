//! Writes on the Twilio account of a workspace, and the reports from Twilio.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use ward_db::Timestamp;

use super::{Account, secondary_token_place, store, token_place};
use crate::app::App;
use crate::audit::{self, Actor, Event};
use crate::calls::{Decision, Report, Reporter, actions as calls};
use crate::context::Context;
use crate::error::ApiError;
use crate::gate::{Entry, Held};
use crate::ids::WorkspaceId;
use crate::{vault, workspaces};

/// Applies a report of Twilio, if the account that verified its signature is unchanged.
pub async fn report(
    app: &Arc<App>,
    context: Arc<Context>,
    workspace: WorkspaceId,
    verified: Timestamp,
    sid: String,
    report: Report,
) -> Result<(), ApiError> {
    let usual = app.config.quotas;
    let (recorded, _) = app
        .db
        .write("calls.twilio", move |tx| {
            workspaces::guard(tx, workspace)?;
            let account = store::get(tx, workspace)?.filter(|account| account.updated_at == verified);
            let (Some(_), Some(workspace)) = (account, workspaces::active(tx, workspace)?) else {
                return Err(ApiError::callback_refused());
            };
            calls::record(tx, &context, Actor::NOBODY, (&workspace, &usual), &sid, Reporter::Twilio, &report)
        })
        .await?;
    if recorded.sync == Some(Decision::Owed) {
        app.sync.wake();
    }
    Ok(())
}

fn event<'a>(context: &'a Context, held: &Held, action: &'static str, metadata: Value) -> Event<'a> {
    Event {
        workspace: held.seen.workspace.id,
        service: "calls",
        action,
        resource_type: "twilio_account",
        resource_id: None,
        resource_name: None,
        actor: Actor::of(&held.caller),
        context,
        metadata,
    }
}

/// `TwilioSetupRequest`, validated, with its tokens in clear text.
#[derive(Deserialize)]
pub struct TwilioSetupRequest {
    account_sid: String,
    auth_token: String,
    secondary_auth_token: Option<String>,
}

/// Sets up the workspace's Twilio account. Its tokens are sealed with workspace and field as associated
/// data.
pub async fn set(app: &Arc<App>, entry: Entry, new: TwilioSetupRequest) -> Result<Account, ApiError> {
    let workspace = entry.workspace()?.id;
    let seal =
        |token: &str, place: String| app.vault.seal(token.as_bytes(), &place).map_err(ApiError::internal);
    let sealed = seal(&new.auth_token, token_place(workspace))?;
    let secondary = new.secondary_auth_token.as_deref();
    let secondary = secondary.map(|token| seal(token, secondary_token_place(workspace))).transpose()?;
    let account_sid = new.account_sid;
    let vault = app.vault.clone();
    app.db
        .write("calls.set_twilio", move |tx| {
            let held = entry.hold(tx)?;
            vault::hold(tx, &vault)?;
            let workspace = held.seen.workspace.id;
            let former = store::get(tx, workspace)?;
            let now = entry.context.now;
            // Strictly later, because a callback in progress compares this time to see whether its token is
            // still in use.
            let updated_at = former
                .as_ref()
                .map_or(now, |former| now.max(Timestamp::from_micros(former.updated_at.micros() + 1)));
            let account = Account {
                account_sid: account_sid.clone(),
                auth_token: sealed.clone(),
                secondary_auth_token: secondary.clone(),
                created_at: former.as_ref().map_or(now, |former| former.created_at),
                updated_at,
            };
            store::set(tx, workspace, &account)?;
            let what = json!({
                "account_sid": { "from": former.map(|former| former.account_sid), "to": account_sid },
                "has_secondary_auth_token": secondary.is_some(),
            });
            audit::record(tx, event(&entry.context, &held, "twilio.update", json!({ "changes": what })))?;
            Ok(account)
        })
        .await
}

/// Removes the workspace's Twilio account. A missing account is no error.
pub async fn remove(app: &Arc<App>, entry: Entry) -> Result<(), ApiError> {
    app.db
        .write("calls.remove_twilio", move |tx| {
            let held = entry.hold(tx)?;
            if store::remove(tx, held.seen.workspace.id)? {
                audit::record(tx, event(&entry.context, &held, "twilio.delete", json!({})))?;
            }
            Ok(())
        })
        .await
}
