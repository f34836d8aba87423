//! A reader that never ends, so that the others need no lock of the operating system's.
//!
//! Every read transaction locks the mark of the commit that it sees, in the log's index, and lets go of it at its end.
//! SQLite counts such locks within a process and asks the system only for the first and the last one, but does that in a
//! mutex that all connections share: reads on two cores waited for each other's system calls. With one lock that stays, a
//! read only counts. By how much reads are faster stands in `bench/README.md`.
//!
//! (SQLite's documentation, "WAL-mode File Format", section 2.3: `WAL_READ_LOCK(N)`.)

use super::conn::{Conn, Role, Source};
use crate::Error;

/// Holds the mark of one commit. The log cannot begin anew past a held mark, so whoever owns this goes on to the next
/// commit after each, and lets go for a checkpoint.
pub(super) struct ReadMark(Box<Conn>);

impl ReadMark {
    pub(super) fn new(source: &Source) -> Result<Self, Error> {
        let mark = Self(source.connect(Role::Read)?);
        mark.hold_newest();
        Ok(mark)
    }

    /// Holds the newest commit's mark instead of whichever it held. Where that cannot be had, reads lock for themselves,
    /// and it is tried again after the next commit.
    pub(super) fn hold_newest(&self) {
        self.release();
        // A transaction begins with its first look at the file; this one is at the first page.
        let held = self.0.raw("BEGIN").and_then(|()| self.0.raw("SELECT 1 FROM sqlite_schema LIMIT 1"));
        if held.is_err() {
            self.release();
        }
    }

    /// Holds none.
    pub(super) fn release(&self) {
        if !self.0.idle() {
            // A transaction that only read has nothing that its end could fail to keep.
            let _ = self.0.raw("ROLLBACK");
        }
    }
}
