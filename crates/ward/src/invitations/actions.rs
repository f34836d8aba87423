//! Writes on invitations: create, revoke, accept, and the end that follows their creator's loss of
//! authority.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ward_db::{Timestamp, Tx};

use super::store::Reference;
use super::wire::{CreateInvitationResponse, MembershipResponse};
use super::{Invitation, Secret, hash_of, no_invitation, store};
use crate::access::{Reach, Role};
use crate::app::App;
use crate::audit::{self, Actor, Event};
use crate::context::Context;
use crate::endings::{AT_ONCE, Ended, Ending, Kind};
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::identity::{self, PrincipalKind};
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};
use crate::members::{beyond_caller, within_reach};
use crate::quotas::{self, Change as Count};
use crate::workspaces;

const DAY: u64 = 24 * 3600;

/// `CreateInvitationRequest`, validated.
#[derive(Clone, Debug, Deserialize)]
pub struct CreateInvitationRequest {
    role: String,
    email: Option<String>,
    duration_days: u64,
}

/// `ExtendInvitationRequest` and `ResendInvitationRequest`, validated.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ExtendInvitationRequest {
    duration_days: u64,
}

/// `AcceptInvitationRequest`, validated. It has no `Debug`, because it contains the secret.
#[derive(Clone, Deserialize)]
pub struct AcceptInvitationRequest {
    invitation: String,
}

fn event<'a>(
    context: &'a Context,
    actor: Actor,
    action: &'static str,
    invitation: &'a Invitation,
    metadata: Value,
) -> Event<'a> {
    Event {
        workspace: invitation.workspace,
        service: "members",
        action,
        resource_type: "invitation",
        resource_id: Some(invitation.id.0),
        resource_name: None,
        actor,
        context,
        metadata,
    }
}

/// The part of an invitation that the audit records. It leaves the address out, because no other party
/// should keep it.
fn told(invitation: &Invitation) -> Value {
    json!({
        "role": invitation.role,
        "bound_to_email": invitation.email.is_some(),
        "expires_at": invitation.expires_at,
    })
}

/// Creates an invitation whose role lies within the caller's permissions (403 otherwise).
pub async fn create(
    app: &Arc<App>,
    entry: Entry,
    new: CreateInvitationRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let role = Role::named(&new.role).ok_or_else(|| ApiError::internal("an unvalidated role"))?;
    let usual = app.config.quotas;
    let vault = app.vault.clone();
    let noted = entry.clone();
    let outcome = app
        .db
        .write("invitations.create", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            within_reach(seen.reach, role)?;
            repeat.once(tx, &vault, Secrecy::Secret { former: None }, |tx| {
                let now = entry.context.now;
                let days = Duration::from_secs(new.duration_days * DAY);
                let secret = Secret::generate().map_err(ApiError::internal)?;
                let invitation = Invitation {
                    id: InvitationId::at(now),
                    workspace: seen.workspace.id,
                    role,
                    email: new.email.clone(),
                    created_by: caller.principal,
                    expires_at: caller.end_of_what_it_makes(now.saturating_add(days)),
                    created_at: now,
                    position: workspaces::next_position(tx, seen.workspace.id, now)?,
                    holds: true,
                };
                let more = Count { invitations: 1, ..Count::default() };
                quotas::take(tx, seen.workspace.id, &usual, more, now)?;
                store::insert(tx, &invitation, &secret.hash, caller.key())?;
                let actor = Actor::of(&caller);
                audit::record(
                    tx,
                    event(&entry.context, actor, "invitation.create", &invitation, told(&invitation)),
                )?;
                Ok(CreateInvitationResponse::new(invitation, &secret.text))
            })
        })
        .await;
    noted.note_if_forbidden(app, outcome)
}

