//! The SQL of access policies.

use ward_db::{Error, Tx, Value, decode, update_later};

use super::{AcceptedIssuers, AccessPolicy};
use crate::guard::WorkspaceGuard;
use crate::ids::WorkspaceId;

/// Stores the policy of the held workspace.
pub fn set(tx: &mut WorkspaceGuard<'_, '_>, policy: &AccessPolicy) -> Result<(), Error> {
    let workspace = tx.row();
    let (networks, issuers) = (policy.networks.stored(), policy.issuers.stored());
    update_later!(tx, "workspaces" {
        networks: networks.as_deref().map_or(Value::Null, Value::Json),
        issuers: issuers.as_deref().map_or(Value::Null, Value::Json),
    } "id = $1", [workspace])?;
    Ok(())
}

/// The issuers whose users may be members of a workspace.
pub fn issuers_of(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<AcceptedIssuers, Error> {
    let found = tx.optional("SELECT issuers FROM workspaces WHERE id = $1", &[workspace.into()], decode)?;
    Ok(found.unwrap_or_default())
}
