//! Writes on generated keys: create, activate, delete.

use std::sync::Arc;

use serde_json::{Value, json};
use ward_contract::validate::{Loc, Problem};
use ward_db::Timestamp;

use super::api::KeyResponse;
use super::{Key, KeyState, MOST, algorithm_for, signs, store};
use crate::app::App;
use crate::audit::Write;
use crate::deliveries;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::guard::WorkspaceGuard;
use crate::http::Reply;
use crate::ids::IntegrationId;
use crate::integrations::actions::{holder, read, subject};
use crate::integrations::outbound::{KeyPair, generate};
use crate::integrations::secrets::{AssociatedData, Field, SealedSecret, SecretKind, destinations};
use crate::integrations::store as integrations;
use crate::integrations::store::IntegrationSummary;
use crate::quotas::{self, Change as Count};
use crate::vault::{self, Vault};

/// A generated key pair, and what it was generated for.
struct GeneratedKey {
    pair: KeyPair,
    algorithm: String,
    /// The origins to which assertions with this key may go.
    origins: String,
    /// The version of the integration that was read.
    seen: Timestamp,
}

/// Generates a key pair. The first key of an integration without another private key is active at once.
pub(super) async fn create(
    app: &Arc<App>,
    entry: Entry,
    id: IntegrationId,
    asked: Option<String>,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let made = Arc::new(make(app, &entry, id, asked.as_deref()).await?);
    let (vault, usual) = (app.vault.clone(), app.config.quotas);
    let public_url = app.config.public_url.clone();
    let create = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| {
            let (workspace, now) = (write.row(), write.now());
            let named = integrations::summary(write, workspace, id)?.ok_or(ApiError::no_integration())?;
            if named.updated_at != made.seen {
                return Err(ApiError::unavailable(
                    "unavailable",
                    "Another request changed this integration. Try again.",
                    1,
                ));
            }
            let key = keep(write, &vault, id, &made, now)?;
            let bytes = integrations::weigh(write, id)?;
            quotas::take(write, workspace, &usual, Count { bytes, ..Count::default() }, now)?;
            write.record("integration.key_create", subject(id, &named.name), told(&key))?;
            if key.state == KeyState::Active {
                in_use(write, id, &named)?;
            }
            Ok(KeyResponse::of(key, public_url.as_deref(), workspace, id))
        })
    };
    let reply = entry.write(app, "integrations.create_key", create).await;
    app.sync.wake();
    reply
}

/// Generates the pair as CPU work of the workspace, because an RSA key takes long.
async fn make(
    app: &Arc<App>,
    entry: &Entry,
    id: IntegrationId,
    asked: Option<&str>,
) -> Result<GeneratedKey, ApiError> {
    let integration = read(app, entry, id).await?;
    let config = integration.config;
    let auth = config.auth.filter(|auth| signs(auth.kind)).ok_or_else(|| {
        ApiError::conflict(
            "integration_signs_nothing",
            "Only smart_backend_services, oauth2_jwt_bearer and gcp_wif sign with a key: set auth first.",
        )
    })?;
    let origins = destinations(&auth, &config.base_url).ok_or_else(|| {
        ApiError::conflict(
            "integration_unfinished",
            "A key is for the hosts of base_url and token_url only: fill them in first.",
        )
    })?;
    let algorithm = algorithm_for(&auth, asked).ok_or_else(|| {
        let loc = vec![Loc::from("body"), Loc::from("algorithm")];
        let message = "is not an algorithm of this integration's type of auth";
        ApiError::invalid(vec![Problem::value_error(loc, message, json!(asked).into())])
    })?;
    let named = algorithm.clone();
    let pair = app.work.run(holder(entry)?, move || generate(&named)).await?.map_err(ApiError::internal)?;
    Ok(GeneratedKey { pair, algorithm, origins, seen: integration.updated_at })
}

