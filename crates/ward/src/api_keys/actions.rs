//! Writes on API keys: create, claim, rotate, revoke.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use ward_db::{Timestamp, Tx};

use super::ceilings::Ceilings;
use super::networks::actions::{bytes as bytes_of, within_networks_of};
use super::secret::{KeyId, NewSecret};
use super::store::Without;
use super::wire::{ApiKeyResponse, KeyBinding};
use super::{ApiKey, DAY, PreviousSecret, SpeaksFor, ceilings, last_way_in, permissions_named, store};
use crate::access::{Permissions, Reach, Role};
use crate::app::App;
use crate::audit::{Actor, Subject, Write};
use crate::context::Context;
use crate::error::ApiError;
use crate::forbidden::{Authority, Because, Forbidden, Rule};
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held, possession};
use crate::guard::NoGuard;
use crate::http::Reply;
use crate::identity::{self, Caller, PrincipalKind, PublicKey, Thumbprint};
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::networks::Networks;
use crate::quotas::{self, Change as Count};
use crate::{test_callers, workspaces};

#[derive(Clone, Debug, Deserialize)]
pub struct CreateApiKeyRequest {
    duration_days: u64,
    name: Option<String>,
    role: String,
    permissions: Vec<String>,
    #[serde(default)]
    speaks_for: SpeaksFor,
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default)]
    bound_to: Option<NewKeyBinding>,
}

/// The public key of a new key, as a thumbprint or as a JWK.
#[derive(Clone, Debug, Deserialize)]
pub struct NewKeyBinding {
    jkt: Option<String>,
    jwk: Option<Map<String, Value>>,
}

impl CreateApiKeyRequest {
    fn networks(&self) -> Result<Networks, ApiError> {
        Networks::parse(&self.networks).map_err(ApiError::internal)
    }

