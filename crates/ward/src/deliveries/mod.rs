//! Deliveries of finished calls to EHRs: queued with the call's end, sent by workers, settled once.
//!
//! A call that was not real is never delivered. Four barriers ensure this, each sufficient by itself. This
//! module accepts only a [`RealDirection`], which other calls do not have. The database checks the
//! direction of a delivery. A foreign key makes that direction the call's own. And a worker checks the call
//! again before it sends.

pub mod actions;
pub mod api;
pub mod backoff;
mod note;
mod outbox;
mod store;
mod wire;
pub mod worker;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use ward_db::{Error, Timestamp};

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::calls::RealDirection;
use crate::guard::WorkspaceGuard;
use crate::ids::{CallId, DeliveryId, IntegrationId};
use crate::names::named;
use crate::workspaces;

pub use outbox::{mark_all_uncertain, owed_for};
pub use store::{lanes, owed_by_unreal, sent_for, waits};
pub use wire::IntegrationSyncStatus;

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryState {
    /// It waits for its turn or its next attempt.
    Pending,
    /// A worker is sending it. If the worker died, this state stays until the lease expires.
    Sending,
    /// It arrived in the EHR.
    Synced,
    /// It waits for a decision of a person; its reason says which.
    Held,
    /// The EHR refused it for good, or it was tried for too long.
    Failed,
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

/// Makes a call's delivery due now, because no further report of the call is expected.
pub fn make_due(tx: &mut WorkspaceGuard<'_, '_>, call: CallId, now: Timestamp) -> Result<(), Error> {
    let workspace = tx.row();
    store::make_due(tx, workspace, call, now)
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

    /// The reason of a delivery that is held for it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Patient => "unmatched_patient",
            Self::Encounter => "unmatched_encounter",
        }
    }
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
    note::form_of(connector).map(note::name_of)
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
