//! The SQL of API keys.

use std::sync::{Arc, LazyLock};

use ward_db::{
    Columns, Error, FromRow, Json, Row, Timestamp, Tx, Uuid, Value, columns, decode, insert_later, select,
    sql,
};

use super::last_used::{MINUTE, with_minute};
use super::secret::{KeyId, SecretHash};
use super::{ApiKey, EndedKeys, KeyRecord, PreviousSecret, warnings};
use crate::access::{Permission, Permissions, Reach, Role};
use crate::endings::ClosedRows;
use crate::guard::WorkspaceGuard;
use crate::identity::Thumbprint;
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::page::{self, Page, counted};
use crate::workspaces::{self, AsMember};

/// Whether no ending concerns key `k`, so that its principal is still a member. A principal that joined
/// again has a new seat, and its new keys have positions after that seat.
pub const LIVE: &str = "((SELECT e.position FROM endings e WHERE e.workspace_id = k.workspace_id \
     AND e.principal_id = k.principal_id AND e.kind = 'keys') IS NULL \
     OR COALESCE((SELECT m.seat FROM memberships m \
                  WHERE m.workspace_id = k.workspace_id AND m.principal_id = k.principal_id) < k.position, false))";

columns! {
    KeyRecord as "k" {
        credential: "k.id",
        home: "k.workspace_id",
        home_is_active: "h.state" => |state: String| Ok(state == "active"),
        principal: "k.principal_id",
        kind: "k.principal_kind",
        name,
        reach: REACH,
        secret_hash => hash,
        expires_at,
        quarantined_at,
        updated_at,
        previous: "k.previous_hash, k.previous_ends_at" => previous_hash,
        revoked: sql!("k.revoked_at IS NOT NULL OR NOT ", LIVE),
        networks,
        home_policy: "h.networks, h.issuers",
        issuer: "CASE WHEN h.issuers IS NOT NULL THEN (SELECT o.issuer FROM identities o \
                 WHERE o.principal_id = k.principal_id LIMIT 1) END",
        bound_to: "k.bound_jkt" => thumbprint,
    }
}

/// The key with this public part, revoked and expired ones included: the gate decides, and the audit
/// records the reason.
pub fn look_up(tx: &mut Tx<'_>, key_id: KeyId) -> Result<Option<KeyRecord>, Error> {
    tx.optional(
        select!(KeyRecord, "FROM api_keys k JOIN workspaces h ON h.id = k.workspace_id WHERE k.key_id = $1"),
        &[key_id.as_str().into()],
        decode,
    )
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
            "SELECT {}, {columns} FROM api_keys k JOIN workspaces h ON h.id = k.workspace_id {join} WHERE k.key_id = $1",
            KeyRecord::COLUMNS
        )
    });
    tx.optional(&SQL, &[key_id.as_str().into(), workspace.into()], |row| {
        let mut columns = row.columns();
        Ok((columns.read()?, workspaces::membership(&mut columns)?))
    })
}

columns! {
    ApiKey as "k" {
        id,
        key_id,
        workspace: "k.workspace_id",
        principal: "k.principal_id",
        kind: "k.principal_kind",
        created_by: "k.created_by_entity_id",
        created_with: "k.created_by_credential_id",
        name,
        reach: REACH,
        expires_at,
        last_used_at,
        created_at,
        updated_at,
        position,
        previous: "k.previous_ends_at, k.previous_used_at" => |(ends_at, last_used_at): (Option<_>, _)| {
            Ok(ends_at.map(|ends_at| PreviousSecret { ends_at, last_used_at }))
        },
        quarantined_at,
        networks,
        bound_to: "k.bound_jkt" => thumbprint,
    }
}

/// A live key of this workspace. The row is found by its key id alone, and the workspace is compared here.
/// With the workspace in the condition, a naive planner reads all keys of the workspace to find one.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, key_id: KeyId) -> Result<Option<ApiKey>, Error> {
    Ok(get_anywhere(tx, key_id)?.filter(|key| key.workspace == workspace))
}

/// The condition [`LIVE`] for a list of one workspace's keys. Most workspaces have no ending, and this
/// checks that once.
const LISTED: &str =
    sql!("((SELECT 1 FROM endings a WHERE a.workspace_id = $1 LIMIT 1) IS NULL OR ", LIVE, ")");

