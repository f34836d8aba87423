//! The SQL of principals and memberships.

use std::net::IpAddr;
use std::sync::LazyLock;

use ward_db::{Error, Timestamp, Tx, Value, columns, decode, insert, insert_later, select};
use ward_guard::Lock;

use super::PrincipalKind;
use super::proof::ProofUse;
use super::token::VerifiedToken;
use crate::access::Role;
use crate::guard::{PrincipalGuard, WorkspaceGuard};
use crate::ids::{PrincipalId, WorkspaceId};
use crate::page::Page;
use crate::workspaces::access_policy::{AcceptedIssuers, AccessPolicy, Visitor};
use crate::workspaces::{self, AsMember};

/// Creates a principal with a display name.
pub fn create(
    tx: &mut Tx<'_>,
    kind: PrincipalKind,
    name: Option<&str>,
    now: Timestamp,
) -> Result<PrincipalId, Error> {
    let id = PrincipalId::at(now);
    insert(tx, id, kind, name, now)?;
    Ok(id)
}

fn insert(
    tx: &mut Tx<'_>,
    id: PrincipalId,
    kind: PrincipalKind,
    name: Option<&str>,
    now: Timestamp,
) -> Result<(), Error> {
    insert_later!(tx, "principals" {
        id: id,
        kind: kind,
        display_name: name,
        last_position: 0,
        created_at: now,
    })
}

/// The principal of a token's subject, with its kind. `None` if the subject has never written anything.
pub fn look_up(
    tx: &mut Tx<'_>,
    token: &VerifiedToken,
) -> Result<Option<(PrincipalId, PrincipalKind)>, Error> {
    tx.optional(
        "SELECT principal_id, kind FROM identities WHERE issuer = $1 AND subject = $2",
        &[(&*token.issuer.name).into(), token.subject.as_str().into()],
        decode,
    )
}

/// As [`look_up`], with the workspace that the principal wants to enter, if it is active and the principal
/// is a member.
pub fn look_up_for(
    tx: &mut Tx<'_>,
    token: &VerifiedToken,
    workspace: WorkspaceId,
) -> Result<Option<(PrincipalId, PrincipalKind, Option<AsMember>)>, Error> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let (columns, join) = workspaces::membership_sql("$3", "i.principal_id");
        format!(
            "SELECT i.principal_id, i.kind, {columns} FROM identities i {join} WHERE i.issuer = $1 AND i.subject = $2"
        )
    });
    tx.optional(
        &SQL,
        &[(&*token.issuer.name).into(), token.subject.as_str().into(), workspace.into()],
        |row| {
            let mut columns = row.columns();
            Ok((columns.read()?, columns.read()?, workspaces::membership(&mut columns)?))
        },
    )
}

/// A subject of an issuer, as it is stored.
pub struct Subject {
    pub issuer: String,
    pub subject: String,
    pub kind: PrincipalKind,
}

columns! {
    Subject as "i" { issuer, subject, kind }
}

/// The subjects of issuers that are this principal; usually one, or none.
pub fn subjects_of(tx: &mut Tx<'_>, principal: PrincipalId) -> Result<Vec<Subject>, Error> {
    tx.all(
        select!(Subject, "FROM identities i WHERE i.principal_id = $1 LIMIT 10"),
        &[principal.into()],
        decode,
    )
}

/// Creates the principal of a token's subject, unless it exists.
pub fn enroll(tx: &mut Tx<'_>, token: &VerifiedToken, now: Timestamp) -> Result<(), Error> {
    let first = insert!(tx, "identities" {
        issuer: &*token.issuer.name,
        subject: &token.subject,
        principal_id: token.principal,
        kind: token.kind,
        created_at: now,
    } "ON CONFLICT (issuer, subject) DO NOTHING")?;
    if first == 1 {
        insert(tx, token.principal, token.kind, token.name.as_deref(), now)?;
    }
    Ok(())
}

