//! Leasing a queue: one short transaction marks the due deliveries. Everything that grows with the tenant's
//! data is read after it.

use std::time::Duration;

use ward_db::Timestamp;

use super::super::outbox::{self, Lane, LaneKey, Leased, Leaving};
use super::Worker;
use super::slots::Slot;
use crate::deliveries::backoff;
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

impl Worker {
    /// Leases the queue and marks its due deliveries, in one transaction. `None` if there is nothing to do.
    pub(super) async fn take(&self, key: LaneKey, place: &Slot) -> Result<Option<Taken>, ward_db::Error> {
        let (now, lease_time) = (self.app.clock.now(), self.lease_time());
        let batch = place.batch(&self.options);
        let token = crate::random::id();
        self.app
            .db
            .write("sync.take", move |tx| {
                let until = now.saturating_add(lease_time);
                let Some(mut lane) = outbox::take_lane(tx, key, token, now, until)? else { return Ok(None) };
                let active = workspaces::active(tx, key.0)?.is_some();
                let readiness = integrations::readiness(tx, key.0, key.1)?;
                if lane.held
                    && let Some(ready) = readiness
                {
                    outbox::resume_after(tx, &mut lane, ready.updated_at, now)?;
                }
                let waits = match readiness {
                    _ if !active => Some("workspace_archived"),
                    None => Some("integration_gone"),
                    Some(_) if lane.held => Some("held"),
                    Some(ready) if !ready.enabled => Some("integration_disabled"),
                    Some(ready) if !ready.configured => Some("integration_unconfigured"),
                    Some(_) => None,
                };
                let (Some(ready), None) = (readiness, waits) else {
                    let not_before = now.saturating_add(RECHECK);
                    let failures = lane.failures;
                    outbox::leave_lane(
                        tx,
                        &lane,
                        Leaving { failures, not_before, waits_because: waits, succeeded_at: None },
                    )?;
                    return Ok(None);
                };
                outbox::go_on(tx, &mut lane, now)?;
                // After many consecutive failures, one delivery goes first as a test.
                let most = if lane.failures >= backoff::BREAKS_AFTER { 1 } else { batch };
                let work = outbox::lease(tx, &lane, now, most)?;
                if work.is_empty() {
                    let failures = lane.failures;
                    outbox::leave_lane(
                        tx,
                        &lane,
                        Leaving { failures, not_before: now, waits_because: None, succeeded_at: None },
                    )?;
                    return Ok(None);
                }
                Ok(Some(Taken { lane, seen: ready.updated_at, work }))
            })
            .await
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
