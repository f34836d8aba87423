//! One connection: its settings, portable SQL on it, and the reads of a closure.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics::Histogram;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{CachedStatement, Connection};

use super::alone::resolved;
use super::flush::Flushes;
use super::quiet::OpenMode;
use crate::counters::{Counters, add};
use crate::options::{Options, Recorder};
use crate::{Error, ErrorKind, Value, lex};

/// Prepared statements kept per connection: more than the product has, so that none is prepared twice.
const STATEMENTS: usize = 1_024;

/// The size to which the WAL file shrinks after a burst: several checkpoints' worth, so that it is rarely cut
/// and regrown.
const WAL_BYTES: u32 = 128 << 20;

/// Page caches in KiB, filled only as pages are used. Every commit that a reader sees empties its cache. Its
/// misses go to the operating system's cache, so a larger one would not help. The writer's cache survives
/// commits. But many commits walk through its whole index: at 64 MiB that walk took a tenth of the writer's
/// time.
const READER_CACHE: i64 = 8 << 10;
const WRITER_CACHE: i64 = 16 << 10;

/// Virtual machine steps of a long read between two pauses, in which it also checks the clock: well below a
/// millisecond.
const STEPS_PER_LOOK: i32 = 10_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Read,
    LongRead,
    Write,
    Migrate,
}

impl Role {
    const fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::LongRead => "long_read",
            Self::Write => "write",
            Self::Migrate => "migrate",
        }
    }
}

/// The shared data from which connections are made.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) options: Options,
    /// The state of the file's flushes.
    pub(super) flushes: Flushes,
    /// A second descriptor of the file, for its lock and for the copier's flushes.
    pub(super) kept: Option<Arc<File>>,
    way: OpenMode,
}

impl Source {
    pub(super) fn new(path: PathBuf, options: Options, kept: Option<File>) -> Self {
        let flushes = Flushes::new(resolved(&path));
        Self { path, options, flushes, kept: kept.map(Arc::new), way: OpenMode::Usual }
    }

    /// The same source with another way of opening its file.
    pub(super) fn opened_by(self, way: OpenMode) -> Self {
        Self { way, ..self }
    }

    /// Ends the locks that [`super::alone`] puts on the file.
    pub(super) fn release(&self) {
        if let Some(kept) = &self.kept {
            let _ = kept.unlock();
        }
    }

    /// The file that the copier flushes, if this process serves it durably.
    pub(super) fn file(&self) -> Option<Arc<File>> {
        self.kept.clone().filter(|_| self.options.serve_lock && self.options.flush)
    }

