//! The SQL of the audit.

use std::fmt::Write as _;

use serde_json::value::RawValue;
use uuid::Uuid;
use ward_db::{Error, Json, Row, Timestamp, Tx, Value};

use super::wire::AuditEventResponse;
use super::{OVERHEAD, Record};
use crate::ids::{PrincipalId, WorkspaceId};
use crate::scan::{List, Stretch};

/// Inserts an event, and says for how many bytes it counts.
pub(super) fn insert(tx: &mut Tx<'_>, event: &Record<'_>) -> Result<usize, Error> {
    let metadata = event.metadata.to_string();
    let address = event.address.map(|address| address.to_string());
    tx.execute_later(
        "INSERT INTO audit_events (workspace_id, at, id, service, action, resource_type, resource_id, resource_name, \
                actor_entity_id, actor_credential_id, ip_address, user_agent, phi_accessed, metadata) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        &[
            event.workspace.into(),
            event.at.into(),
            event.id.into(),
            event.service.into(),
            event.action.into(),
            event.resource_type.into(),
            event.resource_id.into(),
            event.resource_name.into(),
            event.actor.entity.into(),
            event.actor.credential.into(),
            address.as_deref().into(),
            event.user_agent.into(),
            event.phi_accessed.into(),
            Value::Json(&metadata),
        ],
    )?;
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
    /// The earliest timestamp, included.
    pub from: Option<Timestamp>,
    /// The latest timestamp, included.
    pub to: Option<Timestamp>,
}

const COLUMNS: &str = "id, workspace_id, at, service, action, resource_type, resource_id, resource_name, \
                       actor_entity_id, actor_credential_id, ip_address, user_agent, phi_accessed, metadata";

/// An event's position in its workspace's list, newest first.
type Position = (Timestamp, Uuid);

/// The events of a workspace that match a filter.
#[derive(Clone, Debug)]
pub(super) struct Events {
    pub workspace: WorkspaceId,
    pub filter: EventFilter,
}

impl Events {
    /// The conditions that the index answers: the ends of the stretch, and the period where the stretch has
    /// no end.
    fn bounds(&self, stretch: Stretch<Position>) -> (String, Vec<Value<'_>>) {
        let mut sql = String::from("workspace_id = $1");
        let mut values = vec![self.workspace.into()];
        if let Some((at, id)) = stretch.after {
            values.extend([Value::Time(at), Value::Uuid(id)]);
            sql.push_str(" AND (at, id) < ($2, $3)");
        } else if let Some(to) = self.filter.to {
            values.push(Value::Time(to));
            sql.push_str(" AND at <= $2");
        }
        if let Some((at, id)) = stretch.last {
            values.extend([Value::Time(at), Value::Uuid(id)]);
            let _ = write!(sql, " AND (at, id) >= (${}, ${})", values.len() - 1, values.len());
        } else if let Some(from) = self.filter.from {
            values.push(Value::Time(from));
            let _ = write!(sql, " AND at >= ${}", values.len());
        }
        (sql, values)
    }

    /// [`Self::bounds`] and the conditions of the filter. Absent conditions are left out of the SQL, so
    /// each combination has a plan of its own.
    fn conditions(&self, stretch: Stretch<Position>) -> (String, Vec<Value<'_>>) {
        let filter = &self.filter;
        let asked = [
            ("service =", filter.service.as_deref().map(Value::Text)),
            ("action =", filter.action.as_deref().map(Value::Text)),
            ("actor_entity_id =", filter.actor.map(Value::Uuid)),
            ("resource_type =", filter.resource_type.as_deref().map(Value::Text)),
            ("resource_id =", filter.resource.map(Value::Uuid)),
            ("phi_accessed =", filter.phi_only.then_some(Value::Bool(true))),
        ];
        let (mut sql, mut values) = self.bounds(stretch);
        for (condition, value) in asked {
            if let Some(value) = value {
                values.push(value);
                let _ = write!(sql, " AND {condition} ${}", values.len());
            }
        }
        (sql, values)
    }

