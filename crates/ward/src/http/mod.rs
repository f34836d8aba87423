//! The shared part of all routes: how a request comes in and an answer goes out.

mod body;
pub mod caller;
pub mod cors;
pub mod docs;
#[cfg(feature = "bench")]
pub mod fixed;
pub mod health;
pub mod idempotency;
pub mod limits;
pub mod region;
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
use ward_contract::{Access, Operation, validate};
use ward_db::{Deadline, Timestamp};
use ward_server::Peer;

use crate::app::App;
use crate::error::ApiError;
use crate::http::caller::Entry;
use crate::http::limits::{ClientRates, RateState};
use crate::ids::WorkspaceId;
use crate::shares::{Full, Holder, Share};

pub use body::{Sent, SentBody};

/// Identifies a request in its answer, its log lines and its audit events.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The expiry of the caller's key, in the key's last 14 days.
pub const KEY_EXPIRES: HeaderName = HeaderName::from_static("x-api-key-expires");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Bytes of a `user-agent` header that are kept.
const USER_AGENT_KEPT: usize = 256;

/// The context that all steps of one request share.
#[derive(Debug)]
pub struct Context {
    /// The request's id: the client's own, if it sent a usable one.
    pub request_id: String,
    /// The client's address, as determined by [`limits::client_address`].
    pub address: IpAddr,
    /// The `user-agent` header, cut to a bounded length.
    pub user_agent: Option<String>,
    /// The arrival of the request.
    pub now: Timestamp,
    /// The expiry of the caller's key, once there is a caller.
    key_expires: OnceLock<Timestamp>,
    /// The state of the rate that the request was charged to, if it was.
    rate: OnceLock<RateState>,
}

impl Context {
    /// The context of an operation on the command line.
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

    /// The context of an action of Ward's own when a time has come, such as a lapse.
    pub fn of_time(now: Timestamp) -> Self {
        Self { user_agent: None, ..Self::of_operator(now) }
    }

    /// The holder whose share of a pool pays for a request without a workspace: its address.
    pub fn holder(&self) -> Holder {
        Holder::Address(limits::bucket(self.address))
    }

