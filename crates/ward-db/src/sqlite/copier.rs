//! Copies the log into the file beside the writer, which writes on meanwhile.
//!
//! What has gathered in the log takes as long to copy and sync as a hundred commits, and whoever came then would wait for it.
//! So the writer copies only the rest, what came during the last copy, after which the log can begin anew. What it pays
//! stands in `bench/README.md`.
//!
//! SQLite syncs the file at the end of a copy only if nothing was written meanwhile, and leaves it to the next copy
//! otherwise: the longest part, and to the writer. So the file is synced here besides. (SQLite's own sync still comes
//! before the log is used anew; it finds little left to do.)

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use super::conn::{Conn, Role, Source};
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
    pub(super) fn start(source: &Source) -> Result<Self, Error> {
        let conn = source.connect(Role::Read)?;
        let (orders, ordered) = sync_channel(1);
        let (tell, done) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("ward-db-copier".into())
            .spawn(move || {
                while ordered.recv().is_ok() {
                    for _ in 0..COPIES {
                        copy(&conn);
                        sync(&conn);
                    }
                    if tell.send(()).is_err() {
                        break;
                    }
                }
            })
            .map_err(|error| Error::unavailable("the copying thread cannot be started").because(error))?;
        Ok(Self { orders: Some(orders), done, thread: Some(thread) })
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

fn sync(conn: &Conn) {
    // The system tells every descriptor of a file that a sync failed, so SQLite's own hears of it too and keeps the log.
    if let Some(Err(error)) = conn.file.as_ref().map(|file| file.sync_data()) {
        tracing::warn!(%error, "what was copied from the WAL is not synced; the WAL grows until it is");
    }
}
