//! The one error type of the API, which alone knows HTTP statuses. Its cause goes to the log, never to the
//! client.

use std::borrow::Cow;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use ward_contract::validate::{Problem, Problems};
use ward_db::ErrorKind;

use crate::forbidden::{Because, Forbidden, Missing, Rule};

const CALLBACK_REFUSED: &str = "callback_refused";
const USE_DPOP_NONCE: &str = "use_dpop_nonce";

/// The challenge of a 401, in `www-authenticate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Challenge {
    /// A credential is needed: RFC 6750, section 3.
    Bearer,
    /// RFC 9449, section 7.1: the credential is not valid, or not with this proof.
    Dpop,
    /// RFC 9449, section 7.1: the claims of the proof do not fit.
    DpopProof,
    /// The proof lacks a nonce: RFC 9449, section 9.
    DpopNonce,
}

/// The challenge of RFC 9449, section 7.1, with this error.
macro_rules! dpop {
    ($error:literal) => {
        concat!("DPoP algs=\"ES256 ES384 EdDSA Ed25519 PS256 RS256\", error=\"", $error, "\"")
    };
}

/// The reason why a request failed.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    problems: Vec<Problem>,
    retry_after: Option<u64>,
    quota: Option<&'static str>,
    /// The reasons of a 403. No other status has them.
    forbidden: Option<Forbidden>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    challenge: Challenge,
}

