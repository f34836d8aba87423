//! The SQL of leaked keys.

use ward_db::{Error, Timestamp, Tx, Value, columns, decode, insert_later, sql};

use super::LeakAction;
use crate::api_keys::secret::{KeyId, SecretHash};
use crate::api_keys::store::{LIVE, hash, previous_hash};
use crate::api_keys::{ApiKey, Secret, secret_with};
use crate::guard::WorkspaceGuard;
use crate::ids::WorkspaceId;

/// A key that a report names, with the columns that decide about its leak.
#[derive(Debug)]
pub struct Suspect {
    pub key_id: String,
    pub workspace: WorkspaceId,
    secret_hash: SecretHash,
    previous: Option<(SecretHash, Timestamp)>,
    expires_at: Timestamp,
    /// Whether the key is in quarantine already.
    pub quarantined: bool,
    revoked: bool,
}

columns! {
    Suspect as "k" {
        key_id,
        workspace: "k.workspace_id",
        secret_hash => hash,
        previous: "k.previous_hash, k.previous_ends_at" => previous_hash,
        expires_at,
        quarantined: "k.quarantined_at IS NOT NULL",
        revoked: sql!("k.revoked_at IS NOT NULL OR NOT ", LIVE),
    }
}

impl Suspect {
    /// The secret with this hash, if it could still be used. An archived workspace can be restored, so its keys count.
    pub fn usable(&self, hash: &SecretHash, now: Timestamp) -> Option<Secret> {
        let secret = secret_with(&self.secret_hash, self.previous.as_ref(), hash)?;
        let ended = matches!(secret, Secret::Previous { ends_at } if ends_at <= now);
        (!ended && !self.revoked && self.expires_at > now).then_some(secret)
    }
}

/// The numbers of parameters of the search. Few different statements can be prepared and kept.
const SIZES: [usize; 4] = [1, 10, 100, 1_000];

/// The keys with these public parts, in one statement; at most a thousand.
pub fn find(tx: &mut Tx<'_>, keys: &[KeyId]) -> Result<Vec<Suspect>, Error> {
    let Some(last) = keys.last() else { return Ok(Vec::new()) };
    let size = SIZES.into_iter().find(|size| *size >= keys.len()).unwrap_or(keys.len());
    let parameters: Vec<String> = (1..=size).map(|at| format!("${at}")).collect();
    let sql =
        format!("SELECT {} FROM api_keys k WHERE k.key_id IN ({})", Suspect::COLUMNS, parameters.join(", "));
    let padding = std::iter::repeat_n(last, size - keys.len());
    let values: Vec<Value<'_>> = keys.iter().chain(padding).map(|key| key.as_str().into()).collect();
    tx.all(&sql, &values, decode)
}

/// Moves a key into quarantine: it then only reads, and ends at the key's new expiry.
pub fn quarantine(tx: &mut WorkspaceGuard<'_, '_>, key: &ApiKey) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE api_keys SET quarantined_at = $2, expires_at = $3, updated_at = $4 WHERE key_id = $1",
        &[
            key.key_id.as_str().into(),
            key.quarantined_at.into(),
            key.expires_at.into(),
            key.updated_at.into(),
        ],
    )?;
    Ok(())
}

/// The choice of a workspace for its leaked keys.
pub fn policy(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<LeakAction, Error> {
    let set = tx.optional(
        "SELECT action FROM leaked_key_policies WHERE workspace_id = $1",
        &[workspace.into()],
        decode,
    )?;
    Ok(set.unwrap_or_default())
}

pub fn set_policy(tx: &mut WorkspaceGuard<'_, '_>, action: LeakAction, now: Timestamp) -> Result<(), Error> {
    let workspace = tx.row();
    insert_later!(tx, "leaked_key_policies" {
        workspace_id: workspace,
        action: action,
        updated_at: now,
    } "ON CONFLICT (workspace_id) DO UPDATE SET action = EXCLUDED.action, updated_at = EXCLUDED.updated_at")
}
