//! The JSON routes of deliveries.

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use ward_db::Uuid;

use super::actions::{self, InEhr};
use super::answers::answer_place;
use super::matching::{self, Matched, Part};
use super::store::{self, DeliveryFilter};
use super::wire::{DeliveryAttempt, DeliveryResponse, IntegrationSyncStatus};
use crate::app::App;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::Repeat;
use crate::http::{Query, Reply, Request, Sent};
use crate::ids::{CallId, DeliveryId, IntegrationId, WorkspaceId};
use crate::page::{Page, PageQuery, Paginated, TOTAL_LIMIT};
use crate::scan::{self, Window};

/// Attempts of one delivery that an answer contains.
const MOST_ATTEMPTS: i64 = 200;

#[derive(Serialize)]
struct DeliveryDetail {
    #[serde(flatten)]
    delivery: DeliveryResponse,
    attempts: Vec<DeliveryAttempt>,
    /// The EHR's id of the patient that Ward found there.
    matched_patient_id: Option<String>,
    /// The EHR's id of the encounter that Ward found there.
    matched_encounter_id: Option<String>,
}

#[derive(Serialize)]
struct SyncStatusResponse {
    integrations: Vec<IntegrationSyncStatus>,
}

#[derive(Deserialize)]
struct ListQuery {
    state: Option<String>,
    integration_id: Option<Uuid>,
    call_id: Option<Uuid>,
}

pub async fn list(request: Request, (entry, sent): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let query: ListQuery = sent.read()?;
    let page = sent.read::<PageQuery>()?.page();
    let filter = DeliveryFilter {
        state: query.state,
        integration: query.integration_id.map(IntegrationId),
        call: query.call_id.map(CallId),
    };
    let (rows, counted) = found(&request.app, workspace, filter, page).await?;
    let listed = Paginated::new(rows, page, counted, |shown| shown.position, |shown| shown);
    actions::note_read(&request.app, &entry, workspace, None).await?;
    Reply::ok(&listed)
}

/// A page of deliveries, and the number of matches, counted one beyond the exact limit of totals.
async fn found(
    app: &App,
    workspace: WorkspaceId,
    filter: DeliveryFilter,
    page: Page,
) -> Result<(Vec<DeliveryResponse>, i64), ApiError> {
    if filter.is_looked_up() {
        let read = app.read_long(workspace, "sync.list", move |tx| {
            let rows = store::list(tx, workspace, &filter, page)?;
            Ok::<_, ward_db::Error>((rows, store::count(tx, workspace, &filter, TOTAL_LIMIT + 1)?))
        });
        return read.await;
    }
    let list = store::Deliveries { workspace, filter };
    let rows = Window { limit: page.fetch(), offset: 0, counted: 0 };
    let rows = scan::read(app, workspace, "sync.list", list.clone(), Some(page.after), rows).await?.rows;
    let total = Window { limit: 0, offset: 0, counted: TOTAL_LIMIT + 1 };
    Ok((rows, scan::read(app, workspace, "sync.count", list, Some(0), total).await?.total))
}

/// The delivery in the path. A text that is not an id is treated like an unknown id.
fn named(request: &Request) -> DeliveryId {
    DeliveryId(Uuid::try_parse(request.parameter("delivery_id")).unwrap_or(Uuid::nil()))
}

pub async fn get(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let (workspace, id) = (entry.workspace()?.id, named(&request));
    let found = request
        .app
        .db
        .read("sync.get", move |tx| {
            let Some(delivery) = store::get(tx, workspace, id)? else { return Ok::<_, ward_db::Error>(None) };
            let matched = matching::stored(tx, workspace, id)?;
            Ok(Some((delivery, matched, store::attempts(tx, workspace, id, MOST_ATTEMPTS)?)))
        })
        .await?;
    let missing = ApiError::missing("delivery_not_found", "Delivery not found.");
    let (delivery, matched, attempts) = found.ok_or(missing)?;
    let at = (workspace, id, Part::Matched);
    let Matched { patient, encounter } = matching::opened(&request.app.vault, at, matched.as_deref());
    let matched_encounter_id = encounter.map(|(encounter, _)| encounter);
    let mut found = DeliveryDetail { delivery, attempts, matched_patient_id: patient, matched_encounter_id };
    for attempt in &mut found.attempts {
        let place = answer_place(workspace, id, attempt.number);
        // An answer that was sealed under a key that is gone is lost, and nothing else depends on it.
        let opened = attempt.sealed.as_deref().and_then(|sealed| request.app.vault.open(sealed, &place).ok());
        attempt.answer = opened.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    }
    actions::note_read(&request.app, &entry, workspace, Some(id)).await?;
    Reply::ok(&found)
}

pub async fn retry(request: Request, (entry, bytes): (Entry, Bytes)) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &bytes, StatusCode::OK)?;
    actions::retry(&request.app, entry, named(&request), repeat).await
}

/// `ResolveDeliveryRequest`: a person's findings in the EHR.
#[derive(Deserialize)]
pub struct ResolveDeliveryRequest {
    in_ehr: bool,
    location: Option<String>,
}

pub async fn resolve(
    request: Request,
    (entry, sent): (Entry, Sent<ResolveDeliveryRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    let ResolveDeliveryRequest { in_ehr, location } = sent.value;
    let found = if in_ehr { InEhr::Yes { location } } else { InEhr::No };
    actions::resolve(&request.app, entry, named(&request), found, repeat).await
}

/// `DropDeliveryRequest`: the reason of a person.
#[derive(Deserialize)]
pub struct DropDeliveryRequest {
    reason: String,
}

pub async fn drop(
    request: Request,
    (entry, sent): (Entry, Sent<DropDeliveryRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    actions::drop_one(&request.app, entry, named(&request), sent.value.reason, repeat).await
}

/// `RetryFailedRequest`: one integration, or all of them.
#[derive(Deserialize)]
pub struct RetryFailedRequest {
    integration_id: Option<Uuid>,
}

pub async fn retry_failed(
    request: Request,
    (entry, sent): (Entry, Sent<RetryFailedRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    let integration = sent.value.integration_id.map(IntegrationId);
    actions::retry_failed(&request.app, entry, integration, repeat).await
}

async fn status_of(request: &Request, workspace: WorkspaceId) -> Result<Reply, ApiError> {
    let integrations =
        request.app.read_long(workspace, "sync.status", move |tx| store::lanes(tx, workspace)).await?;
    Reply::ok(&SyncStatusResponse { integrations })
}

pub async fn status(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    status_of(&request, workspace).await
}

/// `HoldRequest`: whether the integration's deliveries pause.
#[derive(Deserialize)]
pub struct HoldRequest {
    held: bool,
}

pub async fn hold(request: Request, (entry, sent): (Entry, Sent<HoldRequest>)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let integration = Uuid::try_parse(request.parameter("integration_id")).unwrap_or(Uuid::nil());
    actions::set_held(&request.app, entry, IntegrationId(integration), sent.value.held).await?;
    status_of(&request, workspace).await
}
