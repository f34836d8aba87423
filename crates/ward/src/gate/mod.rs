//! The gate: from a bearer to the caller, and to the caller's permissions in the workspace of the path.
//!
//! A bearer is an API key or an issuer's access token. A text that can be neither is refused before any
//! query.
//!
//! A request is authorized twice. [`Entry::admit`] does so in one read, before the body is read. A write
//! does so again inside its transaction, after it has taken the guard row ([`Entry::write`]). So a key that
//! was just revoked, or a workspace that was just archived, decides. Both use the same single query,
//! whatever the outcome.

mod decide;
mod enter;
pub mod explain;
pub mod idempotency;
pub mod limits;
mod nonces;
mod original;
pub mod possession;
mod workload;
mod write;

use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use ward_db::{Deadline, Timestamp, Tx, Uuid};

use self::decide::Need;
use self::limits::Mark;
use crate::access::{Permission, Reach, Role};
use crate::api_keys::secret::{Presented, SecretHash};
use crate::api_keys::{self, KeyRecord};
use crate::app::App;
use crate::audit::refusals::Refusal;
use crate::context::{Context, RateState};
use crate::error::ApiError;
use crate::forbidden::Authority;
use crate::http::Request;
use crate::identity::proof::DpopProof;
use crate::identity::token::{self, VerifiedToken};
use crate::identity::{self, Caller, Credential, WorkloadToken};
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::quotas::rate::{FORBIDDEN_PER_SECOND, FORBIDDEN_WAIT};
use crate::quotas::{self, Quota};
use crate::shares::{Holder, Share};
use crate::workspaces::{self, AsMember, Workspace};

pub use enter::{Heavy, OwnOrder, admit_with_body};
pub use possession::bearer_text;
pub use write::Held;

/// The content of a bearer before any query.
#[derive(Clone)]
enum Proof {
    Key(Presented),
    Token(Arc<VerifiedToken>),
    Workload(Arc<WorkloadToken>),
}

/// A bearer that a query can look up.
struct PresentedBearer {
    proof: Proof,
    mark: Mark,
    /// The share of look-ups of a failing client.
    share: Option<Share>,
    /// The proof that came with the bearer, if its claims fit.
    dpop: Option<DpopProof>,
}

/// A caller with a valid credential, and the workspace of the path as it sees it.
struct Recognized {
    caller: Caller,
    /// The workspace, if the caller is a member and the workspace's access policy admits it.
    seen: Option<VisibleWorkspace>,
    /// The reason why the access policy does not admit a member.
    kept_out: Option<&'static str>,
}

impl Recognized {
    /// Judges a membership by the workspace's policy, and bounds the caller's permissions by the membership's role.
    fn new(caller: Caller, membership: Option<AsMember>, address: IpAddr) -> Self {
        let Some(membership) = membership else { return Self { caller, seen: None, kept_out: None } };
        match membership.admit(caller.kind, address) {
            Ok(()) => {
                let authority = Authority { membership: Some(membership.role), ..caller.authority() };
                let (workspace, reach) = (membership.workspace, authority.reach());
                let seen = Some(VisibleWorkspace { workspace, reach, authority });
                Self { caller, seen, kept_out: None }
            }
            Err(reason) => Self { caller, seen: None, kept_out: Some(reason) },
        }
    }
}

/// A workspace from the viewpoint of a member.
#[derive(Clone, Debug)]
pub struct VisibleWorkspace {
    pub workspace: Workspace,
    /// The authority that the caller's membership and credential allow together.
    pub reach: Reach,
    /// The parts of that authority, which explain a refusal.
    pub authority: Authority,
}

/// An authorized caller, with its target and the operation.
#[derive(Clone)]
pub struct Entry {
    /// The context that all steps of the request share.
    pub context: Arc<Context>,
    /// The caller as of the gate's read.
    pub caller: Arc<Caller>,
    seen: Option<Arc<VisibleWorkspace>>,
    operation: Arc<str>,
    room: &'static str,
    proof: Proof,
    target: Option<WorkspaceId>,
    need: Need,
}

