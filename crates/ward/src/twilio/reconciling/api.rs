//! The JSON routes of the comparison with Twilio's list.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use ward_db::Timestamp;

use super::super::Account;
use super::{Comparison, Mode, Reconciliation, actions};
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::Repeat;
use crate::http::{Reply, Request};

/// The JSON of the contract's schema `TwilioReconciliation`.
#[derive(Debug, Serialize)]
pub struct TwilioReconciliation {
    /// The mode; `None` without an account.
    pub mode: Option<Mode>,
    pub next_run_at: Option<Timestamp>,
    /// Whether a comparison is under way.
    pub under_way: bool,
    /// The time before which every call has been compared.
    pub reconciled_until: Option<Timestamp>,
    pub failing_since: Option<Timestamp>,
    /// The reason why the last attempt failed, as one word.
    pub failure: Option<String>,
    pub last: Option<TwilioReconciliationRun>,
}

/// The JSON of the contract's schema `TwilioReconciliationRun`.
#[derive(Debug, Serialize)]
pub struct TwilioReconciliationRun {
    pub from: Timestamp,
    pub to: Timestamp,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub pages: u32,
    pub listed: u64,
    pub missing: u64,
    pub unfinished: u64,
    pub entered: u64,
    pub ended: u64,
    pub unreadable: u64,
    pub call_sids: Vec<String>,
}

impl From<&Comparison> for TwilioReconciliationRun {
    fn from(done: &Comparison) -> Self {
        Self {
            from: Timestamp::from_micros(done.from),
            to: Timestamp::from_micros(done.to),
            started_at: Timestamp::from_micros(done.started_at),
            finished_at: done.finished_at.map(Timestamp::from_micros),
            pages: done.pages,
            listed: done.listed,
            missing: done.missing,
            unfinished: done.unfinished,
            entered: done.entered,
            ended: done.ended,
            unreadable: done.unreadable,
            call_sids: done.sids.clone(),
        }
    }
}

impl TwilioReconciliation {
    /// The answer for this account and row. Without an account, a row that is left from an earlier one shows nothing.
    pub fn of(account: Option<&Account>, row: Option<&Reconciliation>) -> Self {
        let row = row.filter(|_| account.is_some());
        let runs = account.is_some_and(|account| account.reconciliation != Mode::Off);
        Self {
            mode: account.map(|account| account.reconciliation),
            next_run_at: row.filter(|row| runs && row.lease.is_none()).map(|row| row.due_at),
            under_way: row.is_some_and(|row| row.lease.is_some() || row.run.is_some()),
            reconciled_until: row.and_then(|row| row.reconciled_until),
            failing_since: row.and_then(|row| row.failing_since),
            failure: row.and_then(|row| row.failure.clone()),
            last: row.and_then(|row| row.last.as_ref()).map(TwilioReconciliationRun::from),
        }
    }
}

pub async fn get(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let state = request.app.db.read("calls.twilio_reconciliation", move |tx| super::state(tx, workspace));
    Reply::ok(&state.await?)
}

/// `reconcile-twilio`: makes the comparison due now.
pub async fn reconcile(request: Request, (entry, bytes): (Entry, Bytes)) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &bytes, StatusCode::OK)?;
    actions::reconcile(&request.app, entry, repeat).await
}
