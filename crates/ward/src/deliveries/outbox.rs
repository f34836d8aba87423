//! The SQL of the outbox: the queued deliveries, the leases on queues, and the outcome of attempts.
//!
//! Each integration has one queue, and a worker leases a whole queue. So only one worker in all replicas sends
//! to an integration and applies its limits and its circuit breaker. Settled deliveries leave
//! the queue, so a query costs the same however long the history is.

use std::time::Duration;

use serde_json::json;
use ward_db::{
    Error, Json, Timestamp, Tx, Uuid, Value, columns, decode, insert, insert_later, select, sql, update,
};

use super::amendments::Amendments;
use super::answers::{Attempt, note_attempt};
use super::refusals::{BY_WARD, Refusals};
use super::{DeliveryState, Owed};
use crate::calls::RealDirection;
use crate::ids::{CallId, DeliveryId, IntegrationId, WorkspaceId};

/// The value of `lease_until` without a lease.
pub const NEVER: Timestamp = Timestamp::from_micros(0);
/// The time between the success that followed an unknown outcome and the search for duplicates.
const CHECKED_AFTER: Duration = Duration::from_mins(5);

/// Inserts a delivery, unless the call already has one for this integration.
pub fn insert(
    tx: &mut Tx<'_>,
    (workspace, integration): LaneKey,
    call: CallId,
    direction: RealDirection,
    position: i64,
    (now, due_at): (Timestamp, Timestamp),
) -> Result<(), Error> {
    let id = DeliveryId::at(now);
    open_lane(tx, workspace, integration, due_at)?;
    let inserted = insert!(tx, "deliveries" {
        workspace_id: workspace,
        id: id,
        integration_id: integration,
        call_id: call,
        direction: direction.name(),
        state: DeliveryState::Pending.name(),
        attempts: 0,
        maybe_sent: false,
        position: position,
        created_at: now,
    } "ON CONFLICT (workspace_id, call_id, integration_id) DO NOTHING")?;
    if inserted == 1 {
        insert_later!(tx, "delivery_queue" {
            workspace_id: workspace,
            integration_id: integration,
            delivery_id: id,
            due_at: due_at,
            created_at: now,
        } "ON CONFLICT (workspace_id, integration_id, delivery_id) DO NOTHING")?;
    }
    Ok(())
}

/// Puts a delivery into its integration's queue, due at `due_at`.
pub fn queue(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
    delivery: DeliveryId,
    due_at: Timestamp,
    created_at: Timestamp,
) -> Result<(), Error> {
    open_lane(tx, workspace, integration, due_at)?;
    insert!(tx, "delivery_queue" {
        workspace_id: workspace,
        integration_id: integration,
        delivery_id: delivery,
        due_at: due_at,
        created_at: created_at,
    } "ON CONFLICT (workspace_id, integration_id, delivery_id) DO NOTHING")?;
    Ok(())
}

/// Ensures that the queue exists and is due by `due_at`, and locks its row. The next statement then reads a
/// state that no other transaction changes. A statement must follow before the commit, because this
/// one may be sent only with it.
pub fn open_lane(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
    due_at: Timestamp,
) -> Result<(), Error> {
    insert_later!(tx, "sync_lanes" {
        workspace_id: workspace,
        integration_id: integration,
        due_at: due_at,
        not_before: NEVER,
        lease_until: NEVER,
        held: false,
        failures: 0,
    } "ON CONFLICT (workspace_id, integration_id) DO NOTHING")?;
    tx.execute_later(
        "UPDATE sync_lanes SET due_at = CASE WHEN not_before <= $3 AND due_at > $3 THEN $3 \
                                             WHEN not_before > $3 AND due_at > not_before THEN not_before \
                                             ELSE due_at END \
         WHERE workspace_id = $1 AND integration_id = $2",
        &[workspace.into(), integration.into(), due_at.into()],
    )?;
    Ok(())
}

columns! {
    Owed {
        delivery: "id",
        integration: "integration_id",
        // A dropped delivery is stored as a failed one with a reason of its own.
        state: "CASE WHEN reason = 'dropped' THEN 'dropped' ELSE state END",
    }
}

/// The delivery of a call, if it has one.
pub fn owed_for(tx: &mut Tx<'_>, workspace: WorkspaceId, call: CallId) -> Result<Option<Owed>, Error> {
    tx.optional(
        // Found by the call alone, with a CASE for the workspace, so that no planner searches all of the
        // workspace's deliveries.
        select!(
            Owed,
            "FROM deliveries WHERE call_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 \
             ORDER BY workspace_id, integration_id LIMIT 1"
        ),
        &[workspace.into(), call.into()],
        decode,
    )
}

