//! One visitor's requests to the API, in the same process.

use axum::body::Body;
use axum::response::Response;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::console::Console;
use crate::form::Problems;
use crate::host::Host;

/// The longest answer that a page reads. Every answer of the API is bounded far below.
const LONGEST: usize = 16 << 20;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The way to the API for one request of a visitor.
#[derive(Clone)]
pub struct Api {
    router: axum::Router,
    headers: HeaderMap,
    extensions: http::Extensions,
    bearer: Option<String>,
}

/// The refusal of a request by the API.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub problems: Problems,
}

impl Api {
    /// Requests with this bearer. The API sees the visitor's address and browser, and the id of the page's request.
    pub fn new(console: &Console, parts: &Parts, request_id: &str, bearer: Option<String>) -> Self {
        let mut headers = HeaderMap::new();
        for name in [FORWARDED_FOR, USER_AGENT] {
            for value in parts.headers.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(REQUEST_ID, id);
        }
        let mut extensions = http::Extensions::new();
        Host::pass_peer(parts, &mut extensions);
        Self { router: console.api.clone(), headers, extensions, bearer }
    }

    /// The same visitor with another credential.
    pub fn bearing(&self, bearer: Option<String>) -> Self {
        Self { bearer, ..self.clone() }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        repeat: Option<&str>,
    ) -> Result<Response, Refusal> {
        let mut request = Request::new(body.map_or_else(Body::empty, |body| Body::from(body.to_string())));
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().map_err(|_| Refusal::of_console("The address of this page is not valid."))?;
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        if body.is_some() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(bearer) = &self.bearer {
            let value = HeaderValue::from_str(&format!("Bearer {bearer}"))
                .map_err(|_| Refusal::of_console("A key has only letters, digits and underscores."))?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        if let Some(repeat) = repeat.and_then(|repeat| HeaderValue::from_str(repeat).ok()) {
            request.headers_mut().insert(IDEMPOTENCY_KEY, repeat);
        }
        match self.router.clone().oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }

    /// Sends a request and returns the body of a success.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        repeat: Option<&str>,
    ) -> Result<T, Refusal> {
        let response = self.ask(method, path, body, repeat).await?;
        let status = response.status();
        let bytes = match Limited::new(response.into_body(), LONGEST).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(_) => return Err(Refusal::of_console("The answer could not be read to its end.")),
        };
        if !status.is_success() {
            return Err(Refusal { status, problems: Problems::of_answer(status, &bytes) });
        }
        let bytes = if bytes.is_empty() { &b"null"[..] } else { &bytes[..] };
        serde_json::from_slice(bytes).map_err(|error| {
            tracing::error!(%error, "the console does not understand an answer of the API");
            Refusal::of_console("The console does not understand the answer of the API.")
        })
    }

    /// The answer to a GET, whatever its status, such as a file to download.
    pub async fn raw(&self, path: &str) -> Result<Response, Refusal> {
        self.ask(Method::GET, path, None, None).await
    }
}

impl Refusal {
    fn of_console(said: &str) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, problems: Problems::general(said) }
    }
}
