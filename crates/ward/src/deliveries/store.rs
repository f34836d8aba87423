//! The SQL of reading and steering deliveries.

use serde_json::value::RawValue;
use ward_db::{Error, Json, Timestamp, Tx, Value, columns, decode, select, sql};

use super::outbox::{LaneKey, NEVER, open_lane, queue};
use super::wire::{DeliveryAttempt, DeliveryResponse, IntegrationSyncStatus};
use super::{DeliveryState, matching};
use crate::guard::WorkspaceGuard;
use crate::ids::{CallId, DeliveryId, IntegrationId, WorkspaceId};
use crate::page::Page;
use crate::scan::{Conditions, List, Stretch};

/// Counts of settled deliveries are exact up to this number; beyond it, they are this number.
pub const MOST_COUNTED: i64 = 10_000;

/// The workspace as a CASE, here and in joins, beside an id that finds the row. So no planner searches all
/// of the workspace's deliveries or calls instead.
const OURS: &str = "CASE WHEN d.workspace_id = $1 THEN 1 ELSE 0 END = 1";
const COLUMNS: &str = DeliveryResponse::COLUMNS;
const JOINED: &str = "deliveries d \
     JOIN calls c ON c.id = d.call_id AND CASE WHEN c.workspace_id = d.workspace_id THEN 1 ELSE 0 END = 1 \
     LEFT JOIN delivery_queue q ON q.delivery_id = d.id AND CASE WHEN q.workspace_id = d.workspace_id THEN 1 ELSE 0 END = 1";

fn raw(text: Option<Json>) -> Result<Option<Box<RawValue>>, Error> {
    text.map(|Json(text)| RawValue::from_string(text).map_err(Error::unreadable)).transpose()
}

columns! {
    DeliveryResponse as "d" {
        id,
        integration_id,
        call_id,
        direction,
        // A dropped delivery is stored as a failed one with a reason of its own.
        state: "CASE WHEN d.reason = 'dropped' THEN 'dropped' ELSE d.state END" => |state: DeliveryState| Ok(state.name()),
        reason,
        attempt_count: "d.attempts",
        // A synced delivery keeps the mark until the search for duplicates.
        maybe_sent: "d.maybe_sent AND d.state <> 'synced'",
        location: "COALESCE(d.location, d.amends)",
        amendment,
        amendments: "COALESCE(d.amended, 0)",
        outcome => raw,
        created_at,
        settled_at,
        position,
        next_attempt_at: "q.due_at",
        call_sid: "c.call_sid",
    }
}

columns! {
    DeliveryAttempt {
        number,
        outcome,
        status,
        started_at,
        ended_at,
        content_type,
        sealed: "answer",
        detail => raw;
        duration_ms: 0,
        answer: None,
    }
}

columns! {
    IntegrationSyncStatus as "l" {
        integration_id,
        name: "i.name",
        held,
        held_because,
        held_at,
        waits_because,
        waits_since,
        next_attempt_at: "l.due_at" => |due_at| Ok(Some(due_at).filter(|due_at| *due_at < Timestamp::MAX)),
        failures_in_a_row: "l.failures",
        last_success_at;
        pending: 0,
        oldest_pending_at: None,
        held_deliveries: 0,
        failed: 0,
        synced: 0,
    }
}

/// Conditions on deliveries; `None` sets no condition.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    pub state: Option<String>,
    pub integration: Option<IntegrationId>,
    pub call: Option<CallId>,
}

impl DeliveryFilter {
    fn conditions(&self, workspace: WorkspaceId) -> Conditions<'_> {
        let first = if self.call.is_some() { OURS } else { "d.workspace_id = $1" };
        let mut conditions = Conditions::of(first, workspace);
        and_state(&mut conditions, self.state.as_deref());
        conditions.and("d.integration_id =", self.integration);
        conditions.and("d.call_id =", self.call);
        conditions
    }
}

