//! SQL engines behind one small interface, without knowledge of the product.
//!
//! The unit of work is a named synchronous closure over a [`Tx`]. [`Db::read`] is for reads that a key or a
//! page bounds, [`Db::read_long`] for other reads, and [`Db::write`] for changes. A closure can run more than
//! once, so it does nothing but use its `Tx`. A database call inside a closure panics. SQL is written once,
//! in a portable subset with `$1`, `$2`, …; this crate translates it for each engine.
//!
//! Metrics, which need a recorder that is installed before [`Db::open`]:
//!
//! - both engines: `ward_db_closure_seconds{closure,kind}`, `ward_db_commit_seconds`,
//!   `ward_db_errors_total{kind}`
//! - SQLite: `ward_db_batch_size`, `ward_db_batches_total{outcome}`, `ward_db_log_bytes`,
//!   `ward_db_log_copies_failed_total`, `ward_db_flushes_failed_total{file}`
//! - PostgreSQL: `ward_db_pool_size{pool}`, `ward_db_pool_busy{pool}`, `ward_db_pool_wait_seconds{pool}`
//!   (only of calls that had to wait), `ward_db_pool_connections`, `ward_db_connections_refused_total`,
//!   `ward_db_retries_total{reason}`

mod ambient;
mod closure;
mod columns;
mod copy;
mod counters;
mod deadline;
mod error;
mod lex;
mod migrate;
mod options;
mod postgres;
mod row;
mod sqlite;
mod turns;
mod tx;
mod value;
mod watch;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use metrics::{describe_counter, describe_gauge, describe_histogram};

pub use copy::{CopiedTable, CopyProgress, Stage};
pub use deadline::Deadline;
pub use error::{Error, ErrorKind};
pub use migrate::{AppliedStep, Migration, MigrationReport, SchemaComparison};
pub use options::{FAILED_FLUSH_EXIT, Options, Recorder};
pub use row::{Columns, FromColumn, FromRow, Row, decode};
pub use sqlite::{backup, flush_mark, opened_by};
pub use turns::in_background_for;
pub use tx::Tx;
pub use uuid::Uuid;
pub use value::{Json, NotATimestamp, Timestamp, Value};

/// For the macros of this crate.
#[doc(hidden)]
pub use columns::{insert_statement, update_statement};
#[doc(hidden)]
pub use constcat;
#[doc(hidden)]
pub use row::converted;

/// For tests: the watch on the writer.
#[doc(hidden)]
pub use watch::Watch;

/// For tests: the planner's settings that every PostgreSQL session gets.
#[doc(hidden)]
pub use postgres::PLANS;

use postgres::Postgres;
use sqlite::Sqlite;

