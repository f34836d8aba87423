//! The JSON routes of archived workspaces.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::store::{self, ArchivedMembership};
use super::{Archived, actions};
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::Repeat;
use crate::http::{Query, Reply, Request};
use crate::ids::WorkspaceId;
use crate::page::{self, PageQuery, Paginated, TOTAL_LIMIT};
use crate::workspaces::Workspace;

/// An archived workspace in the list of one of its last owners.
#[derive(Serialize)]
struct ArchivedWorkspaceResponse {
    workspace: Workspace,
    #[serde(flatten)]
    archived: Archived,
}

impl From<ArchivedMembership> for ArchivedWorkspaceResponse {
    fn from(found: ArchivedMembership) -> Self {
        Self { workspace: found.workspace, archived: found.archived }
    }
}

/// The archived workspaces that the caller can restore, in the order of its list.
pub async fn list(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let page = query.read::<PageQuery>()?.page();
    let (principal, kind) = (entry.caller.principal, entry.caller.kind);
    let address = entry.context.address;
    let listed = request.app.db.read("workspaces.list_archived", move |tx| {
        let (rows, until) = page::fill(
            page,
            ArchivedMembership::place,
            |found| found.is_restorable_by(kind, address),
            |page| store::archived(tx, principal, page),
        )?;
        let counted = store::count_archived(tx, principal, (kind, address), TOTAL_LIMIT + 1)?;
        let shown =
            Paginated::new(rows, page, counted, ArchivedMembership::place, ArchivedWorkspaceResponse::from);
        Ok::<_, ward_db::Error>(shown.looked_through(until))
    });
    Reply::ok(&listed.await?)
}

pub async fn restore(request: Request, (entry, bytes): (Entry, Bytes)) -> Result<Reply, ApiError> {
    let id = WorkspaceId::of_path(request.parameter("archived_id"));
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &bytes, StatusCode::OK)?;
    actions::restore(&request.app, entry, id, repeat).await
}
