//! The shared part of all routes: how a request comes in and an answer goes out.

mod body;
pub mod cors;
pub mod docs;
#[cfg(feature = "bench")]
pub mod fixed;
pub mod health;
pub mod region;
#[cfg(feature = "watch")]
pub mod watch;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;
use ward_contract::{Access, Operation};
use ward_db::{Deadline, Timestamp};
use ward_guard::{Authorized, Handler};

use crate::app::App;
use crate::context::{Context, REQUEST_ID};
use crate::error::ApiError;
use crate::gate::limits::ClientRates;
use crate::ids::WorkspaceId;

pub use body::{MEMORY, Sent, SentBody};

/// The expiry of the caller's key, in the key's last 14 days.
pub const KEY_EXPIRES: HeaderName = HeaderName::from_static("x-api-key-expires");

/// A nonce for the client's next DPoP proofs (RFC 9449, section 8.2).
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How long before its expiry a key's answers carry a warning.
const WARN_BEFORE: Duration = Duration::from_hours(336);

/// Whether answers to a key with this expiry carry a warning.
pub fn expires_soon(expires: Timestamp, now: Timestamp) -> bool {
    expires < now.saturating_add(WARN_BEFORE)
}

/// One request on its way to its handler.
pub struct Request {
    pub app: Arc<App>,
    pub operation: Arc<Operation>,
    /// The room of the handler, a label of the metrics.
    pub room: &'static str,
    /// The context that all steps of this request share.
    pub context: Arc<Context>,
    parameters: Vec<(String, String)>,
    pub(crate) parts: Parts,
    /// Never locked: a body may move between threads but not be shared, and the mutex makes the call
    /// shareable.
    body: Mutex<Body>,
}

impl Request {
    async fn new<A, H>(endpoint: &Route<A, H>, context: Arc<Context>, request: http::Request<Body>) -> Self {
        let (mut parts, body) = request.into_parts();
        // A segment that does not decode to text is treated like an unknown name.
        let parameters = match RawPathParams::from_request_parts(&mut parts, &()).await {
            Ok(found) => found.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            Err(_) => Vec::new(),
        };
        let Route { app, operation, room, .. } = endpoint;
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

    /// The slug in the path, for an operation that names its workspace by one.
    pub fn slug(&self) -> Option<String> {
        self.operation.path.contains("{slug}").then(|| self.parameter("slug").to_owned())
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

    /// Reads the bytes of an unauthenticated caller's body, which no schema describes.
    pub async fn read_ignored_body(&mut self) -> Result<Bytes, ApiError> {
        self.read_ignored_body_up_to(usize::MAX).await
    }

    /// As [`Self::read_ignored_body`], with a bound on the bytes.
    pub async fn read_ignored_body_up_to(&mut self, most: usize) -> Result<Bytes, ApiError> {
        self.read_bytes_of(self.context.holder(), most).await
    }
}

/// The argument of a handler whose operation is open to all callers. The router accepts it only for operations whose
/// contract says so.
pub struct Open(());

impl Authorized<Request> for Open {
    const OPEN: bool = true;
    type Error = ApiError;

    async fn authorize(_: &mut Request) -> Result<Self, ApiError> {
        Ok(Self(()))
    }
}

/// The query parameters as the validator returns them, with defaults.
pub struct Query(pub(crate) Value);

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

/// An answer with a status below 400. Refusals are [`ApiError`]s.
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
    pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
        Ok(Self::raw_json(status, body.into()))
    }

    /// A JSON answer whose body is already serialized.
    pub const fn raw_json(status: StatusCode, body: Bytes) -> Self {
        Self { status, content_type: JSON, headers: Vec::new(), body, stream: None }
    }