/// Revokes an open invitation.
pub async fn revoke(app: &Arc<App>, entry: Entry, id: InvitationId) -> Result<(), ApiError> {
    let noted = entry.clone();
    let outcome = app
        .db
        .write("invitations.revoke", move |tx| {
            let held = entry.hold(tx)?;
            let invitation = within_caller(tx, &held, id, entry.context.now)?;
            store::settle(tx, invitation.workspace, invitation.id)?;
            let actor = Actor::of(&held.caller);
            audit::record(
                tx,
                event(&entry.context, actor, "invitation.revoke", &invitation, told(&invitation)),
            )
        })
        .await;
    noted.note_if_forbidden(app, outcome)
}

/// An open invitation of the caller's workspace (404 otherwise) whose role lies within the caller's
/// permissions (403 otherwise).
fn within_caller(
    tx: &mut Tx<'_>,
    held: &Held,
    id: InvitationId,
    now: Timestamp,
) -> Result<Invitation, ApiError> {
    let invitation = store::get(tx, held.seen.workspace.id, id)?;
    let invitation = invitation.filter(|it| it.is_open(now)).ok_or(no_invitation())?;
    within_reach(held.seen.reach, invitation.role)?;
    Ok(invitation)
}

/// Gives an open invitation a new expiry, counted from now. Its link and its creator stay unchanged.
pub async fn extend(
    app: &Arc<App>,
    entry: Entry,
    id: InvitationId,
    new: ExtendInvitationRequest,
) -> Result<Invitation, ApiError> {
    let noted = entry.clone();
    let outcome = app
        .db
        .write("invitations.extend", move |tx| {
            let held = entry.hold(tx)?;
            let now = entry.context.now;
            let before = within_caller(tx, &held, id, now)?;
            let expires_at = end_after(&held, now, new.duration_days);
            let invitation = Invitation { expires_at, ..before.clone() };
            store::extend(tx, invitation.workspace, invitation.id, expires_at)?;
            let mut what = told(&invitation);
            what["former_expires_at"] = json!(before.expires_at);
            let actor = Actor::of(&held.caller);
            audit::record(tx, event(&entry.context, actor, "invitation.extend", &invitation, what))?;
            Ok(invitation)
        })
        .await;
    noted.note_if_forbidden(app, outcome)
}

/// Replaces the link of an open invitation by a new one, which the caller has created. The old link ends.
pub async fn resend(
    app: &Arc<App>,
    entry: Entry,
    id: InvitationId,
    new: ExtendInvitationRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let vault = app.vault.clone();
    let noted = entry.clone();
    let outcome = app
        .db
        .write("invitations.resend", move |tx| {
            let held = entry.hold(tx)?;
            repeat.once(tx, &vault, Secrecy::Secret { former: None }, |tx| {
                let now = entry.context.now;
                let before = within_caller(tx, &held, id, now)?;
                let secret = Secret::generate().map_err(ApiError::internal)?;
                let invitation = Invitation {
                    created_by: held.caller.principal,
                    expires_at: end_after(&held, now, new.duration_days),
                    ..before.clone()
                };
                store::renew(tx, &invitation, &secret.hash, held.caller.key())?;
                let mut what = told(&invitation);
                what["former_expires_at"] = json!(before.expires_at);
                what["former_created_by_entity_id"] = json!(before.created_by);
                let actor = Actor::of(&held.caller);
                audit::record(tx, event(&entry.context, actor, "invitation.resend", &invitation, what))?;
                Ok(CreateInvitationResponse::new(invitation, &secret.text))
            })
        })
        .await;
    noted.note_if_forbidden(app, outcome)
}

/// The expiry of an invitation that lasts `days` from now, or the expiry of the caller's key if that is
/// sooner.
fn end_after(held: &Held, now: Timestamp, days: u64) -> Timestamp {
    held.caller.end_of_what_it_makes(now.saturating_add(Duration::from_secs(days * DAY)))
}

