//! Parts of addresses: of the API, and of a page of a list.

use crate::visit::Guest;

/// A part of a path of the API, as one segment.
pub fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The token of a list's page in a query: a number that is not below 0.
pub fn after(guest: &Guest) -> i64 {
    guest.query.get("after").parse().unwrap_or(0).max(0)
}
