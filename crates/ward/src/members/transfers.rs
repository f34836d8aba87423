//! Transfer of ownership: an owner nominates, the nominee accepts. Until then nothing has changed.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;
use ward_db::{Timestamp, Tx};

use super::actions::{change_role, event, note_if_forbidden};
use super::api::Shown;
use super::{no_member, speaks_for_whole, store, within_reach};
use crate::access::Role;
use crate::app::App;
use crate::audit::{self, Actor};
use crate::error::ApiError;
use crate::http::caller::{Entry, Held};
use crate::http::idempotency::{Repeat, Secrecy};
use crate::http::{Context, Reply};
use crate::identity::PrincipalKind;
use crate::ids::{PrincipalId, WorkspaceId};

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// A pending transfer, as `OwnershipTransferResponse` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Transfer {
    /// Who is to be owner.
    pub nominee_entity_id: PrincipalId,
    /// In whose stead.
    pub nominated_by_entity_id: PrincipalId,
    /// Until when the nominee may accept.
    pub expires_at: Timestamp,
    /// Since when.
    pub created_at: Timestamp,
}

/// `NominateOwnerRequest`, validated.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Nomination {
    entity_id: Uuid,
    duration_days: u64,
}

/// 404 for a transfer that is not there.
pub(super) const fn no_transfer() -> ApiError {
    ApiError::missing("transfer_not_found", "No transfer of ownership is pending.")
}

/// Nominates a member as owner in the caller's stead.
pub async fn nominate(
    app: &Arc<App>,
    entry: Entry,
    nomination: Nomination,
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
                    return Err(ApiError::conflict("not_a_user", "Only a user can become the owner."));
                }
                if nominee.role == Role::Owner {
                    return Err(ApiError::conflict("already_owner", "This member is an owner already."));
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
    note_if_forbidden(app, &noted, outcome)
}

/// Makes the nominee owner and the nominator admin.
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
                // A key of the nominee that is narrower than an owner's must not make them one.
                speaks_for_whole(&caller, Role::Owner)?;
                let nominator = store::get(tx, workspace, transfer.nominated_by_entity_id)?;
                let Some(mut nominator) = nominator.filter(|it| it.role == Role::Owner) else {
                    return Err(ApiError::conflict(
                        "nominator_not_owner",
                        "Who nominated you is no owner any more.",
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
                Ok(Shown::from(member))
            })
        })
        .await;
    app.ended.notify_one();
    note_if_forbidden(app, &noted, outcome)
}

/// Ends the pending transfer if it is moot, and records why.
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

/// Ends a pending transfer: an owner cancels it, or the nominee declines.
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
    note_if_forbidden(app, &noted, outcome)
}
