//! The JSON form of audit events.

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;
use ward_db::Timestamp;

use crate::ids::{CredentialId, EventId, PrincipalId, WorkspaceId};

#[derive(Serialize)]
pub(super) struct AuditEventResponse {
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
