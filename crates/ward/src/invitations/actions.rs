//! Writes on invitations: create, revoke, accept, and the end that follows their creator's loss of
//! authority.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ward_db::Timestamp;

use super::store::Reference;
use super::wire::{CreateInvitationResponse, MembershipResponse};
use super::{Invitation, Secret, hash_of, no_invitation, store};
use crate::access::{Reach, Role};
use crate::app::App;
use crate::audit::{Subject, Write};
use crate::endings::{AT_ONCE, ClosedRows, Ending, Kind};
use crate::error::ApiError;
use crate::forbidden::{Because, Forbidden, Rule};
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Admitted, Entry, Held};
use crate::http::Reply;
use crate::identity::{self, Caller};
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};
use crate::members::{beyond_caller, within_reach};
use crate::quotas::{self, Change as Count};
use crate::workspaces;
use crate::workspaces::access_policy::AccessPolicy;

const DAY: u64 = 24 * 3600;

#[derive(Clone, Debug, Deserialize)]
pub struct CreateInvitationRequest {
    role: String,
    email: Option<String>,
    duration_days: u64,
}

/// The body of `extend-invitation` and of `resend-invitation`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ExtendInvitationRequest {
    duration_days: u64,
}

/// `AcceptInvitationRequest`, validated. It has no `Debug`, because it contains the secret.
#[derive(Clone, Deserialize)]
pub struct AcceptInvitationRequest {
    invitation: String,
}

/// An invitation as the subject of an audit event.
const fn subject(invitation: &Invitation) -> Subject<'static> {
    Subject { service: "members", kind: "invitation", id: Some(invitation.id.0), name: None }
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
    let create = move |write: &mut Write<'_, '_>, Held { caller, seen }: &Held| {
        within_reach(seen.authority, role)?;
        repeat.once(write, Secrecy::Secret { former: None }, |write| {
            let (workspace, now) = (write.row(), write.now());
            let secret = Secret::generate().map_err(ApiError::internal)?;
            let invitation = Invitation {
                id: InvitationId::at(now),
                workspace,
                role,
                email: new.email.clone(),
                created_by: caller.principal,
                expires_at: end_after(caller, now, new.duration_days),
                created_at: now,
                position: workspaces::next_position(write, now)?,
                holds: true,
            };
            let more = Count { invitations: 1, ..Count::default() };
            quotas::take(write, workspace, &usual, more, now)?;
            store::insert(write, &invitation, &secret.hash, caller.key())?;
            write.record("invitation.create", subject(&invitation), told(&invitation))?;
            Ok(CreateInvitationResponse::new(invitation, &secret.text))
        })
    };
    entry.write(app, "invitations.create", create).await
}

pub async fn revoke(app: &Arc<App>, entry: Entry, id: InvitationId) -> Result<(), ApiError> {
    let revoke = move |write: &mut Write<'_, '_>, held: &Held| {
        let invitation = within_caller(write, held, id)?;
        store::settle(write, invitation.id)?;
        write.record("invitation.revoke", subject(&invitation), told(&invitation))
    };
    entry.write(app, "invitations.revoke", revoke).await
}

/// An open invitation of the caller's workspace (404 otherwise) whose role lies within the caller's
/// permissions (403 otherwise).
fn within_caller(write: &mut Write<'_, '_>, held: &Held, id: InvitationId) -> Result<Invitation, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let invitation = store::get(write, workspace, id)?;
    let invitation = invitation.filter(|it| it.is_open(now)).ok_or(no_invitation())?;
    within_reach(held.seen.authority, invitation.role)?;
    Ok(invitation)
}