/// A caller with a valid credential. Whether it sees the workspace and has the permission is known, but not
/// applied yet.
pub struct Admitted(Entry);

/// The reason why a bearer was refused. Only the audit gets it.
enum BearerRefusal {
    /// The key is unknown, or the token contradicts the stored kind of its subject.
    Unknown,
    /// The key exists, but is wrong, expired, revoked, of an archived workspace, or not admitted from here.
    Known { record: Box<KeyRecord>, reason: &'static str },
    /// The workspace has rules for the token's immutable claim, but none of them trusts the token.
    Untrusted { workspace: WorkspaceId, reason: &'static str },
}

impl BearerRefusal {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Known { reason, .. } | Self::Untrusted { reason, .. } => reason,
        }
    }
}

impl Entry {
    /// Checks the credential (401) and looks up the workspace, in one statement. A credential that is bound to a key needs a
    /// second one, which notes its proof.
    pub async fn admit(request: &Request) -> Result<Admitted, ApiError> {
        let PresentedBearer { proof, mark, share, dpop } = prove(request).await?;
        let (now, address) = (request.context.now, request.context.address);
        let (target, looked) = {
            let (db, proof) = (&request.app.db, proof.clone());
            match request.slug() {
                None => {
                    let target = request.workspace();
                    let look_up = move |tx: &mut Tx<'_>| recognize(tx, &proof, target, (now, address));
                    (target, db.read("gate.admit", look_up).await?)
                }
                Some(slug) => {
                    let look_up =
                        move |tx: &mut Tx<'_>| recognize_in_named(tx, &proof, &slug, (now, address));
                    db.read("gate.admit_by_slug", look_up).await?
                }
            }
        };
        drop(share);
        let Recognized { caller, seen, kept_out } = match looked {
            Ok(found) => found,
            Err(refused) => {
                if let Some(rates) = &request.app.rates {
                    rates.note(mark, false);
                }
                note_failed_sign_in(request, refused);
                return Err(ApiError::unauthorized());
            }
        };
        // A failed proof changes nothing in what is known of the credential, because it may be a thief's.
        if let Some(key) = caller.key() {
            possession::check(dpop.as_ref(), key.bound_to)
                .map_err(|reason| unproven(request, &caller, reason))?;
        }
        if let (Some(workspace), Some(reason)) = (target, kept_out) {
            let who = (Some(caller.principal), caller.credential_id());
            note_unauthorized(request, workspace, who, reason);
        }
        // A refusal by the rate carries the warning of the key too.
        if let Some(key) = caller.key() {
            let _ = request.context.key_expires.set(key.expires_at);
        }
        charge(request, &caller, seen.as_ref())?;
        if let Some(workspace) = seen.as_ref().map(|seen| seen.workspace.id).or(caller.home()) {
            Deadline::charge_current_to(Holder::Workspace(workspace).number());
        }
        if let Some(proof) = &dpop {
            let first = possession::spend(request, proof).await?;
            first.map_err(|reason| unproven(request, &caller, reason))?;
        }
        if let Some(rates) = &request.app.rates {
            rates.note(mark, true);
        }
        if let Some(key) = caller.key() {
            request.app.last_used.note(key, caller.principal, now);
        }
        if let (Proof::Workload(token), Some(seen)) = (&proof, &seen) {
            workload::refresh(request, token, &seen.workspace);
        }
        Ok(Admitted(Self {
            context: request.context.clone(),
            caller: Arc::new(caller),
            seen: seen.map(Arc::new),
            operation: Arc::from(request.operation.id.as_str()),
            room: request.room,
            proof,
            target,
            need: Need::of(&request.operation),
        }))
    }

    /// The workspace of the path, if the caller sees it.
    pub fn workspace(&self) -> Result<&Workspace, ApiError> {
        Ok(&self.seen()?.workspace)
    }