    fn of_request(app: &App, parts: &Parts) -> Self {
        let peer = parts.extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
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

/// A client's id is accepted if it is the only one and cannot harm a log line or a header.
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

/// One request on its way to its handler.
pub struct Call {
    /// The process-wide state.
    pub app: Arc<App>,
    /// The operation in the contract.
    pub operation: Arc<Operation>,
    /// The room of the handler, a label of the metrics.
    pub room: &'static str,
    /// The context that all steps of this request share.
    pub context: Arc<Context>,
    parameters: Vec<(String, String)>,
    parts: Parts,
    /// Never locked: a body may move between threads but not be shared, and the mutex makes the call
    /// shareable.
    body: Mutex<Body>,
}

impl Call {
    async fn new<H>(endpoint: &Endpoint<H>, context: Arc<Context>, request: Request<Body>) -> Self {
        let (mut parts, body) = request.into_parts();
        // A segment that does not decode to text is treated like an unknown name.
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

    /// The path parameter of this name. It is empty if the path lacks it, or if it exceeds its declared
    /// length.
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

    /// The workspace in the path, if its template has one.
    pub fn workspace(&self) -> Option<WorkspaceId> {
        self.operation
            .path
            .contains("{workspace_id}")
            .then(|| WorkspaceId::of_path(self.parameter("workspace_id")))
    }

    /// The path in one canonical spelling: ids in lower case with hyphens, and nothing percent-encoded. It
    /// is never logged.
    pub fn canonical_path(&self) -> String {
        self.parameters.iter().fold(self.operation.path.clone(), |path, (name, value)| {
            // Case matters in call sids and key ids. Every other parameter that parses as an id is one.
            let id = Uuid::try_parse(value).ok().filter(|_| !["call_sid", "key_id"].contains(&name.as_str()));
            path.replace(&format!("{{{name}}}"), &id.map_or_else(|| value.clone(), |id| id.to_string()))
        })
    }

    /// The path and query string as they were sent, for signatures over them. They are never logged.
    pub fn path_and_query(&self) -> &str {
        self.parts.uri.path_and_query().map_or("/", |given| given.as_str())
    }

    /// The HTTP method of the request.
    #[cfg(feature = "bench")]
    pub fn method(&self) -> &http::Method {
        &self.parts.method
    }

    /// The first value of a header, if it was sent.
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.parts.headers.get(name)
    }

    /// The value of a header that was sent exactly once.
    pub fn only_header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let mut given = self.parts.headers.get_all(name).iter();
        given.next().filter(|_| given.next().is_none())
    }

    /// Whether the request has a credential of any form.
    pub fn has_credential(&self) -> bool {
        self.parts.headers.contains_key(AUTHORIZATION)
    }

    /// Whether this is a claim: a request without a credential to an operation that gives this a meaning.
    pub fn is_claim(&self) -> bool {
        matches!(self.operation.access, Access::Key { or_anonymous: true, .. }) && !self.has_credential()
    }

    /// Takes a share of look-ups, if this address or workspace has used up its failures. The rest of a
    /// request needs none.
    pub async fn look_up_share(&self) -> Result<Option<Share>, ApiError> {
        let Some(rates) = &self.app.rates else { return Ok(None) };
        rates.look_up_share(self.context.address, self.workspace()).await.map_err(queue_is_full)
    }

    /// Takes a share of look-ups for a claim, if its address has had too many failed claims; otherwise
    /// `None`.
    pub async fn failing_claim_share(&self) -> Result<Option<Share>, ApiError> {
        let rates = self.app.rates.as_ref();
        let Some(rates) = rates.filter(|rates| rates.claims_are_used_up(self.context.address)) else {
            return Ok(None);
        };
        rates.claim_share(self.context.address).await.map(Some).map_err(queue_is_full)
    }

    /// Charges the creation of an unclaimed workspace to its address (429).
    pub fn charge_bootstrap(&self) -> Result<(), ApiError> {
        let Some(rates) = &self.app.rates else { return Ok(()) };
        let state = rates.charge_bootstrap(self.context.address);
        let _ = self.context.rate.set(state.unwrap_or_else(|exhausted| exhausted));
        state.map(drop).map_err(|exhausted| ApiError::too_many(exhausted.reset_seconds))
    }

    /// Authorizes the caller: credential (401), visibility (404), permission (403).
    pub async fn enter(&self) -> Result<Entry, ApiError> {
        Entry::admit(self).await?.decided(&self.app)
    }

    /// Authorizes the caller and then validates the query parameters.
    pub async fn enter_with_query(&self) -> Result<(Entry, Query), ApiError> {
        let entry = self.enter().await?;
        let query = validate::query(&self.operation, self.parts.uri.query()).map_err(ApiError::refused)?;
        Ok((entry, Query(Value::Object(query))))
    }

    /// Authorizes the caller and reads the body. The order is: credential, size and syntax, visibility and
    /// permission, values.
    pub async fn enter_with_body<T: DeserializeOwned + Send + 'static>(
        &mut self,
    ) -> Result<(Entry, Sent<T>), ApiError> {
        let admitted = Entry::admit(self).await?;
        let body = self.read_body_of(admitted.holder()).await?;
        let entry = admitted.decided(&self.app)?;
        Ok((entry, body.valid(self).await?))
    }

