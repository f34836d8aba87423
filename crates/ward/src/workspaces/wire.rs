//! The JSON form of workspaces.

use serde::Serialize;

use super::Workspace;

/// `ProvisionResponse`
#[derive(Serialize)]
pub struct ProvisionResponse {
    /// The workspace after the operation.
    pub workspace: Workspace,
}
