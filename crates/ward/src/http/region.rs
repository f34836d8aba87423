//! The header that names the region of this Ward.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The region whose workspaces this Ward has.
pub const REGION: HeaderName = HeaderName::from_static("x-ward-region");

/// The header fields by which every answer of a Ward names its region; none where it has no region.
///
/// The listener adds them rather than the router, because some answers never come near the router: those to connections
/// beyond the bounds, and those to bytes that are not HTTP.
pub fn fields(region: Option<&str>) -> HeaderMap {
    let value = region.and_then(|region| HeaderValue::from_str(region).ok());
    value.map(|value| (REGION, value)).into_iter().collect()
}
