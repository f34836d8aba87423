//! The JSON routes of the audit.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use ward_db::Timestamp;

use super::store::{self, EventFilter};
use super::wire::AuditEventResponse;
use crate::app::App;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Query, Reply, Request};
use crate::ids::{PrincipalId, WorkspaceId};
use crate::members;
use crate::scan::{self, List as _, ScanResult, Stretch, Window};

/// Totals are exact up to this number; beyond it, they are this number.
const TOTAL_LIMIT: i64 = 10_000;

#[derive(Serialize)]
struct AuditEventsListResponse {
    events: Vec<AuditEventResponse>,
    total: i64,
    limit: i64,
    offset: i64,
    has_more: bool,
    next_offset: Option<i64>,
}

#[derive(Serialize)]
pub(super) struct AuditSummaryResponse {
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
}

#[derive(Deserialize)]
struct Period {
    date_from: Option<String>,
    date_to: Option<String>,
}

impl Period {
    /// Parses the bounds. The contract's validation has accepted and normalized them.
    fn bounds(&self) -> Result<(Option<Timestamp>, Option<Timestamp>), ApiError> {
        let time = |text: &Option<String>| {
            text.as_deref()
                .map(|text| text.parse().map_err(|_| ApiError::internal("a time that was not normalized")))
                .transpose()
        };
        Ok((time(&self.date_from)?, time(&self.date_to)?))
    }
}

#[derive(Deserialize)]
struct ReportQuery {
    entity_id: Option<Uuid>,
}

/// The page of a list that the caller asks for.
#[derive(Clone, Copy, Deserialize)]
struct Rows {
    limit: i64,
    offset: i64,
}

pub async fn list(request: Request, (entry, sent): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let (from, to) = sent.read::<Period>()?.bounds()?;
    let query: ListQuery = sent.read()?;
    let filter = EventFilter {
        service: query.service,
        action: query.action,
        actor: query.actor_entity_id,
        resource_type: query.resource_type,
        resource: query.resource_id,
        phi_only: query.phi_only,
        from,
        to,
    };
    let list = store::Events { workspace, filter };
    Reply::ok(&page(&request.app, "audit.list", list, sent.read()?).await?)
}

/// A page of events, newest first, with the total of the list.
async fn page(
    app: &App,
    name: &'static str,
    list: store::Events,
    Rows { limit, offset }: Rows,
) -> Result<AuditEventsListResponse, ApiError> {
    let wanted = Window { limit: limit + 1, offset, counted: TOTAL_LIMIT };
    let workspace = list.workspace;
    let ScanResult { rows: mut events, total } = scan::read(app, workspace, name, list, None, wanted).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = events.len() > most;
    events.truncate(most);
    let next_offset = has_more.then(|| offset.saturating_add(limit));
    Ok(AuditEventsListResponse { events, total, limit, offset, has_more, next_offset })
}

pub async fn phi_access(request: Request, (entry, sent): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let (from, to) = sent.read::<Period>()?.bounds()?;
    let actor = sent.read::<ReportQuery>()?.entity_id;
    let filter = EventFilter { actor, phi_only: true, from, to, ..EventFilter::default() };
    let list = store::Events { workspace, filter };
    Reply::ok(&page(&request.app, "audit.phi_access", list, sent.read()?).await?)
}

pub async fn access_log(request: Request, (entry, sent): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let (from, to) = sent.read::<Period>()?.bounds()?;
    // A text that is not an id gets the answer for an unknown id.
    let principal = PrincipalId(request.parameter("entity_id").parse().unwrap_or(Uuid::nil()));
    let ever = EventFilter { actor: Some(principal.0), ..EventFilter::default() };
    let list = store::Events { workspace, filter: EventFilter { from, to, ..ever.clone() } };
    let events = page(&request.app, "audit.access_log", list, sent.read()?).await?;
    if events.total == 0 && !is_known(&request.app, workspace, principal, ever).await? {
        return Err(ApiError::missing("entity_not_found", "No such principal in this workspace."));
    }
    Reply::ok(&events)
}

/// Whether a principal is a member of the workspace, or ever acted in it.
async fn is_known(
    app: &App,
    workspace: WorkspaceId,
    principal: PrincipalId,
    ever: EventFilter,
) -> Result<bool, ApiError> {
    let member = app
        .db
        .read("audit.is_member", move |tx| members::is_member(tx, workspace, principal))
        .await
        .map_err(|error: ward_db::Error| ApiError::from(error))?;
    if member {
        return Ok(true);
    }
    let list = store::Events { workspace, filter: ever };
    let wanted = Window { limit: 0, offset: 0, counted: 1 };
    Ok(scan::read(app, workspace, "audit.has_acted", list, None, wanted).await?.total > 0)
}

pub async fn summary(request: Request, (entry, sent): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let (from, to) = sent.read::<Period>()?.bounds()?;
    let filter = EventFilter { from, to, ..EventFilter::default() };
    Reply::ok(&summarize(&request.app, store::Events { workspace, filter }).await?)
}

/// Sums the figures of all events, in bounded steps like [`scan::read`].
async fn summarize(app: &App, events: store::Events) -> Result<AuditSummaryResponse, ApiError> {
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
    Ok(AuditSummaryResponse {
        total_events,
        phi_access_events,
        unique_actors: count(actors.len()),
        services_with_events: count(services.len()),
    })
}