/// Ends the open invitations of a member that no longer has the role that they need. The write closes the
/// first few, and leaves an ending for the others.
pub fn end_beyond(
    tx: &mut Tx<'_>,
    context: &Context,
    actor: &Actor,
    (workspace, maker): (WorkspaceId, PrincipalId),
    role: Option<Role>,
) -> Result<(), ApiError> {
    let kind = match role {
        Some(Role::Owner) => return Ok(()),
        Some(Role::Admin) => Kind::OwnerInvitations,
        _ => Kind::Invitations,
    };
    let all = Ending::of_member(workspace, maker, kind, i64::MAX, (actor, context));
    if end_some(tx, context, &all, AT_ONCE)? == Ended::All {
        return Ok(());
    }
    // Invitations that the member creates later, with another role, get positions after this one.
    let position = workspaces::next_position(tx, workspace, context.now)?;
    Ok(Ending { position, ..all }.begin(tx, context.now)?)
}

/// Closes up to `most` of the invitations of an ending.
pub fn end_some(tx: &mut Tx<'_>, context: &Context, ending: &Ending, most: u32) -> Result<Ended, ApiError> {
    let roles: &[Role] = if ending.kind == Kind::OwnerInvitations { &[Role::Owner] } else { &Role::ALL };
    let mut room = most;
    for role in roles {
        let whose = (ending.workspace, ending.principal);
        for invitation in store::made_by(tx, whose, *role, ending.position, room + 1)? {
            if room == 0 {
                return Ok(Ended::Some);
            }
            room -= 1;
            store::settle(tx, invitation.workspace, invitation.id)?;
            let mut what = told(&invitation);
            what["reason"] = json!("its creator may no longer create it");
            what["ended_by_request"] = json!(ending.request_id);
            audit::record(tx, event(context, ending.actor.clone(), "invitation.revoke", &invitation, what))?;
        }
    }
    Ok(Ended::All)
}

/// Whether a member with this role could create the invitation. That needs `Workspace.update`, which admins
/// have.
fn may_make(role: Role, invitation: &Invitation) -> bool {
    role >= Role::Admin && role >= invitation.role
}

/// Checks that the caller may accept: it is a user, and its credential allows what the invitation grants
/// (403 otherwise).
fn may_accept(entry: &Entry, invitation: &Invitation) -> Result<(), ApiError> {
    if entry.caller.kind != PrincipalKind::User {
        return Err(unsupported());
    }
    // Without this check, a narrow key could widen the permissions of its user.
    if !entry.caller.reach.covers(Reach::whole(invitation.role)) {
        return Err(beyond_caller());
    }
    Ok(())
}

const fn unsupported() -> ApiError {
    ApiError::forbidden_because(
        "unsupported_principal",
        "Only a user can accept an invitation, but this caller is a service.",
    )
}

/// Makes the caller a member. `token` is the caller's access token, if the caller presented one. It serves
/// to ask the issuer for an address, which happens before the transaction.
pub async fn accept(
    app: &Arc<App>,
    entry: Entry,
    acceptance: AcceptInvitationRequest,
    token: Option<&str>,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let reference = Reference::Link(hash_of(&acceptance.invitation));
    let found = find(app, &reference).await?;
    if entry.caller.kind != PrincipalKind::User {
        return note_in(app, &entry, found.as_ref(), Err(unsupported()));
    }
    let invitation = found.ok_or(no_invitation())?;
    let proved = if invitation.is_open(entry.context.now) && invitation.email.is_some() {
        prove_address(&entry, &invitation, token).await
    } else {
        Ok(())
    };
    note_in(app, &entry, Some(&invitation), proved)?;
    let outcome = join(app, entry.clone(), reference, invitation.workspace, repeat).await;
    note_in(app, &entry, Some(&invitation), outcome)
}

/// Makes the caller a member by an invitation for its verified address. All other invitations get the same
/// 404.
pub async fn accept_own(
    app: &Arc<App>,
    entry: Entry,
    id: InvitationId,
    token: Option<&str>,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    if entry.caller.kind != PrincipalKind::User {
        return Err(unsupported());
    }
    let address = own_address(&entry, token).await?.ok_or(no_invitation())?;
    let reference = Reference::Id(id);
    let found = find(app, &reference).await?;
    let theirs = |it: &Invitation| it.email.is_some() && it.is_for(&address);
    let invitation = found.filter(theirs).ok_or(no_invitation())?;
    let outcome = join(app, entry.clone(), reference, invitation.workspace, repeat).await;
    note_in(app, &entry, Some(&invitation), outcome)
}

