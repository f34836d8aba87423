//! The console at `/console`: pages for people, rendered on the server.
//!
//! The console is a client of the API like any other. Every page sends its requests through the product's own
//! router, in the same process, with the visitor's credential. So the API's gate, rates and audit apply to them, and the
//! console can do nothing that the API cannot do. It knows no database; only `host.rs` knows the product.
//!
//! The pages work without a script. The one script shows times in the reader's zone and copies texts.

#![allow(clippy::trivially_copy_pass_by_ref, reason = "templates pass their values by reference")]

mod api;
mod assets;
mod chart;
mod console;
mod field;
mod form;
mod frame;
mod host;
mod pages;
mod session;
mod time;
mod visit;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use ward::app::App;

use crate::console::Console;
use crate::host::Host;

/// The path of the console below the product's prefix.
const PATH: &str = "/console";

/// The product's routes with the console beside them.
pub fn beside(app: &Arc<App>, api: Router) -> Router {
    let host = Host::new(app.clone());
    let prefix = host.path_prefix().to_owned();
    let console = Arc::new(Console { base: format!("{prefix}{PATH}"), host, api: api.clone() });
    let pages = pages::routes()
        .route("/assets/{file}", get(assets::serve))
        .fallback(pages::not_found)
        .layer(axum::middleware::from_fn_with_state(console.clone(), visit::finish))
        .with_state(console);
    // A proxy may strip the prefix or keep it, and the API answers below both as well.
    let router = with_pages(api, PATH, &pages);
    if prefix.is_empty() { router } else { with_pages(router, &format!("{prefix}{PATH}"), &pages) }
}

fn with_pages(router: Router, path: &str, pages: &Router) -> Router {
    // A nested router has no route for its root with a slash at the end.
    let relative = path.rsplit('/').next().unwrap_or_default().to_owned();
    let root = move || std::future::ready(axum::response::Redirect::to(&format!("../{relative}")));
    router.nest(path, pages.clone()).route(&format!("{path}/"), get(root))
}
