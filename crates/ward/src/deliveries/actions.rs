//! Writes on deliveries by people: retry, resolve, hold, release.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::wire::DeliveryResponse;
use super::{DeliveryState, amendments, outbox, store, subject};
use crate::app::App;
use crate::audit::{self, Actor, Write};
use crate::calls;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::{DeliveryId, IntegrationId, WorkspaceId};
use crate::integrations;

/// Failed deliveries that one request puts back into the queue.
const RETRIED_AT_ONCE: i64 = 1_000;

/// The JSON of the contract's schema `RetryResponse`.
#[derive(Serialize)]
pub struct RetryResponse {
    /// The number of deliveries that were put back into the queue.
    pub retried: i64,
    /// Whether more failed deliveries are left.
    pub has_more: bool,
}

/// Retries a delivery that failed, is held, or waits. A delivery that is in the EHR, is being sent, or
/// belongs to a call that was not real gets 409.
pub async fn retry(
    app: &Arc<App>,
    entry: Entry,
    delivery: DeliveryId,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let retry = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| retry_one(write, delivery))
    };
    let reply = entry.write(app, "sync.retry", retry).await?;
    app.sync.wake();
    Ok(reply)
}

/// [`retry`] within a transaction of the operator or a caller.
pub fn retry_one(write: &mut Write<'_, '_>, delivery: DeliveryId) -> Result<RetryResponse, ApiError> {
    let found = at_rest(write, delivery)?;
    let now = write.now();
    store::requeue(write, found.integration_id, delivery, found.created_at, now)?;
    let what = json!({ "from": found.state, "reason": found.reason });
    write.record("delivery.retry", subject("delivery", Some(delivery.0)), what)?;
    Ok(RetryResponse { retried: 1, has_more: false })
}

/// A delivery that may be sent and that no worker is sending, with its queue guarded against workers.
fn at_rest(write: &mut Write<'_, '_>, delivery: DeliveryId) -> Result<DeliveryResponse, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let found = store::get(write, workspace, delivery)?.ok_or(no_delivery())?;
    outbox::open_lane(write, workspace, found.integration_id, now)?;
    // This second read follows the guard, because a worker may have had the queue until then.
    let found = store::get(write, workspace, delivery)?.ok_or(no_delivery())?;
    let real = calls::by_id(write, workspace, found.call_id)?.and_then(|call| call.direction.real());
    if real.is_none() {
        return Err(ApiError::conflict(
            "not_a_real_call",
            "This call was not real, so it can never be sent to the EHR.",
        ));
    }
    match DeliveryState::named(found.state) {
        Some(
            DeliveryState::Failed | DeliveryState::Held | DeliveryState::Pending | DeliveryState::Dropped,
        ) => Ok(found),
        Some(DeliveryState::Synced) => {
            Err(ApiError::conflict("already_synced", "This delivery is already in the EHR."))
        }
        _ => Err(ApiError::conflict("being_sent", "This delivery is being sent: wait for its outcome.")),
    }
}

/// A person's findings in the EHR.
#[derive(Clone, Debug)]
pub enum InEhr {
    Yes {
        /// The location of the resource, if the person gives it.
        location: Option<String>,
    },
    /// The EHR does not contain the call.
    No,
}

/// The JSON of the contract's schema `ResolveDeliveryResponse`.
#[derive(Serialize)]
pub struct ResolveDeliveryResponse {
    pub id: DeliveryId,
    pub state: &'static str,
    /// The location of its resource in the EHR.
    pub location: Option<String>,
}

/// Settles or resends a delivery according to a person's findings in the EHR.
pub async fn resolve(
    app: &Arc<App>,
    entry: Entry,
    delivery: DeliveryId,
    found: InEhr,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let resolve = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| resolve_one(write, delivery, &found))
    };
    let reply = entry.write(app, "sync.resolve", resolve).await?;
    app.sync.wake();
    Ok(reply)
}

/// [`resolve`] within a transaction of the operator or a caller.
pub fn resolve_one(
    write: &mut Write<'_, '_>,
    delivery: DeliveryId,
    in_ehr: &InEhr,
) -> Result<ResolveDeliveryResponse, ApiError> {
    let now = write.now();
    let found = at_rest(write, delivery);
    // A person may find that the EHR does not have what Ward holds for synced.
    let found = match (found, in_ehr) {
        (Err(refused), InEhr::No) if refused.code() == "already_synced" => {
            let workspace = write.row();
            store::get(write, workspace, delivery)?.ok_or(no_delivery())?
        }
        (found, _) => found?,
    };
    let (state, location) = match in_ehr {
        InEhr::Yes { location } => {
            store::found_in_ehr(write, &found, location.as_deref(), now)?;
            (DeliveryState::Synced, location.clone())
        }
        InEhr::No => {
            // The worker searches again for a synced delivery first, because a person may err too.
            let searched = found.state == DeliveryState::Synced.name();
            store::not_in_ehr(write, delivery, searched)?;
            store::requeue(write, found.integration_id, delivery, found.created_at, now)?;
            (DeliveryState::Pending, None)
        }
    };
    let what = json!({
        "from": found.state,
        "reason": found.reason,
        "in_ehr": state == DeliveryState::Synced,
        "location": location,
    });
    write.record("delivery.resolve", subject("delivery", Some(delivery.0)), what)?;
    Ok(ResolveDeliveryResponse { id: delivery, state: state.name(), location })
}

