//! The SQL of endings.

use ward_db::{Error, Timestamp, Tx};

use super::{Ending, Kind};
use crate::audit::Actor;
use crate::guard::WorkspaceGuard;
use crate::ids::PrincipalId;

/// Stores an ending, and replaces an earlier one of the same rows.
pub(super) fn put(tx: &mut WorkspaceGuard<'_, '_>, new: &Ending, due_at: Timestamp) -> Result<(), Error> {
    forget(tx, new)?;
    tx.execute_later(
        "INSERT INTO endings (workspace_id, principal_id, kind, position, done_until, due_at, actor_entity_id, \
                actor_credential_id, request_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &[
            new.workspace.into(),
            new.principal.into(),
            new.kind.name().into(),
            new.position.into(),
            new.done_until.into(),
            due_at.into(),
            new.actor.entity.into(),
            new.actor.credential.into(),
            new.request_id.as_str().into(),
        ],
    )
}

/// The due ending that has waited longest.
pub fn next(tx: &mut Tx<'_>, now: Timestamp) -> Result<Option<Ending>, Error> {
    tx.optional(
        "SELECT workspace_id, principal_id, kind, position, done_until, actor_entity_id, actor_credential_id, request_id \
         FROM endings WHERE due_at <= $1 ORDER BY due_at LIMIT 1",
        &[now.into()],
        |row| {
            Ok(Ending {
                workspace: row.get(0)?,
                principal: row.get(1)?,
                kind: Kind::named(row.text(2)?).ok_or_else(|| Error::unreadable("an unknown ending"))?,
                position: row.get(3)?,
                done_until: row.get(4)?,
                actor: Actor::kept(row.get(5)?, row.get(6)?),
                request_id: row.get(7)?,
            })
        },
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
            ending.kind.name().into(),
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
        &[ending.workspace.into(), ending.principal.into(), ending.kind.name().into()],
        |row| Ok((row.get::<i64>(0)?, row.get::<PrincipalId>(1)?)),
    )?;
    Ok(same == Some((ending.position, ending.done_until)))
}

/// Deletes an ending whose rows are closed.
pub fn forget(tx: &mut WorkspaceGuard<'_, '_>, ending: &Ending) -> Result<(), Error> {
    tx.execute_later(
        "DELETE FROM endings WHERE workspace_id = $1 AND principal_id = $2 AND kind = $3",
        &[ending.workspace.into(), ending.principal.into(), ending.kind.name().into()],
    )
}

/// The number of due endings, counted no further than `most`.
pub fn count(tx: &mut Tx<'_>, now: Timestamp, most: i64) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM endings WHERE due_at <= $1 LIMIT $2) AS counted",
        &[now.into(), most.into()],
        |row| row.get(0),
    )
}
