//! The JSON routes of integrations.

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;
use ward_contract::validate::{Json, Loc, Problem};
use ward_db::{Timestamp, Tx};

use super::actions::{self, CreateIntegrationRequest, UpdateIntegrationRequest};
use super::outbound::{self, health};
use super::store::{Head, IntegrationRow};
use super::{AuthConfig, DeliverySettings, Endpoint, Integration, Mcp, Protocol, rules, store};
use crate::error::ApiError;
use crate::gate::idempotency::Repeat;
use crate::gate::{Entry, Heavy};
use crate::http::{Query, Reply, Request, Sent};
use crate::ids::{IntegrationId, WorkspaceId};
use crate::page::{Page, PageQuery, Paginated};

#[derive(Serialize)]
pub(super) struct IntegrationResponse {
    id: IntegrationId,
    workspace_id: WorkspaceId,
    name: String,
    display_name: String,
    protocol: Protocol,
    base_url: String,
    auth: Option<AuthConfig>,
    endpoints: Vec<Endpoint<AuthConfig>>,
    delivery: DeliverySettings,
    enabled: bool,
    builtin: bool,
    #[serde(flatten)]
    mcp: Mcp,
    last_tested_at: Option<Timestamp>,
    last_test_status: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Integration> for IntegrationResponse {
    fn from(integration: Integration) -> Self {
        let config = integration.config;
        Self {
            id: integration.id,
            workspace_id: integration.workspace,
            name: integration.name,
            display_name: config.display_name,
            protocol: config.protocol,
            base_url: config.base_url,
            auth: config.auth,
            endpoints: config.endpoints,
            delivery: config.delivery,
            enabled: config.enabled,
            builtin: integration.builtin,
            mcp: config.mcp,
            last_tested_at: integration.last_tested_at,
            last_test_status: integration.last_test_status,
            created_at: integration.created_at,
            updated_at: integration.updated_at,
        }
    }
}

/// The conditions and the order of a list.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct IntegrationFilter {
    enabled: Option<bool>,
    protocol: Option<String>,
    search: Option<String>,
    sort_by: Option<String>,
}

impl IntegrationFilter {
    /// Whether the list contains this integration. A search looks for its text in both names, ignoring
    /// case.
    fn admits(&self, integration: &Head) -> bool {
        let found = |text: &str| {
            let text = text.to_lowercase();
            integration.name.to_lowercase().contains(&text)
                || integration.display_name.to_lowercase().contains(&text)
        };
        self.enabled.is_none_or(|enabled| enabled == integration.enabled)
            && self.protocol.as_deref().is_none_or(|protocol| protocol == integration.protocol)
            && self.search.as_deref().is_none_or(found)
    }

    /// Whether the request wants the whole list in its own order.
    const fn is_empty(&self) -> bool {
        self.enabled.is_none() && self.protocol.is_none() && self.search.is_none() && self.sort_by.is_none()
    }
}

/// Fields to sort by; a leading dash reverses the order.
const SORTS: [&str; 4] = ["name", "display_name", "created_at", "updated_at"];

/// Checks the value of `sort_by`.
fn sort_rule(sort_by: Option<&str>) -> Result<(), ApiError> {
    match sort_by {
        Some(given) if !SORTS.contains(&given.strip_prefix('-').unwrap_or(given)) => {
            let loc = vec![Loc::from("query"), Loc::from("sort_by")];
            let message =
                "Must be name, display_name, created_at or updated_at, with a leading dash for descending";
            Err(ApiError::invalid(vec![Problem::value_error(loc, message, Json::String(given.to_owned()))]))
        }
        _ => Ok(()),
    }
}

/// The error for a deleted integration as the start of a page of a sorted list. Its successor is unknown,
/// and a client would believe an early end.
fn lost_place(token: i64) -> ApiError {
    let loc = vec![Loc::from("query"), Loc::from("continuation_token")];
    let message = "the integration that this page follows was deleted; list again from the start";
    ApiError::invalid(vec![Problem::value_error(loc, message, Json::String(token.to_string()))])
}

/// Sorts the list as requested; positions decide between equals.
fn sort(integrations: &mut [Head], sort_by: &str) {
    let (field, descending) = sort_by.strip_prefix('-').map_or((sort_by, false), |field| (field, true));
    integrations.sort_by(|a, b| {
        let order = match field {
            "name" => a.name.cmp(&b.name),
            "display_name" => a.display_name.cmp(&b.display_name),
            "created_at" => a.created_at.cmp(&b.created_at),
            _ => a.updated_at.cmp(&b.updated_at),
        };
        let order = order.then(a.position.cmp(&b.position));
        if descending { order.reverse() } else { order }
    });
}

/// The ids and positions of a page, with one more if another page follows, and the length of the whole
/// list.
type IdPage = (Vec<(IntegrationId, i64)>, i64);

