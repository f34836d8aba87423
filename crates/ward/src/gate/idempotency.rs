//! Idempotency: a POST that is retried with its `Idempotency-Key` gets its first answer again, and writes
//! nothing.
//!
//! The answer is stored in the transaction of the write, so it exists exactly when the write does. Its
//! scope is the caller, the operation, the path and the key. The caller is authorized before a retry is
//! answered. An answer with a secret is sealed, and replayed for ten minutes only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use ward_db::{Error, Timestamp, Tx, Value, columns, decode, insert, select, update_later};

use super::possession;
use crate::api_keys;
use crate::api_keys::secret::SecretHash;
use crate::audit::Write;
use crate::error::ApiError;
use crate::http::{Reply, Request};
use crate::ids::{PrincipalId, WorkspaceId};
use crate::quotas::{self, Change, Limits};
use crate::vault::{self, ResealResult, SealedRow, Vault, VaultError};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The header that marks a replayed answer.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How long an answer is kept.
const KEPT: Duration = Duration::from_hours(24);
/// How long an answer with a secret is replayed.
const SECRET_KEPT: Duration = Duration::from_mins(10);
/// The shortest keys of authenticated and of anonymous callers. Only the key protects an anonymous caller's
/// answer from others.
const SHORTEST: (usize, usize) = (16, 22);
const LONGEST: usize = 255;
/// The largest stored answer, in bytes.
const LARGEST: usize = 512 * 1024;
/// Bytes that a row counts for, its answer left out: scope, digest and index entries.
const ROW: usize = 256;

/// The replay state of one request: its key, if it has one, and the status of its answer.
#[derive(Clone)]
pub struct Repeat {
    key: Option<Arc<RepeatKey>>,
    status: StatusCode,
    now: Timestamp,
}

struct RepeatKey {
    /// Seals and opens the stored answers that contain a secret.
    vault: Arc<Vault>,
    scope: String,
    request: [u8; 32],
    /// The workspace of the path, whose stored bytes include the answer, and the limits of the settings.
    counted: Option<(WorkspaceId, Limits)>,
}

/// Whether an answer contains a secret.
#[derive(Clone, Copy)]
pub enum Secrecy {
    Open,
    /// The answer contains a secret. `former` is the hash of the secret that this write ended; its bearer
    /// may replay the write.
    Secret {
        /// The hash of the ended secret, if it was the caller's own.
        former: Option<SecretHash>,
    },
}

impl Repeat {
    /// Reads the `Idempotency-Key` of a request whose successful answer has this `status`. `principal` is
    /// `None` for an anonymous caller.
    pub fn of(
        request: &Request,
        principal: Option<PrincipalId>,
        body: &[u8],
        status: StatusCode,
    ) -> Result<Self, ApiError> {
        let key = read_key(request, principal.is_none())?;
        let key = key.map(|key| {
            let counted = request.workspace().map(|workspace| (workspace, request.app.config.quotas));
            let digest = Sha256::digest(body).into();
            let scope = scope(request, principal, &key);
            Arc::new(RepeatKey { vault: request.app.vault.clone(), scope, request: digest, counted })
        });
        Ok(Self { key, status, now: request.context.now })
    }

    /// The scope of a request's `Idempotency-Key`, if it has one.
    pub fn scope_of(request: &Request, principal: Option<PrincipalId>) -> Result<Option<String>, ApiError> {
        Ok(read_key(request, principal.is_none())?.map(|key| scope(request, principal, &key)))
    }

    /// Whether an answer is stored under this scope. It takes one statement, even without a scope.
    pub fn is_known(tx: &mut Tx<'_>, scope: Option<&str>) -> Result<bool, Error> {
        Ok(first(tx, scope.unwrap_or_default())?.is_some())
    }

