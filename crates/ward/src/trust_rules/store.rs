//! The SQL of trust rules.

use std::sync::LazyLock;

use ward_db::{Error, Json, Tx, Value, columns, decode, insert_later, select};

use super::{Condition, Hash, MOST_ALIKE, TrustRule, anchors_of};
use crate::access::Permissions;
use crate::guard::WorkspaceGuard;
use crate::identity::WorkloadToken;
use crate::ids::{PrincipalId, WorkspaceId};
use crate::page::Page;
use crate::workspaces::{self, AsMember};

/// Rules that one look-up without a workspace reads.
pub const MOST_OFFERS: u32 = 100;

columns! {
    TrustRule as "r" {
        id,
        workspace: "r.workspace_id",
        name,
        issuer,
        audience,
        conditions: "r.conditions" => conditions,
        reach: "r.role, r.permissions",
        created_by: "r.created_by_entity_id",
        created_with: "r.created_by_credential_id",
        expires_at,
        created_at,
        position,
    }
}

fn conditions(Json(text): Json) -> Result<Vec<Condition>, Error> {
    serde_json::from_str(&text).map_err(Error::unreadable)
}

/// The rules that may trust a token, each with its workspace as the rule's service sees it. With a workspace, they are the rules
/// of that workspace.
pub fn look_up(
    tx: &mut Tx<'_>,
    token: &WorkloadToken,
    workspace: Option<WorkspaceId>,
) -> Result<Vec<(TrustRule, Option<AsMember>)>, Error> {
    static OF_ONE: LazyLock<String> = LazyLock::new(|| {
        let (columns, join) = workspaces::membership_sql("$1", "r.id");
        format!(
            "SELECT {}, {columns} FROM trust_rules r {join} WHERE r.look_up IN ($2, $3, $4, $5, $6, $7)",
            TrustRule::COLUMNS
        )
    });
    static OF_ALL: LazyLock<String> = LazyLock::new(|| {
        let (columns, join) = workspaces::membership_sql("r.workspace_id", "r.id");
        format!(
            "SELECT {}, {columns} FROM trust_rules r {join} WHERE r.anchor IN ($2, $3, $4, $5, $6, $7) LIMIT $1",
            TrustRule::COLUMNS
        )
    });
    let (sql, first) = match workspace {
        Some(id) => (&OF_ONE, Value::from(id)),
        None => (&OF_ALL, MOST_OFFERS.into()),
    };
    let anchors = anchors_of(token, workspace);
    let values: Vec<Value<'_>> =
        std::iter::once(first).chain(anchors.iter().map(|anchor| Value::Bytes(anchor))).collect();
    tx.all(sql, &values, |row| {
        let mut columns = row.columns();
        Ok((columns.read()?, workspaces::membership(&mut columns)?))
    })
}

/// Inserts a rule. `narrowed` are the requested permissions; empty for the whole role.
pub fn insert(
    tx: &mut WorkspaceGuard<'_, '_>,
    rule: &TrustRule,
    narrowed: Permissions,
    (look_up, anchor): (&Hash, &Hash),
) -> Result<(), Error> {
    let conditions = serde_json::to_string(&rule.conditions).unwrap_or_default();
    let permissions = serde_json::to_string(&narrowed).unwrap_or_default();
    insert_later!(tx, "trust_rules" {
        id: rule.id,
        workspace_id: rule.workspace,
        name: rule.name.as_str(),
        issuer: rule.issuer.as_str(),
        audience: rule.audience.as_str(),
        conditions: Value::Json(&conditions),
        look_up: look_up,
        anchor: anchor,
        role: rule.reach.role,
        permissions: Value::Json(&permissions),
        created_by_entity_id: rule.created_by,
        created_by_credential_id: rule.created_with,
        position: rule.position,
        expires_at: rule.expires_at,
        created_at: rule.created_at,
    })
}

/// Whether the workspace has as many rules with this anchor as it may have.
pub fn is_full(tx: &mut Tx<'_>, look_up: &Hash) -> Result<bool, Error> {
    let alike: i64 = tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM trust_rules WHERE look_up = $1 LIMIT $2) AS counted",
        &[Value::Bytes(look_up), MOST_ALIKE.into()],
        decode,
    )?;
    Ok(alike >= MOST_ALIKE)
}

/// A rule of this workspace. The row is found by its id alone, and the workspace is compared here, as with keys.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, id: PrincipalId) -> Result<Option<TrustRule>, Error> {
    let found =
        tx.optional(select!(TrustRule, "FROM trust_rules r WHERE r.id = $1"), &[id.into()], decode)?;
    Ok(found.filter(|rule: &TrustRule| rule.workspace == workspace))
}

pub fn delete(tx: &mut WorkspaceGuard<'_, '_>, id: PrincipalId) -> Result<(), Error> {
    tx.execute_later("DELETE FROM trust_rules WHERE id = $1", &[id.into()])?;
    Ok(())
}

pub fn list(tx: &mut Tx<'_>, workspace: WorkspaceId, page: Page) -> Result<Vec<TrustRule>, Error> {
    tx.all(
        select!(
            TrustRule,
            "FROM trust_rules r WHERE r.workspace_id = $1 AND r.position > $2 ORDER BY r.position LIMIT $3"
        ),
        &[workspace.into(), page.after.into(), page.fetch().into()],
        decode,
    )
}

/// The number of rules of a workspace, counted no further than `most`.
pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId, most: i64) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM trust_rules WHERE workspace_id = $1 AND position > 0 LIMIT $2) AS counted",
        &[workspace.into(), most.into()],
        decode,
    )
}