/// Adds the condition for a state in answers. A dropped delivery is stored as a failed one with a reason of its own.
fn and_state<'v>(conditions: &mut Conditions<'v>, shown: Option<&'v str>) {
    let (stored, only) = match shown {
        Some("dropped") => (Some("failed"), Some("d.reason = 'dropped'")),
        Some("failed") => (Some("failed"), Some("COALESCE(d.reason, '') <> 'dropped'")),
        other => (other, None),
    };
    conditions.and("d.state =", stored);
    if let Some(only) = only {
        conditions.and_sql(only);
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
    fn conditions(&self, stretch: Stretch<i64>) -> Conditions<'_> {
        let mut conditions = Conditions::of("d.workspace_id = $1", self.workspace);
        conditions.and("d.position >", Some(stretch.after.unwrap_or_default()));
        conditions.and("d.position <=", stretch.last);
        and_state(&mut conditions, self.filter.state.as_deref());
        if let Some(integration) = self.filter.integration {
            let integration = conditions.bind(integration);
            // With a CASE, no planner searches all of the integration's deliveries instead of the stretch.
            conditions.and_sql(&format!("CASE WHEN d.integration_id = {integration} THEN 1 ELSE 0 END = 1"));
        }
        conditions
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
            decode,
        )
    }

    fn count(&self, tx: &mut Tx<'_>, stretch: Stretch<i64>) -> Result<i64, Error> {
        let conditions = self.conditions(stretch);
        let sql = format!("SELECT count(*) FROM deliveries d WHERE {}", conditions.sql());
        tx.one(&sql, conditions.values(), decode)
    }

    fn rows(
        &self,
        tx: &mut Tx<'_>,
        stretch: Stretch<i64>,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<DeliveryResponse>, Error> {
        let mut conditions = self.conditions(stretch);
        let (limit, offset) = (conditions.bind(limit), conditions.bind(offset));
        let sql = format!(
            "SELECT {COLUMNS} FROM {JOINED} WHERE {} ORDER BY d.position LIMIT {limit} OFFSET {offset}",
            conditions.sql()
        );
        tx.all(&sql, conditions.values(), decode)
    }
}

/// A page of deliveries, in the order of queueing.
pub fn list(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    filter: &DeliveryFilter,
    page: Page,
) -> Result<Vec<DeliveryResponse>, Error> {
    let mut conditions = filter.conditions(workspace);
    conditions.and("d.position >", Some(page.after));
    let limit = conditions.bind(page.fetch());
    let sql = format!(
        "SELECT {COLUMNS} FROM {JOINED} WHERE {} ORDER BY d.position LIMIT {limit}",
        conditions.sql()
    );
    tx.all(&sql, conditions.values(), decode)
}

/// The number of matching deliveries, counted no further than `most`.
pub fn count(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    filter: &DeliveryFilter,
    most: i64,
) -> Result<i64, Error> {
    let mut conditions = filter.conditions(workspace);
    let limit = conditions.bind(most);
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM deliveries d WHERE {} LIMIT {limit}) AS found",
        conditions.sql()
    );
    tx.one(&sql, conditions.values(), decode)
}

/// The delivery with this id, if it belongs to the workspace.
pub fn get(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: DeliveryId,
) -> Result<Option<DeliveryResponse>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM {JOINED} WHERE d.id = $2 AND {OURS}");
    tx.optional(&sql, &[workspace.into(), id.into()], decode)
}

/// The attempts of a delivery, first to last.
pub fn attempts(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: DeliveryId,
    most: i64,
) -> Result<Vec<DeliveryAttempt>, Error> {
    tx.all(
        select!(
            DeliveryAttempt,
            "FROM delivery_attempts WHERE workspace_id = $1 AND delivery_id = $2 ORDER BY number LIMIT $3"
        ),
        &[workspace.into(), id.into(), most.into()],
        decode,
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
         AND COALESCE(d.reason, '') <> 'dropped' AND c.direction IN ('inbound', 'outbound') ORDER BY d.position LIMIT $3",
        &[workspace.into(), integration.into(), most.into()],
        decode,
    )
}

