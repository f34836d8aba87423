//! The SQL of exports.

use uuid::Uuid;
use ward_db::{Error, Timestamp, Tx, columns, decode, insert, select, update};

use super::{Export, ExportState};
use crate::guard::WorkspaceGuard;
use crate::ids::{ExportId, WorkspaceId};

columns! {
    Export {
        workspace: "workspace_id",
        id,
        created_at,
        created_by,
        from: "date_from",
        to: "date_to",
        service,
        action,
        phi_only,
        state,
        rows: "rows_found",
        bytes,
        finished_at,
    }
}

/// Queues an export; false if the workspace already has one in its queue.
pub fn enqueue(tx: &mut WorkspaceGuard<'_, '_>, export: &Export) -> Result<bool, Error> {
    let queued = insert!(tx, "audit_export_queue" {
        workspace_id: export.workspace,
        export_id: export.id,
        due_at: export.created_at,
        attempts: 0,
    } "ON CONFLICT (workspace_id) DO NOTHING")?;
    if queued == 0 {
        return Ok(false);
    }
    insert!(tx, "audit_exports" {
        workspace_id: export.workspace,
        id: export.id,
        created_at: export.created_at,
        created_by: export.created_by,
        date_from: export.from,
        date_to: export.to,
        service: export.service.as_deref(),
        action: export.action.as_deref(),
        phi_only: export.phi_only,
        state: ExportState::Queued,
        rows_found: export.rows,
        bytes: 0,
    })?;
    Ok(true)
}

/// A workspace's exports, newest first, from `offset` on.
pub fn list(tx: &mut Tx<'_>, workspace: WorkspaceId, limit: i64, offset: i64) -> Result<Vec<Export>, Error> {
    // An id begins with its timestamp, so the order of ids is the order of time.
    tx.all(
        select!(Export, "FROM audit_exports WHERE workspace_id = $1 ORDER BY id DESC LIMIT $2 OFFSET $3"),
        &[workspace.into(), limit.into(), offset.into()],
        decode,
    )
}

pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, id: ExportId) -> Result<Option<Export>, Error> {
    tx.optional(
        select!(Export, "FROM audit_exports WHERE workspace_id = $1 AND id = $2"),
        &[workspace.into(), id.into()],
        decode,
    )
}

/// A queued export, with the number of attempts so far.
#[derive(Clone, Copy, Debug)]
pub struct DueExport {
    pub workspace: WorkspaceId,
    pub export: ExportId,
    pub attempts: i64,
}

columns! {
    DueExport { workspace: "workspace_id", export: "export_id", attempts }
}

/// Due exports, the longest waiting first.
pub fn due(tx: &mut Tx<'_>, now: Timestamp, most: i64) -> Result<Vec<DueExport>, Error> {
    tx.all(
        select!(DueExport, "FROM audit_export_queue WHERE due_at <= $1 ORDER BY due_at LIMIT $2"),
        &[now.into(), most.into()],
        decode,
    )
}

/// Leases a due export to one worker until `until`, when it becomes due again. False if another worker was
/// first.
pub fn lease(tx: &mut Tx<'_>, due: DueExport, lease: Uuid, until: Timestamp) -> Result<bool, Error> {
    let changed = tx.execute(
        "UPDATE audit_export_queue SET lease = $4, due_at = $5, attempts = attempts + 1 \
         WHERE workspace_id = $1 AND export_id = $2 AND attempts = $3",
        &[due.workspace.into(), due.export.into(), due.attempts.into(), lease.into(), until.into()],
    )?;
    Ok(changed == 1)
}

/// Moves the time at which the export is due; false if another worker now has the lease.
pub fn put_off(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    lease: Uuid,
    until: Timestamp,
) -> Result<bool, Error> {
    let changed = tx.execute(
        "UPDATE audit_export_queue SET due_at = $3 WHERE workspace_id = $1 AND lease = $2",
        &[workspace.into(), lease.into(), until.into()],
    )?;
    Ok(changed == 1)
}

/// Removes an export from the queue; false if another worker now has the lease.
pub fn leave(tx: &mut Tx<'_>, workspace: WorkspaceId, lease: Uuid) -> Result<bool, Error> {
    let sql = "DELETE FROM audit_export_queue WHERE workspace_id = $1 AND lease = $2";
    Ok(tx.execute(sql, &[workspace.into(), lease.into()])? == 1)
}

/// Stores the outcome of an export.
pub fn settle(
    tx: &mut Tx<'_>,
    (workspace, id): (WorkspaceId, ExportId),
    state: ExportState,
    (rows, bytes): (i64, i64),
    now: Timestamp,
) -> Result<(), Error> {
    update!(tx, "audit_exports" {
        state: state,
        rows_found: rows,
        bytes: bytes,
        finished_at: now,
    } "workspace_id = $1 AND id = $2", [workspace, id])?;
    Ok(())
}

/// Forgets an export. Returns the size of its file, if it was still known.
pub fn forget(tx: &mut Tx<'_>, workspace: WorkspaceId, id: ExportId) -> Result<Option<i64>, Error> {
    let sql = "DELETE FROM audit_exports WHERE workspace_id = $1 AND id = $2 RETURNING bytes";
    tx.optional(sql, &[workspace.into(), id.into()], decode)
}