    /// The workspace with the caller's authority in it.
    pub fn seen(&self) -> Result<&VisibleWorkspace, ApiError> {
        self.seen.as_deref().ok_or(ApiError::no_workspace())
    }

    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The hash of the presented secret; `None` for a token.
    pub const fn presented_hash(&self) -> Option<SecretHash> {
        match &self.proof {
            Proof::Key(presented) => Some(presented.hash),
            Proof::Token(_) | Proof::Workload(_) => None,
        }
    }

    fn recognized(&self, tx: &mut Tx<'_>, target: Option<WorkspaceId>) -> Result<Recognized, ApiError> {
        let when_and_where = (self.context.now, self.context.address);
        recognize(tx, &self.proof, target, when_and_where)?.map_err(|_| ApiError::unauthorized())
    }
}

impl Admitted {
    /// The holder whose share of CPU work pays for the request's body: the workspace if the caller sees it,
    /// otherwise the address.
    pub fn holder(&self) -> Holder {
        match &self.0.seen {
            Some(seen) => Holder::Workspace(seen.workspace.id),
            None => self.0.context.holder(),
        }
    }

    /// The principal that the credential speaks for.
    pub fn principal(&self) -> PrincipalId {
        self.0.caller.principal
    }

    /// The arrival of the request, for rules with times.
    pub fn now(&self) -> Timestamp {
        self.0.context.now
    }

    /// Applies the decision: the caller must see the workspace (404) and have the permission (403).
    pub fn decided(self, app: &App) -> Result<Entry, ApiError> {
        self.decided_in(app, None)
    }

    /// As [`Self::decided`], with a 403 in the audit of this workspace, which is not in the path.
    pub fn decided_in(self, app: &App, concerned: Option<WorkspaceId>) -> Result<Entry, ApiError> {
        let decision = self.decision();
        let entry = self.0;
        if let Err(error) = decision {
            match concerned {
                Some(workspace) => entry.note_forbidden_in(app, workspace),
                None if error.is_forbidden() => entry.note_forbidden(app),
                None => {}
            }
            return Err(error);
        }
        Ok(entry)
    }

    /// The decision without its record in the audit.
    fn decision(&self) -> Result<(), ApiError> {
        let entry = &self.0;
        entry.need.decide(entry.target, &entry.caller, entry.seen.as_deref())
    }
}

impl Entry {
    /// Judges the caller for another service, by the permission that the request names, if it names one (403).
    pub fn judge(&self, app: &App, permission: Option<Permission>) -> Result<(), ApiError> {
        let need = self.need.judging(permission);
        let needed = need.decide(self.target, &self.caller, self.seen.as_deref());
        self.note_if_forbidden(app, needed)
    }

    /// Records for the audit that this caller was refused with 403.
    pub fn note_forbidden(&self, app: &App) {
        // A refusal without a workspace goes to the audit of the key's workspace. A token has none, so no
        // audit records it.
        if let Some(workspace) = self.target.or_else(|| self.caller.home()) {
            self.note_forbidden_in(app, workspace);
        }
    }

    /// Records a 403 that only the transaction could decide.
    fn note_if_forbidden<T>(&self, app: &App, outcome: Result<T, ApiError>) -> Result<T, ApiError> {
        if matches!(&outcome, Err(error) if error.is_forbidden()) {
            self.note_forbidden(app);
        }
        outcome
    }

