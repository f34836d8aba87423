//! The write on the slug of a workspace.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::{MOST_FORMER, store};
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::workspaces::actions::{take_slug, touch, wrong_slug};
use crate::workspaces::store::update;

#[derive(Clone, Debug, Deserialize)]
pub struct RenameWorkspaceRequest {
    slug: String,
    confirm_slug: String,
}

/// Gives the workspace another slug. The former one stays the workspace's until its quarantine ends.
///
/// The request confirms the present slug, so of two owners who rename at the same time one wins. The confirmation is a part of
/// the work, because a retry after the rename would fail it.
pub async fn rename(
    app: &Arc<App>,
    entry: Entry,
    wanted: RenameWorkspaceRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let quarantine = app.config.slug_quarantine;
    let rename = move |write: &mut Write<'_, '_>, held: &Held| {
        repeat.once(write, Secrecy::Open, |write| {
            let (mut workspace, now) = (held.seen.workspace.clone(), write.now());
            if wanted.confirm_slug != workspace.slug {
                return Err(wrong_slug("confirm_slug", &wanted.confirm_slug));
            }
            if wanted.slug == workspace.slug {
                return Ok(workspace);
            }
            let former = std::mem::replace(&mut workspace.slug, wanted.slug.clone());
            if !store::take_back(write, &workspace.slug)? {
                if store::of(write, workspace.id, now)?.len() >= MOST_FORMER {
                    return Err(too_many_former());
                }
                let context = write.context;
                take_slug(write, context, &workspace.slug, workspace.id)?;
            }
            store::retire(write, &former, now, now.saturating_add(quarantine))?;
            touch(&mut workspace, now);
            update(write, &workspace)?;
            let what = json!({ "changes": { "slug": { "from": former, "to": workspace.slug } } });
            write.record("workspace.rename", workspace.subject(), what)?;
            Ok(workspace)
        })
    };
    entry.write(app, "workspaces.rename", rename).await
}

const fn too_many_former() -> ApiError {
    ApiError::conflict(
        "too_many_former_slugs",
        "The workspace has as many former slugs as one may have. Rename it to one of them, or wait until one is free.",
    )
}
