//! What every route shares: the way a request goes in and an answer comes out.

mod body;
pub mod caller;
pub mod contract;
pub mod cors;
pub mod docs;
#[cfg(feature = "bench")]
pub mod fixed;
pub mod health;
pub mod idempotency;
pub mod limits;
pub mod region;
pub mod server;
pub mod validate;
#[cfg(feature = "watch")]
pub mod watch;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;
use ward_db::{Deadline, Timestamp};

use crate::app::App;
use crate::error::ApiError;
use crate::http::caller::Entry;
use crate::http::contract::{Access, Operation};
use crate::http::limits::{ClientRates, RateState};
use crate::ids::WorkspaceId;
use crate::shares::{Full, Holder, Share};

pub use body::{Sent, SentBody};

/// Names a request in its answer, its log lines and its audit events.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Says how long the caller's key still lives, in its last 14 days.
pub const KEY_EXPIRES: HeaderName = HeaderName::from_static("x-api-key-expires");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How many bytes of a user agent are kept.
const USER_AGENT_KEPT: usize = 256;

/// What all steps of one request share.
#[derive(Debug)]
pub struct Context {
    /// The request's id: the client's own where it sent a usable one.
    pub request_id: String,
    /// The client's address, as far as the trusted proxies tell.
    pub address: IpAddr,
    /// What the client calls itself, cut to a sane length.
    pub user_agent: Option<String>,
    /// When the request came in.
    pub now: Timestamp,
    /// When the caller's key expires, once there is a caller.
    key_expires: OnceLock<Timestamp>,
    /// The rate that the request was charged to, once it was.
    rate: OnceLock<RateState>,
}

impl Context {
    /// The context of something the operator does on the command line.
    pub fn of_operator(now: Timestamp) -> Self {
        Self {
            request_id: Uuid::now_v7().to_string(),
            address: IpAddr::from([127, 0, 0, 1]),
            user_agent: Some(concat!("ward/", env!("CARGO_PKG_VERSION")).to_owned()),
            now,
            key_expires: OnceLock::new(),
            rate: OnceLock::new(),
        }
    }

    /// The context of something that time does: a lapse.
    pub fn of_time(now: Timestamp) -> Self {
        Self { user_agent: None, ..Self::of_operator(now) }
    }

    /// The party whose share of a pool a request takes that concerns no workspace: its address.
    pub fn holder(&self) -> Holder {
        Holder::Address(limits::bucket(self.address))
    }

    fn of_request(app: &App, parts: &Parts) -> Self {
        let peer =
            parts.extensions.get::<server::Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
        Self {
            request_id: request_id(&parts.headers),
            address: limits::client_address(peer, &parts.headers, &app.config.trusted_proxies),
            user_agent: user_agent(&parts.headers),
            now: app.clock.now(),
            key_expires: OnceLock::new(),
            rate: OnceLock::new(),
        }
    }
}

/// A client's id is taken over when it is the only one and cannot harm a log line or a header.
fn request_id(headers: &HeaderMap) -> String {
    let mut given = headers.get_all(REQUEST_ID).iter();
    let only = given.next().filter(|_| given.next().is_none());
    only.and_then(|value| value.to_str().ok())
        .filter(|id| (1..=128).contains(&id.len()))
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)))
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = String::from_utf8_lossy(headers.get(USER_AGENT)?.as_bytes()).replace('\0', "");
    let mut end = text.len().min(USER_AGENT_KEPT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Some(text[..end].to_owned())
}

/// One request on its way to its room.
pub struct Call {
    /// The running Ward.
    pub app: Arc<App>,
    /// What the contract says of the operation called.
    pub operation: Arc<Operation>,
    /// The room that serves it.
    pub room: &'static str,
    /// What all steps of this request share.
    pub context: Arc<Context>,
    parameters: Vec<(String, String)>,
    parts: Parts,
    /// Never locked: a body may be sent between threads but not shared, and the mutex makes the call shareable.
    body: Mutex<Body>,
}