    /// Puts the file into WAL mode, which the file then keeps. When several processes open a new file at
    /// once, SQLite tells all but one that it is busy. It says so at once, because its own time-out does not
    /// apply here.
    fn write_ahead(&self, raw: &Connection) -> Result<(), Error> {
        let until = Instant::now() + self.options.busy_timeout;
        loop {
            match raw.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)) {
                Ok(mode) if mode == "wal" => return Ok(()),
                Ok(mode) => {
                    return Err(Error::unavailable(format!(
                        "the database stays in journal mode {mode}, not wal"
                    )));
                }
                Err(error) => {
                    let error = Error::from(error);
                    if error.kind() != ErrorKind::Conflict || Instant::now() >= until {
                        return Err(error.with_kind(ErrorKind::Unavailable, "the database cannot be used"));
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    /// Whether the log holds commits that are not copied into the file yet, judged by its size.
    fn log_holds_commits(&self) -> bool {
        std::fs::metadata(self.flushes.log()).is_ok_and(|log| log.len() > 0)
    }

    pub(super) fn connect(&self, role: Role) -> Result<Box<Conn>, Error> {
        let mut raw = self.way.open(&self.path).map_err(|error| {
            let error = Error::from(error);
            Error::unavailable(format!("the database {} cannot be opened: {error}", self.path.display()))
                .because(error)
        })?;
        let wal_pages = Arc::new(AtomicUsize::new(0));
        raw.busy_timeout(self.options.busy_timeout)?;
        if self.options.read_only {
            raw.pragma_update(None, "query_only", true)?;
            // The last connection that closes copies the log into the file, which is a change. Recovery is
            // left to the server.
            let holds_commits = self.way != OpenMode::Usual || self.log_holds_commits();
            raw.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, holds_commits)?;
        } else {
            self.write_ahead(&raw)?;
        }
        let synchronous = if self.options.flush { "FULL" } else { "OFF" };
        raw.pragma_update(None, "synchronous", synchronous)?;
        raw.pragma_update(None, "foreign_keys", true)?;
        let foreign_keys: bool = raw.pragma_query_value(None, "foreign_keys", |row| row.get(0))?;
        if !foreign_keys {
            return Err(Error::unavailable("this SQLite was built without foreign keys"));
        }
        raw.pragma_update(None, "trusted_schema", false)?;
        // Without this guarantee a plan may depend on bound values, and SQLite would plan a cached statement
        // again for every use. Parsing would then cost more than running.
        raw.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        match role {
            Role::Read | Role::LongRead => {
                raw.pragma_update(None, "query_only", true)?;
                // SQLite hides a failed flush when a closing connection copies the log. The writer copies
                // instead, and checks.
                if !self.options.read_only {
                    raw.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
                }
                raw.pragma_update(None, "cache_size", -READER_CACHE)?;
            }
            Role::Write | Role::Migrate => {
                raw.pragma_update(None, "cache_size", -WRITER_CACHE)?;
                // Savepoints copy the pages that they change: into memory, instead of a temporary file with
                // I/O.
                raw.pragma_update(None, "temp_store", "MEMORY")?;
                // The hook replaces SQLite's own copies of the log, whose failed flushes SQLite hides.
                let told = Arc::clone(&wal_pages);
                raw.wal_hook(Some(move |_: &mut Wal, pages| {
                    told.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
                    Ok(())
                }))?;
                raw.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
                if let Some(pages) = self.options.max_page_count {
                    let _: i64 =
                        raw.pragma_update_and_check(None, "max_page_count", pages, |row| row.get(0))?;
                }
            }
        }
        raw.set_prepared_statement_cache_capacity(STATEMENTS);
        let recorder = self.options.recorder.clone();
        Ok(Box::new(Conn {
            raw,
            role,
            wal_pages,
            recorder,
            spellings: RefCell::default(),
            timers: RefCell::default(),
            _kept: self.kept.clone(),
        }))
    }
}

/// One connection and its caches. One thread at a time owns it, so nothing in it locks.
pub(crate) struct Conn {
    pub(super) raw: Connection,
    role: Role,
    /// Pages in the WAL after the last commit, on the writer's connection.
    pub(super) wal_pages: Arc<AtomicUsize>,
    recorder: Option<Arc<Recorder>>,
    spellings: RefCell<HashMap<TextKey, Spelling, BuildHasherDefault<TextKeyHasher>>>,
    timers: RefCell<HashMap<TextKey, Histogram, BuildHasherDefault<TextKeyHasher>>>,
    /// [`Source::kept`], held by every connection and declared after `raw`, so that it closes after the last
    /// connection. When a process closes any descriptor of a file, the system drops all its locks on that
    /// file, including SQLite's. (fcntl(2), "Advisory record locking".)
    _kept: Option<Arc<File>>,
}

/// A text's address and length in memory. Texts of the program itself never move, so this finds them without
/// reading them. For any other text, the found text must be compared.
type TextKey = (usize, usize);

fn place(text: &str) -> TextKey {
    (text.as_ptr().addr(), text.len())
}

struct Spelling {
    portable: Box<str>,
    sqlite: Box<str>,
}

/// Mixes two machine words. The keys are addresses, which no outsider can choose.
#[derive(Default)]
struct TextKeyHasher(u64);

impl Hasher for TextKeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_usize(byte.into());
        }
    }

    fn write_usize(&mut self, word: usize) {
        self.0 = (self.0.rotate_left(5) ^ word as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // The table takes its buckets from the low bits, where a multiplication mixes least.
        self.0 ^= self.0 >> 32;
    }
}

