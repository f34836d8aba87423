//! The SQL of members and of transfers of ownership.

use ward_db::{Error, Row, Timestamp, Tx};

use super::Member;
use super::wire::Transfer;
use crate::access::Role;
use crate::api_keys;
use crate::guard::WorkspaceGuard;
use crate::identity::{KeyUsed, PrincipalKind};
use crate::ids::{PrincipalId, WorkspaceId};
use crate::page::Page;

const COLUMNS: &str = "m.principal_id, p.kind, p.display_name, m.role, m.created_at, m.seat";

fn member(row: &Row<'_>) -> Result<Member, Error> {
    Ok(Member {
        principal: row.get(0)?,
        kind: PrincipalKind::column(row, 1)?,
        name: row.get(2)?,
        role: Role::column(row, 3)?,
        joined_at: row.get(4)?,
        seat: row.get(5)?,
    })
}

/// A page of a workspace's members.
pub fn list(tx: &mut Tx<'_>, workspace: WorkspaceId, page: Page) -> Result<Vec<Member>, Error> {
    tx.all(
        &format!(
            "SELECT {COLUMNS} FROM seats s \
             JOIN memberships m ON m.workspace_id = s.workspace_id AND m.principal_id = s.principal_id \
             JOIN principals p ON p.id = s.principal_id \
             WHERE s.workspace_id = $1 AND s.seat > $2 ORDER BY s.seat LIMIT $3"
        ),
        &[workspace.into(), page.after.into(), page.fetch().into()],
        member,
    )
}

/// The number of members, counted no further than `most`.
pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId, most: i64) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM seats WHERE workspace_id = $1 AND seat > 0 LIMIT $2) AS counted",
        &[workspace.into(), most.into()],
        |row| row.get(0),
    )
}

/// The member of this principal id.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, principal: PrincipalId) -> Result<Option<Member>, Error> {
    tx.optional(
        &format!(
            "SELECT {COLUMNS} FROM memberships m JOIN principals p ON p.id = m.principal_id \
             WHERE m.workspace_id = $1 AND m.principal_id = $2"
        ),
        &[workspace.into(), principal.into()],
        member,
    )
}

pub fn set_role(tx: &mut WorkspaceGuard<'_, '_>, principal: PrincipalId, role: Role) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE memberships SET role = $3, owned_workspace_id = CASE WHEN $3 = 'owner' \
                AND (SELECT p.kind FROM principals p WHERE p.id = memberships.principal_id) = 'user' THEN workspace_id END \
         WHERE workspace_id = $1 AND principal_id = $2",
        &[workspace.into(), principal.into(), role.name().into()],
    )?;
    Ok(())
}

/// Whether another user is an owner.
pub fn has_other_user_owner(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    than: PrincipalId,
) -> Result<bool, Error> {
    let other: Option<i64> = tx.optional(
        // The index has only owned workspaces. An older server that changed the role may have left that
        // column unchanged.
        "SELECT 1 FROM memberships WHERE owned_workspace_id = $1 AND principal_id <> $2 AND role = 'owner' LIMIT 1",
        &[workspace.into(), than.into()],
        |_| Ok(1),
    )?;
    Ok(other.is_some())
}

/// The pending transfer of ownership. It must not have expired, and the key that created it, if one did,
/// must be neither revoked nor rotated.
pub fn transfer(tx: &mut Tx<'_>, workspace: WorkspaceId, now: Timestamp) -> Result<Option<Transfer>, Error> {
    tx.optional(
        &format!(
            "SELECT t.nominee_entity_id, t.nominated_by_entity_id, t.expires_at, t.created_at \
             FROM ownership_transfers t LEFT JOIN api_keys k ON k.key_id = t.created_with_key_id \
             AND k.updated_at = t.created_with_key_since AND k.position > 0 AND {} \
             WHERE t.workspace_id = $1 AND t.expires_at > $2 \
             AND (t.created_with_key_id IS NULL OR k.key_id IS NOT NULL)",
            api_keys::LIVE
        ),
        &[workspace.into(), now.into()],
        |row| {
            Ok(Transfer {
                nominee_entity_id: row.get(0)?,
                nominated_by_entity_id: row.get(1)?,
                expires_at: row.get(2)?,
                created_at: row.get(3)?,
            })
        },
    )
}

/// Stores a transfer, with the key that created it, and replaces any other.
pub fn set_transfer(
    tx: &mut WorkspaceGuard<'_, '_>,
    new: &Transfer,
    with: Option<&KeyUsed>,
) -> Result<(), Error> {
    let workspace = tx.row();
    end_transfer(tx)?;
    tx.execute(
        "INSERT INTO ownership_transfers (workspace_id, nominee_entity_id, nominated_by_entity_id, expires_at, created_at, \
                created_with_key_id, created_with_key_since) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            workspace.into(),
            new.nominee_entity_id.into(),
            new.nominated_by_entity_id.into(),
            new.expires_at.into(),
            new.created_at.into(),
            with.map(|key| key.key_id.as_str()).into(),
            with.map(|key| key.since).into(),
        ],
    )?;
    Ok(())
}

/// Deletes the pending transfer, if there is one.
pub fn end_transfer(tx: &mut WorkspaceGuard<'_, '_>) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute("DELETE FROM ownership_transfers WHERE workspace_id = $1", &[workspace.into()])?;
    Ok(())
}