/// Gives an open invitation a new expiry, counted from now. Its link and its creator stay unchanged.
pub async fn extend(
    app: &Arc<App>,
    entry: Entry,
    id: InvitationId,
    new: ExtendInvitationRequest,
) -> Result<Invitation, ApiError> {
    let extend = move |write: &mut Write<'_, '_>, held: &Held| {
        let before = within_caller(write, held, id)?;
        let expires_at = end_after(&held.caller, write.now(), new.duration_days);
        let invitation = Invitation { expires_at, ..before.clone() };
        store::extend(write, invitation.id, expires_at)?;
        let mut what = told(&invitation);
        what["former_expires_at"] = json!(before.expires_at);
        write.record("invitation.extend", subject(&invitation), what)?;
        Ok(invitation)
    };
    entry.write(app, "invitations.extend", extend).await
}

/// Replaces the link of an open invitation by a new one, which the caller has created. The old link ends.
pub async fn resend(
    app: &Arc<App>,
    entry: Entry,
    id: InvitationId,
    new: ExtendInvitationRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let resend = move |write: &mut Write<'_, '_>, held: &Held| {
        repeat.once(write, Secrecy::Secret { former: None }, |write| {
            let before = within_caller(write, held, id)?;
            let secret = Secret::generate().map_err(ApiError::internal)?;
            let invitation = Invitation {
                created_by: held.caller.principal,
                expires_at: end_after(&held.caller, write.now(), new.duration_days),
                ..before.clone()
            };
            store::renew(write, &invitation, &secret.hash, held.caller.key())?;
            let mut what = told(&invitation);
            what["former_expires_at"] = json!(before.expires_at);
            what["former_created_by_entity_id"] = json!(before.created_by);
            write.record("invitation.resend", subject(&invitation), what)?;
            Ok(CreateInvitationResponse::new(invitation, &secret.text))
        })
    };
    entry.write(app, "invitations.resend", resend).await
}

/// The expiry of an invitation that lasts `days` from now, or the expiry of the caller's key if that is
/// sooner.
fn end_after(caller: &Caller, now: Timestamp, days: u64) -> Timestamp {
    caller.end_of_what_it_makes(now.saturating_add(Duration::from_secs(days * DAY)))
}

/// Ends the open invitations of a member that no longer has the role that they need. The write closes the
/// first few, and leaves an ending for the others.
pub fn end_beyond(write: &mut Write<'_, '_>, maker: PrincipalId, role: Option<Role>) -> Result<(), ApiError> {
    let now = write.now();
    let kind = match role {
        Some(Role::Owner) => return Ok(()),
        Some(Role::Admin) => Kind::OwnerInvitations,
        _ => Kind::Invitations,
    };
    let all = Ending::of_member(write.row(), maker, kind, i64::MAX, (&write.actor, write.context));
    if end_some(write, &all, AT_ONCE)? == ClosedRows::All {
        return Ok(());
    }
    // Invitations that the member creates later, with another role, get positions after this one.
    let position = workspaces::next_position(write, now)?;
    Ok(Ending { position, ..all }.begin(write, now)?)
}

/// Closes up to `most` of the invitations of an ending.
pub fn end_some(write: &mut Write<'_, '_>, ending: &Ending, most: u32) -> Result<ClosedRows, ApiError> {
    let roles: &[Role] = if ending.kind == Kind::OwnerInvitations { &[Role::Owner] } else { &Role::ALL };
    let mut room = most;
    for role in roles {
        let whose = (ending.workspace, ending.principal);
        for invitation in store::made_by(write, whose, *role, ending.position, room + 1)? {
            if room == 0 {
                return Ok(ClosedRows::Some);
            }
            room -= 1;
            store::settle(write, invitation.id)?;
            let mut what = told(&invitation);
            what["reason"] = json!("its creator may no longer create it");
            what["ended_by_request"] = json!(ending.request_id);
            write.record("invitation.revoke", subject(&invitation), what)?;
        }
    }
    Ok(ClosedRows::All)
}

/// Whether a member with this role could create the invitation. That needs `Workspace.update`, which admins
/// have.
fn may_make(role: Role, invitation: &Invitation) -> bool {
    role >= Role::Admin && role >= invitation.role
}

