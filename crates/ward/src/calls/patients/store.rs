//! The SQL of the sealed facts about patients.

use ward_db::{Error, Timestamp, Tx, Value, decode, insert_later};

use crate::guard::WorkspaceGuard;
use crate::ids::{CallId, WorkspaceId};

/// The key of the facts: workspace and call.
pub type FactsAt = (WorkspaceId, CallId);

/// The sealed facts of a call, and the time of their last change.
pub fn get(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    call: CallId,
) -> Result<Option<(Vec<u8>, Timestamp)>, Error> {
    tx.optional(
        "SELECT sealed, changed_at FROM call_patients \
         WHERE call_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), call.into()],
        decode,
    )
}

/// The time of the last change of a call's facts.
pub fn changed_at(tx: &mut Tx<'_>, workspace: WorkspaceId, call: CallId) -> Result<Option<Timestamp>, Error> {
    Ok(get(tx, workspace, call)?.map(|(_, at)| at))
}

pub fn put(tx: &mut WorkspaceGuard<'_, '_>, call: CallId, sealed: &[u8], at: Timestamp) -> Result<(), Error> {
    let workspace = tx.row();
    insert_later!(tx, "call_patients" {
        workspace_id: workspace,
        call_id: call,
        sealed: Value::Bytes(sealed),
        changed_at: at,
    } "ON CONFLICT (call_id, workspace_id) DO UPDATE SET sealed = excluded.sealed, changed_at = excluded.changed_at")
}

/// The sealed facts of up to `most` calls of all workspaces, after this one.
pub fn all(tx: &mut Tx<'_>, (workspace, call): FactsAt, most: u32) -> Result<Vec<(FactsAt, Vec<u8>)>, Error> {
    tx.all(
        "SELECT workspace_id, call_id, sealed FROM call_patients WHERE (call_id, workspace_id) > ($1, $2) \
         ORDER BY call_id, workspace_id LIMIT $3",
        &[call.into(), workspace.into(), most.into()],
        decode,
    )
}

/// The number of calls whose facts do not begin with this mark of a key.
pub fn count_under_other_keys(tx: &mut Tx<'_>, mark: &[u8]) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM call_patients WHERE substr(sealed, 2, 4) <> $1",
        &[Value::Bytes(mark)],
        decode,
    )
}

/// Replaces the sealed facts of a call by the same under the current key.
pub fn replace(tx: &mut Tx<'_>, (workspace, call): FactsAt, anew: &[u8]) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE call_patients SET sealed = $3 WHERE call_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), call.into(), Value::Bytes(anew)],
    )
}
