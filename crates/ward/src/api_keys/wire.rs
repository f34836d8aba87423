//! The contract's names for keys.

use serde::Serialize;
use ward_db::Timestamp;

use super::{ApiKey, PreviousSecret};
use crate::access::{Permissions, Role};
use crate::identity::Thumbprint;
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::networks::Networks;

/// The public key whose possession each use of a key must prove.
#[derive(Clone, Copy, Serialize)]
pub struct KeyBinding {
    pub jkt: Thumbprint,
}

#[derive(Serialize)]
pub struct ApiKeyResponse {
    id: CredentialId,
    workspace_id: WorkspaceId,
    created_by_entity_id: Option<PrincipalId>,
    created_by_credential_id: Option<CredentialId>,
    key_id: String,
    name: Option<String>,
    role: Role,
    permissions: Permissions,
    expires_at: Timestamp,
    last_used_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    previous: Option<PreviousSecret>,
    quarantined_at: Option<Timestamp>,
    networks: Networks,
    bound_to: Option<KeyBinding>,
}

impl ApiKeyResponse {
    /// The key as the API shows it at this time.
    pub fn of(key: &ApiKey, now: Timestamp) -> Self {
        Self {
            previous: key.live_previous(now),
            bound_to: key.bound_to.map(|jkt| KeyBinding { jkt }),
            id: key.id,
            workspace_id: key.workspace,
            created_by_entity_id: key.created_by,
            created_by_credential_id: key.created_with,
            key_id: key.key_id.clone(),
            name: key.name.clone(),
            role: key.reach.role,
            permissions: key.reach.permissions,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            created_at: key.created_at,
            updated_at: key.updated_at,
            quarantined_at: key.quarantined_at,
            networks: key.networks.clone(),
        }
    }
}
