//! Workspaces: the tenants.

pub mod access_policy;
pub mod actions;
pub mod api;
pub mod archives;
pub mod environment;
pub mod operator;
pub mod slugs;
mod store;
mod wire;

use serde::Serialize;
use ward_db::Timestamp;

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::audit::Subject;
use crate::ids::WorkspaceId;
use crate::names::named;
use crate::quotas::Overrides;
use access_policy::AccessPolicy;

pub use store::{
    AsMember, ISSUER, active, as_member, claim, count, is_claimable, lapse_due, list, membership,
    membership_sql, next_position,
};

#[derive(Clone, Debug, Serialize)]
pub struct Workspace {
    /// The id; until the claim it is a secret.
    pub id: WorkspaceId,
    /// The globally unique name in URLs and confirmations.
    pub slug: String,
    pub name: String,
    /// `production`, `staging` or `development`.
    pub environment: String,
    /// The id of the workspace in the platform's backend, if it has one.
    pub backend_org_id: Option<String>,
    /// The region that stores its data.
    pub region: String,
    /// The connected EHR, if there is one.
    pub connector_type: Option<String>,
    /// The timestamp of the first provisioning.
    pub provisioned_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// The timestamp of the last change, which always grows.
    pub updated_at: Timestamp,
    /// The limits that the operator set for it.
    #[serde(skip)]
    pub limits: Overrides,
    /// The rules of its owners for all callers that enter it.
    #[serde(skip)]
    pub policy: AccessPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceState {
    /// Created by the open bootstrap call, and not claimed yet.
    Unclaimed,
    /// Claimed or created by a user, and in use.
    Active,
    /// Every row is kept, but the workspace does not exist for the API.
    Archived,
    /// Not claimed in time; its slug is free again.
    Lapsed,
}

named!(WorkspaceState);

impl Workspace {
    /// The workspace as the subject of an audit event.
    pub(crate) fn subject(&self) -> Subject<'_> {
        let (id, name) = (Some(self.id.0), Some(self.slug.as_str()));
        Subject { service: "workspaces", kind: "workspace", id, name }
    }
}
