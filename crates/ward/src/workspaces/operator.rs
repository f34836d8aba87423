//! What the operator does with workspaces, outside of any workspace's own authority.

use serde::Serialize;
use serde_json::json;
use ward_db::Tx;

use super::actions::touch;
use super::{State, Workspace, store};
use crate::audit::{self, Actor, Event};
use crate::error::ApiError;
use crate::http::Context;
use crate::ids::WorkspaceId;
use crate::{identity, sync};

/// A workspace with its state, which only the operator sees.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// The workspace.
    #[serde(flatten)]
    pub workspace: Workspace,
    /// Where it is in its life.
    pub state: State,
}

/// Up to `limit` workspaces after `after`, in the order of their ids.
pub fn list(tx: &mut Tx<'_>, after: WorkspaceId, limit: u32) -> Result<Vec<Overview>, ward_db::Error> {
    let found = store::list_all(tx, after, limit)?;
    Ok(found.into_iter().map(|(workspace, state)| Overview { workspace, state }).collect())
}

/// The workspace of this id or slug, whatever its state.
pub fn find(tx: &mut Tx<'_>, id_or_slug: &str) -> Result<Option<Overview>, ward_db::Error> {
    Ok(store::find(tx, id_or_slug)?.map(|(workspace, state)| Overview { workspace, state }))
}

/// Makes an archived workspace active again, with its memberships and unexpired keys. `false`: it is not archived.
pub fn restore(tx: &mut Tx<'_>, context: &Context, id: WorkspaceId) -> Result<bool, ApiError> {
    store::guard(tx, id)?;
    if !store::change_state(tx, id, State::Archived, State::Active)? {
        return Ok(false);
    }
    let mut restored = store::active(tx, id)?.ok_or(ApiError::no_workspace())?;
    touch(&mut restored, context.now);
    store::update(tx, &restored)?;
    identity::relist(tx, id, context.now)?;
    sync::workspace_restored(tx, id, context.now)?;
    audit::record(
        tx,
        Event {
            workspace: id,
            service: "workspaces",
            action: "workspace.restore",
            resource_type: "workspace",
            resource_id: Some(id.0),
            resource_name: Some(&restored.slug),
            actor: Actor::OPERATOR,
            context,
            metadata: json!({}),
        },
    )?;
    Ok(true)
}