    /// As [`Self::enter_with_body`], for bodies that take long to validate even if they are short, because
    /// they may contain keys.
    pub async fn enter_with_heavy_body<T: DeserializeOwned + Send + 'static>(
        &mut self,
    ) -> Result<(Entry, Sent<T>), ApiError> {
        let admitted = Entry::admit(self).await?;
        let body = self.read_body_of(admitted.holder()).await?.heavy();
        let entry = admitted.decided(&self.app)?;
        Ok((entry, body.valid(self).await?))
    }

    /// Authorizes the caller and reads an undeclared body, whose bytes distinguish retries.
    pub async fn enter_with_ignored_body(&mut self) -> Result<(Entry, Bytes), ApiError> {
        let admitted = Entry::admit(self).await?;
        let bytes = self.read_ignored_body().await?;
        Ok((admitted.decided(&self.app)?, bytes))
    }

    /// Reads the bytes of a body that no schema describes.
    pub async fn read_ignored_body(&mut self) -> Result<Bytes, ApiError> {
        self.read_ignored_body_up_to(usize::MAX).await
    }

    /// As [`Self::read_ignored_body`], with a bound on the bytes.
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

/// The validated query parameters.
pub struct Query(Value);

impl Query {
    /// Reads the parameters that `T` declares.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        typed(&self.0)
    }
}

/// Deserializes validated JSON. The contract has accepted it, so a mismatch is a fault of Ward.
fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
    T::deserialize(value).map_err(ApiError::internal)
}

/// A successful answer.
pub struct Reply {
    /// The HTTP status, always a success.
    pub status: StatusCode,
    /// The media type of the body.
    pub content_type: HeaderValue,
    /// Headers in addition to those of every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, unless `stream` replaces it.
    pub body: Bytes,
    /// A body that is too long for memory.
    pub stream: Option<Body>,
}

impl Reply {
    /// A JSON answer with this status.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
        Ok(Self::raw_json(status, body.into()))
    }

    /// A JSON answer whose body is already serialized.
    pub const fn raw_json(status: StatusCode, body: Bytes) -> Self {
        Self { status, content_type: JSON, headers: Vec::new(), body, stream: None }
    }

    /// A JSON answer with status 200.
    pub fn ok(value: &impl Serialize) -> Result<Self, ApiError> {
        Self::json(StatusCode::OK, value)
    }

    /// An answer with status 204.
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

/// Metrics of one route. They are looked up once, so that a request needs no registry look-up.
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

/// A served route: a handler with its operation and metrics.
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
    /// The route of an operation, with the handler of a room.
    pub fn new(app: Arc<App>, operation: Arc<Operation>, room: &'static str, handler: H) -> Arc<Self> {
        let figures = Figures::of(&operation.id);
        Arc::new(Self { app, operation, room, handler, figures })
    }

    /// Serves one request, from its rate to its log line. It never fails or panics.
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
        deadline.charge_to(context.holder().number());
        let handled = (self.handler)(call);
        #[cfg(feature = "watch")]
        let handled = self.app.watch.over(&self.operation.id, handled);
        let work = deadline.clone().over(AssertUnwindSafe(handled).catch_unwind());
        let outcome = match tokio::time::timeout(time, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_panic)) => Err(ApiError::internal("the handler panicked")),
            // A write that was begun goes on without the request.
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

/// Charges a request by its outcome: a claim always, and any other request only if its credential was
/// refused. A failure beyond the rate gets 429; a success is never refused.
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

/// 429: more credentials of one failing client wait for a look-up than a client can send at once.
fn queue_is_full(full: Full) -> ApiError {
    ApiError::too_many(1).because(full)
}

/// A route without an operation, which always gives the same refusal.
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

/// A route that redirects people to another page.
pub fn redirecting(
    app: Arc<App>,
    to: &'static str,
) -> impl Fn(Request<Body>) -> std::future::Ready<Response> + Clone {
    let figures = Arc::new(Figures::of("none"));
    move |request| {
        let started = Instant::now();
        let (parts, _) = request.into_parts();
        let context = Context::of_request(&app, &parts);
        // Relative to the root if a proxy strips a prefix, and below the prefix if there is one.
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

/// Converts an outcome into the response, with the headers of every response.
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

/// Logs a refusal with its cause: 5xx as errors, and all others, which are caused by the client, for
/// debugging.
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
