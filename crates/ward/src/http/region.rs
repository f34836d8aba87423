//! The header that names the region of this Ward.

use http::{HeaderMap, HeaderName, HeaderValue};

pub const REGION: HeaderName = HeaderName::from_static("x-ward-region");

/// The header fields with the region of this Ward, for every answer. A Ward without a region has none.
///
/// The listener adds them, because some answers never reach the router: those to surplus connections and to
/// malformed HTTP.
pub fn fields(region: Option<&str>) -> HeaderMap {
    let value = region.and_then(|region| HeaderValue::from_str(region).ok());
    value.map(|value| (REGION, value)).into_iter().collect()
}