/// `list-integrations`
///
/// Only the integrations of the page are read whole, and parsed one after the other, because each can be as
/// large as a request's body. The token is the position of the last integration on the page, in any order.
pub async fn list(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let filter: IntegrationFilter = query.read()?;
    let page = query.read::<PageQuery>()?.page();
    sort_rule(filter.sort_by.as_deref())?;
    let (workspace, holder) = (entry.workspace()?.id, actions::holder(&entry)?);
    let db = &request.app.db;
    let (listed, counted): IdPage = if filter.is_empty() {
        let plain =
            move |tx: &mut Tx<'_>| Ok((store::page(tx, workspace, page)?, store::count(tx, workspace)?));
        db.read("integrations.list", plain).await.map_err(|error: ward_db::Error| ApiError::from(error))?
    } else {
        let heads = request
            .app
            .read_long(workspace, "integrations.heads", move |tx| store::heads(tx, workspace))
            .await?;
        chosen(heads, &filter, page)?
    };
    let most = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let mut items = Vec::new();
    let shown: Vec<IntegrationId> = listed.iter().take(most).map(|(id, _)| *id).collect();
    for ids in shown.chunks(store::READ_AT_ONCE) {
        let wanted = ids.to_vec();
        let found = db.read("integrations.some", move |tx| store::some(tx, workspace, &wanted)).await?;
        let ids = ids.to_vec();
        items.extend(request.app.work.run(holder, move || show_each(&ids, found)).await??);
    }
    Reply::ok(&Paginated::of(items, &listed, page, counted, |(_, position)| *position))
}

/// The requested page, in the requested order.
fn chosen(mut heads: Vec<Head>, filter: &IntegrationFilter, page: Page) -> Result<IdPage, ApiError> {
    let counted = heads.iter().filter(|head| filter.admits(head)).count();
    match &filter.sort_by {
        None => heads.retain(|head| head.position > page.after),
        Some(sort_by) => {
            // The page starts from the whole list, because the last integration seen may no longer match
            // the filter.
            sort(&mut heads, sort_by);
            if page.after > 0 {
                let seen = heads.iter().position(|head| head.position == page.after);
                heads.drain(..=seen.ok_or_else(|| lost_place(page.after))?);
            }
        }
    }
    let fetched = usize::try_from(page.fetch()).unwrap_or(usize::MAX);
    let admitted = heads.iter().filter(|head| filter.admits(head)).take(fetched);
    let listed = admitted.map(|head| (head.id, head.position)).collect();
    Ok((listed, i64::try_from(counted).unwrap_or(i64::MAX)))
}

/// These integrations as JSON, in the order of their ids. Deleted ones are left out.
fn show_each(ids: &[IntegrationId], mut found: Vec<IntegrationRow>) -> Result<Vec<Box<RawValue>>, ApiError> {
    let mut shown = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(at) = found.iter().position(|found| found.id() == *id) else { continue };
        let integration = found.swap_remove(at).parse()?;
        shown.push(to_raw_value(&IntegrationResponse::from(integration)).map_err(ApiError::internal)?);
    }
    Ok(shown)
}

/// The integration in the path. A text that is not an id is treated like an unknown id.
pub(super) fn named(request: &Request) -> IntegrationId {
    IntegrationId(Uuid::try_parse(request.parameter("integration_id")).unwrap_or(Uuid::nil()))
}

pub async fn create(
    request: Request,
    (entry, Heavy(sent)): (Entry, Heavy<CreateIntegrationRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    actions::create(&request.app, entry, sent.value, repeat).await
}

pub async fn get(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let found = actions::read(&request.app, &entry, named(&request)).await?;
    Reply::ok(&IntegrationResponse::from(found))
}

pub async fn update(
    request: Request,
    (entry, Heavy(sent)): (Entry, Heavy<UpdateIntegrationRequest>),
) -> Result<Reply, ApiError> {
    let change = sent.value.given(sent.present);
    let changed = actions::update(&request.app, entry, named(&request), change).await?;
    Reply::ok(&IntegrationResponse::from(changed))
}

pub async fn delete(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    actions::delete(&request.app, entry, named(&request)).await?;
    Ok(Reply::no_content())
}

pub async fn health(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    Reply::ok(&health::check_all(&request.app, &entry).await?)
}

/// `TestEndpointRequest`: the parameters of the call.
#[derive(Deserialize)]
pub struct TestEndpointRequest {
    params: serde_json::Value,
}

pub async fn test(
    request: Request,
    (entry, sent): (Entry, Sent<TestEndpointRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    let endpoint = request.parameter("endpoint_name").to_owned();
    let params = rules::params(&sent.value.params);
    outbound::test::run(&request.app, entry, named(&request), endpoint, params, repeat).await
}

pub async fn test_connection(request: Request, (entry, bytes): (Entry, Bytes)) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &bytes, StatusCode::OK)?;
    health::test_connection(&request.app, entry, named(&request), repeat).await
}
