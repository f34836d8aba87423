//! The SQL of invitations.

use ward_db::{Error, Timestamp, Tx, columns, decode, insert, select, sql};

use super::Invitation;
use crate::access::Role;
use crate::api_keys;
use crate::guard::WorkspaceGuard;
use crate::identity::KeyUsed;
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};
use crate::page::{Page, counted};
use crate::quotas::{self, Change};

/// Joins each invitation with the key that created it, if the key is live and still has the same secret. A
/// user's key creates invitations in any of the user's workspaces, so the write that revokes the key cannot
/// close them.
const INVITATIONS: &str = sql!(
    "invitations i LEFT JOIN api_keys k ON k.key_id = i.created_with_key_id \
     AND k.updated_at = i.created_with_key_since AND k.position > 0 AND ",
    api_keys::LIVE
);

/// Whether the creator's authority persists: the key, and the role without interruption.
const HOLDS: &str = "(i.created_with_key_id IS NULL OR k.key_id IS NOT NULL) \
     AND CASE (SELECT m.role FROM memberships m \
               WHERE m.workspace_id = i.workspace_id AND m.principal_id = i.created_by_entity_id) \
         WHEN 'owner' THEN 1 WHEN 'admin' THEN CASE WHEN i.role = 'owner' THEN 0 ELSE 1 END ELSE 0 END = 1 \
     AND NOT EXISTS (SELECT 1 FROM endings e \
                     WHERE e.workspace_id = i.workspace_id AND e.principal_id = i.created_by_entity_id \
                     AND (e.kind = 'invitations' OR e.kind = 'owner_invitations' AND i.role = 'owner') \
                     AND e.position > i.position)";

/// The columns of an [`Invitation`] with the flag that [`held`] reads.
const COLUMNS: &str = sql!(Invitation::COLUMNS, ", ", HOLDS);

/// With a CASE, here and beside an id, no planner searches all workspaces' invitations by their expiry, nor
/// all of the workspace's for one.
const OPEN: &str = "i.workspace_id = $1 AND i.position > $2 AND i.position > 0 \
                    AND CASE WHEN i.expires_at > $3 THEN 1 ELSE 0 END = 1";

const OURS: &str = "CASE WHEN i.workspace_id = $1 THEN 1 ELSE 0 END = 1";

columns! {
    Invitation as "i" {
        id,
        workspace: "i.workspace_id",
        role,
        email,
        created_by: "i.created_by_entity_id",
        expires_at,
        created_at,
        position;
        holds: false,
    }
}

fn held((invitation, holds): (Invitation, bool)) -> Invitation {
    Invitation { holds, ..invitation }
}

/// Inserts an invitation with the hash of its secret and the key that created it.
pub fn insert(
    tx: &mut WorkspaceGuard<'_, '_>,
    new: &Invitation,
    hash: &str,
    with: Option<&KeyUsed>,
) -> Result<(), Error> {
    insert!(tx, "invitations" {
        workspace_id: new.workspace,
        id: new.id,
        secret_hash: hash,
        role: new.role,
        email: new.email.as_deref(),
        created_by_entity_id: new.created_by,
        position: new.position,
        expires_at: new.expires_at,
        created_at: new.created_at,
        created_with_key_id: with.map(|key| key.key_id.as_str()),
        created_with_key_since: with.map(|key| key.since),
        email_key: new.email.as_deref().map(email_key).as_deref(),
    })?;
    Ok(())
}

/// The form of an address for look-ups, which ignore the case of ASCII letters ([`Invitation::is_for`]).
fn email_key(email: &str) -> String {
    email.to_ascii_lowercase()
}

/// Stores a new expiry of an open invitation.
pub fn extend(tx: &mut WorkspaceGuard<'_, '_>, id: InvitationId, expires_at: Timestamp) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE invitations SET expires_at = $3 \
         WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND position > 0",
        &[workspace.into(), id.into(), expires_at.into()],
    )?;
    Ok(())
}

/// Replaces the secret, the creator, the creating key and the expiry of an open invitation.
pub fn renew(
    tx: &mut WorkspaceGuard<'_, '_>,
    renewed: &Invitation,
    hash: &str,
    with: Option<&KeyUsed>,
) -> Result<(), Error> {
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

/// An open invitation with the names that the invited person sees.
pub struct Offer {
    pub invitation: Invitation,
    pub slug: String,
    pub name: String,
}

/// The open invitations for an address, in all workspaces.
const OFFERS: &str = sql!(
    INVITATIONS,
    " JOIN workspaces w ON w.id = i.workspace_id AND w.state = 'active' \
     WHERE i.email_key = $1 AND i.position > $2 AND i.position > 0 \
     AND CASE WHEN i.expires_at > $3 THEN 1 ELSE 0 END = 1 AND ",
    HOLDS
);

columns! {
    Offer { invitation: COLUMNS => |columns| Ok(held(columns)), slug: "w.slug", name: "w.name" }
}

/// A page of the open invitations for a verified address, in all workspaces. Positions of different
/// workspaces may be equal; such rows are ordered by id.
pub fn offers(tx: &mut Tx<'_>, email: &str, now: Timestamp, page: Page) -> Result<Vec<Offer>, Error> {
    tx.all(
        select!(Offer, "FROM ", OFFERS, " ORDER BY i.position, i.id LIMIT $4"),
        &[email_key(email).as_str().into(), page.after.into(), now.into(), page.fetch().into()],
        decode,
    )
}

/// The number of these invitations, counted no further than `most`.
pub fn count_offers(tx: &mut Tx<'_>, email: &str, now: Timestamp, most: i64) -> Result<i64, Error> {
    tx.one(
        sql!("SELECT count(*) FROM (SELECT 1 FROM ", OFFERS, " LIMIT $4) AS counted"),
        &[email_key(email).as_str().into(), 0.into(), now.into(), most.into()],
        decode,
    )
}

/// Invitations of a workspace that are neither settled nor expired, including those whose creator lost the
/// authority.
pub fn list(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    now: Timestamp,
    page: Page,
) -> Result<Vec<Invitation>, Error> {
    tx.all(
        sql!("SELECT ", COLUMNS, " FROM ", INVITATIONS, " WHERE ", OPEN, " ORDER BY i.position LIMIT $4"),
        &[workspace.into(), page.after.into(), now.into(), page.fetch().into()],
        |row| row.read().map(held),
    )
}

/// The number of open invitations, counted no further than `most`.
pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId, now: Timestamp, most: i64) -> Result<i64, Error> {
    tx.one(
        sql!(
            "SELECT count(*), count(CASE WHEN holds THEN 1 END) FROM (SELECT ",
            HOLDS,
            " AS holds FROM ",
            INVITATIONS,
            " WHERE ",
            OPEN,
            " LIMIT $4) AS counted"
        ),
        &[workspace.into(), 0.into(), now.into(), most.into()],
        |row| row.read().map(|(looked_at, listed)| counted(looked_at, listed, most)),
    )
}

