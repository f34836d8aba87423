//! Copies the log into the file beside the writer, which continues to write.
//!
//! Copying and syncing a full log takes as long as a hundred commits, and writes that arrive then would wait
//! for it. So the writer copies only the rest: the writes made during the last copy, after which the log can
//! restart. `bench/README.md` has the measured cost.
//!
//! SQLite flushes the file at the end of a copy only if nothing was written meanwhile. Otherwise it leaves
//! the flush, the longest part, to the next copy, which the writer makes. So this thread flushes the file
//! itself. (SQLite's own flush still comes before it reuses the log, and finds little left to do.) A failed
//! flush ends the process: see [`super::flush`].

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use super::conn::{Conn, Role, Source};
use super::flush::Flushes;
use crate::Error;

/// Consecutive copies: the first of the whole log, the second of the writes made during the first.
const COPIES: u32 = 2;

/// The copying thread, with its own connection. It ends when this value is dropped.
pub(super) struct Copier {
    /// `None` only while this is dropped.
    orders: Option<SyncSender<()>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Copier {
    /// Starts the thread. `None` if no file needs to be synced: then the writer copies alone.
    pub(super) fn start(source: &Arc<Source>) -> Result<Option<Self>, Error> {
        let Some(file) = source.file() else { return Ok(None) };
        let conn = source.connect(Role::Read)?;
        let source = Arc::clone(source);
        let (orders, ordered) = sync_channel(1);
        let (tell, done) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("ward-db-copier".into())
            .spawn(move || {
                while ordered.recv().is_ok() {
                    for _ in 0..COPIES {
                        copy(&conn, &source.flushes);
                        if let Err(error) = file.sync_data() {
                            source.flushes.end("the database file could not be flushed", &error);
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

    /// Starts to copy everything that is committed. False: the thread is gone.
    pub(super) fn begin(&self) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(()).is_ok())
    }

    /// Whether the started copy has ended, or the thread with it.
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

/// Copies as much of the log as readers and other copies allow. A failed flush ends the process. SQLite does
/// not report which of the two files it concerned, and nothing may continue after a failed flush of the
/// database file.
pub(super) fn copy(conn: &Conn, flushes: &Flushes) {
    if flushes.is_marked() {
        flushes.end_for_mark();
    }
    let copied = conn.raw("PRAGMA wal_checkpoint(PASSIVE)");
    flushes.note_copy(copied.is_err());
    match copied {
        Err(error) if error.is_failed_flush() => {
            flushes.end("a flush failed while the log was copied into the database file", &error);
        }
        Err(error) => tracing::warn!(
            %error,
            "the log could not be copied into the database file, so the log grows. Check the disk; Ward tries again"
        ),
        Ok(()) => {}
    }
}
