//! Stored values that are longer than the limits of today.
//!
//! An earlier version of Ward accepted names and configurations of any length. Ward still serves such
//! values, but refuses a change that sends them again. The operator can list them and have their owners
//! shorten them.

use serde::Serialize;
use uuid::Uuid;

use super::OperatorError;
use crate::app::App;
use crate::bounds::LONGEST_NAME;
use crate::error::ApiError;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::{api_keys, integrations, workspaces};

/// The list ends here; further values only set `more`.
const MOST_LISTED: usize = 1_000;
/// Rows with names that one read returns.
const NAMES_AT_ONCE: u32 = 500;
/// Rows with configurations that one read returns; each may be large.
const CONFIGURATIONS_AT_ONCE: u32 = 20;

/// A stored value that is longer than its limit of today.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverLongValue {
    pub workspace_id: WorkspaceId,
    /// Whether it is part of a `workspace`, an `api_key` or an `integration`.
    pub what: &'static str,
    /// The row's id; for an API key its `key_id`.
    pub id: String,
    /// The field, such as `name` or `endpoints.3.description`.
    pub field: String,
    /// The limit, as a sentence. It never contains the value.
    pub limit: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OverLongValues {
    /// The first 1,000 values that the search found.
    pub found: Vec<OverLongValue>,
    /// Whether there are values beyond the first 1,000.
    pub more: bool,
}

/// Lists stored values that are longer than their limits of today. It reads every workspace, key and
/// integration once, a bounded number of rows at a time, and writes nothing.
///
/// # Errors
/// [`OperatorError::Database`] when the database cannot be read.
pub async fn over_long_values(app: &App) -> Result<OverLongValues, OperatorError> {
    let mut all = OverLongValues::default();
    names_of_workspaces(app, &mut all).await?;
    names_of_keys(app, &mut all).await?;
    configurations(app, &mut all).await?;
    Ok(all)
}

impl OverLongValues {
    fn add(&mut self, value: OverLongValue) {
        if self.found.len() < MOST_LISTED {
            self.found.push(value);
        } else {
            self.more = true;
        }
    }

    fn add_name(
        &mut self,
        workspace_id: WorkspaceId,
        what: &'static str,
        id: String,
        field: &str,
        text: Option<&str>,
    ) {
        if text.is_some_and(|text| text.chars().count() > LONGEST_NAME) {
            let limit = format!("must be at most {LONGEST_NAME} characters");
            self.add(OverLongValue { workspace_id, what, id, field: field.to_owned(), limit });
        }
    }
}

async fn names_of_workspaces(app: &App, all: &mut OverLongValues) -> Result<(), OperatorError> {
    let mut after = WorkspaceId(Uuid::nil());
    loop {
        let page = app
            .db
            .read("operator.names_of_workspaces", move |tx| {
                workspaces::operator::list(tx, after, NAMES_AT_ONCE).map_err(ApiError::from)
            })
            .await?;
        for overview in &page {
            let workspace = &overview.workspace;
            let (id, name) = (workspace.id.to_string(), &workspace.name);
            all.add_name(workspace.id, "workspace", id.clone(), "name", Some(name));
            let organization = workspace.backend_org_id.as_deref();
            all.add_name(workspace.id, "workspace", id, "backend_org_id", organization);
        }
        match page.last() {
            Some(last) if page.len() == NAMES_AT_ONCE as usize => after = last.workspace.id,
            _ => return Ok(()),
        }
    }
}

async fn names_of_keys(app: &App, all: &mut OverLongValues) -> Result<(), OperatorError> {
    let mut after = String::new();
    loop {
        let page = app
            .db
            .read("operator.names_of_keys", move |tx| {
                api_keys::names_after(tx, &after, NAMES_AT_ONCE).map_err(ApiError::from)
            })
            .await?;
        for (key_id, workspace, name) in &page {
            all.add_name(*workspace, "api_key", key_id.clone(), "name", name.as_deref());
        }
        match page.last() {
            Some((key_id, ..)) if page.len() == NAMES_AT_ONCE as usize => {
                after = String::from(key_id.as_str());
            }
            _ => return Ok(()),
        }
    }
}

async fn configurations(app: &App, all: &mut OverLongValues) -> Result<(), OperatorError> {
    // The limits come from the operation that accepts the largest configurations, so they are stated only
    // once.
    let Some(operation) = app.contract.operation("create-integration").cloned() else { return Ok(()) };
    let mut after = (WorkspaceId(Uuid::nil()), IntegrationId(Uuid::nil()));
    loop {
        let operation = operation.clone();
        let page = app
            .db
            .read("operator.configurations", move |tx| {
                integrations::over_long(tx, &operation, after, CONFIGURATIONS_AT_ONCE).map_err(ApiError::from)
            })
            .await?;
        for integration in &page {
            for (field, limit) in &integration.fields {
                all.add(OverLongValue {
                    workspace_id: integration.workspace,
                    what: "integration",
                    id: integration.id.to_string(),
                    field: field.clone(),
                    limit: limit.clone(),
                });
            }
        }
        match page.last() {
            Some(last) if page.len() == CONFIGURATIONS_AT_ONCE as usize => after = (last.workspace, last.id),
            _ => return Ok(()),
        }
    }
}
