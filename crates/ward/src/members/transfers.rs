//! Transfer of ownership: an owner nominates, and the nominee accepts. Until then, nothing changes.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::actions::{change_role, subject};
use super::wire::{MemberResponse, Transfer};
use super::{no_member, speaks_for_whole, store, within_reach};
use crate::access::Role;
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::identity::{self, PrincipalKind};
use crate::ids::PrincipalId;

const DAY: u64 = 24 * 3600;

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
    let nominate = move |write: &mut Write<'_, '_>, Held { caller, seen }: &Held| {
        within_reach(seen.authority, Role::Owner)?;
        repeat.once(write, Secrecy::Open, |write| {
            let now = write.now();
            let nominee = store::get(write, seen.workspace.id, PrincipalId(nomination.entity_id))?;
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
            end_if(write, "replaced by another", |_| true)?;
            store::set_transfer(write, &transfer, caller.key())?;
            let what = json!({ "expires_at": transfer.expires_at });
            write.record("ownership.nominate", subject(&nominee), what)?;
            Ok(transfer)
        })
    };
    entry.write(app, "members.nominate", nominate).await
}

/// Makes the nominee an owner and the nominator an admin.
pub async fn accept(app: &Arc<App>, entry: Entry, repeat: Repeat) -> Result<Reply, ApiError> {
    let accept = move |write: &mut Write<'_, '_>, Held { caller, seen }: &Held| {
        repeat.once(write, Secrecy::Open, |write| {
            let (workspace, now) = (seen.workspace.id, write.now());
            let transfer = store::transfer(write, workspace, now)?;
            let transfer = transfer.filter(|it| it.nominee_entity_id == caller.principal);
            let transfer = transfer.ok_or(no_transfer())?;
            // A nominee's key that is narrower than an owner's must not make its user an owner.
            speaks_for_whole(caller, Role::Owner)?;
            let nominator = store::get(write, workspace, transfer.nominated_by_entity_id)?;
            if !identity::is_accepted(write, &seen.workspace.policy.issuers, transfer.nominated_by_entity_id)?
            {
                return Err(no_transfer());
            }
            let Some(mut nominator) = nominator.filter(|it| it.role == Role::Owner) else {
                return Err(ApiError::conflict(
                    "nominator_not_owner",
                    "The member who nominated you is no longer an owner.",
                ));
            };
            let mut member = store::get(write, workspace, caller.principal)?.ok_or(no_member())?;
            store::end_transfer(write)?;
            member.role = Role::Owner;
            store::set_role(write, member.principal, Role::Owner)?;
            nominator.role = Role::Admin;
            change_role(write, &nominator)?;
            let what = json!({ "from_entity_id": nominator.principal });
            write.record("ownership.accept", subject(&member), what)?;
            Ok(MemberResponse::from(member))
        })
    };
    let outcome = entry.write(app, "members.accept_ownership", accept).await;
    app.ended.notify_one();
    outcome
}

/// Cancels the pending transfer if `moot` says so, and records the reason.
pub(super) fn end_if(
    write: &mut Write<'_, '_>,
    reason: &'static str,
    moot: impl FnOnce(&Transfer) -> bool,
) -> Result<(), ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let Some(transfer) = store::transfer(write, workspace, now)?.filter(moot) else { return Ok(()) };
    store::end_transfer(write)?;
    let nominee = store::get(write, workspace, transfer.nominee_entity_id)?.ok_or(no_member())?;
    write.record("ownership.cancel", subject(&nominee), json!({ "reason": reason }))
}

/// Ends the pending transfer: an owner cancels it, or the nominee declines it.
pub async fn cancel(app: &Arc<App>, entry: Entry) -> Result<(), ApiError> {
    let cancel = move |write: &mut Write<'_, '_>, Held { caller, seen }: &Held| {
        let (workspace, now) = (seen.workspace.id, write.now());
        let transfer = store::transfer(write, workspace, now)?.ok_or(no_transfer())?;
        let nominee = store::get(write, workspace, transfer.nominee_entity_id)?.ok_or(no_member())?;
        let action = if nominee.principal == caller.principal {
            speaks_for_whole(caller, nominee.role)?;
            "ownership.decline"
        } else {
            seen.authority.has_role(Role::Owner).map_err(|why| {
                ApiError::forbidden_because(
                    "owner_only",
                    "Only owners and the nominee can end a transfer of ownership.",
                    why,
                )
            })?;
            within_reach(seen.authority, Role::Owner)?;
            "ownership.cancel"
        };
        store::end_transfer(write)?;
        write.record(action, subject(&nominee), json!({}))
    };
    entry.write(app, "members.cancel_transfer", cancel).await
}
