//! The JSON routes of invitations.

use http::StatusCode;
use serde::Serialize;
use uuid::Uuid;
use ward_db::Timestamp;

use super::actions::{self, Acceptance, NewInvitation};
use super::{Invitation, store};
use crate::access::{Permissions, Reach, Role};
use crate::error::ApiError;
use crate::http::caller::bearer_text;
use crate::http::idempotency::Repeat;
use crate::http::{Call, Reply};
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};
use crate::page::{PageQuery, Paginated, TOTAL_LIMIT};
use crate::workspaces::Workspace;

/// `InvitationResponse`
#[derive(Serialize)]
pub struct Shown {
    id: InvitationId,
    role: Role,
    email: Option<String>,
    created_by_entity_id: PrincipalId,
    expires_at: Timestamp,
    created_at: Timestamp,
}

impl From<Invitation> for Shown {
    fn from(invitation: Invitation) -> Self {
        Self {
            id: invitation.id,
            role: invitation.role,
            email: invitation.email,
            created_by_entity_id: invitation.created_by,
            expires_at: invitation.expires_at,
            created_at: invitation.created_at,
        }
    }
}

/// `CreateInvitationResponse`: the only answer that ever holds a link's secret.
#[derive(Serialize)]
pub struct ShownOnce {
    #[serde(flatten)]
    shown: Shown,
    invitation: String,
}

impl ShownOnce {
    /// The invitation with its secret.
    pub fn new(invitation: Invitation, secret: &str) -> Self {
        Self { shown: invitation.into(), invitation: secret.to_owned() }
    }
}

/// `MembershipResponse`
#[derive(Serialize)]
pub struct Joined {
    workspace_id: WorkspaceId,
    slug: String,
    name: String,
    role: Role,
    permissions: Permissions,
}

impl Joined {
    /// A membership just begun, as far as the accepting credential reaches.
    pub fn new(workspace: Workspace, role: Role, credential: Reach) -> Self {
        Self {
            workspace_id: workspace.id,
            slug: workspace.slug,
            name: workspace.name,
            role,
            permissions: credential.within(Reach::whole(role)).permissions,
        }
    }
}

/// `list-invitations`
pub async fn list(call: Call) -> Result<Reply, ApiError> {
    let (entry, query) = call.enter_with_query().await?;
    let workspace = entry.workspace()?.id;
    let page = query.read::<PageQuery>()?.page();
    let now = call.context.now;
    let listed = call
        .app
        .db
        .read("invitations.list", move |tx| {
            let rows = store::list(tx, workspace, now, page)?;
            let counted = store::count(tx, workspace, now, TOTAL_LIMIT + 1)?;
            Ok::<_, ward_db::Error>(Paginated::new(rows, page, counted, |it| it.position, Shown::from))
        })
        .await?;
    Reply::ok(&listed)
}

/// `create-invitation`
pub async fn create(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<NewInvitation>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    actions::create(&call.app, entry, sent.value, repeat).await
}

/// `revoke-invitation`
pub async fn revoke(call: Call) -> Result<Reply, ApiError> {
    let entry = call.enter().await?;
    let id = Uuid::try_parse(call.parameter("invitation_id")).unwrap_or(Uuid::nil());
    actions::revoke(&call.app, entry, InvitationId(id)).await?;
    Ok(Reply::no_content())
}

/// `accept-invitation`
pub async fn accept(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<Acceptance>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    let token = bearer_text(&call).and_then(|text| std::str::from_utf8(text).ok());
    actions::accept(&call.app, entry, sent.value, token, repeat).await
}