/// `{"detail", "error_code", "request_id"}`: the body of every error except a 422 about values. A 403 also has `missing` and
/// `because`.
#[derive(Serialize)]
struct Envelope<'a> {
    detail: &'a str,
    error_code: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Missing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<Because>,
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
            forbidden: None,
            cause: None,
            challenge: Challenge::Bearer,
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

    /// 503: the keys of a token's issuer cannot be fetched.
    pub const fn no_identity(retry_after: u64) -> Self {
        Self::unavailable(
            "identity_unavailable",
            "The identity provider cannot be reached now. Try again.",
            retry_after,
        )
    }

    /// 400: an `Idempotency-Key` that cannot be used.
    pub const fn bad_idempotency_key(detail: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "idempotency_key_invalid", detail)
    }

    /// 401, the same for every kind of invalid credential.
    pub const fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Missing or invalid API key.")
    }

    /// 401: the claims of a DPoP proof do not fit its request.
    pub const fn invalid_dpop_proof() -> Self {
        let mut error =
            Self::new(StatusCode::UNAUTHORIZED, "invalid_dpop_proof", "The DPoP proof is not valid.");
        error.challenge = Challenge::DpopProof;
        error
    }

    /// Whether the claims of a DPoP proof do not fit their request.
    pub const fn is_invalid_proof(&self) -> bool {
        matches!(self.challenge, Challenge::DpopProof)
    }

    /// 401: a DPoP proof needs the nonce in the answer's `dpop-nonce`.
    pub const fn use_dpop_nonce() -> Self {
        let mut error = Self::new(
            StatusCode::UNAUTHORIZED,
            USE_DPOP_NONCE,
            "Make a new DPoP proof with the nonce in the header dpop-nonce of this answer.",
        );
        error.challenge = Challenge::DpopNonce;
        error
    }

    /// 401 for a token that is bound to a key and has no proof of it. The binding is no secret, because every holder of the token can read it.
    pub const fn needs_dpop_proof() -> Self {
        Self::unauthorized().asking_for_proof()
    }

    /// As it is, but a challenge for a bearer becomes one for a credential with a proof.
    #[must_use]
    pub const fn asking_for_proof(mut self) -> Self {
        if matches!(self.challenge, Challenge::Bearer) {
            self.challenge = Challenge::Dpop;
        }
        self
    }

    /// 403: visible to the caller, but not permitted.
    pub const fn forbidden(why: Forbidden) -> Self {
        Self::forbidden_because("forbidden", "Insufficient permissions.", why)
    }

    /// 403: the secret of the caller's key leaked, and the workspace left it only a part of its reads.
    pub const fn key_quarantined() -> Self {
        Self::forbidden_because(
            "key_quarantined",
            "The secret of this key was found in a public place. Until it ends, the key only reads, and no patient data. \
             An owner or an admin can rotate or revoke it with another credential.",
            Forbidden::by_rule(Rule::NoQuarantine, Because::Quarantine),
        )
    }

    /// 403 with its own code and sentence.
    pub const fn forbidden_because(code: &'static str, detail: &'static str, why: Forbidden) -> Self {
        let mut error = Self::new(StatusCode::FORBIDDEN, code, detail);
        error.forbidden = Some(why);
        error
    }

    pub const fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not Found")
    }

    /// 404 for a workspace that does not exist or that the caller may not see.
    pub const fn no_workspace() -> Self {
        Self::new(StatusCode::NOT_FOUND, "workspace_not_found", "Workspace not found.")
    }

    /// 404 with its own code and sentence, for a resource of a visible workspace.
    pub const fn missing(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    pub const fn no_api_key() -> Self {
        Self::new(StatusCode::NOT_FOUND, "api_key_not_found", "API key not found.")
    }

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

    /// 405 for a known path.
    pub const fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed")
    }

    /// 409 with its own code and sentence.
    pub const fn conflict(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 410 with its own code and sentence.
    pub const fn gone(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::GONE, code, detail)
    }

    /// 413 for the request body.
    pub const fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The request body is too large.")
    }

    /// 422 with the problems of the values.
    pub fn invalid(problems: Vec<Problem>) -> Self {
        Self::refused(problems.into())
    }

    /// 422 with all problems that validation found, up to the bounds of an answer.
    pub fn refused(problems: Problems) -> Self {
        Self {
            problems: problems.into_answer(),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_error", "The request is not valid.")
        }
    }

    /// 422 with one reason, for the request as a whole.
    pub const fn unprocessable(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// Replaces the sentence by one that was composed for this answer.
    #[must_use]
    pub fn saying(mut self, detail: String) -> Self {
        self.detail = Cow::Owned(detail);
        self
    }

    /// 429 for a client address.
    pub const fn too_many(retry_after: u64) -> Self {
        let mut error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests from this address.");
        error.retry_after = Some(retry_after);
        error
    }

    /// 429: this workspace or address has used up its share of a pool. Other holders are not affected.
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

    /// A workspace has used up a quota: 429 with a time to wait, or 409.
    pub const fn quota_exceeded(quota: &'static str, detail: &'static str, wait: Option<u64>) -> Self {
        let status = if wait.is_some() { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::CONFLICT };
        let mut error = Self::new(status, "quota_exceeded", detail);
        error.retry_after = wait;
        error.quota = Some(quota);
        error
    }

    /// 503: the write may or may not have been committed.
    pub const fn outcome_unknown() -> Self {
        Self::unavailable(
            "outcome_unknown",
            "The outcome of this write is not known. Read it back, or retry it with its Idempotency-Key.",
            1,
        )
    }

    /// 500, with its cause for the log.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error.").because(cause)
    }

    /// 503: the same request may succeed later.
    pub const fn unavailable(code: &'static str, detail: &'static str, retry_after: u64) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        error.retry_after = Some(retry_after);
        error
    }

    /// 503: the operator has replaced the master key of this server.
    pub const fn master_key_replaced() -> Self {
        Self::unavailable(
            "master_key_replaced",
            "This server's master key was replaced, so it accepts no secrets. Its operator must configure the new key.",
            60,
        )
    }

    /// Attaches the cause, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// 403: a callback that Twilio has not signed for this workspace.
    pub const fn callback_refused() -> Self {
        Self::forbidden_because(
            CALLBACK_REFUSED,
            "This callback is not accepted.",
            Forbidden::by_rule(Rule::Signature, Because::UnsignedCallback),
        )
    }

    /// 429: a refused credential of an address, or for a workspace, that has had too many.
    pub const fn too_many_refused(retry_after: u64) -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "This credential is not valid, and there were too many such credentials from this address or for this workspace. \
             Valid credentials still work.",
        );
        error.retry_after = Some(retry_after);
        error
    }

    /// 429: one address has as many unclaimed workspaces as its share allows.
    pub const fn too_many_unclaimed_of_address() -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_unclaimed",
            "This address has as many unclaimed workspaces as one address may have. Claim them, or try again after \
             they have lapsed.",
        );
        error.retry_after = Some(60);
        error
    }

    /// Whether a credential was refused, which its address and workspace are charged for. A demand for a nonce refuses none:
    /// a valid client gets it too.
    pub fn is_refused_credential(&self) -> bool {
        self.is_unauthorized() && self.code != USE_DPOP_NONCE || self.code == CALLBACK_REFUSED
    }

    pub fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    pub fn is_forbidden(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    /// The reasons of a 403; `None` for every other status.
    pub const fn why(&self) -> Option<Forbidden> {
        self.forbidden
    }

    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// The sentence for the client.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The cause, for the log.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    /// The cause, for the operator; without one, the sentence.
    pub fn into_cause(self) -> Box<dyn std::error::Error + Send + Sync> {
        self.cause.unwrap_or_else(|| self.detail.into_owned().into())
    }

    /// The headers of the answer that belong to this error.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let challenge = match self.challenge {
            Challenge::Bearer => "Bearer",
            Challenge::Dpop => dpop!("invalid_token"),
            Challenge::DpopProof => dpop!("invalid_dpop_proof"),
            Challenge::DpopNonce => dpop!("use_dpop_nonce"),
        };
        let challenge = (self.status == StatusCode::UNAUTHORIZED)
            .then(|| (WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
        challenge.into_iter().chain(self.retry_after.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))))
    }

    /// The JSON body of the answer.
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        let body = if self.problems.is_empty() {
            serde_json::to_vec(&Envelope {
                detail: &self.detail,
                error_code: self.code,
                request_id,
                quota: self.quota,
                missing: self.forbidden.map(|why| why.missing),
                because: self.forbidden.map(|why| why.because),
            })
        } else {
            serde_json::to_vec(&Invalid { detail: &self.problems })
        };
        body.unwrap_or_else(|_| b"{}".to_vec())
    }
}

/// Converts an error of the engine. The client learns nothing of the engine, only whether a retry may help.
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