/// The integrations that ever had a delivery. They are connectors' own ones, so there are few.
pub fn owed_integrations(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Vec<IntegrationId>, Error> {
    tx.all(
        "SELECT integration_id FROM sync_lanes WHERE workspace_id = $1 ORDER BY integration_id LIMIT 100",
        &[workspace.into()],
        decode,
    )
}

const LANES: &str = "FROM sync_lanes l LEFT JOIN integrations i ON i.workspace_id = l.workspace_id AND i.id = l.integration_id";

/// Every integration that ever had a delivery, with the counts of its queue.
pub fn lanes(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Vec<IntegrationSyncStatus>, Error> {
    let lanes: Vec<IntegrationSyncStatus> = tx.all(
        select!(IntegrationSyncStatus, LANES, " WHERE l.workspace_id = $1 ORDER BY l.integration_id"),
        &[workspace.into()],
        decode,
    )?;
    lanes.into_iter().map(|lane| counted(tx, workspace, lane)).collect()
}

/// The queues of all workspaces after this one, with their counts, up to `most`.
pub fn lanes_of_all(
    tx: &mut Tx<'_>,
    (workspace, integration): LaneKey,
    most: i64,
) -> Result<Vec<(WorkspaceId, IntegrationSyncStatus)>, Error> {
    let lanes: Vec<(WorkspaceId, IntegrationSyncStatus)> = tx.all(
        sql!(
            "SELECT l.workspace_id, ",
            IntegrationSyncStatus::COLUMNS,
            " ",
            LANES,
            " WHERE (l.workspace_id, l.integration_id) > ($1, $2) \
             ORDER BY l.workspace_id, l.integration_id LIMIT $3"
        ),
        &[workspace.into(), integration.into(), most.into()],
        decode,
    )?;
    lanes.into_iter().map(|(workspace, lane)| Ok((workspace, counted(tx, workspace, lane)?))).collect()
}

/// Adds the counts of a queue.
fn counted(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    mut lane: IntegrationSyncStatus,
) -> Result<IntegrationSyncStatus, Error> {
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
         WHERE workspace_id = $1 AND integration_id = $2 AND purpose IS NULL LIMIT $3) AS found",
        &[workspace.into(), lane.integration_id.into(), MOST_COUNTED.into()],
        decode,
    )?;
    // Ids grow with time, so the first one is the oldest and found without a scan.
    lane.oldest_pending_at = tx.optional(
        "SELECT created_at FROM delivery_queue WHERE workspace_id = $1 AND integration_id = $2 AND purpose IS NULL \
         ORDER BY delivery_id LIMIT 1",
        &[workspace.into(), lane.integration_id.into()],
        decode,
    )?;
    Ok(lane)
}

/// The number of deliveries of calls that were not real. The database allows none.
pub fn owed_by_unreal(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM deliveries d \
         JOIN calls c ON c.id = d.call_id AND CASE WHEN c.workspace_id = d.workspace_id THEN 1 ELSE 0 END = 1 \
         WHERE d.workspace_id = $1 AND c.direction NOT IN ('inbound', 'outbound')",
        &[workspace.into()],
        decode,
    )
}

/// The numbers of deliveries and of attempts for a call, for the proof that both are 0.
pub fn sent_for(tx: &mut Tx<'_>, workspace: WorkspaceId, call: CallId) -> Result<(i64, i64), Error> {
    tx.one(
        "SELECT count(DISTINCT d.id), count(a.number) FROM deliveries d \
         LEFT JOIN delivery_attempts a ON a.workspace_id = d.workspace_id AND a.delivery_id = d.id \
         WHERE d.call_id = $2 AND CASE WHEN d.workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), call.into()],
        decode,
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
        "UPDATE sync_lanes SET held = true, held_because = $3, held_at = $4, waits_because = 'held', waits_since = $4 \
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
                due_at = $3, not_before = $4, resumed_at = $3, waits_since = NULL, probes = 0, refusals = NULL \
         WHERE workspace_id = $1 AND integration_id = $2",
        &[key.0.into(), key.1.into(), now.into(), NEVER.into()],
    )?;
    Ok(())
}

/// Whether Ward itself paused a queue; see [`super::refusals::BY_WARD`].
const BY_WARD: &str = "held_because IN ('unauthorized', 'misconfigured', 'refused')";

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
        "UPDATE sync_lanes SET due_at = $2, not_before = $3, failures = 0, probes = 0, refusals = NULL, \
                resumed_at = CASE WHEN {BY_WARD} THEN $2 ELSE resumed_at END, \
                held = CASE WHEN {BY_WARD} THEN false ELSE held END, \
                held_at = CASE WHEN {BY_WARD} THEN NULL ELSE held_at END, \
                waits_because = CASE WHEN {BY_WARD} THEN NULL ELSE waits_because END, \
                waits_since = CASE WHEN {BY_WARD} THEN NULL ELSE waits_since END, \
                held_because = CASE WHEN {BY_WARD} THEN NULL ELSE held_because END \
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
        "UPDATE deliveries SET state = 'pending', reason = NULL, settled_at = NULL, stuck_since = NULL, tried_since = NULL \
         WHERE call_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND state = 'held' AND reason = $3 \
         RETURNING id, integration_id, created_at",
        &[workspace.into(), call.into(), reason.into()],
        decode,
    )?;
    for (delivery, integration, created_at) in held {
        matching::close(tx, workspace, delivery)?;
        queue(tx, workspace, integration, delivery, now, created_at)?;
    }
    Ok(())
}

