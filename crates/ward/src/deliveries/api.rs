//! The JSON routes of deliveries.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use ward_db::{Timestamp, Uuid};

use super::actions::{self, InEhr};
use super::store::{self, Filter};
use crate::app::App;
use crate::error::ApiError;
use crate::http::idempotency::Repeat;
use crate::http::{Call, Reply};
use crate::ids::{CallId, DeliveryId, IntegrationId, WorkspaceId};
use crate::page::{Page, PageQuery, Paginated, TOTAL_LIMIT};
use crate::scan::{self, Wanted};

/// Attempts of one delivery that an answer contains.
const MOST_ATTEMPTS: i64 = 200;

/// `DeliveryResponse`
#[derive(Serialize)]
pub struct Shown {
    /// The id of the delivery.
    pub id: DeliveryId,
    /// The integration that receives the call.
    pub integration_id: IntegrationId,
    /// The id of the call.
    pub call_id: CallId,
    /// The provider's id of the call.
    pub call_sid: String,
    /// The direction of the call: `inbound` or `outbound`.
    pub direction: String,
    /// The name of a [`super::DeliveryState`].
    pub state: &'static str,
    /// The reason for the state, as one word.
    pub reason: Option<String>,
    /// The number of attempts so far.
    pub attempt_count: i64,
    /// Whether an attempt may have arrived, so that the next one searches the EHR first.
    pub maybe_sent: bool,
    /// The time of the next attempt; `None` if none is planned.
    pub next_attempt_at: Option<Timestamp>,
    /// The location of its resource in the EHR.
    pub location: Option<String>,
    /// The EHR's last answer.
    pub outcome: Option<Box<RawValue>>,
    /// The timestamp at which it was queued.
    pub created_at: Timestamp,
    /// The timestamp of its last final state.
    pub settled_at: Option<Timestamp>,
    /// The position in the list.
    #[serde(skip)]
    pub position: i64,
}

/// `DeliveryAttempt`
#[derive(Serialize)]
pub struct AttemptShown {
    /// The number of the attempt, from 1.
    pub number: i64,
    /// The outcome, as one word.
    pub outcome: String,
    /// The HTTP status, if there was an answer.
    pub status: Option<i64>,
    /// The start of the attempt.
    pub started_at: Timestamp,
    /// The end of the attempt.
    pub ended_at: Timestamp,
    /// The answer of the EHR, or the reason why there was none.
    pub detail: Option<Box<RawValue>>,
}

/// `DeliveryDetail`
#[derive(Serialize)]
struct Detail {
    #[serde(flatten)]
    delivery: Shown,
    attempts: Vec<AttemptShown>,
}

/// `IntegrationSyncStatus`
#[derive(Debug, Serialize)]
pub struct LaneShown {
    /// The id of the integration.
    pub integration_id: IntegrationId,
    /// The name; null if the integration was deleted.
    pub name: Option<String>,
    /// Whether its deliveries are paused.
    pub held: bool,
    /// The cause: `operator`, `unauthorized` or `misconfigured`.
    pub held_because: Option<String>,
    /// The start of the pause.
    pub held_at: Option<Timestamp>,
    /// The reason why the queue waits, as one word.
    pub waits_because: Option<String>,
    /// The time of the next attempt; null if none is planned.
    pub next_attempt_at: Option<Timestamp>,
    /// Consecutive failures since the last success.
    pub failures_in_a_row: i64,
    /// The timestamp of the last successful delivery.
    pub last_success_at: Option<Timestamp>,
    /// Deliveries that wait or are being sent.
    pub pending: i64,
    /// The timestamp at which the oldest of them was queued.
    pub oldest_pending_at: Option<Timestamp>,
    /// Deliveries that are held individually.
    pub held_deliveries: i64,
    /// Deliveries that failed for good.
    pub failed: i64,
    /// Deliveries that arrived in the EHR.
    pub synced: i64,
}

/// `SyncStatusResponse`
#[derive(Serialize)]
struct Status {
    integrations: Vec<LaneShown>,
}

#[derive(Deserialize)]
struct ListQuery {
    state: Option<String>,
    integration_id: Option<Uuid>,
    call_id: Option<Uuid>,
}

