//! The SQL of exports.

use uuid::Uuid;
use ward_db::{Error, Row, Timestamp, Tx, Value};

use super::{Export, ExportState};
use crate::guard::WorkspaceGuard;
use crate::ids::{ExportId, WorkspaceId};

const COLUMNS: &str = "workspace_id, id, created_at, created_by, date_from, date_to, service, action, phi_only, state, \
                       rows_found, bytes, finished_at";

fn export(row: &Row<'_>) -> Result<Export, Error> {
    let state = row.text(9)?;
    let state = ExportState::named(state).ok_or_else(|| Error::unreadable("an export's state"))?;
    Ok(Export {
        workspace: row.get(0)?,
        id: row.get(1)?,
        created_at: row.get(2)?,
        created_by: row.get(3)?,
        from: row.get(4)?,
        to: row.get(5)?,
        service: row.get(6)?,
        action: row.get(7)?,
        phi_only: row.get(8)?,
        state,
        rows: row.get(10)?,
        bytes: row.get(11)?,
        finished_at: row.get(12)?,
    })
}

/// Queues an export; false if the workspace already has one in its queue.
pub fn enqueue(tx: &mut WorkspaceGuard<'_, '_>, export: &Export) -> Result<bool, Error> {
    let queued = tx.execute(
        "INSERT INTO audit_export_queue (workspace_id, export_id, due_at, attempts) VALUES ($1, $2, $3, 0) \
         ON CONFLICT (workspace_id) DO NOTHING",
        &[export.workspace.into(), export.id.into(), export.created_at.into()],
    )?;
    if queued == 0 {
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO audit_exports (workspace_id, id, created_at, created_by, date_from, date_to, service, action, \
                phi_only, state, rows_found, bytes) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'queued', $10, 0)",
        &[
            export.workspace.into(),
            export.id.into(),
            export.created_at.into(),
            export.created_by.into(),
            export.from.into(),
            export.to.into(),
            export.service.as_deref().into(),
            export.action.as_deref().into(),
            export.phi_only.into(),
            export.rows.into(),
        ],
    )?;
    Ok(true)
}

/// A workspace's exports, newest first, from `offset` on.
pub fn list(tx: &mut Tx<'_>, workspace: WorkspaceId, limit: i64, offset: i64) -> Result<Vec<Export>, Error> {
    // An id begins with its timestamp, so the order of ids is the order of time.
    let sql = format!(
        "SELECT {COLUMNS} FROM audit_exports WHERE workspace_id = $1 ORDER BY id DESC LIMIT $2 OFFSET $3"
    );
    tx.all(&sql, &[workspace.into(), limit.into(), offset.into()], export)
}

pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, id: ExportId) -> Result<Option<Export>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM audit_exports WHERE workspace_id = $1 AND id = $2");
    tx.optional(&sql, &[workspace.into(), id.into()], export)
}

/// A queued export, with the number of attempts so far.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub workspace: WorkspaceId,
    pub export: ExportId,
    pub attempts: i64,
}

/// Due exports, the longest waiting first.
pub fn due(tx: &mut Tx<'_>, now: Timestamp, most: i64) -> Result<Vec<Due>, Error> {
    tx.all(
        "SELECT workspace_id, export_id, attempts FROM audit_export_queue WHERE due_at <= $1 ORDER BY due_at LIMIT $2",
        &[now.into(), most.into()],
        |row| Ok(Due { workspace: row.get(0)?, export: row.get(1)?, attempts: row.get(2)? }),
    )
}

/// Leases a due export to one worker until `until`, when it becomes due again. False if another worker was
/// first.
pub fn lease(tx: &mut Tx<'_>, due: Due, lease: Uuid, until: Timestamp) -> Result<bool, Error> {
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
    tx.execute(
        "UPDATE audit_exports SET state = $3, rows_found = $4, bytes = $5, finished_at = $6 \
         WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into(), Value::Text(state.name()), rows.into(), bytes.into(), now.into()],
    )?;
    Ok(())
}

/// Forgets an export. Returns the size of its file, if it was still known.
pub fn forget(tx: &mut Tx<'_>, workspace: WorkspaceId, id: ExportId) -> Result<Option<i64>, Error> {
    let sql = "DELETE FROM audit_exports WHERE workspace_id = $1 AND id = $2 RETURNING bytes";
    tx.optional(sql, &[workspace.into(), id.into()], |row| row.get(0))
}
