//! The gate: from a bearer to who calls, and what they may do in the workspace they name.
//!
//! A bearer is an API key or an issuer's access token. What can be neither is refused before any query.
//!
//! A request is judged twice. [`Entry::admit`] judges it before its body is read, in one read. A write judges it again
//! inside its own transaction, after it has taken the guard row ([`Entry::hold`]), so that a key revoked or a workspace
//! archived a moment ago decides. Both judge by the same one look-up, whatever the outcome.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use ward_db::{Timestamp, Tx};

use crate::access::{Permission, Reach, Role};
use crate::api_keys::secret::{KeyId, Presented, SecretHash};
use crate::api_keys::{self, KeyRecord};
use crate::app::App;
use crate::audit::refusals::Refusal;
use crate::error::ApiError;
use crate::http::contract::Access;
use crate::http::{Call, Context};
use crate::identity::token::{self, Verified};
use crate::identity::{self, PrincipalKind};
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::quotas::{self, Quota};
use crate::shares::{Holder, Share};
use crate::workspaces::{self, AsMember, Workspace};

/// How long before its end a key's answers begin to warn.
const WARN_BEFORE: Duration = Duration::from_hours(336);

/// Whether a key that expires then should warn now.
pub fn expires_soon(expires: Timestamp, now: Timestamp) -> bool {
    expires < now.saturating_add(WARN_BEFORE)
}

/// Who calls, and with what.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What they proved it with.
    pub credential: Credential,
    /// Who it is.
    pub principal: PrincipalId,
    /// Whether that is a user or a service.
    pub kind: PrincipalKind,
    /// What the credential itself allows, whatever the memberships.
    pub reach: Reach,
    /// Whether the principal has a row. A token's subject gets one with its first write.
    pub exists: bool,
}

/// What a caller proved who they are with.
#[derive(Clone, Debug)]
pub enum Credential {
    /// An API key.
    Key(KeyUsed),
    /// An access token.
    Token(Arc<Verified>),
}

/// The key of a call.
#[derive(Clone, Debug)]
pub struct KeyUsed {
    /// The key as a credential.
    pub id: CredentialId,
    /// Its public part.
    pub key_id: KeyId,
    /// What it is called.
    pub name: Option<String>,
    /// The workspace that it belongs to.
    pub home: WorkspaceId,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Since when it has the secret that was presented.
    pub since: Timestamp,
}

impl Caller {
    /// The key, if it is one.
    pub fn key(&self) -> Option<&KeyUsed> {
        match &self.credential {
            Credential::Key(key) => Some(key),
            Credential::Token(_) => None,
        }
    }

    /// The token, if it is one.
    pub fn token(&self) -> Option<&Arc<Verified>> {
        match &self.credential {
            Credential::Key(_) => None,
            Credential::Token(token) => Some(token),
        }
    }

    /// When something ends that was to last until `end`: with the key it is made with, at the latest.
    pub fn end_of_what_it_makes(&self, end: Timestamp) -> Timestamp {
        self.key().map_or(end, |key| end.min(key.expires_at))
    }

    /// The workspace as this caller sees it, who is a member in that role.
    fn sees(&self, (workspace, role): AsMember) -> Seen {
        Seen { workspace, reach: self.reach.within(Reach::whole(role)) }
    }

    /// The contract's `*_credential_id`. Tokens have none.
    pub fn credential_id(&self) -> Option<CredentialId> {
        self.key().map(|key| key.id)
    }
}

/// What a bearer turned out to be, before anything is looked up.
#[derive(Clone)]
enum Proof {
    Key(Presented),
    Token(Arc<Verified>),
}

/// A workspace as its member sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The workspace.
    pub workspace: Workspace,
    /// What the caller's membership and key allow there together.
    pub reach: Reach,
}

/// What an operation asks of its caller.
#[derive(Clone, Copy, Debug)]
struct Need {
    permission: Option<Permission>,
    role: Option<Role>,
}

/// A caller let in: who, where to, for what.
#[derive(Clone)]
pub struct Entry {
    /// What all steps of the request share.
    pub context: Arc<Context>,
    /// Who calls.
    pub caller: Arc<Caller>,
    seen: Option<Arc<Seen>>,
    operation: Arc<str>,
    room: &'static str,
    proof: Proof,
    target: Option<WorkspaceId>,
    need: Need,
}

