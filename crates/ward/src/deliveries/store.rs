//! The SQL of reading and steering deliveries.

use std::fmt::Write as _;

use serde_json::value::RawValue;
use ward_db::{Error, Json, Row, Timestamp, Tx, Value};

use super::DeliveryState;
use super::outbox::{LaneKey, NEVER, open_lane, queue};
use super::wire::{DeliveryAttempt, DeliveryResponse, IntegrationSyncStatus};
use crate::guard::WorkspaceGuard;
use crate::ids::{CallId, DeliveryId, IntegrationId, WorkspaceId};
use crate::page::Page;
use crate::scan::{List, Stretch};

/// Counts of settled deliveries are exact up to this number; beyond it, they are this number.
pub const MOST_COUNTED: i64 = 10_000;

const COLUMNS: &str = "d.id, d.integration_id, d.call_id, d.direction, d.state, d.reason, d.attempts, d.maybe_sent, d.location, \
                       d.outcome, d.created_at, d.settled_at, d.position, q.due_at, c.call_sid";
/// The workspace as a CASE, here and in joins, beside an id that finds the row. So no planner searches all
/// of the workspace's deliveries or calls instead.
const OURS: &str = "CASE WHEN d.workspace_id = $1 THEN 1 ELSE 0 END = 1";
const JOINED: &str = "deliveries d \
     JOIN calls c ON c.id = d.call_id AND CASE WHEN c.workspace_id = d.workspace_id THEN 1 ELSE 0 END = 1 \
     LEFT JOIN delivery_queue q ON q.delivery_id = d.id AND CASE WHEN q.workspace_id = d.workspace_id THEN 1 ELSE 0 END = 1";

fn raw(text: Option<Json>) -> Result<Option<Box<RawValue>>, Error> {
    text.map(|Json(text)| RawValue::from_string(text).map_err(Error::unreadable)).transpose()
}

fn shown(row: &Row<'_>) -> Result<DeliveryResponse, Error> {
    Ok(DeliveryResponse {
        id: row.get(0)?,
        integration_id: row.get(1)?,
        call_id: row.get(2)?,
        direction: row.get(3)?,
        state: DeliveryState::column(row, 4)?.name(),
        reason: row.get(5)?,
        attempt_count: row.get(6)?,
        maybe_sent: row.get(7)?,
        location: row.get(8)?,
        outcome: raw(row.get(9)?)?,
        created_at: row.get(10)?,
        settled_at: row.get(11)?,
        position: row.get(12)?,
        next_attempt_at: row.get(13)?,
        call_sid: row.get(14)?,
    })
}

/// Conditions on deliveries; `None` sets no condition.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    pub state: Option<String>,
    pub integration: Option<IntegrationId>,
    pub call: Option<CallId>,
}

impl DeliveryFilter {
    fn conditions(&self, workspace: WorkspaceId) -> (String, Vec<Value<'_>>) {
        let asked = [
            ("d.state =", self.state.as_deref().map(Value::Text)),
            ("d.integration_id =", self.integration.map(Value::from)),
            ("d.call_id =", self.call.map(Value::from)),
        ];
        let mut sql = String::from(if self.call.is_some() { OURS } else { "d.workspace_id = $1" });
        let mut values = vec![workspace.into()];
        for (condition, value) in asked {
            if let Some(value) = value {
                values.push(value);
                let _ = write!(sql, " AND {condition} ${}", values.len());
            }
        }
        (sql, values)
    }
}

impl DeliveryFilter {
    /// Whether an index finds exactly the matching rows.
    pub const fn is_looked_up(&self) -> bool {
        self.call.is_some() || (self.integration.is_some() && self.state.is_some())
    }
}

/// The deliveries of a workspace that match a filter, in the order of queueing.
#[derive(Clone, Debug)]
pub struct Deliveries {
    pub workspace: WorkspaceId,
    pub filter: DeliveryFilter,
}

