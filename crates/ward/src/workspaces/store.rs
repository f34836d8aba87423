//! The SQL of workspaces.

use std::net::IpAddr;
use std::sync::LazyLock;

use ward_db::{
    Columns, Error, Row, Timestamp, Tx, Value, columns, decode, insert, insert_later, select, sql,
    update_later,
};
use ward_guard::Lock;

use super::access_policy::{AccessPolicy, Visitor};
use super::{Workspace, WorkspaceState};
use crate::access::Role;
use crate::guard::WorkspaceGuard;
use crate::identity::PrincipalKind;
use crate::ids::{PrincipalId, WorkspaceId};
use crate::page::{Page, counted};
use crate::quotas;

/// Rows that share the count of unclaimed workspaces, as many as the migration created.
const SLOTS: u32 = 16;

columns! {
    Workspace as "w" {
        id,
        slug,
        name,
        environment,
        backend_org_id,
        region,
        connector_type,
        provisioned_at,
        created_at,
        updated_at,
        limits,
        policy: "w.networks, w.issuers",
    }
}

/// The columns of the workspace `w`, for other stores of this room.
pub(super) const WORKSPACE: &str = Workspace::COLUMNS;

/// A workspace from the viewpoint of a member.
#[derive(Debug)]
pub struct AsMember {
    pub workspace: Workspace,
    pub role: Role,
    /// The issuer of which the member is a subject. Only read where the workspace accepts some issuers.
    pub issuer: Option<String>,
}

impl AsMember {
    /// Judges the member, of this kind and at this address, by the workspace's policy. The error is the reason for the audit.
    pub fn admit(&self, kind: PrincipalKind, address: IpAddr) -> Result<(), &'static str> {
        self.workspace.policy.admit(Visitor { address, kind, issuer: self.issuer.as_deref() })
    }
}

/// The issuer of the principal `m.principal_id`, where workspace `w` accepts some issuers. Other workspaces cost no look-up.
pub const ISSUER: &str = "CASE WHEN w.issuers IS NOT NULL THEN (SELECT o.issuer FROM identities o \
     WHERE o.principal_id = m.principal_id LIMIT 1) END";

/// The columns and the join by which a look-up of a principal reads the workspace to enter. `id` is the
/// parameter of the workspace; `principal` is the parameter or column of the principal.
///
/// Every request uses this, so its form leaves a planner no choice. The membership is a subquery, because a
/// join could start from the workspace's members. The workspace is found through the membership, so the row
/// of a foreign workspace is never read. The size of that row would show in the time of a 404.
pub fn membership_sql(id: &str, principal: &str) -> (String, String) {
    let of_member = |column: &str, id: &str| {
        format!(
            "(SELECT m.{column} FROM memberships m WHERE m.workspace_id = {id} AND m.principal_id = {principal})"
        )
    };
    let found = of_member("workspace_id", id);
    (
        format!(
            "{}, {}, {}",
            Workspace::COLUMNS,
            of_member("role", "w.id"),
            ISSUER.replace("m.principal_id", principal)
        ),
        format!("LEFT JOIN workspaces w ON w.id = {found} AND w.state = 'active'"),
    )
}

/// Reads the columns of [`membership_sql`], which are the last ones of their row. `None` if the workspace is not
/// active or the principal is not a member.
pub fn membership(columns: &mut Columns<'_>) -> Result<Option<AsMember>, Error> {
    if columns.next_is_null()? {
        return Ok(None);
    }
    let (workspace, role, issuer): (Workspace, Option<Role>, _) = columns.read()?;
    Ok(role.map(|role| AsMember { workspace, role, issuer }))
}

/// The active workspace with the principal's role, if it is a member.
pub fn as_member(
    tx: &mut Tx<'_>,
    id: WorkspaceId,
    principal: PrincipalId,
) -> Result<Option<AsMember>, Error> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let (columns, _) = membership_sql("$1", "$2");
        format!(
            "SELECT {columns} FROM workspaces w WHERE w.state = 'active' AND w.id = \
             (SELECT m.workspace_id FROM memberships m WHERE m.workspace_id = $1 AND m.principal_id = $2)"
        )
    });
    let found = tx.optional(&SQL, &[id.into(), principal.into()], |row| membership(&mut row.columns()))?;
    Ok(found.flatten())
}