    pub fn ok(value: &impl Serialize) -> Result<Self, ApiError> {
        Self::json(StatusCode::OK, value)
    }

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
struct RouteMetrics {
    seconds: metrics::Histogram,
    answers: [metrics::Counter; 6],
}

impl RouteMetrics {
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

/// A served route: a handler with its operation and metrics. `A` is the authorization that the handler receives.
///
/// ```
/// # use ward::{error::ApiError, gate::Entry, http::{Reply, Request, Route}};
/// async fn leave(_: Request, _: Entry) -> Result<Reply, ApiError> {
///     Ok(Reply::no_content())
/// }
/// # let (app, operation) = return;
/// Route::new(app, operation, "members", leave);
/// ```
///
/// A handler without an authorization does not compile:
///
/// ```compile_fail
/// # use ward::{error::ApiError, gate::Entry, http::{Reply, Request, Route}};
/// async fn leave(_: Request) -> Result<Reply, ApiError> {
///     Ok(Reply::no_content())
/// }
/// # let (app, operation) = return;
/// Route::new(app, operation, "members", leave);
/// ```
pub struct Route<A, H> {
    app: Arc<App>,
    operation: Arc<Operation>,
    room: &'static str,
    handler: Handler<Request, A, H>,
    figures: RouteMetrics,
}

impl<A, H, F> Route<A, H>
where
    A: Authorized<Request, Error = ApiError> + Send,
    H: Fn(Request, A) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Reply, ApiError>> + Send,
{
    /// The route of an operation, with the handler of a room.
    pub fn new(app: Arc<App>, operation: Arc<Operation>, room: &'static str, handler: H) -> Arc<Self> {
        let figures = RouteMetrics::of(&operation.id);
        Arc::new(Self { app, operation, room, handler: Handler::new(handler), figures })
    }

    /// Serves one request, from its rate to its log line. It never fails or panics.
    pub async fn serve(self: Arc<Self>, request: http::Request<Body>) -> Response {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let context = Arc::new(Context::of_request(
            &parts,
            &self.app.config.trusted_proxies,
            (self.app.config.quotas, self.app.issuers.names()),
            self.app.clock.now(),
        ));
        if self.app.wire.is_own(&parts.headers) {
            let refusal = Err(ApiError::called_itself());
            return answer(refusal, &context, &self.figures, &self.operation.id, started);
        }
        let request = Request::new(&self, context.clone(), http::Request::from_parts(parts, body)).await;
        let (workspace, is_claim) = (request.workspace(), request.is_claim());
        let time = self.app.config.limits.request_time;
        let deadline = Deadline::of(time);
        deadline.charge_to(context.holder().number());
        let handled = self.handler.call(request);
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
        // The work is over, so the wait holds no connection of the database and no processor.
        if let Some(wait) = context.wait.get() {
            tokio::time::sleep(*wait).await;
        }
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

/// A route without an operation, which always gives the same refusal.
pub fn refusing(
    app: Arc<App>,
    error: fn() -> ApiError,
    allow: Option<HeaderValue>,
) -> impl Fn(http::Request<Body>) -> std::future::Ready<Response> + Clone {
    let answer = without_operation(app, move |_| Err(error()));
    move |request| {
        let mut response = answer(request);
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
) -> impl Fn(http::Request<Body>) -> std::future::Ready<Response> + Clone {
    let answer = without_operation(app, move |app| {
        // Relative to the root if a proxy strips a prefix, and below the prefix if there is one.
        let prefix = app.config.path_prefix();
        let to = if prefix.is_empty() { to.to_owned() } else { format!("{prefix}/{to}") };
        let location = HeaderValue::from_str(&to).unwrap_or(HeaderValue::from_static("/"));
        Ok(Reply {
            status: StatusCode::SEE_OTHER,
            content_type: HeaderValue::from_static("text/plain; charset=utf-8"),
            headers: vec![(http::header::LOCATION, location)],
            body: Bytes::from(format!("See {to}.\n")),
            stream: None,
        })
    });
    move |request| std::future::ready(answer(request))
}

/// Answers requests of a route that has no operation, by its path alone.
fn without_operation(
    app: Arc<App>,
    outcome: impl Fn(&App) -> Result<Reply, ApiError> + Clone,
) -> impl Fn(http::Request<Body>) -> Response + Clone {
    let figures = Arc::new(RouteMetrics::of("none"));
    move |request| {
        let started = Instant::now();
        let (parts, _) = request.into_parts();
        let context = Context::of_request(
            &parts,
            &app.config.trusted_proxies,
            (app.config.quotas, app.issuers.names()),
            app.clock.now(),
        );
        answer(outcome(&app), &context, &figures, "none", started)
    }
}

/// Converts an outcome into the response, with the headers of every response.
fn answer(
    outcome: Result<Reply, ApiError>,
    context: &Context,
    figures: &RouteMetrics,
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
            let error = if context.announces_proof { error.asking_for_proof() } else { error };
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
    if let Some(expires) = context.key_expires.get().filter(|expires| expires_soon(**expires, context.now))
        && let Ok(value) = HeaderValue::from_str(&expires.to_string())
    {
        headers.insert(KEY_EXPIRES, value);
    }
    if let Some(nonce) = context.dpop_nonce.get()
        && (status.is_success() || status == StatusCode::UNAUTHORIZED)
    {
        headers.insert(DPOP_NONCE, nonce.clone());
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
