//! Amendments: changes of a record that the EHR has already.
//!
//! A document is replaced by a further one that refers to it, with an identifier of its own. So its create is conditional and
//! searched for like the first one. A resource that the vendor's documents let a client update is written over instead. The
//! delivery keeps the number of the amendment that is to be written, and of the last one that arrived.

mod rules;
mod store;

use serde_json::json;
use ward_db::{Timestamp, Tx};

use super::outbox::open_lane;
use super::{DeliveryState, form_of, subject};
use crate::audit::Write;
use crate::error::ApiError;
use crate::ids::{CallId, DeliveryId, IntegrationId, WorkspaceId};
use crate::integrations;

pub use rules::Amendments;

/// A delivery whose record in the EHR can be amended.
#[derive(Clone, Copy, Debug)]
pub struct Amendable {
    pub delivery: DeliveryId,
    pub call: CallId,
    integration: IntegrationId,
    created_at: Timestamp,
    number: i64,
    /// Whether the record can move to another patient. A document stays in the chart in which it is.
    pub may_move: bool,
}

/// The refusal of a change while an amendment waits.
pub(super) const fn pending() -> ApiError {
    ApiError::conflict(
        "amendment_pending",
        "An amendment of this delivery has not reached the EHR yet: wait for it, or resolve the delivery.",
    )
}

/// The delivery with this id if the EHR has it, with its queue guarded against workers.
pub fn amendable(write: &mut Write<'_, '_>, delivery: DeliveryId) -> Result<Amendable, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let missing = ApiError::missing("delivery_not_found", "Delivery not found.");
    let found = super::store::get(write, workspace, delivery)?.ok_or(missing)?;
    open_lane(write, workspace, found.integration_id, now)?;
    // This second read follows the guard, because a worker may have had the queue until then.
    let missing = ApiError::missing("delivery_not_found", "Delivery not found.");
    let found = super::store::get(write, workspace, delivery)?.ok_or(missing)?;
    let amendments = store::get(write, workspace, delivery)?.unwrap_or_default();
    match DeliveryState::named(found.state) {
        Some(DeliveryState::Synced) => {}
        Some(DeliveryState::Sending) => {
            let detail = "This delivery is being sent: wait for its outcome.";
            return Err(ApiError::conflict("being_sent", detail));
        }
        _ if amendments.wanted.is_some() => return Err(pending()),
        _ => {
            let detail = "The EHR does not have this call, as far as Ward knows: correct the call instead.";
            return Err(ApiError::conflict("not_in_ehr", detail));
        }
    }
    let connector = integrations::name(write, workspace, found.integration_id)?.unwrap_or_default();
    Ok(Amendable {
        delivery,
        call: found.call_id,
        integration: found.integration_id,
        created_at: found.created_at,
        number: amendments.done.unwrap_or(0) + 1,
        may_move: form_of(&connector) == Some(super::note::MOVABLE),
    })
}

/// Queues an amendment with the call's present content. Returns its number.
pub fn amend(
    write: &mut Write<'_, '_>,
    record: Amendable,
    (fields, correction): (&[&'static str], i64),
) -> Result<i64, ApiError> {
    let now = write.now();
    store::want(write, record.delivery, record.number)?;
    super::store::requeue(write, record.integration, record.delivery, record.created_at, now)?;
    let what = json!({ "fields": fields, "correction": correction, "amendment": record.number });
    write.record("delivery.amend", subject("delivery", Some(record.delivery.0)), what)?;
    Ok(record.number)
}

pub(super) fn of(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    delivery: DeliveryId,
) -> Result<Amendments, ward_db::Error> {
    Ok(store::get(tx, workspace, delivery)?.unwrap_or_default())
}