/// Keys of a workspace, each with whether it is live; with `creator`, only the keys that it created.
pub fn list(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    creator: Option<PrincipalId>,
    page: Page,
) -> Result<Vec<(ApiKey, bool)>, Error> {
    const KEYS: &str = sql!("SELECT ", ApiKey::COLUMNS, ", ", LISTED, " FROM api_keys k WHERE ");
    match creator {
        None => tx.all(
            sql!(
                KEYS,
                "k.workspace_id = $1 AND k.position > $2 AND k.position > 0 ORDER BY k.position LIMIT $3"
            ),
            &[workspace.into(), page.after.into(), page.fetch().into()],
            decode,
        ),
        Some(creator) => tx.all(
            sql!(
                KEYS,
                "k.created_by_entity_id = $2 AND k.workspace_id = $1 AND k.position > $3 ORDER BY k.position LIMIT $4"
            ),
            &[workspace.into(), creator.into(), page.after.into(), page.fetch().into()],
            decode,
        ),
    }
}

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
    const COUNTED: &str = sql!(
        "SELECT count(*), count(CASE WHEN live THEN 1 END) FROM (SELECT ",
        LISTED,
        " AS live FROM api_keys k WHERE "
    );
    let (looked_at, live) = match creator {
        None => tx.one(
            sql!(COUNTED, "k.workspace_id = $1 AND k.position > 0 LIMIT $2) AS counted"),
            &[workspace.into(), most.into()],
            decode,
        ),
        Some(creator) => tx.one(
            sql!(
                COUNTED,
                "k.created_by_entity_id = $2 AND k.workspace_id = $1 AND k.position > $3 LIMIT $4) AS counted"
            ),
            &[workspace.into(), creator.into(), Value::Int(0), most.into()],
            decode,
        ),
    }?;
    Ok(counted(looked_at, live, most))
}

/// Inserts a key with the hash of its secret. `narrowed` are the requested permissions; empty for the whole
/// role.
pub fn insert(
    tx: &mut WorkspaceGuard<'_, '_>,
    key: &ApiKey,
    narrowed: Permissions,
    hash: &SecretHash,
) -> Result<(), Error> {
    let bound_jkt = key.bound_to.map(|key| key.to_string());
    insert_later!(tx, "api_keys" {
        key_id: key.key_id.as_str(),
        id: key.id,
        workspace_id: key.workspace,
        principal_id: key.principal,
        principal_kind: key.kind,
        created_by_entity_id: key.created_by,
        created_by_credential_id: key.created_with,
        name: key.name.as_deref(),
        role: key.reach.role,
        permissions: Value::Json(&names(narrowed)),
        secret_hash: hash,
        networks: key.networks.stored().as_deref().map_or(Value::Null, Value::Json),
        position: key.position,
        expires_at: key.expires_at,
        created_at: key.created_at,
        updated_at: key.updated_at,
        warnings: warnings::passed(key.expires_at, key.updated_at),
        bound_jkt: bound_jkt.as_deref(),
    })
}

/// Stores a new secret and a new expiry. The replaced secret stays as the previous one, if the key says so. A quarantine ends
/// with the secret that leaked.
pub fn rotate(tx: &mut WorkspaceGuard<'_, '_>, key: &ApiKey, hash: &SecretHash) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE api_keys SET secret_hash = $2, expires_at = $3, updated_at = $4, previous_ends_at = $5, \
                previous_hash = CASE WHEN $5 > updated_at THEN secret_hash END, previous_used_at = NULL, \
                quarantined_at = NULL, warnings = $6 \
         WHERE key_id = $1",
        &[
            key.key_id.as_str().into(),
            Value::Bytes(hash),
            key.expires_at.into(),
            key.updated_at.into(),
            key.previous.map(|previous| previous.ends_at).into(),
            warnings::passed(key.expires_at, key.updated_at).into(),
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
        "UPDATE api_keys SET revoked_at = $2, updated_at = $2, position = -position, warnings = -1 WHERE key_id = $1",
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
        decode,
    )?;
    let ended = if ids.len() > most as usize { ClosedRows::Some } else { ClosedRows::All };
    ids.truncate(most as usize);
    for key_id in &ids {
        tx.execute_later(
            "UPDATE api_keys SET revoked_at = $2, updated_at = $2, position = -position, warnings = -1 \
             WHERE key_id = $1 AND CASE WHEN position > 0 THEN 1 ELSE 0 END = 1",
            &[key_id.as_str().into(), now.into()],
        )?;
    }
    Ok(EndedKeys { ids, ended })
}

