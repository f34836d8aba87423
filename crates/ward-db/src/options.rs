//! How a database is opened.

use std::sync::Arc;
use std::time::Duration;

use crate::watch::Watch;

/// The exit code of a process that ends because flushing a SQLite file failed: `EX_IOERR` of `sysexits.h`.
/// After such a failure, pages that SQLite counts as safe may be lost, so [`Db`](crate::Db) ends the whole process at
/// once.
pub const FAILED_FLUSH_EXIT: i32 = 74;

/// Options for opening a database. The defaults suit a server, and also a command that runs beside one.
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own, and none excludes another")]
#[derive(Clone, Debug)]
pub struct Options {
    /// SQLite: the maximum number of connections for reads. Reads run on the caller's thread, so at most as
    /// many are in use as the runtime has threads.
    pub readers: usize,
    /// The maximum number of long reads at once. Each has a thread and a connection.
    pub long_readers: usize,
    /// SQLite: the maximum number of waiting writes. A write beyond it gets [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) at
    /// once.
    pub write_queue: usize,
    /// SQLite: the maximum number of writes in one commit.
    pub write_batch: usize,
    /// How long a batch waits for another process's write, and a closure without a [`Deadline`](crate::Deadline) for a
    /// connection.
    pub busy_timeout: Duration,
    /// The time limit of one long read, including the wait for its turn.
    pub long_read_time: Duration,
    /// PostgreSQL: the maximum number of connections for reads and writes, each with a thread. Connections
    /// for long reads come on top.
    pub connections: usize,
    /// PostgreSQL: how many of those are used as soon as there is work. More connections than keep the
    /// processors busy slow each other down. The others help when work waits for a lock or for a distant
    /// server.
    pub ready_connections: usize,
    /// PostgreSQL: the time limit of one read or write, including retries and the wait for a connection. An
    /// earlier [`Deadline`](crate::Deadline) takes precedence.
    pub closure_time: Duration,
    /// PostgreSQL: the time limit of one statement of a read or write, including waits for locks.
    pub statement_time: Duration,
    /// SQLite: take the lock that makes this process the only server of the file.
    pub serve_lock: bool,
    /// SQLite: create the file if it does not exist.
    pub create: bool,
    /// Refuse every write with [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), create no file, and leave the file's journal as it is.
    pub read_only: bool,
    /// For tests: the file's size limit in pages of 4 KiB.
    #[doc(hidden)]
    pub max_page_count: Option<u32>,
    /// For tests: false leaves flushing to the operating system, so that a crash may lose commits.
    #[doc(hidden)]
    pub flush: bool,
    /// For tests, PostgreSQL: the age at which a connection is replaced, plus up to a half of it, so that not
    /// all are replaced at once. The age stays below the hour after which some services and proxies end
    /// connections. It also lets a recovered server get its share of connections again.
    #[doc(hidden)]
    pub connection_life: Duration,
    /// For tests: records every distinct statement of a closure.
    #[doc(hidden)]
    pub recorder: Option<Arc<Recorder>>,
    /// For tests, SQLite: notes the closures that hold the writer for too long.
    #[doc(hidden)]
    pub watch: Option<Arc<Watch>>,
}

/// For tests: the distinct texts that closures sent. A test can examine their plans without a copy of them.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Recorder(parking_lot::Mutex<std::collections::BTreeSet<String>>);

impl Recorder {
    pub(crate) fn note(&self, sql: &str) {
        self.0.lock().insert(sql.to_owned());
    }

    /// The statements recorded so far, sorted.
    pub fn texts(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(4, std::num::NonZero::get);
        Self {
            readers: 2 * threads + 4,
            long_readers: 4,
            write_queue: 4_096,
            write_batch: 256,
            busy_timeout: Duration::from_secs(5),
            long_read_time: Duration::from_secs(30),
            connections: (4 * threads).max(16),
            ready_connections: (2 * threads).max(4),
            closure_time: Duration::from_secs(10),
            statement_time: Duration::from_secs(8),
            serve_lock: false,
            create: true,
            read_only: false,
            max_page_count: None,
            flush: true,
            connection_life: Duration::from_mins(30),
            recorder: None,
            watch: None,
        }
    }
}