    /// Runs `work` once; a retry gets the first answer instead. Errors are not stored and leave nothing
    /// behind.
    pub fn once<'a, 't, K: Copy, T: Serialize>(
        &self,
        write: &mut Write<'a, 't, K>,
        secrecy: Secrecy,
        work: impl FnOnce(&mut Write<'a, 't, K>) -> Result<T, ApiError>,
    ) -> Result<Reply, ApiError> {
        let Some(key) = &self.key else { return Reply::json(self.status, &work(write)?) };
        if !key.begin(write, self.now)? {
            return key.replay(write, self.now);
        }
        let reply = Reply::json(self.status, &work(write)?)?;
        let tx: &mut Tx<'t> = write;
        let vault = &key.vault;
        let (body, sealed, former) = match secrecy {
            Secrecy::Open => (reply.body.to_vec(), false, None),
            Secrecy::Secret { former } => {
                // The hold comes last, because every sealing write of the installation takes the same row.
                vault::hold(tx, vault)?;
                (vault.seal(&reply.body, &key.scope).map_err(ApiError::internal)?, true, former)
            }
        };
        let kept = key.finish(tx, self.status, Some(&body), sealed, former)?;
        key.count(tx, kept, self.now)?;
        Ok(reply)
    }
}

/// The state of a request whose work happens outside the database.
pub enum Begun {
    /// The work was done before, with this answer.
    Answered(Reply),
    /// The work must be done now, and finished with [`Repeat::finish_apart`].
    Yours,
}

impl Repeat {
    /// Whether there is a key under which the answer will be stored.
    pub const fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Takes the key before work that no transaction can include. A retry during that work, or after it was
    /// interrupted, gets 409: the work happens at most once.
    pub fn begin_apart(&self, tx: &mut Tx<'_>) -> Result<Begun, ApiError> {
        let Some(key) = &self.key else { return Ok(Begun::Yours) };
        if key.begin(tx, self.now)? {
            // A server that could not store the answer is refused before the work, which happens only once.
            vault::hold(tx, &key.vault)?;
            // Room for the largest answer is taken before the work, because the work cannot be undone for
            // lack of room.
            key.count(tx, ROW + LARGEST, self.now)?;
            key.note_bytes(tx, ROW + LARGEST)?;
            return Ok(Begun::Yours);
        }
        key.replay(tx, self.now).map(Begun::Answered)
    }

    /// Seals the text of that work's answer, which comes from another system and may concern a patient. It happens
    /// before the write, because sealing takes longer than a write may. `None` if nothing will be stored.
    pub fn seal_apart(&self, text: &[u8]) -> Result<Option<Vec<u8>>, ApiError> {
        let key = self.key.as_ref().filter(|_| text.len() <= LARGEST);
        key.map(|key| key.vault.seal(text, &key.scope)).transpose().map_err(ApiError::internal)
    }

    /// Stores the sealed answer of that work. If the master key was replaced in the meantime, only the fact that the
    /// work was done is stored.
    pub fn finish_apart(&self, tx: &mut Tx<'_>, sealed: Option<&[u8]>) -> Result<(), ApiError> {
        if let Some(key) = &self.key {
            let sealed = if vault::is_in_force(tx, &key.vault)? { sealed } else { None };
            let kept = key.finish(tx, self.status, sealed, sealed.is_some(), None)?;
            if let Some((workspace, _)) = key.counted {
                let unused = Change::bytes(ROW + LARGEST).bytes - Change::bytes(kept).bytes;
                let unused = Change { bytes: -unused, ..Change::default() };
                quotas::give_back(tx, workspace, unused)?;
            }
        }
        Ok(())
    }
}

/// Seals some of the replayable answers under a previous key again, those whose scope follows `after`.
pub fn reseal(
    tx: &mut Tx<'_>,
    vault: &Vault,
    now: Timestamp,
    after: &str,
    most: u32,
) -> Result<ResealResult<String>, Error> {
    vault.reseal_rows(sealed_rows(tx, now, after, most)?, |row, anew| {
        tx.execute(
            "UPDATE idempotency SET body = $2 WHERE scope = $1 AND body = $3",
            &[row.at.as_str().into(), Value::Bytes(anew), Value::Bytes(&row.bytes)],
        )?;
        Ok(())
    })
}

