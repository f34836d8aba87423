//! The SQL of holds that Ward sets and ends itself, and of the figures of everything that waits for people.

use ward_db::{Error, Timestamp, Tx, Uuid, Value, decode, sql};

use super::super::answers::{Attempt, note_attempt};
use super::super::outbox::{self, Lane, LaneKey, Leased, Settled};
use crate::ids::DeliveryId;

/// Reasons for waiting that end by themselves. All others end by a person's action.
const BY_ITSELF: [&str; 2] = ["throttled", "failing"];

/// Stores that a leased queue goes on. If it had waited for a person, the time until now does not count as
/// tried.
pub fn go_on(tx: &mut Tx<'_>, lane: &mut Lane, now: Timestamp) -> Result<(), Error> {
    let Some(waited) = &lane.waited_because else { return Ok(()) };
    if BY_ITSELF.contains(&waited.as_str()) {
        return Ok(());
    }
    lane.resumed_at = Some(now);
    tx.execute_later(
        "UPDATE sync_lanes SET resumed_at = $3 WHERE workspace_id = $1 AND integration_id = $2",
        &[lane.key.0.into(), lane.key.1.into(), lane.resumed_at.into()],
    )?;
    Ok(())
}

/// Holds a queue for a reason of Ward's own, after this many tries. A hold by a person stays. Returns whether the hold is
/// new.
pub fn hold(
    tx: &mut Tx<'_>,
    key: LaneKey,
    because: &str,
    probes: i64,
    now: Timestamp,
) -> Result<bool, Error> {
    let again = tx.execute(
        "UPDATE sync_lanes SET probes = $4 \
         WHERE workspace_id = $1 AND integration_id = $2 AND held AND held_because = $3",
        &[key.0.into(), key.1.into(), because.into(), probes.into()],
    )?;
    if again == 1 {
        return Ok(false);
    }
    let held = tx.execute(
        "UPDATE sync_lanes SET held = true, held_because = $3, held_at = $4, waits_because = 'held', waits_since = $4, \
                probes = $5, refusals = NULL \
         WHERE workspace_id = $1 AND integration_id = $2 AND COALESCE(held_because, '') <> 'operator'",
        &[key.0.into(), key.1.into(), because.into(), now.into(), probes.into()],
    )?;
    Ok(held == 1)
}

/// Releases a queue that Ward held for this reason. The number of its tries stays, so that a queue that is held again at
/// once is not tried more often. Returns whether it was held.
pub fn release(tx: &mut Tx<'_>, key: LaneKey, because: &str, now: Timestamp) -> Result<bool, Error> {
    let released = tx.execute(
        "UPDATE sync_lanes SET held = false, held_because = NULL, held_at = NULL, waits_because = NULL, \
                waits_since = NULL, refusals = NULL, resumed_at = $4 \
         WHERE workspace_id = $1 AND integration_id = $2 AND held AND held_because = $3",
        &[key.0.into(), key.1.into(), because.into(), now.into()],
    )?;
    Ok(released == 1)
}

/// Puts refused deliveries back into their queue, because the refusals were about the integration.
pub fn put_refused_back(
    tx: &mut Tx<'_>,
    key: LaneKey,
    deliveries: &[Uuid],
    now: Timestamp,
) -> Result<(), Error> {
    for delivery in deliveries {
        let back: Option<Timestamp> = tx.optional(
            "UPDATE deliveries SET state = 'pending', settled_at = NULL, stuck_since = NULL \
             WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND state = 'failed' \
               AND reason = 'refused' RETURNING created_at",
            &[key.0.into(), (*delivery).into()],
            decode,
        )?;
        if let Some(created_at) = back {
            outbox::queue(tx, key.0, key.1, DeliveryId(*delivery), now, created_at)?;
        }
    }
    Ok(())
}

/// How many things wait for one reason, and since when the first of them does.
#[derive(Clone, Debug)]
pub struct Lasting {
    /// `held` or `failed`; empty for a queue.
    pub state: String,
    /// The reason as one word, which answers show.
    pub reason: String,
    /// Their number, counted no further than the limit.
    pub count: i64,
    /// The time since which the first of them waits.
    pub since: Option<Timestamp>,
}

/// The queues that wait, by reason. `most` bounds the rows that are read.
pub fn waiting_queues(tx: &mut Tx<'_>, most: i64) -> Result<Vec<Lasting>, Error> {
    tx.all(
        "SELECT '', waits_because, count(*), min(waits_since) FROM \
         (SELECT waits_because, waits_since FROM sync_lanes WHERE waits_because IS NOT NULL LIMIT $1) AS found \
         GROUP BY waits_because",
        &[most.into()],
        lasting,
    )
}

