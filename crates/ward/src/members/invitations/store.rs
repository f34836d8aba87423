//! The SQL of invitations.

use ward_db::{Error, Row, Timestamp, Tx};

use super::Invitation;
use crate::access::Role;
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};
use crate::page::Page;

const COLUMNS: &str = "id, workspace_id, role, email, created_by_entity_id, expires_at, created_at, position";

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
    })
}

/// Inserts an invitation with the hash of its secret.
pub fn insert(tx: &mut Tx<'_>, new: &Invitation, hash: &str) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO invitations (workspace_id, id, secret_hash, role, email, created_by_entity_id, position, \
                expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
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
        &format!(
            "SELECT {COLUMNS} FROM invitations WHERE workspace_id = $1 AND position > $2 AND expires_at > $3 \
             ORDER BY position LIMIT $4"
        ),
        &[workspace.into(), page.after.into(), now.into(), page.fetch().into()],
        invitation,
    )
}

/// How many there are, counted no further than `most`.
pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId, now: Timestamp, most: i64) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM invitations \
         WHERE workspace_id = $1 AND position > 0 AND expires_at > $2 LIMIT $3) AS counted",
        &[workspace.into(), now.into(), most.into()],
        |row| row.get(0),
    )
}

/// An invitation that is not settled.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, id: InvitationId) -> Result<Option<Invitation>, Error> {
    tx.optional(
        &format!("SELECT {COLUMNS} FROM invitations WHERE workspace_id = $1 AND id = $2 AND position > 0"),
        &[workspace.into(), id.into()],
        invitation,
    )
}

/// The invitation of this secret, settled ones included.
pub fn find(tx: &mut Tx<'_>, hash: &str) -> Result<Option<Invitation>, Error> {
    tx.optional(
        &format!("SELECT {COLUMNS} FROM invitations WHERE secret_hash = $1"),
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
            "SELECT {COLUMNS} FROM invitations \
             WHERE workspace_id = $1 AND created_by_entity_id = $2 AND position > 0 ORDER BY position"
        ),
        &[workspace.into(), maker.into()],
        invitation,
    )
}

/// Settles an invitation. `false`: it was settled already.
pub fn settle(tx: &mut Tx<'_>, workspace: WorkspaceId, id: InvitationId) -> Result<bool, Error> {
    let settled = tx.execute(
        "UPDATE invitations SET position = -position WHERE workspace_id = $1 AND id = $2 AND position > 0",
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