/// `list-deliveries`
pub async fn list(call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_query().await?;
    let workspace = entry.workspace()?.id;
    let query: ListQuery = sent.read()?;
    let page = sent.read::<PageQuery>()?.page();
    let filter = Filter {
        state: query.state,
        integration: query.integration_id.map(IntegrationId),
        call: query.call_id.map(CallId),
    };
    let (rows, counted) = found(&call.app, workspace, filter, page).await?;
    let listed = Paginated::new(rows, page, counted, |shown| shown.position, |shown| shown);
    actions::note_read(&call.app, &entry, workspace, None).await?;
    Reply::ok(&listed)
}

/// A page of deliveries, and the number of matches, counted one beyond the exact limit of totals.
async fn found(
    app: &App,
    workspace: WorkspaceId,
    filter: Filter,
    page: Page,
) -> Result<(Vec<Shown>, i64), ApiError> {
    if filter.is_looked_up() {
        let read = app.read_long(workspace, "sync.list", move |tx| {
            let rows = store::list(tx, workspace, &filter, page)?;
            Ok::<_, ward_db::Error>((rows, store::count(tx, workspace, &filter, TOTAL_LIMIT + 1)?))
        });
        return read.await;
    }
    let list = store::Deliveries { workspace, filter };
    let rows = Wanted { limit: page.fetch(), offset: 0, counted: 0 };
    let rows = scan::read(app, workspace, "sync.list", list.clone(), Some(page.after), rows).await?.rows;
    let total = Wanted { limit: 0, offset: 0, counted: TOTAL_LIMIT + 1 };
    Ok((rows, scan::read(app, workspace, "sync.count", list, Some(0), total).await?.total))
}

/// The delivery in the path. A text that is not an id is treated like an unknown id.
fn named(call: &Call) -> DeliveryId {
    DeliveryId(Uuid::try_parse(call.parameter("delivery_id")).unwrap_or(Uuid::nil()))
}

/// `get-delivery`
pub async fn get(call: Call) -> Result<Reply, ApiError> {
    let entry = call.enter().await?;
    let (workspace, id) = (entry.workspace()?.id, named(&call));
    let found = call
        .app
        .db
        .read("sync.get", move |tx| {
            let Some(delivery) = store::get(tx, workspace, id)? else { return Ok::<_, ward_db::Error>(None) };
            Ok(Some(Detail { delivery, attempts: store::attempts(tx, workspace, id, MOST_ATTEMPTS)? }))
        })
        .await?;
    let found = found.ok_or(ApiError::missing("delivery_not_found", "Delivery not found."))?;
    actions::note_read(&call.app, &entry, workspace, Some(id)).await?;
    Reply::ok(&found)
}

/// `retry-delivery`
pub async fn retry(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, bytes) = call.enter_with_ignored_body().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &bytes, StatusCode::OK)?;
    actions::retry(&call.app, entry, named(&call), repeat).await
}

/// `ResolveDeliveryRequest`
#[derive(Deserialize)]
struct Resolve {
    in_ehr: bool,
    location: Option<String>,
}

/// `resolve-delivery`
pub async fn resolve(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<Resolve>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    let Resolve { in_ehr, location } = sent.value;
    let found = if in_ehr { InEhr::Yes { location } } else { InEhr::No };
    actions::resolve(&call.app, entry, named(&call), found, repeat).await
}

/// `RetryFailedRequest`
#[derive(Deserialize)]
struct RetryFailed {
    integration_id: Option<Uuid>,
}

/// `retry-failed-deliveries`
pub async fn retry_failed(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<RetryFailed>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    let integration = sent.value.integration_id.map(IntegrationId);
    actions::retry_failed(&call.app, entry, integration, repeat).await
}

async fn status_of(call: &Call, workspace: WorkspaceId) -> Result<Reply, ApiError> {
    let integrations =
        call.app.read_long(workspace, "sync.status", move |tx| store::lanes(tx, workspace)).await?;
    Reply::ok(&Status { integrations })
}

/// `get-sync-status`
pub async fn status(call: Call) -> Result<Reply, ApiError> {
    let workspace = call.enter().await?.workspace()?.id;
    status_of(&call, workspace).await
}

/// `HoldRequest`
#[derive(Deserialize)]
struct Hold {
    held: bool,
}

/// `hold-integration`
pub async fn hold(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<Hold>().await?;
    let workspace = entry.workspace()?.id;
    let integration = Uuid::try_parse(call.parameter("integration_id")).unwrap_or(Uuid::nil());
    actions::set_held(&call.app, entry, IntegrationId(integration), sent.value.held).await?;
    status_of(&call, workspace).await
}