/// Seals and stores a new key.
fn keep(
    tx: &mut WorkspaceGuard<'_, '_>,
    vault: &Vault,
    id: IntegrationId,
    made: &GeneratedKey,
    now: Timestamp,
) -> Result<Key, ApiError> {
    let workspace = tx.row();
    let present = store::list(tx, workspace, id)?;
    if present.len() >= usize::from(MOST) {
        return Err(ApiError::conflict(
            "too_many_keys",
            "This integration has two keys: delete the one that signs nothing before you create another.",
        ));
    }
    let own = AssociatedData { endpoint: None, base_url: "" }.field(SecretKind::PrivateKey);
    let has_own = integrations::secrets(tx, workspace, id)?.iter().any(|secret| secret.field == own);
    let first = !has_own && present.iter().all(|key| key.state != KeyState::Active);
    let key = Key {
        kid: made.pair.kid.clone(),
        algorithm: made.algorithm.clone(),
        state: if first { KeyState::Active } else { KeyState::Next },
        public: made.pair.public.clone(),
        created_at: now,
        activated_at: first.then_some(now),
    };
    vault::hold(tx, vault)?;
    let field = Field::of_key(&key.kid);
    let place = SealedSecret::place(workspace, id, &field);
    let bytes = vault.seal(made.pair.private.expose().as_bytes(), &place).map_err(ApiError::internal)?;
    let origins = made.origins.clone();
    let sealed = SealedSecret { workspace, integration: id, field, origins, bytes, signs_with: None };
    store::insert(tx, &sealed, &key, &vault.key_id())?;
    Ok(key)
}

/// The details of a key's audit events.
fn told(key: &Key) -> Value {
    json!({ "kid": key.kid, "algorithm": key.algorithm, "state": key.state.name() })
}

/// Notes that other credentials are in use from now on. Deliveries that waited for them are tried again.
fn in_use(write: &mut Write<'_, '_>, id: IntegrationId, named: &IntegrationSummary) -> Result<(), ApiError> {
    let now = write.now();
    let updated_at = now.max(Timestamp::from_micros(named.updated_at.micros() + 1));
    store::touch(write, id, updated_at)?;
    Ok(deliveries::integration_changed(write, id, now)?)
}

/// 404: the integration has no such key.
const fn no_key() -> ApiError {
    ApiError::missing("key_not_found", "The integration has no key with this id.")
}

/// Makes a published key the one that signs. The key that signed until then stays published.
pub(super) async fn activate(
    app: &Arc<App>,
    entry: Entry,
    id: IntegrationId,
    kid: String,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let public_url = app.config.public_url.clone();
    let activate = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| {
            let (workspace, now) = (write.row(), write.now());
            let named = integrations::summary(write, workspace, id)?.ok_or(ApiError::no_integration())?;
            let mut keys = store::list(write, workspace, id)?;
            let at = keys.iter().position(|key| key.kid == kid).ok_or(no_key())?;
            let mut key = keys.swap_remove(at);
            if key.state != KeyState::Active {
                for former in keys.iter_mut().filter(|key| key.state == KeyState::Active) {
                    former.state = KeyState::Former;
                    store::set_state(write, id, former)?;
                }
                (key.state, key.activated_at) = (KeyState::Active, Some(now));
                store::set_state(write, id, &key)?;
                write.record("integration.key_activate", subject(id, &named.name), told(&key))?;
                in_use(write, id, &named)?;
            }
            Ok(KeyResponse::of(key, public_url.as_deref(), workspace, id))
        })
    };
    let reply = entry.write(app, "integrations.activate_key", activate).await;
    app.sync.wake();
    reply
}

/// Deletes a key with its private half. Deleting the one that signs ends the integration's access.
pub(super) async fn delete(
    app: &Arc<App>,
    entry: Entry,
    id: IntegrationId,
    kid: String,
) -> Result<(), ApiError> {
    let delete = move |write: &mut Write<'_, '_>, _: &Held| {
        let workspace = write.row();
        let named = integrations::summary(write, workspace, id)?.ok_or(ApiError::no_integration())?;
        let keys = store::list(write, workspace, id)?;
        let key = keys.iter().find(|key| key.kid == kid).ok_or(no_key())?;
        integrations::drop_secret(write, id, &Field::of_key(&kid))?;
        let bytes = integrations::weigh(write, id)?;
        quotas::give_back(write, workspace, Count { bytes, ..Count::default() })?;
        if key.state == KeyState::Active {
            in_use(write, id, &named)?;
        }
        write.record("integration.key_delete", subject(id, &named.name), told(key))
    };
    entry.write(app, "integrations.delete_key", delete).await
}