/// Counts since a database was opened. They cover closures, not this crate's own work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Closures run by [`Db::read`], each counted once.
    pub reads: u64,
    /// Closures run by [`Db::read_long`].
    pub long_reads: u64,
    /// Closures run by [`Db::write`], refused ones included.
    pub writes: u64,
    /// Statements that all those closures sent to the engine.
    pub statements: u64,
    /// Commits of writes; on SQLite many writes share one.
    pub commits: u64,
    /// SQLite: how often long reads let other threads of the machine go first.
    pub pauses: u64,
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
    /// Opens the database at `url`. It blocks, and needs no runtime.
    ///
    /// `sqlite:PATH`: the path is absolute, or relative to the working directory.
    ///
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTIONS`, with `HOST:PORT,HOST:PORT` for servers of which
    /// one takes writes. No connection is made yet. Options:
    ///
    /// - `target_session_attrs` is `read-write` (the default, which skips servers that take no writes) or
    ///   `any`
    /// - `sslmode` is `disable`, `prefer` (the default), `require`, `verify-ca` or `verify-full`
    /// - `sslrootcert` is a file of authorities; without it the system's are used, and with it `require`
    ///   means `verify-ca`
    /// - `sslcert` and `sslkey` are the client's own certificate and key
    /// - `pooler=transaction` is for a pooler that gives every transaction another session but supports
    ///   prepared statements: pgbouncer from 1.21 on, in transaction mode and with `max_prepared_statements`
    /// - `statement_cache=off` is for a pooler that does not support prepared statements
    /// - `connect_timeout` is the number of seconds in which an address must give a session (3)
    /// - `application_name`, `keepalives…`, `tcp_user_timeout`, `hostaddr`, `load_balance_hosts` and
    ///   `channel_binding` work as in PostgreSQL's own clients
    ///
    /// [`ErrorKind::Invalid`] for a URL that cannot be used. [`ErrorKind::Unavailable`] if the file cannot be
    /// used or another server holds it. [`ErrorKind::Schema`] if the linked SQLite is a version that can
    /// corrupt files.
    pub fn open(url: &str, options: Options) -> Result<Self, Error> {
        let read_only = options.read_only;
        let engine = if names_postgres(url) {
            Engine::Postgres(Arc::new(Postgres::open(url, options)?))
        } else {
            Engine::Sqlite(Arc::new(Sqlite::open(sqlite_path(url)?, options)?))
        };
        Ok(Self { engine, read_only })
    }

    /// Runs `f` over one snapshot, for reads that a key or a page bounds. On SQLite it runs on the calling
    /// thread, on PostgreSQL on a thread with a connection. `name` identifies the closure in logs and
    /// metrics. A change inside is [`ErrorKind::Invalid`].
    ///
    /// # Panics
    ///
    /// It panics when called inside a closure, like every database call.
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

    /// Runs `f` over one snapshot, on a thread and connection for long reads. It stops with
    /// [`ErrorKind::Timeout`] after [`Options::long_read_time`], and soon after its future is dropped. It
    /// needs a Tokio runtime with time.
    ///
    /// # Panics
    ///
    /// It panics when called inside a closure, like every database call.
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

    /// Runs `f` in a transaction, and returns its success or refusal once that is durable. An `Err` or a
    /// panic rolls back the changes of `f` alone. If the future is dropped, `f` runs only if it was already
    /// taken from the queue.
    ///
    /// A full queue, a full disk, a broken file or an unreachable server is [`ErrorKind::Unavailable`]. A
    /// failed commit is [`ErrorKind::Unknown`].
    ///
    /// On PostgreSQL the transaction is READ COMMITTED. `f` runs again, within [`Options::closure_time`],
    /// after a conflict with another transaction, or if the connection was lost before the commit was sent.
    /// PostgreSQL needs a Tokio runtime with time.
    ///
    /// # Panics
    ///
    /// It panics when called inside a closure, like every database call.
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
                return Err(E::from(Error::invalid(format!("{name}: the database was opened read-only"))));
            }
            Deadline::note_write();
            match &self.engine {
                Engine::Sqlite(sqlite) => sqlite.write(name, f).await,
                Engine::Postgres(postgres) => postgres.write(name, f).await,
            }
        }
    }

    /// Brings the schema up to `migrations`, in their order. It checks that the applied steps match them, and
    /// that a binary of `binary_version` (`major.minor.patch`) may run on the result. Any number of processes
    /// may call it at once. It blocks. [`ErrorKind::Schema`] names the step that does not match.
    ///
    /// # Panics
    ///
    /// It panics when called inside a closure, like every database call.
    pub fn migrate(&self, migrations: &[Migration], binary_version: &str) -> Result<MigrationReport, Error> {
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

    /// Compares the schema with `migrations` as [`Self::migrate`] does, and changes nothing. It blocks.
    ///
    /// # Panics
    ///
    /// It panics when called inside a closure, like every database call.
    pub fn compare(&self, migrations: &[Migration], binary_version: &str) -> Result<SchemaComparison, Error> {
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

    /// The steps applied to this database, sorted by migration and step; empty if it was never migrated. It
    /// blocks.
    ///
    /// # Panics
    ///
    /// It panics when called inside a closure, like every database call.
    pub fn schema(&self) -> Result<Vec<AppliedStep>, Error> {
        closure::assert_outside("schema");
        match &self.engine {
            Engine::Sqlite(sqlite) => migrate::applied(&mut *sqlite.for_schema()?),
            Engine::Postgres(postgres) => postgres.on_schema(|schema| migrate::applied(schema)),
        }
    }

    /// For tests: the closures that held the writer for too long, each told once.
    #[doc(hidden)]
    pub fn held_too_long(&self) -> Vec<String> {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.options().watch.as_deref().map(Watch::take).unwrap_or_default(),
            Engine::Postgres(_) => Vec::new(),
        }
    }

    fn is_postgres(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// The maximum number of long reads that run at once.
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
            pauses: counters.pauses.load(Ordering::Relaxed),
        }
    }

    /// Checks that the database works. On SQLite, the writer reaches its queue, its last flush and copy of
    /// the log succeeded, and a reader reads the file. On PostgreSQL, the server answers and takes writes.
    /// The check writes nothing, except that it retries a failed flush of the log. It waits as long as a
    /// write waits for its turn, so give it a time limit.
    ///
    /// # Panics
    ///
    /// It panics when called inside a closure, like every database call.
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

    /// The clock of the database server; `None` for SQLite, which has no server.
    pub async fn clock(&self) -> Result<Option<Timestamp>, Error> {
        if !self.is_postgres() {
            return Ok(None);
        }
        self.read("db.clock", |tx| tx.one("SELECT clock_timestamp()", &[], |row| row.get(0).map(Some))).await
    }

    /// Finishes the waiting writes (on PostgreSQL those that have a connection), copies the WAL into the file
    /// and closes it. Every later call gets [`ErrorKind::Unavailable`]. It blocks. Dropping the last clone
    /// does the same.
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
    describe_histogram!("ward_db_batch_size", "Writes per commit on SQLite");
    describe_counter!("ward_db_batches_total", "Commits on SQLite, by how they ended");
    describe_gauge!("ward_db_log_bytes", "Size of SQLite's log");
    describe_counter!(
        "ward_db_log_copies_failed_total",
        "Failed attempts to copy SQLite's log into the database file"
    );
    describe_counter!(
        "ward_db_flushes_failed_total",
        "Failed flushes on SQLite, by file; a failed flush of the database file ends the server"
    );
    describe_gauge!("ward_db_pool_size", "Maximum number of connections to PostgreSQL, by pool");
    describe_gauge!("ward_db_pool_connections", "Open connections to PostgreSQL");
    describe_counter!("ward_db_connections_refused_total", "Failed attempts to connect to PostgreSQL");
    describe_gauge!("ward_db_pool_busy", "Connections to PostgreSQL in use, by pool");
    describe_histogram!(
        "ward_db_pool_wait_seconds",
        "Time that calls waited for a connection, only of calls that had to wait, by pool"
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

/// The path in a `sqlite:` URL. An error repeats only the scheme, because the rest of a URL may hold a password.
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
