//! Operations of the operator on quotas.

use serde_json::json;

use super::api;
pub use super::api::QuotaUsage;
use super::{Quota, store};
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::ids::WorkspaceId;
use crate::workspaces::operator as found;

/// A new limit for one workspace; `None` returns to the limit of the settings.
pub type NewLimit = (Quota, Option<i64>);

pub async fn usage(app: &App, workspace: WorkspaceId) -> Result<Vec<QuotaUsage>, ApiError> {
    let usage = api::usage(app, workspace, app.clock.now()).await?;
    usage.ok_or(ApiError::no_workspace())
}

/// Sets limits of a workspace in any state.
pub fn set(write: &mut Write<'_, '_>, new: &[NewLimit]) -> Result<(), ApiError> {
    let workspace = write.row();
    let found = found::find(write, &workspace.to_string())?.ok_or(ApiError::no_workspace())?;
    let before = found.workspace.limits;
    let mut limits = before;
    for (quota, limit) in new {
        limits.set(*quota, *limit);
    }
    if limits == before {
        return Ok(());
    }
    store::set_limits(write, &limits)?;
    let mut changes = serde_json::Map::new();
    for quota in Quota::ALL {
        if limits.of(quota) != before.of(quota) {
            let change = json!({ "from": before.of(quota), "to": limits.of(quota) });
            changes.insert(quota.name().to_owned(), change);
        }
    }
    write.record("workspace.limits", found.workspace.subject(), json!({ "changes": changes }))
}
