//! The restoration of an archived workspace by one of its last owners.

use std::sync::Arc;

use super::store;
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::http::Reply;
use crate::identity::Caller;
use crate::ids::WorkspaceId;
use crate::workspaces::actions::revive;

/// Makes an archived workspace active again, for one of its last owners. Everything else that the id can be gets the same 404.
pub async fn restore(
    app: &Arc<App>,
    entry: Entry,
    id: WorkspaceId,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let restore = move |write: &mut Write<'_, '_>, caller: &Caller| {
        repeat.once(write, Secrecy::Open, |write| {
            let (address, now) = (write.context.address, write.now());
            let found = store::archived_membership(write, id, caller.principal)?;
            let found = found.filter(|it| it.is_restorable_by(caller.kind, address)).ok_or(no_archive())?;
            if found.archived.purge_at.is_some_and(|purge_at| purge_at <= now) {
                return Err(ApiError::gone(
                    "restore_time_over",
                    "The time in which the owners could restore this workspace is over.",
                ));
            }
            revive(write)?.ok_or(no_archive())
        })
    };
    entry.write_joining(app, "workspaces.restore", id, restore).await
}

const fn no_archive() -> ApiError {
    ApiError::missing("archived_workspace_not_found", "Archived workspace not found.")
}
