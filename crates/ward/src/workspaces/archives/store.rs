//! The SQL of the times of archived workspaces, and of legal holds.

use std::net::IpAddr;

use ward_db::{Error, Row, Timestamp, Tx, columns, decode, insert_later, select, sql};

use super::{Archived, LegalHold};
use crate::access::Role;
use crate::guard::WorkspaceGuard;
use crate::identity::PrincipalKind;
use crate::ids::{PrincipalId, WorkspaceId};
use crate::page::{Page, counted};
use crate::workspaces::access_policy::{AccessPolicy, Visitor};
use crate::workspaces::store::{ISSUER, WORKSPACE};
use crate::workspaces::{Workspace, WorkspaceState};

columns! {
    Archived {
        archived_at: "a.archived_at",
        purge_at: "a.purge_at",
        legal_hold: "(SELECT 1 FROM legal_holds h WHERE w.id = h.workspace_id) IS NOT NULL",
    }
}

/// A workspace that is not in the list of one of its members, because it is or was archived.
pub struct ArchivedMembership {
    pub workspace: Workspace,
    /// The member's place in the list before, with the opposite sign.
    position: i64,
    issuer: Option<String>,
    role: Role,
    state: WorkspaceState,
    pub archived: Archived,
}

columns! {
    ArchivedMembership as "m" {
        workspace: WORKSPACE,
        position,
        issuer: ISSUER,
        role,
        state: "w.state",
        archived: Archived::COLUMNS,
    }
}

const JOINED: &str = "FROM memberships m JOIN workspaces w ON w.id = m.workspace_id \
     LEFT JOIN archives a ON w.id = a.workspace_id";

impl ArchivedMembership {
    /// Its place in the list of archived workspaces.
    pub const fn place(&self) -> i64 {
        -self.position
    }

    /// Whether this member is one of the last owners of an archived workspace whose policy admits it.
    pub fn is_restorable_by(&self, kind: PrincipalKind, address: IpAddr) -> bool {
        let visitor = Visitor { address, kind, issuer: self.issuer.as_deref() };
        is_restorable(self.state, self.role, &self.workspace.policy, visitor)
    }
}

fn is_restorable(state: WorkspaceState, role: Role, policy: &AccessPolicy, visitor: Visitor<'_>) -> bool {
    state == WorkspaceState::Archived && role == Role::Owner && policy.admit(visitor).is_ok()
}

/// A page of the workspaces that archives took out of the principal's list, in its order.
pub fn archived(
    tx: &mut Tx<'_>,
    principal: PrincipalId,
    page: Page,
) -> Result<Vec<ArchivedMembership>, Error> {
    tx.all(
        select!(
            ArchivedMembership,
            JOINED,
            " WHERE m.principal_id = $1 AND m.position < $2 AND m.position < 0 ORDER BY m.position DESC LIMIT $3"
        ),
        &[principal.into(), (-page.after).into(), page.fetch().into()],
        decode,
    )
}

/// The number of archived workspaces that the principal can restore, counted no further than `most` memberships.
pub fn count_archived(
    tx: &mut Tx<'_>,
    principal: PrincipalId,
    (kind, address): (PrincipalKind, IpAddr),
    most: i64,
) -> Result<i64, Error> {
    // Only what decides is read, because a page of the list may count thousands of memberships.
    const SQL: &str = sql!(
        "SELECT w.state, m.role, w.networks, w.issuers, ",
        ISSUER,
        " FROM memberships m JOIN workspaces w ON w.id = m.workspace_id \
         WHERE m.principal_id = $1 AND m.position < 0 ORDER BY m.position DESC LIMIT $2"
    );
    let judge = |row: &Row<'_>| {
        let (state, role, policy, issuer): (_, _, AccessPolicy, Option<String>) = row.read()?;
        Ok(is_restorable(state, role, &policy, Visitor { address, kind, issuer: issuer.as_deref() }))
    };
    let found: Vec<bool> = tx.all(SQL, &[principal.into(), most.into()], judge)?;
    let restorable = found.iter().filter(|restorable| **restorable).count();
    let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
    Ok(counted(number(found.len()), number(restorable), most))
}

/// The membership of a principal in a workspace, with the times of its archive.
pub fn archived_membership(
    tx: &mut Tx<'_>,
    id: WorkspaceId,
    principal: PrincipalId,
) -> Result<Option<ArchivedMembership>, Error> {
    tx.optional(
        select!(ArchivedMembership, JOINED, " WHERE m.workspace_id = $1 AND m.principal_id = $2"),
        &[id.into(), principal.into()],
        decode,
    )
}

/// The times of an archived workspace and whether it has a legal hold. For the operator only.
pub fn archived_at(tx: &mut Tx<'_>, id: WorkspaceId) -> Result<Option<Archived>, Error> {
    tx.optional(
        select!(
            Archived,
            "FROM workspaces w LEFT JOIN archives a ON w.id = a.workspace_id WHERE w.id = $1 AND w.state = 'archived'"
        ),
        &[id.into()],
        decode,
    )
}

/// Stores the times of the held workspace, which was archived now.
pub fn begin(tx: &mut WorkspaceGuard<'_, '_>, now: Timestamp, purge_at: Timestamp) -> Result<(), Error> {
    let workspace = tx.row();
    insert_later!(tx, "archives" {
        workspace_id: workspace,
        archived_at: now,
        purge_at: purge_at,
    } "ON CONFLICT (workspace_id) DO UPDATE SET archived_at = excluded.archived_at, purge_at = excluded.purge_at")
}

/// Forgets the times of the held workspace, which was restored.
pub fn end(tx: &mut WorkspaceGuard<'_, '_>) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute_later("DELETE FROM archives WHERE workspace_id = $1", &[workspace.into()])
}

columns! {
    LegalHold as "h" {
        reason,
        placed_at,
    }
}

/// The legal hold of a workspace, if it has one.
pub fn hold_of(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Option<LegalHold>, Error> {
    tx.optional(
        select!(LegalHold, "FROM legal_holds h WHERE h.workspace_id = $1"),
        &[workspace.into()],
        decode,
    )
}

/// Places a legal hold on the held workspace, or gives its hold another reason.
pub fn hold(tx: &mut WorkspaceGuard<'_, '_>, reason: &str, now: Timestamp) -> Result<(), Error> {
    let workspace = tx.row();
    insert_later!(tx, "legal_holds" {
        workspace_id: workspace,
        reason: reason,
        placed_at: now,
    } "ON CONFLICT (workspace_id) DO UPDATE SET reason = excluded.reason")
}

/// Lifts the legal hold of the held workspace; `false` if it has none.
pub fn lift_hold(tx: &mut WorkspaceGuard<'_, '_>) -> Result<bool, Error> {
    let workspace = tx.row();
    let lifted = tx.execute("DELETE FROM legal_holds WHERE workspace_id = $1", &[workspace.into()])?;
    Ok(lifted == 1)
}