impl Call {
    async fn new<H>(endpoint: &Endpoint<H>, context: Arc<Context>, request: Request<Body>) -> Self {
        let (mut parts, body) = request.into_parts();
        // A segment that does not decode to text names nothing, like any other unknown name.
        let parameters = match RawPathParams::from_request_parts(&mut parts, &()).await {
            Ok(found) => found.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            Err(_) => Vec::new(),
        };
        let Endpoint { app, operation, room, .. } = endpoint;
        Self {
            app: app.clone(),
            operation: operation.clone(),
            room,
            context,
            parameters,
            parts,
            body: Mutex::new(body),
        }
    }

    /// The path parameter of this name; empty when the path has none that is text of at most its declared length.
    pub fn parameter(&self, name: &str) -> &str {
        let declared = self.operation.path_lengths.iter().find(|(known, _)| known == name);
        let most = declared.map_or(usize::MAX, |(_, most)| *most);
        let value = self.parameter_as_sent(name);
        if value.chars().nth(most).is_some() { "" } else { value }
    }

    /// The path parameter of this name, of any length.
    pub fn parameter_as_sent(&self, name: &str) -> &str {
        self.parameters.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The workspace that the path names, if its template does.
    pub fn workspace(&self) -> Option<WorkspaceId> {
        self.operation
            .path
            .contains("{workspace_id}")
            .then(|| WorkspaceId::of_path(self.parameter("workspace_id")))
    }

    /// The path in one spelling, whatever the client's: ids have lower case and hyphens, and nothing is escaped. It is
    /// never logged.
    pub fn canonical_path(&self) -> String {
        self.parameters.iter().fold(self.operation.path.clone(), |path, (name, value)| {
            // Names of calls and keys are told apart by their case; every other parameter that reads as an id is one.
            let id = Uuid::try_parse(value).ok().filter(|_| !["call_sid", "key_id"].contains(&name.as_str()));
            path.replace(&format!("{{{name}}}"), &id.map_or_else(|| value.clone(), |id| id.to_string()))
        })
    }

    /// The path and query string as they came, for what was signed over them. Never for a log.
    pub fn path_and_query(&self) -> &str {
        self.parts.uri.path_and_query().map_or("/", |given| given.as_str())
    }

    /// The method.
    #[cfg(feature = "bench")]
    pub fn method(&self) -> &http::Method {
        &self.parts.method
    }

    /// A header's value, if it was sent.
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.parts.headers.get(name)
    }