    /// One step through the events, oldest first. It returns the position of the last row that it read
    /// (`None` at the end of the list) and the matching rows up to there.
    pub fn oldest(
        &self,
        tx: &mut Tx<'_>,
        after: Option<Position>,
        step: i64,
    ) -> Result<(Option<Position>, Vec<AuditEventResponse>), Error> {
        // The order is the reverse of the list's, so the signs of the bounds are reversed.
        let (bounds, mut values) = self.bounds(Stretch { after: None, last: None });
        let mut bounds = bounds;
        if let Some((at, id)) = after {
            values.extend([Value::Time(at), Value::Uuid(id)]);
            let _ = write!(bounds, " AND (at, id) > (${}, ${})", values.len() - 1, values.len());
        }
        values.push(Value::Int(step - 1));
        let sql = format!(
            "SELECT at, id FROM audit_events WHERE {bounds} ORDER BY at, id LIMIT 1 OFFSET ${}",
            values.len()
        );
        let last: Option<Position> = tx.optional(&sql, &values, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (mut conditions, mut values) = self.conditions(Stretch { after: None, last: None });
        for (place, sign) in [(after, ">"), (last, "<=")] {
            if let Some((at, id)) = place {
                values.extend([Value::Time(at), Value::Uuid(id)]);
                let _ = write!(conditions, " AND (at, id) {sign} (${}, ${})", values.len() - 1, values.len());
            }
        }
        let sql = format!("SELECT {COLUMNS} FROM audit_events WHERE {conditions} ORDER BY at, id");
        Ok((last, tx.all(&sql, &values, listed)?))
    }

    /// Counts the events of a stretch, and collects their actors and services.
    pub fn figures(&self, tx: &mut Tx<'_>, stretch: Stretch<Position>) -> Result<Figures, Error> {
        let (conditions, values) = self.conditions(stretch);
        let counts = format!(
            "SELECT count(*), count(CASE WHEN phi_accessed THEN 1 END) FROM audit_events WHERE {conditions}"
        );
        let (events, phi) = tx.one(&counts, &values, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let actors = format!(
            "SELECT DISTINCT actor_entity_id FROM audit_events WHERE {conditions} AND actor_entity_id IS NOT NULL"
        );
        let services = format!("SELECT DISTINCT service FROM audit_events WHERE {conditions}");
        Ok(Figures {
            events,
            phi,
            actors: tx.all(&actors, &values, |row| row.get(0))?,
            services: tx.all(&services, &values, |row| row.get(0))?,
        })
    }
}

#[derive(Debug)]
pub(super) struct Figures {
    pub events: i64,
    /// The number of events that read patient data.
    pub phi: i64,
    /// The acting principals, each once.
    pub actors: Vec<PrincipalId>,
    /// The rooms, each once.
    pub services: Vec<String>,
}

impl List for Events {
    type Position = Position;
    type Row = AuditEventResponse;

    fn end_of_step(
        &self,
        tx: &mut Tx<'_>,
        after: Option<Position>,
        rows: i64,
    ) -> Result<Option<Position>, Error> {
        let (bounds, mut values) = self.bounds(Stretch { after, last: None });
        values.push(Value::Int(rows - 1));
        let sql = format!(
            "SELECT at, id FROM audit_events WHERE {bounds} ORDER BY at DESC, id DESC LIMIT 1 OFFSET ${}",
            values.len()
        );
        tx.optional(&sql, &values, |row| Ok((row.get(0)?, row.get(1)?)))
    }

    fn count(&self, tx: &mut Tx<'_>, stretch: Stretch<Position>) -> Result<i64, Error> {
        let (conditions, values) = self.conditions(stretch);
        tx.one(&format!("SELECT count(*) FROM audit_events WHERE {conditions}"), &values, |row| row.get(0))
    }

    fn rows(
        &self,
        tx: &mut Tx<'_>,
        stretch: Stretch<Position>,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<AuditEventResponse>, Error> {
        let (conditions, mut values) = self.conditions(stretch);
        values.extend([Value::Int(limit), Value::Int(offset)]);
        let sql = format!(
            "SELECT {COLUMNS} FROM audit_events WHERE {conditions} ORDER BY at DESC, id DESC LIMIT ${} OFFSET ${}",
            values.len() - 1,
            values.len()
        );
        tx.all(&sql, &values, listed)
    }
}

fn listed(row: &Row<'_>) -> Result<AuditEventResponse, Error> {
    let metadata: Option<Json> = row.get(13)?;
    Ok(AuditEventResponse {
        id: row.get(0)?,
        workspace_id: row.get(1)?,
        timestamp: row.get(2)?,
        service: row.get(3)?,
        action: row.get(4)?,
        resource_type: row.get(5)?,
        resource_id: row.get(6)?,
        resource_name: row.get(7)?,
        actor_entity_id: row.get(8)?,
        actor_credential_id: row.get(9)?,
        ip_address: row.get(10)?,
        user_agent: row.get(11)?,
        phi_accessed: row.get(12)?,
        metadata: metadata
            .map(|Json(text)| RawValue::from_string(text).map_err(Error::unreadable))
            .transpose()?,
    })
}
