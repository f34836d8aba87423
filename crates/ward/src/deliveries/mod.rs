//! Deliveries of finished calls to EHRs: queued with the call's end, sent by workers, settled once.
//!
//! A call that was not real is never delivered. Four barriers ensure this, each sufficient by itself. This
//! module accepts only a [`RealDirection`], which other calls do not have. The database checks the
//! direction of a delivery. A foreign key makes that direction the call's own. And a worker checks the call
//! again before it sends.

pub mod actions;
mod amendments;
pub mod answers;
pub mod api;
pub mod backoff;
mod healing;
pub mod local;
pub mod matching;
mod note;
mod outbox;
pub mod previewing;
mod refusals;
mod store;
mod wire;
pub mod worker;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use ward_db::{Error, Timestamp, Uuid};

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::audit::Subject;
use crate::calls::RealDirection;
use crate::error::ApiError;
use crate::guard::WorkspaceGuard;
use crate::ids::{CallId, DeliveryId, IntegrationId};
use crate::names::named;
use crate::{integrations, workspaces};

pub use amendments::{Amendable, amend, amendable};
pub use note::{form_of, identifiers_of};
pub use outbox::{mark_all_uncertain, owed_for};
pub use store::{lanes, lanes_of_all, owed_by_unreal, sent_for, waits};
pub use wire::IntegrationSyncStatus;

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryState {
    /// It waits for its turn or its next attempt.
    Pending,
    /// A worker is sending it. If the worker died, this state stays until the lease expires.
    Sending,
    /// The EHR has it, as an answer, a search or a person says.
    Synced,
    /// It waits for a decision of a person; its reason says which.
    Held,
    /// The EHR refused it for good, or it was tried for too long.
    Failed,
    /// A person decided that it is never sent. The database stores it as failed, with the reason `dropped`.
    Dropped,
}

named!(DeliveryState);

/// The delivery of a call, and its state.
#[derive(Clone, Copy, Debug)]
pub struct Owed {
    pub delivery: DeliveryId,
    /// The integration that receives the call.
    pub integration: IntegrationId,
    pub state: DeliveryState,
}

/// A delivery or an integration as the subject of an audit event.
const fn subject(kind: &'static str, id: Option<Uuid>) -> Subject<'static> {
    Subject { service: "sync", kind, id, name: None }
}

/// Queues the delivery of a finished call to an integration, in the transaction that finishes the call.
/// Repeated calls queue only one. A worker sends it at `due_at` at the earliest.
pub fn enqueue(
    tx: &mut WorkspaceGuard<'_, '_>,
    integration: IntegrationId,
    call: CallId,
    direction: RealDirection,
    (now, due_at): (Timestamp, Timestamp),
) -> Result<(), Error> {
    let workspace = tx.row();
    let position = workspaces::next_position(tx, now)?;
    outbox::insert(tx, (workspace, integration), call, direction, position, (now, due_at))
}

/// Makes a call's delivery due, if it was never tried, because the runtime has reported the end of the call. Without a
/// summary, the delivery goes on waiting for as long as its integration says.
pub fn make_due(
    tx: &mut WorkspaceGuard<'_, '_>,
    call: CallId,
    has_summary: bool,
    now: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    for (delivery, integration, created_at) in store::untried(tx, workspace, call)? {
        let due_at = if has_summary {
            now
        } else {
            let wait = integrations::delivery_settings(tx, workspace, integration)?.summary_wait();
            created_at.saturating_add(wait).max(now)
        };
        store::make_due(tx, (workspace, integration), delivery, due_at)?;
    }
    Ok(())
}

/// Makes the queue of a changed integration due now, so that waiting deliveries are tried again.
pub fn integration_changed(
    tx: &mut WorkspaceGuard<'_, '_>,
    integration: IntegrationId,
    now: Timestamp,
) -> Result<(), Error> {
    store::reopen(tx, Some(integration), now)
}

/// Deletes the queue of a deleted integration, because queues would otherwise accumulate without bound.
pub fn integration_deleted(tx: &mut WorkspaceGuard<'_, '_>, integration: IntegrationId) -> Result<(), Error> {
    store::delete_lane(tx, integration)
}

/// Makes the queues of all integrations of a restored workspace due now.
pub fn workspace_restored(tx: &mut WorkspaceGuard<'_, '_>, now: Timestamp) -> Result<(), Error> {
    store::reopen(tx, None, now)
}

/// A fact about a call without which its delivery is held, because Ward never guesses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The patient in whose chart the call belongs.
    Patient,
    /// The encounter of that patient to which the call belongs.
    Encounter,
}