    /// The public key that the new key will be bound to.
    fn binding(&self) -> Result<Option<Thumbprint>, ApiError> {
        let Some(NewKeyBinding { jkt, jwk }) = &self.bound_to else { return Ok(None) };
        let given = jkt.as_deref().and_then(Thumbprint::parse);
        let read = || Some(PublicKey::read(jwk.as_ref()?).ok()?.thumbprint);
        given.or_else(read).map(Some).ok_or_else(|| ApiError::internal("an unvalidated public key"))
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct RotateApiKeyRequest {
    duration_days: u64,
    #[serde(default)]
    grace_seconds: u64,
}

/// `CreateApiKeyResponse`: the only answer that ever contains a key's secret.
#[derive(Serialize)]
pub struct CreateApiKeyResponse {
    key_id: String,
    api_key: String,
    name: Option<String>,
    role: Role,
    permissions: Permissions,
    expires_at: Timestamp,
    created_by_entity_id: Option<PrincipalId>,
    created_by_credential_id: Option<CredentialId>,
    networks: Networks,
    bound_to: Option<KeyBinding>,
}

impl CreateApiKeyResponse {
    fn new(key: &ApiKey, secret: &NewSecret) -> Self {
        Self {
            key_id: key.key_id.clone(),
            api_key: secret.text.to_string(),
            name: key.name.clone(),
            role: key.reach.role,
            permissions: key.reach.permissions,
            expires_at: key.expires_at,
            created_by_entity_id: key.created_by,
            created_by_credential_id: key.created_with,
            networks: key.networks.clone(),
            bound_to: key.bound_to.map(|jkt| KeyBinding { jkt }),
        }
    }
}

/// Refuses a bound key (409) on a server that does not know its own URL, because no proof is accepted there.
fn usable(bound_to: Option<Thumbprint>, knows_its_url: bool) -> Result<(), ApiError> {
    if bound_to.is_none() || knows_its_url {
        return Ok(());
    }
    Err(ApiError::conflict(
        "public_url_not_set",
        "A bound key needs proofs that name this server's URL. Its operator must first set public_url.",
    ))
}

fn expiry(now: Timestamp, days: u64) -> Timestamp {
    now.saturating_add(Duration::from_secs(days * DAY))
}

/// The columns of a new key that are decided before its position.
struct Minted {
    principal: PrincipalId,
    kind: PrincipalKind,
    creator: Option<(PrincipalId, Option<CredentialId>)>,
    name: Option<String>,
    role: Role,
    narrowed: Permissions,
    networks: Networks,
    days: u64,
    bound_to: Option<Thumbprint>,
}

impl Minted {
    /// Inserts the key at the end of its workspace's list.
    fn insert(self, write: &mut Write<'_, '_>, secret: &NewSecret) -> Result<ApiKey, ApiError> {
        let now = write.now();
        let position = workspaces::next_position(write, now)?;
        let key = ApiKey {
            id: CredentialId::at(now),
            key_id: secret.key_id.to_string(),
            workspace: write.row(),
            principal: self.principal,
            kind: self.kind,
            created_by: self.creator.map(|(principal, _)| principal),
            created_with: self.creator.and_then(|(_, credential)| credential),
            name: self.name,
            reach: Reach::narrowed(self.role, self.narrowed),
            expires_at: expiry(now, self.days),
            last_used_at: None,
            created_at: now,
            updated_at: now,
            position,
            previous: None,
            quarantined_at: None,
            networks: self.networks,
            bound_to: self.bound_to,
        };
        store::insert(write, &key, self.narrowed, &secret.hash)?;
        Ok(key)
    }
}

/// A key as the subject of an audit event.
pub(super) fn key_subject(key: &ApiKey) -> Subject<'_> {
    Subject { service: "api_keys", kind: "api_key", id: Some(key.id.0), name: key.name.as_deref() }
}

/// Records an event about a key.
fn record(write: &mut Write<'_, '_>, action: &'static str, key: &ApiKey) -> Result<(), ApiError> {
    record_with(write, action, key, None)
}

/// As [`record`], with the leak that caused the action.
pub(super) fn record_with(
    write: &mut Write<'_, '_>,
    action: &'static str,
    key: &ApiKey,
    leak: Option<Value>,
) -> Result<(), ApiError> {
    let mut what = json!({
        "key_id": key.key_id,
        "role": key.reach.role,
        "permissions": key.reach.permissions,
        "expires_at": key.expires_at,
    });
    if let Some(previous) = key.live_previous(write.now()) {
        what["previous_ends_at"] = json!(previous.ends_at);
    }
    if !key.networks.is_empty() {
        what["networks"] = json!(key.networks);
    }
    if let Some(leak) = leak {
        what["leak"] = leak;
    }
    if let Some(jkt) = key.bound_to {
        what["bound_to"] = json!(KeyBinding { jkt });
    }
    write.record(action, key_subject(key), what)
}

/// Creates a key, for a service of its own or for the calling user. Its permissions must lie within the
/// caller's (403 otherwise).
pub async fn create(
    app: &Arc<App>,
    entry: Entry,
    new: CreateApiKeyRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let role = Role::named(&new.role).ok_or_else(|| ApiError::internal("an unvalidated role"))?;
    let narrowed = permissions_named(&new.permissions);
    let networks = new.networks()?;
    let usual = app.config.quotas;
    let installation = app.config.key_ceilings.clone();
    let (bound_to, knows_its_url) = (new.binding()?, possession::knows_its_url(app));
    let create = move |write: &mut Write<'_, '_>, held: &Held| {
        let (caller, now) = (&held.caller, write.now());
        held.seen.authority.covers(Reach::narrowed(role, narrowed)).map_err(beyond_caller)?;
        within_networks_of(caller, &networks)?;
        if new.speaks_for == SpeaksFor::Minter && caller.kind != PrincipalKind::User {
            return Err(ApiError::forbidden_because(
                "unsupported_principal",
                "Only a user can have further keys that speak for it; a service has a single key.",
                Forbidden::by_rule(Rule::User, Because::Service),
            ));
        }
        repeat.once(write, Secrecy::Secret { former: None }, |write| {
            usable(bound_to, knows_its_url)?;
            let at_home = &held.seen.workspace;
            ceilings::in_force(write, at_home.id, &at_home.environment, &installation)?
                .allow(role, new.duration_days)?;
            let (principal, kind) = match new.speaks_for {
                SpeaksFor::Minter => (caller.principal, caller.kind),
                SpeaksFor::Service => {
                    let service = identity::create(write, PrincipalKind::Service, new.name.as_deref(), now)?;
                    identity::join(write, (service, PrincipalKind::Service), role, now)?;
                    (service, PrincipalKind::Service)
                }
            };
            let bytes =
                Count::bytes(new.name.as_ref().map_or(0, String::len)).bytes + bytes_of(&networks).bytes;
            let members = i64::from(kind == PrincipalKind::Service);
            let more = Count { keys: 1, members, bytes, ..Count::default() };
            let workspace = write.row();
            quotas::take(write, workspace, &usual, more, now)?;
            let secret = NewSecret::generate().map_err(ApiError::internal)?;
            let creator = Some((caller.principal, caller.credential_id()));
            let (name, days, networks) = (new.name.clone(), new.duration_days, networks.clone());
            let minted = Minted { principal, kind, creator, name, role, narrowed, networks, days, bound_to };
            let key = minted.insert(write, &secret)?;
            record(write, "api_key.create", &key)?;
            Ok(CreateApiKeyResponse::new(&key, &secret))
        })
    };
    entry.write(app, "api_keys.create", create).await
}

/// Claims an unclaimed workspace: creates its first user, the owner membership and an owner key. Every
/// workspace that cannot be claimed gets the same 401.
pub async fn claim(
    app: &Arc<App>,
    context: Arc<Context>,
    workspace: WorkspaceId,
    new: CreateApiKeyRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let installation = app.config.key_ceilings.clone();
    let networks = new.networks()?;
    let (bound_to, knows_its_url) = (new.binding()?, possession::knows_its_url(app));
    let claim = move |tx: &mut Tx<'_>| {
        let mut write = Write::begin(tx, NoGuard, Actor::NOBODY, &context)?;
        repeat.once(&mut write, Secrecy::Secret { former: None }, |write| {
            let now = write.now();
            let claimed = workspaces::claim(write, workspace, now)?.ok_or(ApiError::unauthorized())?;
            usable(bound_to, knows_its_url)?;
            let write = &mut write.also(claimed)?;
            // A workspace has no owners before, who could have chosen ceilings of their own.
            if !installation.is_empty() {
                let claimed = workspaces::active(write, workspace)?.ok_or(ApiError::unauthorized())?;
                Ceilings::of_installation(&installation, &claimed.environment)
                    .allow(Role::Owner, new.duration_days)?;
            }
            networks.keep_caller(&context)?;
            let (kind, role) = (PrincipalKind::User, Role::Owner);
            let principal = identity::create(write, kind, None, now)?;
            identity::join(write, (principal, kind), role, now)?;
            let (name, days) = (new.name.clone(), new.duration_days);
            let bytes = Count::bytes(name.as_ref().map_or(0, String::len)).bytes + bytes_of(&networks).bytes;
            let more = Count { keys: 1, members: 1, bytes, ..Count::default() };
            let (creator, narrowed, networks) =
                (Some((principal, None)), Permissions::default(), networks.clone());
            let minted = Minted { principal, kind, creator, name, role, narrowed, networks, days, bound_to };
            let secret = NewSecret::generate().map_err(ApiError::internal)?;
            quotas::give_back(write, workspace, more)?;
            let key = minted.insert(write, &secret)?;
            write.actor = Actor::new(principal, key.id);
            record(write, "workspace.claim", &key)?;
            Ok(CreateApiKeyResponse::new(&key, &secret))
        })
    };
    app.db.write("api_keys.claim", claim).await
}

