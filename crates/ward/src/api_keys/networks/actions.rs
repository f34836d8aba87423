//! Writes on the networks of keys.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::store;
use crate::api_keys::actions::{key_subject, may_change, with_current_secret};
use crate::api_keys::secret::KeyId;
use crate::api_keys::{ApiKey, store as keys};
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::forbidden::{Because, Forbidden, Rule};
use crate::gate::{Entry, Held};
use crate::identity::Caller;
use crate::networks::Networks;
use crate::quotas::{self, Change as Count};

#[derive(Clone, Debug, Deserialize)]
pub struct SetApiKeyNetworksRequest {
    networks: Vec<String>,
}

/// Replaces the networks of a key. The same networks write nothing. The rules for the caller are those of a rotation.
pub async fn set(
    app: &Arc<App>,
    entry: Entry,
    key_id: KeyId,
    sent: SetApiKeyNetworksRequest,
) -> Result<ApiKey, ApiError> {
    let networks = Networks::parse(&sent.networks).map_err(ApiError::internal)?;
    let set = move |write: &mut Write<'_, '_>, Held { caller, seen }: &Held| {
        let mut key = keys::get(write, seen.workspace.id, key_id)?.ok_or(ApiError::no_api_key())?;
        may_change(caller, seen.authority, &key)?;
        with_current_secret(caller, &key)?;
        within_networks_of(caller, &networks)?;
        if caller.credential_id() == Some(key.id) {
            networks.keep_caller(write.context)?;
        }
        if key.networks == networks {
            return Ok(key);
        }
        let former = std::mem::replace(&mut key.networks, networks.clone());
        store::set(write, &key)?;
        let bytes = bytes(&networks).bytes - bytes(&former).bytes;
        quotas::give_back(write, seen.workspace.id, Count { bytes, ..Count::default() })?;
        let changes = json!({ "networks": { "from": former, "to": networks } });
        let what = json!({ "key_id": key.key_id, "changes": changes });
        write.record("api_key.networks", key_subject(&key), what)?;
        Ok(key)
    };
    entry.write(app, "api_keys.set_networks", set).await
}

/// Refuses networks that the caller's own key does not have (403).
pub fn within_networks_of(caller: &Caller, networks: &Networks) -> Result<(), ApiError> {
    if caller.key().is_none_or(|key| key.networks.cover(networks)) {
        return Ok(());
    }
    Err(ApiError::forbidden_because(
        "beyond_caller",
        "Your key has networks. A key that it creates or changes must have networks within these, and a trust rule has none.",
        Forbidden::by_rule(Rule::WithinNetworks, Because::KeyNetworks),
    ))
}

/// The bytes that the networks of a key count for as stored.
pub fn bytes(networks: &Networks) -> Count {
    Count::bytes(networks.stored().as_ref().map_or(0, String::len))
}
