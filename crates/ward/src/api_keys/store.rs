//! The SQL of API keys.

use std::sync::LazyLock;

use ward_db::{Error, Json, Row, Timestamp, Tx, Value};

use super::secret::{KeyId, SecretHash};
use super::{ApiKey, EndedKeys, KeyRecord, PreviousSecret};
use crate::access::{Permission, Permissions, Reach, Role};
use crate::endings::Ended;
use crate::guard::WorkspaceGuard;
use crate::identity::PrincipalKind;
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::page::{self, Page, counted};
use crate::workspaces::{self, AsMember};

const RECORD: &str = "k.id, k.workspace_id, h.state, k.principal_id, k.principal_kind, k.name, k.role, k.permissions, \
                      k.secret_hash, k.expires_at, k.updated_at, k.previous_hash, k.previous_ends_at, \
                      k.revoked_at IS NOT NULL OR NOT ";
/// The number of columns in [`RECORD`] and [`LIVE`].
const RECORD_COLUMNS: usize = 14;

/// Whether no ending concerns key `k`, so that its principal is still a member. A principal that joined
/// again has a new seat, and its new keys have positions after that seat.
pub const LIVE: &str = "((SELECT e.position FROM endings e WHERE e.workspace_id = k.workspace_id \
     AND e.principal_id = k.principal_id AND e.kind = 'keys') IS NULL \
     OR COALESCE((SELECT m.seat FROM memberships m \
                  WHERE m.workspace_id = k.workspace_id AND m.principal_id = k.principal_id) < k.position, false))";

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
        previous: previous_hash(row, 11)?,
        revoked: row.get(13)?,
    })
}

/// The key with this public part, revoked and expired ones included: the gate decides, and the audit
/// records the reason.
pub fn look_up(tx: &mut Tx<'_>, key_id: KeyId) -> Result<Option<KeyRecord>, Error> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT {RECORD}{LIVE} FROM api_keys k JOIN workspaces h ON h.id = k.workspace_id WHERE k.key_id = $1"
        )
    });
    tx.optional(&SQL, &[key_id.as_str().into()], record)
}

/// As [`look_up`], with the workspace to enter, if it is active and the key's principal is a member.
pub fn look_up_for(
    tx: &mut Tx<'_>,
    key_id: KeyId,
    workspace: WorkspaceId,
) -> Result<Option<(KeyRecord, Option<AsMember>)>, Error> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let (columns, join) = workspaces::membership_sql("$2", "k.principal_id");
        format!(
            "SELECT {RECORD}{LIVE}, {columns} FROM api_keys k JOIN workspaces h ON h.id = k.workspace_id {join} \
             WHERE k.key_id = $1"
        )
    });
    tx.optional(&SQL, &[key_id.as_str().into(), workspace.into()], |row| {
        Ok((record(row)?, workspaces::membership(row, RECORD_COLUMNS)?))
    })
}

const COLUMNS: &str = "k.id, k.key_id, k.workspace_id, k.principal_id, k.principal_kind, k.created_by_entity_id, \
                       k.created_by_credential_id, k.name, k.role, k.permissions, k.expires_at, k.last_used_at, \
                       k.created_at, k.updated_at, k.position, k.previous_ends_at, k.previous_used_at";

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
        previous: row
            .get::<Option<Timestamp>>(15)?
            .map(|ends_at| Ok::<_, Error>(PreviousSecret { ends_at, last_used_at: row.get(16)? }))
            .transpose()?,
    })
}

/// A live key of this workspace. The row is found by its key id alone, and the workspace is compared here.
/// With the workspace in the condition, a naive planner reads all keys of the workspace to find one.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, key_id: KeyId) -> Result<Option<ApiKey>, Error> {
    Ok(get_anywhere(tx, key_id)?.filter(|key| key.workspace == workspace))
}

/// The condition [`LIVE`] for a list of one workspace's keys. Most workspaces have no ending, and this
/// checks that once.
const LISTED: &str = "((SELECT 1 FROM endings a WHERE a.workspace_id = $1 LIMIT 1) IS NULL OR {LIVE})";

