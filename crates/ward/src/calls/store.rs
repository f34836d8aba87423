//! The SQL of calls.

use std::time::Duration;

use serde_json::Value as Document;
use ward_db::{
    Error, Json, Row, Timestamp, Tx, Value, columns, decode, insert, insert_later, sql, update, update_later,
};

use super::{CallRecord, Decision, Direction, TestRule};
use crate::guard::WorkspaceGuard;
use crate::ids::{CallId, WorkspaceId};
use crate::scan::{Conditions, Timeline};

const COLUMNS: &str = CallRecord::COLUMNS;

/// The workspace as a CASE, beside an id or sid that finds the row: so no planner searches the workspace's
/// calls instead.
const OURS: &str = "CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1";

columns! {
    CallRecord {
        id,
        call_sid,
        direction,
        reported_direction,
        reported_by,
        caller,
        caller_form,
        list_version,
        status,
        completion_reason,
        duration_ms,
        started_at,
        ended_at,
        service_id,
        details => |Json(text)| serde_json::from_str(&text).map_err(Error::unreadable),
        sync,
        sync_connector,
        first_reported_at,
        updated_at,
        started_told => |told: Option<bool>| Ok(told.unwrap_or_default()),
        test_rule,
    }
}

/// A stored call. Before rules were stored, every test was a test by its caller.
fn call(row: &Row<'_>) -> Result<CallRecord, Error> {
    let mut call: CallRecord = row.read()?;
    if call.direction == Direction::Test {
        call.test_rule.get_or_insert(TestRule::Caller);
    }
    Ok(call)
}

pub fn by_sid(tx: &mut Tx<'_>, workspace: WorkspaceId, sid: &str) -> Result<Option<CallRecord>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM calls WHERE call_sid = $2 AND {OURS}");
    tx.optional(&sql, &[workspace.into(), sid.into()], call)
}

/// Whether the call with this sid has finished; `None` if there is none.
pub fn is_finished(tx: &mut Tx<'_>, workspace: WorkspaceId, sid: &str) -> Result<Option<bool>, Error> {
    tx.optional(
        sql!("SELECT finished FROM calls WHERE call_sid = $2 AND ", OURS),
        &[workspace.into(), sid.into()],
        decode,
    )
}

pub fn by_id(tx: &mut Tx<'_>, workspace: WorkspaceId, id: CallId) -> Result<Option<CallRecord>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM calls WHERE id = $2 AND {OURS}");
    tx.optional(&sql, &[workspace.into(), id.into()], call)
}

/// The number of calls without an end whose last report is older than `before`, counted no further than `most`,
/// and the first report of the oldest one.
pub fn unfinished(tx: &mut Tx<'_>, before: Timestamp, most: i64) -> Result<(i64, Option<Timestamp>), Error> {
    let count = tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM calls WHERE unfinished_since < $1 AND updated_at < $1 AND finished = false \
         LIMIT $2) AS found",
        &[before.into(), most.into()],
        decode,
    )?;
    let oldest = tx.optional(
        "SELECT unfinished_since FROM calls WHERE unfinished_since < $1 AND updated_at < $1 AND finished = false \
         ORDER BY unfinished_since LIMIT 1",
        &[before.into()],
        decode,
    )?;
    Ok((count, oldest))
}

/// Up to `most` calls of all workspaces without an end whose last report is older than `before`. The order is that of
/// their first reports.
pub fn list_unfinished(
    tx: &mut Tx<'_>,
    before: Timestamp,
    most: i64,
) -> Result<Vec<(WorkspaceId, CallRecord)>, Error> {
    let sql = format!(
        "SELECT workspace_id, {COLUMNS} FROM calls \
         WHERE unfinished_since < $1 AND updated_at < $1 AND finished = false ORDER BY unfinished_since, id LIMIT $2"
    );
    tx.all(&sql, &[before.into(), most.into()], decode)
}

