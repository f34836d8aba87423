//! The contract's names for trust rules.

use serde::Serialize;
use ward_db::Timestamp;

use super::{Condition, Shape, TrustRule};
use crate::access::{Permissions, Role};
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};

#[derive(Serialize)]
pub struct TrustRuleResponse {
    id: PrincipalId,
    workspace_id: WorkspaceId,
    name: String,
    issuer: String,
    audience: String,
    shape: Shape,
    conditions: Vec<Condition>,
    role: Role,
    permissions: Permissions,
    expires_at: Option<Timestamp>,
    created_by_entity_id: PrincipalId,
    created_by_credential_id: Option<CredentialId>,
    created_at: Timestamp,
}

impl From<TrustRule> for TrustRuleResponse {
    fn from(rule: TrustRule) -> Self {
        Self {
            id: rule.id,
            workspace_id: rule.workspace,
            shape: rule.shape(),
            name: rule.name,
            issuer: rule.issuer,
            audience: rule.audience,
            conditions: rule.conditions,
            role: rule.reach.role,
            permissions: rule.reach.permissions,
            expires_at: rule.expires_at,
            created_by_entity_id: rule.created_by,
            created_by_credential_id: rule.created_with,
            created_at: rule.created_at,
        }
    }
}
