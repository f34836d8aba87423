//! Writes on members: change of role, removal, leaving.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use ward_db::Tx;

use super::{Member, keep_an_owner, no_member, speaks_for_whole, store, transfers, within_reach};
use crate::access::Role;
use crate::api_keys::{self, EndedKeys};
use crate::app::App;
use crate::audit::{self, Actor, Event};
use crate::context::Context;
use crate::endings::{AT_ONCE, Ended, Ending, Kind};
use crate::error::ApiError;
use crate::gate::{Entry, Held};
use crate::identity;
use crate::ids::{PrincipalId, WorkspaceId};
use crate::quotas::{self, Change as Count};
use crate::{invitations, test_callers, workspaces};

/// `SetMemberRoleRequest`, validated.
#[derive(Clone, Debug, Deserialize)]
pub struct SetMemberRoleRequest {
    role: String,
}

/// The audit event of a change of a member.
pub(super) fn event<'a>(
    context: &'a Context,
    actor: Actor,
    action: &'static str,
    workspace: WorkspaceId,
    member: &'a Member,
    metadata: Value,
) -> Event<'a> {
    Event {
        workspace,
        service: "members",
        action,
        resource_type: "member",
        resource_id: Some(member.principal.0),
        resource_name: member.name.as_deref(),
        actor,
        context,
        metadata,
    }
}

/// Gives a member another role. The current role writes nothing.
pub async fn set_role(
    app: &Arc<App>,
    entry: Entry,
    member: PrincipalId,
    new: SetMemberRoleRequest,
) -> Result<Member, ApiError> {
    let role = Role::named(&new.role).ok_or_else(|| ApiError::internal("an unvalidated role"))?;
    let noted = entry.clone();
    let outcome = app
        .db
        .write("members.set_role", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            let workspace = seen.workspace.id;
            let mut member = store::get(tx, workspace, member)?.ok_or(no_member())?;
            within_reach(seen.reach, member.role.max(role))?;
            if member.role == role {
                return Ok(member);
            }
            if role < Role::Owner {
                keep_an_owner(tx, workspace, &member, entry.context.now)?;
            }
            let from = std::mem::replace(&mut member.role, role);
            let actor = Actor::of(&caller);
            change_role(tx, &entry.context, &actor, workspace, &member)?;
            let what = json!({ "changes": { "role": { "from": from, "to": role } } });
            audit::record(tx, event(&entry.context, actor, "member.update", workspace, &member, what))?;
            Ok(member)
        })
        .await;
    app.ended.notify_one();
    noted.note_if_forbidden(app, outcome)
}

/// Stores a member's new role, and ends pending offers that need more permissions than the member now has.
pub(super) fn change_role(
    tx: &mut Tx<'_>,
    context: &Context,
    actor: &Actor,
    workspace: WorkspaceId,
    member: &Member,
) -> Result<(), ApiError> {
    store::set_role(tx, workspace, member.principal, member.role)?;
    invitations::actions::end_beyond(tx, context, actor, (workspace, member.principal), Some(member.role))?;
    let who = member.principal;
    if member.role == Role::Owner {
        return transfers::end_if(tx, context, actor, workspace, "the nominee is now an owner", |it| {
            it.nominee_entity_id == who
        });
    }
    transfers::end_if(tx, context, actor, workspace, "the nominator is no longer an owner", |it| {
        it.nominated_by_entity_id == who
    })
}

/// Ends the membership of another principal, with its keys of this workspace.
pub async fn remove(app: &Arc<App>, entry: Entry, member: PrincipalId) -> Result<(), ApiError> {
    let noted = entry.clone();
    let outcome = app
        .db
        .write("members.remove", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            let workspace = seen.workspace.id;
            let member = store::get(tx, workspace, member)?.ok_or(no_member())?;
            within_reach(seen.reach, member.role)?;
            end(tx, &entry.context, Actor::of(&caller), "member.remove", workspace, &member)
        })
        .await;
    app.ended.notify_one();
    noted.note_if_forbidden(app, outcome)
}

