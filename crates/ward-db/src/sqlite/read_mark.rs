//! A permanent reader, so that other readers need no lock of the operating system.
//!
//! Every read transaction locks the mark of its commit in the log's index, and releases it at the end. SQLite
//! counts these locks within a process, and asks the system only for the first and the last one. But it does
//! so in a mutex that all connections share, so reads on two cores waited for each other's system calls. With
//! one permanent lock, a read only counts. `bench/README.md` has the measured gain.
//!
//! (SQLite's documentation, "WAL-mode File Format", section 2.3: `WAL_READ_LOCK(N)`.)

use super::conn::{Conn, Role, Source};
use crate::Error;

/// Holds the mark of one commit. The log cannot restart past a held mark. So the owner moves it to the newest
/// commit after each one, and releases it for a checkpoint.
pub(super) struct ReadMark(Box<Conn>);

impl ReadMark {
    pub(super) fn new(source: &Source) -> Result<Self, Error> {
        let mark = Self(source.connect(Role::Read)?);
        mark.hold_newest();
        Ok(mark)
    }

    /// Holds the newest commit's mark instead of the previous one. If that fails, reads lock for themselves,
    /// and the next commit brings another attempt.
    pub(super) fn hold_newest(&self) {
        self.release();
        // A transaction starts with its first read of the file; this one reads the first page.
        let held = self.0.raw("BEGIN").and_then(|()| self.0.raw("SELECT 1 FROM sqlite_schema LIMIT 1"));
        if held.is_err() {
            self.release();
        }
    }

    /// Releases the held mark, if there is one.
    pub(super) fn release(&self) {
        if !self.0.idle() {
            // A transaction that only read has nothing to lose when its end fails.
            let _ = self.0.raw("ROLLBACK");
        }
    }
}
