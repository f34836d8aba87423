//! The SQL of API keys.

use std::sync::LazyLock;

use ward_db::{Error, Json, Row, Timestamp, Tx, Value};

use super::secret::{KeyId, SecretHash};
use super::{ApiKey, KeyRecord};
use crate::access::{Permission, Permissions, Reach, Role};
use crate::identity::PrincipalKind;
use crate::ids::{PrincipalId, WorkspaceId};
use crate::page::Page;
use crate::workspaces::{self, AsMember};

const RECORD: &str = "k.id, k.workspace_id, h.state, k.principal_id, k.principal_kind, k.name, k.role, k.permissions, \
                      k.secret_hash, k.expires_at, k.updated_at, k.revoked_at IS NOT NULL";
/// How many columns those are.
const RECORD_COLUMNS: usize = 12;

fn record(row: &Row<'_>) -> Result<KeyRecord, Error> {
    Ok(KeyRecord {
        credential: row.get(0)?,
        home: row.get(1)?,
        home_is_active: row.text(2)? == "active",
        principal: row.get(3)?,
        kind: PrincipalKind::column(row, 4)?,
        name: row.get(5)?,
        reach: reach(row, 6)?,
        secret_hash: hash(row, 8)?,
        expires_at: row.get(9)?,
        updated_at: row.get(10)?,
        revoked: row.get(11)?,
    })
}

/// The key with this public part, revoked and expired ones included: the gate decides, and the audit wants to know.
pub fn look_up(tx: &mut Tx<'_>, key_id: KeyId) -> Result<Option<KeyRecord>, Error> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT {RECORD} FROM api_keys k JOIN workspaces h ON h.id = k.workspace_id WHERE k.key_id = $1"
        )
    });
    tx.optional(&SQL, &[key_id.as_str().into()], record)
}

/// The same, with the workspace that it is to open, if that is active and its principal is a member.
pub fn look_up_for(
    tx: &mut Tx<'_>,
    key_id: KeyId,
    workspace: WorkspaceId,
) -> Result<Option<(KeyRecord, Option<AsMember>)>, Error> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let (columns, join) = workspaces::membership_sql("$2", "k.principal_id");
        format!(
            "SELECT {RECORD}, {columns} FROM api_keys k JOIN workspaces h ON h.id = k.workspace_id {join} \
             WHERE k.key_id = $1"
        )
    });
    tx.optional(&SQL, &[key_id.as_str().into(), workspace.into()], |row| {
        Ok((record(row)?, workspaces::membership(row, RECORD_COLUMNS)?))
    })
}

const COLUMNS: &str = "id, key_id, workspace_id, principal_id, principal_kind, created_by_entity_id, \
                       created_by_credential_id, name, role, permissions, expires_at, last_used_at, created_at, \
                       updated_at, position";

fn api_key(row: &Row<'_>) -> Result<ApiKey, Error> {
    Ok(ApiKey {
        id: row.get(0)?,
        key_id: row.get(1)?,
        workspace: row.get(2)?,
        principal: row.get(3)?,
        kind: PrincipalKind::column(row, 4)?,
        created_by: row.get(5)?,
        created_with: row.get(6)?,
        name: row.get(7)?,
        reach: reach(row, 8)?,
        expires_at: row.get(10)?,
        last_used_at: row.get(11)?,
        created_at: row.get(12)?,
        updated_at: row.get(13)?,
        position: row.get(14)?,
    })
}

/// A live key of this workspace. The row is found by its key alone and judged here: with the workspace as a condition too,
/// a planner that knows no better reads all of the workspace's keys to find the one.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, key_id: KeyId) -> Result<Option<ApiKey>, Error> {
    Ok(get_anywhere(tx, key_id)?.filter(|key| key.workspace == workspace))
}

/// A page of a workspace's live keys, only those that `creator` minted if one is given.
pub fn list(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    creator: Option<PrincipalId>,
    page: Page,
) -> Result<Vec<ApiKey>, Error> {
    match creator {
        None => tx.all(
            &format!(
                "SELECT {COLUMNS} FROM api_keys WHERE workspace_id = $1 AND position > $2 AND position > 0 \
                 ORDER BY position LIMIT $3"
            ),
            &[workspace.into(), page.after.into(), page.fetch().into()],
            api_key,
        ),
        Some(creator) => tx.all(
            &format!(
                "SELECT {COLUMNS} FROM api_keys \
                 WHERE created_by_entity_id = $2 AND workspace_id = $1 AND position > $3 ORDER BY position LIMIT $4"
            ),
            &[workspace.into(), creator.into(), page.after.into(), page.fetch().into()],
            api_key,
        ),
    }
}

/// A page of all of a workspace's live keys.
pub fn list_all(tx: &mut Tx<'_>, workspace: WorkspaceId, page: Page) -> Result<Vec<ApiKey>, Error> {
    list(tx, workspace, None, page)
}

