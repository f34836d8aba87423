//! The header that names the region of this Ward.

use axum::Router;
use axum::middleware::map_response;
use axum::response::Response;
use http::{HeaderName, HeaderValue};

/// The region whose workspaces this Ward has.
pub const REGION: HeaderName = HeaderName::from_static("x-ward-region");

/// Adds the region to every answer of `router`, if there is one.
pub fn name_in_answers(router: Router, region: Option<&str>) -> Router {
    let Some(region) = region.and_then(|region| HeaderValue::from_str(region).ok()) else { return router };
    router.layer(map_response(move |mut response: Response| {
        response.headers_mut().insert(REGION, region.clone());
        std::future::ready(response)
    }))
}