/// Whether the workspace has real calls.
pub fn any_real(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<bool, Error> {
    let found = tx.optional(
        "SELECT 1 FROM calls WHERE workspace_id = $1 AND direction IN ('inbound', 'outbound') LIMIT 1",
        &[workspace.into()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

pub fn insert(tx: &mut WorkspaceGuard<'_, '_>, new: &CallRecord) -> Result<(), Error> {
    let workspace = tx.row();
    let details = Document::from(new.details.clone()).to_string();
    insert_later!(tx, "calls" {
        workspace_id: workspace,
        id: new.id,
        call_sid: &new.call_sid,
        direction: new.direction,
        reported_direction: new.reported_direction,
        reported_by: &new.reported_by,
        caller: new.caller.as_deref(),
        caller_form: &new.caller_form,
        list_version: new.list_version,
        status: new.status,
        finished: new.status.is_final(),
        unfinished_since: (!new.status.is_final()).then_some(new.first_reported_at),
        completion_reason: new.completion_reason.as_deref(),
        duration_ms: new.duration_ms,
        started_at: new.started_at,
        ended_at: new.ended_at,
        service_id: new.service_id.as_deref(),
        details: Value::Json(&details),
        sync: new.sync,
        sync_connector: new.sync_connector.as_deref(),
        first_reported_at: new.first_reported_at,
        updated_at: new.updated_at,
        started_told: new.started_told,
        test_rule: new.test_rule,
    })?;
    Ok(())
}

/// Stores the columns that a report may change. Caller, direction and rule are not among them, because they
/// never change.
pub fn update(tx: &mut WorkspaceGuard<'_, '_>, changed: &CallRecord) -> Result<(), Error> {
    let workspace = tx.row();
    let details = Document::from(changed.details.clone()).to_string();
    update_later!(tx, "calls" {
        status: changed.status,
        finished: changed.status.is_final(),
        unfinished_since: (!changed.status.is_final()).then_some(changed.first_reported_at),
        completion_reason: changed.completion_reason.as_deref(),
        duration_ms: changed.duration_ms,
        started_at: changed.started_at,
        ended_at: changed.ended_at,
        service_id: changed.service_id.as_deref(),
        details: Value::Json(&details),
        sync: changed.sync,
        sync_connector: changed.sync_connector.as_deref(),
        updated_at: changed.updated_at,
        started_told: changed.started_told,
    } sql!("id = $2 AND ", OURS), [workspace, changed.id])?;
    Ok(())
}

/// Stores the called party of a call that had none, and what follows from it. No delivery refers to the call yet.
pub fn set_callee(tx: &mut WorkspaceGuard<'_, '_>, changed: &CallRecord) -> Result<(), Error> {
    let workspace = tx.row();
    let details = Document::from(changed.details.clone()).to_string();
    update!(tx, "calls" {
        details: Value::Json(&details),
        direction: changed.direction,
        test_rule: changed.test_rule,
        list_version: changed.list_version,
        updated_at: changed.updated_at,
    } sql!("id = $2 AND ", OURS), [workspace, changed.id])?;
    Ok(())
}

/// How long a leg waits for its call.
const LEG_KEPT: Duration = Duration::from_hours(24);
/// Old legs that one new leg removes.
const LEGS_REMOVED: i64 = 8;

/// Keeps the first number that was dialled on behalf of an unknown call, and removes some that waited for too long.
pub fn put_leg(
    tx: &mut WorkspaceGuard<'_, '_>,
    parent_sid: &str,
    callee: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    let kept = i64::try_from(LEG_KEPT.as_micros()).unwrap_or(i64::MAX);
    let old = Timestamp::from_micros(now.micros().saturating_sub(kept));
    let gone: Vec<String> = tx.all(
        "SELECT parent_sid FROM call_legs WHERE workspace_id = $1 AND created_at < $2 ORDER BY created_at, parent_sid LIMIT $3",
        &[workspace.into(), old.into(), LEGS_REMOVED.into()],
        decode,
    )?;
    for parent in gone {
        take_leg(tx, &parent)?;
    }
    insert!(tx, "call_legs" {
        workspace_id: workspace,
        parent_sid: parent_sid,
        callee: callee,
        created_at: now,
    } "ON CONFLICT (workspace_id, parent_sid) DO NOTHING")?;
    Ok(())
}

/// Removes the number that was dialled on behalf of this call, and gives it.
pub fn take_leg(tx: &mut WorkspaceGuard<'_, '_>, parent_sid: &str) -> Result<Option<String>, Error> {
    let workspace = tx.row();
    tx.optional(
        "DELETE FROM call_legs WHERE workspace_id = $1 AND parent_sid = $2 RETURNING callee",
        &[workspace.into(), parent_sid.into()],
        decode,
    )
}

/// Conditions on calls; `None` sets no condition.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// Only calls that started at this time or later.
    pub from: Option<Timestamp>,
    /// Only calls that started before this time.
    pub before: Option<Timestamp>,
    pub status: Option<String>,
    /// The direction; `None` for the directions that the next two flags select.
    pub direction: Option<String>,
    /// Whether to include calls of the playground and of simulations.
    pub simulated: bool,
    /// Whether to include calls that are tests.
    pub test: bool,
    /// The shortest duration in milliseconds, included.
    pub shortest_ms: Option<i64>,
    /// The longest duration in milliseconds, included.
    pub longest_ms: Option<i64>,
    pub service: Option<String>,
}

/// The calls of a workspace that match a filter.
#[derive(Clone, Debug)]
pub struct Calls {
    pub workspace: WorkspaceId,
    pub filter: CallFilter,
}

impl Timeline for Calls {
    type Id = CallId;
    type Row = CallRecord;

    const TABLE: &'static str = "calls";
    const TIME: &'static str = "started_at";
    const COLUMNS: &'static str = COLUMNS;
    const UNTIL: &'static str = "<";

    fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    fn period(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        (self.filter.from, self.filter.before)
    }

    fn filter<'s>(&'s self, conditions: &mut Conditions<'s>) {
        let filter = &self.filter;
        conditions.and("status =", filter.status.as_deref());
        conditions.and("direction =", filter.direction.as_deref());
        conditions.and("duration_ms >=", filter.shortest_ms);
        conditions.and("duration_ms <=", filter.longest_ms);
        conditions.and("service_id =", filter.service.as_deref());
        let directions = match (filter.simulated, filter.test) {
            _ if filter.direction.is_some() => return,
            (false, false) => "direction IN ('inbound', 'outbound')",
            (false, true) => "direction IN ('inbound', 'outbound', 'test')",
            (true, false) => "direction IN ('inbound', 'outbound', 'playground', 'simulated')",
            (true, true) => return,
        };
        conditions.and_sql(directions);
    }

    fn read(row: &Row<'_>) -> Result<CallRecord, Error> {
        call(row)
    }
}

/// Test calls, or all other calls, that began in a period, ordered by their start, after this position.
pub fn between(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    tests: bool,
    (from, before): (Timestamp, Timestamp),
    (after, after_id): (Timestamp, CallId),
    limit: i64,
) -> Result<Vec<CallRecord>, Error> {
    let which = if tests { "direction = 'test'" } else { "direction <> 'test'" };
    let sql = format!(
        "SELECT {COLUMNS} FROM calls WHERE workspace_id = $1 AND {which} AND started_at >= $2 \
                AND started_at < $3 AND (started_at > $4 OR (started_at = $4 AND id > $5)) \
         ORDER BY started_at, id LIMIT $6"
    );
    let values =
        [workspace.into(), from.into(), before.into(), after.into(), after_id.into(), Value::Int(limit)];
    tx.all(&sql, &values, call)
}

/// The decisions about calls that started in a period, both times included, in the order of their starts. `after` is the
/// last call before them; it started at the beginning of the period.
pub fn decisions(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    (from, to): (Timestamp, Timestamp),
    after: CallId,
    most: usize,
) -> Result<Vec<(CallId, Option<Decision>)>, Error> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    tx.all(
        "SELECT id, sync FROM calls WHERE workspace_id = $1 AND started_at >= $2 AND started_at <= $3 \
           AND (started_at > $2 OR id > $4) ORDER BY started_at, id LIMIT $5",
        &[workspace.into(), from.into(), to.into(), after.into(), Value::Int(most)],
        decode,
    )
}

/// Stores a correction: its number is the next of the call. `values` has the former and the new values, sealed.
pub fn insert_correction(
    tx: &mut WorkspaceGuard<'_, '_>,
    id: CallId,
    number: i64,
    values: &[u8],
    at: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    insert_later!(tx, "call_corrections" {
        workspace_id: workspace,
        call_id: id,
        number: number,
        corrected_at: at,
        sealed: Value::Bytes(values),
    })
}

/// The corrections of a call: number, time and sealed values.
pub fn corrections(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: CallId,
    most: i64,
) -> Result<Vec<(i64, Timestamp, Vec<u8>)>, Error> {
    tx.all(
        &format!(
            "SELECT number, corrected_at, sealed FROM call_corrections WHERE call_id = $2 AND {OURS} \
             ORDER BY number DESC LIMIT $3"
        ),
        &[workspace.into(), id.into(), most.into()],
        decode,
    )
}

/// The key of a correction: workspace, call and number.
pub type CorrectionAt = (WorkspaceId, CallId, i64);

/// The sealed values of up to `most` corrections of all workspaces, after this one.
pub fn sealed_corrections(
    tx: &mut Tx<'_>,
    (workspace, call, number): CorrectionAt,
    most: u32,
) -> Result<Vec<(CorrectionAt, Vec<u8>)>, Error> {
    tx.all(
        "SELECT workspace_id, call_id, number, sealed FROM call_corrections \
         WHERE (call_id, number, workspace_id) > ($1, $2, $3) \
         ORDER BY call_id, number, workspace_id LIMIT $4",
        &[call.into(), number.into(), workspace.into(), most.into()],
        decode,
    )
}

/// The number of corrections whose values do not begin with this mark of a key.
pub fn count_corrections_under_other_keys(tx: &mut Tx<'_>, mark: &[u8]) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM call_corrections WHERE substr(sealed, 2, 4) <> $1",
        &[Value::Bytes(mark)],
        decode,
    )
}

/// Replaces the sealed values of a correction by the same under the current key.
pub fn replace_correction(
    tx: &mut Tx<'_>,
    (workspace, call, number): CorrectionAt,
    anew: &[u8],
) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE call_corrections SET sealed = $4 WHERE workspace_id = $1 AND call_id = $2 AND number = $3",
        &[workspace.into(), call.into(), number.into(), Value::Bytes(anew)],
    )
}