/// The deliveries that are held one by one or failed, by reason. `most` bounds the rows that are read.
pub fn stuck_deliveries(tx: &mut Tx<'_>, most: i64) -> Result<Vec<Lasting>, Error> {
    tx.all(
        "SELECT state, COALESCE(reason, ''), count(*), min(stuck_since) FROM \
         (SELECT state, reason, stuck_since FROM deliveries WHERE stuck_since IS NOT NULL LIMIT $1) AS found \
         WHERE state IN ('held', 'failed') AND COALESCE(reason, '') <> 'dropped' GROUP BY state, reason",
        &[most.into()],
        lasting,
    )
}

fn lasting(row: &ward_db::Row<'_>) -> Result<Lasting, Error> {
    let (state, reason, count, since) = row.read()?;
    Ok(Lasting { state, reason, count, since })
}

/// The condition of a search's outcome: the delivery is as the search found it, and the lease is still this worker's.
const UNCHANGED: &str = "WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND state = 'synced' AND attempts = $6 \
     AND EXISTS (SELECT 1 FROM sync_lanes l WHERE l.workspace_id = $1 AND l.integration_id = $4 AND l.lease_token = $5)";

/// Settles a search for duplicates, if the lease is still this worker's and the delivery is unchanged.
pub fn settle_check(
    tx: &mut Tx<'_>,
    lane: &Lane,
    leased: &Leased,
    settled: &Settled,
    attempt: &Attempt<'_>,
) -> Result<bool, Error> {
    let (workspace, integration) = lane.key;
    let is_double = matches!(settled, Settled::Failed(..));
    let sql = match settled {
        Settled::Failed(..) => {
            sql!(
                "UPDATE deliveries SET attempts = $3, state = 'failed', reason = 'duplicate', maybe_sent = true, \
                        settled_at = $7, stuck_since = $7, outcome = $8 ",
                UNCHANGED
            )
        }
        Settled::Again(..) => {
            sql!("UPDATE deliveries SET attempts = $3 ", UNCHANGED)
        }
        Settled::Synced(_) | Settled::Checked | Settled::Held(..) => {
            sql!("UPDATE deliveries SET attempts = $3, maybe_sent = false ", UNCHANGED)
        }
    };
    let mut values: Vec<Value<'_>> = vec![
        workspace.into(),
        leased.id.into(),
        leased.attempt.into(),
        integration.into(),
        lane.token.into(),
        (leased.attempt - 1).into(),
    ];
    if is_double {
        values.extend([attempt.ended_at.into(), attempt.detail.map_or(Value::Null, Value::Json)]);
    }
    if tx.execute(sql, &values)? == 0 {
        return Ok(false);
    }
    let row = [workspace.into(), integration.into(), leased.id.into()];
    if let Settled::Again(due_at, _) = settled {
        let [workspace, integration, id] = row;
        tx.execute_later(
            "UPDATE delivery_queue SET due_at = $4 WHERE delivery_id = $3 AND purpose = 'check' \
               AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1",
            &[workspace, integration, id, (*due_at).into()],
        )?;
    } else {
        tx.execute_later(
            "DELETE FROM delivery_queue WHERE delivery_id = $3 AND purpose = 'check' \
               AND CASE WHEN workspace_id = $1 AND integration_id = $2 THEN 1 ELSE 0 END = 1",
            &row,
        )?;
    }
    note_attempt(tx, workspace, leased.id, leased.attempt, attempt)?;
    Ok(true)
}

/// The number of queued deliveries, counted no further than `most`, and the time at which the oldest was
/// queued.
pub fn depth(tx: &mut Tx<'_>, most: i64) -> Result<(i64, Option<Timestamp>), Error> {
    let waiting = tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM delivery_queue WHERE purpose IS NULL LIMIT $1) AS found",
        &[most.into()],
        decode,
    )?;
    let oldest = tx.optional(
        "SELECT created_at FROM delivery_queue WHERE purpose IS NULL ORDER BY created_at LIMIT 1",
        &[],
        decode,
    )?;
    Ok((waiting, oldest))
}

/// Resumes a queue that Ward itself paused, if the integration was changed since, because a person has then
/// acted. A pause by a person stays.
pub fn resume_after(
    tx: &mut Tx<'_>,
    lane: &mut Lane,
    changed_at: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let resumed = tx.execute(
        "UPDATE sync_lanes SET held = false, held_because = NULL, held_at = NULL, resumed_at = $4, probes = 0 \
         WHERE workspace_id = $1 AND integration_id = $2 AND held AND held_at < $3 \
           AND held_because IN ('unauthorized', 'misconfigured', 'refused')",
        &[lane.key.0.into(), lane.key.1.into(), changed_at.into(), now.into()],
    )?;
    if resumed == 1 {
        (lane.held, lane.resumed_at) = (false, Some(now));
    }
    Ok(())
}
