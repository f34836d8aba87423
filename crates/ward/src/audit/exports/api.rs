//! The JSON routes of exports, and the download of one.

use axum::body::Body;
use http::header::CONTENT_DISPOSITION;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use ward_db::Timestamp;

use super::actions::{self, AuditExportRequest};
use super::{Export, ExportState, named_by, store};
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::Repeat;
use crate::http::{Query, Reply, Request, Sent};
use crate::ids::ExportId;

#[derive(Serialize)]
struct AuditExportListItem {
    key: String,
    size: i64,
    last_modified: Option<Timestamp>,
    download_url: Option<String>,
    export_id: ExportId,
    state: &'static str,
    row_count: i64,
    created_at: Timestamp,
}

impl AuditExportListItem {
    fn of(export: &Export, prefix: &str) -> Self {
        Self {
            key: export.key(),
            size: export.bytes,
            last_modified: export.finished_at,
            download_url: (export.state == ExportState::Done).then(|| export.download_url(prefix)),
            export_id: export.id,
            state: export.state.name(),
            row_count: export.rows,
            created_at: export.created_at,
        }
    }
}

#[derive(Serialize)]
struct AuditExportListResponse {
    exports: Vec<AuditExportListItem>,
}

#[derive(Deserialize)]
struct ListQuery {
    limit: i64,
}

pub async fn create(
    request: Request,
    (entry, sent): (Entry, Sent<AuditExportRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    actions::create(&request.app, entry, sent.value, repeat).await
}

pub async fn list(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let limit = query.read::<ListQuery>()?.limit;
    let exports =
        request.app.db.read("audit.list_exports", move |tx| store::list(tx, workspace, limit, 0)).await?;
    let prefix = request.app.config.path_prefix();
    let exports = exports.iter().map(|export| AuditExportListItem::of(export, prefix)).collect();
    Reply::ok(&AuditExportListResponse { exports })
}

pub async fn download(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let unknown =
        || ApiError::missing("export_not_found", "This workspace has no finished export of this name.");
    let workspace = entry.workspace()?.id;
    let id = named_by(request.parameter("filename")).unwrap_or(ExportId(uuid::Uuid::nil()));
    let found = request.app.db.read("audit.get_export", move |tx| store::get(tx, workspace, id)).await?;
    let export = found.filter(|export| export.state == ExportState::Done).ok_or_else(unknown)?;
    let place = request.app.exports.clone().ok_or_else(unknown)?;
    let content = place.read(&export.key()).await.map_err(|error| {
        ApiError::unavailable(
            "export_unavailable",
            "The export's file cannot be read now: try again later.",
            30,
        )
        .because(error)
    })?;
    let attachment = format!("attachment; filename=\"{}\"", export.filename());
    actions::record_download(&request.app, entry, export).await?;
    let mut reply = Reply::ok(&())?;
    reply.content_type = HeaderValue::from_static("application/x-ndjson");
    if let Ok(attachment) = HeaderValue::from_str(&attachment) {
        reply.headers.push((CONTENT_DISPOSITION, attachment));
    }
    reply.stream = Some(Body::from_stream(content));
    Ok(reply)
}