/// The owners of one workspace whose access is checked. With more that have none, the workspace counts as closed.
const MOST_OWNERS: u32 = 1_000;
/// The memberships of one user that are searched for workspaces that it owns.
const MOST_MEMBERSHIPS: u32 = 1_000;
/// The owned workspaces of one user that one write checks. It takes the guard row of each.
const MOST_OWNED: usize = 20;

/// The keys that a write ends, so that they are no way in.
#[derive(Clone, Copy)]
pub enum Without<'a> {
    /// The key with this public part.
    Key(&'a str),
    /// All keys whose home is this workspace.
    KeysOf(WorkspaceId),
    /// The write ends no key, so no way in is lost.
    NoKey,
}

/// The search for a way in: the ended keys, the configured issuers (`None`: every issuer) and the time.
#[derive(Clone, Copy)]
pub struct Ways<'a> {
    pub without: Without<'a>,
    /// The issuers whose users can sign in.
    pub issuers: Option<&'a [Arc<str>]>,
    /// Keys that have expired at this time are no way in.
    pub now: Timestamp,
}

impl Ways<'_> {
    /// A live key `k` with all of an owner's permissions, which one in quarantine has not. It uses the parameters `$1` to `$5`.
    /// A key that is bound to a public key or to networks counts after its first use, which proves that its holder can use it.
    fn opens() -> String {
        format!(
            "k.role = 'owner' AND (k.permissions = $2 OR k.permissions = $3) AND k.key_id <> $4 AND k.workspace_id <> $5 \
             AND k.expires_at > $1 AND k.quarantined_at IS NULL \
             AND (k.last_used_at IS NOT NULL OR k.bound_jkt IS NULL AND k.networks IS NULL) AND CASE WHEN k.position > 0 THEN 1 ELSE 0 END = 1 AND {LIVE}"
        )
    }

    /// The condition that a principal signs in with an issuer or has a key that opens. It uses the parameters `$1` to `$6`;
    /// the issuers are the parameters from `first`. A key of a workspace that accepts some issuers only opens that one, `$6`: the
    /// list of another workspace may refuse the key.
    fn has_access(&self, principal: &str, first: usize) -> String {
        let configured = match self.issuers {
            None => String::new(),
            Some([]) => " AND 1 = 0".to_owned(),
            Some(issuers) => format!(" AND i.issuer IN ({})", parameters(first, issuers.len())),
        };
        let opens = Self::opens();
        format!(
            "((SELECT i.kind FROM identities i WHERE i.principal_id = {principal}{configured} LIMIT 1) IS NOT NULL \
              OR (SELECT k.role FROM api_keys k WHERE k.principal_id = {principal} AND {opens} \
                  AND (SELECT h.state FROM workspaces h WHERE h.id = k.workspace_id \
                       AND (h.issuers IS NULL OR h.id = $6)) = 'active' LIMIT 1) IS NOT NULL)"
        )
    }

    /// Runs a query with the parameters `$1` to `$5`, then `more`, then the issuers.
    fn ask<T>(
        &self,
        tx: &mut Tx<'_>,
        sql: &str,
        more: &[Value<'_>],
        read: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let whole = names(Role::Owner.permissions());
        let none = WorkspaceId(Uuid::nil());
        let (key, workspace) = match self.without {
            Without::Key(key) => (key, none),
            Without::KeysOf(workspace) => ("", workspace),
            Without::NoKey => ("", none),
        };
        let mut values =
            vec![self.now.into(), Value::Json("[]"), Value::Json(&whole), key.into(), workspace.into()];
        values.extend_from_slice(more);
        values.extend(self.issuers.unwrap_or_default().iter().map(|issuer| Value::from(&**issuer)));
        tx.all(sql, &values, read)
    }
}

/// The names of `count` parameters from `first`, such as `$4, $5`.
fn parameters(first: usize, count: usize) -> String {
    let names: Vec<String> = (first..).take(count).map(|at| format!("${at}")).collect();
    names.join(", ")
}

