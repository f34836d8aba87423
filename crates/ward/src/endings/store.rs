//! The SQL of endings.

use ward_db::{Error, Timestamp, Tx, columns, decode, insert_later, select};

use super::Ending;
use crate::audit::Actor;
use crate::guard::WorkspaceGuard;
use crate::ids::PrincipalId;

/// Stores an ending, and replaces an earlier one of the same rows.
pub(super) fn put(tx: &mut WorkspaceGuard<'_, '_>, new: &Ending, due_at: Timestamp) -> Result<(), Error> {
    forget(tx, new)?;
    insert_later!(tx, "endings" {
        workspace_id: new.workspace,
        principal_id: new.principal,
        kind: new.kind,
        position: new.position,
        done_until: new.done_until,
        due_at: due_at,
        actor_entity_id: new.actor.entity,
        actor_credential_id: new.actor.credential,
        request_id: &new.request_id,
    })
}

columns! {
    Ending {
        workspace: "workspace_id",
        principal: "principal_id",
        kind,
        position,
        done_until,
        actor: "actor_entity_id, actor_credential_id" => |(entity, credential)| Ok(Actor::kept(entity, credential)),
        request_id,
    }
}

/// The due ending that has waited longest.
pub fn next(tx: &mut Tx<'_>, now: Timestamp) -> Result<Option<Ending>, Error> {
    tx.optional(
        select!(Ending, "FROM endings WHERE due_at <= $1 ORDER BY due_at LIMIT 1"),
        &[now.into()],
        decode,
    )
}

/// Moves an ending behind all others, and stores the last member whose list is done.
pub fn put_off(
    tx: &mut WorkspaceGuard<'_, '_>,
    ending: &Ending,
    done_until: PrincipalId,
    now: Timestamp,
) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE endings SET done_until = $4, due_at = $5 WHERE workspace_id = $1 AND principal_id = $2 AND kind = $3",
        &[
            ending.workspace.into(),
            ending.principal.into(),
            ending.kind.into(),
            done_until.into(),
            now.into(),
        ],
    )
}

/// Whether the stored ending is still as it was read. Another replica may have closed it, or a later ending
/// may have replaced it.
pub fn stands(tx: &mut Tx<'_>, ending: &Ending) -> Result<bool, Error> {
    let same = tx.optional(
        "SELECT position, done_until FROM endings WHERE workspace_id = $1 AND principal_id = $2 AND kind = $3",
        &[ending.workspace.into(), ending.principal.into(), ending.kind.into()],
        decode::<(i64, PrincipalId)>,
    )?;
    Ok(same == Some((ending.position, ending.done_until)))
}

/// Deletes an ending whose rows are closed.
pub fn forget(tx: &mut WorkspaceGuard<'_, '_>, ending: &Ending) -> Result<(), Error> {
    tx.execute_later(
        "DELETE FROM endings WHERE workspace_id = $1 AND principal_id = $2 AND kind = $3",
        &[ending.workspace.into(), ending.principal.into(), ending.kind.into()],
    )
}

/// The number of due endings, counted no further than `most`.
pub fn count(tx: &mut Tx<'_>, now: Timestamp, most: i64) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM endings WHERE due_at <= $1 LIMIT $2) AS counted",
        &[now.into(), most.into()],
        decode,
    )
}