    /// A header's value, if it was sent once.
    pub fn only_header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let mut given = self.parts.headers.get_all(name).iter();
        given.next().filter(|_| given.next().is_none())
    }

    /// Whether a credential of any form was sent.
    pub fn has_credential(&self) -> bool {
        self.parts.headers.contains_key(AUTHORIZATION)
    }

    /// Whether this is a claim: no credential, where that has a meaning of its own.
    pub fn is_claim(&self) -> bool {
        matches!(self.operation.access, Access::Key { or_anonymous: true, .. }) && !self.has_credential()
    }

    /// A share for looking a credential up, where failures of this address or workspace are used up. The rest of a
    /// request holds none.
    pub async fn look_up_share(&self) -> Result<Option<Share>, ApiError> {
        let Some(rates) = &self.app.rates else { return Ok(None) };
        rates.look_up_share(self.context.address, self.workspace()).await.map_err(queue_is_full)
    }

    /// The share of a claim whose address has had too many failed ones. `None`: it has not.
    pub async fn failing_claim_share(&self) -> Result<Option<Share>, ApiError> {
        let rates = self.app.rates.as_ref();
        let Some(rates) = rates.filter(|rates| rates.claims_are_used_up(self.context.address)) else {
            return Ok(None);
        };
        rates.claim_share(self.context.address).await.map(Some).map_err(queue_is_full)
    }

    /// Charges a bootstrap call to its address (429).
    pub fn charge_bootstrap(&self) -> Result<(), ApiError> {
        let Some(rates) = &self.app.rates else { return Ok(()) };
        let state = rates.charge_bootstrap(self.context.address);
        let _ = self.context.rate.set(state.unwrap_or_else(|exhausted| exhausted));
        state.map(drop).map_err(|exhausted| ApiError::too_many(exhausted.reset_seconds))
    }

    /// Lets the caller in: credential (401), seeing (404), permission (403).
    pub async fn enter(&self) -> Result<Entry, ApiError> {
        Entry::admit(self).await?.decided(&self.app)
    }

    /// Lets the caller in and reads the query parameters, which are judged last.
    pub async fn enter_with_query(&self) -> Result<(Entry, Query), ApiError> {
        let entry = self.enter().await?;
        let query = validate::query(&self.operation, self.parts.uri.query()).map_err(ApiError::refused)?;
        Ok((entry, Query(Value::Object(query))))
    }

    /// Lets the caller in and reads the body: credential, then size and syntax, then seeing and permission, then values.
    pub async fn enter_with_body<T: DeserializeOwned + Send + 'static>(
        &mut self,
    ) -> Result<(Entry, Sent<T>), ApiError> {
        let admitted = Entry::admit(self).await?;
        let body = self.read_body_of(admitted.holder()).await?;
        let entry = admitted.decided(&self.app)?;
        Ok((entry, body.valid(self).await?))
    }

    /// As [`Self::enter_with_body`], for bodies whose judgement takes long however short they are: they can hold keys.
    pub async fn enter_with_heavy_body<T: DeserializeOwned + Send + 'static>(
        &mut self,
    ) -> Result<(Entry, Sent<T>), ApiError> {
        let admitted = Entry::admit(self).await?;
        let body = self.read_body_of(admitted.holder()).await?.heavy();
        let entry = admitted.decided(&self.app)?;
        Ok((entry, body.valid(self).await?))
    }

    /// Lets the caller in and reads the body of an operation that declares none, whose bytes tell repeats apart.
    pub async fn enter_with_ignored_body(&mut self) -> Result<(Entry, Bytes), ApiError> {
        let admitted = Entry::admit(self).await?;
        let bytes = self.read_ignored_body().await?;
        Ok((admitted.decided(&self.app)?, bytes))
    }

    /// Reads the bytes of a body that no schema describes.
    pub async fn read_ignored_body(&mut self) -> Result<Bytes, ApiError> {
        self.read_ignored_body_up_to(usize::MAX).await
    }

    /// The same, for a body that may have no more bytes than this.
    pub async fn read_ignored_body_up_to(&mut self, most: usize) -> Result<Bytes, ApiError> {
        let limit = self.app.config.limits.body_bytes.min(most);
        let announced =
            self.parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: usize| length > limit) {
            return Err(ApiError::too_large());
        }
        match Limited::new(std::mem::take(self.body.get_mut()), limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large()),
            Err(error) => Err(ApiError::broken_body(error)),
        }
    }
}

/// Valid query parameters.
pub struct Query(Value);

impl Query {
    /// The parameters that `T` is about.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        typed(&self.0)
    }
}

/// Validated JSON as a type. The contract has accepted it, so a mismatch is a fault of ours.
fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
    T::deserialize(value).map_err(ApiError::internal)
}

/// An answer that went well.
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// What the body is.
    pub content_type: HeaderValue,
    /// Headers besides those that every answer has.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// A body that is too long to be held, in the place of that one.
    pub stream: Option<Body>,
}

impl Reply {
    /// JSON with this status.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
        Ok(Self::raw_json(status, body.into()))
    }

    /// JSON that is text already.
    pub const fn raw_json(status: StatusCode, body: Bytes) -> Self {
        Self { status, content_type: JSON, headers: Vec::new(), body, stream: None }
    }

    /// 200 with JSON.
    pub fn ok(value: &impl Serialize) -> Result<Self, ApiError> {
        Self::json(StatusCode::OK, value)
    }

    /// 204.
    pub const fn no_content() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            content_type: JSON,
            headers: Vec::new(),
            body: Bytes::new(),
            stream: None,
        }
    }
}