/// The workspace, if it is active. It does not check a membership.
pub fn active(tx: &mut Tx<'_>, id: WorkspaceId) -> Result<Option<Workspace>, Error> {
    tx.optional(
        select!(Workspace, "FROM workspaces w WHERE w.id = $1 AND w.state = 'active'"),
        &[id.into()],
        decode,
    )
}

/// Takes the workspace's guard row, so that writes in the workspace run one after the other.
impl Lock<Tx<'_>> for WorkspaceId {
    type Row = Self;
    type Error = Error;

    fn lock(self, tx: &mut Tx<'_>) -> Result<Self, Error> {
        tx.execute_later(
            "UPDATE workspaces SET last_position = last_position WHERE id = $1",
            &[self.into()],
        )?;
        Ok(self)
    }
}

/// A workspace that this transaction has inserted or claimed, which locks its row.
pub struct AlreadyLocked(WorkspaceId);

impl Lock<Tx<'_>> for AlreadyLocked {
    type Row = WorkspaceId;
    type Error = Error;

    fn lock(self, _: &mut Tx<'_>) -> Result<WorkspaceId, Error> {
        Ok(self.0)
    }
}

/// Moves the end of the workspace's lists by one position, and returns that position.
pub fn next_position(tx: &mut WorkspaceGuard<'_, '_>, now: Timestamp) -> Result<i64, Error> {
    let id = tx.row();
    tx.one(
        "UPDATE workspaces SET last_position = CASE WHEN last_position >= $2 THEN last_position + 1 ELSE $2 END \
         WHERE id = $1 RETURNING last_position",
        &[id.into(), now.micros().into()],
        decode,
    )
}

/// A workspace in the list of a member.
pub struct ListedWorkspace {
    pub workspace: Workspace,
    pub position: i64,
    /// The issuer of which the member is a subject, as in [`AsMember`].
    pub issuer: Option<String>,
}

columns! {
    ListedWorkspace as "m" {
        workspace: Workspace::COLUMNS,
        position,
        issuer: ISSUER,
    }
}

impl ListedWorkspace {
    /// The workspace, if a caller of this kind may enter it from this address.
    pub fn entered(self, kind: PrincipalKind, address: IpAddr) -> Option<Workspace> {
        let admitted = self.workspace.policy.admit(Visitor { address, kind, issuer: self.issuer.as_deref() });
        admitted.is_ok().then_some(self.workspace)
    }
}

/// A page of the active workspaces of which the principal is a member. The second value is the length of the list, counted
/// no further than `most`. It comes with the rows, so it is 0 if there are none. It is `None` if the list has workspaces
/// that an access policy may hide; [`count`] judges these.
pub fn list(
    tx: &mut Tx<'_>,
    principal: PrincipalId,
    page: Page,
    most: i64,
) -> Result<(Vec<ListedWorkspace>, Option<i64>), Error> {
    const SQL: &str = sql!(
        "SELECT ",
        ListedWorkspace::COLUMNS,
        ", \
         (SELECT CASE WHEN count(*) >= $4 THEN $4 \
                      WHEN count(CASE WHEN state = 'restricted' THEN 1 END) = 0 THEN count(CASE WHEN state = 'active' THEN 1 END) END \
          FROM (SELECT (SELECT CASE WHEN v.state = 'active' AND (v.networks IS NOT NULL OR v.issuers IS NOT NULL) \
                                    THEN 'restricted' ELSE v.state END \
                        FROM workspaces v WHERE v.id = c.workspace_id) AS state \
                FROM memberships c WHERE c.principal_id = $1 AND c.position > 0 LIMIT $4) AS counted) \
         FROM memberships m JOIN workspaces w ON w.id = m.workspace_id \
         WHERE m.principal_id = $1 AND m.position > $2 AND m.position > 0 \
         AND (SELECT v.state FROM workspaces v WHERE v.id = m.workspace_id) = 'active' ORDER BY m.position LIMIT $3"
    );
    let mut counted = Some(0);
    let rows =
        tx.all(SQL, &[principal.into(), page.after.into(), page.fetch().into(), most.into()], |row| {
            let (listed, all) = row.read()?;
            counted = all;
            Ok(listed)
        })?;
    Ok((rows, counted))
}

