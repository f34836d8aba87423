//! The JSON form of workspaces.

use serde::Serialize;

use super::Workspace;

/// The JSON of the contract's schema `ProvisionResponse`.
#[derive(Serialize)]
pub struct ProvisionResponse {
    pub workspace: Workspace,
}
