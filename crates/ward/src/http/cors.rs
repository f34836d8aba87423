//! Cross-origin requests from the operator's origins. Without such origins, CORS is off.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW,
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, ORIGIN, RETRY_AFTER,
    VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Request};
use tower::ServiceExt as _;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::region::REGION;
use super::{DPOP_NONCE, KEY_EXPIRES};
use crate::context::{REQUEST_ID, request_id};
use crate::gate::idempotency;

const PREFLIGHT_KEPT: std::time::Duration = std::time::Duration::from_mins(10);

/// Headers of an answer that a page of these origins may read.
const EXPOSED: [HeaderName; 12] = [
    REQUEST_ID,
    KEY_EXPIRES,
    DPOP_NONCE,
    RETRY_AFTER,
    idempotency::REPLAYED,
    REGION,
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
    CONTENT_LENGTH,
    LOCATION,
    WWW_AUTHENTICATE,
];

/// The header fields of answers that do not reach the router: those to surplus connections and to malformed HTTP. The
/// origin of such a request may be unknown, so a page of any origin may read them. They contain a fixed sentence.
pub fn early_fields(origins: &[String]) -> HeaderMap {
    if origins.is_empty() {
        return HeaderMap::new();
    }
    let exposed = EXPOSED.map(|name| name.to_string()).join(",");
    let exposed = HeaderValue::from_str(&exposed).ok();
    std::iter::once((ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")))
        .chain(exposed.map(|exposed| (ACCESS_CONTROL_EXPOSE_HEADERS, exposed)))
        .collect()
}

/// Allows pages of these origins to call `router`.
pub fn allow(router: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return router;
    }
    let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.clone()))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            HeaderName::from_static("dpop"),
            HeaderName::from_static("idempotency-key"),
            REQUEST_ID,
        ])
        .expose_headers(EXPOSED)
        .max_age(PREFLIGHT_KEPT);
    let options = Arc::new(Options {
        origins,
        // The layer is around routes only, so a preflight of an unknown path stays 404.
        preflights: router.clone().route_layer(cors.clone()),
        without: router.clone(),
    });
    // The layer is around another router: inside `router`, each path would add its methods to the answer
    // again. It is also around the answer to unknown paths, which a page may read like any other.
    Router::new()
        .fallback_service(router.layer(cors))
        .layer(from_fn(move |request: Request<Body>, next| preflights_only(options.clone(), request, next)))
}

/// Answers OPTIONS requests: preflights, and others like a wrong method.
struct Options {
    origins: Vec<HeaderValue>,
    preflights: Router,
    without: Router,
}

impl Options {
    /// Lets the page of an allowed origin read this answer.
    fn show(&self, origin: Option<HeaderValue>, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Some(origin) = origin.filter(|origin| self.origins.contains(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        headers.append(VARY, HeaderValue::from_static("origin"));
        response
    }
}

/// The layer treats every OPTIONS request as a preflight. Requests that are not preflights (Fetch standard,
/// CORS-preflight request) get the answer to a wrong method.
async fn preflights_only(options: Arc<Options>, request: Request<Body>, next: Next) -> Response {
    if request.method() != Method::OPTIONS {
        return next.run(request).await;
    }
    let origin = request.headers().get(ORIGIN).cloned();
    if origin.is_none() || !request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return options.show(origin, options.without.clone().oneshot(request).await.into_response());
    }
    let id = HeaderValue::from_str(&request_id(request.headers()));
    let mut response = options.preflights.clone().oneshot(request).await.into_response();
    if !response.status().is_success() {
        return options.show(origin, response);
    }
    // The methods of a preflight are in `access-control-allow-methods`.
    response.headers_mut().remove(ALLOW);
    if let Ok(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
