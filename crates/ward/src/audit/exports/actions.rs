//! Writes on exports: creating one, and recording a download.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use ward_db::Timestamp;

use super::super::store::Events;
use super::super::{Subject, Write};
use super::{Export, ExportState, MOST_ROWS, store};
use crate::app::App;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::ExportId;
use crate::scan::{self, Window};

#[derive(Clone, Debug, Deserialize)]
pub struct AuditExportRequest {
    date_from: String,
    date_to: String,
    service: Option<String>,
    action: Option<String>,
    phi_only: bool,
}

#[derive(Serialize)]
struct AuditExportResponse {
    export_id: ExportId,
    s3_key: String,
    row_count: i64,
    download_url: String,
    created_at: Timestamp,
    state: &'static str,
}

/// Creates an export. The events are counted before the transaction, because its work must not grow with
/// their number.
pub(super) async fn create(
    app: &Arc<App>,
    entry: Entry,
    wanted: AuditExportRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    if app.exports.is_none() {
        return Err(ApiError::conflict(
            "no_export_place",
            "This Ward cannot store exports: its operator must set export_dir or export_s3_bucket.",
        ));
    }
    let time = |text: &str| text.parse().map_err(|_| ApiError::internal("a time that was not normalized"));
    let now = entry.context.now;
    let (from, to): (Timestamp, Timestamp) = (time(&wanted.date_from)?, time(&wanted.date_to)?);
    if to < from {
        return Err(ApiError::unprocessable("period_ends_before_it_begins", "date_to is before date_from."));
    }
    let workspace = entry.workspace()?.id;
    let mut export = Export {
        workspace,
        id: ExportId::at(now),
        created_at: now,
        created_by: Some(entry.caller.principal),
        from,
        // The export leaves out its own audit event and later ones, so every attempt writes the same
        // events.
        to: to.min(now.saturating_sub(Duration::from_micros(1))),
        service: wanted.service,
        action: wanted.action,
        phi_only: wanted.phi_only,
        state: ExportState::Queued,
        rows: 0,
        bytes: 0,
        finished_at: None,
    };
    let list = Events { workspace, filter: export.filter() };
    let wanted = Window { limit: 0, offset: 0, counted: MOST_ROWS + 1 };
    export.rows = scan::read(app, workspace, "audit.count_export", list, None, wanted).await?.total;
    if export.rows > MOST_ROWS {
        return Err(ApiError::unprocessable(
            "export_too_large",
            "The period has more than 250,000 events: export it in shorter parts.",
        ));
    }
    let prefix = app.config.path_prefix().to_owned();
    let create = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| {
            if !store::enqueue(write, &export)? {
                return Err(ApiError::conflict(
                    "export_running",
                    "An export of this workspace is already running: wait until it ends.",
                ));
            }
            let what = json!({
                "date_from": export.from, "date_to": export.to, "service": export.service,
                "action": export.action, "phi_only": export.phi_only, "row_count": export.rows,
            });
            write.record("audit.export", subject(&export), what)?;
            Ok(AuditExportResponse {
                export_id: export.id,
                s3_key: export.key(),
                row_count: export.rows,
                download_url: export.download_url(&prefix),
                created_at: export.created_at,
                state: export.state.name(),
            })
        })
    };
    let reply = entry.write(app, "audit.export", create).await?;
    app.export_wake.wake();
    Ok(reply)
}

pub(super) async fn record_download(app: &Arc<App>, entry: Entry, export: Export) -> Result<(), ApiError> {
    let record = move |write: &mut Write<'_, '_>, _: &Held| {
        write.record("audit.download", subject(&export), json!({ "row_count": export.rows }))
    };
    entry.write(app, "audit.download_export", record).await
}

const fn subject(export: &Export) -> Subject<'static> {
    Subject { service: "audit", kind: "audit_export", id: Some(export.id.0), name: None }
}
