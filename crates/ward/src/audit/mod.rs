//! The audit: each event is written in the transaction of the action that it records.

pub mod api;
pub mod exports;
pub mod refusals;
pub mod review;
mod store;
mod wire;
mod write;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;
use ward_db::{Timestamp, Tx};

use crate::context::Context;
use crate::error::ApiError;
use crate::identity::token::VerifiedToken;
use crate::identity::{Caller, Workload};
use crate::ids::{CredentialId, EventId, PrincipalId, WorkspaceId};
use crate::quotas::{self, ByteLimit, Change};

pub use write::{Subject, Write};

/// Bytes that an event counts for, its texts left out. They stand for its columns and index entries, and for those of the
/// row that it is about.
const OVERHEAD: usize = 512;

/// The principal, credential or operator behind an event.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The principal that acted, if it is known.
    pub entity: Option<PrincipalId>,
    /// The API key that it used, if any.
    pub credential: Option<CredentialId>,
    operator: bool,
    token: Option<Arc<VerifiedToken>>,
    workload: Option<Arc<Workload>>,
}

impl Actor {
    /// An anonymous caller, or an action of Ward's own when a time has come.
    pub const NOBODY: Self =
        Self { entity: None, credential: None, operator: false, token: None, workload: None };
    /// The operator at the command line.
    pub const OPERATOR: Self =
        Self { entity: None, credential: None, operator: true, token: None, workload: None };

    /// The actor of an earlier request, as far as the database stores it.
    pub const fn kept(entity: Option<PrincipalId>, credential: Option<CredentialId>) -> Self {
        Self { entity, credential, operator: false, token: None, workload: None }
    }

    /// A principal that used an API key.
    pub const fn new(entity: PrincipalId, credential: CredentialId) -> Self {
        Self {
            entity: Some(entity),
            credential: Some(credential),
            operator: false,
            token: None,
            workload: None,
        }
    }

    /// The actor of an authenticated request.
    pub fn of(caller: &Caller) -> Self {
        Self {
            entity: Some(caller.principal),
            credential: caller.credential_id(),
            operator: false,
            token: caller.token().cloned(),
            workload: caller.workload().cloned(),
        }
    }
}

/// An action that is about to be recorded.
pub struct Event<'a> {
    /// The workspace whose audit log gets the event.
    pub workspace: WorkspaceId,
    /// The room of the action, such as `workspaces`.
    pub service: &'static str,
    /// The name of the action, such as `workspace.update`.
    pub action: &'static str,
    /// The kind of the changed resource, such as `api_key`.
    pub resource_type: &'static str,
    pub resource_id: Option<Uuid>,
    pub resource_name: Option<&'a str>,
    /// The principal and the credential of the action.
    pub actor: Actor,
    /// The request of the action; its id, time, address and user agent are stored.
    pub context: &'a Context,
    /// A JSON object with the changes. It never contains a secret.
    pub metadata: Value,
}

/// The columns of an event's row.
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

/// The bound on bytes for the event of an act in a workspace that stores as much as its quota allows.
///
/// Acts that protect something, or read what is there, go on in the reserve. `None`: the act goes on without end. It ends
/// or finishes what another act made, once, so there are no more of these than of those.
fn byte_limit(action: &str) -> Option<ByteLimit> {
    match action {
        "workspace.create"
        | "workspace.claim"
        | "workspace.lapse"
        | "workspace.archive"
        | "api_key.revoke"
        | "api_key.finish_rotation"
        | "api_key.quarantine"
        | "member.remove"
        | "member.leave"
        | "member.revoke_keys"
        | "invitation.revoke"
        | "trust_rule.delete"
        | "ownership.cancel"
        | "ownership.decline"
        | "integration.delete"
        | "twilio.delete"
        | "call.finish" => None,
        "api_key.rotate"
        | "api_key.networks"
        | "workspace.access_policy"
        | "member.update"
        | "integration.hold"
        | "call.read"
        | "call.list"
        | "delivery.read"
        | "delivery.list"
        | "audit.download" => Some(ByteLimit::Reserve),
        _ => Some(ByteLimit::Quota),
    }
}

/// Records an event in the transaction of its action: both are committed, or neither.
pub fn record(tx: &mut Tx<'_>, event: Event<'_>) -> Result<(), ApiError> {
    write(tx, event, false)
}

/// Whether the workspace has room for an event of the usual size.
pub fn has_room(tx: &mut Tx<'_>, workspace: WorkspaceId, context: &Context) -> Result<bool, ApiError> {
    let Some(usual) = &context.quotas else { return Ok(true) };
    Ok(quotas::has_room(tx, workspace, usual, 2 * OVERHEAD)?)
}

/// Records that patient data was read, such as numbers, names or the content of a call. The event is
/// written before the answer leaves.
pub fn record_phi_access(tx: &mut Tx<'_>, event: Event<'_>) -> Result<(), ApiError> {
    write(tx, event, true)
}

fn write(tx: &mut Tx<'_>, event: Event<'_>, phi_accessed: bool) -> Result<(), ApiError> {
    let mut metadata = event.metadata;
    metadata["request_id"] = json!(event.context.request_id);
    if event.actor.operator {
        metadata["operator"] = json!(true);
    }
    // A token has no id in Ward. Its subject may be an address or a name, so only its hash is kept.
    if let Some(token) = &event.actor.token {
        metadata["token"] = json!({ "issuer": &*token.issuer.name, "subject_hash": token.subject_hash() });
    }
    // The subject of a workload is the name of a job or an account, not of a person.
    if let Some(workload) = &event.actor.workload {
        metadata["workload"] = json!({
            "rule_id": workload.rule.as_ref().map(|rule| rule.id),
            "rule_name": workload.rule.as_ref().map(|rule| rule.name.as_str()),
            "issuer": &*workload.token.issuer,
            "subject": workload.token.subject,
            "jti": workload.token.id,
        });
    }
    let (workspace, action, context) = (event.workspace, event.action, event.context);
    let bytes = store::insert(
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
    // The operator and time are past all quotas.
    match (&context.quotas, byte_limit(action)) {
        (Some(usual), Some(bound)) => quotas::take_bytes(tx, workspace, usual, (bytes, bound), context.now),
        _ => Ok(quotas::give_back(tx, workspace, Change::bytes(bytes))?),
    }
}
