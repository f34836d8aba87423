//! Copies the log into the file beside the writer, which writes on meanwhile.
//!
//! What has gathered in the log takes as long to copy and sync as a hundred commits, and whoever came then would wait for it.
//! So the writer copies only the rest, what came during the last copy, after which the log can begin anew. What it pays
//! stands in `bench/README.md`.
//!
//! SQLite syncs the file at the end of a copy only if nothing was written meanwhile, and leaves it to the next copy
//! otherwise: the longest part, and to the writer. So the file is synced here besides. (SQLite's own sync still comes
//! before the log is used anew; it finds little left to do.) By then SQLite counts as copied what a failed sync may have
//! lost, and would not copy it again. So after one the log is kept: the next start counts nothing, and copies all of it.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use super::conn::{Conn, Role, Source};
use super::read_mark::ReadMark;
use crate::Error;

/// Copies in a row: the first is of all that has gathered, the second of what came during the first.
const COPIES: u32 = 2;

/// A thread with a connection of its own. It ends when this is dropped.
pub(super) struct Copier {
    /// `None` only while this is dropped.
    orders: Option<SyncSender<()>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Copier {
    /// `None` where no file is there to be synced: the writer copies alone.
    pub(super) fn start(source: &Source) -> Result<Option<Self>, Error> {
        let Some(file) = source.file.clone() else { return Ok(None) };
        let conn = source.connect(Role::Read)?;
        // Opened now: when it is needed, the disk is in trouble.
        let mark = ReadMark::new(source)?;
        mark.release();
        let (orders, ordered) = sync_channel(1);
        let (tell, done) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("ward-db-copier".into())
            .spawn(move || {
                while ordered.recv().is_ok() {
                    for _ in 0..COPIES {
                        copy(&conn);
                        if let Err(error) = file.sync_data() {
                            tracing::error!(%error, "what was copied from the WAL is not synced: the WAL is kept, and grows, until a restart copies it again");
                            mark.hold_newest();
                            // Held until the process ends, whatever is closed before: nobody can be the last to close.
                            std::mem::forget(mark);
                            return;
                        }
                    }
                    if tell.send(()).is_err() {
                        break;
                    }
                }
            })
            .map_err(|error| Error::unavailable("the copying thread cannot be started").because(error))?;
        Ok(Some(Self { orders: Some(orders), done, thread: Some(thread) }))
    }

    /// Begins to copy what is committed. `false`: the thread is gone.
    pub(super) fn begin(&self) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(()).is_ok())
    }

    /// Whether what was begun is at its end, be it with the thread's.
    pub(super) fn is_done(&self) -> bool {
        self.done.try_recv() != Err(TryRecvError::Empty)
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Copies as much of the log as no reader and no other copy stands against.
pub(super) fn copy(conn: &Conn) {
    if let Err(error) = conn.raw("PRAGMA wal_checkpoint(PASSIVE)") {
        tracing::warn!(%error, "a checkpoint failed; the WAL grows until one succeeds");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use super::*;
    use crate::Options;

    /// Whether somebody keeps the log from beginning anew, and what it holds.
    fn truncated(path: &std::path::Path) -> (bool, i64) {
        let beside = rusqlite::Connection::open(path).unwrap();
        beside.busy_timeout(std::time::Duration::ZERO).unwrap();
        beside.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    #[test]
    fn a_failed_sync_keeps_the_log_whatever_is_closed() {
        for fails in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ward.db");
            let file = File::create(&path).unwrap();
            // A pipe cannot be synced.
            let file = if fails { File::from(OwnedFd::from(std::io::pipe().unwrap().0)) } else { file };
            let source =
                Source { path: path.clone(), options: Options::default(), file: Some(Arc::new(file)) };
            let writer = source.connect(Role::Migrate).unwrap();
            writer.raw("CREATE TABLE t (a INTEGER)").unwrap();
            let copier = Copier::start(&source).unwrap().unwrap();
            assert!(copier.begin());
            while !copier.is_done() {
                std::thread::yield_now();
            }
            writer.raw("INSERT INTO t VALUES (1)").unwrap();
            copy(&writer);
            drop((copier, writer, source));
            let (busy, pages) = truncated(&path);
            assert_eq!(busy, fails);
            assert_eq!(pages > 0, fails, "{pages} pages in the log");
        }
    }
}