impl Deliveries {
    fn conditions(&self, stretch: Stretch<i64>) -> (String, Vec<Value<'_>>) {
        let mut sql = String::from("d.workspace_id = $1 AND d.position > $2");
        let mut values = vec![self.workspace.into(), Value::Int(stretch.after.unwrap_or_default())];
        if let Some(last) = stretch.last {
            values.push(Value::Int(last));
            sql.push_str(" AND d.position <= $3");
        }
        if let Some(state) = &self.filter.state {
            values.push(Value::Text(state));
            let _ = write!(sql, " AND d.state = ${}", values.len());
        }
        if let Some(integration) = self.filter.integration {
            values.push(integration.into());
            // With a CASE, no planner searches all of the integration's deliveries instead of the stretch.
            let _ = write!(sql, " AND CASE WHEN d.integration_id = ${} THEN 1 ELSE 0 END = 1", values.len());
        }
        (sql, values)
    }
}

impl List for Deliveries {
    type Position = i64;
    type Row = DeliveryResponse;

    fn end_of_step(&self, tx: &mut Tx<'_>, after: Option<i64>, rows: i64) -> Result<Option<i64>, Error> {
        tx.optional(
            "SELECT position FROM deliveries WHERE workspace_id = $1 AND position > $2 \
             ORDER BY position LIMIT 1 OFFSET $3",
            &[self.workspace.into(), after.unwrap_or_default().into(), (rows - 1).into()],
            |row| row.get(0),
        )
    }

    fn count(&self, tx: &mut Tx<'_>, stretch: Stretch<i64>) -> Result<i64, Error> {
        let (conditions, values) = self.conditions(stretch);
        tx.one(&format!("SELECT count(*) FROM deliveries d WHERE {conditions}"), &values, |row| row.get(0))
    }

    fn rows(
        &self,
        tx: &mut Tx<'_>,
        stretch: Stretch<i64>,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<DeliveryResponse>, Error> {
        let (conditions, mut values) = self.conditions(stretch);
        values.extend([Value::Int(limit), Value::Int(offset)]);
        let sql = format!(
            "SELECT {COLUMNS} FROM {JOINED} WHERE {conditions} ORDER BY d.position LIMIT ${} OFFSET ${}",
            values.len() - 1,
            values.len()
        );
        tx.all(&sql, &values, shown)
    }
}

/// A page of deliveries, in the order of queueing.
pub fn list(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    filter: &DeliveryFilter,
    page: Page,
) -> Result<Vec<DeliveryResponse>, Error> {
    let (conditions, mut values) = filter.conditions(workspace);
    values.extend([Value::Int(page.after), Value::Int(page.fetch())]);
    let sql = format!(
        "SELECT {COLUMNS} FROM {JOINED} WHERE {conditions} AND d.position > ${} ORDER BY d.position LIMIT ${}",
        values.len() - 1,
        values.len()
    );
    tx.all(&sql, &values, shown)
}

/// The number of matching deliveries, counted no further than `most`.
pub fn count(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    filter: &DeliveryFilter,
    most: i64,
) -> Result<i64, Error> {
    let (conditions, mut values) = filter.conditions(workspace);
    values.push(Value::Int(most));
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM deliveries d WHERE {conditions} LIMIT ${}) AS found",
        values.len()
    );
    tx.one(&sql, &values, |row| row.get(0))
}

/// The delivery with this id, if it belongs to the workspace.
pub fn get(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: DeliveryId,
) -> Result<Option<DeliveryResponse>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM {JOINED} WHERE d.id = $2 AND {OURS}");
    tx.optional(&sql, &[workspace.into(), id.into()], shown)
}

