//! The JSON route of quotas.

use serde::Serialize;
use ward_db::Timestamp;

use super::{Quota, day, store};
use crate::app::App;
use crate::error::ApiError;
use crate::http::{Call, Reply};
use crate::ids::WorkspaceId;

/// `UsageResponse`
#[derive(Debug, Serialize)]
pub struct Usage {
    workspace_id: WorkspaceId,
    quotas: Vec<Line>,
}

/// `QuotaUsage`
#[derive(Debug, Serialize)]
pub struct Line {
    /// The quota's name.
    pub name: &'static str,
    /// How much the workspace has; `None` where that is not counted here.
    pub used: Option<i64>,
    /// How much it may have.
    pub limit: i64,
}

/// What a workspace has and may have. `None`: there is no such workspace.
pub(super) async fn usage(
    app: &App,
    workspace: WorkspaceId,
    now: Timestamp,
) -> Result<Option<Vec<Line>>, ward_db::Error> {
    let found = app.db.read("quotas.read", move |tx| store::read(tx, workspace, day(now))).await?;
    let Some(used) = found else { return Ok(None) };
    let limits = used.limits.over(&app.config.quotas);
    let line = |quota: Quota| {
        let limit = limits.of(quota);
        let used = match quota {
            Quota::RequestsPerSecond => Some(app.request_rates.used(workspace, limit)),
            other => used.of(other),
        };
        Line { name: quota.name(), used, limit }
    };
    Ok(Some(Quota::ALL.into_iter().map(line).collect()))
}

/// `get-usage`
pub async fn get(call: Call) -> Result<Reply, ApiError> {
    let workspace_id = call.enter().await?.workspace()?.id;
    let quotas = usage(&call.app, workspace_id, call.context.now).await?.ok_or(ApiError::no_workspace())?;
    Reply::ok(&Usage { workspace_id, quotas })
}