/// Some of the sealed, replayable answers, those after this scope.
pub fn sealed_rows(
    tx: &mut Tx<'_>,
    now: Timestamp,
    after: &str,
    most: u32,
) -> Result<Vec<SealedRow<String>>, Error> {
    tx.all(
        "SELECT scope, body FROM idempotency \
         WHERE sealed AND body IS NOT NULL AND created_at > $1 AND scope > $2 ORDER BY scope LIMIT $3",
        &[now.saturating_sub(SECRET_KEPT).into(), after.into(), most.into()],
        |row| {
            let (scope, bytes): (String, _) = row.read()?;
            let what = "an answer that is kept for a replay".to_owned();
            Ok(SealedRow { place: scope.clone(), at: scope, bytes, what })
        },
    )
}

/// Deletes an answer that no key opens any more. Its retry is refused from then on.
pub fn forget(tx: &mut Tx<'_>, row: &SealedRow<String>) -> Result<(), Error> {
    tx.execute(
        "UPDATE idempotency SET body = NULL, former_secret = NULL, sealed = false WHERE scope = $1 AND body = $2",
        &[row.at.as_str().into(), Value::Bytes(&row.bytes)],
    )?;
    Ok(())
}

/// The number of replayable answers that are sealed under another key than the current one.
pub fn count_under_other_keys(tx: &mut Tx<'_>, vault: &Vault, now: Timestamp) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM idempotency \
         WHERE sealed AND body IS NOT NULL AND created_at > $1 AND substr(body, 2, 4) <> $2",
        &[now.saturating_sub(SECRET_KEPT).into(), Value::Bytes(vault.key_mark())],
        decode,
    )
}

fn read_key(request: &Request, anonymous: bool) -> Result<Option<String>, ApiError> {
    let Some(value) = request.header(&HEADER) else { return Ok(None) };
    let (known, unknown) = SHORTEST;
    let shortest = if anonymous { unknown } else { known };
    let printable = value.as_bytes().iter().all(|byte| (0x21..=0x7e).contains(byte));
    if !printable || !(shortest..=LONGEST).contains(&value.len()) {
        return Err(ApiError::bad_idempotency_key(if anonymous {
            "Idempotency-Key must be 22 to 255 printable ASCII characters here."
        } else {
            "Idempotency-Key must be 16 to 255 printable ASCII characters."
        }));
    }
    Ok(value.to_str().ok().map(str::to_owned))
}

/// Hashes the caller, the operation, the ids in the path and the key. So none of them can be read from the
/// database.
fn scope(request: &Request, principal: Option<PrincipalId>, key: &str) -> String {
    let mut hash = Sha256::new();
    let principal = principal.map(|principal| principal.to_string()).unwrap_or_default();
    for part in [principal.as_str(), &request.operation.id, &request.canonical_path(), key] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    STANDARD_NO_PAD.encode(hash.finalize())
}

/// A first answer as it is stored.
struct First {
    request: Vec<u8>,
    status: i64,
    body: Option<Vec<u8>>,
    sealed: bool,
    former: Option<Vec<u8>>,
    created_at: Timestamp,
}

columns! {
    First { request, status, body, sealed, former: "former_secret", created_at }
}

