//! One session: a connection, the statements prepared on it, and the transaction that runs on it.

mod link;
mod run;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use metrics::{Histogram, counter, histogram};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_postgres::{Client, Row};

use super::error::{Again, certainly_rolled_back, takes_no_writes, told};
use super::flight::{DeferredChange, FlightOutcome, fits, perform, together};
use super::known::{Statements, learn};
use super::mode::{Mode, Source, begin, statement_time};
use super::values::BoundValue;
use crate::counters::add;
use crate::value::Value;
use crate::{Error, ErrorKind};

/// How much longer than the server's own timeout this side waits for a statement.
const GRACE: Duration = Duration::from_millis(500);

/// The time limit of optional messages to the server: a goodbye, or the cancellation of a statement.
const COURTESY: Duration = Duration::from_secs(1);

/// One call of a closure, with its limits.
pub(super) struct Job<'c> {
    pub(super) name: &'static str,
    pub(super) mode: Mode,
    pub(super) until: Instant,
    /// The end of the wait for the commit; `None`: the time limit of a statement applies.
    pub(super) commit_until: Option<Instant>,
    /// Resolves when the caller stops waiting; `None` if the closure is finished even then.
    pub(super) gone: Option<&'c mut oneshot::Receiver<()>>,
}

struct Link {
    client: Client,
    driver: tokio::task::JoinHandle<()>,
    known: Statements,
    made: Instant,
    expires: Instant,
    /// The value of [`Source::trusted`] when the connection was made.
    trusted: u64,
}

/// The closure that runs, and the state of its transaction.
struct RunningClosure {
    name: &'static str,
    mode: Mode,
    until: Instant,
    commit_until: Option<Instant>,
    gone: Option<oneshot::Receiver<()>>,
    /// Whether a read without a transaction has sent its statement.
    sent: bool,
    /// Whether `BEGIN` was sent, so that the transaction must be ended.
    begun: bool,
    again: Option<Again>,
    /// Deferred changes, which are sent with the next statement. They belong to this transaction and end with
    /// it.
    kept: Vec<DeferredChange>,
}

impl RunningClosure {
    const fn new(name: &'static str, mode: Mode, until: Instant) -> Self {
        Self {
            name,
            mode,
            until,
            commit_until: None,
            gone: None,
            sent: false,
            begun: false,
            again: None,
            kept: vec![],
        }
    }
}