/// Keys of a workspace, each with whether it is live; with `creator`, only the keys that it created.
pub fn list(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    creator: Option<PrincipalId>,
    page: Page,
) -> Result<Vec<(ApiKey, bool)>, Error> {
    static OF_ALL: LazyLock<String> = LazyLock::new(|| {
        let live = LISTED.replace("{LIVE}", LIVE);
        format!(
            "SELECT {COLUMNS}, {live} FROM api_keys k \
             WHERE k.workspace_id = $1 AND k.position > $2 AND k.position > 0 ORDER BY k.position LIMIT $3"
        )
    });
    static OF_ONE: LazyLock<String> = LazyLock::new(|| {
        let live = LISTED.replace("{LIVE}", LIVE);
        format!(
            "SELECT {COLUMNS}, {live} FROM api_keys k \
             WHERE k.created_by_entity_id = $2 AND k.workspace_id = $1 AND k.position > $3 ORDER BY k.position LIMIT $4"
        )
    });
    let with_live = |row: &Row<'_>| Ok((api_key(row)?, row.get(17)?));
    match creator {
        None => tx.all(&OF_ALL, &[workspace.into(), page.after.into(), page.fetch().into()], with_live),
        Some(creator) => tx.all(
            &OF_ONE,
            &[workspace.into(), creator.into(), page.after.into(), page.fetch().into()],
            with_live,
        ),
    }
}

/// A page of the live keys of a workspace.
pub fn list_all(tx: &mut Tx<'_>, workspace: WorkspaceId, page: Page) -> Result<Vec<ApiKey>, Error> {
    let mut rows = Vec::new();
    let mut from = page;
    loop {
        let position = |(key, _): &(ApiKey, bool)| key.position;
        let (found, until) =
            page::fill(from, position, |(_, live)| *live, |page| list(tx, workspace, None, page))?;
        rows.extend(found.into_iter().map(|(key, _)| key));
        match until {
            Some(after) if i64::try_from(rows.len()).is_ok_and(|count| count < page.fetch()) => {
                from = Page { after, ..from };
            }
            _ => return Ok(rows),
        }
    }
}

/// The number of live keys, counted no further than `most`. For a creator, the lower bound of the position
/// is a parameter. With the literal `position > 0`, a planner could search all keys of the workspace.
pub fn count(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    creator: Option<PrincipalId>,
    most: i64,
) -> Result<i64, Error> {
    static OF_ALL: LazyLock<String> = LazyLock::new(|| {
        let live = LISTED.replace("{LIVE}", LIVE);
        format!(
            "SELECT count(*), count(CASE WHEN live THEN 1 END) FROM (SELECT {live} AS live FROM api_keys k \
             WHERE k.workspace_id = $1 AND k.position > 0 LIMIT $2) AS counted"
        )
    });
    static OF_ONE: LazyLock<String> = LazyLock::new(|| {
        let live = LISTED.replace("{LIVE}", LIVE);
        format!(
            "SELECT count(*), count(CASE WHEN live THEN 1 END) FROM (SELECT {live} AS live FROM api_keys k \
             WHERE k.created_by_entity_id = $2 AND k.workspace_id = $1 AND k.position > $3 LIMIT $4) AS counted"
        )
    });
    let figures = |row: &Row<'_>| Ok(counted(row.get(0)?, row.get(1)?, most));
    match creator {
        None => tx.one(&OF_ALL, &[workspace.into(), most.into()], figures),
        Some(creator) => {
            tx.one(&OF_ONE, &[workspace.into(), creator.into(), Value::Int(0), most.into()], figures)
        }
    }
}

/// Inserts a key with the hash of its secret. `narrowed` are the requested permissions; empty for the whole
/// role.
pub fn insert(
    tx: &mut WorkspaceGuard<'_, '_>,
    key: &ApiKey,
    narrowed: Permissions,
    hash: &SecretHash,
) -> Result<(), Error> {
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

/// Stores a new secret and a new expiry. The replaced secret stays as the previous one, if the key says so.
pub fn rotate(tx: &mut WorkspaceGuard<'_, '_>, key: &ApiKey, hash: &SecretHash) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE api_keys SET secret_hash = $2, expires_at = $3, updated_at = $4, previous_ends_at = $5, \
                previous_hash = CASE WHEN $6 = 1 THEN secret_hash END, previous_used_at = NULL \
         WHERE key_id = $1",
        &[
            key.key_id.as_str().into(),
            Value::Bytes(hash),
            key.expires_at.into(),
            key.updated_at.into(),
            key.previous.map(|previous| previous.ends_at).into(),
            // PostgreSQL cannot tell the type of a parameter that is only compared with NULL.
            Value::Int(i64::from(key.previous.is_some())),
        ],
    )?;
    Ok(())
}