/// The JSON of the contract's schema `DropDeliveryResponse`.
#[derive(Serialize)]
pub struct DropDeliveryResponse {
    pub id: DeliveryId,
    pub state: &'static str,
}

/// Drops a delivery, so that it is never sent. A delivery that is in the EHR or is being sent gets 409.
pub async fn drop_one(
    app: &Arc<App>,
    entry: Entry,
    delivery: DeliveryId,
    reason: String,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let drop = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| drop_within(write, delivery, &reason))
    };
    entry.write(app, "sync.drop", drop).await
}

/// [`drop_one`] within a transaction of the operator or a caller.
pub fn drop_within(
    write: &mut Write<'_, '_>,
    delivery: DeliveryId,
    reason: &str,
) -> Result<DropDeliveryResponse, ApiError> {
    let found = at_rest(write, delivery)?;
    if found.amendment.is_some() {
        // The record itself is in the EHR.
        return Err(amendments::pending());
    }
    // The reason stays with the delivery. It is not in the audit, because it may name a patient.
    let kept = json!({ "text": reason }).to_string();
    let now = write.now();
    store::dropped(write, &found, &kept, now)?;
    let what = json!({ "from": found.state, "reason": found.reason, "maybe_sent": found.maybe_sent });
    write.record("delivery.drop", subject("delivery", Some(delivery.0)), what)?;
    Ok(DropDeliveryResponse { id: delivery, state: DeliveryState::Dropped.name() })
}

/// Records that answers of EHRs were read. It runs before the answer is sent; if it fails, there is no
/// answer.
pub async fn note_read(
    app: &App,
    entry: &Entry,
    workspace: WorkspaceId,
    one: Option<DeliveryId>,
) -> Result<(), ApiError> {
    let (context, actor) = (entry.context.clone(), Actor::of(&entry.caller));
    let action = if one.is_some() { "delivery.read" } else { "delivery.list" };
    app.db
        .write("sync.note_read", move |tx| {
            let about = subject("delivery", one.map(|id| id.0));
            let event = about.event((workspace, &context), actor.clone(), action, json!({}));
            audit::record_phi_access(tx, event)
        })
        .await
}

/// Retries the failed deliveries of one integration or of all, a bounded number at a time.
pub async fn retry_failed(
    app: &Arc<App>,
    entry: Entry,
    integration: Option<IntegrationId>,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let retry = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| retry_all(write, integration))
    };
    let reply = entry.write(app, "sync.retry_failed", retry).await?;
    app.sync.wake();
    Ok(reply)
}

/// [`retry_failed`] within a transaction of the operator or a caller.
pub fn retry_all(
    write: &mut Write<'_, '_>,
    integration: Option<IntegrationId>,
) -> Result<RetryResponse, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    // One query per integration uses the index; among all deliveries of the workspace, the failed ones may
    // be few in a million.
    let owed = match integration {
        Some(integration) => vec![integration],
        None => store::owed_integrations(write, workspace)?,
    };
    let most = usize::try_from(RETRIED_AT_ONCE).unwrap_or(usize::MAX);
    let mut failed = Vec::new();
    for integration in owed {
        if failed.len() <= most {
            failed.extend(store::failed(write, workspace, integration, RETRIED_AT_ONCE + 1)?);
        }
    }
    let has_more = failed.len() > most;
    failed.truncate(most);
    for (delivery, integration, created_at) in &failed {
        store::requeue(write, *integration, *delivery, *created_at, now)?;
    }
    let retried = i64::try_from(failed.len()).unwrap_or(i64::MAX);
    if retried > 0 {
        let about = subject("integration", integration.map(|integration| integration.0));
        write.record("delivery.retry_failed", about, json!({ "retried": retried }))?;
    }
    Ok(RetryResponse { retried, has_more })
}

const fn no_delivery() -> ApiError {
    ApiError::missing("delivery_not_found", "Delivery not found.")
}

/// Pauses an integration's deliveries, or resumes them.
pub async fn set_held(
    app: &Arc<App>,
    entry: Entry,
    integration: IntegrationId,
    held: bool,
) -> Result<(), ApiError> {
    let set = move |write: &mut Write<'_, '_>, _: &Held| hold(write, integration, held);
    entry.write(app, "sync.hold", set).await?;
    app.sync.wake();
    Ok(())
}

/// [`set_held`] within a transaction of the operator or a caller.
pub fn hold(write: &mut Write<'_, '_>, integration: IntegrationId, held: bool) -> Result<(), ApiError> {
    let (workspace, now) = (write.row(), write.now());
    if !integrations::exists_by_id(write, workspace, integration)? {
        return Err(ApiError::missing("integration_not_found", "Integration not found."));
    }
    let key = (workspace, integration);
    outbox::open_lane(write, workspace, integration, now)?;
    if held {
        store::hold(write, key, "operator", now)?;
    } else {
        store::release(write, key, now)?;
    }
    let action = if held { "integration.hold" } else { "integration.release" };
    write.record(action, subject("integration", Some(integration.0)), json!({}))
}
