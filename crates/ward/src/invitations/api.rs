//! The JSON routes of invitations.

use http::StatusCode;
use serde::Serialize;
use uuid::Uuid;
use ward_db::Timestamp;

use super::actions::{self, Acceptance, NewEnd, NewInvitation};
use super::{Invitation, store};
use crate::access::{Permissions, Reach, Role};
use crate::error::ApiError;
use crate::http::caller::bearer_text;
use crate::http::idempotency::Repeat;
use crate::http::{Call, Reply};
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};
use crate::page::{self, Page, PageQuery, Paginated, TOTAL_LIMIT};
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

/// `OfferedInvitationResponse`: an invitation for the eyes of the invited person.
#[derive(Serialize)]
struct Offered {
    id: InvitationId,
    workspace_id: WorkspaceId,
    slug: String,
    name: String,
    role: Role,
    expires_at: Timestamp,
    created_at: Timestamp,
}

impl From<store::Offer> for Offered {
    fn from(offer: store::Offer) -> Self {
        Self {
            id: offer.invitation.id,
            workspace_id: offer.invitation.workspace,
            slug: offer.slug,
            name: offer.name,
            role: offer.invitation.role,
            expires_at: offer.invitation.expires_at,
            created_at: offer.invitation.created_at,
        }
    }
}

/// `CreateInvitationResponse`, for creating and resending: the only answers that ever contain a link's
/// secret.
#[derive(Serialize)]
pub struct ShownOnce {
    #[serde(flatten)]
    shown: Shown,
    invitation: String,
}

impl ShownOnce {
    /// The answer for an invitation with its secret.
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
    /// A new membership, within the permissions of the accepting credential.
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
            let (rows, until) = page::fill(
                page,
                |it: &Invitation| it.position,
                |it| it.holds,
                |page| store::list(tx, workspace, now, page),
            )?;
            let counted = store::count(tx, workspace, now, TOTAL_LIMIT + 1)?;
            let listed = Paginated::new(rows, page, counted, |it| it.position, Shown::from);
            Ok::<_, ward_db::Error>(listed.looked_through(until))
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
    actions::revoke(&call.app, entry, invitation_id(&call)).await?;
    Ok(Reply::no_content())
}

/// `extend-invitation`
pub async fn extend(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<NewEnd>().await?;
    let extended = actions::extend(&call.app, entry, invitation_id(&call), sent.value).await?;
    Reply::ok(&Shown::from(extended))
}

/// `resend-invitation`
pub async fn resend(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<NewEnd>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    actions::resend(&call.app, entry, invitation_id(&call), sent.value, repeat).await
}

/// The invitation in the path. A text that is not an id is treated like an unknown id.
fn invitation_id(call: &Call) -> InvitationId {
    InvitationId(Uuid::try_parse(call.parameter("invitation_id")).unwrap_or(Uuid::nil()))
}

/// `list-my-invitations`
pub async fn list_own(call: Call) -> Result<Reply, ApiError> {
    let (entry, query) = call.enter_with_query().await?;
    let page = query.read::<PageQuery>()?.page();
    let now = call.context.now;
    let token = bearer_text(&call).and_then(|text| std::str::from_utf8(text).ok());
    let Some(address) = actions::own_address(&entry, token).await? else {
        return Reply::ok(&Paginated::new(
            Vec::new(),
            page,
            0,
            |offer: &store::Offer| offer.invitation.position,
            Offered::from,
        ));
    };
    let listed = call
        .app
        .db
        .read("invitations.list_own", move |tx| {
            let rows = store::offers(tx, &address, now, page)?;
            let counted = store::count_offers(tx, &address, now, TOTAL_LIMIT + 1)?;
            let page = before_tie(&rows, page);
            Ok::<_, ward_db::Error>(Paginated::new(
                rows,
                page,
                counted,
                |it| it.invitation.position,
                Offered::from,
            ))
        })
        .await?;
    Reply::ok(&listed)
}

/// Removes the last rows of the page if the row after the page has their position. The next page begins
/// after a position, so rows with equal positions must stay together.
fn before_tie(rows: &[store::Offer], page: Page) -> Page {
    let Some(next) = usize::try_from(page.limit).ok().and_then(|limit| rows.get(limit)) else { return page };
    let before = rows.iter().filter(|row| row.invitation.position < next.invitation.position).count();
    match i64::try_from(before) {
        Ok(limit @ 1..) => Page { limit, ..page },
        _ => page,
    }
}

/// `accept-my-invitation`
pub async fn accept_own(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, bytes) = call.enter_with_ignored_body().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &bytes, StatusCode::CREATED)?;
    let token = bearer_text(&call).and_then(|text| std::str::from_utf8(text).ok());
    actions::accept_own(&call.app, entry, invitation_id(&call), token, repeat).await
}

/// `accept-invitation`
pub async fn accept(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<Acceptance>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    let token = bearer_text(&call).and_then(|text| std::str::from_utf8(text).ok());
    actions::accept(&call.app, entry, sent.value, token, repeat).await
}
