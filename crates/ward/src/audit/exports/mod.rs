//! Exports of audit events: NDJSON files, written by a worker into a folder or an S3-compatible store.

mod actions;
pub mod api;
pub mod place;
mod store;
pub mod worker;

use uuid::Uuid;
use ward_db::Timestamp;

use super::store::Filter;
use crate::ids::{ExportId, PrincipalId, WorkspaceId};

/// The most events that one export holds. A longer period is exported in parts.
pub const MOST_ROWS: i64 = 250_000;
/// How many exports of a workspace are kept. The oldest ones give way to new ones.
pub const KEPT: i64 = 200;

/// An export of audit events.
#[derive(Clone, Debug)]
pub struct Export {
    pub(super) workspace: WorkspaceId,
    pub(super) id: ExportId,
    pub(super) created_at: Timestamp,
    pub(super) created_by: Option<PrincipalId>,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) service: Option<String>,
    pub(super) action: Option<String>,
    pub(super) phi_only: bool,
    pub(super) state: State,
    pub(super) rows: i64,
    pub(super) bytes: i64,
    pub(super) finished_at: Option<Timestamp>,
}

/// How far an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A worker writes it, or is about to.
    Queued,
    /// It can be downloaded.
    Done,
    /// It could not be written.
    Failed,
}

impl State {
    const ALL: [Self; 3] = [Self::Queued, Self::Done, Self::Failed];

    /// Its name in the database and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl Export {
    /// The name of its file.
    pub fn filename(&self) -> String {
        format!("audit-{}.ndjson", self.id)
    }

    /// Its key in the store.
    pub fn key(&self) -> String {
        format!("{}/{}", self.workspace, self.filename())
    }

    /// The path under which the API serves it, behind the prefix of Ward's public URL.
    fn download_url(&self, prefix: &str) -> String {
        format!("{prefix}/v1/{}/audit/exports/download/{}", self.workspace, self.filename())
    }

    fn filter(&self) -> Filter {
        Filter {
            service: self.service.clone(),
            action: self.action.clone(),
            phi_only: self.phi_only,
            from: Some(self.from),
            to: Some(self.to),
            ..Filter::default()
        }
    }
}

/// The export that a file name of ours names.
fn named_by(filename: &str) -> Option<ExportId> {
    let id = filename.strip_prefix("audit-")?.strip_suffix(".ndjson")?;
    Uuid::try_parse(id).ok().map(ExportId)
}
