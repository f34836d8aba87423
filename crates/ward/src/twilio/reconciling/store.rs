//! The SQL of comparisons with Twilio's list.

use uuid::Uuid;
use ward_db::{Error, Json, Timestamp, Tx, Value, columns, decode, insert, select, update};

use super::{Comparison, Reconciliation};
use crate::guard::WorkspaceGuard;
use crate::ids::WorkspaceId;

columns! {
    Reconciliation {
        workspace: "workspace_id",
        due_at,
        lease,
        attempts,
        account_sid,
        reconciled_until,
        run => read,
        last => read,
        failing_since,
        failure,
    }
}

fn read(stored: Option<Json>) -> Result<Option<Comparison>, Error> {
    stored.map(|Json(text)| serde_json::from_str(&text).map_err(Error::unreadable)).transpose()
}

fn text(comparison: &Comparison) -> Result<String, Error> {
    serde_json::to_string(comparison).map_err(Error::unreadable)
}

pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Option<Reconciliation>, Error> {
    tx.optional(
        select!(Reconciliation, "FROM twilio_reconciliations WHERE workspace_id = $1"),
        &[workspace.into()],
        decode,
    )
}

/// Up to `most` workspaces that have an account and no row yet. It reads every account, so it is for long reads only.
pub fn unscheduled(tx: &mut Tx<'_>, most: i64) -> Result<Vec<WorkspaceId>, Error> {
    tx.all(
        "SELECT a.workspace_id FROM twilio_accounts a \
         LEFT JOIN twilio_reconciliations r ON r.workspace_id = a.workspace_id \
         WHERE r.workspace_id IS NULL LIMIT $1",
        &[most.into()],
        decode,
    )
}

/// Up to `most` workspaces after this one that have an account.
pub fn with_account(tx: &mut Tx<'_>, after: WorkspaceId, most: i64) -> Result<Vec<WorkspaceId>, Error> {
    tx.all(
        "SELECT workspace_id FROM twilio_accounts WHERE workspace_id > $1 ORDER BY workspace_id LIMIT $2",
        &[after.into(), most.into()],
        decode,
    )
}

/// Makes a row for a workspace, unless it has one.
pub fn schedule(tx: &mut Tx<'_>, workspace: WorkspaceId, due_at: Timestamp) -> Result<(), Error> {
    insert!(tx, "twilio_reconciliations" {
        workspace_id: workspace,
        due_at: due_at,
        attempts: 0,
    } "ON CONFLICT (workspace_id) DO NOTHING")?;
    Ok(())
}

/// Makes a workspace due now. A worker that has the lease keeps it and goes on.
pub fn make_due(tx: &mut WorkspaceGuard<'_, '_>, now: Timestamp) -> Result<(), Error> {
    let workspace = tx.row();
    schedule(tx, workspace, now)?;
    tx.execute(
        "UPDATE twilio_reconciliations SET due_at = CASE WHEN lease IS NULL THEN $2 ELSE due_at END, \
                attempts = CASE WHEN lease IS NULL THEN 0 ELSE attempts END \
         WHERE workspace_id = $1",
        &[workspace.into(), now.into()],
    )?;
    Ok(())
}

/// The due workspaces, the longest waiting first, with the times at which they became due.
pub fn due(tx: &mut Tx<'_>, now: Timestamp, most: i64) -> Result<Vec<(WorkspaceId, Timestamp)>, Error> {
    tx.all(
        "SELECT workspace_id, due_at FROM twilio_reconciliations WHERE due_at <= $1 ORDER BY due_at LIMIT $2",
        &[now.into(), most.into()],
        decode,
    )
}

/// Leases a due row until `until`, when it becomes due again. `None` if another worker was first.
pub fn lease(
    tx: &mut Tx<'_>,
    (workspace, due_at): (WorkspaceId, Timestamp),
    lease: Uuid,
    until: Timestamp,
) -> Result<Option<Reconciliation>, Error> {
    let changed = tx.execute(
        "UPDATE twilio_reconciliations SET lease = $3, due_at = $4 WHERE workspace_id = $1 AND due_at = $2",
        &[workspace.into(), due_at.into(), lease.into(), until.into()],
    )?;
    if changed == 1 { get(tx, workspace) } else { Ok(None) }
}

