//! The one error of the API. It alone knows HTTP statuses; what caused it goes to the log, never to the client.

use std::borrow::Cow;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use ward_db::ErrorKind;

use crate::http::validate::{Problem, Problems};

const CALLBACK_REFUSED: &str = "callback_refused";

/// Why a request was not done.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    problems: Vec<Problem>,
    retry_after: Option<u64>,
    quota: Option<&'static str>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `{"detail", "error_code", "request_id"}`: the body of every error but a 422 about values.
#[derive(Serialize)]
struct Envelope<'a> {
    detail: &'a str,
    error_code: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<&'a str>,
}

/// `{"detail": [...]}`: the body of a 422 about values.
#[derive(Serialize)]
struct Invalid<'a> {
    detail: &'a [Problem],
}

impl ApiError {
    const fn new(status: StatusCode, code: &'static str, detail: &'static str) -> Self {
        Self {
            status,
            code,
            detail: Cow::Borrowed(detail),
            problems: Vec::new(),
            retry_after: None,
            quota: None,
            cause: None,
        }
    }

    /// 400: the body is not text.
    pub const fn not_utf8() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "body_not_utf8", "The request body is not valid UTF-8.")
    }

    /// 400: the body did not arrive whole.
    pub fn broken_body(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "body_incomplete", "The request body could not be read.")
            .because(cause)
    }

    /// 503: the issuer of a token cannot be asked for its keys.
    pub const fn no_identity(retry_after: u64) -> Self {
        Self::unavailable(
            "identity_unavailable",
            "The identity provider cannot be reached at this moment. Try again.",
            retry_after,
        )
    }

    /// 400: an `Idempotency-Key` that cannot be used.
    pub const fn bad_idempotency_key(detail: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "idempotency_key_invalid", detail)
    }

    /// 401, the same for every way in which a credential is not one.
    pub const fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Missing or invalid API key.")
    }

    /// 403: seen, but not allowed.
    pub const fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Insufficient permissions.")
    }

    /// 403 with a reason of its own.
    pub const fn forbidden_because(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 404 for a route that is not there.
    pub const fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not Found")
    }

    /// 404 for a workspace that is not there, or not for this caller.
    pub const fn no_workspace() -> Self {
        Self::new(StatusCode::NOT_FOUND, "workspace_not_found", "Workspace not found.")
    }

    /// 404 with a reason, for a thing within what the caller may see.
    pub const fn missing(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 404 for a key that is not there.
    pub const fn no_api_key() -> Self {
        Self::new(StatusCode::NOT_FOUND, "api_key_not_found", "API key not found.")
    }

    /// 404 for an integration that is not there.
    pub const fn no_integration() -> Self {
        Self::new(StatusCode::NOT_FOUND, "integration_not_found", "Integration not found.")
    }

    /// 404 for an endpoint that its integration does not have.
    pub const fn no_endpoint() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "endpoint_not_found",
            "The integration has no endpoint of this name.",
        )
    }

    /// 405.
    pub const fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed")
    }

    /// 409 with a reason.
    pub const fn conflict(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 413.
    pub const fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The request body is too large.")
    }

    /// 422: what is wrong with the values.
    pub fn invalid(problems: Vec<Problem>) -> Self {
        Self::refused(problems.into())
    }

    /// 422: all that validation found, as far as an answer lists it.
    pub fn refused(problems: Problems) -> Self {
        Self {
            problems: problems.into_answer(),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_error", "The request is not valid.")
        }
    }

    /// 422 with one reason, about the request as a whole.
    pub const fn unprocessable(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// The same error with a sentence that is made for this answer.
    #[must_use]
    pub fn saying(mut self, detail: String) -> Self {
        self.detail = Cow::Owned(detail);
        self
    }

    /// 429.
    pub const fn too_many(retry_after: u64) -> Self {
        let mut error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests from this address.");
        error.retry_after = Some(retry_after);
        error
    }

    /// 429: this workspace, or this address, uses as much of a shared pool as it may. Others are not concerned.
    pub fn share_used_up(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "share_used_up",
            "Too much work of this workspace is under way. Wait for it to finish, then try again.",
        );
        error.retry_after = Some(1);
        error.because(cause)
    }

    /// 508: this installation sent the request itself (RFC 5842 section 7.2).
    pub const fn called_itself() -> Self {
        Self::new(
            StatusCode::LOOP_DETECTED,
            "loop_detected",
            "This request comes from this server itself. An integration must not call the server that it belongs to.",
        )
    }

    /// 429 with a time to wait, or 409: a workspace has as much as a quota of it allows.
    pub const fn quota_exceeded(quota: &'static str, detail: &'static str, wait: Option<u64>) -> Self {
        let status = if wait.is_some() { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::CONFLICT };
        let mut error = Self::new(status, "quota_exceeded", detail);
        error.retry_after = wait;
        error.quota = Some(quota);
        error
    }

    /// 503: a write may or may not have been done.
    pub const fn outcome_unknown() -> Self {
        Self::unavailable(
            "outcome_unknown",
            "The outcome of this write is not known. Read it back, or repeat it with its Idempotency-Key.",
            1,
        )
    }

    /// 500.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error.").because(cause)
    }

    /// 503: not now; the same request may go through later.
    pub const fn unavailable(code: &'static str, detail: &'static str, retry_after: u64) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        error.retry_after = Some(retry_after);
        error
    }

    /// 503: the operator has replaced the key that this server would seal under.
    pub const fn master_key_replaced() -> Self {
        Self::unavailable(
            "master_key_replaced",
            "This server's master key is no longer in force, so it takes no secrets. Its operator must give it the new one.",
            60,
        )
    }

    /// The same error with its cause, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// 403: a callback that Twilio has not signed for this workspace.
    pub const fn callback_refused() -> Self {
        Self::forbidden_because(CALLBACK_REFUSED, "This callback is not accepted.")
    }

    /// 429: a refused credential, of an address or for a workspace that has had too many.
    pub const fn too_many_refused(retry_after: u64) -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "This credential is not valid, and too many from this address or for this workspace were not. A valid one \
             still works.",
        );
        error.retry_after = Some(retry_after);
        error
    }

    /// 429: the unclaimed workspaces of one address have reached their share.
    pub const fn too_many_unclaimed_of_address() -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_unclaimed",
            "As many workspaces of this address wait to be claimed as one address may have. Claim them, or try again once \
             they have lapsed.",
        );
        error.retry_after = Some(60);
        error
    }

    /// Whether a credential was refused, which is charged to its address and workspace.
    pub fn is_refused_credential(&self) -> bool {
        self.is_unauthorized() || self.code == CALLBACK_REFUSED
    }

    /// Whether the caller is not known.
    pub fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// Whether the caller is known and may not.
    pub fn is_forbidden(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    /// The `error_code`.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// Its sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What lies behind it, for the log.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    /// What lies behind it, for whoever may know: the operator. Without a cause, its own sentence.
    pub fn into_cause(self) -> Box<dyn std::error::Error + Send + Sync> {
        self.cause.unwrap_or_else(|| self.detail.into_owned().into())
    }

    /// The headers that this error calls for.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let challenge = (self.status == StatusCode::UNAUTHORIZED)
            .then(|| (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        challenge.into_iter().chain(self.retry_after.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))))
    }

    /// The JSON body.
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        let body = if self.problems.is_empty() {
            serde_json::to_vec(&Envelope {
                detail: &self.detail,
                error_code: self.code,
                request_id,
                quota: self.quota,
            })
        } else {
            serde_json::to_vec(&Invalid { detail: &self.problems })
        };
        body.unwrap_or_else(|_| b"{}".to_vec())
    }
}

/// What an engine says becomes what a client may know: nothing of the engine, only whether to come again.
impl From<ward_db::Error> for ApiError {
    fn from(error: ward_db::Error) -> Self {
        let answer = match error.kind() {
            ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::Timeout => {
                Self::unavailable("unavailable", "Temporarily unavailable. Try again.", 1)
            }
            ErrorKind::Unknown => Self::outcome_unknown(),
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error."),
        };
        answer.because(error)
    }
}
