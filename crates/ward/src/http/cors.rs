//! Cross-origin requests from the operator's origins. Without such origins, CORS is off.

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName,
    HeaderValue, LOCATION, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Method, Request};
use tower::ServiceExt as _;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::KEY_EXPIRES;
use super::region::REGION;
use crate::context::{REQUEST_ID, request_id};
use crate::gate::idempotency;

const PREFLIGHT_KEPT: std::time::Duration = std::time::Duration::from_mins(10);

/// Headers of an answer that a page of these origins may read.
const EXPOSED: [HeaderName; 11] = [
    REQUEST_ID,
    KEY_EXPIRES,
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

/// Allows pages of these origins to call `router`.
pub fn allow(router: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return router;
    }
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("idempotency-key"), REQUEST_ID])
        .expose_headers(EXPOSED)
        .max_age(PREFLIGHT_KEPT);
    let without = router.clone();
    // The layer is around another router: inside `router`, each path would add its methods to the answer
    // again.
    Router::new()
        .fallback_service(router.route_layer(cors))
        .layer(from_fn(move |request: Request<Body>, next| preflights_only(without.clone(), request, next)))
}

/// The layer treats every OPTIONS request as a preflight. Requests that are not preflights (Fetch standard,
/// CORS-preflight request) get the answer to a wrong method.
async fn preflights_only(without: Router, request: Request<Body>, next: Next) -> Response {
    if request.method() != Method::OPTIONS {
        return next.run(request).await;
    }
    let asks =
        [ORIGIN, ACCESS_CONTROL_REQUEST_METHOD].iter().all(|name| request.headers().contains_key(name));
    if !asks {
        return without.oneshot(request).await.into_response();
    }
    let id = HeaderValue::from_str(&request_id(request.headers()));
    let mut response = next.run(request).await;
    if response.status().is_success() {
        // The methods of a preflight are in `access-control-allow-methods`.
        response.headers_mut().remove(ALLOW);
        if let Ok(id) = id {
            response.headers_mut().insert(REQUEST_ID, id);
        }
    }
    response
}
