//! SQL engines behind one small face; knows no product noun.
//!
//! The unit is a named synchronous closure over a [`Tx`]: [`Db::read`] for what a key or a page bounds,
//! [`Db::read_long`] for the rest, [`Db::write`] for changes. A closure can be run more than once, so it does nothing
//! but talk to its `Tx`; a database call inside one panics. SQL is written once, in the portable subset, with
//! `$1`, `$2`, …; what differs between engines is spelled in here.
//!
//! Metrics (a recorder must be installed before [`Db::open`]): `ward_db_closure_seconds{closure,kind}`,
//! `ward_db_commit_seconds` and `ward_db_errors_total{kind}`; of SQLite `ward_db_batch_size`,
//! `ward_db_batches_total{outcome}`, `ward_db_log_bytes`, `ward_db_log_copies_failed_total` and
//! `ward_db_flushes_failed_total{file}`; of PostgreSQL `ward_db_pool_size{pool}`, `ward_db_pool_busy{pool}`,
//! `ward_db_pool_wait_seconds{pool}` (only of calls that had to wait), `ward_db_pool_connections`,
//! `ward_db_connections_refused_total` and `ward_db_retries_total{reason}`.

#![expect(clippy::doc_markdown, reason = "SQLite and PostgreSQL are names, not code")]

mod closure;
mod copy;
mod counters;
mod deadline;
mod error;
mod lex;
mod migrate;
mod postgres;
mod sqlite;
mod tx;
mod value;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram};

pub use copy::{Copied, Progress, Stage};
pub use deadline::Deadline;
pub use error::{Error, ErrorKind};
pub use migrate::{AppliedStep, Compared, Migrated, Migration};
pub use sqlite::backup;
pub use tx::{Row, Tx};
pub use uuid::Uuid;
pub use value::{FromColumn, Json, NotATimestamp, Timestamp, Value};

/// For tests: what PostgreSQL's sessions are told about plans.
#[doc(hidden)]
pub use postgres::PLANS;

use postgres::Postgres;
use sqlite::Sqlite;

/// The exit code of a process that ends because a flush of a SQLite file failed: `EX_IOERR` of `sysexits.h`. After such a
/// failure pages that SQLite counts as safe may be lost, so [`Db`] ends the whole process at once.
pub const FAILED_FLUSH_EXIT: i32 = 74;

/// How a database is opened. The default suits a server; a command that runs beside one needs no other.
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own, and none excludes another")]
#[derive(Clone, Debug)]
pub struct Options {
    /// SQLite: reading connections at most. Reads run on the caller's thread, so more than there are runtime threads
    /// are never used at once.
    pub readers: usize,
    /// Long reads at once, at most; each has a thread and a connection.
    pub long_readers: usize,
    /// SQLite: writes waiting at most; one more is answered [`ErrorKind::Unavailable`] at once.
    pub write_queue: usize,
    /// SQLite: writes in one commit at most.
    pub write_batch: usize,
    /// How long a batch waits for another process's write, and a closure outside of a [`Deadline`] for a connection.
    pub busy_timeout: Duration,
    /// How long one long read may take, waiting for its turn included.
    pub long_read_time: Duration,
    /// PostgreSQL: connections for reads and writes at most, each with a thread; those of long reads come on top.
    pub connections: usize,
    /// PostgreSQL: how many of those are used as soon as there is work. More than keep the processors busy only get in each
    /// other's way; the others help when something has to wait, for a lock or for a server that is far away.
    pub ready_connections: usize,
    /// PostgreSQL: how long one read or write may take, waiting for a connection and repeated tries included. A
    /// [`Deadline`] that ends earlier goes before.
    pub closure_time: Duration,
    /// PostgreSQL: how long one statement of a read or write may take, waiting for locks included.
    pub statement_time: Duration,
    /// SQLite: hold the lock that makes this the only server on the file.
    pub serve_lock: bool,
    /// SQLite: make the file if it is not there.
    pub create: bool,
    /// Only read: every write is refused ([`ErrorKind::Invalid`]), no file is made, and the file's journal stays as it is.
    pub read_only: bool,
    /// For tests: the file's size limit in pages of 4 KiB.
    #[doc(hidden)]
    pub max_page_count: Option<u32>,
    /// For tests: false trusts the operating system to write in its own time, so that a crash may lose commits.
    #[doc(hidden)]
    pub flush: bool,
    /// For tests: PostgreSQL: connections are replaced after this and up to half of it more, so that not all are at once:
    /// long before the hour that some services and proxies end them after, and so that a server that came back gets its
    /// share again.
    #[doc(hidden)]
    pub connection_life: Duration,
    /// For tests: where every distinct statement of a closure is noted.
    #[doc(hidden)]
    pub recorder: Option<Arc<Recorder>>,
}