/// A caller whose credential is good; whether they see and may do what they ask is known but not yet said.
pub struct Admitted(Entry);

/// Why a bearer is not a caller. Only the audit learns which.
enum Refused {
    /// No such key, or a token that is not what its subject is.
    Unknown,
    /// A key of ours, but wrong, expired, revoked, or of an archived workspace.
    Known { record: Box<KeyRecord>, reason: &'static str },
}

impl Entry {
    /// Judges the credential (401) and looks the workspace up, in one statement.
    pub async fn admit(call: &Call) -> Result<Admitted, ApiError> {
        let (proof, share) = prove(call).await?;
        let target = call.workspace();
        let now = call.context.now;
        let looked = call
            .app
            .db
            .read("gate.admit", {
                let proof = proof.clone();
                move |tx| recognize(tx, &proof, target, now)
            })
            .await?;
        drop(share);
        let (caller, seen) = match looked {
            Ok(found) => found,
            Err(refused) => {
                note_failed_sign_in(call, refused);
                return Err(ApiError::unauthorized());
            }
        };
        charge(call, &caller, seen.as_ref())?;
        if let Some(key) = caller.key() {
            call.app.last_used.note(key.key_id, now);
            let _ = call.context.key_expires.set(key.expires_at);
        }
        Ok(Admitted(Self {
            context: call.context.clone(),
            caller: Arc::new(caller),
            seen: seen.map(Arc::new),
            operation: Arc::from(call.operation.id.as_str()),
            room: call.room,
            proof,
            target,
            need: Need::of(&call.operation.access),
        }))
    }

    /// The workspace that the path names, as the caller sees it.
    pub fn workspace(&self) -> Result<&Workspace, ApiError> {
        Ok(&self.seen()?.workspace)
    }

    /// The workspace with what the caller may do there.
    pub fn seen(&self) -> Result<&Seen, ApiError> {
        self.seen.as_deref().ok_or(ApiError::no_workspace())
    }

    /// The operation's id.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The hash of the secret that the caller presented, if it was a key's.
    pub const fn presented_hash(&self) -> Option<SecretHash> {
        match &self.proof {
            Proof::Key(presented) => Some(presented.hash),
            Proof::Token(_) => None,
        }
    }

    /// Takes the guard row of the workspace, then judges the caller again by what the transaction sees.
    pub fn hold(&self, tx: &mut Tx<'_>) -> Result<Held, ApiError> {
        let target = self.target.ok_or(ApiError::no_workspace())?;
        workspaces::guard(tx, target)?;
        let (caller, seen) = self.recognized(tx, Some(target))?;
        let seen = seen.ok_or(ApiError::no_workspace())?;
        self.need.met_by(seen.reach)?;
        Ok(Held { caller, seen })
    }

    /// Takes the guard row of the caller's own list, then judges the caller again. For what concerns no workspace. Here a
    /// token's subject becomes a principal.
    pub fn hold_self(&self, tx: &mut Tx<'_>) -> Result<Caller, ApiError> {
        if let Proof::Token(token) = &self.proof {
            identity::enroll(tx, token, self.context.now)?;
        }
        identity::guard(tx, self.caller.principal)?;
        if let Some(name) = self.caller.token().and_then(|token| token.name.as_deref()) {
            identity::call_it(tx, self.caller.principal, name)?;
        }
        let (caller, _) = self.recognized(tx, None)?;
        self.need.met_by(caller.reach)?;
        Ok(caller)
    }

    fn recognized(
        &self,
        tx: &mut Tx<'_>,
        target: Option<WorkspaceId>,
    ) -> Result<(Caller, Option<Seen>), ApiError> {
        recognize(tx, &self.proof, target, self.context.now)?.map_err(|_| ApiError::unauthorized())
    }
}

/// What a transaction has seen of its caller after taking the guard row.
pub struct Held {
    /// Who calls.
    pub caller: Caller,
    /// The workspace, and what the caller may do there.
    pub seen: Seen,
}

impl Admitted {
    /// The party whose share of CPU work the request's body takes: the workspace, if the caller sees it; else their
    /// address.
    pub fn holder(&self) -> Holder {
        match &self.0.seen {
            Some(seen) => Holder::Workspace(seen.workspace.id),
            None => self.0.context.holder(),
        }
    }

