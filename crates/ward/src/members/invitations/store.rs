//! The SQL of invitations.

use ward_db::{Error, Row, Timestamp, Tx};

use super::Invitation;
use crate::access::Role;
use crate::http::caller::KeyUsed;
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};
use crate::page::Page;

const COLUMNS: &str = "i.id, i.workspace_id, i.role, i.email, i.created_by_entity_id, i.expires_at, i.created_at, i.position, \
                       i.created_with_key_id IS NULL OR k.key_id IS NOT NULL";

/// Beside each invitation the key that it was made with, for as long as that is neither revoked nor rotated. Looked up and
/// not written down when the key ends: a user's key may have made invitations in any workspace of theirs, and the one that
/// ends it holds the guard row of one only.
const INVITATIONS: &str = "invitations i LEFT JOIN api_keys k ON k.key_id = i.created_with_key_id \
                           AND k.updated_at = i.created_with_key_since AND k.position > 0";

/// The CASE, here and beside an id: no planner is to look for them by their end among those of all workspaces, nor for one
/// among all of the workspace's.
const OPEN: &str = "i.workspace_id = $1 AND i.position > $2 AND CASE WHEN i.expires_at > $3 THEN 1 ELSE 0 END = 1 \
                    AND (i.created_with_key_id IS NULL OR k.key_id IS NOT NULL)";

const OURS: &str = "CASE WHEN i.workspace_id = $1 THEN 1 ELSE 0 END = 1";

fn invitation(row: &Row<'_>) -> Result<Invitation, Error> {
    Ok(Invitation {
        id: row.get(0)?,
        workspace: row.get(1)?,
        role: Role::column(row, 2)?,
        email: row.get(3)?,
        created_by: row.get(4)?,
        expires_at: row.get(5)?,
        created_at: row.get(6)?,
        position: row.get(7)?,
        key_holds: row.get(8)?,
    })
}

/// Inserts an invitation with the hash of its secret and the key that it was made with.
pub fn insert(tx: &mut Tx<'_>, new: &Invitation, hash: &str, with: Option<&KeyUsed>) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO invitations (workspace_id, id, secret_hash, role, email, created_by_entity_id, position, \
                expires_at, created_at, created_with_key_id, created_with_key_since) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            new.workspace.into(),
            new.id.into(),
            hash.into(),
            new.role.name().into(),
            new.email.as_deref().into(),
            new.created_by.into(),
            new.position.into(),
            new.expires_at.into(),
            new.created_at.into(),
            with.map(|key| key.key_id.as_str()).into(),
            with.map(|key| key.since).into(),
        ],
    )?;
    Ok(())
}

/// A page of a workspace's open invitations.
pub fn list(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    now: Timestamp,
    page: Page,
) -> Result<Vec<Invitation>, Error> {
    tx.all(
        &format!("SELECT {COLUMNS} FROM {INVITATIONS} WHERE {OPEN} ORDER BY i.position LIMIT $4"),
        &[workspace.into(), page.after.into(), now.into(), page.fetch().into()],
        invitation,
    )
}

/// How many there are, counted no further than `most`.
pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId, now: Timestamp, most: i64) -> Result<i64, Error> {
    tx.one(
        &format!("SELECT count(*) FROM (SELECT 1 FROM {INVITATIONS} WHERE {OPEN} LIMIT $4) AS counted"),
        &[workspace.into(), 0.into(), now.into(), most.into()],
        |row| row.get(0),
    )
}

/// An invitation of this workspace, a settled one included.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, id: InvitationId) -> Result<Option<Invitation>, Error> {
    tx.optional(
        &format!("SELECT {COLUMNS} FROM {INVITATIONS} WHERE i.id = $2 AND {OURS}"),
        &[workspace.into(), id.into()],
        invitation,
    )
}

/// The invitation of this secret, settled ones included.
pub fn find(tx: &mut Tx<'_>, hash: &str) -> Result<Option<Invitation>, Error> {
    tx.optional(
        &format!("SELECT {COLUMNS} FROM {INVITATIONS} WHERE i.secret_hash = $1"),
        &[hash.into()],
        invitation,
    )
}

/// The invitations that this principal made and that are not settled.
pub fn made_by(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    maker: PrincipalId,
) -> Result<Vec<Invitation>, Error> {
    tx.all(
        &format!(
            "SELECT {COLUMNS} FROM {INVITATIONS} \
             WHERE i.workspace_id = $1 AND i.created_by_entity_id = $2 AND i.position > 0 ORDER BY i.position"
        ),
        &[workspace.into(), maker.into()],
        invitation,
    )
}

/// Settles an invitation. `false`: it was settled already.
pub fn settle(tx: &mut Tx<'_>, workspace: WorkspaceId, id: InvitationId) -> Result<bool, Error> {
    let settled = tx.execute(
        "UPDATE invitations SET position = -position \
         WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND position > 0",
        &[workspace.into(), id.into()],
    )?;
    Ok(settled == 1)
}

/// Forgets invitations that were over before `before`; the audit still tells of them. Returns how many went.
pub fn forget_old(tx: &mut Tx<'_>, before: Timestamp, most: u32) -> Result<usize, Error> {
    let old: Vec<String> = tx.all(
        "SELECT secret_hash FROM invitations WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
        &[before.into(), most.into()],
        |row| row.get(0),
    )?;
    // One by one: as one statement, a planner may read the whole table to find the few.
    for secret_hash in &old {
        tx.execute("DELETE FROM invitations WHERE secret_hash = $1", &[secret_hash.as_str().into()])?;
    }
    Ok(old.len())
}
