//! The JSON routes of the audit.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;
use ward_db::Timestamp;

use super::store::{self, Filter};
use crate::error::ApiError;
use crate::http::{Call, Reply};
use crate::ids::{CredentialId, EventId, PrincipalId, WorkspaceId};

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
    let (mut events, total) = call
        .app
        .db
        .read_long("audit.list", move |tx| {
            let events = store::list(tx, workspace, &filter, limit + 1, offset)?;
            Ok::<_, ward_db::Error>((events, store::count(tx, workspace, &filter, TOTAL_LIMIT)?))
        })
        .await?;
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
    let summary = call
        .app
        .db
        .read_long("audit.summary", move |tx| {
            store::summarize(tx, workspace, &filter).map_err(ApiError::from)
        })
        .await?;
    Reply::ok(&summary)
}