/// For tests: the distinct texts that closures have sent, so that a test can look at their plans without a copy of them.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Recorder(parking_lot::Mutex<std::collections::BTreeSet<String>>);

impl Recorder {
    pub(crate) fn note(&self, sql: &str) {
        self.0.lock().insert(sql.to_owned());
    }

    /// What was noted so far.
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
        }
    }
}

/// What a database has done since it was opened. Only closures count, not what this crate does on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Closures run by [`Db::read`].
    pub reads: u64,
    /// Closures run by [`Db::read_long`].
    pub long_reads: u64,
    /// Closures run by [`Db::write`].
    pub writes: u64,
    /// Statements that those closures sent.
    pub statements: u64,
    /// Commits of writes; on SQLite many writes share one.
    pub commits: u64,
}

/// An open database; clones share it.
#[derive(Clone)]
pub struct Db {
    engine: Engine,
    read_only: bool,
}

#[derive(Clone)]
enum Engine {
    Sqlite(Arc<Sqlite>),
    Postgres(Arc<Postgres>),
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.engine {
            Engine::Sqlite(_) => "Db(sqlite)",
            Engine::Postgres(_) => "Db(postgres)",
        })
    }
}

impl Db {
    /// Opens the database at `url`. Blocking; needs no runtime.
    ///
    /// `sqlite:PATH`, the path relative to the working directory or absolute.
    ///
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTIONS`, with `HOST:PORT,HOST:PORT` for servers of which one takes
    /// writes. Nothing is connected yet. Options:
    ///
    /// - `target_session_attrs` is `read-write` (the default: servers that take no writes are passed over) or `any`
    /// - `sslmode` is `disable`, `prefer` (the default), `require`, `verify-ca` or `verify-full`; `sslrootcert` is a
    ///   file of authorities (the system's without it; with `require` it means `verify-ca`), `sslcert` and `sslkey` are a client's own
    /// - `pooler=transaction` is for a pooler that gives every transaction another session and knows prepared statements
    ///   (pgbouncer in transaction mode, from 1.21 on, with `max_prepared_statements`); `statement_cache=off` for one that
    ///   knows nothing of them
    /// - `application_name`, `connect_timeout` (seconds per address until a session is there, 3), `keepalives…`, `tcp_user_timeout`, `hostaddr`,
    ///   `load_balance_hosts`, `channel_binding`: as PostgreSQL's own clients have them
    ///
    /// [`ErrorKind::Invalid`] for a URL that means nothing here, [`ErrorKind::Unavailable`] when the file cannot be
    /// used or another server holds it, [`ErrorKind::Schema`] when the SQLite linked in is one that corrupts files.
    pub fn open(url: &str, options: Options) -> Result<Self, Error> {
        let read_only = options.read_only;
        let engine = if names_postgres(url) {
            Engine::Postgres(Arc::new(Postgres::open(url, options)?))
        } else {
            Engine::Sqlite(Arc::new(Sqlite::open(sqlite_path(url)?, options)?))
        };
        Ok(Self { engine, read_only })
    }

    /// Runs `f` over one snapshot: for reads that a key or a page bounds. On SQLite on the calling thread, on
    /// PostgreSQL on a thread that has a connection. `name` is for logs and metrics, and one name is one closure. A
    /// change inside is [`ErrorKind::Invalid`].
    ///
    /// # Panics
    ///
    /// Inside a closure, as every database call.
    pub fn read<T, E>(
        &self,
        name: &'static str,
        mut f: impl FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        closure::assert_outside(name);
        async move {
            closure::assert_outside(name);
            match &self.engine {
                Engine::Sqlite(sqlite) => sqlite.read(name, &mut f),
                Engine::Postgres(postgres) => postgres.read(name, f).await,
            }
        }
    }

    /// Runs `f` over one snapshot, on a thread and connection kept for long reads. Stops with
    /// [`ErrorKind::Timeout`] after [`Options::long_read_time`], and soon after its future is dropped. Needs a Tokio
    /// runtime with time.
    ///
    /// # Panics
    ///
    /// Inside a closure, as every database call.
    pub fn read_long<T, E>(
        &self,
        name: &'static str,
        f: impl FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        closure::assert_outside(name);
        async move {
            closure::assert_outside(name);
            match &self.engine {
                Engine::Sqlite(sqlite) => sqlite.read_long(name, f).await,
                Engine::Postgres(postgres) => postgres.read_long(name, f).await,
            }
        }
    }

    /// Runs `f` in a transaction and answers, success or refusal, once that is durable. `Err` or a panic rolls back
    /// what `f` did and nothing else. A full queue, a full disk, a broken file or a server that cannot be reached is
    /// [`ErrorKind::Unavailable`]; an error of the commit itself is [`ErrorKind::Unknown`]. If the future is dropped,
    /// `f` runs only if it was already taken.
    ///
    /// On PostgreSQL the transaction is READ COMMITTED, and `f` runs again, within [`Options::closure_time`], when
    /// another transaction was in the way or the connection was lost before the commit was sent. Needs a Tokio runtime
    /// with time there.
    ///
    /// # Panics
    ///
    /// Inside a closure, as every database call.
    pub fn write<T, E>(
        &self,
        name: &'static str,
        f: impl FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        closure::assert_outside(name);
        async move {
            closure::assert_outside(name);
            if self.read_only {
                return Err(E::from(Error::invalid(format!(
                    "{name}: the database was opened only to be read"
                ))));
            }
            Deadline::note_write();
            match &self.engine {
                Engine::Sqlite(sqlite) => sqlite.write(name, f).await,
                Engine::Postgres(postgres) => postgres.write(name, f).await,
            }
        }
    }

    /// Brings the schema up to `migrations`, in their order, and checks that what is there already is what they say
    /// and that a binary of `binary_version` (`major.minor.patch`) may run on it. Any number of processes may do so
    /// at once. Blocking. [`ErrorKind::Schema`] names what does not fit.
    ///
    /// # Panics
    ///
    /// Inside a closure, as every database call.
    pub fn migrate(&self, migrations: &[Migration], binary_version: &str) -> Result<Migrated, Error> {
        closure::assert_outside("migrate");
        match &self.engine {
            Engine::Sqlite(sqlite) => {
                migrate::migrate(&mut *sqlite.for_schema()?, migrations, binary_version)
            }
            Engine::Postgres(postgres) => {
                postgres.on_schema(|schema| migrate::migrate(schema, migrations, binary_version))
            }
        }
    }

    /// Compares the schema with `migrations` as [`Self::migrate`] does, and changes nothing. Blocking.
    ///
    /// # Panics
    ///
    /// Inside a closure, as every database call.
    pub fn compare(&self, migrations: &[Migration], binary_version: &str) -> Result<Compared, Error> {
        closure::assert_outside("compare");
        match &self.engine {
            Engine::Sqlite(sqlite) => {
                migrate::compare(&mut *sqlite.for_schema()?, migrations, binary_version)
            }
            Engine::Postgres(postgres) => {
                postgres.on_schema(|schema| migrate::compare(schema, migrations, binary_version))
            }
        }
    }

    /// The steps applied to this database, by migration and step. Empty for a database never migrated. Blocking.
    ///
    /// # Panics
    ///
    /// Inside a closure, as every database call.
    pub fn schema(&self) -> Result<Vec<AppliedStep>, Error> {
        closure::assert_outside("schema");
        match &self.engine {
            Engine::Sqlite(sqlite) => migrate::applied(&mut *sqlite.for_schema()?),
            Engine::Postgres(postgres) => postgres.on_schema(|schema| migrate::applied(schema)),
        }
    }

    fn is_postgres(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// How many long reads are under way at once, at most.
    pub fn long_readers(&self) -> usize {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.options().long_readers,
            Engine::Postgres(postgres) => postgres.options().long_readers,
        }
    }

    /// The counters since this database was opened.
    pub fn stats(&self) -> Stats {
        let counters = match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.counters(),
            Engine::Postgres(postgres) => postgres.counters(),
        };
        Stats {
            reads: counters.reads.load(Ordering::Relaxed),
            long_reads: counters.long_reads.load(Ordering::Relaxed),
            writes: counters.writes.load(Ordering::Relaxed),
            statements: counters.statements.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
        }
    }

    /// Whether it works: the writer comes to its queue, its last flush and copy of the log succeeded, and a reader reads
    /// the file; or the server answers and takes writes. Writes nothing, except that a failed flush of the log is tried
    /// again. Waits as long as a write would wait for its turn, so give it a time limit.
    ///
    /// # Panics
    ///
    /// Inside a closure, as every database call.
    pub async fn check(&self) -> Result<(), Error> {
        closure::assert_outside("check");
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.check().await,
            Engine::Postgres(postgres) => postgres.check().await,
        }
    }

    /// The encoding in which the database keeps texts, such as `UTF-8` or `LATIN1`.
    pub async fn encoding(&self) -> Result<String, Error> {
        let sql = if self.is_postgres() {
            "SELECT current_setting('server_encoding')"
        } else {
            "SELECT encoding FROM pragma_encoding"
        };
        self.read("db.encoding", move |tx| tx.one(sql, &[], |row| row.get(0))).await
    }

    /// The database server's clock; `None` for a file, which has none.
    pub async fn clock(&self) -> Result<Option<Timestamp>, Error> {
        if !self.is_postgres() {
            return Ok(None);
        }
        self.read("db.clock", |tx| tx.one("SELECT clock_timestamp()", &[], |row| row.get(0).map(Some))).await
    }

    /// Finishes the waiting writes (on PostgreSQL those that have a connection), folds the WAL into the file and lets
    /// go of it. From then on everything answers [`ErrorKind::Unavailable`]. Blocking; dropping the last clone does the
    /// same.
    pub fn close(&self) {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.close(),
            Engine::Postgres(postgres) => postgres.close(),
        }
    }
}

/// Describes this crate's metrics to the recorder that is installed.
pub fn describe_metrics() {
    describe_histogram!("ward_db_closure_seconds", "Time of one read or write, by closure and kind");
    describe_histogram!("ward_db_commit_seconds", "Time of one commit");
    describe_counter!("ward_db_errors_total", "Errors of the database, by kind");
    describe_histogram!("ward_db_batch_size", "Writes that one commit on SQLite makes durable");
    describe_counter!("ward_db_batches_total", "Commits on SQLite, by how they ended");
    describe_gauge!("ward_db_log_bytes", "Size of SQLite's log");
    describe_counter!(
        "ward_db_log_copies_failed_total",
        "Tries to copy SQLite's log into the file that failed"
    );
    describe_counter!(
        "ward_db_flushes_failed_total",
        "Flushes that the disk refused, by file; one of the database file ends the server"
    );
    describe_gauge!("ward_db_pool_size", "Most connections to PostgreSQL, by pool");
    describe_gauge!("ward_db_pool_connections", "Connections to PostgreSQL that live");
    describe_counter!("ward_db_connections_refused_total", "Failed attempts to connect to PostgreSQL");
    describe_gauge!("ward_db_pool_busy", "Connections to PostgreSQL at work, by pool");
    describe_histogram!(
        "ward_db_pool_wait_seconds",
        "Time of waiting for a connection, of calls that had to, by pool"
    );
    describe_counter!("ward_db_retries_total", "Closures that ran again on PostgreSQL, by reason");
}

/// Whether an encoding of [`Db::encoding`] holds every text.
pub fn holds_every_text(encoding: &str) -> bool {
    matches!(encoding, "UTF8" | "UTF-8" | "UTF-16le" | "UTF-16be")
}

fn names_postgres(url: &str) -> bool {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    ["postgres", "postgresql"].iter().any(|known| scheme.is_some_and(|s| s.eq_ignore_ascii_case(known)))
}

/// The path in a `sqlite:` URL. What else stands in a URL may be a password, so an error repeats only its scheme.
fn sqlite_path(url: &str) -> Result<&str, Error> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(Error::invalid(
            "a database URL begins with its scheme: supported are sqlite:PATH and postgres://…",
        ));
    };
    if !scheme.eq_ignore_ascii_case("sqlite") {
        return Err(Error::invalid(format!(
            "databases of the scheme `{scheme}` are not supported: supported are sqlite:PATH and postgres://…"
        )));
    }
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => {
            return Err(Error::invalid(
                "a SQLite URL has no host: write sqlite:PATH or sqlite:///ABSOLUTE/PATH",
            ));
        }
    };
    if path.is_empty() || path.starts_with(':') || path.contains('\0') {
        return Err(Error::invalid("a SQLite database is a file: write sqlite:PATH"));
    }
    Ok(path)
}
