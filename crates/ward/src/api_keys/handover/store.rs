//! The SQL of handovers.

use ward_db::{Error, Timestamp, Tx, Value, columns, decode, insert_later, select};

use crate::api_keys::secret::SecretHash;
use crate::guard::WorkspaceGuard;
use crate::ids::WorkspaceId;

/// A secret that waits for its receiver.
#[derive(Debug)]
pub struct WaitingSecret {
    /// The public part of the key.
    pub key_id: String,
    pub workspace: WorkspaceId,
    pub sealed: Vec<u8>,
    /// The timestamp from which the link shows nothing.
    pub expires_at: Timestamp,
}

columns! {
    WaitingSecret { key_id, workspace: "workspace_id", sealed, expires_at }
}

/// The secret that the link with this token shows at this time.
pub fn get(tx: &mut Tx<'_>, token: &SecretHash, now: Timestamp) -> Result<Option<WaitingSecret>, Error> {
    let found = tx.optional(
        select!(WaitingSecret, "FROM handovers WHERE token_hash = $1"),
        &[Value::Bytes(token)],
        decode::<WaitingSecret>,
    )?;
    Ok(found.filter(|waiting| waiting.expires_at > now))
}

/// Stores a secret. It replaces one of the same key.
pub fn put(tx: &mut WorkspaceGuard<'_, '_>, token: &SecretHash, new: &WaitingSecret) -> Result<(), Error> {
    forget(tx, &new.key_id)?;
    insert_later!(tx, "handovers" {
        key_id: new.key_id.as_str(),
        workspace_id: new.workspace,
        token_hash: token,
        sealed: &new.sealed,
        expires_at: new.expires_at,
    })
}

/// Deletes the secret of a key, if one waits.
pub fn forget(tx: &mut WorkspaceGuard<'_, '_>, key_id: &str) -> Result<(), Error> {
    tx.execute_later("DELETE FROM handovers WHERE key_id = $1", &[key_id.into()])
}

/// Deletes up to `most` secrets whose time is over. Returns their number.
pub fn forget_old(tx: &mut Tx<'_>, now: Timestamp, most: u32) -> Result<usize, Error> {
    let due: Vec<String> = tx.all(
        "SELECT key_id FROM handovers WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
        &[now.into(), most.into()],
        decode,
    )?;
    for key_id in &due {
        tx.execute_later(
            "DELETE FROM handovers WHERE key_id = $1 AND CASE WHEN expires_at <= $2 THEN 1 ELSE 0 END = 1",
            &[key_id.as_str().into(), now.into()],
        )?;
    }
    Ok(due.len())
}

/// Up to `most` sealed secrets after this key id.
pub fn sealed(tx: &mut Tx<'_>, after: &str, most: u32) -> Result<Vec<(String, WorkspaceId, Vec<u8>)>, Error> {
    tx.all(
        "SELECT key_id, workspace_id, sealed FROM handovers WHERE key_id > $1 ORDER BY key_id LIMIT $2",
        &[after.into(), most.into()],
        decode,
    )
}

/// The number of secrets that do not begin with this mark of a key.
pub fn count_under_other_keys(tx: &mut Tx<'_>, mark: &[u8]) -> Result<i64, Error> {
    tx.one("SELECT count(*) FROM handovers WHERE substr(sealed, 2, 4) <> $1", &[Value::Bytes(mark)], decode)
}

/// Replaces a sealed secret by the same under the current key.
pub fn replace_secret(tx: &mut Tx<'_>, key_id: &str, anew: &[u8]) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE handovers SET sealed = $2 WHERE key_id = $1",
        &[key_id.into(), Value::Bytes(anew)],
    )
}
