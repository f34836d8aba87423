//! Writes on deliveries by people: retry, resolve, hold, release.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use ward_db::{Timestamp, Tx, Uuid};

use super::wire::DeliveryResponse;
use super::{DeliveryState, outbox, store};
use crate::app::App;
use crate::audit::{self, Actor, Event};
use crate::calls;
use crate::context::Context;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::{DeliveryId, IntegrationId, WorkspaceId};
use crate::integrations;

/// Failed deliveries that one request puts back into the queue.
const RETRIED_AT_ONCE: i64 = 1_000;

fn event<'a>(
    context: &'a Context,
    actor: Actor,
    action: &'static str,
    workspace: WorkspaceId,
    (resource_type, resource): (&'static str, Option<Uuid>),
    metadata: Value,
) -> Event<'a> {
    Event {
        workspace,
        service: "sync",
        action,
        resource_type,
        resource_id: resource,
        resource_name: None,
        actor,
        context,
        metadata,
    }
}

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
    let vault = app.vault.clone();
    let reply = app
        .db
        .write("sync.retry", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            repeat.once(tx, &vault, Secrecy::Open, |tx| {
                let (workspace, now) = (seen.workspace.id, entry.context.now);
                retry_one(tx, &entry.context, Actor::of(&caller), workspace, delivery, now)
            })
        })
        .await?;
    app.sync.wake();
    Ok(reply)
}

/// [`retry`] within a transaction of the operator or a caller.
pub fn retry_one(
    tx: &mut Tx<'_>,
    context: &Context,
    actor: Actor,
    workspace: WorkspaceId,
    delivery: DeliveryId,
    now: Timestamp,
) -> Result<RetryResponse, ApiError> {
    let found = at_rest(tx, workspace, delivery, now)?;
    store::requeue(tx, workspace, found.integration_id, delivery, found.created_at, now)?;
    let what = json!({ "from": found.state, "reason": found.reason });
    audit::record(
        tx,
        event(context, actor, "delivery.retry", workspace, ("delivery", Some(delivery.0)), what),
    )?;
    Ok(RetryResponse { retried: 1, has_more: false })
}

/// A delivery that may be sent and that no worker is sending, with its queue guarded against workers.
fn at_rest(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    delivery: DeliveryId,
    now: Timestamp,
) -> Result<DeliveryResponse, ApiError> {
    let found = store::get(tx, workspace, delivery)?.ok_or(no_delivery())?;
    outbox::open_lane(tx, workspace, found.integration_id, now)?;
    // This second read follows the guard, because a worker may have had the queue until then.
    let found = store::get(tx, workspace, delivery)?.ok_or(no_delivery())?;
    let real = calls::by_id(tx, workspace, found.call_id)?.and_then(|call| call.direction.real());
    if real.is_none() {
        return Err(ApiError::conflict(
            "not_a_real_call",
            "This call was not real, so it can never be sent to the EHR.",
        ));
    }
    match DeliveryState::named(found.state) {
        Some(DeliveryState::Failed | DeliveryState::Held | DeliveryState::Pending) => Ok(found),
        Some(DeliveryState::Synced) => {
            Err(ApiError::conflict("already_synced", "This delivery is already in the EHR."))
        }
        _ => Err(ApiError::conflict("being_sent", "This delivery is being sent: wait for its outcome.")),
    }
}

/// A person's findings in the EHR.
#[derive(Clone, Debug)]
pub enum InEhr {
    /// The EHR contains the call.
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
    /// The id of the delivery.
    pub id: DeliveryId,
    /// The state after the resolution.
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
    let vault = app.vault.clone();
    let reply = app
        .db
        .write("sync.resolve", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            repeat.once(tx, &vault, Secrecy::Open, |tx| {
                let workspace = seen.workspace.id;
                resolve_one(tx, &entry.context, Actor::of(&caller), workspace, delivery, &found)
            })
        })
        .await?;
    app.sync.wake();
    Ok(reply)
}

