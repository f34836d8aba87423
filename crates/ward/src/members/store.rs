//! The SQL of members and of transfers of ownership.

use ward_db::{Error, Timestamp, Tx, columns, decode, insert, select};

use super::Member;
use super::wire::Transfer;
use crate::access::Role;
use crate::api_keys;
use crate::guard::WorkspaceGuard;
use crate::identity::KeyUsed;
use crate::ids::{PrincipalId, WorkspaceId};
use crate::page::Page;

columns! {
    Member as "m" {
        principal: "m.principal_id",
        kind: "p.kind",
        name: "p.display_name",
        role,
        joined_at: "m.created_at",
        seat,
    }
}

pub fn list(tx: &mut Tx<'_>, workspace: WorkspaceId, page: Page) -> Result<Vec<Member>, Error> {
    tx.all(
        select!(Member, "FROM seats s JOIN memberships m ON m.workspace_id = s.workspace_id AND m.principal_id = s.principal_id \
             JOIN principals p ON p.id = s.principal_id \
             WHERE s.workspace_id = $1 AND s.seat > $2 ORDER BY s.seat LIMIT $3"),
        &[workspace.into(), page.after.into(), page.fetch().into()],
        decode,
    )
}

/// The number of members, counted no further than `most`.
pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId, most: i64) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM seats WHERE workspace_id = $1 AND seat > 0 LIMIT $2) AS counted",
        &[workspace.into(), most.into()],
        decode,
    )
}

pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, principal: PrincipalId) -> Result<Option<Member>, Error> {
    tx.optional(
        select!(
            Member,
            "FROM memberships m JOIN principals p ON p.id = m.principal_id \
             WHERE m.workspace_id = $1 AND m.principal_id = $2"
        ),
        &[workspace.into(), principal.into()],
        decode,
    )
}

pub fn set_role(tx: &mut WorkspaceGuard<'_, '_>, principal: PrincipalId, role: Role) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE memberships SET role = $3, owned_workspace_id = CASE WHEN $3 = 'owner' \
                AND (SELECT p.kind FROM principals p WHERE p.id = memberships.principal_id) = 'user' THEN workspace_id END \
         WHERE workspace_id = $1 AND principal_id = $2",
        &[workspace.into(), principal.into(), role.into()],
    )?;
    Ok(())
}

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
        select!(
            Transfer,
            "FROM ownership_transfers t LEFT JOIN api_keys k ON k.key_id = t.created_with_key_id \
             AND k.updated_at = t.created_with_key_since AND k.position > 0 AND ",
            api_keys::LIVE,
            " WHERE t.workspace_id = $1 AND t.expires_at > $2 \
             AND (t.created_with_key_id IS NULL OR k.key_id IS NOT NULL)"
        ),
        &[workspace.into(), now.into()],
        decode,
    )
}

columns! {
    Transfer as "t" { nominee_entity_id, nominated_by_entity_id, expires_at, created_at }
}

/// Stores a transfer, with the key that created it, and replaces any other.
pub fn set_transfer(
    tx: &mut WorkspaceGuard<'_, '_>,
    new: &Transfer,
    with: Option<&KeyUsed>,
) -> Result<(), Error> {
    let workspace = tx.row();
    end_transfer(tx)?;
    insert!(tx, "ownership_transfers" {
        workspace_id: workspace,
        nominee_entity_id: new.nominee_entity_id,
        nominated_by_entity_id: new.nominated_by_entity_id,
        expires_at: new.expires_at,
        created_at: new.created_at,
        created_with_key_id: with.map(|key| key.key_id.as_str()),
        created_with_key_since: with.map(|key| key.since),
    })?;
    Ok(())
}

/// Deletes the pending transfer, if there is one.
pub fn end_transfer(tx: &mut WorkspaceGuard<'_, '_>) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute("DELETE FROM ownership_transfers WHERE workspace_id = $1", &[workspace.into()])?;
    Ok(())
}
