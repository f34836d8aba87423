//! Writes on invitations: create, revoke, accept, and their end with their maker's authority.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ward_db::Tx;

use super::api::{Joined, ShownOnce};
use super::{Invitation, Secret, hash_of, no_invitation, store};
use crate::access::{Reach, Role};
use crate::app::App;
use crate::audit::{self, Actor, Event};
use crate::error::ApiError;
use crate::http::caller::{Entry, Held};
use crate::http::idempotency::{Repeat, Secrecy};
use crate::http::{Context, Reply};
use crate::identity::{self, PrincipalKind};
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};
use crate::members::actions::note_if_forbidden;
use crate::members::{beyond_caller, within_reach};
use crate::workspaces;

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// `CreateInvitationRequest`, validated.
#[derive(Clone, Debug, Deserialize)]
pub struct NewInvitation {
    role: String,
    email: Option<String>,
    duration_days: u64,
}

/// `AcceptInvitationRequest`, validated. Has no `Debug`, for it holds the secret.
#[derive(Clone, Deserialize)]
pub struct Acceptance {
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

/// What the audit tells of an invitation. Not the address: who was invited where is nobody else's to keep.
fn told(invitation: &Invitation) -> Value {
    json!({
        "role": invitation.role,
        "bound_to_email": invitation.email.is_some(),
        "expires_at": invitation.expires_at,
    })
}

/// Makes an invitation, within what the caller may itself do (403 beyond).
pub async fn create(
    app: &Arc<App>,
    entry: Entry,
    new: NewInvitation,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let role = Role::named(&new.role).ok_or_else(|| ApiError::internal("an unvalidated role"))?;
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
                    key_holds: true,
                };
                store::insert(tx, &invitation, &secret.hash, caller.key())?;
                let actor = Actor::of(&caller);
                audit::record(
                    tx,
                    event(&entry.context, actor, "invitation.create", &invitation, told(&invitation)),
                )?;
                Ok(ShownOnce::new(invitation, &secret.text))
            })
        })
        .await;
    note_if_forbidden(app, &noted, outcome)
}

/// Ends an open invitation.
pub async fn revoke(app: &Arc<App>, entry: Entry, id: InvitationId) -> Result<(), ApiError> {
    let noted = entry.clone();
    let outcome = app
        .db
        .write("invitations.revoke", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            let invitation = store::get(tx, seen.workspace.id, id)?;
            let invitation = invitation.filter(|it| it.is_open(entry.context.now)).ok_or(no_invitation())?;
            within_reach(seen.reach, invitation.role)?;
            store::settle(tx, invitation.workspace, invitation.id)?;
            let actor = Actor::of(&caller);
            audit::record(
                tx,
                event(&entry.context, actor, "invitation.revoke", &invitation, told(&invitation)),
            )
        })
        .await;
    note_if_forbidden(app, &noted, outcome)
}

/// Ends the open invitations of a member that they could no longer make with this role; `None`: all of them.
pub fn end_beyond(
    tx: &mut Tx<'_>,
    context: &Context,
    actor: &Actor,
    workspace: WorkspaceId,
    maker: PrincipalId,
    role: Option<Role>,
) -> Result<(), ApiError> {
    for invitation in store::made_by(tx, workspace, maker)? {
        if !role.is_some_and(|role| may_make(role, &invitation)) {
            store::settle(tx, workspace, invitation.id)?;
            let mut what = told(&invitation);
            what["reason"] = json!("its maker may no longer make it");
            audit::record(tx, event(context, actor.clone(), "invitation.revoke", &invitation, what))?;
        }
    }
    Ok(())
}

/// Whether a member with this role could make the invitation. Inviting takes `Workspace.update`, which admins have.
fn may_make(role: Role, invitation: &Invitation) -> bool {
    role >= Role::Admin && role >= invitation.role
}

/// Whether this caller may accept at all: a user, whose credential itself allows what the invitation gives (403).
fn may_accept(entry: &Entry, invitation: &Invitation) -> Result<(), ApiError> {
    if entry.caller.kind != PrincipalKind::User {
        return Err(unsupported());
    }
    // Or a narrow key could widen its user.
    if !entry.caller.reach.covers(Reach::whole(invitation.role)) {
        return Err(beyond_caller());
    }
    Ok(())
}

const fn unsupported() -> ApiError {
    ApiError::forbidden_because(
        "unsupported_principal",
        "Only a user can accept an invitation; this is a service.",
    )
}

/// Makes the caller a member. `token` is the caller's access token, if that is what they presented: an address may have
/// to be asked for with it, which is done before the transaction.
pub async fn accept(
    app: &Arc<App>,
    entry: Entry,
    acceptance: Acceptance,
    token: Option<&str>,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let hash = hash_of(&acceptance.invitation);
    let found = {
        let hash = hash.clone();
        app.db.read("invitations.find", move |tx| store::find(tx, &hash).map_err(ApiError::from)).await?
    };
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
    let outcome = join(app, entry.clone(), hash, invitation.workspace, repeat).await;
    note_in(app, &entry, Some(&invitation), outcome)
}

/// A 403 of somebody who holds a link is an event of the workspace that it leads to.
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

/// Makes the caller a member by the invitation of this hash, which leads to this workspace.
async fn join(
    app: &Arc<App>,
    entry: Entry,
    hash: String,
    workspace: WorkspaceId,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let vault = app.vault.clone();
    app.db
        .write("invitations.accept", move |tx| {
            // The workspace's guard before the caller's: the order in which every other write takes them.
            workspaces::guard(tx, workspace)?;
            let caller = entry.hold_self(tx)?;
            let now = entry.context.now;
            let still = store::find(tx, &hash)?.filter(|it| it.is_open(now));
            let is_member = workspaces::as_member(tx, workspace, caller.principal)?.is_some();
            // Nor is the answer repeated to somebody who was let in by it and has been removed since.
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
                        "You are a member of this workspace already.",
                    ));
                }
                store::settle(tx, workspace, still.id)?;
                identity::join(tx, caller.principal, workspace, still.role, now)?;
                let actor = Actor::of(&caller);
                let what = json!({ "role": still.role, "created_by_entity_id": still.created_by });
                audit::record(tx, event(&entry.context, actor, "invitation.accept", &still, what))?;
                Ok(Joined::new(into, still.role, caller.reach))
            })
        })
        .await
}

/// Refuses who has not the address that the invitation is for (403), as their issuer tells it.
async fn prove_address(entry: &Entry, invitation: &Invitation, token: Option<&str>) -> Result<(), ApiError> {
    let wrong = ApiError::forbidden_because(
        "email_not_verified",
        "This invitation is for a verified email address. Sign in with an account whose identity provider has verified it.",
    );
    let (Some(verified), Some(text)) = (entry.caller.token(), token) else { return Err(wrong) };
    let address = verified.verified_email(text).await;
    let address = address.map_err(|unavailable| ApiError::no_identity(unavailable.retry_after))?;
    if address.is_some_and(|address| invitation.is_for(&address)) { Ok(()) } else { Err(wrong) }
}
