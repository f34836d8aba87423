//! The last way in: an act through the API cannot end the last access that the owners of a workspace have.
//!
//! Users count: an owner who signs in with a configured issuer, or has a live key with all of an owner's permissions. In
//! a workspace without such a user, the keys of services that own it count. Time is not guarded: keys expire, with warnings.

use super::ApiKey;
use super::store::{self, Ways, Without};
use crate::access::{Reach, Role};
use crate::audit::Write;
use crate::error::ApiError;
use crate::identity::PrincipalKind;
use crate::ids::PrincipalId;

fn ways<'r, 'w: 'r>(write: &Write<'w, '_>, without: Without<'r>) -> Ways<'r> {
    Ways { without, issuers: write.context.issuers.as_deref(), now: write.now() }
}

/// Refuses to revoke the last key by which the owners of its workspace have access (409). The rule is the same for every
/// caller: an owner must still be able to enter afterwards.
pub(super) fn keep_way_into_home(write: &mut Write<'_, '_>, key: &ApiKey) -> Result<(), ApiError> {
    let writes = key.expires_at > write.now() && key.quarantined_at.is_none();
    let opens = writes && key.reach.covers(Reach::whole(Role::Owner));
    if !opens || !store::is_owner(write, key.workspace, key.principal)? {
        return Ok(());
    }
    let ways = ways(write, Without::Key(&key.key_id));
    if store::has_way_in(write, key.workspace, None, ways)?
        || key.kind == PrincipalKind::Service
            && store::has_way_in_of_service(write, key.workspace, None, ways)?
    {
        return Ok(());
    }
    Err(ApiError::conflict(
        "last_way_in",
        "This key is the last way into the workspace. First create another owner key that speaks for you.",
    ))
}

/// Refuses the departure of an owner, user or service, after which no owner would have access to the workspace (409).
pub fn keep_way_without(
    write: &mut Write<'_, '_>,
    owner: PrincipalId,
    kind: PrincipalKind,
) -> Result<(), ApiError> {
    // The operator may remove a service, and can issue a key afterwards.
    if kind == PrincipalKind::Service && write.context.issuers.is_none() {
        return Ok(());
    }
    let (workspace, all) = (write.row(), ways(write, Without::NoKey));
    let another = store::has_way_in(write, workspace, Some(owner), all)?
        || kind == PrincipalKind::Service
            && (store::has_way_in_of_service(write, workspace, Some(owner), all)?
                || !store::has_way_in_of_service(write, workspace, None, all)?);
    if another {
        return Ok(());
    }
    Err(ApiError::conflict(
        "last_way_in",
        "The other owners have neither a key nor an identity, so this owner is the last way into the workspace.",
    ))
}

/// Refuses a change of the held workspace after which no owner could enter it (409).
pub fn keep_way_in(write: &mut Write<'_, '_>) -> Result<(), ApiError> {
    let (workspace, all) = (write.row(), ways(write, Without::NoKey));
    if store::has_way_in(write, workspace, None, all)?
        || store::has_way_in_of_service(write, workspace, None, all)?
    {
        return Ok(());
    }
    Err(ApiError::conflict(
        "last_way_in",
        "No owner could enter the workspace after this change. First make a user of these issuers an owner.",
    ))
}

/// Refuses an act of a user on its own keys after which no owner could enter another workspace that the user owns (409).
///
/// Only the user's own acts are judged: the owners of the keys' workspace must be able to end the keys.
pub fn keep_ways_of(
    write: &mut Write<'_, '_>,
    user: PrincipalId,
    without: Without<'_>,
) -> Result<(), ApiError> {
    let home = write.row();
    // Two acts on keys of different workspaces wait for each other here. Otherwise each could count on the other's key.
    write.also(user)?;
    let (left, all) = (ways(write, without), ways(write, Without::NoKey));
    let Some(owned) = store::owned_without_access(write, user, left)? else {
        return Err(ApiError::conflict(
            "last_way_in",
            "You own too many workspaces to check that each keeps a way in. First create another owner key that speaks for you.",
        ));
    };
    for other in owned.into_iter().filter(|other| *other != home) {
        let mut there = write.also(other)?;
        if !store::has_way_in(&mut there, other, Some(user), all)? {
            return Err(ApiError::conflict(
                "last_way_in",
                "This would end the last way into another workspace that you own. First create an owner key there that speaks for you.",
            ));
        }
    }
    Ok(())
}
