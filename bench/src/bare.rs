//! The simplest possible peer: an axum router as in the documentation of axum.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::routing::{MethodFilter, get, on};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::Failure;

/// Serves the files of `fixed` until the process ends. Each request body is read completely, as in every other
/// server.
pub async fn run(listen: SocketAddr, fixed: PathBuf) -> Result<(), Failure> {
    let mut router = Router::new();
    for file in std::fs::read_dir(fixed)? {
        let path = file?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).ok_or("an answer's file has no name")?;
        let status =
            path.extension().and_then(|status| status.to_str()).ok_or("an answer's file has no status")?;
        let status: StatusCode = status.parse()?;
        let body = Bytes::from(std::fs::read(&path)?);
        let written = body.clone();
        let answer = move |body: Bytes| (status, [(CONTENT_TYPE, "application/json")], body);
        let writes = MethodFilter::POST.or(MethodFilter::PATCH);
        let methods = get(move || async move { answer(body.clone()) })
            .merge(on(writes, move |_sent: Bytes| async move { answer(written.clone()) }));
        router = router.route(&format!("/fixed/{name}"), methods);
    }
    let listener = tokio::net::TcpListener::bind(listen).await?;
    Ok(axum::serve(listener, router).await?)
}
