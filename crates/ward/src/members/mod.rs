//! Members: the principals that may enter a workspace, with their roles.
//!
//! A caller cannot grant, change or end more permissions than it has: its own must cover a member's whole
//! role, before and after. A workspace keeps at least one user as an owner; without one, it could never be
//! transferred or archived. Both rules are checked under the workspace's guard row. So two owners who
//! remove each other at the same time cannot both succeed.

pub mod actions;
pub mod api;
mod store;
pub mod transfers;
mod wire;

use ward_db::{Error, Timestamp, Tx};

pub use store::list;
pub use wire::MemberResponse;

use crate::access::{Reach, Role};
use crate::api_keys::last_way_in;
use crate::audit::Write;
use crate::error::ApiError;
use crate::forbidden::{Authority, Forbidden};
use crate::identity::{Caller, PrincipalKind};
use crate::ids::{PrincipalId, WorkspaceId};

/// A member of a workspace, as lists show it.
#[derive(Clone, Debug)]
pub struct Member {
    pub principal: PrincipalId,
    /// Whether the member is a person or a program.
    pub kind: PrincipalKind,
    /// The display name. `None` if the principal has none.
    pub name: Option<String>,
    pub role: Role,
    pub joined_at: Timestamp,
    /// The position in the workspace's list.
    pub seat: i64,
}

impl Member {
    /// Whether this member is one of the users of which a workspace needs at least one.
    fn is_user_owner(&self) -> bool {
        self.kind == PrincipalKind::User && self.role == Role::Owner
    }
}

pub fn is_member(tx: &mut Tx<'_>, workspace: WorkspaceId, principal: PrincipalId) -> Result<bool, Error> {
    Ok(store::get(tx, workspace, principal)?.is_some())
}

const fn no_member() -> ApiError {
    ApiError::missing("member_not_found", "Member not found.")
}

/// Refuses a caller whose permissions do not cover the whole `role` (403).
pub(crate) fn within_reach(authority: Authority, role: Role) -> Result<(), ApiError> {
    authority.covers(Reach::whole(role)).map_err(beyond_caller)
}

/// Refuses a user's credential that does not cover the whole `role`, for operations on the caller's own
/// membership (403). Otherwise, a narrow key could do to its own user what it may do to no other member. A
/// service has only its narrow key, so its role suffices.
pub(crate) fn speaks_for_whole(caller: &Caller, role: Role) -> Result<(), ApiError> {
    let authority = caller.authority();
    let whole = match caller.kind {
        PrincipalKind::User => authority.covers(Reach::whole(role)),
        PrincipalKind::Service => authority.has_role(role),
    };
    whole.map_err(beyond_caller)
}

/// The 403 for permissions beyond the caller's.
pub(crate) const fn beyond_caller(why: Forbidden) -> ApiError {
    ApiError::forbidden_because(
        "beyond_caller",
        "You cannot grant, change or end permissions that you do not have.",
        why,
    )
}

/// Refuses a change after which no user would own the workspace, or no owner would have access to it (409).
fn keep_an_owner(write: &mut Write<'_, '_>, without: &Member) -> Result<(), ApiError> {
    let workspace = write.row();
    if without.role < Role::Owner {
        return Ok(());
    }
    if without.is_user_owner() && !store::has_other_user_owner(write, workspace, without.principal)? {
        return Err(ApiError::conflict(
            "last_owner",
            "This is the last user that is an owner. First make another user an owner, or archive the workspace.",
        ));
    }
    last_way_in::keep_way_without(write, without.principal, without.kind)
}
