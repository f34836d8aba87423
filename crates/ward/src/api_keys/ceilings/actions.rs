//! The write on a workspace's ceilings.

use std::sync::Arc;

use serde_json::json;

use super::api::{KeyPolicyRequest, KeyPolicyResponse};
use super::store;
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::gate::{Entry, Held};

/// Replaces the ceilings that the owners chose. They judge the next mint and rotation; existing keys stay as they are.
pub async fn set(
    app: &Arc<App>,
    entry: Entry,
    wanted: KeyPolicyRequest,
) -> Result<KeyPolicyResponse, ApiError> {
    let installation = app.config.key_ceilings.clone();
    let set = move |write: &mut Write<'_, '_>, held: &Held| {
        let (workspace, now) = (&held.seen.workspace, write.now());
        let former = store::get(write, workspace.id)?;
        if former != wanted.ceiling_days {
            store::set(write, wanted.ceiling_days)?;
            let what =
                json!({ "changes": { "ceiling_days": { "from": former, "to": wanted.ceiling_days } } });
            write.record("key_policy.update", workspace.subject(), what)?;
        }
        Ok(KeyPolicyResponse::read(write, workspace, &installation, now)?)
    };
    entry.write(app, "api_keys.set_policy", set).await
}
