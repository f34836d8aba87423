//! The access review: every API key of a workspace.

use serde::Serialize;
use ward_db::Timestamp;

use crate::access::{Permissions, Role};
use crate::api_keys::{self, ApiKey};
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Reply, Request};
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::page::Page;

/// Keys that one answer lists at most.
const LISTED: i64 = 1_000;
/// Totals are exact up to this number; beyond it, they are this number.
const TOTAL_LIMIT: i64 = 10_000;

const NOTE: &str = "Members who sign in at an identity provider need no key of Ward's, so they are not listed here. \
                    GET /v1/{workspace_id}/members lists every member, and a token allows what its member's role allows. \
                    GET /v1/{workspace_id}/trust-rules lists the rules by which tokens of CI jobs and pods act.";

#[derive(Serialize)]
struct AccessReviewResponse {
    generated_at: Timestamp,
    workspace_id: WorkspaceId,
    credentials: Vec<KeyReview>,
    total_credentials: i64,
    jwt_credentials_note: &'static str,
}

#[derive(Serialize)]
struct KeyReview {
    id: CredentialId,
    key_id: String,
    name: Option<String>,
    entity_id: PrincipalId,
    entity_kind: &'static str,
    role: Role,
    permissions: Permissions,
    created_by_entity_id: Option<PrincipalId>,
    created_by_credential_id: Option<CredentialId>,
    created_at: Timestamp,
    updated_at: Timestamp,
    expires_at: Timestamp,
    last_used_at: Option<Timestamp>,
    is_expired: bool,
}

impl KeyReview {
    fn of(key: ApiKey, now: Timestamp) -> Self {
        Self {
            id: key.id,
            key_id: key.key_id,
            name: key.name,
            entity_id: key.principal,
            entity_kind: key.kind.name(),
            role: key.reach.role,
            permissions: key.reach.permissions,
            created_by_entity_id: key.created_by,
            created_by_credential_id: key.created_with,
            created_at: key.created_at,
            updated_at: key.updated_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            is_expired: key.expires_at <= now,
        }
    }
}

/// Answers `get-access-review` with the first keys and their exact or capped number.
pub async fn review(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let (mut keys, total) = request
        .app
        .read_long(workspace, "audit.access_review", move |tx| {
            let keys = api_keys::list(tx, workspace, Page { after: 0, limit: LISTED })?;
            Ok::<_, ward_db::Error>((keys, api_keys::count(tx, workspace, None, TOTAL_LIMIT)?))
        })
        .await?;
    keys.truncate(usize::try_from(LISTED).unwrap_or(usize::MAX));
    let now = request.context.now;
    Reply::ok(&AccessReviewResponse {
        generated_at: now,
        workspace_id: workspace,
        credentials: keys.into_iter().map(|key| KeyReview::of(key, now)).collect(),
        total_credentials: total,
        jwt_credentials_note: NOTE,
    })
}
