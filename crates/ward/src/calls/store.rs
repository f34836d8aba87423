//! The SQL of calls.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value as Document};
use ward_db::{Error, Json, Row, Timestamp, Tx, Value};

use super::{CallRecord, Decision, Direction, Status, TestRule};
use crate::guard::WorkspaceGuard;
use crate::ids::{CallId, WorkspaceId};
use crate::scan::{List, Stretch};

const COLUMNS: &str = "id, call_sid, direction, reported_direction, reported_by, caller, caller_form, list_version, status, \
                       completion_reason, duration_ms, started_at, ended_at, service_id, details, sync, sync_connector, \
                       first_reported_at, updated_at, started_told, test_rule";

/// The workspace as a CASE, beside an id or sid that finds the row: so no planner searches the workspace's
/// calls instead.
const OURS: &str = "CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1";

fn call(row: &Row<'_>) -> Result<CallRecord, Error> {
    let Json(details) = row.get(14)?;
    let details: Map<String, Document> = serde_json::from_str(&details).map_err(Error::unreadable)?;
    let sync: Option<String> = row.get(15)?;
    let sync = sync
        .map(|name| Decision::named(&name).ok_or_else(|| Error::unreadable("an unknown decision")))
        .transpose()?;
    let direction = Direction::column(row, 2)?;
    // Before rules were stored, every test was a test by its caller.
    let test_rule = match row.get::<Option<String>>(20)? {
        Some(name) => Some(TestRule::named(&name).ok_or_else(|| Error::unreadable("an unknown test rule"))?),
        None => (direction == Direction::Test).then_some(TestRule::Caller),
    };
    Ok(CallRecord {
        id: row.get(0)?,
        call_sid: row.get(1)?,
        direction,
        test_rule,
        reported_direction: Direction::column(row, 3)?,
        reported_by: row.get(4)?,
        caller: row.get(5)?,
        caller_form: row.get(6)?,
        list_version: row.get(7)?,
        status: Status::named(row.text(8)?).ok_or_else(|| Error::unreadable("an unknown status"))?,
        completion_reason: row.get(9)?,
        duration_ms: row.get(10)?,
        started_at: row.get(11)?,
        ended_at: row.get(12)?,
        service_id: row.get(13)?,
        details,
        sync,
        sync_connector: row.get(16)?,
        first_reported_at: row.get(17)?,
        updated_at: row.get(18)?,
        started_told: row.get::<Option<bool>>(19)?.unwrap_or_default(),
    })
}

pub fn by_sid(tx: &mut Tx<'_>, workspace: WorkspaceId, sid: &str) -> Result<Option<CallRecord>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM calls WHERE call_sid = $2 AND {OURS}");
    tx.optional(&sql, &[workspace.into(), sid.into()], call)
}

pub fn by_id(tx: &mut Tx<'_>, workspace: WorkspaceId, id: CallId) -> Result<Option<CallRecord>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM calls WHERE id = $2 AND {OURS}");
    tx.optional(&sql, &[workspace.into(), id.into()], call)
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
    tx.execute_later(
        "INSERT INTO calls (workspace_id, id, call_sid, direction, reported_direction, reported_by, caller, caller_form, \
                list_version, status, finished, completion_reason, duration_ms, started_at, ended_at, service_id, details, \
                sync, sync_connector, first_reported_at, updated_at, started_told, test_rule) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, \
                 $23)",
        &[
            workspace.into(),
            new.id.into(),
            new.call_sid.as_str().into(),
            new.direction.name().into(),
            new.reported_direction.name().into(),
            new.reported_by.as_str().into(),
            new.caller.as_deref().into(),
            new.caller_form.as_str().into(),
            new.list_version.into(),
            new.status.name().into(),
            new.status.is_final().into(),
            new.completion_reason.as_deref().into(),
            new.duration_ms.into(),
            new.started_at.into(),
            new.ended_at.into(),
            new.service_id.as_deref().into(),
            Value::Json(&details),
            new.sync.map(Decision::name).into(),
            new.sync_connector.as_deref().into(),
            new.first_reported_at.into(),
            new.updated_at.into(),
            new.started_told.into(),
            new.test_rule.map(TestRule::name).into(),
        ],
    )?;
    Ok(())
}

/// Stores the columns that a report may change. Caller, direction and rule are not among them, because they
/// never change.
pub fn update(tx: &mut WorkspaceGuard<'_, '_>, changed: &CallRecord) -> Result<(), Error> {
    let workspace = tx.row();
    let details = Document::from(changed.details.clone()).to_string();
    tx.execute_later(
        &format!(
            "UPDATE calls SET status = $3, finished = $4, completion_reason = $5, duration_ms = $6, started_at = $7, \
                    ended_at = $8, service_id = $9, details = $10, sync = $11, sync_connector = $12, updated_at = $13, \
                    started_told = $14 \
             WHERE id = $2 AND {OURS}"
        ),
        &[
            workspace.into(),
            changed.id.into(),
            changed.status.name().into(),
            changed.status.is_final().into(),
            changed.completion_reason.as_deref().into(),
            changed.duration_ms.into(),
            changed.started_at.into(),
            changed.ended_at.into(),
            changed.service_id.as_deref().into(),
            Value::Json(&details),
            changed.sync.map(Decision::name).into(),
            changed.sync_connector.as_deref().into(),
            changed.updated_at.into(),
            changed.started_told.into(),
        ],
    )?;
    Ok(())
}

