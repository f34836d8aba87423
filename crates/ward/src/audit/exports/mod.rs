//! Exports of audit events: NDJSON files, written by a worker into a folder or an S3-compatible store.

mod actions;
pub mod api;
pub mod objects;
mod store;
pub mod worker;

use uuid::Uuid;
use ward_db::Timestamp;

use strum::{EnumString, IntoStaticStr, VariantArray};

use super::store::EventFilter;
use crate::ids::{ExportId, PrincipalId, WorkspaceId};
use crate::names::named;

/// The most events that one export contains. A longer period is exported in parts.
pub const MOST_ROWS: i64 = 250_000;
/// Exports that are kept per workspace. New ones replace the oldest.
pub const KEPT: i64 = 200;

/// One export of audit events, with its file's name and state.
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
    pub(super) state: ExportState,
    pub(super) rows: i64,
    pub(super) bytes: i64,
    pub(super) finished_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ExportState {
    /// A worker is writing it, or will.
    Queued,
    /// Its file can be downloaded until the export is removed.
    Done,
    /// Every attempt to write it failed.
    Failed,
}

named!(ExportState);

impl Export {
    /// The name of the export's file.
    pub fn filename(&self) -> String {
        format!("audit-{}.ndjson", self.id)
    }

    /// The key of the file in the store.
    pub fn key(&self) -> String {
        format!("{}/{}", self.workspace, self.filename())
    }

    /// The path of the download in the API, behind the prefix of Ward's public URL.
    fn download_url(&self, prefix: &str) -> String {
        format!("{prefix}/v1/{}/audit/exports/download/{}", self.workspace, self.filename())
    }

    fn filter(&self) -> EventFilter {
        EventFilter {
            service: self.service.clone(),
            action: self.action.clone(),
            phi_only: self.phi_only,
            from: Some(self.from),
            to: Some(self.to),
            ..EventFilter::default()
        }
    }
}

/// The export of a file name, if [`Export::filename`] could have made the name.
fn named_by(filename: &str) -> Option<ExportId> {
    let id = filename.strip_prefix("audit-")?.strip_suffix(".ndjson")?;
    Uuid::try_parse(id).ok().map(ExportId)
}