/// A session belongs to one thread, which also drives its connection. A statement and its rows therefore need
/// no hop to another thread.
pub(crate) struct Session {
    source: Arc<Source>,
    runtime: Runtime,
    link: Option<Link>,
    running: RunningClosure,
    /// Whether the thread has slept since the connection last read from the server.
    slept: bool,
    /// Whether the last closure lost its connection while the server had no room for another.
    starved: bool,
    timers: HashMap<(&'static str, Mode), Histogram>,
    commit_time: Histogram,
}

enum TransactionEnd<T> {
    Done(T),
    OutOfTime,
    Abandoned,
}

impl Session {
    pub(super) fn new(source: Arc<Source>) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::unavailable("a session's event loop cannot be made").because(error))?;
        let running = RunningClosure::new("", Mode::Single, Instant::now());
        let commit_time = histogram!("ward_db_commit_seconds");
        Ok(Self {
            source,
            runtime,
            link: None,
            running,
            slept: true,
            starved: false,
            timers: HashMap::new(),
            commit_time,
        })
    }

    /// Notes that the session's thread sleeps.
    pub(super) const fn slept(&mut self) {
        self.slept = true;
    }

    /// Runs a statement after the deferred changes; returns its rows and the number of rows that it changed.
    pub(crate) fn statement(&mut self, sql: &str, params: &[Value<'_>]) -> Result<(Vec<Row>, u64), Error> {
        let Self { source, runtime, link, running, .. } = self;
        let Some(Link { client, known, .. }) = link else {
            return Err(Error::unavailable("the connection to the database is lost"));
        };
        let entry = learn(known, sql, params, source.options.recorder.as_deref())?;
        if entry.changes && matches!(running.mode, Mode::Single | Mode::Read | Mode::LongRead) {
            return Err(Error::invalid("a change inside a read"));
        }
        if running.mode == Mode::Single && std::mem::replace(&mut running.sent, true) {
            source.several.write().insert(running.name);
            running.again = Some(Again::Snapshot);
            return Err(Error::new(ErrorKind::Conflict, "a second statement needs the first one's snapshot"));
        }
        let changes = entry.changes;
        let bound: Vec<BoundValue<'_>> = params.iter().map(|&value| BoundValue(value)).collect();
        let begin = (!running.begun).then(|| begin(running.mode, source)).flatten();
        let kept = std::mem::take(&mut running.kept);
        let statement = perform(client, &mut entry.prepared, sql, &bound, source.target.named);
        let flight = together(client, begin.as_deref(), &kept, statement);
        let silent = Instant::now() + silence(running.mode, source, kept.len());
        let ended = drive(runtime, running.until.min(silent), running.gone.as_mut(), flight);
        running.begun |= begin.is_some();
        match ended {
            TransactionEnd::Done(FlightOutcome {
                begun: Ok(()),
                kept: Ok(()),
                last: Ok((rows, changed)),
                ..
            }) => Ok((rows, if changes { changed } else { 0 })),
            TransactionEnd::Done(FlightOutcome { begun: Err(error), ran, last, .. }) => {
                Err(self.no_transaction(&error, ran > 0 || (changes && last.is_ok())))
            }
            TransactionEnd::Done(
                FlightOutcome { kept: Err(error), .. } | FlightOutcome { last: Err(error), .. },
            ) => Err(self.failed(&error)),
            TransactionEnd::OutOfTime => {
                if Instant::now() >= silent && source.target.sessions {
                    // The server did not even stop the statement at its own timeout, so it is frozen or cut
                    // off.
                    source.distrust();
                }
                Err(self.give_up("the time limit was reached"))
            }
            TransactionEnd::Abandoned => Err(self.give_up("the caller stopped waiting")),
        }
    }

    /// Runs a change whose row count is not needed. It is sent with the next statement, which then reports
    /// its error.
    pub(crate) fn statement_later(&mut self, sql: &str, params: &[Value<'_>]) -> Result<(), Error> {
        if let Some(Link { known, .. }) = &mut self.link
            && self.running.mode == Mode::Write
        {
            let entry = learn(known, sql, params, self.source.options.recorder.as_deref())?;
            let bound: Vec<BoundValue<'_>> = params.iter().map(|&value| BoundValue(value)).collect();
            if let Some(statement) = entry.prepared.as_ref().filter(|known| fits(known, &bound)) {
                let values = bound.iter().map(BoundValue::encoded).collect();
                self.running.kept.push(DeferredChange { statement: statement.clone(), values });
                return Ok(());
            }
        }
        // An unprepared statement takes a round trip anyway.
        self.statement(sql, params).map(drop)
    }

    /// Runs every statement of a text of this crate, inside the transaction.
    pub(crate) fn script(&mut self, sql: &str) -> Result<(), Error> {
        let Self { source, runtime, link, running, .. } = self;
        let Some(Link { client, .. }) = link else {
            return Err(Error::unavailable("the connection to the database is lost"));
        };
        let begin = (!running.begun).then(|| begin(running.mode, source)).flatten();
        let script = async {
            if let Some(begin) = &begin
                && let Err(error) = client.batch_execute(begin).await
            {
                return Err((error, true));
            }
            client.batch_execute(sql).await.map_err(|error| (error, false))
        };
        let ended = drive(runtime, running.until, None, script);
        running.begun |= begin.is_some();
        match ended {
            TransactionEnd::Done(Ok(())) => Ok(()),
            TransactionEnd::Done(Err((error, true))) => Err(self.no_transaction(&error, false)),
            TransactionEnd::Done(Err((error, false))) => Err(self.failed(&error)),
            TransactionEnd::OutOfTime | TransactionEnd::Abandoned => {
                Err(self.give_up("the time limit was reached"))
            }
        }
    }

    /// Handles a statement's error: its consequences for the session, and the error for the closure.
    fn failed(&mut self, error: &tokio_postgres::Error) -> Error {
        let (told, again) = told(error);
        self.running.again = again;
        if again == Some(Again::Foreign) && self.source.target.sessions {
            tracing::warn!(
                %told,
                "a prepared statement does not belong to this session. If a pooler in transaction mode stands between \
                Ward and the database, add `pooler=transaction` to the database's URL, or `statement_cache=off` if the \
                pooler does not support prepared statements. Otherwise one Ward's statement may run in place of another's"
            );
        }
        if again == Some(Again::Lost) {
            self.link = None;
            if takes_no_writes(error) {
                self.source.distrust();
            }
        }
        told
    }

    /// Handles a refused transaction: the server is a standby or a former primary. It can say so in several
    /// ways, and the closure runs again on another server.
    fn no_transaction(&mut self, error: &tokio_postgres::Error, changed: bool) -> Error {
        let (told, again) = told(error);
        self.link = None;
        // A change ran by itself, outside the transaction that was meant to hold it.
        if changed {
            return told.with_kind(ErrorKind::Unknown, "no transaction began");
        }
        // A connection that merely ended says nothing about the server.
        if again != Some(Again::Lost) || takes_no_writes(error) {
            self.source.distrust();
        }
        self.running.again = Some(Again::Lost);
        told.with_kind(ErrorKind::Unavailable, "no transaction began")
    }

    /// Checks that the server takes writes.
    pub(super) fn probe(&mut self, until: Instant) -> Result<(), Error> {
        self.starved = false;
        self.running = RunningClosure::new("check", Mode::Single, until);
        self.connected()?;
        let (rows, _) = self.statement("show transaction_read_only", &[])?;
        let answer = rows.first().and_then(|row| row.try_get::<_, String>(0).ok());
        if answer.as_deref() == Some("off") {
            return Ok(());
        }
        self.link = None;
        self.source.distrust();
        Err(Error::unavailable("the database takes no writes"))
    }

    /// Abandons a statement that did not end. The connection is unusable from then on. A separate thread
    /// tells the server, because the caller has no time left.
    fn give_up(&mut self, why: &'static str) -> Error {
        if let Some(link) = self.link.take() {
            let token = link.client.cancel_token();
            let tls = self.source.target.tls.clone();
            let told = std::thread::Builder::new().name("ward-db-cancel".into()).spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let _ = drive(&runtime, Instant::now() + COURTESY, None, token.cancel_query(tls));
                Ok::<_, std::io::Error>(())
            });
            if let Err(error) = told {
                tracing::debug!(%error, "an abandoned statement cannot be cancelled and runs to its own end");
            }
        }
        Error::new(ErrorKind::Timeout, why)
    }

    /// Commits. Deferred changes are sent together with the commit.
    fn commit(&mut self) -> Result<(), Error> {
        let Self { source, runtime, link, running, .. } = self;
        let counters = &source.counters;
        let kept = std::mem::take(&mut running.kept);
        if !running.begun && kept.is_empty() {
            if running.mode == Mode::Write {
                add(&counters.commits, 1);
            }
            return Ok(());
        }
        if matches!(running.mode, Mode::Read | Mode::LongRead) {
            self.let_go();
            return Ok(());
        }
        let unknown = "the commit failed, and its changes may or may not have been made";
        let Some(Link { client, .. }) = link else { return Err(Error::new(ErrorKind::Unknown, unknown)) };
        let begin = (!running.begun).then(|| begin(running.mode, source)).flatten();
        let started = Instant::now();
        let most = started + silence(running.mode, source, kept.len());
        let limit = running.commit_until.map_or(most, |until| until.min(most));
        let flight = together(client, begin.as_deref(), &kept, client.batch_execute("COMMIT"));
        let ended = drive(runtime, limit, None, flight);
        running.begun = false;
        let error = match ended {
            TransactionEnd::Done(FlightOutcome { begun: Ok(()), kept: Ok(()), last: Ok(()), .. }) => {
                if running.mode == Mode::Write {
                    self.commit_time.record(started.elapsed());
                    add(&counters.commits, 1);
                }
                return Ok(());
            }
            TransactionEnd::Done(FlightOutcome { begun: Err(error), ran, .. })
                if error.as_db_error().is_some() =>
            {
                self.no_transaction(&error, ran > 0)
            }
            // The server reported that a change failed, so it turned the commit into a rollback.
            TransactionEnd::Done(FlightOutcome { kept: Err(error), last, .. })
                if error.as_db_error().is_some() =>
            {
                let error = self.failed(&error);
                if last.is_err() {
                    self.link = None;
                }
                error
            }
            TransactionEnd::Done(FlightOutcome { begun: Ok(()), kept: Ok(()), last: Err(error), .. })
                if certainly_rolled_back(&error) =>
            {
                let (error, again) = told(&error);
                running.again = again;
                error
            }
            TransactionEnd::Done(
                FlightOutcome { begun: Err(error), .. }
                | FlightOutcome { kept: Err(error), .. }
                | FlightOutcome { last: Err(error), .. },
            ) => {
                self.link = None;
                told(&error).0.with_kind(ErrorKind::Unknown, unknown)
            }
            TransactionEnd::OutOfTime | TransactionEnd::Abandoned => {
                self.link = None;
                Error::new(ErrorKind::Unknown, unknown)
            }
        };
        counter!("ward_db_errors_total", "kind" => error.kind().label()).increment(1);
        if error.kind() == ErrorKind::Unknown {
            tracing::error!(%error, "a commit failed, and its changes may or may not have been made");
        }
        Err(error)
    }

    /// Ends a transaction that changed nothing, without waiting for the server's answer: later statements on
    /// the connection follow it anyway.
    fn let_go(&mut self) {
        if !std::mem::take(&mut self.running.begun) {
            return;
        }
        let Some(link) = &self.link else { return };
        self.runtime.block_on(async {
            let mut sent = std::pin::pin!(link.client.batch_execute("COMMIT"));
            std::future::poll_fn(|cx| {
                let _ = sent.as_mut().poll(cx);
                Poll::Ready(())
            })
            .await;
            // One yield lets the connection write the message.
            tokio::task::yield_now().await;
        });
    }

    fn roll_back(&mut self) {
        self.running.kept.clear();
        if matches!(self.running.mode, Mode::Read | Mode::LongRead) && self.running.again.is_none() {
            return self.let_go();
        }
        if !std::mem::take(&mut self.running.begun) {
            return;
        }
        let Some(link) = &self.link else { return };
        let rolled = link.client.batch_execute("ROLLBACK");
        if !matches!(
            drive(&self.runtime, Instant::now() + COURTESY, None, rolled),
            TransactionEnd::Done(Ok(()))
        ) {
            self.link = None;
        }
    }
}

/// Runs `future` on this thread, together with the task of the connection.
fn drive<F: Future>(
    runtime: &Runtime,
    until: Instant,
    gone: Option<&mut oneshot::Receiver<()>>,
    future: F,
) -> TransactionEnd<F::Output> {
    let abandoned = async {
        match gone {
            Some(gone) => drop(gone.await),
            None => std::future::pending().await,
        }
    };
    runtime.block_on(async {
        tokio::select! {
            biased;
            done = future => TransactionEnd::Done(done),
            () = tokio::time::sleep_until(until.into()) => TransactionEnd::OutOfTime,
            () = abandoned => TransactionEnd::Abandoned,
        }
    })
}

/// How long the server may be silent before this side gives up, when `before` statements are sent before the
/// last one.
fn silence(mode: Mode, source: &Source, before: usize) -> Duration {
    let statements = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
    statement_time(mode, &source.options).saturating_mul(statements) + GRACE
}

/// A random number from 0 to below 1.
fn share() -> f64 {
    let random = crate::ambient::number().unwrap_or(u32::MAX / 2);
    f64::from(random) / (f64::from(u32::MAX) + 1.0)
}
