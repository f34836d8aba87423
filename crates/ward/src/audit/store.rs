//! The SQL of the audit.

use serde_json::value::RawValue;
use uuid::Uuid;
use ward_db::{Error, Json, Row, Timestamp, Tx, Value, columns, decode, insert_later};

use super::wire::AuditEventResponse;
use super::{OVERHEAD, Record};
use crate::ids::{PrincipalId, WorkspaceId};
use crate::scan::{Conditions, Stretch, Timeline};

/// Inserts an event, and says for how many bytes it counts.
pub(super) fn insert(tx: &mut Tx<'_>, event: &Record<'_>) -> Result<usize, Error> {
    let metadata = event.metadata.to_string();
    let address = event.address.map(|address| address.to_string());
    insert_later!(tx, "audit_events" {
        workspace_id: event.workspace,
        at: event.at,
        id: event.id,
        service: event.service,
        action: event.action,
        resource_type: event.resource_type,
        resource_id: event.resource_id,
        resource_name: event.resource_name,
        actor_entity_id: event.actor.entity,
        actor_credential_id: event.actor.credential,
        ip_address: address.as_deref(),
        user_agent: event.user_agent,
        phi_accessed: event.phi_accessed,
        metadata: Value::Json(&metadata),
    })?;
    let texts = [Some(metadata.as_str()), event.resource_name, event.user_agent];
    Ok(OVERHEAD + texts.into_iter().flatten().map(str::len).sum::<usize>())
}

/// Conditions on events; `None` sets no condition.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub service: Option<String>,
    pub action: Option<String>,
    pub actor: Option<Uuid>,
    pub resource_type: Option<String>,
    pub resource: Option<Uuid>,
    /// Only events that read patient data.
    pub phi_only: bool,
    /// Only events at this time or later.
    pub from: Option<Timestamp>,
    /// Only events at this time or earlier.
    pub to: Option<Timestamp>,
}

columns! {
    AuditEventResponse {
        id,
        workspace_id,
        timestamp: "at",
        service,
        action,
        resource_type,
        resource_id,
        resource_name,
        actor_entity_id,
        actor_credential_id,
        ip_address,
        user_agent,
        phi_accessed,
        metadata => document,
    }
}

fn document(text: Option<Json>) -> Result<Option<Box<RawValue>>, Error> {
    text.map(|Json(text)| RawValue::from_string(text).map_err(Error::unreadable)).transpose()
}

/// An event's position in its workspace's list, newest first.
type Position = (Timestamp, Uuid);

/// The events of a workspace that match a filter.
#[derive(Clone, Debug)]
pub(super) struct Events {
    pub workspace: WorkspaceId,
    pub filter: EventFilter,
}

impl Timeline for Events {
    type Id = Uuid;
    type Row = AuditEventResponse;

    const TABLE: &'static str = "audit_events";
    const TIME: &'static str = "at";
    const COLUMNS: &'static str = AuditEventResponse::COLUMNS;
    const UNTIL: &'static str = "<=";

    fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    fn period(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        (self.filter.from, self.filter.to)
    }

    fn filter<'s>(&'s self, conditions: &mut Conditions<'s>) {
        let filter = &self.filter;
        conditions.and("service =", filter.service.as_deref());
        conditions.and("action =", filter.action.as_deref());
        conditions.and("actor_entity_id =", filter.actor);
        conditions.and("resource_type =", filter.resource_type.as_deref());
        conditions.and("resource_id =", filter.resource);
        conditions.and("phi_accessed =", filter.phi_only.then_some(true));
    }

    fn read(row: &Row<'_>) -> Result<AuditEventResponse, Error> {
        row.read()
    }
}

impl Events {
    /// One step through the events, oldest first. It returns the position of the last row that it read
    /// (`None` at the end of the list) and the matching rows up to there.
    pub fn oldest(
        &self,
        tx: &mut Tx<'_>,
        after: Option<Position>,
        step: i64,
    ) -> Result<(Option<Position>, Vec<AuditEventResponse>), Error> {
        // The order is the reverse of the list's, so the signs of the bounds are reversed.
        let whole = Stretch { after: None, last: None };
        let mut bounds = self.bounds(whole);
        if let Some(after) = after {
            bounds.and_position("at", ">", after);
        }
        let offset = bounds.bind(step - 1);
        let sql = format!(
            "SELECT at, id FROM audit_events WHERE {} ORDER BY at, id LIMIT 1 OFFSET {offset}",
            bounds.sql()
        );
        let last: Option<Position> = tx.optional(&sql, bounds.values(), decode)?;
        let mut conditions = self.conditions(whole);
        for (position, sign) in [(after, ">"), (last, "<=")] {
            if let Some(position) = position {
                conditions.and_position("at", sign, position);
            }
        }
        let sql =
            format!("SELECT {} FROM audit_events WHERE {} ORDER BY at, id", Self::COLUMNS, conditions.sql());
        Ok((last, tx.all(&sql, conditions.values(), decode)?))
    }

    /// Counts the events of a stretch, and collects their actors and services.
    pub fn figures(&self, tx: &mut Tx<'_>, stretch: Stretch<Position>) -> Result<EventStatistics, Error> {
        let conditions = self.conditions(stretch);
        let (conditions, values) = (conditions.sql(), conditions.values());
        let counts = format!(
            "SELECT count(*), count(CASE WHEN phi_accessed THEN 1 END) FROM audit_events WHERE {conditions}"
        );
        let (events, phi) = tx.one(&counts, values, decode)?;
        let actors = format!(
            "SELECT DISTINCT actor_entity_id FROM audit_events WHERE {conditions} AND actor_entity_id IS NOT NULL"
        );
        let services = format!("SELECT DISTINCT service FROM audit_events WHERE {conditions}");
        Ok(EventStatistics {
            events,
            phi,
            actors: tx.all(&actors, values, decode)?,
            services: tx.all(&services, values, decode)?,
        })
    }
}

#[derive(Debug)]
pub(super) struct EventStatistics {
    pub events: i64,
    /// The number of events that read patient data.
    pub phi: i64,
    pub actors: Vec<PrincipalId>,
    /// The events' services, which are names of rooms, each once.
    pub services: Vec<String>,
}