impl Missing {
    /// Every fact that a delivery can be held for.
    pub const ALL: [Self; 2] = [Self::Patient, Self::Encounter];

    /// The field of a report that gives it.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Patient => "patient_id",
            Self::Encounter => "encounter_id",
        }
    }

    /// The name in the database and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::Encounter => "encounter",
        }
    }

    /// The fact with this name in the database.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fact| fact.name() == name)
    }

    /// The reason of a delivery that is held for it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Patient => "unmatched_patient",
            Self::Encounter => "unmatched_encounter",
        }
    }
}

/// Whether a call's data may still change what its EHR receives. `Err` has the reason why not.
pub fn may_correct(tx: &mut WorkspaceGuard<'_, '_>, call: CallId, now: Timestamp) -> Result<(), ApiError> {
    let workspace = tx.row();
    let Some(owed) = owed_for(tx, workspace, call)? else { return Ok(()) };
    outbox::open_lane(tx, workspace, owed.integration, now)?;
    if amendments::of(tx, workspace, owed.delivery)?.wanted.is_some() {
        return Err(amendments::pending());
    }
    // This second read follows the guard, because a worker may have had the queue until then.
    let state = owed_for(tx, workspace, call)?.map(|owed| owed.state);
    match state {
        Some(DeliveryState::Synced) => {
            Err(ApiError::conflict("already_synced", "This delivery is already in the EHR."))
        }
        Some(DeliveryState::Sending) => {
            Err(ApiError::conflict("being_sent", "This delivery is being sent: wait for its outcome."))
        }
        _ => Ok(()),
    }
}

/// Sends a corrected call's delivery again, if its data may have been the cause why the EHR did not take it.
pub fn corrected(
    tx: &mut WorkspaceGuard<'_, '_>,
    call: CallId,
    known: impl Iterator<Item = Missing>,
    now: Timestamp,
) -> Result<(), Error> {
    for fact in known {
        now_known(tx, call, fact, now)?;
    }
    let workspace = tx.row();
    for (delivery, integration, created_at) in store::refused_of(tx, workspace, call)? {
        store::requeue(tx, integration, delivery, created_at, now)?;
    }
    Ok(())
}

/// Releases a delivery that was held because this fact was unknown.
pub fn now_known(
    tx: &mut WorkspaceGuard<'_, '_>,
    call: CallId,
    fact: Missing,
    now: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    store::release_unmatched(tx, workspace, call, fact.reason(), now)
}

/// The resource that a connector creates for a call. `None` if no way to write a call is known.
pub fn resource_of(connector: &str) -> Option<&'static str> {
    form_of(connector).map(note::name_of)
}

/// Wakes this process's workers when a delivery is queued, so that they need not wait for their next poll,
/// and tells them when to stop.
#[derive(Clone, Default)]
pub struct Wake(Arc<Signals>);

#[derive(Default)]
struct Signals {
    due: Notify,
    stopped_at: OnceLock<Instant>,
}

impl Wake {
    /// Wakes a worker, because something is due now.
    pub fn wake(&self) {
        self.0.due.notify_one();
    }

    /// Waits until something is due, at most for `most`, because other processes cannot wake this one.
    pub async fn wait(&self, most: Duration) {
        let _ = tokio::time::timeout(most, self.0.due.notified()).await;
    }

    /// Tells workers to begin nothing new and to finish running work.
    pub fn stop(&self) {
        let _ = self.0.stopped_at.set(Instant::now());
        self.0.due.notify_waiters();
        self.0.due.notify_one();
    }

    /// The time since which workers must begin nothing new.
    pub fn stopped_at(&self) -> Option<Instant> {
        self.0.stopped_at.get().copied()
    }
}