/// The number of workspaces in the principal's list that a caller of this kind at this address may enter, counted no further
/// than `most` memberships.
pub fn count(
    tx: &mut Tx<'_>,
    principal: PrincipalId,
    (kind, address): (PrincipalKind, IpAddr),
    most: i64,
) -> Result<i64, Error> {
    const SQL: &str = sql!(
        "SELECT w.state = 'active', w.networks, w.issuers, ",
        ISSUER,
        " FROM memberships m JOIN workspaces w ON w.id = m.workspace_id \
         WHERE m.principal_id = $1 AND m.position > $2 AND m.position > 0 ORDER BY m.position LIMIT $3"
    );
    let entered = |row: &Row<'_>| {
        let (active, policy, issuer): (bool, AccessPolicy, Option<String>) = row.read()?;
        Ok(active && policy.admit(Visitor { address, kind, issuer: issuer.as_deref() }).is_ok())
    };
    let rows: Vec<bool> = tx.all(SQL, &[principal.into(), Value::Int(0), most.into()], entered)?;
    let (looked_at, listed) = (rows.len(), rows.iter().filter(|entered| **entered).count());
    let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
    Ok(counted(number(looked_at), number(listed), most))
}

/// Takes a slug for a workspace; `false` if the slug is taken.
pub fn take_slug(tx: &mut Tx<'_>, slug: &str, id: WorkspaceId) -> Result<bool, Error> {
    let taken = insert!(tx, "slugs" { slug: slug, workspace_id: id } "ON CONFLICT (slug) DO NOTHING")?;
    Ok(taken == 1)
}

pub fn insert(tx: &mut Tx<'_>, new: &Workspace, state: WorkspaceState) -> Result<AlreadyLocked, Error> {
    insert_later!(tx, "workspaces" {
        id: new.id,
        slug: &new.slug,
        name: &new.name,
        environment: &new.environment,
        region: &new.region,
        backend_org_id: new.backend_org_id.as_deref(),
        connector_type: new.connector_type.as_deref(),
        state: state,
        provisioned_at: new.provisioned_at,
        last_position: 0,
        created_at: new.created_at,
        updated_at: new.updated_at,
        used_bytes: quotas::Change::bytes(new.name.len()).bytes,
    })?;
    Ok(AlreadyLocked(new.id))
}

/// Stores the changed columns of a workspace.
pub fn update(tx: &mut WorkspaceGuard<'_, '_>, changed: &Workspace) -> Result<(), Error> {
    update_later!(tx, "workspaces" {
        slug: &changed.slug,
        name: &changed.name,
        environment: &changed.environment,
        region: &changed.region,
        connector_type: changed.connector_type.as_deref(),
        provisioned_at: changed.provisioned_at,
        updated_at: changed.updated_at,
    } "id = $1", [changed.id])?;
    Ok(())
}

/// Moves a workspace from one state to another; `false` if it was not in the first.
pub fn change_state(
    tx: &mut WorkspaceGuard<'_, '_>,
    from: WorkspaceState,
    to: WorkspaceState,
) -> Result<bool, Error> {
    let id = tx.row();
    set_state(tx, id, from, to)
}

/// [`change_state`] without the guard row, for an unclaimed workspace. The change itself locks the row.
fn set_state(
    tx: &mut Tx<'_>,
    id: WorkspaceId,
    from: WorkspaceState,
    to: WorkspaceState,
) -> Result<bool, Error> {
    let changed = tx.execute(
        "UPDATE workspaces SET state = $3 WHERE id = $1 AND state = $2",
        &[id.into(), from.into(), to.into()],
    )?;
    Ok(changed == 1)
}

