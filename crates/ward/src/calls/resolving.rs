//! A person's decisions about the patient or the encounter of a held delivery.
//!
//! A decision changes the call like a correction, so its values stay sealed in the same place. The delivery then goes by itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Map;
use uuid::Uuid;

use super::{correcting, store};
use crate::app::App;
use crate::audit::Write;
use crate::deliveries::{DeliveryState, matching};
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::{DeliveryId, ReviewId};
use crate::vault::Vault;

/// The JSON of the contract's schema `ResolveReviewRequest`.
#[derive(Clone, Debug, Deserialize)]
pub struct ResolveReviewRequest {
    /// The review that the person has read.
    pub review_id: Uuid,
    /// The EHR's id of the patient or of the encounter: a candidate's, or another one.
    pub id: String,
}

/// The JSON of the contract's schema `ResolveReviewResponse`.
#[derive(Debug, Serialize)]
pub struct ResolveReviewResponse {
    pub delivery_id: DeliveryId,
    /// The decided fact: `patient` or `encounter`.
    pub needs: &'static str,
    /// The state of the delivery afterwards.
    pub state: &'static str,
}

/// Decides a review. One that is closed, or was replaced by another, gets 409.
pub(super) async fn resolve(
    app: &Arc<App>,
    entry: Entry,
    delivery: DeliveryId,
    decision: ResolveReviewRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let vault = app.vault.clone();
    let resolve = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| resolve_within(write, &vault, delivery, &decision))
    };
    let reply = entry.write(app, "calls.resolve_review", resolve).await?;
    app.sync.wake();
    Ok(reply)
}

/// `resolve` within a transaction of the operator or a caller.
pub fn resolve_within(
    write: &mut Write<'_, '_>,
    vault: &Vault,
    delivery: DeliveryId,
    decision: &ResolveReviewRequest,
) -> Result<ResolveReviewResponse, ApiError> {
    let reviewed = matching::reviewed(write, delivery, ReviewId(decision.review_id))?;
    let workspace = write.row();
    let missing = ApiError::missing("delivery_not_found", "Delivery not found.");
    let mut call = store::by_id(write, workspace, reviewed.call)?.ok_or(missing)?;
    let field = reviewed.needs.detail().to_owned();
    let fields = Map::from_iter([(field, decision.id.clone().into())]);
    let applied = correcting::apply(write, vault, &mut call, &fields)?;
    matching::resolved(write, &reviewed, applied.map(|applied| applied.number))?;
    let (needs, state) = (reviewed.needs.name(), DeliveryState::Pending.name());
    Ok(ResolveReviewResponse { delivery_id: delivery, needs, state })
}
