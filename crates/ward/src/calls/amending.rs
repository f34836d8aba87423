//! A person's amendments of a call whose record the EHR has.
//!
//! The call changes like by a correction, and its values stay sealed in the same place. Its delivery then writes the record
//! again, by the means that the vendor's documents describe.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::correcting::{self, Applied};
use super::store;
use crate::app::App;
use crate::audit::Write;
use crate::deliveries::{self, DeliveryState};
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::DeliveryId;
use crate::vault::Vault;

/// The JSON of the contract's schema `AmendDeliveryResponse`.
#[derive(Serialize)]
pub struct AmendDeliveryResponse {
    pub id: DeliveryId,
    /// The fields whose values have changed.
    pub changed: Vec<&'static str>,
    /// The number of the amendment; `None` if nothing changed.
    pub amendment: Option<i64>,
    /// The state of the delivery afterwards.
    pub state: &'static str,
}

/// Amends the record of a delivery. A delivery that the EHR does not have gets 409.
pub(super) async fn amend(
    app: &Arc<App>,
    entry: Entry,
    delivery: DeliveryId,
    fields: Map<String, Value>,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let vault = app.vault.clone();
    let amend = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| amend_within(write, &vault, delivery, &fields))
    };
    let reply = entry.write(app, "calls.amend", amend).await?;
    app.sync.wake();
    Ok(reply)
}

/// `amend` within a transaction of the operator or a caller. A field that is absent or null stays, and an empty text removes
/// the value.
pub fn amend_within(
    write: &mut Write<'_, '_>,
    vault: &Vault,
    delivery: DeliveryId,
    fields: &Map<String, Value>,
) -> Result<AmendDeliveryResponse, ApiError> {
    let record = deliveries::amendable(write, delivery)?;
    let workspace = write.row();
    let missing = ApiError::missing("delivery_not_found", "Delivery not found.");
    let mut call = store::by_id(write, workspace, record.call)?.ok_or(missing)?;
    let patient = fields.get("patient_id").and_then(Value::as_str).unwrap_or_default();
    let moves = !patient.is_empty() && call.detail("patient_id") != Some(patient);
    let removes = fields.get("patient_id").is_some_and(|id| *id == "") && call.detail("patient_id").is_some();
    if (moves || removes) && !record.may_move {
        return Err(ApiError::conflict(
            "patient_in_chart",
            "The document is in the chart of a patient and cannot move. Mark it there as entered in error, and file the call by hand.",
        ));
    }
    let applied = correcting::apply(write, vault, &mut call, fields)?;
    let Some(Applied { changed, number }) = applied else {
        let state = DeliveryState::Synced.name();
        return Ok(AmendDeliveryResponse { id: delivery, changed: Vec::new(), amendment: None, state });
    };
    let amendment = deliveries::amend(write, record, (&changed, number))?;
    let state = DeliveryState::Pending.name();
    Ok(AmendDeliveryResponse { id: delivery, changed, amendment: Some(amendment), state })
}