    /// Says whether the caller sees the workspace (404) and may do what they ask (403).
    pub fn decided(self, app: &App) -> Result<Entry, ApiError> {
        let entry = self.0;
        let decision = match (entry.target, &entry.seen) {
            (Some(_), None) => return Err(ApiError::no_workspace()),
            (_, Some(seen)) => entry.need.met_by(seen.reach),
            (None, None) => entry.need.met_by(entry.caller.reach),
        };
        if let Err(error) = decision {
            entry.note_forbidden(app);
            return Err(error);
        }
        Ok(entry)
    }
}

impl Entry {
    /// Notes for the audit that this caller was refused with 403.
    pub fn note_forbidden(&self, app: &App) {
        // What concerns no workspace is told to those of the key's; a token has none, so nobody's audit is concerned.
        if let Some(workspace) = self.target.or_else(|| self.caller.key().map(|key| key.home)) {
            self.note_forbidden_in(app, workspace);
        }
    }

    /// The same, for the audit of a workspace that the path does not name.
    pub fn note_forbidden_in(&self, app: &App, workspace: WorkspaceId) {
        app.refusals.note(Refusal {
            workspace,
            service: self.room,
            action: "access.forbidden",
            operation: self.operation.clone(),
            actor: Some(self.caller.principal),
            credential: self.caller.credential_id(),
            reason: "permission",
            address: self.context.address,
            user_agent: self.context.user_agent.clone(),
            at: self.context.now,
        });
    }
}

impl Need {
    fn of(access: &Access) -> Self {
        match access {
            Access::Anonymous => Self { permission: None, role: None },
            Access::Key { permission, role, .. } => Self {
                permission: permission.as_deref().and_then(Permission::named),
                role: role.as_deref().and_then(Role::named),
            },
        }
    }

