//! Writes on handovers: create and open.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use ward_db::{Timestamp, Tx};

use super::store::{self, WaitingSecret};
use super::{Token, WAITS, place};
use crate::access::{Permissions, Role};
use crate::api_keys::actions::{key_subject, may_change};
use crate::api_keys::secret::{KeyId, NewSecret, Presented, SecretHash};
use crate::api_keys::{Secret, store as keys, valid_key};
use crate::app::App;
use crate::audit::{Actor, Write};
use crate::context::Context;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::WorkspaceId;
use crate::vault;

/// `HandoverResponse`: the link, whose token opens the handover once.
#[derive(Serialize)]
struct HandoverResponse {
    key_id: String,
    /// `None` if the operator has not set `public_url`.
    url: Option<String>,
    token: String,
    expires_at: Timestamp,
}

/// Gives a key that was never used a new secret, which only the opener of the link learns. The former secret ends with the
/// commit, and so does an earlier link.
pub async fn create(app: &Arc<App>, entry: Entry, key_id: KeyId, repeat: Repeat) -> Result<Reply, ApiError> {
    let vault = app.vault.clone();
    let page = app.config.public_url.as_deref().map(|base| format!("{}{PAGE}", base.trim_end_matches('/')));
    // A use of the last minute may not be stored yet.
    let used_lately = app.last_used.has(key_id);
    let create = move |write: &mut Write<'_, '_>, Held { caller, seen }: &Held| {
        let now = write.now();
        let mut key = keys::get(write, seen.workspace.id, key_id)?.ok_or(ApiError::no_api_key())?;
        may_change(caller, seen.authority, &key)?;
        repeat.once(write, Secrecy::Secret { former: None }, |write| {
            if used_lately || key.last_used_at.is_some() || key.live_previous(now).is_some() {
                return Err(ApiError::conflict(
                    "key_in_use",
                    "This key has been used, so a new secret would stop a program. Create another key to hand over.",
                ));
            }
            if key.quarantined_at.is_some() {
                return Err(ApiError::conflict(
                    "leaked_secret",
                    "The secret of this key leaked, so the key ends soon. Rotate it first.",
                ));
            }
            if key.expires_at <= now {
                return Err(ApiError::conflict("key_expired", "This key has expired. Rotate it first."));
            }
            let secret = NewSecret::for_key(key_id).map_err(ApiError::internal)?;
            key.updated_at = now.max(Timestamp::from_micros(key.updated_at.micros() + 1));
            key.previous = None;
            keys::rotate(write, &key, &secret.hash)?;
            let token = Token::generate().map_err(ApiError::internal)?;
            vault::hold(write, &vault)?;
            let place = place(key.workspace, &key.key_id);
            let waiting = WaitingSecret {
                key_id: key.key_id.clone(),
                workspace: key.workspace,
                sealed: vault.seal(secret.text.as_bytes(), &place).map_err(ApiError::internal)?,
                expires_at: now.saturating_add(WAITS).min(key.expires_at),
            };
            store::put(write, &token.hash, &waiting)?;
            write.record("api_key.handover", key_subject(&key), json!({
                "key_id": key.key_id,
                "role": key.reach.role,
                "link_expires_at": waiting.expires_at,
            }))?;
            Ok(HandoverResponse {
                key_id: waiting.key_id,
                url: page.as_deref().map(|page| format!("{page}#{}", *token.text)),
                token: token.text.to_string(),
                expires_at: waiting.expires_at,
            })
        })
    };
    entry.write(app, "api_keys.handover", create).await
}

/// The path of the page that a link opens.
const PAGE: &str = "/v1/keys/handover";

/// `HandedOverKeyResponse`: a key with its secret, for the opener of a link.
#[derive(Serialize)]
pub struct HandedOverKeyResponse {
    key_id: String,
    api_key: String,
    workspace_id: WorkspaceId,
    name: Option<String>,
    role: Role,
    permissions: Permissions,
    expires_at: Timestamp,
}

/// Shows the secret that waits under this token, and deletes it. `None` for every token that opens nothing.
///
/// An unknown token costs a read and never reaches the writer.
pub async fn open(
    app: &App,
    context: Arc<Context>,
    token: SecretHash,
) -> Result<Option<HandedOverKeyResponse>, ApiError> {
    let now = context.now;
    let found = app.db.read("api_keys.handover_waits", move |tx| store::get(tx, &token, now)).await?;
    let Some(WaitingSecret { workspace, .. }) = found else { return Ok(None) };
    let vault = app.vault.clone();
    let open = move |tx: &mut Tx<'_>| {
        let mut write = Write::begin(tx, workspace, Actor::NOBODY, &context)?;
        // Another request may have opened it before this one took the guard row.
        let Some(waiting) = store::get(&mut write, &token, now)? else { return Ok(None) };
        store::forget(&mut write, &waiting.key_id)?;
        // The master key that sealed it may be lost, and the key may have been rotated or revoked since.
        let Ok(text) = vault.open(&waiting.sealed, &place(workspace, &waiting.key_id)) else {
            return Ok(None);
        };
        let Some(presented) = Presented::parse(&text) else { return Ok(None) };
        let Some((_, Secret::Current)) = valid_key(&mut write, &presented, now)? else { return Ok(None) };
        let Some(key) = keys::get_anywhere(&mut write, presented.key_id)? else { return Ok(None) };
        write.record("api_key.handover_opened", key_subject(&key), json!({ "key_id": key.key_id }))?;
        Ok::<_, ApiError>(Some(HandedOverKeyResponse {
            key_id: key.key_id,
            api_key: String::from_utf8_lossy(&text).into_owned(),
            workspace_id: key.workspace,
            name: key.name,
            role: key.reach.role,
            permissions: key.reach.permissions,
            expires_at: key.expires_at,
        }))
    };
    app.db.write("api_keys.open_handover", open).await
}