/// Stores the called party of a call that had none, and what follows from it. No delivery refers to the call yet.
pub fn set_callee(tx: &mut WorkspaceGuard<'_, '_>, changed: &CallRecord) -> Result<(), Error> {
    let workspace = tx.row();
    let details = Document::from(changed.details.clone()).to_string();
    tx.execute(
        &format!(
            "UPDATE calls SET details = $3, direction = $4, test_rule = $5, list_version = $6, updated_at = $7 \
             WHERE id = $2 AND {OURS}"
        ),
        &[
            workspace.into(),
            changed.id.into(),
            Value::Json(&details),
            changed.direction.name().into(),
            changed.test_rule.map(TestRule::name).into(),
            changed.list_version.into(),
            changed.updated_at.into(),
        ],
    )?;
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
        |row| row.get(0),
    )?;
    for parent in gone {
        take_leg(tx, &parent)?;
    }
    tx.execute(
        "INSERT INTO call_legs (workspace_id, parent_sid, callee, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (workspace_id, parent_sid) DO NOTHING",
        &[workspace.into(), parent_sid.into(), callee.into(), now.into()],
    )?;
    Ok(())
}

/// Removes the number that was dialled on behalf of this call, and gives it.
pub fn take_leg(tx: &mut WorkspaceGuard<'_, '_>, parent_sid: &str) -> Result<Option<String>, Error> {
    let workspace = tx.row();
    tx.optional(
        "DELETE FROM call_legs WHERE workspace_id = $1 AND parent_sid = $2 RETURNING callee",
        &[workspace.into(), parent_sid.into()],
        |row| row.get(0),
    )
}

/// Conditions on calls; `None` sets no condition.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// The earliest start, included.
    pub from: Option<Timestamp>,
    /// The latest start, excluded.
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
    /// The service that answered.
    pub service: Option<String>,
}

/// A call's position in its workspace's list, newest first.
type Position = (Timestamp, CallId);

/// The calls of a workspace that match a filter.
#[derive(Clone, Debug)]
pub struct Calls {
    pub workspace: WorkspaceId,
    pub filter: CallFilter,
}

impl Calls {
    /// The conditions that the index answers: the ends of the stretch, and the period where the stretch has
    /// no end.
    fn bounds(&self, stretch: Stretch<Position>) -> (String, Vec<Value<'_>>) {
        let mut sql = String::from("workspace_id = $1");
        let mut values = vec![self.workspace.into()];
        if let Some((started_at, id)) = stretch.after {
            values.extend([Value::Time(started_at), id.into()]);
            sql.push_str(" AND (started_at, id) < ($2, $3)");
        } else if let Some(before) = self.filter.before {
            values.push(Value::Time(before));
            sql.push_str(" AND started_at < $2");
        }
        if let Some((started_at, id)) = stretch.last {
            values.extend([Value::Time(started_at), id.into()]);
            let _ = write!(sql, " AND (started_at, id) >= (${}, ${})", values.len() - 1, values.len());
        } else if let Some(from) = self.filter.from {
            values.push(Value::Time(from));
            let _ = write!(sql, " AND started_at >= ${}", values.len());
        }
        (sql, values)
    }

    fn conditions(&self, stretch: Stretch<Position>) -> (String, Vec<Value<'_>>) {
        let filter = &self.filter;
        let asked = [
            ("status =", filter.status.as_deref().map(Value::Text)),
            ("direction =", filter.direction.as_deref().map(Value::Text)),
            ("duration_ms >=", filter.shortest_ms.map(Value::Int)),
            ("duration_ms <=", filter.longest_ms.map(Value::Int)),
            ("service_id =", filter.service.as_deref().map(Value::Text)),
        ];
        let (mut sql, mut values) = self.bounds(stretch);
        for (condition, value) in asked {
            if let Some(value) = value {
                values.push(value);
                let _ = write!(sql, " AND {condition} ${}", values.len());
            }
        }
        if filter.direction.is_none() {
            sql.push_str(match (filter.simulated, filter.test) {
                (false, false) => " AND direction IN ('inbound', 'outbound')",
                (false, true) => " AND direction IN ('inbound', 'outbound', 'test')",
                (true, false) => " AND direction IN ('inbound', 'outbound', 'playground', 'simulated')",
                (true, true) => "",
            });
        }
        (sql, values)
    }
}

impl List for Calls {
    type Position = Position;
    type Row = CallRecord;

    fn end_of_step(
        &self,
        tx: &mut Tx<'_>,
        after: Option<Position>,
        rows: i64,
    ) -> Result<Option<Position>, Error> {
        let (bounds, mut values) = self.bounds(Stretch { after, last: None });
        values.push(Value::Int(rows - 1));
        let sql = format!(
            "SELECT started_at, id FROM calls WHERE {bounds} ORDER BY started_at DESC, id DESC LIMIT 1 OFFSET ${}",
            values.len()
        );
        tx.optional(&sql, &values, |row| Ok((row.get(0)?, row.get(1)?)))
    }

    fn count(&self, tx: &mut Tx<'_>, stretch: Stretch<Position>) -> Result<i64, Error> {
        let (conditions, values) = self.conditions(stretch);
        tx.one(&format!("SELECT count(*) FROM calls WHERE {conditions}"), &values, |row| row.get(0))
    }

    fn rows(
        &self,
        tx: &mut Tx<'_>,
        stretch: Stretch<Position>,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<CallRecord>, Error> {
        let (conditions, mut values) = self.conditions(stretch);
        values.extend([Value::Int(limit), Value::Int(offset)]);
        let sql = format!(
            "SELECT {COLUMNS} FROM calls WHERE {conditions} ORDER BY started_at DESC, id DESC LIMIT ${} OFFSET ${}",
            values.len() - 1,
            values.len()
        );
        tx.all(&sql, &values, call)
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
