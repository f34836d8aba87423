//! The SQL of ceilings.

use ward_db::{Error, Json, Timestamp, Tx, Value, columns, decode, insert_later, select};

use super::{Ceilings, KeyBeyond};
use crate::access::Role;
use crate::guard::WorkspaceGuard;
use crate::ids::WorkspaceId;

/// The ceilings that the owners of a workspace chose; none without a row.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Ceilings, Error> {
    let found = tx.optional(
        "SELECT ceilings FROM key_policies WHERE workspace_id = $1",
        &[workspace.into()],
        decode::<Json>,
    )?;
    found.map_or(Ok(Ceilings::default()), |Json(text)| serde_json::from_str(&text).map_err(Error::unreadable))
}

/// Replaces the ceilings of the held workspace.
pub fn set(tx: &mut WorkspaceGuard<'_, '_>, ceilings: Ceilings) -> Result<(), Error> {
    let workspace = tx.row();
    let text = serde_json::to_string(&ceilings).map_err(Error::unreadable)?;
    insert_later!(tx, "key_policies" {
        workspace_id: workspace,
        ceilings: Value::Json(&text),
    } "ON CONFLICT (workspace_id) DO UPDATE SET ceilings = excluded.ceilings")
}

columns! {
    KeyBeyond as "k" {
        key_id,
        name,
        role,
        expires_at,
    }
}

/// Up to `most` keys of one role that expire after `after`, the first to expire first.
pub fn beyond(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    role: Role,
    after: Timestamp,
    most: usize,
) -> Result<Vec<KeyBeyond>, Error> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    tx.all(
        select!(
            KeyBeyond,
            "FROM api_keys k WHERE k.workspace_id = $1 AND k.role = $2 AND k.position > 0 AND k.expires_at > $3 \
             ORDER BY k.expires_at LIMIT $4"
        ),
        &[workspace.into(), role.into(), after.into(), most.into()],
        decode,
    )
}
