//! The SQL of generated keys. A key is a row of `integration_secrets` with the columns of a key pair.

use serde_json::Value as Document;
use ward_db::{Error, Json, Row, Timestamp, Tx, Value};

use super::{Key, KeyState, MOST};
use crate::guard::WorkspaceGuard;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::integrations::secrets::{Field, Sealed};

/// The keys of an integration, the oldest first.
pub fn list(tx: &mut Tx<'_>, workspace: WorkspaceId, integration: IntegrationId) -> Result<Vec<Key>, Error> {
    let mut keys = tx.all(
        "SELECT field, algorithm, key_state, public_key, created_at, activated_at FROM integration_secrets \
         WHERE workspace_id = $1 AND integration_id = $2 AND public_key IS NOT NULL ORDER BY field LIMIT $3",
        &[workspace.into(), integration.into(), i64::from(MOST).into()],
        key,
    )?;
    // The index has no order by time, and a sort of two rows needs no database.
    keys.sort_by(|one: &Key, other| (one.created_at, &one.kid).cmp(&(other.created_at, &other.kid)));
    Ok(keys)
}

fn key(row: &Row<'_>) -> Result<Key, Error> {
    let field = Field(row.get(0)?);
    let kid = field.kid().ok_or_else(|| Error::unreadable("the field of a generated key"))?;
    let state = row.text(2)?;
    let Json(public) = row.get(3)?;
    let public: Document = serde_json::from_str(&public).map_err(Error::unreadable)?;
    Ok(Key {
        kid: kid.to_owned(),
        algorithm: row.get(1)?,
        state: KeyState::named(state).ok_or_else(|| Error::unreadable("an unknown state of a key"))?,
        public,
        created_at: row.get(4)?,
        activated_at: row.get(5)?,
    })
}

/// Stores a key with its sealed private half.
pub fn insert(
    tx: &mut WorkspaceGuard<'_, '_>,
    sealed: &Sealed,
    new: &Key,
    key_id: &str,
) -> Result<(), Error> {
    let public = new.public.to_string();
    tx.execute(
        "INSERT INTO integration_secrets (workspace_id, integration_id, field, reference, origins, key_id, sealed, \
                created_at, algorithm, key_state, public_key, activated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        &[
            sealed.workspace.into(),
            sealed.integration.into(),
            sealed.field.0.as_str().into(),
            new.kid.as_str().into(),
            sealed.origins.as_str().into(),
            key_id.into(),
            Value::Bytes(&sealed.bytes),
            new.created_at.into(),
            new.algorithm.as_str().into(),
            new.state.name().into(),
            Value::Json(&public),
            new.activated_at.into(),
        ],
    )?;
    Ok(())
}

/// Sets the state of a key, and the time at which it became active.
pub fn set_state(
    tx: &mut WorkspaceGuard<'_, '_>,
    integration: IntegrationId,
    changed: &Key,
) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE integration_secrets SET key_state = $4, activated_at = $5 \
         WHERE workspace_id = $1 AND integration_id = $2 AND field = $3",
        &[
            workspace.into(),
            integration.into(),
            Field::of_key(&changed.kid).0.as_str().into(),
            changed.state.name().into(),
            changed.activated_at.into(),
        ],
    )?;
    Ok(())
}

/// Marks the integration as changed, because other credentials are in use. The result of a former test is cleared.
pub fn touch(
    tx: &mut WorkspaceGuard<'_, '_>,
    integration: IntegrationId,
    updated_at: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE integrations SET updated_at = $3, last_tested_at = NULL, last_test_status = NULL \
         WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), integration.into(), updated_at.into()],
    )?;
    Ok(())
}
