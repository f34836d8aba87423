//! The JSON routes of slugs.

use http::header::CONTENT_LOCATION;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::actions::{self, RenameWorkspaceRequest};
use super::{FormerSlug, store};
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::Repeat;
use crate::http::{Reply, Request, Sent};

/// The workspace of a present or former slug. For a former one, `content-location` names the address with the present one.
pub async fn by_slug(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?;
    let mut reply = Reply::ok(workspace)?;
    let asked = request.parameter("slug");
    if asked != workspace.slug {
        request.app.former_slugs_used.note(workspace.id, asked, request.context.now);
        let location =
            format!("{}/v1/workspaces/by-slug/{}", request.app.config.path_prefix(), workspace.slug);
        let location = HeaderValue::try_from(location).map_err(ApiError::internal)?;
        reply.headers.push((CONTENT_LOCATION, location));
    }
    Ok(reply)
}

pub async fn rename(
    request: Request,
    (entry, sent): (Entry, Sent<RenameWorkspaceRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    actions::rename(&request.app, entry, sent.value, repeat).await
}

/// The former slugs of a workspace that are in quarantine.
#[derive(Serialize)]
struct FormerSlugsResponse {
    former_slugs: Vec<FormerSlug>,
}

pub async fn former(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let (workspace, now) = (entry.workspace()?.id, request.context.now);
    let former = request.app.db.read("workspaces.former_slugs", move |tx| store::of(tx, workspace, now));
    Reply::ok(&FormerSlugsResponse { former_slugs: former.await? })
}
