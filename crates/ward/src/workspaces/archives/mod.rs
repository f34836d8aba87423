//! Archived workspaces: who can restore them until when, and legal holds.

pub mod actions;
pub mod api;
pub mod operator;
pub(super) mod store;

use serde::Serialize;
use ward_db::Timestamp;

/// The longest reason of a legal hold, in characters.
pub const LONGEST_REASON: usize = 500;

/// The life of an archived workspace.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Archived {
    /// `None`: a version without this time archived it.
    pub archived_at: Option<Timestamp>,
    /// Until then, the last owners can restore it. `None`: without a limit of time.
    pub purge_at: Option<Timestamp>,
    /// Whether a legal hold keeps it beyond that time.
    pub legal_hold: bool,
}

/// A reason for which nothing of a workspace may be deleted.
#[derive(Clone, Debug, Serialize)]
pub struct LegalHold {
    pub reason: String,
    pub placed_at: Timestamp,
}
