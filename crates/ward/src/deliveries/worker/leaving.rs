//! The end of a queue's turn: whether it goes on, pauses, is held, or heals.

use ward_db::{Timestamp, Tx};

use super::super::healing;
use super::super::outbox::{self, Lane, Leaving};
use super::super::refusals::{BY_WARD, REFUSED, Refusals};
use super::{Round, UNSETTLED, Worker};
use crate::audit::{Actor, Write};
use crate::context::Context;
use crate::deliveries::backoff;
use crate::error::ApiError;
use crate::integrations;

impl Worker {
    /// Ends the lease of the queue. If the integration was changed in the meantime, failures of its old
    /// configuration do not count.
    pub(super) async fn leave(&self, lane: &Lane, seen: Timestamp, progress: Round) -> usize {
        let now = self.app.clock.now();
        let broken = progress.failures >= backoff::BREAKS_AFTER;
        let pause = if broken {
            let beyond = progress.failures - backoff::BREAKS_AFTER;
            Some(backoff::wait(beyond + 1, progress.after, backoff::random(now)))
        } else {
            progress.after
        };
        let pause = if progress.unsettled { Some(pause.unwrap_or_default().max(UNSETTLED)) } else { pause };
        // The reason of the hold that this turn begins or continues, and the one that it ends.
        let heals = lane.probing && progress.arrived && progress.hold.is_none();
        let held = progress.hold.or_else(|| {
            let kept = lane.held_because.as_deref().filter(|_| lane.probing && !heals)?;
            BY_WARD.into_iter().find(|because| *because == kept)
        });
        let probes = if lane.probing { lane.probes + 1 } else { lane.probes };
        let pause = if held.is_some() { Some(healing::until_probe(probes)) } else { pause };
        let waits_because = match pause {
            _ if held.is_some() => Some("held"),
            Some(_) if broken || progress.unsettled => Some("failing"),
            Some(_) => Some("throttled"),
            None => None,
        };
        let leaving = Leaving {
            failures: progress.failures,
            not_before: pause.map_or(now, |pause| now.saturating_add(pause)),
            waits_because,
            succeeded_at: progress.succeeded_at,
            now,
        };
        let (mut ours, key, settled) = (lane.clone(), lane.key, progress.settled);
        let left = self
            .app
            .db
            .write("sync.leave", move |tx| {
                let context = Context::of_time(now);
                let is_changed = |tx: &mut Tx<'_>| {
                    outbox::guard_lane(tx, key)?;
                    outbox::put_back(tx, &ours, &progress.untried)?;
                    Ok::<_, ward_db::Error>(integrations::changed_at(tx, key.0, key.1)? != Some(seen))
                };
                let changed = if held.is_some() || heals {
                    // Requests take the workspace's row before a queue's, and so must Ward itself.
                    let write = &mut Write::begin(tx, key.0, Actor::NOBODY, &context)?;
                    let changed = is_changed(write)?;
                    if let (Some(because), false) = (held, changed) {
                        if because == REFUSED {
                            healing::put_refused_back(write, key, &progress.refusals.deliveries, now)?;
                        }
                        healing::hold_and_record(write, key, because, probes)?;
                    } else if !changed {
                        let because = ours.held_because.clone().unwrap_or_default();
                        healing::release_and_record(write, key, &because)?;
                    }
                    changed
                } else {
                    is_changed(tx)?
                };
                ours.refusals = Refusals::default();
                if changed {
                    let anew = Leaving { failures: 0, not_before: now, waits_because: None, ..leaving };
                    outbox::leave_lane(tx, &ours, anew)?;
                    return Ok::<_, ApiError>(None);
                }
                if held.is_none() {
                    ours.refusals = progress.refusals.clone();
                }
                outbox::leave_lane(tx, &ours, leaving)?;
                Ok(Some(waits_because))
            })
            .await;
        match left {
            Ok(None) => {}
            Ok(Some(waits)) => healing::tell_change(key, lane.waited_because.as_deref(), waits),
            Err(error) => {
                tracing::error!(cause = ?error.cause(), "cannot end the lease of an integration queue; it is free when the lease expires");
            }
        }
        settled
    }
}
