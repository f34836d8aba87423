//! Transfer of ownership: an owner nominates, the nominee accepts. Until then nothing has changed.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;
use ward_db::Timestamp;

use super::actions::{change_role, event, note_if_forbidden};
use super::api::Shown;
use super::{beyond_caller, no_member, store, within_reach};
use crate::access::Role;
use crate::app::App;
use crate::audit::{self, Actor};
use crate::error::ApiError;
use crate::http::Reply;
use crate::http::caller::{Entry, Held};
use crate::http::idempotency::{Repeat, Secrecy};
use crate::identity::PrincipalKind;
use crate::ids::PrincipalId;

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
                store::set_transfer(tx, workspace, &transfer, caller.key())?;
                let what = json!({ "expires_at": transfer.expires_at });
                let actor = Actor::of(&caller);
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
                if caller.reach.role < Role::Owner {
                    return Err(beyond_caller());
                }
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
    note_if_forbidden(app, &noted, outcome)
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
            let nominee = transfer.nominee_entity_id == caller.principal;
            if !nominee && seen.reach.role < Role::Owner {
                return Err(ApiError::forbidden_because(
                    "owner_only",
                    "Only owners and the nominee can end a transfer of ownership.",
                ));
            }
            store::end_transfer(tx, workspace)?;
            let action = if nominee { "ownership.decline" } else { "ownership.cancel" };
            let member = store::get(tx, workspace, transfer.nominee_entity_id)?.ok_or(no_member())?;
            audit::record(tx, event(context, Actor::of(&caller), action, workspace, &member, json!({})))
        })
        .await;
    note_if_forbidden(app, &noted, outcome)
}