/// Gives a key a new secret and a new expiry. The old secret ends with the commit or at the end of the overlap, but never
/// after the former or the new expiry.
pub async fn rotate(
    app: &Arc<App>,
    entry: Entry,
    key_id: KeyId,
    rotation: RotateApiKeyRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let presented = entry.presented_hash();
    let installation = app.config.key_ceilings.clone();
    let rotate = move |write: &mut Write<'_, '_>, Held { caller, seen }: &Held| {
        let now = write.now();
        let mut key = store::get(write, seen.workspace.id, key_id)?.ok_or(ApiError::no_api_key())?;
        let own = caller.credential_id() == Some(key.id);
        may_change(caller, seen.authority, &key)?;
        repeat.once(write, Secrecy::Secret { former: presented.filter(|_| own) }, |write| {
            with_current_secret(caller, &key)?;
            ceilings::in_force(write, key.workspace, &seen.workspace.environment, &installation)?
                .allow(key.reach.role, rotation.duration_days)?;
            if key.quarantined_at.is_some() && rotation.grace_seconds > 0 {
                return Err(ApiError::conflict(
                    "leaked_secret",
                    "The secret of this key leaked, so a rotation ends it at once. Rotate without grace_seconds.",
                ));
            }
            let id = KeyId::parse(&key.key_id).ok_or_else(|| ApiError::internal("a stored key id"))?;
            let secret = NewSecret::for_key(id).map_err(ApiError::internal)?;
            let former_end = key.expires_at;
            key.expires_at = expiry(now, rotation.duration_days);
            let overlap = now.saturating_add(Duration::from_secs(rotation.grace_seconds));
            let ends_at = overlap.min(former_end).min(key.expires_at);
            key.updated_at = now.max(Timestamp::from_micros(key.updated_at.micros() + 1));
            key.previous =
                (ends_at > key.updated_at).then_some(PreviousSecret { ends_at, last_used_at: None });
            key.quarantined_at = None;
            store::rotate(write, &key, &secret.hash)?;
            record(write, "api_key.rotate", &key)?;
            Ok(CreateApiKeyResponse::new(&key, &secret))
        })
    };
    entry.write(app, "api_keys.rotate", rotate).await
}

