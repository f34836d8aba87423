//! A person's decision about a held delivery. `calls` stores it as a correction of the call, with sealed values.

use serde_json::json;

use super::super::{Missing, outbox, store as deliveries, subject};
use super::store;
use crate::audit::Write;
use crate::error::ApiError;
use crate::ids::{CallId, DeliveryId, IntegrationId, ReviewId};
use ward_db::Timestamp;

/// A held delivery about which a person decides, with its queue guarded against workers.
#[derive(Clone, Debug)]
pub struct Reviewed {
    pub delivery: DeliveryId,
    pub call: CallId,
    pub needs: Missing,
    integration: IntegrationId,
    created_at: Timestamp,
    because: String,
}

/// The delivery of an open review. A review that was closed or replaced since gets 409.
pub fn reviewed(
    write: &mut Write<'_, '_>,
    delivery: DeliveryId,
    review: ReviewId,
) -> Result<Reviewed, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let missing = || ApiError::missing("delivery_not_found", "Delivery not found.");
    let found = deliveries::get(write, workspace, delivery)?.ok_or_else(missing)?;
    outbox::open_lane(write, workspace, found.integration_id, now)?;
    let closed = || {
        ApiError::conflict(
            "review_closed",
            "This review is closed: another person decided it, or the EHR was asked again. Read the list of reviews.",
        )
    };
    let (open, _) = store::get(write, workspace, delivery)?.ok_or_else(closed)?;
    if open.review_id != review {
        return Err(closed());
    }
    let needs = Missing::named(&open.needs).ok_or_else(closed)?;
    Ok(Reviewed {
        delivery,
        call: open.call_id,
        needs,
        integration: open.integration_id,
        created_at: found.created_at,
        because: open.because,
    })
}

/// Queues a decided delivery, with its event. The event names no resource of the EHR.
pub fn resolved(
    write: &mut Write<'_, '_>,
    reviewed: &Reviewed,
    correction: Option<i64>,
) -> Result<(), ApiError> {
    let now = write.now();
    deliveries::requeue(write, reviewed.integration, reviewed.delivery, reviewed.created_at, now)?;
    let what = json!({
        "needs": reviewed.needs.name(),
        "because": reviewed.because,
        "correction": correction,
    });
    write.record("review.resolve", subject("delivery", Some(reviewed.delivery.0)), what)
}
