//! The decision about a caller whose credential is valid. It reads nothing and changes nothing, so every place that must
//! know the decision makes it with these functions: the entry, the write, and the explanation.

use http::Method;
use ward_contract::{Access, CallerKind, Operation};

use super::VisibleWorkspace;
use crate::access::{Permission, Role};
use crate::error::ApiError;
use crate::forbidden::{Authority, Because, Forbidden, Rule};
use crate::identity::{Caller, PrincipalKind};
use crate::ids::WorkspaceId;

/// The requirements of an operation on its caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    permission: Option<Permission>,
    role: Option<Role>,
    caller: Option<CallerKind>,
    /// Whether the operation only reads, so that a leaked key in quarantine may use it.
    reads: bool,
}

impl Need {
    pub(super) fn of(operation: &Operation) -> Self {
        let reads = operation.method == Method::GET;
        match &operation.access {
            Access::Anonymous => Self { permission: None, role: None, caller: None, reads },
            Access::Key { permission, role, caller, .. } => Self {
                permission: permission.as_deref().and_then(Permission::named),
                role: role.as_deref().and_then(Role::named),
                caller: *caller,
                reads,
            },
        }
    }

    /// The decision about a caller who names the workspace `target` and sees it as `seen` (404, 403).
    pub(super) fn decide(
        self,
        target: Option<WorkspaceId>,
        caller: &Caller,
        seen: Option<&VisibleWorkspace>,
    ) -> Result<(), ApiError> {
        match (target, seen) {
            (Some(_), None) => Err(ApiError::no_workspace()),
            (_, Some(seen)) => self.met_by(caller, seen.authority),
            (None, None) => self.met_by(caller, caller.authority()),
        }
    }

    /// Whether a caller with this authority meets the requirements (403). A quarantine has narrowed the authority already.
    fn met_by(self, caller: &Caller, authority: Authority) -> Result<(), ApiError> {
        let permitted = self.permission.map_or(Ok(()), |permission| authority.has(permission));
        if caller.is_quarantined() && (permitted.is_err() || !self.reads) {
            return Err(ApiError::key_quarantined());
        }
        permitted.map_err(ApiError::forbidden)?;
        if let Some(role) = self.role {
            authority.has_role(role).map_err(|why| {
                ApiError::forbidden_because("owner_only", "Only an owner can do this.", why)
            })?;
        }
        match self.caller {
            Some(CallerKind::User) if caller.kind != PrincipalKind::User => Err(only_users()),
            Some(CallerKind::ApiKey) if caller.key().is_none() => Err(ApiError::forbidden_because(
                "not_an_api_key",
                "This operation describes API keys. Use GET /v1/me for a token.",
                Forbidden::by_rule(Rule::ApiKey, Because::AccessToken),
            )),
            _ => Ok(()),
        }
    }
}

const fn only_users() -> ApiError {
    ApiError::forbidden_because(
        "unsupported_principal",
        "Only a user can do this, but this credential speaks for a service.",
        Forbidden::by_rule(Rule::User, Because::Service),
    )
}