/// Whether a user other than `but` owns the workspace and can enter it. Only users of the issuers that it accepts can.
pub fn has_way_in(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    but: Option<PrincipalId>,
    ways: Ways<'_>,
) -> Result<bool, Error> {
    let accepted = workspaces::access_policy::issuers_of(tx, workspace)?;
    let accepted = accepted.names();
    let access = ways.has_access("m.principal_id", 9 + accepted.len());
    let of_accepted = match accepted {
        [] => String::new(),
        names => format!(
            " AND (SELECT o.kind FROM identities o WHERE o.principal_id = m.principal_id AND o.issuer IN ({}) LIMIT 1) IS NOT NULL",
            parameters(9, names.len())
        ),
    };
    let sql = format!(
        "SELECT CASE WHEN {access}{of_accepted} THEN 1 ELSE 0 END FROM memberships m \
         WHERE m.owned_workspace_id = $6 AND m.role = 'owner' AND m.principal_id <> $7 LIMIT $8"
    );
    let mut more = vec![workspace.into(), but.unwrap_or(PrincipalId(Uuid::nil())).into(), MOST_OWNERS.into()];
    more.extend(accepted.iter().map(|issuer| Value::from(issuer.as_str())));
    let found: Vec<i64> = ways.ask(tx, &sql, &more, decode)?;
    Ok(found.contains(&1))
}

/// Whether a service other than `but` owns the workspace and has a key with all of an owner's permissions.
pub fn has_way_in_of_service(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    but: Option<PrincipalId>,
    ways: Ways<'_>,
) -> Result<bool, Error> {
    let opens = Ways::opens();
    let sql = format!(
        "SELECT k.role FROM api_keys k WHERE k.workspace_id = $6 AND k.role = 'owner' AND k.position > 0 \
           AND k.principal_kind = 'service' AND k.principal_id <> $7 AND {opens} \
           AND (SELECT m.role FROM memberships m WHERE m.workspace_id = $6 AND m.principal_id = k.principal_id) = 'owner' LIMIT 1"
    );
    let more = [workspace.into(), but.unwrap_or(PrincipalId(Uuid::nil())).into()];
    let without_issuers = Ways { issuers: None, ..ways };
    Ok(!without_issuers.ask(tx, &sql, &more, decode::<String>)?.is_empty())
}

pub fn is_owner(tx: &mut Tx<'_>, workspace: WorkspaceId, principal: PrincipalId) -> Result<bool, Error> {
    let role: Option<String> = tx.optional(
        "SELECT m.role FROM memberships m WHERE m.workspace_id = $1 AND m.principal_id = $2",
        &[workspace.into(), principal.into()],
        decode,
    )?;
    Ok(role.is_some_and(|role| role == Role::Owner.name()))
}

/// The active workspaces that a user owns but can no longer enter, in the order of ids. `None`: there are more than one write
/// can check. The list is empty if the user still has access.
pub fn owned_without_access(
    tx: &mut Tx<'_>,
    user: PrincipalId,
    ways: Ways<'_>,
) -> Result<Option<Vec<WorkspaceId>>, Error> {
    let access = ways.has_access("p.id", 7);
    let sql = format!("SELECT p.kind FROM principals p WHERE p.id = $6 AND {access}");
    if !ways.ask(tx, &sql, &[user.into()], decode::<String>)?.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let memberships: Vec<(Option<WorkspaceId>, bool)> = tx.all(
        "SELECT m.owned_workspace_id, m.role = 'owner' \
                AND (SELECT w.state FROM workspaces w WHERE w.id = m.owned_workspace_id) = 'active' \
         FROM memberships m WHERE m.principal_id = $1 AND m.position > 0 ORDER BY m.position LIMIT $2",
        &[user.into(), MOST_MEMBERSHIPS.into()],
        |row| row.read().map(|(workspace, owns): (_, Option<bool>)| (workspace, owns.unwrap_or_default())),
    )?;
    let all = u32::try_from(memberships.len()).is_ok_and(|read| read < MOST_MEMBERSHIPS);
    let owned = memberships.into_iter().filter_map(|(workspace, owns)| workspace.filter(|_| owns));
    let mut owned: Vec<WorkspaceId> = owned.collect();
    owned.sort_unstable();
    Ok((all && owned.len() <= MOST_OWNED).then_some(owned))
}

