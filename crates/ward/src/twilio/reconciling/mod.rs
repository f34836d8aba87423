//! The nightly comparison of a workspace's calls with Twilio's own list.
//!
//! A callback can be lost, and then nothing in Ward shows that there was a call. Twilio's list shows every call of the account.
//! A comparison reads the list of a period, page by page. It counts the calls that Ward does not know, and those whose end it
//! does not know. With the mode `enter` it records them by the rules of a callback; with `report` it only tells people.
//!
//! The row of a workspace holds the lease and the progress. So one worker of all replicas compares at a time, and any
//! replica continues after the last page that was stored.

pub mod actions;
pub mod api;
mod rules;
mod store;
pub mod worker;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use ward_db::{Error, Timestamp, Tx};

use super::{Mode, store as accounts};
use crate::ids::WorkspaceId;
use api::TwilioReconciliation;

pub use store::with_account;

/// Ids of missing calls that a result keeps.
const SIDS_KEPT: usize = 100;

/// The progress of a comparison, or its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The beginning of the period, included: microseconds since 1970.
    pub from: i64,
    /// The end of the period, excluded.
    pub to: i64,
    pub started_at: i64,
    /// The end of the comparison; `None` while it is under way.
    #[serde(default)]
    pub finished_at: Option<i64>,
    /// The next page in Twilio's words. `None` before the first page, and after the last.
    #[serde(default)]
    pub next_page: Option<String>,
    pub pages: u32,
    /// Ended calls of the period in Twilio's list, legs that were dialled on behalf of others left out.
    pub listed: u64,
    /// Those that Ward did not know.
    pub missing: u64,
    /// Those that had no end in Ward.
    pub unfinished: u64,
    pub entered: u64,
    pub ended: u64,
    /// Missing calls and ends that were not recorded although the mode was `enter`.
    pub unreadable: u64,
    /// The ids of the first calls that are still missing, or have no end.
    pub sids: Vec<String>,
    /// The start of the first call that had not ended, which the next period includes.
    #[serde(default)]
    pub open_since: Option<i64>,
}

impl Comparison {
    fn begin((from, to): (Timestamp, Timestamp), now: Timestamp) -> Self {
        Self {
            from: from.micros(),
            to: to.micros(),
            started_at: now.micros(),
            finished_at: None,
            next_page: None,
            pages: 0,
            listed: 0,
            missing: 0,
            unfinished: 0,
            entered: 0,
            ended: 0,
            unreadable: 0,
            sids: Vec::new(),
            open_since: None,
        }
    }

    /// The number of calls that Ward still does not have, or not with their end.
    pub const fn left(&self) -> u64 {
        (self.missing + self.unfinished).saturating_sub(self.entered + self.ended)
    }

    fn keep_sid(&mut self, sid: &str) {
        if self.sids.len() < SIDS_KEPT && !self.sids.iter().any(|known| known == sid) {
            self.sids.push(sid.to_owned());
        }
    }
}

/// The state of the comparisons of a workspace.
#[derive(Clone, Debug)]
pub struct Reconciliation {
    pub workspace: WorkspaceId,
    /// The time of the next work on it.
    pub due_at: Timestamp,
    /// The lease of a worker, if one has it.
    pub lease: Option<Uuid>,
    /// Failures in a row since the last page.
    pub attempts: i64,
    /// The account that the rest belongs to.
    pub account_sid: Option<String>,
    /// The time before which every call has been compared.
    pub reconciled_until: Option<Timestamp>,
    pub run: Option<Comparison>,
    pub last: Option<Comparison>,
    pub failing_since: Option<Timestamp>,
    /// The reason why the last attempt failed, as one word.
    pub failure: Option<String>,
}

/// The state of a workspace's comparison, for answers.
pub fn state(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<TwilioReconciliation, Error> {
    let (account, row) = (accounts::get(tx, workspace)?, store::get(tx, workspace)?);
    Ok(TwilioReconciliation::of(account.as_ref(), row.as_ref()))
}
