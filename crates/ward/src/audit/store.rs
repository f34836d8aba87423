//! The SQL of the audit.

use std::fmt::Write as _;

use serde_json::value::RawValue;
use uuid::Uuid;
use ward_db::{Error, Json, Row, Timestamp, Tx, Value};

use super::Record;
use super::api::{Listed, Summary};
use crate::ids::WorkspaceId;

/// Inserts an event.
pub(super) fn insert(tx: &mut Tx<'_>, event: &Record<'_>) -> Result<(), Error> {
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
    Ok(())
}

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this room.
    pub service: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// By this principal.
    pub actor: Option<Uuid>,
    /// On this kind of thing.
    pub resource_type: Option<String>,
    /// On this thing.
    pub resource: Option<Uuid>,
    /// Only where patient data was read.
    pub phi_only: bool,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Not after.
    pub to: Option<Timestamp>,
}

impl Filter {
    /// The conditions that are asked for, and only those, so that each combination has a plan of its own.
    fn conditions(&self, workspace: WorkspaceId) -> (String, Vec<Value<'_>>) {
        let asked = [
            ("service =", self.service.as_deref().map(Value::Text)),
            ("action =", self.action.as_deref().map(Value::Text)),
            ("actor_entity_id =", self.actor.map(Value::Uuid)),
            ("resource_type =", self.resource_type.as_deref().map(Value::Text)),
            ("resource_id =", self.resource.map(Value::Uuid)),
            ("phi_accessed =", self.phi_only.then_some(Value::Bool(true))),
            ("at >=", self.from.map(Value::Time)),
            ("at <=", self.to.map(Value::Time)),
        ];
        let mut sql = String::from("workspace_id = $1");
        let mut values = vec![workspace.into()];
        for (condition, value) in asked {
            if let Some(value) = value {
                values.push(value);
                let _ = write!(sql, " AND {condition} ${}", values.len());
            }
        }
        (sql, values)
    }
}

/// A page of events, newest first.
pub fn list(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    filter: &Filter,
    limit: i64,
    offset: i64,
) -> Result<Vec<Listed>, Error> {
    let (conditions, mut values) = filter.conditions(workspace);
    values.extend([Value::Int(limit), Value::Int(offset)]);
    let sql = format!(
        "SELECT id, workspace_id, at, service, action, resource_type, resource_id, resource_name, actor_entity_id, \
                actor_credential_id, ip_address, user_agent, phi_accessed, metadata \
         FROM audit_events WHERE {conditions} ORDER BY at DESC, id DESC LIMIT ${} OFFSET ${}",
        values.len() - 1,
        values.len()
    );
    tx.all(&sql, &values, listed)
}

fn listed(row: &Row<'_>) -> Result<Listed, Error> {
    let metadata: Option<Json> = row.get(13)?;
    Ok(Listed {
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

/// How many events the filter finds, counted no further than `most`.
pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId, filter: &Filter, most: i64) -> Result<i64, Error> {
    let (conditions, mut values) = filter.conditions(workspace);
    values.push(Value::Int(most));
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM audit_events WHERE {conditions} LIMIT ${}) AS counted",
        values.len()
    );
    tx.one(&sql, &values, |row| row.get(0))
}

/// The figures of a period.
pub fn summarize(tx: &mut Tx<'_>, workspace: WorkspaceId, filter: &Filter) -> Result<Summary, Error> {
    let (conditions, values) = filter.conditions(workspace);
    let sql = format!(
        "SELECT count(*), count(CASE WHEN phi_accessed THEN 1 END), count(DISTINCT actor_entity_id), \
                count(DISTINCT service) FROM audit_events WHERE {conditions}"
    );
    tx.one(&sql, &values, |row| {
        Ok(Summary {
            total_events: row.get(0)?,
            phi_access_events: row.get(1)?,
            unique_actors: row.get(2)?,
            services_with_events: row.get(3)?,
        })
    })
}
