//! Opens a file for reading without a change to the file, its log or the log's index.
//!
//! SQLite's usual way changes them even for a read. It creates a missing log and index, rebuilds the index of a log that a
//! killed server left, and writes into the index that it reads. Each way here fits one state of the three files.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::flush::beside;

/// The characters of a path that stay as they are in SQLite's URIs.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');

/// A way of opening a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenMode {
    /// SQLite's own way. Only a connection that may write, or that reads beside a server that starts right now, uses it.
    Usual,
    /// The file alone, as it stands. Nothing may write to it meanwhile.
    Frozen,
    /// With the index as it stands. Without another process, SQLite keeps an index of its own in memory.
    SharedIndex,
    /// With an index in memory, for a log without an index. SQLite locks the file against all other processes.
    OwnIndex,
}

impl OpenMode {
    /// The way of reading the file at a resolved path. `locked`: no server has the file open, and none can open it.
    pub(super) fn to_read(path: &Path, locked: bool) -> Self {
        let length = |suffix| beside(path, suffix).metadata().ok().map(|there| there.len());
        if length("-journal").is_some_and(|length| length > 0) {
            // An unfinished change of another journal mode is undone first.
            return Self::Usual;
        }
        match (length("-wal"), length("-shm")) {
            (Some(_), Some(_)) => Self::SharedIndex,
            _ if !locked => Self::Usual,
            (None | Some(0), _) => Self::Frozen,
            (Some(_), None) => Self::OwnIndex,
        }
    }

    pub(super) fn open(self, path: &Path) -> Result<Connection, rusqlite::Error> {
        let write = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let read =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        match self {
            Self::Usual => Connection::open_with_flags(path, write),
            Self::Frozen => Connection::open_with_flags(uri(path, "immutable=1"), read),
            Self::SharedIndex => {
                let conn = Connection::open_with_flags(uri(path, "readonly_shm=1"), read)?;
                // An index that no process has read yet has no place for a reader that does not write.
                match conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
                    Err(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
                        Self::Usual.open(path)
                    }
                    _ => Ok(conn),
                }
            }
            Self::OwnIndex => Connection::open_with_flags_and_vfs(path, write, c"unix-excl"),
        }
    }
}

/// A path as SQLite's URI with one parameter.
fn uri(path: &Path, parameter: &str) -> String {
    // A path that begins with a slash must not be read as a host.
    let start = if path.is_absolute() { "file://" } else { "file:" };
    let path = path.to_string_lossy();
    format!("{start}{}?{parameter}", utf8_percent_encode(&path, KEPT))
}

/// The state of a file and its log, which shows whether anything wrote to them.
#[derive(PartialEq, Eq)]
pub(super) struct Stamp([Option<(u64, Option<SystemTime>)>; 2]);

impl Stamp {
    pub(super) fn of(path: &Path) -> Self {
        let stamp =
            |path: PathBuf| path.metadata().ok().map(|there: Metadata| (there.len(), there.modified().ok()));
        Self([stamp(path.to_owned()), stamp(beside(path, "-wal"))])
    }
}
