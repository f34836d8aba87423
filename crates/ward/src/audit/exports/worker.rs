//! The worker that writes exports: it leases one, writes its events in steps, and settles it.
//!
//! A workspace has at most one export in the queue, and a replica writes those of several workspaces side by side. Their
//! steps take turns ([`App::read_long`]), so a short export ends after a few steps beside any number of long ones. The lease
//! of a worker that died expires, and the next worker writes the file from its beginning. A file becomes visible only when it
//! is whole.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use uuid::Uuid;
use ward_db::Tx;

use super::super::store::Events;
use super::objects::{ExportStore, Upload};
use super::{Export, ExportState, KEPT, store};
use crate::app::App;
use crate::error::ApiError;
use crate::ids::{ExportId, WorkspaceId};
use crate::quotas::{self, Change};
use crate::shares::{Holder, Limits, Share, Shares};

/// How often a replica looks for exports that other replicas left.
const POLL: Duration = Duration::from_secs(10);
/// Duration of a lease. Each step renews it.
const LEASE: Duration = Duration::from_mins(2);
/// Exports that a replica writes at once. Each holds two parts of its file in memory.
const AT_ONCE: u32 = 6;
/// Exports that one query for due ones returns.
const LOOKED_AT: i64 = 16;
/// Events that one step reads and adds to the file.
const STEP: i64 = 2_000;
/// Attempts before an export has failed.
const ATTEMPTS: i64 = 5;
/// The pause after a failed attempt, multiplied by the number of attempts so far.
const PAUSE: Duration = Duration::from_secs(30);
/// The age at which an unfinished file has no writer: a live worker adds to its file at every step.
const STALE: Duration = Duration::from_hours(24);
/// Old exports that are removed after each written one.
const REMOVED_AT_ONCE: i64 = 8;

/// The exports that this replica writes now, at most one for each workspace.
pub fn shares() -> Shares {
    Shares::new("exports", Limits { total: AT_ONCE, each: 1, first: 1, beyond: AT_ONCE, waiting_each: 0 })
}

/// Writes exports until the process stops.
pub async fn keep_going(app: Arc<App>) {
    let Some(place) = app.exports.clone() else { return };
    // Ward goes on: a leftover takes space in the folder, but is never served.
    if let Err(error) = place.sweep(STALE).await {
        tracing::warn!(%error, "unfinished files of exports cannot be removed");
    }
    let mut writing = JoinSet::new();
    while app.sync.stopped_at().is_none() {
        begin_due(&app, &place, &mut writing).await;
        tokio::select! {
            () = app.export_wake.wait(POLL) => {}
            Some(ended) = writing.join_next() => {
                // A failure may repeat at once, because an export that could not be leased is still due.
                if !ended.unwrap_or(false) {
                    app.export_wake.wait(POLL).await;
                }
            }
        }
    }
}

/// Writes the exports that are due now or become due meanwhile. It begins no more after a failure, and returns when none is
/// under way.
pub async fn turn(app: &Arc<App>) {
    let Some(place) = app.exports.clone() else { return };
    let mut writing = JoinSet::new();
    begin_due(app, &place, &mut writing).await;
    let mut failed = false;
    while let Some(ended) = writing.join_next().await {
        failed |= !ended.unwrap_or(false);
        if !failed {
            begin_due(app, &place, &mut writing).await;
        }
    }
}

/// Starts as many of the due exports as have a free slot.
async fn begin_due(app: &Arc<App>, place: &ExportStore, writing: &mut JoinSet<bool>) {
    let now = app.clock.now();
    let due = match app.db.read("audit.due_exports", move |tx| store::due(tx, now, LOOKED_AT)).await {
        Ok(due) => due,
        Err(error) => {
            let error: ward_db::Error = error;
            return tracing::warn!(%error, "cannot look for due exports; will retry");
        }
    };
    for due in due {
        if app.sync.stopped_at().is_some() {
            return;
        }
        // Without a free slot the export stays due until another one ends.
        let Ok(share) = app.export_shares.try_take(Holder::Workspace(due.workspace), 1) else { continue };
        writing.spawn(one_of_several(app.clone(), place.clone(), due, share));
    }
}

/// Writes one export. Returns whether it succeeded.
async fn one_of_several(app: Arc<App>, place: ExportStore, due: store::DueExport, share: Share) -> bool {
    let written = one(&app, &place, due).await;
    drop(share);
    if let Err(error) = &written {
        tracing::error!(
            code = error.code(),
            cause = error.cause().map(ToString::to_string),
            export = %due.export,
            "cannot write an export; will retry when it is due again, unless this was the last attempt"
        );
    }
    written.is_ok()
}

/// The reason why an export was not written.
enum WriteFailure {
    /// Another worker now has the lease.
    Lost,
    Failed(ApiError),
}

