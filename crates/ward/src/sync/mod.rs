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

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use ward_db::{Error, Timestamp, Tx};

use crate::calls::RealDirection;
use crate::ids::{CallId, DeliveryId, IntegrationId, WorkspaceId};
use crate::workspaces;

pub use api::LaneShown;
pub use outbox::owed_for;
pub use store::{lanes, owed_by_unreal, sent_for};

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

/// Makes a finished call owed to an integration, once however often it is said, in the transaction that finishes it.
pub fn enqueue(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
    call: CallId,
    direction: RealDirection,
    now: Timestamp,
) -> Result<(), Error> {
    let position = workspaces::next_position(tx, workspace, now)?;
    outbox::insert(tx, workspace, integration, call, direction, position, now)
}

/// A call's patient became known: a delivery that was held for want of one can go.
pub fn patient_known(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    call: CallId,
    now: Timestamp,
) -> Result<(), Error> {
    outbox::release_unmatched(tx, workspace, call, now)
}

/// The resource that a connector takes a call as.
pub fn resource_of(connector: &str) -> &'static str {
    match connector {
        "hubspot" => "HubSpot call",
        "epic" | "cerner" | "allscripts" => "FHIR DocumentReference",
        _ => "FHIR Communication",
    }
}

/// Wakes this process's workers when something became owed, so that they need not wait for their next look.
#[derive(Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Something is due now.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits until something is due, at most so long: other processes cannot wake this one.
    pub async fn wait(&self, most: Duration) {
        let _ = tokio::time::timeout(most, self.0.notified()).await;
    }
}
