//! The JSON routes of the audit.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;
use ward_db::Timestamp;

use super::store::{self, Filter};
use crate::app::App;
use crate::error::ApiError;
use crate::http::{Call, Reply};
use crate::ids::{CredentialId, EventId, PrincipalId, WorkspaceId};
use crate::scan::{self, Found, List as _, Stretch, Wanted};

/// Totals are exact up to here, and this beyond.
const TOTAL_LIMIT: i64 = 10_000;

/// `AuditEventResponse`
#[derive(Serialize)]
pub(super) struct Listed {
    pub id: EventId,
    pub workspace_id: WorkspaceId,
    pub timestamp: Timestamp,
    pub service: String,
    pub action: String,
    pub resource_type: String,
    pub resource_id: Option<Uuid>,
    pub resource_name: Option<String>,
    pub actor_entity_id: Option<PrincipalId>,
    pub actor_credential_id: Option<CredentialId>,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub phi_accessed: bool,
    pub metadata: Option<Box<RawValue>>,
}

/// `AuditEventsListResponse`
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the contract's name")]
struct Events {
    events: Vec<Listed>,
    total: i64,
    limit: i64,
    offset: i64,
    has_more: bool,
}

/// `AuditSummaryResponse`
#[derive(Serialize)]
pub(super) struct Summary {
    pub total_events: i64,
    pub phi_access_events: i64,
    pub unique_actors: i64,
    pub services_with_events: i64,
}

#[derive(Deserialize)]
struct ListQuery {
    service: Option<String>,
    action: Option<String>,
    actor_entity_id: Option<Uuid>,
    resource_type: Option<String>,
    resource_id: Option<Uuid>,
    phi_only: bool,
    limit: i64,
    offset: i64,
}

#[derive(Deserialize)]
struct Period {
    date_from: Option<String>,
    date_to: Option<String>,
}

impl Period {
    /// The bounds as times. The contract has accepted and normalized them.
    fn bounds(&self) -> Result<(Option<Timestamp>, Option<Timestamp>), ApiError> {
        let time = |text: &Option<String>| {
            text.as_deref()
                .map(|text| text.parse().map_err(|_| ApiError::internal("a time that was not normalized")))
                .transpose()
        };
        Ok((time(&self.date_from)?, time(&self.date_to)?))
    }
}

/// `list-audit-events`
pub async fn list(call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_query().await?;
    let workspace = entry.workspace()?.id;
    let (from, to) = sent.read::<Period>()?.bounds()?;
    let query: ListQuery = sent.read()?;
    let filter = Filter {
        service: query.service,
        action: query.action,
        actor: query.actor_entity_id,
        resource_type: query.resource_type,
        resource: query.resource_id,
        phi_only: query.phi_only,
        from,
        to,
    };
    let (limit, offset) = (query.limit, query.offset);
    let list = store::Events { workspace, filter };
    let wanted = Wanted { limit: limit + 1, offset, counted: TOTAL_LIMIT };
    let Found { rows: mut events, total } =
        scan::read(&call.app, workspace, "audit.list", list, None, wanted).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = events.len() > most;
    events.truncate(most);
    Reply::ok(&Events { events, total, limit, offset, has_more })
}

/// `get-audit-summary`
pub async fn summary(call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_query().await?;
    let workspace = entry.workspace()?.id;
    let (from, to) = sent.read::<Period>()?.bounds()?;
    let filter = Filter { from, to, ..Filter::default() };
    Reply::ok(&summarize(&call.app, store::Events { workspace, filter }).await?)
}

/// The figures of all events, step by step as [`scan::read`] does.
async fn summarize(app: &App, events: store::Events) -> Result<Summary, ApiError> {
    let (mut total_events, mut phi_access_events) = (0, 0);
    let (mut actors, mut services) = (HashSet::new(), HashSet::new());
    let mut after = None;
    loop {
        let list = events.clone();
        let step = app.read_long(events.workspace, "audit.summary", move |tx| {
            let last = list.end_of_step(tx, after, scan::STEP)?;
            Ok::<_, ward_db::Error>((last, list.figures(tx, Stretch { after, last })?))
        });
        let (last, figures) = step.await?;
        total_events += figures.events;
        phi_access_events += figures.phi;
        actors.extend(figures.actors);
        services.extend(figures.services);
        let Some(last) = last else { break };
        after = Some(last);
    }
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    Ok(Summary {
        total_events,
        phi_access_events,
        unique_actors: count(actors.len()),
        services_with_events: count(services.len()),
    })
}
