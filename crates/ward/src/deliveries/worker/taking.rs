//! Leasing a queue: one short transaction marks the due deliveries. Everything that grows with the tenant's
//! data is read after it.

use std::time::Duration;

use ward_db::{Timestamp, Tx};

use super::super::outbox::{self, Lane, LaneKey, Leased, Leaving};
use super::Worker;
use super::slots::Slot;
use crate::deliveries::{backoff, healing};
use crate::integrations::{self, Connection};
use crate::workspaces;

/// The pause between checks of a queue that waits for a person. A change through Ward wakes the queue at once;
/// the checks find changes that were made outside of Ward.
const RECHECK: Duration = Duration::from_mins(30);

/// A leased queue with its deliveries.
pub(super) struct Taken {
    pub lane: Lane,
    /// The last change of its integration, at the time of the lease.
    pub seen: Timestamp,
    /// The deliveries that are marked as being sent.
    pub work: Vec<Leased>,
}

/// The reason for which a queue waited before a turn, and the reason after it.
type Change = (Option<String>, Option<&'static str>);

/// The result of looking at a queue.
enum Took {
    Work(Taken),
    Nothing(Option<Change>),
}

/// Leaves a queue in which nothing can be done before `not_before`, for this reason if there is one.
fn leave_untried(
    tx: &mut Tx<'_>,
    lane: &Lane,
    now: Timestamp,
    (not_before, waits_because): (Timestamp, Option<&'static str>),
) -> Result<Option<Change>, ward_db::Error> {
    let failures = lane.failures;
    let waits_because = if lane.held { Some("held") } else { waits_because };
    outbox::leave_lane(tx, lane, Leaving { failures, not_before, waits_because, succeeded_at: None, now })?;
    Ok(Some((lane.waited_because.clone(), waits_because)))
}

impl Worker {
    /// Leases the queue and marks its due deliveries, in one transaction. `None` if there is nothing to do.
    pub(super) async fn take(&self, key: LaneKey, place: &Slot) -> Result<Option<Taken>, ward_db::Error> {
        let (now, lease_time) = (self.app.clock.now(), self.lease_time());
        let batch = place.batch(&self.options);
        let token = crate::random::id();
        let took = self
            .app
            .db
            .write("sync.take", move |tx| {
                let until = now.saturating_add(lease_time);
                let Some(mut lane) = outbox::take_lane(tx, key, token, now, until)? else {
                    return Ok(Took::Nothing(None));
                };
                let active = workspaces::active(tx, key.0)?.is_some();
                let readiness = integrations::readiness(tx, key.0, key.1)?;
                if lane.held
                    && let Some(ready) = readiness
                {
                    healing::resume_after(tx, &mut lane, ready.updated_at, now)?;
                }
                lane.begin_probe(now);
                let waits = match readiness {
                    _ if !active => Some("workspace_archived"),
                    None => Some("integration_gone"),
                    Some(_) if lane.held && !lane.probing => Some("held"),
                    Some(ready) if !ready.enabled => Some("integration_disabled"),
                    Some(ready) if !ready.configured => Some("integration_unconfigured"),
                    Some(_) => None,
                };
                let (Some(ready), None) = (readiness, waits) else {
                    let by_ward = waits == Some("held") && lane.not_before > now;
                    let not_before = if by_ward { lane.not_before } else { now.saturating_add(RECHECK) };
                    return Ok(Took::Nothing(leave_untried(tx, &lane, now, (not_before, waits))?));
                };
                healing::go_on(tx, &mut lane, now)?;
                // After many consecutive failures, and in a held queue, one delivery goes first as a test.
                let alone = lane.probing || lane.failures >= backoff::BREAKS_AFTER;
                let work = outbox::lease(tx, &lane, now, if alone { 1 } else { batch })?;
                if work.is_empty() {
                    let (not_before, waits) = match lane.waited_because.as_deref() {
                        _ if lane.probing => {
                            (now.saturating_add(healing::until_probe(lane.probes)), Some("held"))
                        }
                        Some("failing") if lane.failures > 0 => (now, Some("failing")),
                        _ => (now, None),
                    };
                    return Ok(Took::Nothing(leave_untried(tx, &lane, now, (not_before, waits))?));
                }
                Ok::<_, ward_db::Error>(Took::Work(Taken { lane, seen: ready.updated_at, work }))
            })
            .await?;
        match took {
            Took::Work(taken) => Ok(Some(taken)),
            Took::Nothing(change) => {
                if let Some((before, after)) = change {
                    healing::tell_change(key, before.as_deref(), after);
                }
                Ok(None)
            }
        }
    }

    /// The integration as it was at the time of the lease, with its credentials opened. `None` if it has
    /// changed since or cannot be read; nothing is sent in this turn.
    pub(super) async fn connection(&self, lane: &Lane, seen: Timestamp) -> Option<Connection> {
        match integrations::connection(&self.app, lane.key.0, lane.key.1).await {
            Ok(found) => found.filter(|connection| connection.updated_at == seen),
            Err(error) => {
                tracing::error!(%error, "cannot read an integration; its deliveries will be retried");
                None
            }
        }
    }
}