/// The attempts of a delivery, first to last.
pub fn attempts(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: DeliveryId,
    most: i64,
) -> Result<Vec<DeliveryAttempt>, Error> {
    tx.all(
        "SELECT number, outcome, status, started_at, ended_at, detail FROM delivery_attempts \
         WHERE workspace_id = $1 AND delivery_id = $2 ORDER BY number LIMIT $3",
        &[workspace.into(), id.into(), most.into()],
        |row| {
            Ok(DeliveryAttempt {
                number: row.get(0)?,
                outcome: row.get(1)?,
                status: row.get(2)?,
                started_at: row.get(3)?,
                ended_at: row.get(4)?,
                detail: raw(row.get(5)?)?,
            })
        },
    )
}

/// Up to `most` failed deliveries of one integration.
pub fn failed(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
    most: i64,
) -> Result<Vec<(DeliveryId, IntegrationId, Timestamp)>, Error> {
    tx.all(
        // The direction is checked again: a call that was not real is never put back.
        "SELECT d.id, d.integration_id, d.created_at FROM deliveries d \
         JOIN calls c ON c.id = d.call_id AND CASE WHEN c.workspace_id = d.workspace_id THEN 1 ELSE 0 END = 1 \
         WHERE d.workspace_id = $1 AND d.integration_id = $2 AND d.state = 'failed' \
         AND c.direction IN ('inbound', 'outbound') ORDER BY d.position LIMIT $3",
        &[workspace.into(), integration.into(), most.into()],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
}

/// The integrations that ever had a delivery. They are connectors' own ones, so there are few.
pub fn owed_integrations(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Vec<IntegrationId>, Error> {
    tx.all(
        "SELECT integration_id FROM sync_lanes WHERE workspace_id = $1 ORDER BY integration_id LIMIT 100",
        &[workspace.into()],
        |row| row.get(0),
    )
}

/// Every integration that ever had a delivery, with the counts of its queue.
pub fn lanes(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Vec<IntegrationSyncStatus>, Error> {
    let lanes: Vec<IntegrationSyncStatus> = tx.all(
        "SELECT l.integration_id, i.name, l.held, l.held_because, l.held_at, l.waits_because, l.due_at, l.failures, \
                l.last_success_at \
         FROM sync_lanes l LEFT JOIN integrations i ON i.workspace_id = l.workspace_id AND i.id = l.integration_id \
         WHERE l.workspace_id = $1 ORDER BY l.integration_id",
        &[workspace.into()],
        |row| {
            let due_at: Timestamp = row.get(6)?;
            Ok(IntegrationSyncStatus {
                integration_id: row.get(0)?,
                name: row.get(1)?,
                held: row.get(2)?,
                held_because: row.get(3)?,
                held_at: row.get(4)?,
                waits_because: row.get(5)?,
                next_attempt_at: (due_at < Timestamp::MAX).then_some(due_at),
                failures_in_a_row: row.get(7)?,
                last_success_at: row.get(8)?,
                pending: 0,
                oldest_pending_at: None,
                held_deliveries: 0,
                failed: 0,
                synced: 0,
            })
        },
    )?;
    let mut figures = Vec::with_capacity(lanes.len());
    for mut lane in lanes {
        let mut counted = |state: DeliveryState| {
            let state = Some(state.name().to_owned());
            let filter = DeliveryFilter { state, integration: Some(lane.integration_id), call: None };
            count(tx, workspace, &filter, MOST_COUNTED)
        };
        lane.held_deliveries = counted(DeliveryState::Held)?;
        lane.failed = counted(DeliveryState::Failed)?;
        lane.synced = counted(DeliveryState::Synced)?;
        lane.pending = tx.one(
            "SELECT count(*) FROM (SELECT 1 FROM delivery_queue \
             WHERE workspace_id = $1 AND integration_id = $2 LIMIT $3) AS found",
            &[workspace.into(), lane.integration_id.into(), MOST_COUNTED.into()],
            |row| row.get(0),
        )?;
        // Ids grow with time, so the first one is the oldest and found without a scan.
        lane.oldest_pending_at = tx.optional(
            "SELECT created_at FROM delivery_queue WHERE workspace_id = $1 AND integration_id = $2 \
             ORDER BY delivery_id LIMIT 1",
            &[workspace.into(), lane.integration_id.into()],
            |row| row.get(0),
        )?;
        figures.push(lane);
    }
    Ok(figures)
}

/// The number of deliveries of calls that were not real. The database allows none.
pub fn owed_by_unreal(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM deliveries d \
         JOIN calls c ON c.id = d.call_id AND CASE WHEN c.workspace_id = d.workspace_id THEN 1 ELSE 0 END = 1 \
         WHERE d.workspace_id = $1 AND c.direction NOT IN ('inbound', 'outbound')",
        &[workspace.into()],
        |row| row.get(0),
    )
}

/// The numbers of deliveries and of attempts for a call, for the proof that both are 0.
pub fn sent_for(tx: &mut Tx<'_>, workspace: WorkspaceId, call: CallId) -> Result<(i64, i64), Error> {
    tx.one(
        "SELECT count(DISTINCT d.id), count(a.number) FROM deliveries d \
         LEFT JOIN delivery_attempts a ON a.workspace_id = d.workspace_id AND a.delivery_id = d.id \
         WHERE d.call_id = $2 AND CASE WHEN d.workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), call.into()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// Deletes the queue of a deleted integration.
pub fn delete_lane(tx: &mut WorkspaceGuard<'_, '_>, integration: IntegrationId) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute_later(
        "DELETE FROM sync_lanes WHERE workspace_id = $1 AND integration_id = $2",
        &[workspace.into(), integration.into()],
    )
}

/// Pauses a queue until it is released.
pub fn hold(tx: &mut Tx<'_>, key: LaneKey, because: &str, now: Timestamp) -> Result<(), Error> {
    tx.execute(
        "UPDATE sync_lanes SET held = true, held_because = $3, held_at = $4 \
         WHERE workspace_id = $1 AND integration_id = $2",
        &[key.0.into(), key.1.into(), because.into(), now.into()],
    )?;
    Ok(())
}

/// Resumes a queue, which is due at once. Its failures are forgotten, and the time of the pause does not
/// count as tried.
pub fn release(tx: &mut Tx<'_>, key: LaneKey, now: Timestamp) -> Result<(), Error> {
    tx.execute(
        "UPDATE sync_lanes SET held = false, held_because = NULL, held_at = NULL, waits_because = NULL, failures = 0, \
                due_at = $3, not_before = $4, resumed_at = $3 WHERE workspace_id = $1 AND integration_id = $2",
        &[key.0.into(), key.1.into(), now.into(), NEVER.into()],
    )?;
    Ok(())
}

/// Makes the queue of one integration, or of all in a workspace, due at once, because the cause of its wait
/// may be gone. Pauses that Ward caused end; pauses by a person stay.
pub fn reopen(
    tx: &mut WorkspaceGuard<'_, '_>,
    integration: Option<IntegrationId>,
    now: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    let mut values: Vec<Value<'_>> = vec![workspace.into(), now.into(), NEVER.into()];
    let mut which = "";
    if let Some(integration) = integration {
        values.push(integration.into());
        which = " AND integration_id = $4";
    }
    let sql = format!(
        "UPDATE sync_lanes SET due_at = $2, not_before = $3, failures = 0, \
                resumed_at = CASE WHEN held_because IN ('unauthorized', 'misconfigured') THEN $2 ELSE resumed_at END, \
                held = COALESCE(held_because NOT IN ('unauthorized', 'misconfigured'), held), \
                held_at = CASE WHEN held_because IN ('unauthorized', 'misconfigured') THEN NULL ELSE held_at END, \
                held_because = CASE WHEN held_because IN ('unauthorized', 'misconfigured') THEN NULL \
                                    ELSE held_because END \
         WHERE workspace_id = $1{which}"
    );
    tx.execute(&sql, &values)?;
    Ok(())
}

/// Queues a call's delivery again, if it was held for this reason.
pub fn release_unmatched(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    call: CallId,
    reason: &str,
    now: Timestamp,
) -> Result<(), Error> {
    // This update waits for a worker that is about to hold the delivery. Otherwise it could be held just
    // after this query.
    tx.execute(
        "UPDATE deliveries SET call_id = call_id WHERE call_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), call.into()],
    )?;
    let held: Vec<(DeliveryId, IntegrationId, Timestamp)> = tx.all(
        "UPDATE deliveries SET state = 'pending', reason = NULL, settled_at = NULL, tried_since = NULL \
         WHERE call_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND state = 'held' AND reason = $3 \
         RETURNING id, integration_id, created_at",
        &[workspace.into(), call.into(), reason.into()],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    for (delivery, integration, created_at) in held {
        queue(tx, workspace, integration, delivery, now, created_at)?;
    }
    Ok(())
}

/// Queues a delivery again, due now, with a whole day of attempts. Its id and its mark as possibly sent
/// stay. The pause of a failing integration is lifted, because the requester does not want to wait for its
/// end.
pub fn requeue(
    tx: &mut WorkspaceGuard<'_, '_>,
    integration: IntegrationId,
    delivery: DeliveryId,
    created_at: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute_later(
        "UPDATE deliveries SET state = 'pending', reason = NULL, settled_at = NULL, tried_since = NULL \
         WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), delivery.into()],
    )?;
    tx.execute_later(
        "UPDATE sync_lanes SET not_before = $3 WHERE workspace_id = $1 AND integration_id = $2",
        &[workspace.into(), integration.into(), NEVER.into()],
    )?;
    queue(tx, workspace, integration, delivery, now, created_at)?;
    tx.execute_later(
        "UPDATE delivery_queue SET due_at = $4 WHERE delivery_id = $3 AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), integration.into(), delivery.into(), now.into()],
    )?;
    Ok(())
}

/// Makes a call's delivery due now, if it was never tried and only waits for further reports of the call.
pub fn make_due(tx: &mut Tx<'_>, workspace: WorkspaceId, call: CallId, now: Timestamp) -> Result<(), Error> {
    let waiting: Vec<(DeliveryId, IntegrationId)> = tx.all(
        "SELECT id, integration_id FROM deliveries \
         WHERE call_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND state = 'pending' AND attempts = 0",
        &[workspace.into(), call.into()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    for (delivery, integration) in waiting {
        open_lane(tx, workspace, integration, now)?;
        tx.execute(
            "UPDATE delivery_queue SET due_at = $4 \
             WHERE delivery_id = $3 AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1 AND due_at > $4",
            &[workspace.into(), integration.into(), delivery.into(), now.into()],
        )?;
    }
    Ok(())
}

/// Settles a delivery that a person found in the EHR.
pub fn found_in_ehr(
    tx: &mut WorkspaceGuard<'_, '_>,
    found: &DeliveryResponse,
    location: Option<&str>,
    now: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE deliveries SET state = 'synced', reason = 'found_by_a_person', location = $3, maybe_sent = false, \
                settled_at = $4, lease_token = NULL WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), found.id.into(), location.into(), now.into()],
    )?;
    tx.execute(
        "DELETE FROM delivery_queue WHERE delivery_id = $3 AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), found.integration_id.into(), found.id.into()],
    )?;
    Ok(())
}

/// Stores that the EHR does not contain a delivery, whatever its attempts may have done.
pub fn not_in_ehr(tx: &mut WorkspaceGuard<'_, '_>, delivery: DeliveryId) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE deliveries SET maybe_sent = false WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), delivery.into()],
    )?;
    Ok(())
}

/// Whether deliveries of the workspace are queued.
pub fn waits(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<bool, Error> {
    let found = tx.optional(
        "SELECT 1 FROM delivery_queue WHERE workspace_id = $1 LIMIT 1",
        &[workspace.into()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}
