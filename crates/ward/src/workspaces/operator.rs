//! Operations of the operator on workspaces, outside of any workspace's own permissions.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use ward_contract::Operation;
use ward_contract::validate::{self, BodyRefused, Problem};
use ward_db::{Timestamp, Tx};

use super::access_policy::AccessPolicy;
use super::actions::{self, CreateWorkspaceRequest};
use super::archives::{self, Archived, LegalHold};
use super::{Workspace, WorkspaceState, store};
use crate::app::App;
use crate::audit::{Actor, Write};
use crate::context::Context;
use crate::error::ApiError;
use crate::ids::WorkspaceId;

/// A workspace with its state, which only the operator gets.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    #[serde(flatten)]
    pub workspace: Workspace,
    pub state: WorkspaceState,
    pub access_policy: AccessPolicy,
    /// The times of an archived workspace, where it is shown alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<Archived>,
    /// The legal hold, where the workspace is shown alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub legal_hold: Option<LegalHold>,
}

impl From<(Workspace, WorkspaceState)> for Overview {
    fn from((workspace, state): (Workspace, WorkspaceState)) -> Self {
        Self { access_policy: workspace.policy.clone(), workspace, state, archived: None, legal_hold: None }
    }
}

/// Up to `limit` workspaces after `after`, in the order of their ids.
pub fn list(tx: &mut Tx<'_>, after: WorkspaceId, limit: u32) -> Result<Vec<Overview>, ward_db::Error> {
    Ok(store::list_all(tx, after, limit)?.into_iter().map(Overview::from).collect())
}

/// The workspace of this id or slug, in any state.
pub fn find(tx: &mut Tx<'_>, id_or_slug: &str) -> Result<Option<Overview>, ward_db::Error> {
    let Some(found) = store::find(tx, id_or_slug)? else { return Ok(None) };
    let id = found.0.id;
    let (archived, legal_hold) = (archives::store::archived_at(tx, id)?, archives::store::hold_of(tx, id)?);
    Ok(Some(Overview { archived, legal_hold, ..Overview::from(found) }))
}

/// The creation time of the newest workspace, found by the order of ids, which begin with their timestamp.
pub fn newest(tx: &mut Tx<'_>) -> Result<Option<Timestamp>, ward_db::Error> {
    store::newest(tx)
}

/// Validates the body of a new workspace by the rules of the API's operation.
pub fn read_new(operation: &Operation, wanted: &Value) -> Result<CreateWorkspaceRequest, Vec<Problem>> {
    let parsed = validate::parse(Some("application/json"), wanted.to_string().as_bytes(), 8);
    let parsed = parsed.map_err(|refused| match refused {
        BodyRefused::Problems(problems) => problems,
        BodyRefused::NotUtf8 => Vec::new(),
    })?;
    let valid = validate::body(operation, &parsed)?.value;
    serde_json::from_value(valid).map_err(|_| Vec::new())
}

/// Refuses a workspace of another region than this Ward's.
pub fn only_own_region(app: &App, new: &CreateWorkspaceRequest) -> Result<(), ApiError> {
    actions::only_own_region(app, new)
}

/// Creates an active workspace that has no members yet.
pub fn create(
    tx: &mut Tx<'_>,
    context: &Context,
    new: &CreateWorkspaceRequest,
) -> Result<WorkspaceId, ApiError> {
    let workspace = new.at(context.now);
    actions::take_slug(tx, context, &workspace.slug, workspace.id)?;
    let inserted = store::insert(tx, &workspace, WorkspaceState::Active)?;
    let what = actions::beginnings(&workspace);
    let mut write = Write::begin(tx, inserted, Actor::OPERATOR, context)?;
    write.record("workspace.create", workspace.subject(), what)?;
    Ok(workspace.id)
}

/// Archives a workspace; `false` if it is not active.
pub fn archive(write: &mut Write<'_, '_>, purge_after: Duration) -> Result<bool, ApiError> {
    let id = write.row();
    let Some(workspace) = store::active(write, id)? else { return Ok(false) };
    actions::end(write, workspace, purge_after)?;
    Ok(true)
}

/// Misplaced workspaces that a check names.
const MOST_NAMED: usize = 20;

/// The result of a check of the stored workspaces' regions.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RegionCheck {
    /// The number of checked workspaces, in every state.
    pub checked: u64,
    /// The number of workspaces in another region than this Ward's.
    pub misplaced: u64,
    /// The first of the misplaced workspaces.
    pub named: Vec<Overview>,
}

impl RegionCheck {
    /// Checks a page of workspaces against this region.
    pub fn add(&mut self, region: &str, page: Vec<Overview>) {
        for found in page {
            self.checked += 1;
            if found.workspace.region != region {
                self.misplaced += 1;
                if self.named.len() < MOST_NAMED {
                    self.named.push(found);
                }
            }
        }
    }
}

/// Makes an archived workspace active again, with its memberships and unexpired keys; `false` if it is not
/// archived.
pub fn restore(write: &mut Write<'_, '_>) -> Result<bool, ApiError> {
    Ok(actions::revive(write)?.is_some())
}