/// The workspace and the integration that identify a queue.
pub type LaneKey = (WorkspaceId, IntegrationId);

/// An integration queue that is due.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub key: LaneKey,
    /// Consecutive failures since the last success.
    pub failures: i64,
}

columns! {
    Due { key: "workspace_id, integration_id", failures }
}

/// Due queues without a lease, the longest waiting first.
pub fn due_lanes(tx: &mut Tx<'_>, now: Timestamp, most: u32) -> Result<Vec<Due>, Error> {
    tx.all(
        select!(Due, "FROM sync_lanes WHERE due_at <= $1 AND lease_until <= $1 ORDER BY due_at LIMIT $2"),
        &[now.into(), most.into()],
        decode,
    )
}

/// Postpones queues that are due and not leased. They are due again at `until`, or when a delivery is
/// queued.
pub fn put_off(tx: &mut Tx<'_>, lanes: &[LaneKey], now: Timestamp, until: Timestamp) -> Result<(), Error> {
    for (workspace, integration) in lanes {
        tx.execute_later(
            "UPDATE sync_lanes SET due_at = $4 WHERE workspace_id = $1 AND integration_id = $2 \
               AND CASE WHEN due_at <= $3 AND lease_until <= $3 THEN 1 ELSE 0 END = 1",
            &[(*workspace).into(), (*integration).into(), now.into(), until.into()],
        )?;
    }
    Ok(())
}

/// A queue that this worker has leased.
#[derive(Clone, Debug)]
pub struct Lane {
    pub key: LaneKey,
    /// The token that proves the lease.
    pub token: Uuid,
    /// Whether the integration's deliveries are paused.
    pub held: bool,
    pub held_because: Option<String>,
    /// Nothing was to be sent before this time.
    pub not_before: Timestamp,
    /// Single deliveries that were tried since Ward paused the queue.
    pub probes: i64,
    /// Whether this turn is such a try: a single delivery, although the queue is paused.
    pub probing: bool,
    /// The last equal refusals in a row.
    pub refusals: Refusals,
    /// Consecutive failures since the last success.
    pub failures: i64,
    /// The reason why the queue had to wait before this turn, if there was one.
    pub waited_because: Option<String>,
    /// The time at which the queue could go on after it had waited for a person.
    pub resumed_at: Option<Timestamp>,
}

columns! {
    Lane {
        key: "workspace_id, integration_id",
        token: "lease_token",
        held,
        held_because,
        not_before,
        probes => |probes: Option<i64>| Ok(probes.unwrap_or(0)),
        refusals => |text: Option<Json>| {
            Ok(text.and_then(|Json(text)| serde_json::from_str(&text).ok()).unwrap_or_default())
        },
        failures,
        waited_because: "waits_because",
        resumed_at;
        probing: false,
    }
}

