//! Routes about Ward itself: its document, its documentation page, its liveness and readiness.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::{Open, Reply, Request, docs};
use crate::error::ApiError;

/// Answers `get-openapi-document` with bytes that were serialized at the start.
pub async fn document(request: Request, _: Open) -> Result<Reply, ApiError> {
    Ok(Reply::raw_json(StatusCode::OK, request.app.contract.document().clone()))
}

/// The page with its policy. Both are computed once, because the policy hashes the page.
static PAGE: LazyLock<(&str, HeaderValue)> = LazyLock::new(|| {
    let (html, policy) = docs::page();
    (html, HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'")))
});

/// Answers `get-docs` with the page and the policy that allows only its own script.
pub async fn docs(_: Request, _: Open) -> Result<Reply, ApiError> {
    let (html, policy) = &*PAGE;
    Ok(Reply {
        status: StatusCode::OK,
        content_type: HeaderValue::from_static("text/html; charset=utf-8"),
        headers: vec![
            (CONTENT_SECURITY_POLICY, policy.clone()),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ],
        body: Bytes::from_static(html.as_bytes()),
        stream: None,
    })
}

/// `get-health`: answers as long as the process does.
pub async fn alive(_: Request, _: Open) -> Result<Reply, ApiError> {
    Reply::ok(&json!({ "status": "ok" }))
}

/// `get-readiness`: answers 503 unless the database reads and its writer runs.
pub async fn ready(request: Request, _: Open) -> Result<Reply, ApiError> {
    request.app.db.check().await.map_err(|error| {
        ApiError::unavailable("not_ready", "The database cannot be used now.", 1).because(error)
    })?;
    let mut ready = json!({ "status": "ready" });
    if let Some(region) = &request.app.config.platform.region {
        ready["region"] = json!(region);
    }
    Reply::ok(&ready)
}
