//! Workloads: CI jobs and pods whose tokens act by the trust rules of workspaces.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use ward_db::Timestamp;

use crate::access::{Reach, Role};
use crate::ids::{PrincipalId, WorkspaceId};

/// The token of a workload: signed by its issuer, in its time, and for one audience. Whether a rule trusts it, the database
/// decides.
pub struct WorkloadToken {
    pub issuer: Arc<str>,
    /// The only audience of the token.
    pub audience: String,
    /// The claim `sub`, which only SPIFFE and unknown issuers never give to another workload.
    pub subject: String,
    /// The claim `jti`, which tells two tokens of a job apart.
    pub id: Option<String>,
    pub expires_at: Timestamp,
    /// All claims, for the conditions of rules.
    pub claims: Map<String, Value>,
}

// Written by hand, because the claims of a token do not belong in a log.
impl fmt::Debug for WorkloadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadToken").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// The rule by which a workload acts in one workspace.
#[derive(Clone, Debug)]
pub struct RuleUsed {
    /// The id of the rule, and of the service that it stands for.
    pub id: PrincipalId,
    pub workspace: WorkspaceId,
    pub name: String,
}

/// A workload as the caller of a request.
#[derive(Debug)]
pub struct Workload {
    pub token: Arc<WorkloadToken>,
    /// The rule of the workspace in the path; `None` in a request without a workspace.
    pub rule: Option<RuleUsed>,
    /// The workspaces that the token could enter; empty in a request with a workspace.
    pub offers: Vec<Offer>,
}

/// A workspace that a token could enter.
#[derive(Clone, Debug)]
pub struct Offer {
    pub workspace: WorkspaceId,
    pub slug: String,
    pub name: String,
    /// The role of the rule's service.
    pub role: Role,
    /// The role and permissions that the rule gives.
    pub reach: Reach,
    /// The position in the token's list.
    pub position: i64,
}
