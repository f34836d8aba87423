//! The SQL of generated keys. A key is a row of `integration_secrets` with the columns of a key pair.

use ward_db::{Error, Json, Timestamp, Tx, Value, columns, decode, insert, select};

use super::{Key, MOST};
use crate::guard::WorkspaceGuard;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::integrations::secrets::{Field, SealedSecret};

/// The keys of an integration, the oldest first.
pub fn list(tx: &mut Tx<'_>, workspace: WorkspaceId, integration: IntegrationId) -> Result<Vec<Key>, Error> {
    let mut keys = tx.all(
        select!(
            Key,
            "FROM integration_secrets WHERE workspace_id = $1 AND integration_id = $2 AND public_key IS NOT NULL \
             ORDER BY field LIMIT $3"
        ),
        &[workspace.into(), integration.into(), i64::from(MOST).into()],
        decode,
    )?;
    // The index has no order by time, and a sort of two rows needs no database.
    keys.sort_by(|one: &Key, other| (one.created_at, &one.kid).cmp(&(other.created_at, &other.kid)));
    Ok(keys)
}

columns! {
    Key {
        kid: "field" => kid,
        algorithm,
        state: "key_state",
        public: "public_key" => |Json(text)| serde_json::from_str(&text).map_err(Error::unreadable),
        created_at,
        activated_at,
    }
}

fn kid(field: String) -> Result<String, Error> {
    let field = Field(field);
    field.kid().map(str::to_owned).ok_or_else(|| Error::unreadable("the field of a generated key"))
}

/// Stores a key with its sealed private half.
pub fn insert(
    tx: &mut WorkspaceGuard<'_, '_>,
    sealed: &SealedSecret,
    new: &Key,
    key_id: &str,
) -> Result<(), Error> {
    let public = new.public.to_string();
    insert!(tx, "integration_secrets" {
        workspace_id: sealed.workspace,
        integration_id: sealed.integration,
        field: &sealed.field.0,
        reference: &new.kid,
        origins: &sealed.origins,
        key_id: key_id,
        sealed: &sealed.bytes,
        created_at: new.created_at,
        algorithm: &new.algorithm,
        key_state: new.state,
        public_key: Value::Json(&public),
        activated_at: new.activated_at,
    })?;
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
            changed.state.into(),
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