/// Forgets the previous secret of a key.
pub fn finish_rotation(tx: &mut WorkspaceGuard<'_, '_>, key: &ApiKey) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE api_keys SET previous_hash = NULL, previous_ends_at = NULL, previous_used_at = NULL, updated_at = $2 \
         WHERE key_id = $1",
        &[key.key_id.as_str().into(), key.updated_at.into()],
    )?;
    Ok(())
}

/// Revokes a key. Its row stays, outside of the list, so that the audit can record later attempts with it.
pub fn revoke(tx: &mut WorkspaceGuard<'_, '_>, key: &ApiKey, now: Timestamp) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE api_keys SET revoked_at = $2, updated_at = $2, position = -position WHERE key_id = $1",
        &[key.key_id.as_str().into(), now.into()],
    )?;
    Ok(())
}

/// Revokes up to `most` of the workspace's live keys that speak for this principal and have a position
/// before `before`.
pub fn end_some_of(
    tx: &mut WorkspaceGuard<'_, '_>,
    principal: PrincipalId,
    before: i64,
    most: u32,
    now: Timestamp,
) -> Result<EndedKeys, Error> {
    let workspace = tx.row();
    let mut ids: Vec<String> = tx.all(
        // The lower bound is a parameter, because with the literal `position > 0` a planner could search
        // all keys of the workspace.
        "SELECT key_id FROM api_keys \
         WHERE principal_id = $2 AND workspace_id = $1 AND position > $3 AND position < $4 ORDER BY position LIMIT $5",
        &[workspace.into(), principal.into(), Value::Int(0), before.into(), (most + 1).into()],
        |row| row.get(0),
    )?;
    let ended = if ids.len() > most as usize { Ended::Some } else { Ended::All };
    ids.truncate(most as usize);
    for key_id in &ids {
        tx.execute_later(
            "UPDATE api_keys SET revoked_at = $2, updated_at = $2, position = -position \
             WHERE key_id = $1 AND CASE WHEN position > 0 THEN 1 ELSE 0 END = 1",
            &[key_id.as_str().into(), now.into()],
        )?;
    }
    Ok(EndedKeys { ids, ended })
}

/// Bounds the owners, and the keys of each, that are checked for access to their workspace.
const WAYS: u32 = 20;

