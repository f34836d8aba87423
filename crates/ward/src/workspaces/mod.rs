//! Workspaces: the tenants.

pub mod actions;
pub mod api;
pub mod environment;
pub mod operator;
mod store;
pub mod test_callers;
pub mod test_credentials;

use serde::Serialize;
use ward_db::Timestamp;

use crate::ids::WorkspaceId;
use crate::quotas::Overrides;

pub use store::{
    AsMember, TestParties, active, as_member, claim, count, forget_test_credentials, guard, is_claimable,
    lapse_due, list, membership, membership_sql, next_position, test_callers_of, test_parties,
};

/// A workspace, as `WorkspaceResponse` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its globally unique name in URLs and confirmations.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// `production`, `staging` or `development`.
    pub environment: String,
    /// The id that the platform's backend knows it by, if it has one.
    pub backend_org_id: Option<String>,
    /// Where its data lives.
    pub region: String,
    /// Which EHR it is connected to.
    pub connector_type: Option<String>,
    /// When it was first provisioned.
    pub provisioned_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed; always grows.
    pub updated_at: Timestamp,
    /// The operator's limits for it.
    #[serde(skip)]
    pub limits: Overrides,
}

/// Where a workspace is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Created by the open bootstrap call; nobody holds a key yet.
    Unclaimed,
    /// In use.
    Active,
    /// Kept, but gone for the API.
    Archived,
    /// Never claimed in time.
    Lapsed,
}

impl State {
    /// Its name in the database and in the operator's tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unclaimed => "unclaimed",
            Self::Active => "active",
            Self::Archived => "archived",
            Self::Lapsed => "lapsed",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Unclaimed, Self::Active, Self::Archived, Self::Lapsed]
            .into_iter()
            .find(|state| state.name() == name)
    }
}