#[derive(Clone, Debug)]
pub struct UnclaimedLimits {
    /// The limit of all unclaimed workspaces together.
    pub limit: u32,
    /// The creating address and its own limit. `None`: addresses have no limit.
    pub address: Option<(String, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnclaimedCount {
    Counted,
    /// All unclaimed workspaces together have reached their limit.
    AllFull,
    /// The unclaimed workspaces of this address have reached their limit.
    AddressFull,
}

/// Counts one more unclaimed workspace, which lapses at `lapses_at`.
pub fn add_unclaimed(
    tx: &mut Tx<'_>,
    id: WorkspaceId,
    room: &UnclaimedLimits,
    lapses_at: Timestamp,
) -> Result<UnclaimedCount, Error> {
    if let Some((address, most)) = &room.address {
        let counted = tx.execute(
            "INSERT INTO unclaimed_by_address (address, used) VALUES ($1, 1) \
             ON CONFLICT (address) DO UPDATE SET used = unclaimed_by_address.used + 1 \
             WHERE unclaimed_by_address.used < $2",
            &[address.as_str().into(), (*most).into()],
        )?;
        if counted == 0 {
            return Ok(UnclaimedCount::AddressFull);
        }
    }
    let limit = room.limit;
    // The last byte is random. The first bytes are the time, which would send all callers to one row.
    let first = u32::from(id.0.as_bytes()[15]);
    for step in 0..SLOTS {
        let slot = (first + step) % SLOTS;
        let share = limit / SLOTS + u32::from(slot < limit % SLOTS);
        let counted = tx.execute(
            "UPDATE bootstrap_slots SET used = used + 1 WHERE slot = $1 AND used < $2",
            &[slot.into(), share.into()],
        )?;
        if counted == 1 {
            let address = room.address.as_ref().map(|(address, _)| address.as_str());
            insert_later!(tx, "unclaimed" {
                workspace_id: id,
                slot: slot,
                lapses_at: lapses_at,
                address: address,
            })?;
            return Ok(UnclaimedCount::Counted);
        }
    }
    if let Some((address, _)) = &room.address {
        free_address(tx, address)?;
    }
    Ok(UnclaimedCount::AllFull)
}

/// The counters that an unclaimed workspace takes up: one of the shared slots, and its address.
struct UnclaimedPlace {
    slot: i64,
    address: Option<String>,
}

columns! {
    UnclaimedPlace { slot, address }
}

impl UnclaimedPlace {
    fn free(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        if let Some(address) = &self.address {
            free_address(tx, address)?;
        }
        tx.execute("UPDATE bootstrap_slots SET used = used - 1 WHERE slot = $1", &[self.slot.into()])?;
        Ok(())
    }
}

/// Gives back one unclaimed workspace of an address. An address without any has no row.
fn free_address(tx: &mut Tx<'_>, address: &str) -> Result<(), Error> {
    tx.execute("UPDATE unclaimed_by_address SET used = used - 1 WHERE address = $1", &[address.into()])?;
    tx.execute("DELETE FROM unclaimed_by_address WHERE address = $1 AND used <= 0", &[address.into()])?;
    Ok(())
}

/// Whether the workspace is unclaimed and not due to lapse.
pub fn is_claimable(tx: &mut Tx<'_>, id: WorkspaceId, now: Timestamp) -> Result<bool, Error> {
    let lapses_at = tx.optional(
        "SELECT lapses_at FROM unclaimed WHERE workspace_id = $1",
        &[id.into()],
        decode::<Timestamp>,
    )?;
    Ok(lapses_at.is_some_and(|lapses_at| lapses_at > now))
}

/// Makes an unclaimed workspace active; `None` if it does not exist, or is claimed, lapsed or archived.
pub fn claim(tx: &mut Tx<'_>, id: WorkspaceId, now: Timestamp) -> Result<Option<AlreadyLocked>, Error> {
    let place = tx.optional(
        // With a CASE, here and below, no planner takes the index by time: the one row is found by its key.
        sql!(
            "DELETE FROM unclaimed WHERE workspace_id = $1 AND CASE WHEN lapses_at > $2 THEN 1 ELSE 0 END = 1 RETURNING ",
            UnclaimedPlace::COLUMNS
        ),
        &[id.into(), now.into()],
        decode::<UnclaimedPlace>,
    )?;
    let Some(place) = place else { return Ok(None) };
    place.free(tx)?;
    let claimed = set_state(tx, id, WorkspaceState::Unclaimed, WorkspaceState::Active)?;
    Ok(claimed.then_some(AlreadyLocked(id)))
}

/// Lapses the unclaimed workspace that has this slug, if it is due. `None` if there is nothing to lapse.
pub fn lapse_holder(tx: &mut Tx<'_>, slug: &str, now: Timestamp) -> Result<Option<WorkspaceId>, Error> {
    let lapsed = tx.optional(
        sql!(
            "DELETE FROM unclaimed WHERE workspace_id = (SELECT workspace_id FROM slugs WHERE slug = $1) \
             AND CASE WHEN lapses_at <= $2 THEN 1 ELSE 0 END = 1 RETURNING workspace_id, ",
            UnclaimedPlace::COLUMNS
        ),
        &[slug.into(), now.into()],
        decode::<(WorkspaceId, UnclaimedPlace)>,
    )?;
    let Some((id, place)) = lapsed else { return Ok(None) };
    finish_lapse(tx, id, &place)?;
    Ok(Some(id))
}

/// Lapses up to `most` workspaces that are due.
pub fn lapse_due(tx: &mut Tx<'_>, now: Timestamp, most: u32) -> Result<Vec<WorkspaceId>, Error> {
    let due: Vec<WorkspaceId> = tx.all(
        "SELECT workspace_id FROM unclaimed WHERE lapses_at <= $1 ORDER BY lapses_at LIMIT $2",
        &[now.into(), most.into()],
        decode,
    )?;
    let mut lapsed = Vec::with_capacity(due.len());
    for id in due {
        let place = tx.optional(
            sql!(
                "DELETE FROM unclaimed WHERE workspace_id = $1 AND CASE WHEN lapses_at <= $2 THEN 1 ELSE 0 END = 1 RETURNING ",
                UnclaimedPlace::COLUMNS
            ),
            &[id.into(), now.into()],
            decode::<UnclaimedPlace>,
        )?;
        if let Some(place) = place {
            finish_lapse(tx, id, &place)?;
            lapsed.push(id);
        }
    }
    Ok(lapsed)
}

/// Frees the slug and the counters of a lapsed workspace. Only the transaction that deleted its `unclaimed`
/// row calls it, so it runs once.
fn finish_lapse(tx: &mut Tx<'_>, id: WorkspaceId, place: &UnclaimedPlace) -> Result<(), Error> {
    place.free(tx)?;
    tx.execute(
        "DELETE FROM slugs WHERE workspace_id = $1 AND slug = (SELECT slug FROM workspaces WHERE id = $1)",
        &[id.into()],
    )?;
    set_state(tx, id, WorkspaceState::Unclaimed, WorkspaceState::Lapsed)?;
    Ok(())
}

/// A workspace in any state, with its state, by id or slug. For the operator only.
pub fn find(tx: &mut Tx<'_>, id_or_slug: &str) -> Result<Option<(Workspace, WorkspaceState)>, Error> {
    if let Ok(id) = uuid::Uuid::try_parse(id_or_slug)
        && let Some(found) = find_by_id(tx, WorkspaceId(id))?
    {
        return Ok(Some(found));
    }
    // A slug may look like a UUID.
    let id = tx.optional("SELECT workspace_id FROM slugs WHERE slug = $1", &[id_or_slug.into()], decode)?;
    id.map_or(Ok(None), |id| find_by_id(tx, id))
}

fn find_by_id(tx: &mut Tx<'_>, id: WorkspaceId) -> Result<Option<(Workspace, WorkspaceState)>, Error> {
    tx.optional(
        sql!("SELECT ", Workspace::COLUMNS, ", w.state FROM workspaces w WHERE w.id = $1"),
        &[id.into()],
        decode,
    )
}

/// Workspaces in any state, in the order of their ids, after `after`. For the operator only.
pub fn list_all(
    tx: &mut Tx<'_>,
    after: WorkspaceId,
    limit: u32,
) -> Result<Vec<(Workspace, WorkspaceState)>, Error> {
    tx.all(
        sql!(
            "SELECT ",
            Workspace::COLUMNS,
            ", w.state FROM workspaces w WHERE w.id > $1 ORDER BY w.id LIMIT $2"
        ),
        &[after.into(), limit.into()],
        decode,
    )
}

/// The creation time of the newest workspace. For the operator only.
pub fn newest(tx: &mut Tx<'_>) -> Result<Option<Timestamp>, Error> {
    tx.optional("SELECT created_at FROM workspaces ORDER BY id DESC LIMIT 1", &[], decode)
}
