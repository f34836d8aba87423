//! The routes of handovers: the link's creation, its page, and its opening.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use super::{actions, hash_of, no_handover};
use crate::api_keys::api::key_id;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::Repeat;
use crate::http::{Open, Reply, Request, docs};

pub async fn create(request: Request, (entry, body): (Entry, Bytes)) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &body, StatusCode::CREATED)?;
    actions::create(&request.app, entry, key_id(&request), repeat).await
}

const PAGE: &str = include_str!("page.html");
/// The content security policy of the page, computed once.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    HeaderValue::try_from(docs::policy(PAGE)).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// `get-handover-page`: the same page for every link. It opens nothing until its button is pressed.
pub async fn page(_: Request, _: Open) -> Result<Reply, ApiError> {
    Ok(Reply {
        status: StatusCode::OK,
        content_type: HeaderValue::from_static("text/html; charset=utf-8"),
        headers: vec![
            (CONTENT_SECURITY_POLICY, POLICY.clone()),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ],
        body: Bytes::from_static(PAGE.as_bytes()),
        stream: None,
    })
}

#[derive(Deserialize)]
struct OpenHandoverRequest {
    token: String,
}

/// `open-handover`: a token that opens nothing is charged to its address like a refused credential.
pub async fn open(mut request: Request, _: Open) -> Result<Reply, ApiError> {
    let sent = request.read_body().await?.valid::<OpenHandoverRequest>(&request).await?;
    let token = hash_of(&sent.value.token);
    let _share = request.look_up_share_of(&token).await?;
    let Some(key) = actions::open(&request.app, request.context.clone(), token).await? else {
        request.charge_unknown_key()?;
        return Err(no_handover());
    };
    Reply::ok(&key)
}
