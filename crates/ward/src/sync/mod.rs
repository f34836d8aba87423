//! What finished calls owe to EHRs: inserted with the call's end, sent by workers, settled once.
//!
//! A call that was not real can owe nothing. Four walls stand in the way, each of which would do alone: this module takes
//! a [`RealDirection`], which other calls do not have; the database checks the direction of a delivery; a foreign key
//! makes that direction the call's own; and a worker looks at the call again before it sends.

pub mod actions;
pub mod api;
pub mod backoff;
mod note;
mod outbox;
mod store;
pub mod worker;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use ward_db::{Error, Timestamp, Tx};

use crate::calls::RealDirection;
use crate::ids::{CallId, DeliveryId, IntegrationId, WorkspaceId};
use crate::workspaces;

pub use api::LaneShown;
pub use outbox::{doubt_all, owed_for};
pub use store::{lanes, owed_by_unreal, sent_for, waits};

/// Where a delivery is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// Waiting for its turn, or for its next try.
    Pending,
    /// In the hands of a worker. One that died leaves it so until its lease runs out.
    Sending,
    /// In the EHR.
    Synced,
    /// Kept back until somebody does something; the reason says what.
    Held,
    /// Refused for good, or tried for too long.
    Failed,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Sending, Self::Synced, Self::Held, Self::Failed];

    /// Its name in the database and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Synced => "synced",
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What a call owes, and how far that has come.
#[derive(Clone, Copy, Debug)]
pub struct Owed {
    /// The delivery.
    pub delivery: DeliveryId,
    /// To which integration.
    pub integration: IntegrationId,
    /// How far it has come.
    pub state: DeliveryState,
}

/// Makes a finished call owed to an integration, once however often it is said, in the transaction that finishes it. It
/// is sent at `due_at` at the earliest.
pub fn enqueue(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
    call: CallId,
    direction: RealDirection,
    (now, due_at): (Timestamp, Timestamp),
) -> Result<(), Error> {
    let position = workspaces::next_position(tx, workspace, now)?;
    outbox::insert(tx, (workspace, integration), call, direction, position, (now, due_at))
}

/// Nothing more is waited for of this call: what it owes is due now.
pub fn hurry(tx: &mut Tx<'_>, workspace: WorkspaceId, call: CallId, now: Timestamp) -> Result<(), Error> {
    store::hurry(tx, workspace, call, now)
}

/// An integration was changed: what waits for it is looked at again at once, by every worker's next look.
pub fn integration_changed(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
    now: Timestamp,
) -> Result<(), Error> {
    store::reopen(tx, workspace, Some(integration), now)
}

/// An integration was deleted, and its lane goes with it: or lanes would grow without an end.
pub fn integration_deleted(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
) -> Result<(), Error> {
    store::delete_lane(tx, workspace, integration)
}

/// A workspace is active again: the same for all of its integrations.
pub fn workspace_restored(tx: &mut Tx<'_>, workspace: WorkspaceId, now: Timestamp) -> Result<(), Error> {
    store::reopen(tx, workspace, None, now)
}

/// A call's patient became known: a delivery that was held for want of one can go.
pub fn patient_known(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    call: CallId,
    now: Timestamp,
) -> Result<(), Error> {
    store::release_unmatched(tx, workspace, call, now)
}

/// The resource that a connector takes a call as. `None`: no way to write a call there is known.
pub fn resource_of(connector: &str) -> Option<&'static str> {
    note::form_of(connector).map(note::name_of)
}

/// Wakes this process's workers when something became owed, so that they need not wait for their next look, and tells
/// them when to come to an end.
#[derive(Clone, Default)]
pub struct Wake(Arc<Signals>);

#[derive(Default)]
struct Signals {
    due: Notify,
    stopped_at: OnceLock<Instant>,
}

impl Wake {
    /// Something is due now.
    pub fn wake(&self) {
        self.0.due.notify_one();
    }

    /// Waits until something is due, at most so long: other processes cannot wake this one.
    pub async fn wait(&self, most: Duration) {
        let _ = tokio::time::timeout(most, self.0.due.notified()).await;
    }

    /// Begin nothing any more, and finish what is under way.
    pub fn stop(&self) {
        let _ = self.0.stopped_at.set(Instant::now());
        self.0.due.notify_waiters();
        self.0.due.notify_one();
    }

    /// Since when nothing more is to be begun.
    pub fn stopped_at(&self) -> Option<Instant> {
        self.0.stopped_at.get().copied()
    }
}
