//! The audit: who did what to which thing, written in the transaction that did it.

pub mod api;
pub mod exports;
pub mod refusals;
pub mod review;
mod store;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;
use ward_db::{Timestamp, Tx};

use crate::error::ApiError;
use crate::http::Context;
use crate::http::caller::Caller;
use crate::identity::token::Verified;
use crate::ids::{CredentialId, EventId, PrincipalId, WorkspaceId};

/// Who did it.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The principal.
    pub entity: Option<PrincipalId>,
    /// The key it used.
    pub credential: Option<CredentialId>,
    operator: bool,
    token: Option<Arc<Verified>>,
}

impl Actor {
    /// Nobody known: an anonymous caller, or time itself.
    pub const NOBODY: Self = Self { entity: None, credential: None, operator: false, token: None };
    /// The operator, on the command line.
    pub const OPERATOR: Self = Self { entity: None, credential: None, operator: true, token: None };

    /// The actor of an earlier request, as far as the database keeps it.
    pub const fn kept(entity: Option<PrincipalId>, credential: Option<CredentialId>) -> Self {
        Self { entity, credential, operator: false, token: None }
    }

    /// A principal with a key.
    pub const fn new(entity: PrincipalId, credential: CredentialId) -> Self {
        Self { entity: Some(entity), credential: Some(credential), operator: false, token: None }
    }

    /// A caller.
    pub fn of(caller: &Caller) -> Self {
        Self {
            entity: Some(caller.principal),
            credential: caller.credential_id(),
            operator: false,
            token: caller.token().cloned(),
        }
    }
}

/// Something done, about to be recorded.
pub struct Event<'a> {
    /// In which workspace.
    pub workspace: WorkspaceId,
    /// In which room.
    pub service: &'static str,
    /// What, such as `workspace.update`.
    pub action: &'static str,
    /// To what kind of thing.
    pub resource_type: &'static str,
    /// To which thing.
    pub resource_id: Option<Uuid>,
    /// What that thing is called.
    pub resource_name: Option<&'a str>,
    /// By whom.
    pub actor: Actor,
    /// In which request.
    pub context: &'a Context,
    /// What changed: an object, never with a secret in it.
    pub metadata: Value,
}

/// An event as it is stored.
struct Record<'a> {
    id: EventId,
    workspace: WorkspaceId,
    at: Timestamp,
    service: &'a str,
    action: &'a str,
    resource_type: &'a str,
    resource_id: Option<Uuid>,
    resource_name: Option<&'a str>,
    actor: Actor,
    address: Option<IpAddr>,
    user_agent: Option<&'a str>,
    phi_accessed: bool,
    metadata: &'a Value,
}

/// Records an event in the transaction that does what it tells: both are kept, or neither.
pub fn record(tx: &mut Tx<'_>, event: Event<'_>) -> Result<(), ApiError> {
    write(tx, event, false)
}

/// Records that patient data was read: numbers, names, what a call was about. It is written before the answer leaves.
pub fn record_phi_access(tx: &mut Tx<'_>, event: Event<'_>) -> Result<(), ApiError> {
    write(tx, event, true)
}

fn write(tx: &mut Tx<'_>, event: Event<'_>, phi_accessed: bool) -> Result<(), ApiError> {
    let mut metadata = event.metadata;
    metadata["request_id"] = json!(event.context.request_id);
    if event.actor.operator {
        metadata["operator"] = json!(true);
    }
    // A token has no id of ours. Its subject may be an address or a name, so only a hash of it is kept.
    if let Some(token) = &event.actor.token {
        metadata["token"] = json!({ "issuer": &*token.issuer.name, "subject_hash": token.subject_hash() });
    }
    store::insert(
        tx,
        &Record {
            id: EventId::at(event.context.now),
            workspace: event.workspace,
            at: event.context.now,
            service: event.service,
            action: event.action,
            resource_type: event.resource_type,
            resource_id: event.resource_id,
            resource_name: event.resource_name,
            address: (!event.actor.operator).then_some(event.context.address),
            actor: event.actor,
            user_agent: event.context.user_agent.as_deref(),
            phi_accessed,
            metadata: &metadata,
        },
    )?;
    Ok(())
}