async fn find(app: &App, reference: &Reference) -> Result<Option<Invitation>, ApiError> {
    let reference = reference.clone();
    app.db.read("invitations.find", move |tx| store::find(tx, &reference).map_err(ApiError::from)).await
}

/// The verified address of the caller, according to its issuer. `None` if the caller presented a key or has
/// no such address.
pub async fn own_address(entry: &Entry, token: Option<&str>) -> Result<Option<String>, ApiError> {
    let (Some(verified), Some(text)) = (entry.caller.token(), token) else { return Ok(None) };
    let address = verified.verified_email(text).await;
    address.map_err(|unavailable| ApiError::no_identity(unavailable.retry_after))
}

/// Records a 403 of a caller that has a link as an event of the link's workspace.
fn note_in<T>(
    app: &App,
    entry: &Entry,
    invitation: Option<&Invitation>,
    outcome: Result<T, ApiError>,
) -> Result<T, ApiError> {
    let open = invitation.filter(|it| it.is_open(entry.context.now));
    if let (Err(error), Some(invitation)) = (&outcome, open)
        && error.is_forbidden()
    {
        entry.note_forbidden_in(app, invitation.workspace);
    }
    outcome
}

/// Makes the caller a member by this invitation into this workspace.
async fn join(
    app: &Arc<App>,
    entry: Entry,
    reference: Reference,
    workspace: WorkspaceId,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let usual = app.config.quotas;
    let vault = app.vault.clone();
    app.db
        .write("invitations.accept", move |tx| {
            // The guard of the workspace comes before the caller's, the order in which every other write
            // takes them.
            workspaces::guard(tx, workspace)?;
            let caller = entry.hold_self(tx)?;
            let now = entry.context.now;
            let still = store::find(tx, &reference)?.filter(|it| it.is_open(now));
            let is_member = workspaces::as_member(tx, workspace, caller.principal)?.is_some();
            // A caller that accepted and was then removed does not get the stored answer either.
            if still.is_none() && !is_member {
                return Err(no_invitation());
            }
            repeat.once(tx, &vault, Secrecy::Open, |tx| {
                let still = still.ok_or(no_invitation())?;
                let maker = workspaces::as_member(tx, workspace, still.created_by)?;
                let maker = maker.filter(|(_, role)| may_make(*role, &still));
                let (into, _) = maker.ok_or(no_invitation())?;
                may_accept(&entry, &still)?;
                if is_member {
                    return Err(ApiError::conflict(
                        "already_member",
                        "You are already a member of this workspace.",
                    ));
                }
                quotas::take(tx, workspace, &usual, Count { members: 1, ..Count::default() }, now)?;
                store::settle(tx, workspace, still.id)?;
                identity::join(tx, (caller.principal, caller.kind), workspace, still.role, now)?;
                let actor = Actor::of(&caller);
                let what = json!({ "role": still.role, "created_by_entity_id": still.created_by });
                audit::record(tx, event(&entry.context, actor, "invitation.accept", &still, what))?;
                Ok(MembershipResponse::new(into, still.role, caller.reach))
            })
        })
        .await
}

/// Refuses a caller without the verified address that the invitation names (403).
async fn prove_address(entry: &Entry, invitation: &Invitation, token: Option<&str>) -> Result<(), ApiError> {
    let address = own_address(entry, token).await?;
    if address.is_some_and(|address| invitation.is_for(&address)) {
        return Ok(());
    }
    Err(ApiError::forbidden_because(
        "email_not_verified",
        "This invitation is for a verified email address. Sign in with an account whose identity provider has verified it.",
    ))
}