/// Ends the previous secret of a key with the commit. A key without one stays as it is.
pub async fn finish_rotation(
    app: &Arc<App>,
    entry: Entry,
    key_id: KeyId,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let finish = move |write: &mut Write<'_, '_>, Held { caller, seen }: &Held| {
        let now = write.now();
        let mut key = store::get(write, seen.workspace.id, key_id)?.ok_or(ApiError::no_api_key())?;
        may_change(caller, seen.authority, &key)?;
        repeat.once(write, Secrecy::Open, |write| {
            with_current_secret(caller, &key)?;
            if key.previous.is_some_and(|previous| previous.ends_at > now) {
                key = end_previous(write, key, None)?;
            }
            Ok(ApiKeyResponse::of(&key, now))
        })
    };
    entry.write(app, "api_keys.finish_rotation", finish).await
}

/// Ends the previous secret of a rotation with an overlap. Returns the key without it.
pub(super) fn end_previous(
    write: &mut Write<'_, '_>,
    mut key: ApiKey,
    leak: Option<Value>,
) -> Result<ApiKey, ApiError> {
    key.previous = None;
    key.updated_at = write.now().max(Timestamp::from_micros(key.updated_at.micros() + 1));
    store::finish_rotation(write, &key)?;
    record_with(write, "api_key.finish_rotation", &key, leak)?;
    Ok(key)
}

/// The rules for a caller who rotates a key or changes its networks: its user, or for a service a caller with at least its
/// permissions (403).
pub(super) fn may_change(caller: &Caller, authority: Authority, key: &ApiKey) -> Result<(), ApiError> {
    if key.kind == PrincipalKind::User && key.principal != caller.principal {
        return Err(ApiError::forbidden_because(
            "not_your_key",
            "Only the user that this key speaks for may rotate or change it.",
            Forbidden::by_rule(Rule::OwnKey, Because::AnotherUser),
        ));
    }
    if caller.credential_id() == Some(key.id) { Ok(()) } else { within_caller(authority, key) }
}

/// Refuses the previous secret of the same key (403). Otherwise the owner of a leaked secret that a rotation replaced could
/// take the key over within the overlap.
pub(super) fn with_current_secret(caller: &Caller, key: &ApiKey) -> Result<(), ApiError> {
    match caller.key() {
        Some(used) if used.id == key.id && used.previous => Err(ApiError::forbidden_because(
            "previous_secret",
            "A rotation has replaced this secret. Use the new secret to rotate or change the key, or to finish the rotation.",
            Forbidden::by_rule(Rule::CurrentSecret, Because::ReplacedSecret),
        )),
        _ => Ok(()),
    }
}

/// Revokes a key, which ends it with the commit.
pub async fn revoke(app: &Arc<App>, entry: Entry, key_id: KeyId) -> Result<(), ApiError> {
    let revoke = move |write: &mut Write<'_, '_>, Held { caller, seen }: &Held| {
        let key = store::get(write, seen.workspace.id, key_id)?.ok_or(ApiError::no_api_key())?;
        let own = caller.credential_id() == Some(key.id);
        if !own {
            within_caller(seen.authority, &key)?;
        }
        last_way_in::keep_way_into_home(write, &key)?;
        if caller.principal == key.principal && key.kind == PrincipalKind::User {
            last_way_in::keep_ways_of(write, key.principal, Without::Key(&key.key_id))?;
        }
        end(write, &key, None)
    };
    entry.write(app, "api_keys.revoke", revoke).await
}