/// Moves a key's last use forward, but never back.
pub fn store_last_used(tx: &mut Tx<'_>, key_id: KeyId, at: Timestamp) -> Result<(), Error> {
    tx.execute(
        "UPDATE api_keys SET last_used_at = $2 WHERE key_id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
        &[key_id.as_str().into(), at.into()],
    )?;
    Ok(())
}

/// Notes a use of a replaced secret in this minute. Returns whether it was the first in that minute, over all replicas.
///
/// The use counts although the secret has ended since. The last use that lists show moves only if the key still has the
/// secret, which its end identifies.
pub fn store_previous_used(
    tx: &mut WorkspaceGuard<'_, '_>,
    key_id: KeyId,
    minute: i64,
    ends_at: Timestamp,
) -> Result<bool, Error> {
    let found = tx.optional(
        "SELECT previous_minute, previous_minutes FROM api_keys WHERE key_id = $1",
        &[key_id.as_str().into()],
        decode::<(Option<i64>, Option<i64>)>,
    )?;
    let Some((last, noted)) = found else { return Ok(false) };
    let Some((last, noted)) = with_minute(last.zip(noted), minute) else { return Ok(false) };
    tx.execute_later(
        "UPDATE api_keys SET previous_minute = $2, previous_minutes = $3, previous_used_at = \
           CASE WHEN previous_ends_at = $4 AND (previous_used_at IS NULL OR previous_used_at < $5) THEN $5 \
                ELSE previous_used_at END \
         WHERE key_id = $1",
        &[
            key_id.as_str().into(),
            last.into(),
            noted.into(),
            ends_at.into(),
            Timestamp::from_micros(minute * MINUTE).into(),
        ],
    )?;
    Ok(true)
}

pub(super) fn previous_hash(
    (bytes, ends_at): (Option<Vec<u8>>, Option<Timestamp>),
) -> Result<Option<(SecretHash, Timestamp)>, Error> {
    let Some((bytes, ends_at)) = bytes.zip(ends_at) else { return Ok(None) };
    Ok(Some((hash(bytes)?, ends_at)))
}

fn thumbprint(text: Option<String>) -> Result<Option<Thumbprint>, Error> {
    let read =
        |text: String| Thumbprint::parse(&text).ok_or_else(|| Error::unreadable("no thumbprint of a key"));
    text.map(read).transpose()
}

/// The columns that [`Reach`] reads: the role, and the list of permissions within it.
const REACH: &str = "k.role, k.permissions";

impl FromRow for Reach {
    fn from_row(columns: &mut Columns<'_>) -> Result<Self, Error> {
        let (role, Json(list)): (Role, Json) = columns.read()?;
        if list == "[]" {
            return Ok(Self::whole(role));
        }
        let names: Vec<String> = serde_json::from_str(&list).map_err(Error::unreadable)?;
        // A permission that this version does not know allows nothing. It must not turn the list into "the
        // whole role".
        let known = names.iter().filter_map(|name| Permission::named(name));
        let permissions = known.fold(Permissions::default(), |all, one| all.or(Permissions::of(&[one])));
        Ok(Self { role, permissions: permissions.and(role.permissions()) })
    }
}

fn names(permissions: Permissions) -> String {
    serde_json::to_string(&permissions).unwrap_or_else(|_| "[]".to_owned())
}

pub(super) fn hash(bytes: Vec<u8>) -> Result<SecretHash, Error> {
    SecretHash::try_from(bytes).map_err(|_| Error::unreadable("a hash of another length"))
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
        decode::<(WorkspaceId, bool, Timestamp)>,
    )?;
    Ok(found.is_some_and(|(home, live, expires_at)| home == workspace && live && expires_at > now))
}

/// A live key of any workspace. Only the operator may use it directly.
pub fn get_anywhere(tx: &mut Tx<'_>, key_id: KeyId) -> Result<Option<ApiKey>, Error> {
    let found = tx.optional(
        select!(ApiKey, "FROM api_keys k WHERE k.key_id = $1 AND ", LIVE),
        &[key_id.as_str().into()],
        decode,
    )?;
    Ok(found.filter(|key: &ApiKey| key.position > 0))
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
        decode,
    )
}