pub fn set_name(tx: &mut PrincipalGuard<'_, '_>, name: &str) -> Result<(), Error> {
    let principal = tx.row();
    tx.execute_later(
        "UPDATE principals SET display_name = $2 WHERE id = $1 AND (display_name IS NULL OR display_name <> $2)",
        &[principal.into(), name.into()],
    )?;
    Ok(())
}

/// Takes the principal's guard row, so that writes on its list run one after the other.
impl Lock<Tx<'_>> for PrincipalId {
    type Row = Self;
    type Error = Error;

    fn lock(self, tx: &mut Tx<'_>) -> Result<Self, Error> {
        tx.execute_later(
            "UPDATE principals SET last_position = last_position WHERE id = $1",
            &[self.into()],
        )?;
        Ok(self)
    }
}

/// Moves the end of the principal's list of workspaces by one position, and returns that position.
fn next_position(tx: &mut Tx<'_>, principal: PrincipalId, now: Timestamp) -> Result<i64, Error> {
    tx.one(
        "UPDATE principals SET last_position = CASE WHEN last_position >= $2 THEN last_position + 1 ELSE $2 END \
         WHERE id = $1 RETURNING last_position",
        &[principal.into(), now.micros().into()],
        decode,
    )
}

/// Makes the principal a member, at the end of its own list and of the workspace's.
pub fn join(
    tx: &mut WorkspaceGuard<'_, '_>,
    (principal, kind): (PrincipalId, PrincipalKind),
    role: Role,
    now: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    let owned = (role == Role::Owner && kind == PrincipalKind::User).then_some(workspace);
    let position = next_position(tx, principal, now)?;
    let seat = workspaces::next_position(tx, now)?;
    insert_later!(tx, "memberships" {
        workspace_id: workspace,
        principal_id: principal,
        role: role,
        position: position,
        seat: seat,
        created_at: now,
        owned_workspace_id: owned,
    })?;
    insert_later!(tx, "seats" { workspace_id: workspace, seat: seat, principal_id: principal })?;
    Ok(())
}

/// Deletes a membership and its seat.
pub fn leave(tx: &mut WorkspaceGuard<'_, '_>, principal: PrincipalId) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute_later(
        "DELETE FROM seats WHERE workspace_id = $1 AND seat = (SELECT m.seat FROM memberships m \
         WHERE m.workspace_id = $1 AND m.principal_id = $2)",
        &[workspace.into(), principal.into()],
    )?;
    tx.execute_later(
        "DELETE FROM memberships WHERE workspace_id = $1 AND principal_id = $2",
        &[workspace.into(), principal.into()],
    )?;
    Ok(())
}

/// Removes an archived workspace from the lists of up to `most` members, or appends a restored one to them,
/// in the order of the members. `after` is the last member that was done. Returns the last member of this
/// step, or `None` if no member is left.
///
/// A position from before `since`, the time of the restoration, may lie behind a client's token, so a new
/// one replaces it.
pub fn relist_some(
    tx: &mut WorkspaceGuard<'_, '_>,
    after: PrincipalId,
    (since, archived): (i64, bool),
    most: u32,
    now: Timestamp,
) -> Result<Option<PrincipalId>, Error> {
    let workspace = tx.row();
    let mut members: Vec<(PrincipalId, i64)> = tx.all(
        "SELECT principal_id, position FROM memberships WHERE workspace_id = $1 AND principal_id > $2 \
         ORDER BY principal_id LIMIT $3",
        &[workspace.into(), after.into(), (most + 1).into()],
        decode,
    )?;
    let more = members.len() > most as usize;
    members.truncate(most as usize);
    for (member, position) in &members {
        let moved = match archived {
            true if *position > 0 => -position,
            false if *position < since => next_position(tx, *member, now)?,
            _ => continue,
        };
        tx.execute_later(
            "UPDATE memberships SET position = $3 WHERE workspace_id = $1 AND principal_id = $2",
            &[workspace.into(), (*member).into(), moved.into()],
        )?;
    }
    Ok(members.last().map(|(member, _)| *member).filter(|_| more))
}

