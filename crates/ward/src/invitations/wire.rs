//! The JSON form of invitations.

use serde::Serialize;
use ward_db::Timestamp;

use super::{Invitation, store};
use crate::access::{Permissions, Reach, Role};
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};
use crate::workspaces::Workspace;

/// The JSON of the contract's schema `InvitationResponse`.
#[derive(Serialize)]
pub struct InvitationResponse {
    id: InvitationId,
    role: Role,
    email: Option<String>,
    created_by_entity_id: PrincipalId,
    expires_at: Timestamp,
    created_at: Timestamp,
}

impl From<Invitation> for InvitationResponse {
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
pub struct OfferedInvitationResponse {
    id: InvitationId,
    workspace_id: WorkspaceId,
    slug: String,
    name: String,
    role: Role,
    expires_at: Timestamp,
    created_at: Timestamp,
}

impl From<store::Offer> for OfferedInvitationResponse {
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
pub struct CreateInvitationResponse {
    #[serde(flatten)]
    shown: InvitationResponse,
    invitation: String,
}

impl CreateInvitationResponse {
    pub fn new(invitation: Invitation, secret: &str) -> Self {
        Self { shown: invitation.into(), invitation: secret.to_owned() }
    }
}

/// The JSON of the contract's schema `MembershipResponse`.
#[derive(Serialize)]
pub struct MembershipResponse {
    workspace_id: WorkspaceId,
    slug: String,
    name: String,
    role: Role,
    permissions: Permissions,
}

impl MembershipResponse {
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
