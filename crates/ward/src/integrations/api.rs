//! The JSON routes of integrations.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use ward_db::Timestamp;

use super::actions::{self, Change, NewIntegration};
use super::{AuthConfig, Endpoint, Integration, Mcp, Protocol, outbound, rules, store};
use crate::error::ApiError;
use crate::http::idempotency::Repeat;
use crate::http::validate::{Json, Loc, Problem};
use crate::http::{Call, Reply};
use crate::ids::{IntegrationId, WorkspaceId};
use crate::page::{PageQuery, Paginated};

/// `IntegrationResponse`
#[derive(Serialize)]
pub(super) struct Shown {
    id: IntegrationId,
    workspace_id: WorkspaceId,
    name: String,
    display_name: String,
    protocol: Protocol,
    base_url: String,
    auth: Option<AuthConfig>,
    endpoints: Vec<Endpoint<AuthConfig>>,
    enabled: bool,
    builtin: bool,
    #[serde(flatten)]
    mcp: Mcp,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Integration> for Shown {
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
            enabled: config.enabled,
            builtin: integration.builtin,
            mcp: config.mcp,
            created_at: integration.created_at,
            updated_at: integration.updated_at,
        }
    }
}

/// Which integrations to list.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Filter {
    enabled: Option<bool>,
    protocol: Option<String>,
    search: Option<String>,
    sort_by: Option<String>,
}

impl Filter {
    /// Whether this integration is one of them. A search looks for its text, in any case, in both names.
    pub fn admits(&self, integration: &Integration) -> bool {
        let found = |text: &str| {
            let text = text.to_lowercase();
            integration.name.to_lowercase().contains(&text)
                || integration.config.display_name.to_lowercase().contains(&text)
        };
        self.enabled.is_none_or(|enabled| enabled == integration.config.enabled)
            && self.protocol.as_deref().is_none_or(|protocol| protocol == integration.config.protocol.name())
            && self.search.as_deref().is_none_or(found)
    }
}

/// What a list may be sorted by; a leading dash turns it round.
const SORTS: [&str; 4] = ["name", "display_name", "created_at", "updated_at"];

/// The value rule of `sort_by`.
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

/// The last one seen of a sorted list was deleted: what follows it cannot be told, and an early end would be believed.
fn lost_place(token: i64) -> ApiError {
    let loc = vec![Loc::from("query"), Loc::from("continuation_token")];
    let message = "the integration that this page follows is no longer there; list again from the start";
    ApiError::invalid(vec![Problem::value_error(loc, message, Json::String(token.to_string()))])
}

/// Puts the list into the order asked for; places decide between equals.
fn sort(integrations: &mut [Integration], sort_by: &str) {
    let (field, descending) = sort_by.strip_prefix('-').map_or((sort_by, false), |field| (field, true));
    integrations.sort_by(|a, b| {
        let order = match field {
            "name" => a.name.cmp(&b.name),
            "display_name" => a.config.display_name.cmp(&b.config.display_name),
            "created_at" => a.created_at.cmp(&b.created_at),
            _ => a.updated_at.cmp(&b.updated_at),
        };
        let order = order.then(a.position.cmp(&b.position));
        if descending { order.reverse() } else { order }
    });
}

/// `list-integrations`
///
/// A workspace has few integrations, so all are read and the page is cut from them; the token is the place of the last
/// one seen, whatever the order.
pub async fn list(call: Call) -> Result<Reply, ApiError> {
    let (entry, query) = call.enter_with_query().await?;
    let filter: Filter = query.read()?;
    let page = query.read::<PageQuery>()?.page();
    let sort_by = filter.sort_by.clone();
    sort_rule(sort_by.as_deref())?;
    let workspace = entry.workspace()?.id;
    let mut found = call
        .app
        .db
        .read("integrations.list", move |tx| store::list(tx, workspace).map_err(ApiError::from))
        .await?;
    let counted = found.iter().filter(|integration| filter.admits(integration)).count();
    let counted = i64::try_from(counted).unwrap_or(i64::MAX);
    match &sort_by {
        None => found.retain(|integration| integration.position > page.after),
        Some(sort_by) => {
            // All of them, because the last one seen may have come to be none of those asked for.
            sort(&mut found, sort_by);
            if page.after > 0 {
                let seen = found.iter().position(|integration| integration.position == page.after);
                found.drain(..=seen.ok_or_else(|| lost_place(page.after))?);
            }
        }
    }
    found.retain(|integration| filter.admits(integration));
    Reply::ok(&Paginated::new(found, page, counted, |integration| integration.position, Shown::from))
}

/// The integration that the path names; text that is no id names none.
fn named(call: &Call) -> IntegrationId {
    IntegrationId(Uuid::try_parse(call.parameter("integration_id")).unwrap_or(Uuid::nil()))
}

/// `create-integration`
pub async fn create(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<NewIntegration>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    actions::create(&call.app, entry, sent.value, repeat).await
}

/// `get-integration`
pub async fn get(call: Call) -> Result<Reply, ApiError> {
    let entry = call.enter().await?;
    let (workspace, id) = (entry.workspace()?.id, named(&call));
    let found = call.app.db.read("integrations.get", move |tx| store::get(tx, workspace, id)).await?;
    Reply::ok(&Shown::from(found.ok_or(ApiError::no_integration())?))
}

/// `update-integration`
pub async fn update(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<Change>().await?;
    let change = sent.value.given(sent.present);
    let changed = actions::update(&call.app, entry, named(&call), change).await?;
    Reply::ok(&Shown::from(changed))
}

/// `delete-integration`
pub async fn delete(call: Call) -> Result<Reply, ApiError> {
    let entry = call.enter().await?;
    actions::delete(&call.app, entry, named(&call)).await?;
    Ok(Reply::no_content())
}

/// `integration-health-check`
pub async fn health(call: Call) -> Result<Reply, ApiError> {
    let entry = call.enter().await?;
    Reply::ok(&outbound::health(&call.app, &entry).await?)
}

#[derive(Deserialize)]
struct TestRequest {
    params: serde_json::Value,
}

/// `test-integration-endpoint`
pub async fn test(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<TestRequest>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    let endpoint = call.parameter("endpoint_name").to_owned();
    outbound::test(&call.app, entry, named(&call), endpoint, rules::params(&sent.value.params), repeat).await
}
