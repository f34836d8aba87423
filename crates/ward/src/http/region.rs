//! The header that says which region's Ward answers.

use axum::Router;
use axum::middleware::map_response;
use axum::response::Response;
use http::{HeaderName, HeaderValue};

/// Names the region whose workspaces this Ward holds.
pub const REGION: HeaderName = HeaderName::from_static("x-ward-region");

/// Names the region in every answer of `router`, if there is one.
pub fn name_in_answers(router: Router, region: Option<&str>) -> Router {
    let Some(region) = region.and_then(|region| HeaderValue::from_str(region).ok()) else { return router };
    router.layer(map_response(move |mut response: Response| {
        response.headers_mut().insert(REGION, region.clone());
        std::future::ready(response)
    }))
}