/// Checks that the credential allows what the invitation grants (403 otherwise). Without this check, a narrow key could
/// widen the permissions of its user.
fn may_accept(caller: &Caller, invitation: &Invitation) -> Result<(), ApiError> {
    caller.authority().covers(Reach::whole(invitation.role)).map_err(beyond_caller)
}

/// Makes the caller a member. `token` is the caller's access token, if the caller presented one. It serves
/// to ask the issuer for an address, which happens before the transaction.
pub async fn accept(
    app: &Arc<App>,
    admitted: Admitted,
    acceptance: AcceptInvitationRequest,
    token: Option<&str>,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let reference = Reference::Link(hash_of(&acceptance.invitation));
    let found = find(app, &reference).await?;
    let open = found.as_ref().filter(|it| it.is_open(admitted.now()));
    // A refusal of this caller concerns the workspace whose link it has.
    let entry = admitted.decided_in(app, open.map(|it| it.workspace))?;
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
    let first = entry.caller.clone();
    let accept = move |write: &mut Write<'_, '_>, caller: &Caller| {
        let now = write.now();
        let still = store::find(write, &reference)?.filter(|it| it.is_open(now));
        let is_member = workspaces::as_member(write, workspace, caller.principal)?.is_some();
        // A caller that accepted and was then removed does not get the stored answer either.
        if still.is_none() && !is_member {
            return Err(no_invitation());
        }
        let policy = workspaces::active(write, workspace)?.ok_or(no_invitation())?.policy;
        may_enter(write, caller, &policy)?;
        repeat.once(write, Secrecy::Open, |write| {
            let still = still.ok_or(no_invitation())?;
            let maker = workspaces::as_member(write, workspace, still.created_by)?;
            let into = maker.filter(|maker| may_make(maker.role, &still)).ok_or(no_invitation())?.workspace;
            if !identity::is_accepted(write, &into.policy.issuers, still.created_by)? {
                return Err(no_invitation());
            }
            may_accept(&first, &still)?;
            if is_member {
                return Err(ApiError::conflict(
                    "already_member",
                    "You are already a member of this workspace.",
                ));
            }
            quotas::take(write, workspace, &usual, Count { members: 1, ..Count::default() }, now)?;
            store::settle(write, still.id)?;
            identity::join(write, (caller.principal, caller.kind), still.role, now)?;
            let what = json!({ "role": still.role, "created_by_entity_id": still.created_by });
            write.record("invitation.accept", subject(&still), what)?;
            Ok(MembershipResponse::new(into, still.role, caller.reach))
        })
    };
    entry.write_joining(app, "invitations.accept", workspace, accept).await
}

/// Refuses a caller whom the workspace's access policy would keep out as a member. Outside of its networks, the link is as
/// unusable as an unknown one. A user of another issuer gets the reason (403), because the link invites a person who could
/// sign in otherwise.
fn may_enter(write: &mut Write<'_, '_>, caller: &Caller, policy: &AccessPolicy) -> Result<(), ApiError> {
    if !policy.networks.allow(write.context.address) {
        return Err(no_invitation());
    }
    let accepted = match caller.token() {
        Some(token) => policy.issuers.accept(caller.kind, Some(&token.issuer.name)),
        None => identity::is_accepted(write, &policy.issuers, caller.principal)?,
    };
    if accepted { Ok(()) } else { Err(issuer_not_accepted()) }
}

const fn issuer_not_accepted() -> ApiError {
    ApiError::forbidden_because(
        "issuer_not_accepted",
        "This workspace accepts only users of certain identity providers. Sign in with one of them.",
        Forbidden::by_rule(Rule::AcceptedIssuer, Because::AnotherIssuer),
    )
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
        Forbidden::by_rule(Rule::VerifiedEmail, Because::UnverifiedAddress),
    ))
}
