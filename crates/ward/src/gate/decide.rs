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
use crate::members;

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

    /// The requirements for a judgement that another service acts on, about the permission that the request names. Without
    /// one, that service could let a leaked key write, so a key in quarantine is refused.
    pub(super) fn judging(self, permission: Option<Permission>) -> Self {
        Self { permission: self.permission.or(permission), reads: self.reads && permission.is_some(), ..self }
    }

    /// The requirements on this caller, in the order of their checks.
    pub(super) fn requirements(self, caller: &Caller) -> impl Iterator<Item = Requirement> {
        let leaked = caller.is_quarantined();
        let quarantine = leaked.then_some(Requirement::Quarantine { of: self.permission, reads: self.reads });
        let permission = self.permission.map(Requirement::Permission);
        let role = self.role.map(Requirement::Role);
        quarantine.into_iter().chain(permission).chain(role).chain(self.caller.map(Requirement::Caller))
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

    /// Whether a caller with this authority meets all requirements (403).
    fn met_by(self, caller: &Caller, authority: Authority) -> Result<(), ApiError> {
        self.requirements(caller).try_for_each(|requirement| requirement.met_by(caller, authority))
    }
}

/// One requirement of an operation on its caller.
#[derive(Clone, Copy, Debug)]
pub(super) enum Requirement {
    /// A key in quarantine only reads, within the permissions that the quarantine left it.
    Quarantine {
        of: Option<Permission>,
        reads: bool,
    },
    Permission(Permission),
    Role(Role),
    Caller(CallerKind),
}

impl Requirement {
    /// The name of the check in an explanation.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Quarantine { .. } => "quarantine",
            Self::Permission(_) => "permission",
            Self::Role(_) => "role",
            Self::Caller(_) => "caller",
        }
    }

    /// The requirement as a sentence for people.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Quarantine { .. } => "The key is in quarantine, because its secret leaked.".to_owned(),
            Self::Permission(permission) => format!("The operation needs {}.", permission.name()),
            Self::Role(role) => format!("The operation needs the role {}.", role.name()),
            Self::Caller(CallerKind::User) => "The operation is for users only.".to_owned(),
            Self::Caller(CallerKind::ApiKey) => "The operation is for API keys only.".to_owned(),
            Self::Caller(CallerKind::Whole) => {
                "The operation needs a credential with all permissions of its member's role.".to_owned()
            }
        }
    }

    /// Whether a caller with this authority meets the requirement (403).
    pub(super) fn met_by(self, caller: &Caller, authority: Authority) -> Result<(), ApiError> {
        match self {
            Self::Quarantine { of, reads } => {
                let permitted = of.is_none_or(|permission| authority.has(permission).is_ok());
                if permitted && reads { Ok(()) } else { Err(ApiError::key_quarantined()) }
            }
            Self::Permission(permission) => authority.has(permission).map_err(ApiError::forbidden),
            Self::Role(role) => authority
                .has_role(role)
                .map_err(|why| ApiError::forbidden_because("owner_only", "Only an owner can do this.", why)),
            Self::Caller(CallerKind::User) if caller.kind != PrincipalKind::User => Err(only_users()),
            Self::Caller(CallerKind::ApiKey) if caller.key().is_none() => Err(only_keys()),
            Self::Caller(CallerKind::Whole) => match authority.membership {
                Some(role) => members::speaks_for_whole(caller, role),
                None => Ok(()),
            },
            Self::Caller(_) => Ok(()),
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

const fn only_keys() -> ApiError {
    ApiError::forbidden_because(
        "not_an_api_key",
        "This operation describes API keys. Use GET /v1/me for a token.",
        Forbidden::by_rule(Rule::ApiKey, Because::AccessToken),
    )
}