/// A principal's display name and the time of its creation.
pub fn describe(
    tx: &mut Tx<'_>,
    principal: PrincipalId,
) -> Result<Option<(Option<String>, Timestamp)>, Error> {
    tx.optional("SELECT display_name, created_at FROM principals WHERE id = $1", &[principal.into()], decode)
}

/// A membership, with its workspace's names.
pub struct Membership {
    pub workspace: WorkspaceId,
    pub slug: String,
    pub name: String,
    pub role: Role,
    /// The position in the principal's list.
    pub position: i64,
}

columns! {
    Membership as "m" {
        workspace: "m.workspace_id",
        slug: "w.slug",
        name: "w.name",
        role,
        position,
    }
}

/// A membership in the list of its principal, with the facts that the workspace's access policy judges.
pub struct ListedMembership {
    pub membership: Membership,
    policy: AccessPolicy,
    issuer: Option<String>,
}

columns! {
    ListedMembership as "m" {
        membership: Membership::COLUMNS,
        policy: "w.networks, w.issuers",
        issuer: workspaces::ISSUER,
    }
}

impl ListedMembership {
    /// Whether a caller of this kind may enter the workspace from this address.
    pub fn is_entered(&self, kind: PrincipalKind, address: IpAddr) -> bool {
        self.policy.admit(Visitor { address, kind, issuer: self.issuer.as_deref() }).is_ok()
    }
}

/// Whether a workspace that accepts these issuers accepts the principal as a member.
pub fn is_accepted(
    tx: &mut Tx<'_>,
    issuers: &AcceptedIssuers,
    principal: PrincipalId,
) -> Result<bool, Error> {
    if *issuers == AcceptedIssuers::default() {
        return Ok(true);
    }
    let found: Option<(PrincipalKind, Option<String>)> = tx.optional(
        "SELECT p.kind, (SELECT i.issuer FROM identities i WHERE i.principal_id = p.id LIMIT 1) \
         FROM principals p WHERE p.id = $1",
        &[principal.into()],
        decode,
    )?;
    Ok(found.is_some_and(|(kind, issuer)| issuers.accept(kind, issuer.as_deref())))
}

/// A page of the memberships that a principal has in active workspaces.
pub fn memberships(
    tx: &mut Tx<'_>,
    principal: PrincipalId,
    page: Page,
) -> Result<Vec<ListedMembership>, Error> {
    tx.all(
        select!(ListedMembership, "FROM memberships m JOIN workspaces w ON w.id = m.workspace_id \
             WHERE m.principal_id = $1 AND m.position > $2 AND m.position > 0 \
             AND (SELECT v.state FROM workspaces v WHERE v.id = m.workspace_id) = 'active' ORDER BY m.position LIMIT $3"),
        &[principal.into(), page.after.into(), page.fetch().into()],
        decode,
    )
}

/// Notes the use of a proof. Returns whether it is the first use, over all replicas.
pub fn note_proof(tx: &mut Tx<'_>, used: &ProofUse) -> Result<bool, Error> {
    let noted = insert!(tx, "dpop_proofs" {
        id: Value::Bytes(&used.id),
        kept_until: used.kept_until,
    } "ON CONFLICT (id) DO NOTHING")?;
    Ok(noted == 1)
}

/// Forgets up to `most` proofs that are too old to be accepted again. Returns their number.
pub fn forget_proofs(tx: &mut Tx<'_>, now: Timestamp, most: u32) -> Result<usize, Error> {
    let old: Vec<Vec<u8>> = tx.all(
        "SELECT id FROM dpop_proofs WHERE kept_until <= $1 ORDER BY kept_until LIMIT $2",
        &[now.into(), most.into()],
        decode,
    )?;
    for id in &old {
        tx.execute_later("DELETE FROM dpop_proofs WHERE id = $1", &[Value::Bytes(id)])?;
    }
    Ok(old.len())
}
