//! Deliveries of calls that finished before the workspace had an integration for them.
//!
//! Such a call owes nothing, and no later report changes that. A person asks for the deliveries of a period. A request
//! looks at a bounded number of calls outside the transaction. The transaction then decides about few of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use ward_db::{Timestamp, Tx};

use super::actions::{self, subject};
use super::{Decision, store};
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::{CallId, WorkspaceId};
use crate::workspaces::Workspace;

/// The maximum number of calls that one request looks at.
const LOOKED_AT: usize = 10_000;
/// The maximum number of deliveries that one request queues.
const QUEUED: usize = 100;

/// The JSON of the contract's schema `BackfillRequest`.
#[derive(Clone, Debug, Deserialize)]
pub struct BackfillRequest {
    date_from: String,
    date_to: String,
    after_call_id: Option<uuid::Uuid>,
}

/// A part of a period: its times, both included, and the call after which it begins.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The time at which the first call starts, or later.
    pub from: Timestamp,
    /// The time at which the last call starts, or earlier.
    pub to: Timestamp,
    /// The last call of the previous part.
    pub after: Option<CallId>,
}

/// The calls of a part that may be owed to the EHR now.
#[derive(Clone, Debug)]
pub struct Candidates {
    calls: Vec<CallId>,
    looked_at: usize,
    next: Option<CallId>,
}

/// The JSON of the contract's schema `BackfillResponse`.
#[derive(Clone, Debug, Serialize)]
pub struct BackfillResponse {
    /// The number of deliveries that were queued.
    pub queued: usize,
    /// The number of calls that were looked at.
    pub looked_at: usize,
    /// The call after which the next request continues. `None` at the end of the period.
    pub next_after_call_id: Option<CallId>,
}

impl Part {
    /// The part that a request names.
    pub fn of(wanted: &BackfillRequest) -> Result<Self, ApiError> {
        let time =
            |text: &str| text.parse().map_err(|_| ApiError::internal("a time that was not normalized"));
        let (from, to) = (time(&wanted.date_from)?, time(&wanted.date_to)?);
        if to < from {
            return Err(ApiError::unprocessable(
                "period_ends_before_it_begins",
                "date_to is before date_from.",
            ));
        }
        Ok(Self { from, to, after: wanted.after_call_id.map(CallId) })
    }
}

/// Queues the deliveries of finished calls that owed nothing only because no integration was there for them.
pub(super) async fn backfill(
    app: &Arc<App>,
    entry: Entry,
    part: Part,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let found = app.read_long(workspace, "calls.backfill", move |tx| candidates(tx, workspace, part)).await?;
    let owe = move |write: &mut Write<'_, '_>, held: &Held| {
        repeat.once(write, Secrecy::Open, |write| owe(write, &held.seen.workspace, &found))
    };
    let reply = entry.write(app, "calls.backfill", owe).await?;
    app.sync.wake();
    Ok(reply)
}

/// The next calls of a period that owe nothing because there was no integration for them.
pub fn candidates(tx: &mut Tx<'_>, workspace: WorkspaceId, part: Part) -> Result<Candidates, ApiError> {
    let after = match part.after {
        None => None,
        Some(id) => {
            let call = store::by_id(tx, workspace, id)?;
            Some(call.ok_or(ApiError::missing("call_not_found", "Call not found."))?)
        }
    };
    let (from, after) =
        after.map_or((part.from, CallId(uuid::Uuid::nil())), |call| (call.started_at, call.id));
    let page = store::decisions(tx, workspace, (from.max(part.from), part.to), after, LOOKED_AT)?;
    let mut found = Candidates { calls: Vec::new(), looked_at: 0, next: None };
    let is_whole = page.len() < LOOKED_AT;
    for (id, decision) in page {
        if found.calls.len() == QUEUED {
            return Ok(found);
        }
        found.looked_at += 1;
        found.next = Some(id);
        if matches!(decision, Some(Decision::NoConnector | Decision::NotProvisioned)) {
            found.calls.push(id);
        }
    }
    if is_whole {
        found.next = None;
    }
    Ok(found)
}

/// Decides about the candidates again, and queues a delivery for each call that is owed now.
pub fn owe(
    write: &mut Write<'_, '_>,
    workspace: &Workspace,
    found: &Candidates,
) -> Result<BackfillResponse, ApiError> {
    let mut queued = 0;
    for id in &found.calls {
        queued += usize::from(actions::owe_late(write, workspace, *id)?);
    }
    if queued > 0 {
        write.record(
            "call.backfill",
            subject(None),
            json!({ "queued": queued, "looked_at": found.looked_at }),
        )?;
    }
    Ok(BackfillResponse { queued, looked_at: found.looked_at, next_after_call_id: found.next })
}