    /// As [`Self::note_forbidden`], for the audit of a workspace that is not in the path.
    ///
    /// The answer waits if the workspace has had too many of them in this second.
    pub fn note_forbidden_in(&self, app: &App, workspace: WorkspaceId) {
        if !app.forbidden_rates.charge(workspace, FORBIDDEN_PER_SECOND) {
            metrics::counter!("ward_forbidden_waits_total").increment(1);
            let _ = self.context.wait.set(FORBIDDEN_WAIT);
        }
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

/// The presented API key, if the text has the form of one. It costs no query.
pub fn bearer(request: &Request) -> Option<Presented> {
    Presented::parse(bearer_text(request)?)
}

/// Checks the credential as far as possible without a query: the claims of a proof, and the form of a key, or the signature of a
/// token. An invalid one gets 401; a token gets 503 if the issuer's keys are not available. For a failing client, the
/// result includes its share of look-ups.
async fn prove(request: &Request) -> Result<PresentedBearer, ApiError> {
    let dpop = possession::read(request).inspect_err(|refusal| {
        if let Some(key) = bearer(request).filter(|_| refusal.is_invalid_proof()) {
            let what = (request.room, request.operation.id.as_str());
            request.app.malformed_proofs.note(&key, &request.context, what);
        }
    })?;
    if let Some(presented) = bearer(request) {
        let mark = possession::mark(presented.hash, dpop.as_ref());
        let share = request.look_up_share_of(&mark).await?;
        return Ok(PresentedBearer { proof: Proof::Key(presented), mark, share, dpop });
    }
    let text = bearer_text(request).and_then(|text| std::str::from_utf8(text).ok());
    let text = text.filter(|text| token::may_be_one(text));
    let text = text.ok_or(ApiError::unauthorized())?;
    let mark = possession::mark(Sha256::digest(text).into(), dpop.as_ref());
    let share = request.look_up_share_of(&mark).await?;
    match token::verify(&request.app.issuers, text, request.context.now).await {
        Ok(verified) => {
            possession::check(dpop.as_ref(), verified.bound_to).map_err(|_| ApiError::needs_dpop_proof())?;
            Ok(PresentedBearer { proof: Proof::Token(Arc::new(verified)), mark, share, dpop })
        }
        Err(token::TokenRefusal::Foreign) => {
            possession::check(dpop.as_ref(), None).map_err(|_| ApiError::unauthorized())?;
            workload::prove(request, text, mark, share).await
        }
        Err(token::TokenRefusal::Invalid(reason)) => {
            tracing::debug!(request_id = request.context.request_id, reason, "not a credential");
            Err(ApiError::unauthorized())
        }
        Err(token::TokenRefusal::Unavailable(unavailable)) => {
            Err(ApiError::no_identity(unavailable.retry_after))
        }
    }
}

/// Looks up the caller and the workspace in one statement, for every kind of credential and outcome. So the
/// duration of a refusal reveals nothing.
fn recognize(
    tx: &mut Tx<'_>,
    proof: &Proof,
    target: Option<WorkspaceId>,
    (now, address): (Timestamp, IpAddr),
) -> Result<Result<Recognized, BearerRefusal>, ward_db::Error> {
    match proof {
        Proof::Key(presented) => recognize_key(tx, presented, target, (now, address)),
        Proof::Token(token) => recognize_token(tx, token, target, address),
        Proof::Workload(token) => workload::recognize(tx, token, target, (now, address)),
    }
}

/// As [`recognize`], with the workspace that a slug names. An unknown slug has the nil id, which no workspace has. So its 404 costs
/// the same two statements as any other outcome.
fn recognize_in_named(
    tx: &mut Tx<'_>,
    proof: &Proof,
    slug: &str,
    when_and_where: (Timestamp, IpAddr),
) -> Result<(Option<WorkspaceId>, Result<Recognized, BearerRefusal>), ward_db::Error> {
    let named = workspaces::slugs::named(tx, slug, when_and_where.0)?;
    let target = Some(named.unwrap_or(WorkspaceId(Uuid::nil())));
    Ok((target, recognize(tx, proof, target, when_and_where)?))
}

/// A token has no permissions of its own that narrow its principal's memberships.
fn recognize_token(
    tx: &mut Tx<'_>,
    token: &Arc<VerifiedToken>,
    target: Option<WorkspaceId>,
    address: IpAddr,
) -> Result<Result<Recognized, BearerRefusal>, ward_db::Error> {
    let known = match target {
        Some(target) => identity::look_up_for(tx, token, target)?,
        None => identity::look_up(tx, token)?.map(|(principal, kind)| (principal, kind, None)),
    };
    let exists = known.is_some();
    let (principal, kind, membership) = known.unwrap_or((token.principal, token.kind, None));
    // RFC 9068, section 5: without this check, a client that could choose its own name could act as a user
    // of that name.
    if kind != token.kind {
        return Ok(Err(BearerRefusal::Unknown));
    }
    let credential = Credential::Token(token.clone());
    let caller = Caller { principal, kind, reach: Reach::whole(Role::Owner), exists, credential };
    Ok(Ok(Recognized::new(caller, membership, address)))
}

/// Looks up a presented key, and compares its secrets in constant time before it considers any other column. The networks are
/// judged for every secret, so the duration of a refusal does not say that the secret was right.
fn recognize_key(
    tx: &mut Tx<'_>,
    presented: &Presented,
    target: Option<WorkspaceId>,
    (now, address): (Timestamp, IpAddr),
) -> Result<Result<Recognized, BearerRefusal>, ward_db::Error> {
    let found = match target {
        Some(target) => api_keys::look_up_for(tx, presented.key_id, target)?,
        None => api_keys::look_up(tx, presented.key_id)?.map(|record| (record, None)),
    };
    let Some((record, membership)) = found else { return Ok(Err(BearerRefusal::Unknown)) };
    let admitted = record.admit(address);
    let proven = record.proven_by(&presented.hash, now);
    let secret = match proven.and_then(|secret| admitted.map(|()| secret)) {
        Ok(secret) => secret,
        Err(reason) => return Ok(Err(BearerRefusal::Known { record: Box::new(record), reason })),
    };
    let caller = record.into_caller(presented.key_id, secret);
    Ok(Ok(Recognized::new(caller, membership, address)))
}

/// Counts a request with a valid credential for its workspace: the one that it enters, or the key's (429
/// beyond the quota). The limit of the settings applies only while rates are enforced. A limit that the
/// operator set for the workspace always applies.
fn charge(request: &Request, caller: &Caller, seen: Option<&VisibleWorkspace>) -> Result<(), ApiError> {
    let entered = seen.map(|seen| (seen.workspace.id, seen.workspace.limits.of(Quota::RequestsPerSecond)));
    let home = || caller.home().map(|home| (home, None));
    let Some((workspace, own)) = entered.or_else(home) else { return Ok(()) };
    let usual = request.app.rates.is_some().then(|| request.app.config.quotas.of(Quota::RequestsPerSecond));
    let Some(limit) = own.or(usual) else { return Ok(()) };
    if request.app.request_rates.charge(workspace, limit) {
        return Ok(());
    }
    let used_up = RateState { limit: limit.max(1).unsigned_abs(), remaining: 0, reset_seconds: 1 };
    let _ = request.context.rate.set(used_up);
    Err(quotas::exceeded(Quota::RequestsPerSecond, request.context.now))
}

fn note_failed_sign_in(request: &Request, refused: BearerRefusal) {
    match refused {
        BearerRefusal::Unknown => {}
        BearerRefusal::Known { record, reason } => {
            note_unauthorized(request, record.home, (None, Some(record.credential)), reason);
        }
        BearerRefusal::Untrusted { workspace, reason } => {
            note_unauthorized(request, workspace, (None, None), reason);
        }
    }
}

/// Refuses a valid credential for lack of a proof, with the answer to an invalid one.
fn unproven(request: &Request, caller: &Caller, reason: &'static str) -> ApiError {
    tracing::debug!(request_id = request.context.request_id, reason, "a bound credential is refused");
    if let Some(key) = caller.key() {
        note_unauthorized(request, key.home, (None, Some(key.id)), reason);
    }
    ApiError::unauthorized()
}

/// Collects a failed sign-in for the audit of a workspace.
fn note_unauthorized(
    request: &Request,
    workspace: WorkspaceId,
    (actor, credential): (Option<PrincipalId>, Option<CredentialId>),
    reason: &'static str,
) {
    request.app.refusals.note(Refusal {
        workspace,
        service: request.room,
        action: "access.unauthorized",
        operation: Arc::from(request.operation.id.as_str()),
        actor,
        credential,
        reason,
        address: request.context.address,
        user_agent: request.context.user_agent.clone(),
        at: request.context.now,
    });
}
