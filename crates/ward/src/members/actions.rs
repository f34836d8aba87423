//! Writes on members: change of role, removal, leaving.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use ward_db::Tx;

use super::{Member, keep_an_owner, no_member, store, transfers, within_reach};
use crate::access::Role;
use crate::api_keys::{self, EndedKeys, Without, last_way_in};
use crate::app::App;
use crate::audit::{Actor, Subject, Write};
use crate::context::Context;
use crate::endings::{AT_ONCE, ClosedRows, Ending, Kind};
use crate::error::ApiError;
use crate::gate::{Entry, Held};
use crate::identity::{self, PrincipalKind};
use crate::ids::{PrincipalId, WorkspaceId};
use crate::quotas::{self, Change as Count};
use crate::{invitations, test_callers, trust_rules};

#[derive(Clone, Debug, Deserialize)]
pub struct SetMemberRoleRequest {
    role: String,
}

/// A member as the subject of an audit event.
pub(super) fn subject(member: &Member) -> Subject<'_> {
    let (id, name) = (Some(member.principal.0), member.name.as_deref());
    Subject { service: "members", kind: "member", id, name }
}

/// Gives a member another role. The current role writes nothing.
pub async fn set_role(
    app: &Arc<App>,
    entry: Entry,
    member: PrincipalId,
    new: SetMemberRoleRequest,
) -> Result<Member, ApiError> {
    let role = Role::named(&new.role).ok_or_else(|| ApiError::internal("an unvalidated role"))?;
    let outcome = entry.write(app, "members.set_role", move |write, held| {
        let mut member = store::get(write, held.seen.workspace.id, member)?.ok_or(no_member())?;
        within_reach(held.seen.authority, member.role.max(role))?;
        if member.role == role {
            return Ok(member);
        }
        if role < Role::Owner {
            keep_an_owner(write, &member)?;
        }
        let from = std::mem::replace(&mut member.role, role);
        change_role(write, &member)?;
        let what = json!({ "changes": { "role": { "from": from, "to": role } } });
        write.record("member.update", subject(&member), what)?;
        Ok(member)
    });
    let outcome = outcome.await;
    app.ended.notify_one();
    outcome
}

/// Stores a member's new role, and ends pending offers that need more permissions than the member now has.
pub(super) fn change_role(write: &mut Write<'_, '_>, member: &Member) -> Result<(), ApiError> {
    let who = member.principal;
    store::set_role(write, who, member.role)?;
    invitations::actions::end_beyond(write, who, Some(member.role))?;
    if member.role == Role::Owner {
        return transfers::end_if(write, "the nominee is now an owner", |it| it.nominee_entity_id == who);
    }
    transfers::end_if(write, "the nominator is no longer an owner", |it| it.nominated_by_entity_id == who)
}

/// Ends the membership of another principal, with its keys of this workspace.
pub async fn remove(app: &Arc<App>, entry: Entry, member: PrincipalId) -> Result<(), ApiError> {
    let outcome = entry.write(app, "members.remove", move |write, held| {
        let member = store::get(write, held.seen.workspace.id, member)?.ok_or(no_member())?;
        within_reach(held.seen.authority, member.role)?;
        end(write, "member.remove", &member)
    });
    let outcome = outcome.await;
    app.ended.notify_one();
    outcome
}

/// Ends a membership as the operator. `None` if there is no such member.
pub fn remove_as_operator(
    tx: &mut Tx<'_>,
    context: &Context,
    workspace: WorkspaceId,
    member: PrincipalId,
) -> Result<Option<Member>, ApiError> {
    let write = &mut Write::begin(tx, workspace, Actor::OPERATOR, context)?;
    let Some(member) = store::get(write, workspace, member)? else { return Ok(None) };
    end(write, "member.remove", &member)?;
    Ok(Some(member))
}

/// Ends the caller's own membership. The gate has refused a credential that allows less than the membership.
pub async fn leave(app: &Arc<App>, entry: Entry) -> Result<(), ApiError> {
    let outcome = entry.write(app, "members.leave", move |write, Held { caller, seen }| {
        let member = store::get(write, seen.workspace.id, caller.principal)?.ok_or(no_member())?;
        if member.kind == PrincipalKind::User {
            last_way_in::keep_ways_of(write, member.principal, Without::KeysOf(seen.workspace.id))?;
        }
        end(write, "member.leave", &member)
    });
    let outcome = outcome.await;
    app.ended.notify_one();
    outcome
}

/// Ends a membership and everything that depends on it in the same commit: keys, invitations, a transfer of
/// ownership.
fn end(write: &mut Write<'_, '_>, action: &'static str, member: &Member) -> Result<(), ApiError> {
    let (workspace, now) = (write.row(), write.now());
    keep_an_owner(write, member)?;
    let keys = end_keys(write, member.principal)?;
    if member.kind == PrincipalKind::Service {
        trust_rules::actions::end_of_member(write, member.principal)?;
    }
    test_callers::forget_ended_credentials(write, now)?;
    invitations::actions::end_beyond(write, member.principal, None)?;
    transfers::end_if(write, "one of the two is no longer a member", |it| {
        [it.nominee_entity_id, it.nominated_by_entity_id].contains(&member.principal)
    })?;
    identity::leave(write, member.principal)?;
    quotas::give_back(write, workspace, Count { members: -1, ..Count::default() })?;
    let what = json!({ "role": member.role, "revoked_key_ids": keys.ids, "more_keys": keys.ended == ClosedRows::Some });
    write.record(action, subject(member), what)
}

/// Revokes the workspace's keys that speak for a leaving member. The write revokes the first few, and
/// leaves an ending for the others.
fn end_keys(write: &mut Write<'_, '_>, member: PrincipalId) -> Result<EndedKeys, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let keys = api_keys::end_some_of(write, member, i64::MAX, AT_ONCE, now)?;
    quotas::give_back(write, workspace, fewer_keys(&keys))?;
    if keys.ended == ClosedRows::Some {
        let by = (&write.actor, write.context);
        Ending::of_member(workspace, member, Kind::Keys, i64::MAX, by).begin(write, now)?;
    }
    Ok(keys)
}

fn fewer_keys(ended: &EndedKeys) -> Count {
    Count { keys: -i64::try_from(ended.ids.len()).unwrap_or(i64::MAX), ..Count::default() }
}

/// Revokes up to `most` of the keys of an ending.
pub fn end_some_keys(write: &mut Write<'_, '_>, ending: &Ending, most: u32) -> Result<ClosedRows, ApiError> {
    let (workspace, principal, now) = (ending.workspace, ending.principal, write.now());
    // A member that joined again has a new seat, and its new keys have positions after that seat.
    let before = store::get(write, workspace, principal)?.map_or(i64::MAX, |member| member.seat);
    let keys = api_keys::end_some_of(write, principal, before, most, now)?;
    quotas::give_back(write, workspace, fewer_keys(&keys))?;
    if !keys.ids.is_empty() {
        let what = json!({ "revoked_key_ids": keys.ids, "ended_by_request": ending.request_id });
        let about = Subject { service: "members", kind: "member", id: Some(principal.0), name: None };
        write.record("member.revoke_keys", about, what)?;
    }
    Ok(keys.ended)
}