/// Ends a membership as the operator. `None` if there is no such member.
pub fn remove_as_operator(
    tx: &mut Tx<'_>,
    context: &Context,
    workspace: WorkspaceId,
    member: PrincipalId,
) -> Result<Option<Member>, ApiError> {
    workspaces::guard(tx, workspace)?;
    let Some(member) = store::get(tx, workspace, member)? else { return Ok(None) };
    end(tx, context, Actor::OPERATOR, "member.remove", workspace, &member)?;
    Ok(Some(member))
}

/// Ends the caller's own membership.
pub async fn leave(app: &Arc<App>, entry: Entry) -> Result<(), ApiError> {
    let noted = entry.clone();
    let outcome = app
        .db
        .write("members.leave", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            let workspace = seen.workspace.id;
            let member = store::get(tx, workspace, caller.principal)?.ok_or(no_member())?;
            speaks_for_whole(&caller, member.role)?;
            end(tx, &entry.context, Actor::of(&caller), "member.leave", workspace, &member)
        })
        .await;
    app.ended.notify_one();
    noted.note_if_forbidden(app, outcome)
}

/// Ends a membership and everything that depends on it in the same commit: keys, invitations, a transfer of
/// ownership.
fn end(
    tx: &mut Tx<'_>,
    context: &Context,
    actor: Actor,
    action: &'static str,
    workspace: WorkspaceId,
    member: &Member,
) -> Result<(), ApiError> {
    keep_an_owner(tx, workspace, member, context.now)?;
    let keys = end_keys(tx, context, &actor, workspace, member.principal)?;
    test_callers::forget_ended_credentials(tx, workspace, context.now)?;
    invitations::actions::end_beyond(tx, context, &actor, (workspace, member.principal), None)?;
    transfers::end_if(tx, context, &actor, workspace, "one of the two is no longer a member", |it| {
        [it.nominee_entity_id, it.nominated_by_entity_id].contains(&member.principal)
    })?;
    identity::leave(tx, member.principal, workspace)?;
    quotas::give_back(tx, workspace, Count { members: -1, ..Count::default() })?;
    let what =
        json!({ "role": member.role, "revoked_key_ids": keys.ids, "more_keys": keys.ended == Ended::Some });
    audit::record(tx, event(context, actor, action, workspace, member, what))
}

/// Revokes the workspace's keys that speak for a leaving member. The write revokes the first few, and
/// leaves an ending for the others.
fn end_keys(
    tx: &mut Tx<'_>,
    context: &Context,
    actor: &Actor,
    workspace: WorkspaceId,
    member: PrincipalId,
) -> Result<EndedKeys, ApiError> {
    let keys = api_keys::end_some_of(tx, (workspace, member), i64::MAX, AT_ONCE, context.now)?;
    quotas::give_back(tx, workspace, fewer_keys(&keys))?;
    if keys.ended == Ended::Some {
        let rest = Ending::of_member(workspace, member, Kind::Keys, i64::MAX, (actor, context));
        rest.begin(tx, context.now)?;
    }
    Ok(keys)
}

fn fewer_keys(ended: &EndedKeys) -> Count {
    Count { keys: -i64::try_from(ended.ids.len()).unwrap_or(i64::MAX), ..Count::default() }
}

/// Revokes up to `most` of the keys of an ending.
pub fn end_some_keys(
    tx: &mut Tx<'_>,
    context: &Context,
    ending: &Ending,
    most: u32,
) -> Result<Ended, ApiError> {
    let (workspace, principal) = (ending.workspace, ending.principal);
    // A member that joined again has a new seat, and its new keys have positions after that seat.
    let before = store::get(tx, workspace, principal)?.map_or(i64::MAX, |member| member.seat);
    let keys = api_keys::end_some_of(tx, (workspace, principal), before, most, context.now)?;
    quotas::give_back(tx, workspace, fewer_keys(&keys))?;
    if !keys.ids.is_empty() {
        let metadata = json!({ "revoked_key_ids": keys.ids, "ended_by_request": ending.request_id });
        audit::record(
            tx,
            Event {
                workspace,
                service: "members",
                action: "member.revoke_keys",
                resource_type: "member",
                resource_id: Some(principal.0),
                resource_name: None,
                actor: ending.actor.clone(),
                context,
                metadata,
            },
        )?;
    }
    Ok(keys.ended)
}