/// The deliveries of a call that the EHR refused.
pub fn refused_of(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    call: CallId,
) -> Result<Vec<(DeliveryId, IntegrationId, Timestamp)>, Error> {
    tx.all(
        "SELECT id, integration_id, created_at FROM deliveries \
         WHERE call_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND state = 'failed' AND reason = 'refused'",
        &[workspace.into(), call.into()],
        decode,
    )
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
        "UPDATE deliveries SET state = 'pending', reason = NULL, settled_at = NULL, stuck_since = NULL, tried_since = NULL \
         WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), delivery.into()],
    )?;
    tx.execute_later(
        "UPDATE sync_lanes SET not_before = $3 WHERE workspace_id = $1 AND integration_id = $2",
        &[workspace.into(), integration.into(), NEVER.into()],
    )?;
    matching::close(tx, workspace, delivery)?;
    queue(tx, workspace, integration, delivery, now, created_at)?;
    tx.execute_later(
        "UPDATE delivery_queue SET due_at = $4, purpose = NULL \
         WHERE delivery_id = $3 AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), integration.into(), delivery.into(), now.into()],
    )?;
    Ok(())
}

/// The deliveries of a call that wait and were never tried, each with its integration and the time of queueing.
pub fn untried(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    call: CallId,
) -> Result<Vec<(DeliveryId, IntegrationId, Timestamp)>, Error> {
    tx.all(
        "SELECT id, integration_id, created_at FROM deliveries \
         WHERE call_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND state = 'pending' AND attempts = 0",
        &[workspace.into(), call.into()],
        decode,
    )
}

/// Makes a waiting delivery due at `due_at`, unless it is due earlier.
pub fn make_due(
    tx: &mut Tx<'_>,
    (workspace, integration): LaneKey,
    delivery: DeliveryId,
    due_at: Timestamp,
) -> Result<(), Error> {
    open_lane(tx, workspace, integration, due_at)?;
    tx.execute(
        "UPDATE delivery_queue SET due_at = $4 \
         WHERE delivery_id = $3 AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1 AND due_at > $4",
        &[workspace.into(), integration.into(), delivery.into(), due_at.into()],
    )?;
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
        "UPDATE deliveries SET state = 'synced', reason = 'found_by_a_person', location = COALESCE($3, amends), maybe_sent = false, \
                amended = COALESCE(amendment, amended), amendment = NULL, \
                settled_at = $4, stuck_since = NULL, lease_token = NULL WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), found.id.into(), location.into(), now.into()],
    )?;
    leave_queue(tx, found)
}

/// Drops a delivery: it is never sent, unless a person retries it.
pub fn dropped(
    tx: &mut WorkspaceGuard<'_, '_>,
    found: &DeliveryResponse,
    reason: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE deliveries SET state = 'failed', reason = 'dropped', outcome = $3, settled_at = $4, \
                stuck_since = NULL, lease_token = NULL \
         WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), found.id.into(), Value::Json(reason), now.into()],
    )?;
    leave_queue(tx, found)
}

/// Removes a settled delivery from its queue, and closes its review.
fn leave_queue(tx: &mut WorkspaceGuard<'_, '_>, found: &DeliveryResponse) -> Result<(), Error> {
    let workspace = tx.row();
    matching::close(tx, workspace, found.id)?;
    tx.execute(
        "DELETE FROM delivery_queue WHERE delivery_id = $3 AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), found.integration_id.into(), found.id.into()],
    )?;
    Ok(())
}

/// Stores that the EHR does not contain a delivery, whatever its attempts may have done. `searched`: the next attempt
/// still searches first.
pub fn not_in_ehr(
    tx: &mut WorkspaceGuard<'_, '_>,
    delivery: DeliveryId,
    searched: bool,
) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE deliveries SET maybe_sent = $3, location = NULL, amendment = NULL, amended = NULL, amends = NULL \
         WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), delivery.into(), searched.into()],
    )?;
    Ok(())
}

/// Whether deliveries of the workspace are queued.
pub fn waits(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<bool, Error> {
    let found = tx.optional(
        "SELECT 1 FROM delivery_queue WHERE workspace_id = $1 AND purpose IS NULL LIMIT 1",
        &[workspace.into()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}
