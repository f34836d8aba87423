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
                expires_at, created_at, created_with_key_id, created_with_key_since, email_key) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
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
            new.email.as_deref().map(email_key).as_deref().into(),
        ],
    )?;
    Ok(())
}

/// The address as it is looked up: letter case of ASCII does not count ([`Invitation::is_for`]).
fn email_key(email: &str) -> String {
    email.to_ascii_lowercase()
}

/// Gives an open invitation a later end.
pub fn extend(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: InvitationId,
    expires_at: Timestamp,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE invitations SET expires_at = $3 \
         WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND position > 0",
        &[workspace.into(), id.into(), expires_at.into()],
    )?;
    Ok(())
}

/// Replaces the link of an open invitation: its secret, its maker, the key it was made with, and its end.
pub fn renew(tx: &mut Tx<'_>, renewed: &Invitation, hash: &str, with: Option<&KeyUsed>) -> Result<(), Error> {
    tx.execute(
        "UPDATE invitations SET secret_hash = $3, created_by_entity_id = $4, expires_at = $5, \
                created_with_key_id = $6, created_with_key_since = $7 \
         WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND position > 0",
        &[
            renewed.workspace.into(),
            renewed.id.into(),
            hash.into(),
            renewed.created_by.into(),
            renewed.expires_at.into(),
            with.map(|key| key.key_id.as_str()).into(),
            with.map(|key| key.since).into(),
        ],
    )?;
    Ok(())
}

/// An open invitation as the person sees it that it is for.
pub struct Offer {
    /// The invitation.
    pub invitation: Invitation,
    /// The slug of the workspace.
    pub slug: String,
    /// The name of the workspace.
    pub name: String,
}

/// The open invitations for an address, whose makers may still make them. An invitation's role never exceeds its maker's.
/// The role is a subquery, so that planners look each membership up by its whole key.
const OFFERS: &str = "invitations i JOIN workspaces w ON w.id = i.workspace_id AND w.state = 'active' \
     LEFT JOIN api_keys k ON k.key_id = i.created_with_key_id AND k.updated_at = i.created_with_key_since AND k.position > 0 \
     WHERE i.email_key = $1 AND i.position > $2 AND i.position > 0 AND CASE WHEN i.expires_at > $3 THEN 1 ELSE 0 END = 1 \
     AND (i.created_with_key_id IS NULL OR k.key_id IS NOT NULL) \
     AND CASE (SELECT m.role FROM memberships m \
               WHERE m.workspace_id = i.workspace_id AND m.principal_id = i.created_by_entity_id) \
         WHEN 'owner' THEN 1 WHEN 'admin' THEN CASE WHEN i.role = 'owner' THEN 0 ELSE 1 END ELSE 0 END = 1";

/// A page of the open invitations for a verified address, over all workspaces. Positions of different workspaces may be
/// equal; such rows are in the order of their ids.
pub fn offers(tx: &mut Tx<'_>, email: &str, now: Timestamp, page: Page) -> Result<Vec<Offer>, Error> {
    tx.all(
        &format!("SELECT {COLUMNS}, w.slug, w.name FROM {OFFERS} ORDER BY i.position, i.id LIMIT $4"),
        &[email_key(email).as_str().into(), page.after.into(), now.into(), page.fetch().into()],
        |row| Ok(Offer { invitation: invitation(row)?, slug: row.get(9)?, name: row.get(10)? }),
    )
}

/// The number of those, counted no further than `most`.
pub fn count_offers(tx: &mut Tx<'_>, email: &str, now: Timestamp, most: i64) -> Result<i64, Error> {
    tx.one(
        &format!("SELECT count(*) FROM (SELECT 1 FROM {OFFERS} LIMIT $4) AS counted"),
        &[email_key(email).as_str().into(), 0.into(), now.into(), most.into()],
        |row| row.get(0),
    )
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

/// How an invitation is looked up, whatever its workspace.
#[derive(Clone)]
pub enum Reference {
    /// By the hash of its link's secret.
    Link(String),
    /// By its id.
    Id(InvitationId),
}

/// The invitation referred to, settled ones included.
pub fn find(tx: &mut Tx<'_>, reference: &Reference) -> Result<Option<Invitation>, Error> {
    let (column, value) = match reference {
        Reference::Link(hash) => ("secret_hash", hash.as_str().into()),
        Reference::Id(id) => ("id", (*id).into()),
    };
    tx.optional(&format!("SELECT {COLUMNS} FROM {INVITATIONS} WHERE i.{column} = $1"), &[value], invitation)
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