/// Stores the progress and moves the end of the lease. False if another worker has the lease now.
pub fn keep(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    lease: Uuid,
    (run, account_sid): (&Comparison, &str),
    until: Timestamp,
) -> Result<bool, Error> {
    let run = text(run)?;
    let changed = update!(tx, "twilio_reconciliations" {
        due_at: until,
        attempts: 0,
        account_sid: account_sid,
        run: Value::Json(&run),
    } "workspace_id = $1 AND lease = $2", [workspace, lease])?;
    Ok(changed == 1)
}

/// Ends a lease before the comparison is complete.
pub fn leave(tx: &mut Tx<'_>, workspace: WorkspaceId, lease: Uuid, due_at: Timestamp) -> Result<(), Error> {
    tx.execute(
        "UPDATE twilio_reconciliations SET lease = NULL, due_at = $3 WHERE workspace_id = $1 AND lease = $2",
        &[workspace.into(), lease.into(), due_at.into()],
    )?;
    Ok(())
}

pub struct FailedAttempt<'a> {
    /// The reason as one word, which answers show.
    pub why: &'a str,
    /// Failures in a row, this one included.
    pub attempts: i64,
    /// Whether the progress is given up.
    pub anew: bool,
    pub due_at: Timestamp,
    pub now: Timestamp,
}

/// Ends a lease after a failure.
pub fn fail(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    lease: Uuid,
    failed: &FailedAttempt<'_>,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE twilio_reconciliations SET lease = NULL, due_at = $3, attempts = $4, failure = $5, \
                failing_since = COALESCE(failing_since, $6), run = CASE WHEN $7 THEN NULL ELSE run END \
         WHERE workspace_id = $1 AND lease = $2",
        &[
            workspace.into(),
            lease.into(),
            failed.due_at.into(),
            failed.attempts.into(),
            failed.why.into(),
            failed.now.into(),
            failed.anew.into(),
        ],
    )?;
    Ok(())
}

/// Stores a complete comparison and ends the lease. False if another worker has the lease now.
pub fn complete(
    tx: &mut WorkspaceGuard<'_, '_>,
    lease: Uuid,
    (done, account_sid): (&Comparison, &str),
    (reconciled_until, due_at): (Timestamp, Timestamp),
) -> Result<bool, Error> {
    let workspace = tx.row();
    let left = i64::try_from(done.left()).unwrap_or(i64::MAX);
    let text = text(done)?;
    let changed = update!(tx, "twilio_reconciliations" {
        due_at: due_at,
        lease: Value::Null,
        attempts: 0,
        account_sid: account_sid,
        reconciled_until: reconciled_until,
        run: Value::Null,
        last: Value::Json(&text),
        calls_missing: (left > 0).then_some(left),
        failing_since: Value::Null,
        failure: Value::Null,
    } "workspace_id = $1 AND lease = $2", [workspace, lease])?;
    Ok(changed == 1)
}

/// Whether a worker still has the lease.
pub fn is_leased(tx: &mut Tx<'_>, workspace: WorkspaceId, lease: Uuid) -> Result<bool, Error> {
    let found = tx.optional(
        "SELECT 1 FROM twilio_reconciliations WHERE workspace_id = $1 AND lease = $2",
        &[workspace.into(), lease.into()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// Removes the row of a workspace without an account.
pub fn forget(tx: &mut Tx<'_>, workspace: WorkspaceId, lease: Uuid) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM twilio_reconciliations WHERE workspace_id = $1 AND lease = $2",
        &[workspace.into(), lease.into()],
    )?;
    Ok(())
}

/// The calls that the last comparisons found and that are still missing, over all workspaces. `most` bounds the rows that are
/// read.
pub fn missing(tx: &mut Tx<'_>, most: i64) -> Result<i64, Error> {
    let each: Vec<i64> = tx.all(
        "SELECT calls_missing FROM twilio_reconciliations WHERE calls_missing IS NOT NULL LIMIT $1",
        &[most.into()],
        decode,
    )?;
    Ok(each.into_iter().fold(0, i64::saturating_add))
}

/// The number of workspaces whose comparison fails, and the time since which the first of them does.
pub fn failing(tx: &mut Tx<'_>, most: i64) -> Result<(i64, Option<Timestamp>), Error> {
    tx.one(
        "SELECT count(*), min(failing_since) FROM \
         (SELECT failing_since FROM twilio_reconciliations WHERE failing_since IS NOT NULL LIMIT $1) AS found",
        &[most.into()],
        decode,
    )
}
