//! Copies the log into the file beside the writer, which writes on meanwhile.
//!
//! What has gathered in the log takes as long to copy and sync as a hundred commits, and whoever came then would wait for it.
//! So the writer copies only the rest, what came during the last copy, after which the log can begin anew. What it pays
//! stands in `bench/README.md`.
//!
//! SQLite flushes the file at the end of a copy only if nothing was written meanwhile. Otherwise it leaves the flush, the
//! longest part, to the next copy, which is the writer's. So this thread flushes the file itself. (SQLite's own flush still
//! comes before it reuses the log, and finds little left to do.) A flush that fails ends the process: see [`super::flush`].

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use super::conn::{Conn, Role, Source};
use super::flush::Flushes;
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

/// Copies as much of the log as no reader and no other copy stands against. A failed flush ends the process: which of the
/// two files it was of is not told, and after one of the file nothing may go on.
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
            "the log could not be copied into the database file, so the log grows; look at the disk. Ward tries again"
        ),
        Ok(()) => {}
    }
}