impl Conn {
    /// The prepared statement for a portable text, with `params` bound.
    fn prepare(&self, sql: &str, params: &[Value<'_>]) -> Result<CachedStatement<'_>, Error> {
        let mut statement = {
            let mut spellings = self.spellings.borrow_mut();
            match spellings.get(&place(sql)) {
                Some(known) if *known.portable == *sql => self.raw.prepare_cached(&known.sqlite)?,
                _ => {
                    if lex::controls_transaction(sql) {
                        return Err(Error::invalid("a closure must not begin or end transactions itself"));
                    }
                    if let Some(recorder) = &self.recorder {
                        recorder.note(sql);
                    }
                    let spelling = Spelling { portable: sql.into(), sqlite: lex::for_sqlite(sql).into() };
                    let statement = self.raw.prepare_cached(&spelling.sqlite)?;
                    // Texts built at run time never return at the same address, so a full table is emptied.
                    if spellings.len() >= STATEMENTS {
                        spellings.clear();
                    }
                    spellings.insert(place(sql), spelling);
                    statement
                }
            }
        };
        // SQLite would treat a missing value as NULL.
        let wanted = statement.parameter_count();
        if wanted != params.len() {
            return Err(Error::invalid(format!(
                "the statement has {wanted} parameters, {} are given",
                params.len()
            )));
        }
        for (index, &value) in params.iter().enumerate() {
            bind(&mut statement, index + 1, value)?;
        }
        Ok(statement)
    }

    pub(crate) fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<u64, Error> {
        let mut statement = self.prepare(sql, params).map_err(|e| self.seen(e))?;
        let readonly = statement.readonly();
        let mut rows = statement.raw_query();
        while rows.next().map_err(|e| self.seen(e.into()))?.is_some() {}
        drop(rows);
        // `changes()` counts the last statement that changed rows, and a query is not one.
        Ok(if readonly { 0 } else { self.raw.changes() })
    }

    /// Maps the first row. The outer error comes from SQL, the inner one from `map`.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        map: impl FnOnce(&rusqlite::Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<Result<T, Error>>, Error> {
        let mut statement = self.prepare(sql, params).map_err(|e| self.seen(e))?;
        let readonly = statement.readonly();
        let mut rows = statement.raw_query();
        let mapped = rows.next().map_err(|e| self.seen(e.into()))?.map(map);
        // A change with RETURNING checks its foreign keys only at the end of its rows.
        while !readonly && rows.next().map_err(|e| self.seen(e.into()))?.is_some() {}
        Ok(mapped)
    }

    /// Passes every row to `take` until it fails. The outer error comes from SQL, the inner one from `take`.
    pub(crate) fn each(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut take: impl FnMut(&rusqlite::Row<'_>) -> Result<(), Error>,
    ) -> Result<Result<(), Error>, Error> {
        let mut statement = self.prepare(sql, params).map_err(|e| self.seen(e))?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(|e| self.seen(e.into()))? {
            if let Err(error) = take(row) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// The error with its meaning on this connection.
    fn seen(&self, error: Error) -> Error {
        let refused_change = std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<rusqlite::Error>())
            .and_then(rusqlite::Error::sqlite_error_code)
            == Some(rusqlite::ErrorCode::ReadOnly);
        if refused_change && matches!(self.role, Role::Read | Role::LongRead) {
            return error.with_kind(ErrorKind::Invalid, "a change inside a read");
        }
        error
    }

    /// Runs a statement of this crate, without parameters or translation, and ignores its rows.
    pub(crate) fn raw(&self, sql: &str) -> Result<(), Error> {
        let mut statement = self.raw.prepare_cached(sql)?;
        let mut rows = statement.raw_query();
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// Runs every statement of a text of this crate's own.
    pub(crate) fn script(&self, sql: &str) -> Result<(), Error> {
        self.raw.execute_batch(sql).map_err(Error::from)
    }

    /// Whether the connection has no open transaction.
    pub(crate) fn idle(&self) -> bool {
        self.raw.is_autocommit()
    }

    /// Records how long a closure ran. The handle is kept, since building a metric's key costs more than a read.
    pub(super) fn time(&self, name: &'static str, span: Duration) {
        let mut timers = self.timers.borrow_mut();
        let timer = timers.entry(place(name)).or_insert_with(
            || metrics::histogram!("ward_db_closure_seconds", "closure" => name, "kind" => self.role.label()),
        );
        timer.record(span);
    }

    /// Makes statements pause now and then, and stop at the deadline or when the flag is set; `None` removes
    /// both.
    ///
    /// In a pause the thread offers its processor to threads that are ready. The assumption is that a kernel lets a
    /// thread that has just begun run until its next tick, so that long reads on every processor delay each step of a
    /// short request. No measurement confirms the gain yet; a pause costs one system call.
    pub(super) fn stop_when(
        &mut self,
        when: Option<(Instant, Arc<AtomicBool>)>,
        counters: &Arc<Counters>,
    ) -> Result<(), Error> {
        let counters = Arc::clone(counters);
        let handler = when.map(|(deadline, abandoned)| {
            move || {
                add(&counters.pauses, 1);
                std::thread::yield_now();
                abandoned.load(Ordering::Relaxed) || Instant::now() >= deadline
            }
        });
        self.raw.progress_handler(STEPS_PER_LOOK, handler).map_err(Error::from)
    }
}

fn bind(statement: &mut CachedStatement<'_>, index: usize, value: Value<'_>) -> Result<(), Error> {
    match value {
        Value::Null => statement.raw_bind_parameter(index, rusqlite::types::Null),
        Value::Bool(flag) => statement.raw_bind_parameter(index, flag),
        Value::Int(number) => statement.raw_bind_parameter(index, number),
        Value::Text(text) | Value::Json(text) => {
            if text.as_bytes().contains(&0) {
                return Err(Error::invalid(format!("parameter {index} holds a NUL character")));
            }
            statement.raw_bind_parameter(index, text)
        }
        Value::Uuid(id) => statement.raw_bind_parameter(index, id.as_bytes().as_slice()),
        Value::Time(time) => statement.raw_bind_parameter(index, time.micros()),
        Value::Bytes(bytes) => statement.raw_bind_parameter(index, bytes),
    }
    .map_err(Error::from)
}
