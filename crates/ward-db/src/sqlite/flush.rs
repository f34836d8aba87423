//! Failed flushes: their meaning, and the state that they leave.
//!
//! A failed flush (`fsync`) is final. The system marks the pages as clean, so no later flush writes them, and memory may
//! lose them at any time. The two files differ in what then follows.
//!
//! - **The log.** The failed commit is refused, and its place in the log is overwritten by the next commit. Everything that
//!   was acknowledged was flushed before. The server goes on, and reports that it is not ready until a commit succeeds.
//!   A failed write of the log has the same effect.
//! - **The file.** SQLite counts the copied pages as safe, so readers take them from the file, where their old content may
//!   come back. A commit on top of that would make the damage permanent. The process ends, and the next start copies the
//!   whole log again.
//!
//! The next start can copy everything only if no other process has the file open: SQLite keeps its count in memory that
//! those processes share. A mark beside the file makes the next start insist on being alone.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use metrics::counter;

use crate::{Error, FAILED_FLUSH_EXIT};

/// The time limit for writing the mark to a disk in trouble. The mark matters only to processes that run now,
/// so a mark that exists only in memory serves as well.
const MARK_TIME: Duration = Duration::from_secs(5);

/// The end of the mark's name, after the name of the database.
pub(super) const FLUSH_MARK: &str = "-flush-failed";

const MARK: &str = "A flush of the database beside this file failed, and the server ended.\n\
    The next `ward serve` copies the log into the database again and removes this file.\n\
    Close every other program that has the database open before that start. Do not remove this file.\n";

/// The state of the flushes of one database. Its threads share it.
pub(super) struct Flushes {
    /// The database with all links resolved.
    path: PathBuf,
    ending: AtomicBool,
    log_failed: AtomicBool,
    copy_failed: AtomicBool,
}

impl Flushes {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            ending: AtomicBool::new(false),
            log_failed: AtomicBool::new(false),
            copy_failed: AtomicBool::new(false),
        }
    }

    /// The database with all links resolved.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The log, which SQLite keeps beside the resolved path.
    pub(super) fn log(&self) -> PathBuf {
        beside(&self.path, "-wal")
    }

    /// The path of the mark that a failed flush leaves.
    pub(super) fn mark(&self) -> PathBuf {
        beside(&self.path, FLUSH_MARK)
    }

    /// Whether a failed flush of any process left its mark.
    pub(super) fn is_marked(&self) -> bool {
        self.mark().symlink_metadata().is_ok()
    }

    /// Refuses reads and commits while the process ends.
    pub(super) fn refuse_while_ending(&self) -> Result<(), Error> {
        if self.ending.load(Ordering::Acquire) {
            return Err(Error::unavailable("the server ends: a flush of the database failed"));
        }
        Ok(())
    }

    /// Notes how the last commit's writes and flush of the log went.
    pub(super) fn note_log(&self, failed: bool) {
        if failed {
            counter!("ward_db_flushes_failed_total", "file" => "log").increment(1);
        }
        self.log_failed.store(failed, Ordering::Release);
    }

    /// Notes how the last copy of the log into the file went.
    pub(super) fn note_copy(&self, failed: bool) {
        if failed {
            counter!("ward_db_log_copies_failed_total").increment(1);
        }
        self.copy_failed.store(failed, Ordering::Release);
    }

    pub(super) fn log_failed(&self) -> bool {
        self.log_failed.load(Ordering::Acquire)
    }

    pub(super) fn copy_failed(&self) -> bool {
        self.copy_failed.load(Ordering::Acquire)
    }

    /// Writes the mark; returns whether it exists.
    pub(super) fn leave_mark(&self) -> bool {
        let (tell, told) = channel();
        let mark = self.mark();
        // A flush of a broken disk may hang, and the process must not outlive the failure.
        let spawned = std::thread::Builder::new().name("ward-db-mark".into()).spawn(move || {
            let left = File::create(&mark).and_then(|mut file| {
                file.write_all(MARK.as_bytes())?;
                let flushed = file.sync_all();
                flush_folder(&mark).and(flushed)
            });
            let _ = tell.send(left);
        });
        let flushed = spawned.is_ok() && told.recv_timeout(MARK_TIME).is_ok_and(|left| left.is_ok());
        flushed || self.is_marked()
    }

    /// Ends the process because a flush of the file failed. It leaves the mark, and logs the reason in a last
    /// line.
    pub(super) fn end(&self, failed: &str, why: &dyn std::fmt::Display) -> ! {
        self.ending.store(true, Ordering::Release);
        counter!("ward_db_flushes_failed_total", "file" => "database").increment(1);
        let marked = if self.leave_mark() {
            "The next start insists on being the only program that has the file open."
        } else {
            "The mark beside the file could not be written, so Ward cannot check that no program has it open."
        };
        Self::exit(&format!(
            "{failed}: {why}. The disk under {} is in trouble, and the server ends so that no later write builds on \
             lost pages. All acknowledged writes are in the log. {marked} Repair the disk, close every other program \
             that has the file open, and start Ward again.",
            self.path.display()
        ))
    }

    /// Ends the process because another process left the mark while this one had the file open.
    pub(super) fn end_for_mark(&self) -> ! {
        self.ending.store(true, Ordering::Release);
        Self::exit(&format!(
            "another Ward on {} ended because a flush of the file failed, and this one ends too. All acknowledged writes \
             are in the log. Repair the disk, close every other program that has the file open, and start Ward again.",
            self.path.display()
        ))
    }

    fn exit(line: &str) -> ! {
        if tracing::dispatcher::has_been_set() {
            tracing::error!("{line}");
        } else {
            // A command has no log. If this line cannot be written either, nothing more can be done.
            let _ = writeln!(std::io::stderr(), "ward: {line}");
        }
        std::process::exit(FAILED_FLUSH_EXIT)
    }
}

/// The file in the same folder whose name is that of `path` plus `suffix`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the names in a file's folder durable.
#[cfg_attr(not(unix), expect(clippy::unnecessary_wraps, reason = "folders are flushed on Unix alone"))]
pub(super) fn flush_folder(file: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    File::open(folder_of(file))?.sync_all()?;
    Ok(())
}

/// The folder that contains a file.
pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
