//! The preview of a delivery: the request that would be sent, composed by the same code, and nothing is sent.

use serde::Serialize;
use ward_db::Uuid;
use ward_ehr::delivery::{Form, Preview};

use super::note::{self, Sought};
use super::{DeliveryState, actions, amendments, matching, store};
use crate::calls;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Reply, Request};
use crate::ids::DeliveryId;
use crate::integrations::{self, Connection, PatientRule};

/// The JSON of the contract's schema `DeliveryPreview`.
#[derive(Serialize)]
struct DeliveryPreview {
    id: DeliveryId,
    state: &'static str,
    /// The reason why nothing would be sent, as one word.
    not_sent_because: Option<&'static str>,
    /// The resource that the EHR would be asked for first, and that the request would then name.
    looked_up: Option<&'static str>,
    request: Option<PreviewedRequest>,
}

#[derive(Serialize)]
struct PreviewedRequest {
    method: String,
    url: String,
    headers: Vec<PreviewedHeader>,
    body: String,
}

#[derive(Serialize)]
struct PreviewedHeader {
    name: String,
    value: String,
}

impl From<Preview> for PreviewedRequest {
    fn from(preview: Preview) -> Self {
        let headers = preview.headers.into_iter().map(|(name, value)| PreviewedHeader { name, value });
        Self { method: preview.method, url: preview.url, headers: headers.collect(), body: preview.body }
    }
}

pub async fn preview(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let id = DeliveryId(Uuid::try_parse(request.parameter("delivery_id")).unwrap_or(Uuid::nil()));
    let read = request.app.db.read("sync.preview", move |tx| {
        let Some(found) = store::get(tx, workspace, id)? else { return Ok(None) };
        let call = calls::by_id(tx, workspace, found.call_id)?;
        let amended = amendments::of(tx, workspace, id)?;
        let matched = matching::stored(tx, workspace, id)?;
        Ok::<_, ward_db::Error>(call.map(|call| (found, call, amended, matched)))
    });
    let missing = ApiError::missing("delivery_not_found", "Delivery not found.");
    let (found, call, amended, matched) = read.await?.ok_or(missing)?;
    let at = (workspace, id, matching::Part::Matched);
    let matched: matching::Matched = matching::opened(&request.app.vault, at, matched.as_deref());
    let connection = integrations::connection(&request.app, workspace, found.integration_id).await?;
    let of = |not_sent_because, looked_up, request| DeliveryPreview {
        id,
        state: found.state,
        not_sent_because,
        looked_up,
        request,
    };
    let preview = match (connection, call.direction.real()) {
        (_, None) => of(Some("not_a_real_call"), None, None),
        (None, _) => of(Some("integration_gone"), None, None),
        (Some(connection), Some(direction)) => {
            let mut told = note::of(workspace, &call, direction, (&connection.name, &connection.delivery));
            told.patient = told.patient.or_else(|| matched.patient.clone());
            if let (None, Some(patient)) = (&told.encounter, &told.patient) {
                told.encounter = matched.encounter_of(patient).map(str::to_owned);
            }
            let (because, looked_up, request) = composed(&connection, told, &amended);
            let settled =
                found.state == DeliveryState::Synced.name() || found.state == DeliveryState::Dropped.name();
            of(because.or(settled.then_some("settled")), looked_up, request.map(PreviewedRequest::from))
        }
    };
    actions::note_read(&request.app, &entry, workspace, Some(id)).await?;
    Reply::ok(&preview)
}

/// The reason why nothing would be sent, the look-up, and the request.
fn composed(
    connection: &Connection,
    told: ward_ehr::delivery::CallNote,
    amended: &amendments::Amendments,
) -> (Option<&'static str>, Option<&'static str>, Option<Preview>) {
    let Some(form) = note::form_of(&connection.name) else {
        return (Some("connector_takes_no_calls"), None, None);
    };
    match note::patient_rule(form, &connection.delivery) {
        _ if told.patient.is_some() => {}
        // The answer of the EHR is a part of the request.
        PatientRule::Search | PatientRule::Match => return (None, Some("patient"), None),
        PatientRule::Reported if form.needs_patient() => return (Some("unmatched_patient"), None, None),
        PatientRule::Reported => {}
    }
    let looked_up = match note::sought((&connection.name, &connection.delivery), form, &told) {
        Sought::Unreported => return (Some("unmatched_encounter"), None, None),
        Sought::Nothing => None,
        Sought::Encounter => Some("encounter"),
        Sought::Contact => Some("contact"),
    };
    let (told, amends) = match amended.wanted {
        Some(_) if form == Form::PatientCase => return (Some("no_amendment"), None, None),
        Some(_) => (amended.numbered(form, told), amended.of.as_deref()),
        None => (told, None),
    };
    match form.preview(&connection.base_url, &told, amends) {
        Ok(Some(preview)) => (None, looked_up, Some(preview)),
        Ok(None) => (Some("cannot_tell"), looked_up, None),
        Err(_) => (Some("misconfigured"), looked_up, None),
    }
}