/// Revokes a key. A service leaves the workspace with its only key.
pub(super) fn end(write: &mut Write<'_, '_>, key: &ApiKey, leak: Option<Value>) -> Result<(), ApiError> {
    let now = write.now();
    let members = if key.kind == PrincipalKind::Service { -1 } else { 0 };
    quotas::give_back(write, key.workspace, Count { keys: -1, members, ..Count::default() })?;
    store::revoke(write, key, now)?;
    test_callers::forget_ended_credentials(write, now)?;
    if key.kind == PrincipalKind::Service {
        identity::leave(write, key.principal)?;
    }
    record_with(write, "api_key.revoke", key, leak)
}

/// Creates a key as the operator, who needs no membership: for workspaces whose people have lost their
/// keys.
pub fn issue_as_operator(
    tx: &mut Tx<'_>,
    context: &Context,
    workspace: WorkspaceId,
    role: Role,
    name: Option<String>,
    days: u64,
) -> Result<CreateApiKeyResponse, ApiError> {
    let write = &mut Write::begin(tx, workspace, Actor::OPERATOR, context)?;
    let (kind, now) = (PrincipalKind::Service, context.now);
    let principal = identity::create(write, kind, name.as_deref(), now)?;
    identity::join(write, (principal, kind), role, now)?;
    let (narrowed, networks) = (Permissions::default(), Networks::default());
    let minted =
        Minted { principal, kind, creator: None, name, role, narrowed, networks, days, bound_to: None };
    let secret = NewSecret::generate().map_err(ApiError::internal)?;
    quotas::give_back(write, workspace, Count { keys: 1, members: 1, ..Count::default() })?;
    let key = minted.insert(write, &secret)?;
    record(write, "api_key.create", &key)?;
    Ok(CreateApiKeyResponse::new(&key, &secret))
}

/// Revokes a key as the operator. `None` if no live key has this id.
pub fn revoke_as_operator(
    tx: &mut Tx<'_>,
    context: &Context,
    key_id: KeyId,
) -> Result<Option<ApiKey>, ApiError> {
    let Some(found) = store::get_anywhere(tx, key_id)? else { return Ok(None) };
    let write = &mut Write::begin(tx, found.workspace, Actor::OPERATOR, context)?;
    // Another transaction may have revoked it before this one took the guard row.
    let Some(key) = store::get_anywhere(write, key_id)? else { return Ok(None) };
    end(write, &key, None)?;
    Ok(Some(key))
}

/// Refuses to touch another key that the caller could not have created. The key's own role decides,
/// although its principal's membership bounds what it really allows. Memberships change, and a key must not
/// be captured in the meantime.
fn within_caller(authority: Authority, key: &ApiKey) -> Result<(), ApiError> {
    authority.covers(key.reach).map_err(beyond_caller)
}

const fn beyond_caller(why: Forbidden) -> ApiError {
    ApiError::forbidden_because(
        "beyond_caller",
        "You cannot grant or change permissions that you do not have.",
        why,
    )
}

/// The caller's own key, as `GET /v1/auth/me` describes it.
#[derive(Serialize)]
pub struct AuthInfo<'a> {
    workspace_id: WorkspaceId,
    key_id: &'a str,
    name: Option<&'a str>,
    expires_at: Timestamp,
    expires_in_seconds: i64,
}

impl<'a> AuthInfo<'a> {
    /// Describes this caller's key. The gate has refused all other callers.
    pub fn of(caller: &'a Caller, now: Timestamp) -> Result<Self, ApiError> {
        let key = caller.key().ok_or_else(|| ApiError::internal("the gate admitted a token"))?;
        Ok(Self {
            workspace_id: key.home,
            key_id: key.key_id.as_str(),
            name: key.name.as_deref(),
            expires_at: key.expires_at,
            expires_in_seconds: (key.expires_at.micros() - now.micros()).max(0) / 1_000_000,
        })
    }
}
