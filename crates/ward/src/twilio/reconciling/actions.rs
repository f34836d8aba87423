//! The request of a person to compare now.

use std::sync::Arc;

use serde_json::json;

use super::super::{ACCOUNT, store as accounts};
use super::api::TwilioReconciliation;
use super::store;
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;

/// Makes the comparison due now. A workspace without a Twilio account gets 409.
pub async fn reconcile(app: &Arc<App>, entry: Entry, repeat: Repeat) -> Result<Reply, ApiError> {
    let reconcile = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| {
            let result = make_due(write)?;
            write.record("twilio.reconcile", ACCOUNT, json!({}))?;
            Ok(result)
        })
    };
    let reply = entry.write(app, "calls.reconcile_twilio", reconcile).await?;
    app.reconcile_wake.wake();
    Ok(reply)
}

/// [`reconcile`] within a transaction of the operator or a caller.
pub fn make_due(write: &mut Write<'_, '_>) -> Result<TwilioReconciliation, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    if accounts::get(write, workspace)?.is_none() {
        return Err(ApiError::conflict(
            "twilio_not_configured",
            "The workspace has no Twilio account, so there is no list to compare its calls with.",
        ));
    }
    store::make_due(write, now)?;
    Ok(super::state(write, workspace)?)
}
