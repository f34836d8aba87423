//! The state that all pages share.

use axum::Router;

use crate::host::Host;

/// The product behind the pages, and the place of the pages in it.
pub struct Console {
    pub host: Host,
    /// The product's routes, which answer the console's requests.
    pub api: Router,
    /// The path of the console in links, without a slash at the end.
    pub base: String,
}