    fn met_by(self, reach: Reach) -> Result<(), ApiError> {
        if self.permission.is_some_and(|permission| !reach.permissions.contains(permission)) {
            return Err(ApiError::forbidden());
        }
        match self.role {
            Some(role) if reach.role < role => {
                Err(ApiError::forbidden_because("owner_only", "Only owners can do this."))
            }
            _ => Ok(()),
        }
    }
}

/// What stands after `Bearer` (RFC 6750, section 2.1).
pub fn bearer_text(call: &Call) -> Option<&[u8]> {
    let value = call.header(&AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// The key that the request presents, if it presents one that could be ours. Costs no query.
pub fn bearer(call: &Call) -> Option<Presented> {
    Presented::parse(bearer_text(call)?)
}

/// What the request proves before any query: a key that could be ours, or a token that an issuer has signed (401, or
/// 503 when that cannot be told now). With it comes the share that the look-up of a failing client holds.
async fn prove(call: &Call) -> Result<(Proof, Option<Share>), ApiError> {
    if let Some(presented) = bearer(call) {
        return Ok((Proof::Key(presented), call.look_up_share().await?));
    }
    let text = bearer_text(call).and_then(|text| std::str::from_utf8(text).ok());
    let text = text.filter(|text| token::may_be_one(&call.app.issuers, text));
    let text = text.ok_or(ApiError::unauthorized())?;
    let share = call.look_up_share().await?;
    match token::verify(&call.app.issuers, text, call.context.now).await {
        Ok(verified) => Ok((Proof::Token(Arc::new(verified)), share)),
        Err(token::Refused::Invalid(reason)) => {
            tracing::debug!(request_id = call.context.request_id, reason, "not a credential");
            Err(ApiError::unauthorized())
        }
        Err(token::Refused::Unavailable(unavailable)) => Err(ApiError::no_identity(unavailable.retry_after)),
    }
}

/// Whom a credential speaks for, and the workspace it is to open if they are a member of that.
type Recognized = Result<(Caller, Option<Seen>), Refused>;

/// Looks up whom a credential speaks for, and what of the workspace they see: one statement, whichever it is and whatever
/// comes of it, so that how long a refusal takes tells nothing.
fn recognize(
    tx: &mut Tx<'_>,
    proof: &Proof,
    target: Option<WorkspaceId>,
    now: Timestamp,
) -> Result<Recognized, ward_db::Error> {
    match proof {
        Proof::Key(presented) => recognize_key(tx, presented, target, now),
        Proof::Token(token) => recognize_token(tx, token, target),
    }
}

/// A token reaches as far as its principal's memberships: it has no narrowing of its own.
fn recognize_token(
    tx: &mut Tx<'_>,
    token: &Arc<Verified>,
    target: Option<WorkspaceId>,
) -> Result<Recognized, ward_db::Error> {
    let known = match target {
        Some(target) => identity::look_up_for(tx, token, target)?,
        None => identity::look_up(tx, token)?.map(|(principal, kind)| (principal, kind, None)),
    };
    let exists = known.is_some();
    let (principal, kind, membership) = known.unwrap_or((token.principal, token.kind, None));
    // RFC 9068, section 5: a client that could choose its name could else act as the user of that name.
    if kind != token.kind {
        return Ok(Err(Refused::Unknown));
    }
    let credential = Credential::Token(token.clone());
    let caller = Caller { principal, kind, reach: Reach::whole(Role::Owner), exists, credential };
    let seen = membership.map(|membership| caller.sees(membership));
    Ok(Ok((caller, seen)))
}

/// Looks a presented key up and compares its secret, in constant time, before any other of its facts is considered.
fn recognize_key(
    tx: &mut Tx<'_>,
    presented: &Presented,
    target: Option<WorkspaceId>,
    now: Timestamp,
) -> Result<Recognized, ward_db::Error> {
    let found = match target {
        Some(target) => api_keys::look_up_for(tx, presented.key_id, target)?,
        None => api_keys::look_up(tx, presented.key_id)?.map(|record| (record, None)),
    };
    let expected = found.as_ref().map_or([0; 32], |(record, _)| record.secret_hash);
    let same = bool::from(expected.ct_eq(&presented.hash));
    let Some((record, membership)) = found else { return Ok(Err(Refused::Unknown)) };
    let reason = if !same {
        Some("wrong_secret")
    } else if record.revoked {
        Some("revoked")
    } else if record.expires_at <= now {
        Some("expired")
    } else if !record.home_is_active {
        Some("workspace_archived")
    } else {
        None
    };
    if let Some(reason) = reason {
        return Ok(Err(Refused::Known { record: Box::new(record), reason }));
    }
    let caller = record.into_caller(presented.key_id);
    let seen = membership.map(|membership| caller.sees(membership));
    Ok(Ok((caller, seen)))
}

/// Counts a request whose credential is good for its workspace: the one that it enters, or the key's (429 beyond the quota).
/// The settings' limit follows the switch of all rates; a limit that the operator set for the workspace always holds.
fn charge(call: &Call, caller: &Caller, seen: Option<&Seen>) -> Result<(), ApiError> {
    let entered = seen.map(|seen| (seen.workspace.id, seen.workspace.limits.of(Quota::RequestsPerSecond)));
    let home = || caller.key().map(|key| (key.home, None));
    let Some((workspace, own)) = entered.or_else(home) else { return Ok(()) };
    let usual = call.app.rates.is_some().then(|| call.app.config.quotas.of(Quota::RequestsPerSecond));
    let Some(limit) = own.or(usual) else { return Ok(()) };
    if call.app.request_rates.charge(workspace, limit) {
        return Ok(());
    }
    Err(quotas::exceeded(Quota::RequestsPerSecond, call.context.now))
}

fn note_failed_sign_in(call: &Call, refused: Refused) {
    if let Refused::Known { record, reason } = refused {
        call.app.refusals.note(Refusal {
            workspace: record.home,
            service: call.room,
            action: "access.unauthorized",
            operation: Arc::from(call.operation.id.as_str()),
            actor: None,
            credential: Some(record.credential),
            reason,
            address: call.context.address,
            user_agent: call.context.user_agent.clone(),
            at: call.context.now,
        });
    }
}