/// Figures of one route, looked up once so that a request costs no registry look-up.
struct Figures {
    seconds: metrics::Histogram,
    answers: [metrics::Counter; 6],
}

impl Figures {
    fn of(operation: &str) -> Self {
        let name = operation.to_owned();
        Self {
            seconds: metrics::histogram!("ward_http_request_seconds", "operation" => name.clone()),
            answers: std::array::from_fn(
                |class| metrics::counter!("ward_http_requests_total", "operation" => name.clone(), "status" => format!("{class}xx")),
            ),
        }
    }

    fn record(&self, status: StatusCode, started: Instant) {
        self.seconds.record(started.elapsed());
        self.answers[usize::from(status.as_u16() / 100).min(5)].increment(1);
    }
}

/// One route as it is served: its operation and figures around a handler.
pub struct Endpoint<H> {
    app: Arc<App>,
    operation: Arc<Operation>,
    room: &'static str,
    handler: H,
    figures: Figures,
}

impl<H, F> Endpoint<H>
where
    H: Fn(Call) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Reply, ApiError>> + Send,
{
    /// The route of an operation, served by a room.
    pub fn new(app: Arc<App>, operation: Arc<Operation>, room: &'static str, handler: H) -> Arc<Self> {
        let figures = Figures::of(&operation.id);
        Arc::new(Self { app, operation, room, handler, figures })
    }

    /// Serves one request, from rate to log line. Never fails and never panics.
    pub async fn serve(self: Arc<Self>, request: Request<Body>) -> Response {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let context = Arc::new(Context::of_request(&self.app, &parts));
        if self.app.wire.is_own(&parts.headers) {
            let refusal = Err(ApiError::called_itself());
            return answer(refusal, &context, &self.figures, &self.operation.id, started);
        }
        let call = Call::new(&self, context.clone(), Request::from_parts(parts, body)).await;
        let (workspace, is_claim) = (call.workspace(), call.is_claim());
        let time = self.app.config.limits.request_time;
        let deadline = Deadline::of(time);
        let handled = (self.handler)(call);
        #[cfg(feature = "watch")]
        let handled = self.app.watch.over(&self.operation.id, handled);
        let work = deadline.clone().over(AssertUnwindSafe(handled).catch_unwind());
        let outcome = match tokio::time::timeout(time, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_panic)) => Err(ApiError::internal("the handler panicked")),
            // What was begun goes on without the request.
            Err(_elapsed) if deadline.may_have_written() => {
                Err(ApiError::outcome_unknown().because("the request's time ran out during a write"))
            }
            Err(_elapsed) => Err(ApiError::unavailable("timeout", "The request took too long.", 1)),
        };
        let outcome = match &self.app.rates {
            Some(rates) => charged(rates, &context, workspace, is_claim, outcome),
            None => outcome,
        };
        answer(outcome, &context, &self.figures, &self.operation.id, started)
    }
}

/// Charges what came of a request: a claim in any case, every other request only where its credential was refused. A
/// failure beyond the rate is 429; a success is never refused.
fn charged(
    rates: &ClientRates,
    context: &Context,
    workspace: Option<WorkspaceId>,
    is_claim: bool,
    outcome: Result<Reply, ApiError>,
) -> Result<Reply, ApiError> {
    let refused = matches!(&outcome, Err(error) if error.is_refused_credential());
    let state = if is_claim {
        rates.charge_claim(context.address)
    } else if refused {
        rates.charge_refused(context.address, workspace)
    } else {
        return outcome;
    };
    let _ = context.rate.set(state.unwrap_or_else(|exhausted| exhausted));
    match (outcome, state) {
        (Err(_), Err(exhausted)) if is_claim => Err(ApiError::too_many(exhausted.reset_seconds)),
        (Err(_), Err(exhausted)) => Err(ApiError::too_many_refused(exhausted.reset_seconds)),
        (outcome, _) => outcome,
    }
}

/// 429: more credentials of one failing client wait to be looked up than a client can send at once.
fn queue_is_full(full: Full) -> ApiError {
    ApiError::too_many(1).because(full)
}

