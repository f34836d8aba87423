//! The JSON routes of generated keys, and the public JWK set.

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ward_db::{Timestamp, Tx};

use super::{Key, actions, set_url, store};
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::Repeat;
use crate::http::{Open, Reply, Request, Sent};
use crate::ids::{IntegrationId, WorkspaceId};
use crate::integrations::api::named;
use crate::integrations::store as integrations;
use crate::workspaces;

/// How long a vendor may keep the set: short, so that a new key is known soon after it was published.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

#[derive(Serialize)]
pub(super) struct KeyResponse {
    kid: String,
    algorithm: String,
    state: &'static str,
    public_key: Value,
    jwks_url: Option<String>,
    created_at: Timestamp,
    activated_at: Option<Timestamp>,
}

impl KeyResponse {
    pub fn of(key: Key, public_url: Option<&str>, workspace: WorkspaceId, id: IntegrationId) -> Self {
        Self {
            kid: key.kid,
            algorithm: key.algorithm,
            state: key.state.name(),
            public_key: key.public,
            jwks_url: set_url(public_url, workspace, id),
            created_at: key.created_at,
            activated_at: key.activated_at,
        }
    }
}

#[derive(Serialize)]
struct KeysResponse {
    jwks_url: Option<String>,
    items: Vec<KeyResponse>,
}

#[derive(Deserialize)]
pub struct CreateIntegrationKeyRequest {
    algorithm: Option<String>,
}

pub async fn list(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let id = named(&request);
    let read = move |tx: &mut Tx<'_>| {
        integrations::summary(tx, workspace, id)?.ok_or(ApiError::no_integration())?;
        Ok::<_, ApiError>(store::list(tx, workspace, id)?)
    };
    let keys = request.app.db.read("integrations.keys", read).await?;
    let url = request.app.config.public_url.as_deref();
    let items = keys.into_iter().map(|key| KeyResponse::of(key, url, workspace, id)).collect();
    Reply::ok(&KeysResponse { jwks_url: set_url(url, workspace, id), items })
}

pub async fn create(
    request: Request,
    (entry, sent): (Entry, Sent<CreateIntegrationKeyRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    actions::create(&request.app, entry, named(&request), sent.value.algorithm, repeat).await
}

pub async fn activate(request: Request, (entry, bytes): (Entry, Bytes)) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &bytes, StatusCode::OK)?;
    let kid = request.parameter("kid").to_owned();
    actions::activate(&request.app, entry, named(&request), kid, repeat).await
}

pub async fn delete(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let kid = request.parameter("kid").to_owned();
    actions::delete(&request.app, entry, named(&request), kid).await?;
    Ok(Reply::no_content())
}

/// `get-integration-jwks`: needs no credential, because a vendor fetches it. An integration without keys and one that
/// does not exist get the same answer.
pub async fn jwks(request: Request, _: Open) -> Result<Reply, ApiError> {
    request.charge_key_set()?;
    let workspace = request.workspace().ok_or(ApiError::no_workspace())?;
    let id = named(&request);
    let read = move |tx: &mut Tx<'_>| {
        Ok::<_, ward_db::Error>(match workspaces::active(tx, workspace)? {
            Some(_) => store::list(tx, workspace, id)?,
            None => Vec::new(),
        })
    };
    let keys = request.app.db.read("integrations.jwks", read).await?;
    if keys.is_empty() {
        return Err(ApiError::missing("keys_not_found", "There is no JWK set here."));
    }
    let keys: Vec<Value> = keys.into_iter().map(|key| key.public).collect();
    let mut reply = Reply::ok(&json!({ "keys": keys }))?;
    reply.headers.push((CACHE_CONTROL, KEPT));
    Ok(reply)
}