/// How many live keys there are, counted no further than `most`. A creator's are counted from a place that is a parameter: if
/// the statement said `position > 0`, they could be looked for among all of the workspace's.
pub fn count(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    creator: Option<PrincipalId>,
    most: i64,
) -> Result<i64, Error> {
    match creator {
        None => tx.one(
            "SELECT count(*) FROM (SELECT 1 FROM api_keys WHERE workspace_id = $1 AND position > 0 LIMIT $2) AS counted",
            &[workspace.into(), most.into()],
            |row| row.get(0),
        ),
        Some(creator) => tx.one(
            "SELECT count(*) FROM (SELECT 1 FROM api_keys \
             WHERE created_by_entity_id = $2 AND workspace_id = $1 AND position > $3 LIMIT $4) AS counted",
            &[workspace.into(), creator.into(), Value::Int(0), most.into()],
            |row| row.get(0),
        ),
    }
}

/// Inserts a key with the hash of its secret. `narrowed` is what was asked for beyond the role; empty for all of it.
pub fn insert(tx: &mut Tx<'_>, key: &ApiKey, narrowed: Permissions, hash: &SecretHash) -> Result<(), Error> {
    tx.execute_later(
        "INSERT INTO api_keys (key_id, id, workspace_id, principal_id, principal_kind, created_by_entity_id, \
                created_by_credential_id, name, role, permissions, secret_hash, position, expires_at, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        &[
            key.key_id.as_str().into(),
            key.id.into(),
            key.workspace.into(),
            key.principal.into(),
            key.kind.name().into(),
            key.created_by.into(),
            key.created_with.into(),
            key.name.as_deref().into(),
            key.reach.role.name().into(),
            Value::Json(&names(narrowed)),
            Value::Bytes(hash),
            key.position.into(),
            key.expires_at.into(),
            key.created_at.into(),
            key.updated_at.into(),
        ],
    )?;
    Ok(())
}

/// Gives a live key a new secret and a new end.
pub fn rotate(tx: &mut Tx<'_>, key: &ApiKey, hash: &SecretHash) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE api_keys SET secret_hash = $2, expires_at = $3, updated_at = $4 WHERE key_id = $1",
        &[key.key_id.as_str().into(), Value::Bytes(hash), key.expires_at.into(), key.updated_at.into()],
    )?;
    Ok(())
}

/// Ends a key. The row stays, out of its list, so that a later try with it can be told in the audit.
pub fn revoke(tx: &mut Tx<'_>, key: &ApiKey, now: Timestamp) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE api_keys SET revoked_at = $2, updated_at = $2, position = -position WHERE key_id = $1",
        &[key.key_id.as_str().into(), now.into()],
    )?;
    Ok(())
}

/// Ends every live key of this workspace that speaks for this principal. Returns their public parts.
pub fn end_all_of(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    principal: PrincipalId,
    now: Timestamp,
) -> Result<Vec<String>, Error> {
    tx.all(
        "UPDATE api_keys SET revoked_at = $3, updated_at = $3, position = -position \
         WHERE principal_id = $2 AND workspace_id = $1 AND revoked_at IS NULL RETURNING key_id",
        &[workspace.into(), principal.into(), now.into()],
        |row| row.get(0),
    )
}

/// Moves a key's last use forward, never back.
pub fn store_last_used(tx: &mut Tx<'_>, key_id: KeyId, at: Timestamp) -> Result<(), Error> {
    tx.execute(
        "UPDATE api_keys SET last_used_at = $2 WHERE key_id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
        &[key_id.as_str().into(), at.into()],
    )?;
    Ok(())
}

/// A role and the list of permissions beside it.
fn reach(row: &Row<'_>, index: usize) -> Result<Reach, Error> {
    let role = Role::column(row, index)?;
    let Json(list) = row.get(index + 1)?;
    if list == "[]" {
        return Ok(Reach::whole(role));
    }
    let names: Vec<String> = serde_json::from_str(&list).map_err(Error::unreadable)?;
    // A name that this version does not know allows nothing; it must not turn the list into "the whole role".
    let known = names.iter().filter_map(|name| Permission::named(name));
    let permissions = known.fold(Permissions::default(), |all, one| all.or(Permissions::of(&[one])));
    Ok(Reach { role, permissions: permissions.and(role.permissions()) })
}

fn names(permissions: Permissions) -> String {
    serde_json::to_string(&permissions).unwrap_or_else(|_| "[]".to_owned())
}

fn hash(row: &Row<'_>, index: usize) -> Result<SecretHash, Error> {
    let bytes: Vec<u8> = row.get(index)?;
    SecretHash::try_from(bytes.as_slice()).map_err(Error::unreadable)
}

/// A live key, whichever workspace it belongs to. By itself for the operator only.
pub fn get_anywhere(tx: &mut Tx<'_>, key_id: KeyId) -> Result<Option<ApiKey>, Error> {
    let found = tx.optional(
        &format!("SELECT {COLUMNS} FROM api_keys WHERE key_id = $1"),
        &[key_id.as_str().into()],
        api_key,
    )?;
    Ok(found.filter(|key| key.position > 0))
}

/// Up to `most` keys after this one, over all workspaces: the key's id, its workspace and its name.
pub fn names_after(
    tx: &mut Tx<'_>,
    after: &str,
    most: u32,
) -> Result<Vec<(String, WorkspaceId, Option<String>)>, Error> {
    tx.all(
        "SELECT key_id, workspace_id, name FROM api_keys WHERE key_id > $1 ORDER BY key_id LIMIT $2",
        &[after.into(), i64::from(most).into()],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
}
