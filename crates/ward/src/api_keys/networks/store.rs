//! The SQL of the networks of keys.

use ward_db::{Error, Value};

use crate::api_keys::ApiKey;
use crate::guard::WorkspaceGuard;

/// Stores the networks of a key. `updated_at` stays: it is the time of the secret, and invitations depend on it.
pub fn set(tx: &mut WorkspaceGuard<'_, '_>, key: &ApiKey) -> Result<(), Error> {
    let networks = key.networks.stored();
    tx.execute_later(
        "UPDATE api_keys SET networks = $2 WHERE key_id = $1",
        &[key.key_id.as_str().into(), networks.as_deref().map_or(Value::Null, Value::Json)],
    )?;
    Ok(())
}