/// [`resolve`] within a transaction of the operator or a caller.
pub fn resolve_one(
    tx: &mut Tx<'_>,
    context: &Context,
    actor: Actor,
    workspace: WorkspaceId,
    delivery: DeliveryId,
    in_ehr: &InEhr,
) -> Result<ResolveDeliveryResponse, ApiError> {
    let now = context.now;
    let found = at_rest(tx, workspace, delivery, now)?;
    let (state, location) = match in_ehr {
        InEhr::Yes { location } => {
            store::found_in_ehr(tx, workspace, &found, location.as_deref(), now)?;
            (DeliveryState::Synced, location.clone())
        }
        InEhr::No => {
            store::not_in_ehr(tx, workspace, delivery)?;
            store::requeue(tx, workspace, found.integration_id, delivery, found.created_at, now)?;
            (DeliveryState::Pending, None)
        }
    };
    let what = json!({
        "from": found.state,
        "reason": found.reason,
        "in_ehr": state == DeliveryState::Synced,
        "location": location,
    });
    audit::record(
        tx,
        event(context, actor, "delivery.resolve", workspace, ("delivery", Some(delivery.0)), what),
    )?;
    Ok(ResolveDeliveryResponse { id: delivery, state: state.name(), location })
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
            let about = ("delivery", one.map(|id| id.0));
            audit::record_phi_access(tx, event(&context, actor.clone(), action, workspace, about, json!({})))
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
    let vault = app.vault.clone();
    let reply = app
        .db
        .write("sync.retry_failed", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            repeat.once(tx, &vault, Secrecy::Open, |tx| {
                retry_all(tx, &entry.context, Actor::of(&caller), seen.workspace.id, integration)
            })
        })
        .await?;
    app.sync.wake();
    Ok(reply)
}

/// [`retry_failed`] within a transaction of the operator or a caller.
pub fn retry_all(
    tx: &mut Tx<'_>,
    context: &Context,
    actor: Actor,
    workspace: WorkspaceId,
    integration: Option<IntegrationId>,
) -> Result<RetryResponse, ApiError> {
    // One query per integration uses the index; among all deliveries of the workspace, the failed ones may
    // be few in a million.
    let owed = match integration {
        Some(integration) => vec![integration],
        None => store::owed_integrations(tx, workspace)?,
    };
    let most = usize::try_from(RETRIED_AT_ONCE).unwrap_or(usize::MAX);
    let mut failed = Vec::new();
    for integration in owed {
        if failed.len() <= most {
            failed.extend(store::failed(tx, workspace, integration, RETRIED_AT_ONCE + 1)?);
        }
    }
    let has_more = failed.len() > most;
    failed.truncate(most);
    for (delivery, integration, created_at) in &failed {
        store::requeue(tx, workspace, *integration, *delivery, *created_at, context.now)?;
    }
    let retried = i64::try_from(failed.len()).unwrap_or(i64::MAX);
    if retried > 0 {
        let about = ("integration", integration.map(|integration| integration.0));
        let what = json!({ "retried": retried });
        audit::record(tx, event(context, actor, "delivery.retry_failed", workspace, about, what))?;
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
    app.db
        .write("sync.hold", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            hold(tx, &entry.context, Actor::of(&caller), seen.workspace.id, integration, held)
        })
        .await?;
    app.sync.wake();
    Ok(())
}

/// [`set_held`] within a transaction of the operator or a caller.
pub fn hold(
    tx: &mut Tx<'_>,
    context: &Context,
    actor: Actor,
    workspace: WorkspaceId,
    integration: IntegrationId,
    held: bool,
) -> Result<(), ApiError> {
    if !integrations::exists_by_id(tx, workspace, integration)? {
        return Err(ApiError::missing("integration_not_found", "Integration not found."));
    }
    let key = (workspace, integration);
    outbox::open_lane(tx, workspace, integration, context.now)?;
    if held {
        store::hold(tx, key, "operator", context.now)?;
    } else {
        store::release(tx, key, context.now)?;
    }
    let action = if held { "integration.hold" } else { "integration.release" };
    audit::record(
        tx,
        event(context, actor, action, workspace, ("integration", Some(integration.0)), json!({})),
    )
}