/// A route without an operation: always the same refusal.
pub fn refusing(
    app: Arc<App>,
    error: fn() -> ApiError,
    allow: Option<HeaderValue>,
) -> impl Fn(Request<Body>) -> std::future::Ready<Response> + Clone {
    let figures = Arc::new(Figures::of("none"));
    move |request| {
        let started = Instant::now();
        let (parts, _) = request.into_parts();
        let context = Context::of_request(&app, &parts);
        let mut response = answer(Err(error()), &context, &figures, "none", started);
        if let Some(allow) = &allow {
            response.headers_mut().insert(http::header::ALLOW, allow.clone());
        }
        std::future::ready(response)
    }
}

/// A way that leads to another page, `to`, for people.
pub fn redirecting(
    app: Arc<App>,
    to: &'static str,
) -> impl Fn(Request<Body>) -> std::future::Ready<Response> + Clone {
    let figures = Arc::new(Figures::of("none"));
    move |request| {
        let started = Instant::now();
        let (parts, _) = request.into_parts();
        let context = Context::of_request(&app, &parts);
        // Relative to the root where a proxy takes a prefix away, and under the prefix where there is one.
        let prefix = app.config.path_prefix();
        let to = if prefix.is_empty() { to.to_owned() } else { format!("{prefix}/{to}") };
        let location = HeaderValue::from_str(&to).unwrap_or(HeaderValue::from_static("/"));
        let reply = Reply {
            status: StatusCode::SEE_OTHER,
            content_type: HeaderValue::from_static("text/plain; charset=utf-8"),
            headers: vec![(http::header::LOCATION, location)],
            body: Bytes::from(format!("See {to}.\n")),
            stream: None,
        };
        std::future::ready(answer(Ok(reply), &context, &figures, "none", started))
    }
}

/// Turns an outcome into the response, with all that every response carries.
fn answer(
    outcome: Result<Reply, ApiError>,
    context: &Context,
    figures: &Figures,
    operation: &str,
    started: Instant,
) -> Response {
    let mut response = match outcome {
        Ok(reply) => {
            let body = reply.stream.unwrap_or_else(|| Body::from(reply.body));
            let mut response = Response::new(body);
            *response.status_mut() = reply.status;
            if reply.status != StatusCode::NO_CONTENT {
                response.headers_mut().insert(CONTENT_TYPE, reply.content_type);
            }
            response.headers_mut().extend(reply.headers);
            response
        }
        Err(error) => {
            log_refusal(&error, context, operation);
            let mut response = Response::new(Body::from(error.body(&context.request_id)));
            *response.status_mut() = error.status();
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            response.headers_mut().extend(error.headers());
            response
        }
    };
    let status = response.status();
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&context.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(http::header::CACHE_CONTROL).or_insert(NO_STORE);
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    if let Some(expires) =
        context.key_expires.get().filter(|expires| caller::expires_soon(**expires, context.now))
        && let Ok(value) = HeaderValue::from_str(&expires.to_string())
    {
        headers.insert(KEY_EXPIRES, value);
    }
    if let Some(rate) = context.rate.get() {
        rate.write_to(headers, context.now);
    }
    figures.record(status, started);
    tracing::debug!(
        request_id = context.request_id,
        operation,
        status = status.as_u16(),
        micros = started.elapsed().as_micros(),
        "answered"
    );
    response
}

/// A refusal's cause is ours to know: 5xx are errors, the rest is the client's doing.
fn log_refusal(error: &ApiError, context: &Context, operation: &str) {
    let cause = error.cause().map(|cause| {
        let mut text = cause.to_string();
        let mut next = cause.source();
        while let Some(source) = next {
            text.push_str(": ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        text
    });
    if error.status().is_server_error() {
        tracing::error!(request_id = context.request_id, operation, code = error.code(), cause, "failed");
    } else {
        tracing::debug!(request_id = context.request_id, operation, code = error.code(), cause, "refused");
    }
}