impl RepeatKey {
    /// Takes the scope for this transaction; `false` if a committed transaction has taken it.
    fn begin(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<bool, Error> {
        let workspace = self.counted.map(|(workspace, _)| workspace);
        if let Some(workspace) = workspace {
            tx.execute_later(
                "UPDATE workspaces SET used_bytes = used_bytes - (SELECT i.bytes FROM idempotency i WHERE i.scope = $2) \
                 WHERE id = $1 AND (SELECT i.created_at FROM idempotency i WHERE i.scope = $2) <= $3",
                &[workspace.into(), self.scope.as_str().into(), now.saturating_sub(KEPT).into()],
            )?;
        }
        tx.execute_later(
            // With a CASE, no planner takes the index by age: the one row is found by its scope.
            "DELETE FROM idempotency WHERE scope = $1 AND CASE WHEN created_at <= $2 THEN 1 ELSE 0 END = 1",
            &[self.scope.as_str().into(), now.saturating_sub(KEPT).into()],
        )?;
        let taken = insert!(tx, "idempotency" {
            scope: &self.scope,
            request: &self.request,
            status: 0,
            sealed: false,
            created_at: now,
            workspace_id: workspace,
        } "ON CONFLICT (scope) DO NOTHING")?;
        Ok(taken == 1)
    }

    fn finish(
        &self,
        tx: &mut Tx<'_>,
        status: StatusCode,
        body: Option<&[u8]>,
        sealed: bool,
        former: Option<SecretHash>,
    ) -> Result<usize, Error> {
        // A larger answer is not stored. Its retry is refused, like that of a deleted answer.
        let body = body.filter(|body| body.len() <= LARGEST);
        let kept = ROW + body.map_or(0, <[u8]>::len);
        update_later!(tx, "idempotency" {
            status: i64::from(status.as_u16()),
            body: body,
            sealed: sealed,
            former_secret: former.as_ref(),
            bytes: Change::bytes(kept).bytes,
        } "scope = $1", [&self.scope])?;
        Ok(kept)
    }

    /// Counts these bytes for the workspace (409 beyond its quota).
    fn count(&self, tx: &mut Tx<'_>, bytes: usize, now: Timestamp) -> Result<(), ApiError> {
        let Some((workspace, limits)) = &self.counted else { return Ok(()) };
        quotas::take(tx, *workspace, limits, Change::bytes(bytes), now)
    }

    /// Stores the bytes that the row counts for.
    fn note_bytes(&self, tx: &mut Tx<'_>, bytes: usize) -> Result<(), Error> {
        tx.execute_later(
            "UPDATE idempotency SET bytes = $2 WHERE scope = $1",
            &[self.scope.as_str().into(), Change::bytes(bytes).bytes.into()],
        )
    }

    /// The first answer, for a retry.
    fn replay(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<Reply, ApiError> {
        let first = first(tx, &self.scope)?;
        let first = first.ok_or_else(|| ApiError::internal("a replay without its first answer"))?;
        first.reply(&self.vault, &self.scope, &self.request, now)
    }
}

fn first(tx: &mut Tx<'_>, scope: &str) -> Result<Option<First>, Error> {
    tx.optional(select!(First, "FROM idempotency WHERE scope = $1"), &[scope.into()], decode)
}

impl First {
    fn reply(
        &self,
        vault: &Vault,
        scope: &str,
        request: &[u8; 32],
        now: Timestamp,
    ) -> Result<Reply, ApiError> {
        if self.request != request {
            return Err(ApiError::unprocessable(
                "idempotency_key_reused",
                "This Idempotency-Key was used with another request body.",
            ));
        }
        if self.status == 0 {
            return Err(ApiError::conflict(
                "outcome_unknown",
                "A request with this Idempotency-Key has begun, and its outcome is not known.",
            ));
        }
        let gone = || {
            ApiError::conflict(
                "secret_no_longer_shown",
                "This request succeeded, but its answer is no longer replayed. If it created a key, rotate the key to get a new secret.",
            )
        };
        let body = match &self.body {
            Some(body) if !self.sealed => Bytes::copy_from_slice(body),
            Some(body) if self.shows_secret(now) => match vault.open(body, scope) {
                Ok(body) => Bytes::copy_from_slice(&body),
                // Another server sealed the answer under a key that this server lacks, or this server's key
                // was replaced.
                Err(VaultError::Foreign) => return Err(gone()),
                Err(error) => return Err(ApiError::internal(error)),
            },
            _ => return Err(gone()),
        };
        let status = u16::try_from(self.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let mut reply = Reply::raw_json(status.ok_or_else(|| ApiError::internal("a stored status"))?, body);
        reply.headers.push((REPLAYED, HeaderValue::from_static("true")));
        Ok(reply)
    }

    fn shows_secret(&self, now: Timestamp) -> bool {
        now < self.created_at.saturating_add(SECRET_KEPT)
    }
}

/// The first answer of a rotation, before its retry's body is known.
pub struct ReplayableRotation {
    first: First,
    scope: String,
}

impl ReplayableRotation {
    /// Finds the rotation whose answer the bearer of the ended secret may replay, with the same
    /// `Idempotency-Key`. A client whose connection broke before the answer has nothing else left. `None`
    /// if there is none, or if the secret in that answer has ended as well.
    pub async fn find(request: &Request) -> Result<Option<Self>, ApiError> {
        let (Ok(Some(key)), Some(presented)) = (read_key(request, false), super::bearer(request)) else {
            return Ok(None);
        };
        let now = request.context.now;
        let record = request
            .app
            .db
            .read("idempotency.whose", move |tx| api_keys::look_up(tx, presented.key_id))
            .await?;
        let address = request.context.address;
        let live = record.filter(|record| {
            !record.revoked
                && record.home_is_active
                && record.expires_at > now
                && record.admit(address).is_ok()
        });
        let bound_to = live.as_ref().and_then(|record| record.bound_to);
        // A dead or unknown key queries a scope as well, one that never exists, so that it costs as much as
        // a live one.
        let scope = scope(request, live.map(|record| record.principal), &key);
        let wanted = scope.clone();
        let found = request.app.db.read("idempotency.first", move |tx| first(tx, &wanted)).await?;
        let ended_by_it = |first: &First| {
            first.former.as_ref().is_some_and(|former| bool::from(former.as_slice().ct_eq(&presented.hash)))
                && first.shows_secret(now)
        };
        let Some(first) = found.filter(ended_by_it) else { return Ok(None) };
        // The answer shows the new secret, so the ended one needs a proof like a valid one.
        Ok(possession::is_shown(request, bound_to).await?.then_some(Self { first, scope }))
    }

    /// The stored answer, if the body is the same.
    pub fn repeat(&self, request: &Request, body: &[u8]) -> Result<Reply, ApiError> {
        self.first.reply(&request.app.vault, &self.scope, &Sha256::digest(body).into(), request.context.now)
    }
}

/// Deletes answers that are no longer kept, and secrets that are no longer replayed, at most `most` of
/// each. Returns the number of due rows of the more numerous kind.
///
/// Due rows are found first, and then changed one by one, each on the condition that it is still due. For a
/// single statement, a planner may scan the whole table to find the few due rows.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp, most: u32) -> Result<usize, Error> {
    let shown_until = now.saturating_sub(SECRET_KEPT);
    let hidden = due(tx, true, shown_until, most)?;
    let row = Change::bytes(ROW).bytes;
    let mut freed = BTreeMap::new();
    for due in &hidden {
        let changed = tx.execute(
            "UPDATE idempotency SET body = NULL, former_secret = NULL, sealed = false, bytes = $3 \
             WHERE scope = $1 AND CASE WHEN sealed AND created_at <= $2 THEN 1 ELSE 0 END = 1",
            &[due.scope.as_str().into(), shown_until.into(), row.into()],
        )?;
        due.note(&mut freed, changed, row);
    }
    let kept_until = now.saturating_sub(KEPT);
    let old = due(tx, false, kept_until, most)?;
    for due in &old {
        let deleted = tx.execute(
            "DELETE FROM idempotency WHERE scope = $1 AND CASE WHEN created_at <= $2 THEN 1 ELSE 0 END = 1",
            &[due.scope.as_str().into(), kept_until.into()],
        )?;
        due.note(&mut freed, deleted, 0);
    }
    for (workspace, bytes) in freed {
        quotas::give_back(tx, workspace, Change { bytes: -bytes, ..Change::default() })?;
    }
    Ok(hidden.len().max(old.len()))
}

/// An answer that is due to be deleted.
struct ExpiredAnswer {
    scope: String,
    workspace: Option<WorkspaceId>,
    bytes: i64,
}

columns! {
    ExpiredAnswer { scope, workspace: "workspace_id", bytes }
}

impl ExpiredAnswer {
    /// Notes what the workspace gets back, if this transaction changed the row and `left` of it stays.
    fn note(&self, freed: &mut BTreeMap<WorkspaceId, i64>, changed: u64, left: i64) {
        if let (Some(workspace), 1) = (self.workspace, changed) {
            *freed.entry(workspace).or_default() += self.bytes - left;
        }
    }
}

/// The oldest answers up to this time.
fn due(tx: &mut Tx<'_>, sealed: bool, until: Timestamp, most: u32) -> Result<Vec<ExpiredAnswer>, Error> {
    tx.all(
        select!(
            ExpiredAnswer,
            "FROM idempotency WHERE sealed = $1 AND created_at <= $2 ORDER BY created_at LIMIT $3"
        ),
        &[sealed.into(), until.into(), most.into()],
        decode,
    )
}
