//! Writes on the Twilio account of a workspace, and the reports from Twilio.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use ward_db::{Timestamp, Tx};

use super::callback::{CallbackContent, VerifiedCallback};
use super::{ACCOUNT, Account, Mode, secondary_token_place, store, token_place};
use crate::app::App;
use crate::audit::{Actor, Write};
use crate::calls::{Decision, Reporter, actions as calls};
use crate::context::Context;
use crate::error::ApiError;
use crate::gate::{Entry, Held};
use crate::ids::WorkspaceId;
use crate::{vault, workspaces};

/// Applies a verified callback. The account must still be the one that verified it.
pub async fn receive(
    app: &Arc<App>,
    context: Arc<Context>,
    workspace: WorkspaceId,
    verified: VerifiedCallback,
) -> Result<(), ApiError> {
    let usual = app.config.quotas;
    let receive = move |tx: &mut Tx<'_>| {
        let write = &mut Write::begin(tx, workspace, Actor::NOBODY, &context)?;
        let account = store::get(write, workspace)?;
        let account = account.filter(|account| account.updated_at == verified.account_changed_at);
        let (Some(_), Some(workspace)) = (account, workspaces::active(write, workspace)?) else {
            return Err(ApiError::callback_refused());
        };
        match &verified.told {
            CallbackContent::Report(report) => {
                let place = (&workspace, &usual);
                let (call, _) = calls::record(write, place, &verified.sid, Reporter::Twilio, report)?;
                Ok(call.sync == Some(Decision::Owed))
            }
            CallbackContent::Leg { parent, callee: Some(callee) } => {
                calls::record_leg(write, parent, callee)?;
                Ok(false)
            }
            CallbackContent::Leg { callee: None, .. } => Ok(false),
        }
    };
    if app.db.write("calls.twilio", receive).await? {
        app.sync.wake();
    }
    Ok(())
}

/// `TwilioSetupRequest`, validated, with its tokens in clear text.
#[derive(Deserialize)]
pub struct TwilioSetupRequest {
    account_sid: String,
    auth_token: String,
    secondary_auth_token: Option<String>,
    reconciliation: Option<Mode>,
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
    let (account_sid, mode) = (new.account_sid, new.reconciliation);
    let vault = app.vault.clone();
    let set = move |write: &mut Write<'_, '_>, _: &Held| {
        vault::hold(write, &vault)?;
        let (workspace, now) = (write.row(), write.now());
        let former = store::get(write, workspace)?;
        // Strictly later, because a callback in progress compares this time to see whether its token is
        // still in use.
        let updated_at = former
            .as_ref()
            .map_or(now, |former| now.max(Timestamp::from_micros(former.updated_at.micros() + 1)));
        let account = Account {
            account_sid: account_sid.clone(),
            auth_token: sealed.clone(),
            secondary_auth_token: secondary.clone(),
            // A client that only rotates a token may not know the mode.
            reconciliation: mode.or(former.as_ref().map(|former| former.reconciliation)).unwrap_or_default(),
            created_at: former.as_ref().map_or(now, |former| former.created_at),
            updated_at,
        };
        store::set(write, &account)?;
        let what = json!({
            "account_sid": { "from": former.map(|former| former.account_sid), "to": account_sid },
            "has_secondary_auth_token": secondary.is_some(),
            "reconciliation": account.reconciliation,
        });
        write.record("twilio.update", ACCOUNT, json!({ "changes": what }))?;
        Ok(account)
    };
    entry.write(app, "calls.set_twilio", set).await
}

/// Removes the workspace's Twilio account. A missing account is no error.
pub async fn remove(app: &Arc<App>, entry: Entry) -> Result<(), ApiError> {
    let remove = |write: &mut Write<'_, '_>, _: &Held| {
        if store::remove(write)? {
            write.record("twilio.delete", ACCOUNT, json!({}))?;
        }
        Ok(())
    };
    entry.write(app, "calls.remove_twilio", remove).await
}
