//! Fixed answers through the shared part of all routes. The cost of a room is the difference to one of
//! these.
//!
//! This is only for builds with the feature `bench`, which no release has: the routes are outside the
//! contract and need no key.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use http::{Method, StatusCode};

use super::{Open, Reply, Request, Route};
use crate::app::App;

/// The variable that names the folder. Its files `NAME.STATUS` are served at `/fixed/NAME`.
const FOLDER: &str = "WARD_BENCH_FIXED";

/// Adds a route for each file of the folder. They use the operation `get-workspace`, whose path has a
/// parameter and whose requests are rated, so that everything around a handler is at work.
pub fn add_routes(app: &Arc<App>, mut router: Router) -> Router {
    let folder = std::env::var_os(FOLDER);
    let files = folder.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    for file in files {
        let Some((name, status, body)) = read(&file.path()) else { continue };
        let Some(operation) = app.contract.operation("get-workspace").cloned() else { continue };
        let endpoint = Route::new(app.clone(), operation, "bench", move |mut request: Request, _: Open| {
            let body = body.clone();
            async move {
                if request.method() != Method::GET {
                    request.read_ignored_body().await?;
                }
                Ok(Reply::raw_json(status, body))
            }
        });
        let serve = move |request: http::Request<Body>| endpoint.clone().serve(request);
        router = router.route(&format!("/fixed/{name}"), any(serve));
    }
    router
}

fn read(path: &Path) -> Option<(String, StatusCode, Bytes)> {
    let name = path.file_stem()?.to_str()?.to_owned();
    let status = path.extension()?.to_str()?.parse().ok()?;
    Some((name, StatusCode::from_u16(status).ok()?, std::fs::read(path).ok()?.into()))
}