/// Leases a queue until `until`, if it is due and not leased.
pub fn take_lane(
    tx: &mut Tx<'_>,
    key: LaneKey,
    token: Uuid,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Lane>, Error> {
    tx.optional(
        sql!(
            "UPDATE sync_lanes SET lease_token = $3, lease_until = $4, due_at = $4 \
             WHERE workspace_id = $1 AND integration_id = $2 \
               AND CASE WHEN due_at <= $5 AND lease_until <= $5 THEN 1 ELSE 0 END = 1 RETURNING ",
            Lane::COLUMNS
        ),
        &[key.0.into(), key.1.into(), token.into(), until.into(), now.into()],
        decode,
    )
}

impl Lane {
    /// Begins a try of the queue, if Ward paused it and the pause before the try is over.
    pub fn begin_probe(&mut self, now: Timestamp) {
        let by_ward = self.held_because.as_deref().is_some_and(|because| BY_WARD.contains(&because));
        self.probing = self.held && by_ward && self.not_before <= now;
    }
}

/// Whether the lease is still this worker's, and no pause, deactivation or archive has happened since.
pub fn may_send(tx: &mut Tx<'_>, lane: &Lane) -> Result<bool, Error> {
    let found = tx.optional(
        "SELECT 1 FROM sync_lanes l JOIN workspaces w ON w.id = l.workspace_id \
         JOIN integrations i ON i.workspace_id = l.workspace_id AND i.id = l.integration_id \
         WHERE l.workspace_id = $1 AND l.integration_id = $2 AND l.lease_token = $3 \
           AND (NOT l.held OR l.held_because = $4) AND w.state = 'active' AND i.enabled",
        &[
            lane.key.0.into(),
            lane.key.1.into(),
            lane.token.into(),
            lane.held_because.as_deref().filter(|_| lane.probing).unwrap_or_default().into(),
        ],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// The state in which a worker leaves a queue.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// Consecutive failures since the last success.
    pub failures: i64,
    /// Nothing is sent before this time, even if deliveries are due.
    pub not_before: Timestamp,
    /// The reason for that wait, if there is one.
    pub waits_because: Option<&'static str>,
    /// The timestamp of the last success of this turn, if there was one.
    pub succeeded_at: Option<Timestamp>,
    pub now: Timestamp,
}

/// Takes the row of a queue as a guard: later statements read a state that no other transaction changes.
pub fn guard_lane(tx: &mut Tx<'_>, key: LaneKey) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE sync_lanes SET held = held WHERE workspace_id = $1 AND integration_id = $2",
        &[key.0.into(), key.1.into()],
    )?;
    Ok(())
}

/// Ends the lease of a queue, which is then due with its next delivery. A queue that another worker has
/// leased stays unchanged.
pub fn leave_lane(tx: &mut Tx<'_>, lane: &Lane, leaving: Leaving) -> Result<(), Error> {
    let (workspace, integration) = lane.key;
    let refusals = (!lane.refusals.deliveries.is_empty()).then(|| json!(lane.refusals).to_string());
    // This update takes the row first. A delivery that is queued concurrently waits, or the query below
    // finds it.
    let ours = tx.execute(
        "UPDATE sync_lanes SET failures = $4, lease_token = NULL, lease_until = $6, refusals = $10, \
                waits_because = CASE WHEN held THEN 'held' WHEN $5 = '' THEN NULL ELSE $5 END, \
                waits_since = CASE WHEN NOT held AND $5 = '' THEN NULL \
                                   WHEN waits_because = CASE WHEN held THEN 'held' ELSE $5 END \
                                   THEN COALESCE(waits_since, $9) ELSE $9 END, \
                last_success_at = CASE WHEN $7 THEN $8 ELSE last_success_at END \
         WHERE workspace_id = $1 AND integration_id = $2 AND lease_token = $3",
        &[
            workspace.into(),
            integration.into(),
            lane.token.into(),
            leaving.failures.into(),
            leaving.waits_because.unwrap_or_default().into(),
            NEVER.into(),
            leaving.succeeded_at.is_some().into(),
            leaving.succeeded_at.unwrap_or(NEVER).into(),
            leaving.now.into(),
            refusals.as_deref().map_or(Value::Null, Value::Json),
        ],
    )?;
    if ours == 0 {
        return Ok(());
    }
    let next = tx.optional(
        "SELECT due_at FROM delivery_queue WHERE workspace_id = $1 AND integration_id = $2 ORDER BY due_at LIMIT 1",
        &[workspace.into(), integration.into()],
        decode::<Timestamp>,
    )?;
    let due_at = next.map_or(Timestamp::MAX, |next| next.max(leaving.not_before));
    tx.execute_later(
        "UPDATE sync_lanes SET due_at = $3, not_before = $4 WHERE workspace_id = $1 AND integration_id = $2",
        &[workspace.into(), integration.into(), due_at.into(), leaving.not_before.into()],
    )?;
    Ok(())
}

/// A delivery that is marked as being sent.
#[derive(Clone, Debug)]
pub struct Leased {
    pub id: DeliveryId,
    pub call: CallId,
    /// The number of this attempt, from 1.
    pub attempt: i64,
    /// The start of the period in which it was tried: when it was first leased, or when its queue could go
    /// on.
    pub tried_since: Timestamp,
    /// `tried_since` as stored before this attempt; restored if the attempt is abandoned.
    former_tried_since: Option<Timestamp>,
    /// `reason` as stored before this attempt; restored if the attempt is abandoned.
    former_reason: Option<String>,
    /// Whether an earlier attempt may have arrived.
    pub maybe_sent: bool,
    /// Earlier creates whose outcome was unknown.
    pub unknowns: i64,
    /// Whether it arrived after an unknown outcome, and only a search for duplicates follows.
    pub is_check: bool,
    /// The amendments of the record in the EHR.
    pub amendments: Amendments,
    /// The timestamp at which it was queued.
    pub created_at: Timestamp,
}

impl Leased {
    /// Whether an earlier attempt may have arrived at what this one writes. An amendment's delivery always counts as possibly
    /// sent, because the record that it amends is there.
    pub const fn is_uncertain(&self) -> bool {
        if self.amendments.wanted.is_some() { self.unknowns > 0 } else { self.maybe_sent }
    }
}

/// A due delivery as stored, before it is marked as being sent.
struct Queued {
    id: DeliveryId,
    call: CallId,
    state: DeliveryState,
    attempts: i64,
    tried_since: Option<Timestamp>,
    maybe_sent: bool,
    created_at: Timestamp,
    reason: Option<String>,
    unknowns: Option<i64>,
    purpose: Option<String>,
    settled_at: Option<Timestamp>,
    amendments: Amendments,
}

columns! {
    Queued as "d" {
        id,
        call: "d.call_id",
        state,
        attempts,
        tried_since,
        maybe_sent,
        created_at,
        reason,
        unknowns,
        purpose: "q.purpose",
        settled_at,
        amendments: "d.amendment, d.amended, d.amends",
    }
}

const FROM_DUE: &str = "FROM delivery_queue q JOIN deliveries d ON d.id = q.delivery_id \
     AND CASE WHEN d.workspace_id = q.workspace_id THEN 1 ELSE 0 END = 1 \
     WHERE q.workspace_id = $1 AND q.integration_id = $2 AND q.due_at <= $3";
const FIRST_DUE: &str = " ORDER BY q.due_at LIMIT $4";
const DUE: &str = select!(Queued, FROM_DUE, FIRST_DUE);
const DUE_TO_PROBE: &str =
    select!(Queued, FROM_DUE, " AND (q.purpose IS NULL OR d.state <> 'synced')", FIRST_DUE);

/// Marks up to `most` due deliveries of a leased queue as being sent. A delivery that already has the mark
/// was left by a worker that died, so it may have arrived.
pub fn lease(tx: &mut Tx<'_>, lane: &Lane, now: Timestamp, most: i64) -> Result<Vec<Leased>, Error> {
    let (workspace, integration) = lane.key;
    // Only a create shows that the EHR takes calls again.
    let due: Vec<Queued> = tx.all(
        if lane.probing { DUE_TO_PROBE } else { DUE },
        &[workspace.into(), integration.into(), now.into(), most.into()],
        decode,
    )?;
    let mut leased = Vec::with_capacity(due.len());
    for queued in due {
        // A replica of an earlier version may have taken a check for a delivery. Then it is one.
        let is_check = queued.purpose.is_some() && queued.state == DeliveryState::Synced;
        // A check is tried since its delivery arrived.
        let former_tried_since = if is_check { queued.settled_at } else { queued.tried_since };
        let mut one = Leased {
            id: queued.id,
            call: queued.call,
            attempt: queued.attempts + 1,
            tried_since: former_tried_since.map_or(now, |since| since.max(lane.resumed_at.unwrap_or(since))),
            former_tried_since,
            former_reason: queued.reason,
            maybe_sent: queued.maybe_sent,
            unknowns: queued.unknowns.unwrap_or(0),
            is_check,
            amendments: queued.amendments,
            created_at: queued.created_at,
        };
        if one.is_check {
            // A check writes nothing to the EHR, so it needs no mark.
            leased.push(one);
            continue;
        }
        if queued.state == DeliveryState::Sending {
            let lost = Attempt {
                outcome: "lost",
                status: None,
                started_at: now,
                ended_at: now,
                detail: None,
                content_type: None,
                answer: None,
                unknowns: one.unknowns,
            };
            note_attempt(tx, workspace, one.id, one.attempt - 1, &lost)?;
            (one.maybe_sent, one.unknowns) = (true, one.unknowns + 1);
        }
        tx.execute_later(
            "UPDATE deliveries SET state = 'sending', lease_token = $3, attempts = $4, tried_since = $5, maybe_sent = $6, \
                    unknowns = $7, reason = NULL WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
            &[
                workspace.into(),
                one.id.into(),
                lane.token.into(),
                one.attempt.into(),
                one.tried_since.into(),
                one.maybe_sent.into(),
                one.unknowns.into(),
            ],
        )?;
        leased.push(one);
    }
    Ok(leased)
}

/// The state in which an attempt leaves its delivery.
#[derive(Clone, Debug)]
pub enum Settled {
    /// It is in the EHR, at this location.
    Synced(Option<String>),
    /// It waits for a decision of a person. The word is the reason. The flag, also in the other states, says
    /// whether this attempt or an earlier one may have arrived.
    Held(&'static str, bool),
    /// It failed for good. The word is the reason.
    Failed(&'static str, bool),
    /// It is tried again at this time.
    Again(Timestamp, bool),
    /// The search for duplicates has ended, and found none.
    Checked,
}

/// Settles an attempt, if the lease is still this worker's. It returns `false` otherwise: another worker
/// has the delivery, and this attempt does not count.
pub fn settle(
    tx: &mut Tx<'_>,
    lane: &Lane,
    leased: &Leased,
    settled: &Settled,
    attempt: &Attempt<'_>,
) -> Result<bool, Error> {
    let (workspace, integration) = lane.key;
    let (state, reason, location, maybe_sent) = match settled {
        // Only a search for duplicates ends so, and that is settled apart.
        Settled::Checked => return Ok(false),
        Settled::Synced(location) => {
            // The mark stays until the search for duplicates. A replica of an earlier version does not know such
            // searches: it takes the delivery for one that waits, and then searches before it sends.
            (DeliveryState::Synced, None, location.as_deref(), leased.is_uncertain())
        }
        Settled::Held(reason, maybe) => (DeliveryState::Held, Some(*reason), None, *maybe),
        Settled::Failed(reason, maybe) => (DeliveryState::Failed, Some(*reason), None, *maybe),
        Settled::Again(_, maybe) => (DeliveryState::Pending, Some(attempt.outcome), None, *maybe),
    };
    let settled_at = (state != DeliveryState::Pending).then_some(attempt.ended_at);
    let amendments = leased.amendments.after(state == DeliveryState::Synced);
    // The record that a waiting amendment is about is there.
    let maybe_sent = maybe_sent || amendments.wanted.is_some();
    let ours = update!(tx, "deliveries" {
        state: state.name(),
        reason: reason,
        location: location,
        attempts: leased.attempt,
        maybe_sent: maybe_sent,
        settled_at: settled_at,
        stuck_since: settled_at.filter(|_| state != DeliveryState::Synced),
        outcome: attempt.detail.map(Value::Json),
        unknowns: attempt.unknowns,
        amendment: amendments.wanted,
        amended: amendments.done,
        lease_token: Value::Null,
    } "id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND lease_token = $3 AND state = 'sending'",
    [workspace, leased.id, lane.token])?;
    if ours == 0 {
        return Ok(false);
    }
    match settled {
        Settled::Synced(_) if leased.is_uncertain() => {
            // An earlier request may still be under way within the EHR, so both may end there.
            let due_at = attempt.ended_at.saturating_add(CHECKED_AFTER);
            tx.execute_later(
                "UPDATE delivery_queue SET due_at = $4, purpose = 'check' \
                 WHERE delivery_id = $3 AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1",
                &[workspace.into(), integration.into(), leased.id.into(), due_at.into()],
            )?;
        }
        Settled::Again(due_at, _) => {
            tx.execute_later(
                "UPDATE delivery_queue SET due_at = $4 \
                 WHERE delivery_id = $3 AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1",
                &[workspace.into(), integration.into(), leased.id.into(), (*due_at).into()],
            )?;
        }
        Settled::Synced(_) | Settled::Checked | Settled::Held(..) | Settled::Failed(..) => {
            tx.execute_later(
                "DELETE FROM delivery_queue \
                 WHERE delivery_id = $3 AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1",
                &[workspace.into(), integration.into(), leased.id.into()],
            )?;
        }
    }
    note_attempt(tx, workspace, leased.id, leased.attempt, attempt)?;
    Ok(true)
}

/// Restores the state of deliveries before they were marked as being sent, if the lease is still this worker's.
pub fn put_back(tx: &mut Tx<'_>, lane: &Lane, untried: &[Leased]) -> Result<(), Error> {
    for leased in untried {
        tx.execute_later(
            "UPDATE deliveries SET state = 'pending', reason = $4, attempts = $5, tried_since = $6, lease_token = NULL \
             WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND lease_token = $3 AND state = 'sending'",
            &[
                lane.key.0.into(),
                leased.id.into(),
                lane.token.into(),
                leased.former_reason.as_deref().into(),
                (leased.attempt - 1).into(),
                leased.former_tried_since.into(),
            ],
        )?;
    }
    Ok(())
}

/// Marks every delivery that is not known to have arrived as possibly sent, so that the EHR is searched
/// first. This is for a restored backup: a delivery that the backup records as unsent may have been sent
/// since.
pub fn mark_all_uncertain(tx: &mut Tx<'_>) -> Result<(), Error> {
    tx.execute("UPDATE deliveries SET maybe_sent = true WHERE state <> 'synced' AND NOT maybe_sent", &[])?;
    Ok(())
}