/// Whether an owner of the workspace can still enter it, by an identity of an issuer or by a live key with all
/// permissions. One principal and one key are left out. After 20 owners without access, the
/// search ends.
pub fn has_way_in(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    (without, without_key): (Option<PrincipalId>, &str),
    now: Timestamp,
) -> Result<bool, Error> {
    let owners: Vec<(PrincipalId, bool)> = tx.all(
        "SELECT m.principal_id, (SELECT i.kind FROM identities i WHERE i.principal_id = m.principal_id LIMIT 1) IS NOT NULL \
         FROM memberships m WHERE m.owned_workspace_id = $1 AND m.role = 'owner' LIMIT $2",
        &[workspace.into(), WAYS.into()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    for (owner, signs_in) in owners.into_iter().filter(|(owner, _)| Some(*owner) != without) {
        if signs_in || has_owner_key(tx, owner, without_key, now)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the principal has another live key with all that owners may do.
fn has_owner_key(
    tx: &mut Tx<'_>,
    principal: PrincipalId,
    without_key: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let keys = tx.all(
        &format!(
            "SELECT k.role, k.permissions FROM api_keys k WHERE k.principal_id = $1 AND k.key_id <> $2 \
             AND k.role = 'owner' AND k.expires_at > $3 AND CASE WHEN k.position > 0 THEN 1 ELSE 0 END = 1 \
             AND (SELECT h.state FROM workspaces h WHERE h.id = k.workspace_id) = 'active' AND {LIVE} LIMIT $4"
        ),
        &[principal.into(), without_key.into(), now.into(), WAYS.into()],
        |row| reach(row, 0),
    )?;
    Ok(keys.into_iter().any(|reach| reach.covers(Reach::whole(Role::Owner))))
}

/// The memberships of one user that are looked at for workspaces that they own.
const MEMBERSHIPS: u32 = 1_000;

/// The active workspaces that a user owns and that only this key opens for them. The list is empty if the user has another
/// such key or signs in with an issuer. It has at most twenty of the first thousand memberships, in the order of ids.
pub fn opened_by_it_alone(
    tx: &mut Tx<'_>,
    (principal, key): (PrincipalId, &str),
    now: Timestamp,
) -> Result<Vec<WorkspaceId>, Error> {
    let identity = "SELECT i.kind FROM identities i WHERE i.principal_id = $1 LIMIT 1";
    let signs_in = tx.optional(identity, &[principal.into()], |row| row.get::<String>(0))?.is_some();
    if signs_in || has_owner_key(tx, principal, key, now)? {
        return Ok(Vec::new());
    }
    let memberships: Vec<(Option<WorkspaceId>, bool)> = tx.all(
        "SELECT m.owned_workspace_id, m.role = 'owner' \
                AND (SELECT w.state FROM workspaces w WHERE w.id = m.owned_workspace_id) = 'active' \
         FROM memberships m WHERE m.principal_id = $1 AND m.position > 0 ORDER BY m.position LIMIT $2",
        &[principal.into(), MEMBERSHIPS.into()],
        |row| Ok((row.get(0)?, row.get::<Option<bool>>(1)?.unwrap_or_default())),
    )?;
    let owned = memberships.into_iter().filter_map(|(workspace, owns)| workspace.filter(|_| owns));
    let mut owned: Vec<WorkspaceId> = owned.take(WAYS as usize).collect();
    owned.sort_unstable();
    Ok(owned)
}

/// Moves a key's last use forward, but never back.
pub fn store_last_used(tx: &mut Tx<'_>, key_id: KeyId, at: Timestamp) -> Result<(), Error> {
    tx.execute(
        "UPDATE api_keys SET last_used_at = $2 WHERE key_id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
        &[key_id.as_str().into(), at.into()],
    )?;
    Ok(())
}

/// Moves the last use of a key's previous secret to this minute. Returns whether it was the first use in that
/// minute, over all replicas.
pub fn store_previous_used(
    tx: &mut WorkspaceGuard<'_, '_>,
    key_id: KeyId,
    minute: Timestamp,
) -> Result<bool, Error> {
    let moved = tx.execute(
        "UPDATE api_keys SET previous_used_at = $2 \
         WHERE key_id = $1 AND previous_hash IS NOT NULL AND (previous_used_at IS NULL OR previous_used_at < $2)",
        &[key_id.as_str().into(), minute.into()],
    )?;
    Ok(moved == 1)
}

/// Reads the hash of the previous secret, and its end in the next column.
fn previous_hash(row: &Row<'_>, index: usize) -> Result<Option<(SecretHash, Timestamp)>, Error> {
    let bytes: Option<Vec<u8>> = row.get(index)?;
    let ends_at: Option<Timestamp> = row.get(index + 1)?;
    let Some((bytes, ends_at)) = bytes.zip(ends_at) else { return Ok(None) };
    Ok(Some((SecretHash::try_from(bytes.as_slice()).map_err(Error::unreadable)?, ends_at)))
}

/// Reads a role and the list of permissions in the next column.
fn reach(row: &Row<'_>, index: usize) -> Result<Reach, Error> {
    let role = Role::column(row, index)?;
    let Json(list) = row.get(index + 1)?;
    if list == "[]" {
        return Ok(Reach::whole(role));
    }
    let names: Vec<String> = serde_json::from_str(&list).map_err(Error::unreadable)?;
    // A permission that this version does not know allows nothing. It must not turn the list into "the
    // whole role".
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

/// Whether this credential is a live key of the workspace. The row is found by its id alone, and the
/// workspace is compared here.
pub fn is_live(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    credential: CredentialId,
    now: Timestamp,
) -> Result<bool, Error> {
    let found = tx.optional(
        &format!("SELECT k.workspace_id, k.revoked_at IS NULL AND {LIVE}, k.expires_at FROM api_keys k WHERE k.id = $1"),
        &[credential.into()],
        |row| Ok((row.get::<WorkspaceId>(0)?, row.get::<bool>(1)?, row.get::<Timestamp>(2)?)),
    )?;
    Ok(found.is_some_and(|(home, live, expires_at)| home == workspace && live && expires_at > now))
}

/// A live key of any workspace. Only the operator may use it directly.
pub fn get_anywhere(tx: &mut Tx<'_>, key_id: KeyId) -> Result<Option<ApiKey>, Error> {
    let found = tx.optional(
        &format!("SELECT {COLUMNS} FROM api_keys k WHERE k.key_id = $1 AND {LIVE}"),
        &[key_id.as_str().into()],
        api_key,
    )?;
    Ok(found.filter(|key| key.position > 0))
}

/// Up to `most` keys of all workspaces after this key id: each with its workspace and its name.
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