/// An invitation of this workspace, which may be settled.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, id: InvitationId) -> Result<Option<Invitation>, Error> {
    tx.optional(
        sql!("SELECT ", COLUMNS, " FROM ", INVITATIONS, " WHERE i.id = $2 AND ", OURS),
        &[workspace.into(), id.into()],
        |row| row.read().map(held),
    )
}

/// How to look up an invitation of any workspace.
#[derive(Clone)]
pub enum Reference {
    /// The hash of its link's secret.
    Link(String),
    Id(InvitationId),
}

/// The invitation of this reference, which may be settled.
pub fn find(tx: &mut Tx<'_>, reference: &Reference) -> Result<Option<Invitation>, Error> {
    const FOUND: &str = sql!("SELECT ", COLUMNS, " FROM ", INVITATIONS, " WHERE ");
    match reference {
        Reference::Link(hash) => {
            tx.optional(sql!(FOUND, "i.secret_hash = $1"), &[hash.as_str().into()], |row| {
                row.read().map(held)
            })
        }
        Reference::Id(id) => {
            tx.optional(sql!(FOUND, "i.id = $1"), &[(*id).into()], |row| row.read().map(held))
        }
    }
}

/// Up to `most` unsettled invitations with this role that the principal created, with a position before
/// `before`. The lower bound is a parameter: the literal `position > 0` would let a planner use the list's
/// index over all creators.
pub fn made_by(
    tx: &mut Tx<'_>,
    (workspace, maker): (WorkspaceId, PrincipalId),
    role: Role,
    before: i64,
    most: u32,
) -> Result<Vec<Invitation>, Error> {
    tx.all(
        select!(Invitation, "FROM invitations i WHERE i.created_by_entity_id = $2 AND i.workspace_id = $1 AND i.role = $3 AND i.position > $4 \
             AND i.position < $5 ORDER BY i.position LIMIT $6"),
        &[workspace.into(), maker.into(), role.name().into(), 0.into(), before.into(), most.into()],
        decode,
    )
}

/// Settles an invitation; `false` if it was already settled.
pub fn settle(tx: &mut WorkspaceGuard<'_, '_>, id: InvitationId) -> Result<bool, Error> {
    let workspace = tx.row();
    settle_one(tx, workspace, id)
}

fn settle_one(tx: &mut Tx<'_>, workspace: WorkspaceId, id: InvitationId) -> Result<bool, Error> {
    let settled = tx.execute(
        "UPDATE invitations SET position = -position \
         WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND position > 0",
        &[workspace.into(), id.into()],
    )?;
    if settled == 1 {
        quotas::give_back(tx, workspace, Change { invitations: -1, ..Change::default() })?;
    }
    Ok(settled == 1)
}

/// Settles up to `most` expired invitations, so that they no longer count. Returns their number.
pub fn settle_expired(tx: &mut Tx<'_>, now: Timestamp, most: u32) -> Result<usize, Error> {
    let mut due: Vec<(WorkspaceId, InvitationId)> = tx.all(
        "SELECT workspace_id, id FROM invitations WHERE position > 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2",
        &[now.into(), most.into()],
        decode,
    )?;
    // Every replica locks the rows in the same order.
    due.sort_unstable();
    for (workspace, id) in &due {
        settle_one(tx, *workspace, *id)?;
    }
    Ok(due.len())
}

/// Deletes settled invitations that expired before `before`; the audit keeps their events. Returns their
/// number.
pub fn forget_old(tx: &mut Tx<'_>, before: Timestamp, most: u32) -> Result<usize, Error> {
    let old: Vec<String> = tx.all(
        "SELECT secret_hash FROM invitations WHERE position < 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2",
        &[before.into(), most.into()],
        decode,
    )?;
    // One statement per row: for a single statement, a planner may read the whole table to find the few.
    for secret_hash in &old {
        tx.execute("DELETE FROM invitations WHERE secret_hash = $1", &[secret_hash.as_str().into()])?;
    }
    Ok(old.len())
}
