//! The JSON routes of the networks of keys.

use super::actions::{self, SetApiKeyNetworksRequest};
use crate::api_keys::api::key_id;
use crate::api_keys::wire::ApiKeyResponse;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Reply, Request, Sent};

pub async fn set(
    request: Request,
    (entry, sent): (Entry, Sent<SetApiKeyNetworksRequest>),
) -> Result<Reply, ApiError> {
    let key = actions::set(&request.app, entry, key_id(&request), sent.value).await?;
    Reply::ok(&ApiKeyResponse::of(&key, request.context.now))
}
