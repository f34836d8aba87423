//! Members: who may enter a workspace, and as what.
//!
//! Nobody grants, changes or ends more than they have themselves: a caller's reach must cover all of a member's role,
//! before and after. And a workspace keeps at least one user who is an owner, or nobody could ever transfer or archive
//! it again. Both are judged after the workspace's guard row is taken, so that two owners who remove each other at the
//! same moment cannot both succeed.

pub mod actions;
pub mod api;
pub mod invitations;
mod store;
pub mod transfers;

use ward_db::{Error, Timestamp, Tx};

pub use api::Shown;
pub use store::list;

use crate::access::{Reach, Role};
use crate::api_keys;
use crate::error::ApiError;
use crate::http::caller::Caller;
use crate::identity::PrincipalKind;
use crate::ids::{PrincipalId, WorkspaceId};

/// A member of a workspace.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who.
    pub principal: PrincipalId,
    /// A person or a program.
    pub kind: PrincipalKind,
    /// What it is called.
    pub name: Option<String>,
    /// As what.
    pub role: Role,
    /// Since when.
    pub joined_at: Timestamp,
    /// The place in the workspace's list.
    pub seat: i64,
}

impl Member {
    /// Whether this is one of those who keep the workspace from being nobody's.
    fn is_user_owner(&self) -> bool {
        self.kind == PrincipalKind::User && self.role == Role::Owner
    }
}

/// Whether a principal is a member of a workspace.
pub fn is_member(tx: &mut Tx<'_>, workspace: WorkspaceId, principal: PrincipalId) -> Result<bool, Error> {
    Ok(store::get(tx, workspace, principal)?.is_some())
}

/// 404 for a member who is not there.
const fn no_member() -> ApiError {
    ApiError::missing("member_not_found", "Member not found.")
}

/// Refuses who may do less than a whole `role` may (403).
fn within_reach(reach: Reach, role: Role) -> Result<(), ApiError> {
    if reach.covers(Reach::whole(role)) { Ok(()) } else { Err(beyond_caller()) }
}

/// Refuses a credential that allows less than all of a `role` of its principal's where that role itself is concerned: or a
/// narrow key could do to its user what it may do to nobody else (403). A service has no other key than the narrow one.
fn speaks_for_whole(caller: &Caller, role: Role) -> Result<(), ApiError> {
    let whole = match caller.kind {
        PrincipalKind::User => caller.reach.covers(Reach::whole(role)),
        PrincipalKind::Service => caller.reach.role >= role,
    };
    if whole { Ok(()) } else { Err(beyond_caller()) }
}

/// 403 for what lies above the caller.
const fn beyond_caller() -> ApiError {
    ApiError::forbidden_because(
        "beyond_caller",
        "Nobody can grant, change or end more than they may do themselves.",
    )
}

/// Refuses what would leave the workspace without a user who is an owner, or without a way in for any of them (409).
fn keep_an_owner(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    without: &Member,
    now: Timestamp,
) -> Result<(), ApiError> {
    if !without.is_user_owner() {
        return Ok(());
    }
    if !store::has_other_user_owner(tx, workspace, without.principal)? {
        return Err(ApiError::conflict(
            "last_owner",
            "This is the last user who is an owner. Make another user an owner first, or archive the workspace.",
        ));
    }
    if api_keys::has_way_in(tx, workspace, (Some(without.principal), ""), now)? {
        return Ok(());
    }
    Err(ApiError::conflict(
        "last_way_in",
        "The other owners have no key and no identity, so this owner is the last way into the workspace.",
    ))
}
