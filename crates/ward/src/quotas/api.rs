//! The JSON route of a workspace's usage.

use serde::Serialize;
use ward_db::Timestamp;

use super::{Quota, day, store};
use crate::app::App;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Reply, Request};
use crate::ids::WorkspaceId;

/// The JSON of the contract's schema `UsageResponse`.
#[derive(Debug, Serialize)]
pub struct UsageResponse {
    workspace_id: WorkspaceId,
    quotas: Vec<QuotaUsage>,
}

/// The JSON of the contract's schema `QuotaUsage`.
#[derive(Debug, Serialize)]
pub struct QuotaUsage {
    /// The name of the quota, as in the settings.
    pub name: &'static str,
    /// The used amount; `None` for a quota that has no count in the database or on this replica.
    pub used: Option<i64>,
    pub limit: i64,
}

/// The usage and limits of a workspace. `None` if the workspace does not exist.
pub(super) async fn usage(
    app: &App,
    workspace: WorkspaceId,
    now: Timestamp,
) -> Result<Option<Vec<QuotaUsage>>, ward_db::Error> {
    let found = app.db.read("quotas.read", move |tx| store::read(tx, workspace, day(now))).await?;
    let Some(used) = found else { return Ok(None) };
    let limits = used.limits.over(&app.config.quotas);
    let line = |quota: Quota| {
        let limit = limits.of(quota);
        let used = match quota {
            Quota::RequestsPerSecond => Some(app.request_rates.used(workspace, limit)),
            Quota::OutboundCalls => Some(app.wire.calls_of(workspace).into()),
            other => used.of(other),
        };
        QuotaUsage { name: quota.name(), used, limit }
    };
    Ok(Some(Quota::ALL.into_iter().map(line).collect()))
}

pub async fn get(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace_id = entry.workspace()?.id;
    let quotas =
        usage(&request.app, workspace_id, request.context.now).await?.ok_or(ApiError::no_workspace())?;
    Reply::ok(&UsageResponse { workspace_id, quotas })
}
