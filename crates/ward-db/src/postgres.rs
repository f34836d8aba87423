//! PostgreSQL: a pool of threads with one connection each, and closures that run again when needed.
//!
//! Each closure has a connection and its thread to itself.
//!
//! - A write is one READ COMMITTED transaction. Its `BEGIN` travels with the first statement. A change whose
//!   row count the closure does not need travels with the next statement, at the latest with the commit.
//! - A read of one statement has no transaction and costs one round trip.
//! - A read that sends a second statement starts again in a REPEATABLE READ transaction. From then on every
//!   read of its name starts in one. Its `BEGIN` travels with the first statement, and the closure does not
//!   wait for its end, so it costs one round trip per statement. A long read is such a transaction too.
//!
//! Statements are prepared once per connection, and limits are set once per session. Neither works behind a
//! pooler that gives every transaction another session (pgbouncer in transaction mode). `?pooler=transaction`
//! sets limits inside transactions and relies on the pooler for prepared statements. pgbouncer supports these
//! from 1.21 on, with `max_prepared_statements` above 0. `?statement_cache=off` also sends every statement
//! unnamed.

mod connect;
mod error;
mod flight;
mod known;
mod mode;
mod pool;
mod session;
mod tls;
mod url;
mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::counters::Counters;
use crate::migrate::Schema;
use crate::turns::Party;
use crate::tx::Tx;
use crate::{Deadline, Error, ErrorKind, Options};
pub use mode::PLANS;
use mode::{Mode, Source};
use pool::{Bounds, Kind, Pool};
use session::Job;
pub(crate) use session::Session;
use url::Target;
pub(crate) use values::{Cell, cell};

pub(crate) struct Postgres {
    source: Arc<Source>,
    pool: Pool,
    closed: AtomicBool,
}

impl Postgres {
    /// Reads the URL and prepares the pool. It opens no connection yet.
    pub(crate) fn open(url: &str, options: Options) -> Result<Self, Error> {
        let target = Target::read(url)?;
        let source = Arc::new(Source::new(target, options));
        let options = &source.options;
        let short = Bounds { ready: options.ready_connections, most: options.connections };
        let long = Bounds { ready: options.long_readers, most: options.long_readers };
        Ok(Self { pool: Pool::new(Arc::clone(&source), short, long), source, closed: AtomicBool::new(false) })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.source.options
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.source.counters
    }

    fn open_or_refuse(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    pub(crate) async fn read<T, E, F>(&self, name: &'static str, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.call(name, Mode::Read, f).await
    }

    pub(crate) async fn read_long<T, E, F>(&self, name: &'static str, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.call(name, Mode::LongRead, f).await
    }

    pub(crate) async fn write<T, E, F>(&self, name: &'static str, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.call(name, Mode::Write, f).await
    }

    async fn call<T, E, F>(&self, name: &'static str, mode: Mode, mut f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.open_or_refuse()?;
        let options = &self.source.options;
        let long = mode == Mode::LongRead;
        let (kind, time, wait) = if long {
            (Kind::Long, options.long_read_time, options.long_read_time)
        } else {
            (Kind::Short, options.closure_time, options.busy_timeout.min(options.closure_time))
        };
        let (until, commit_until) = Deadline::bound(time);
        // A request waits until its deadline: a refusal now is no better than one then.
        let wait = if commit_until.is_some() { time } else { wait };
        let wait = wait.min(until.saturating_duration_since(Instant::now()));
        let (waiting, mut gone) = oneshot::channel::<()>();
        let work = move |session: &mut Session| {
            let call = Job { name, mode, until, commit_until, gone: long.then_some(&mut gone) };
            session.run(call, &mut f)
        };
        let outcome = self.pool.run(kind, Party::current(name, mode == Mode::Write), wait, work).await;
        drop(waiting);
        outcome.map_err(|error| {
            // A long read waits only for other long reads, so this is its own time limit.
            let late = long && error.kind() == ErrorKind::Unavailable && !self.pool.is_closed();
            if late { error.with_kind(ErrorKind::Timeout, name) } else { error }
        })?
    }

    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.open_or_refuse()?;
        let (until, _) = Deadline::bound(self.source.options.closure_time);
        let wait = self.source.options.busy_timeout;
        let party = Party::current("db.check", false);
        self.pool.run(Kind::Short, party, wait, move |session| session.probe(until)).await?
    }

    /// Runs `work` on a session of its own, for schema changes. It has its own thread as well, because the
    /// caller's thread may belong to a runtime, where blocking on another runtime is not allowed.
    pub(crate) fn on_schema<T: Send>(
        &self,
        work: impl FnOnce(&mut dyn Schema) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.open_or_refuse()?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut session = Session::new(Arc::clone(&self.source))?;
                session.connect_patiently(Instant::now() + ROOM_TIME)?;
                session.refuse_other_encodings()?;
                let result = work(&mut session);
                if let Some(mut unneeded) = self.pool.adopt(session) {
                    unneeded.retire();
                }
                result
            });
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Panic, "the migration's thread panicked")))
        })
    }

    pub(crate) fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.pool.close();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.close();
    }
}

/// How long a start waits for a connection while the server has none free: replicas need about as long to
/// yield one.
const ROOM_TIME: Duration = Duration::from_mins(1);

/// The time limit of a schema change. It leaves room to build an index over a large table.
const SCHEMA_TIME: Duration = Duration::from_hours(1);

impl Schema for Session {
    fn has_steps(&mut self) -> Result<bool, Error> {
        self.schema_call(|tx| {
            tx.optional(
                "select 1 from information_schema.tables
                 where table_schema = current_schema() and table_name = 'schema_steps'",
                &[],
                |_| Ok(()),
            )
            .map(|found| found.is_some())
        })
    }

    fn read(&mut self, work: &mut dyn FnMut(&mut Tx<'_>) -> Result<(), Error>) -> Result<(), Error> {
        self.schema_call(|tx| work(tx))
    }

    fn make(&mut self, script: &str) -> Result<(), Error> {
        // When two processes create a table at once, PostgreSQL refuses one of them with one of several
        // errors, even with `IF NOT EXISTS`. The refused one finds the table when it looks again.
        let made = self.schema_call(|tx| tx.script(script));
        match made {
            Err(_) if self.has_steps()? => Ok(()),
            made => made,
        }
    }

    fn apply(
        &mut self,
        claim: &mut dyn FnMut(&mut Tx<'_>) -> Result<bool, Error>,
        script: &str,
    ) -> Result<bool, Error> {
        self.schema_call(|tx| {
            if !claim(tx)? {
                return Ok(false);
            }
            tx.script(script).map(|()| true)
        })
    }
}

impl Session {
    fn schema_call<T>(&mut self, mut work: impl FnMut(&mut Tx<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let until = Instant::now() + SCHEMA_TIME;
        let call = Job { name: "schema", mode: Mode::Schema, until, commit_until: None, gone: None };
        self.run(call, &mut work)
    }
}
