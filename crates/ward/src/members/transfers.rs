//! Transfer of ownership: an owner nominates, and the nominee accepts. Until then, nothing changes.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use ward_db::Tx;

use super::actions::{change_role, event};
use super::wire::{MemberResponse, Transfer};
use super::{no_member, speaks_for_whole, store, within_reach};
use crate::access::Role;
use crate::app::App;
use crate::audit::{self, Actor};
use crate::context::Context;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::identity::PrincipalKind;
use crate::ids::{PrincipalId, WorkspaceId};

const DAY: u64 = 24 * 3600;

/// `NominateOwnerRequest`, validated.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct NominateOwnerRequest {
    entity_id: Uuid,
    duration_days: u64,
}

/// The 404 for a workspace without a pending transfer.
pub(super) const fn no_transfer() -> ApiError {
    ApiError::missing("transfer_not_found", "No transfer of ownership is pending.")
}

/// Nominates a member as the owner in place of the caller.
pub async fn nominate(
    app: &Arc<App>,
    entry: Entry,
    nomination: NominateOwnerRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let vault = app.vault.clone();
    let noted = entry.clone();
    let outcome = app
        .db
        .write("members.nominate", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            if caller.kind != PrincipalKind::User {
                return Err(ApiError::forbidden_because(
                    "unsupported_principal",
                    "Only a user can hand over ownership; this caller is a service.",
                ));
            }
            within_reach(seen.reach, Role::Owner)?;
            repeat.once(tx, &vault, Secrecy::Open, |tx| {
                let (workspace, now) = (seen.workspace.id, entry.context.now);
                let nominee = store::get(tx, workspace, PrincipalId(nomination.entity_id))?;
                let nominee = nominee.ok_or(no_member())?;
                if nominee.kind != PrincipalKind::User {
                    return Err(ApiError::conflict("not_a_user", "Only a user can become an owner."));
                }
                if nominee.role == Role::Owner {
                    return Err(ApiError::conflict("already_owner", "This member is already an owner."));
                }
                let days = Duration::from_secs(nomination.duration_days * DAY);
                let transfer = Transfer {
                    nominee_entity_id: nominee.principal,
                    nominated_by_entity_id: caller.principal,
                    expires_at: caller.end_of_what_it_makes(now.saturating_add(days)),
                    created_at: now,
                };
                let actor = Actor::of(&caller);
                end_if(tx, &entry.context, &actor, workspace, "replaced by another", |_| true)?;
                store::set_transfer(tx, workspace, &transfer, caller.key())?;
                let what = json!({ "expires_at": transfer.expires_at });
                audit::record(
                    tx,
                    event(&entry.context, actor, "ownership.nominate", workspace, &nominee, what),
                )?;
                Ok(transfer)
            })
        })
        .await;
    noted.note_if_forbidden(app, outcome)
}

/// Makes the nominee an owner and the nominator an admin.
pub async fn accept(app: &Arc<App>, entry: Entry, repeat: Repeat) -> Result<Reply, ApiError> {
    let vault = app.vault.clone();
    let noted = entry.clone();
    let outcome = app
        .db
        .write("members.accept_ownership", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            repeat.once(tx, &vault, Secrecy::Open, |tx| {
                let (workspace, context) = (seen.workspace.id, &entry.context);
                let transfer = store::transfer(tx, workspace, context.now)?;
                let transfer = transfer.filter(|it| it.nominee_entity_id == caller.principal);
                let transfer = transfer.ok_or(no_transfer())?;
                // A nominee's key that is narrower than an owner's must not make its user an owner.
                speaks_for_whole(&caller, Role::Owner)?;
                let nominator = store::get(tx, workspace, transfer.nominated_by_entity_id)?;
                let Some(mut nominator) = nominator.filter(|it| it.role == Role::Owner) else {
                    return Err(ApiError::conflict(
                        "nominator_not_owner",
                        "The member who nominated you is no longer an owner.",
                    ));
                };
                let mut member = store::get(tx, workspace, caller.principal)?.ok_or(no_member())?;
                store::end_transfer(tx, workspace)?;
                member.role = Role::Owner;
                store::set_role(tx, workspace, member.principal, Role::Owner)?;
                nominator.role = Role::Admin;
                let actor = Actor::of(&caller);
                change_role(tx, context, &actor, workspace, &nominator)?;
                let what = json!({ "from_entity_id": nominator.principal });
                audit::record(tx, event(context, actor, "ownership.accept", workspace, &member, what))?;
                Ok(MemberResponse::from(member))
            })
        })
        .await;
    app.ended.notify_one();
    noted.note_if_forbidden(app, outcome)
}

/// Cancels the pending transfer if `moot` says so, and records the reason.
pub(super) fn end_if(
    tx: &mut Tx<'_>,
    context: &Context,
    actor: &Actor,
    workspace: WorkspaceId,
    reason: &'static str,
    moot: impl FnOnce(&Transfer) -> bool,
) -> Result<(), ApiError> {
    let Some(transfer) = store::transfer(tx, workspace, context.now)?.filter(moot) else { return Ok(()) };
    store::end_transfer(tx, workspace)?;
    let nominee = store::get(tx, workspace, transfer.nominee_entity_id)?.ok_or(no_member())?;
    let what = json!({ "reason": reason });
    audit::record(tx, event(context, actor.clone(), "ownership.cancel", workspace, &nominee, what))
}

/// Ends the pending transfer: an owner cancels it, or the nominee declines it.
pub async fn cancel(app: &Arc<App>, entry: Entry) -> Result<(), ApiError> {
    let noted = entry.clone();
    let outcome = app
        .db
        .write("members.cancel_transfer", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            let (workspace, context) = (seen.workspace.id, &entry.context);
            let transfer = store::transfer(tx, workspace, context.now)?.ok_or(no_transfer())?;
            let nominee = store::get(tx, workspace, transfer.nominee_entity_id)?.ok_or(no_member())?;
            let action = if nominee.principal == caller.principal {
                speaks_for_whole(&caller, nominee.role)?;
                "ownership.decline"
            } else if seen.reach.role < Role::Owner {
                return Err(ApiError::forbidden_because(
                    "owner_only",
                    "Only owners and the nominee can end a transfer of ownership.",
                ));
            } else {
                within_reach(seen.reach, Role::Owner)?;
                "ownership.cancel"
            };
            store::end_transfer(tx, workspace)?;
            audit::record(tx, event(context, Actor::of(&caller), action, workspace, &nominee, json!({})))
        })
        .await;
    noted.note_if_forbidden(app, outcome)
}