impl From<ApiError> for WriteFailure {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl From<ward_db::Error> for WriteFailure {
    fn from(error: ward_db::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<object_store::Error> for WriteFailure {
    fn from(error: object_store::Error) -> Self {
        Self::Failed(
            ApiError::unavailable("export_unavailable", "The export's file cannot be written.", 30)
                .because(error),
        )
    }
}

async fn one(app: &Arc<App>, place: &ExportStore, due: store::DueExport) -> Result<(), ApiError> {
    let (workspace, id, attempt) = (due.workspace, due.export, due.attempts + 1);
    let lease = crate::random::id();
    let now = app.clock.now();
    let taken = app
        .db
        .write("audit.lease_export", move |tx| {
            if !store::lease(tx, due, lease, now.saturating_add(LEASE))? {
                return Ok(None);
            }
            store::get(tx, workspace, id)
        })
        .await
        .map_err(|error: ward_db::Error| ApiError::from(error))?;
    let Some(export) = taken else { return Ok(()) };
    match written(app, place, &export, lease).await {
        Ok((rows, bytes)) => settle(app, workspace, id, lease, ExportState::Done, (rows, bytes)).await?,
        Err(WriteFailure::Lost) => return Ok(()),
        Err(WriteFailure::Failed(error)) if attempt < ATTEMPTS => {
            let again = app.clock.now().saturating_add(PAUSE * u32::try_from(attempt).unwrap_or(u32::MAX));
            app.db
                .write("audit.put_off_export", move |tx| store::put_off(tx, workspace, lease, again))
                .await?;
            return Err(error);
        }
        Err(WriteFailure::Failed(error)) => {
            settle(app, workspace, id, lease, ExportState::Failed, (export.rows, 0)).await?;
            return Err(error);
        }
    }
    remove_old(app, place, workspace).await
}

/// Writes the file. Returns the number of events and of bytes in it.
async fn written(
    app: &Arc<App>,
    place: &ExportStore,
    export: &Export,
    lease: Uuid,
) -> Result<(i64, i64), WriteFailure> {
    let mut upload = place.begin(&export.key()).await?;
    match pages(app, &mut upload, export, lease).await {
        Ok(size) => {
            upload.finish().await?;
            Ok(size)
        }
        Err(ended) => {
            upload.abort().await;
            Err(ended)
        }
    }
}

async fn pages(
    app: &Arc<App>,
    upload: &mut Upload,
    export: &Export,
    lease: Uuid,
) -> Result<(i64, i64), WriteFailure> {
    let workspace = export.workspace;
    let (mut rows, mut bytes) = (0, 0);
    let mut after = None;
    loop {
        let list = Events { workspace, filter: export.filter() };
        let (last, lines, count) = app
            .read_long(workspace, "audit.export_step", move |tx| {
                let (last, events) = list.oldest(tx, after, STEP)?;
                let mut lines = Vec::new();
                for event in &events {
                    serde_json::to_writer(&mut lines, event).map_err(ApiError::internal)?;
                    lines.push(b'\n');
                }
                Ok::<_, ApiError>((last, lines, events.len()))
            })
            .await?;
        upload.add(&lines).await?;
        rows += i64::try_from(count).unwrap_or(i64::MAX);
        bytes += i64::try_from(lines.len()).unwrap_or(i64::MAX);
        let until = app.clock.now().saturating_add(LEASE);
        let kept =
            app.db.write("audit.keep_export", move |tx| store::put_off(tx, workspace, lease, until)).await?;
        if !kept {
            return Err(WriteFailure::Lost);
        }
        if last.is_none() {
            return Ok((rows, bytes));
        }
        after = last;
    }
}

async fn settle(
    app: &Arc<App>,
    workspace: WorkspaceId,
    id: ExportId,
    lease: Uuid,
    state: ExportState,
    size: (i64, i64),
) -> Result<(), ApiError> {
    let now = app.clock.now();
    app.db
        .write("audit.settle_export", move |tx| {
            if store::leave(tx, workspace, lease)? {
                store::settle(tx, (workspace, id), state, size, now)?;
                quotas::give_back(tx, workspace, Change { bytes: size.1, ..Change::default() })?;
            }
            Ok::<_, ApiError>(())
        })
        .await
}

/// Removes a workspace's exports beyond those that are kept: first their files, then their rows.
async fn remove_old(app: &Arc<App>, place: &ExportStore, workspace: WorkspaceId) -> Result<(), ApiError> {
    let old =
        app.db.read("audit.old_exports", move |tx| store::list(tx, workspace, REMOVED_AT_ONCE, KEPT)).await?;
    for export in old {
        place.remove(&export.key()).await.map_err(ApiError::internal)?;
        let id = export.id;
        let forget = move |tx: &mut Tx<'_>| {
            let bytes = -store::forget(tx, workspace, id)?.unwrap_or_default();
            quotas::give_back(tx, workspace, Change { bytes, ..Change::default() })
        };
        app.db.write("audit.forget_export", forget).await?;
    }
    Ok(())
}
