//! The only writer: a thread that takes all waiting closures and commits them with one sync. When more wait
//! than one batch holds, the tenants are served in turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{Gauge, Histogram, counter, gauge, histogram};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::conn::{Conn, Role, Source};
use super::copier::{Copier, copy};
use super::read_mark::ReadMark;
use crate::counters::{Counters, add};
use crate::turns::{Party, Turns};
use crate::tx::Tx;
use crate::{Error, ErrorKind, closure};

/// Pages (of 4 KiB) in the WAL at which they are copied into the file. A checkpoint costs two syncs and
/// writes every distinct page once, so rare checkpoints cost less. The price is 32 MiB to read after a crash.
const CHECKPOINT_PAGES: usize = 8_192;

/// The bytes of a page in SQLite's log: the page and its header.
const PAGE_BYTES: f64 = 4_096.0 + 24.0;

/// The number of further pages after which a checkpoint is tried again that a reader's snapshot kept from
/// finishing.
const CHECKPOINT_AGAIN: usize = CHECKPOINT_PAGES / 4;

/// The number of batches after a refusal in which each closure runs in its own savepoint. A savepoint costs
/// about a tenth of a write; running a batch again costs all of it.
const WARY_BATCHES: u32 = 64;

/// The maximum number of one tenant's writes in a batch, so that a batch is short for the tenants that wait for it.
/// Beside 64 writing clients, this brought another tenant's p99 from 2.6 to 1.4 times its p99 alone.
const BATCH_EACH: usize = 32;

/// How long closing waits for readers before it leaves the WAL to the next start.
const LAST_CHECKPOINT: Duration = Duration::from_millis(100);

pub(super) struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The work that waits for the thread.
struct Queue {
    state: Mutex<QueueState>,
    told: Condvar,
    /// The maximum number of waiting closures, and the part of it that the requests of one party may have.
    most: usize,
    most_each: usize,
}

struct QueueState {
    jobs: Turns<Box<dyn Job>>,
    /// The parties of the present batch, one entry for each closure.
    batch: Vec<Party>,
    probes: Vec<oneshot::Sender<Result<(), Error>>>,
    /// Nothing more is accepted, and the thread ends when the queue is empty.
    stopped: bool,
}

impl Queue {
    fn new(most: usize) -> Self {
        let most = most.max(1);
        let jobs = Turns::new(BATCH_EACH);
        let state = QueueState { jobs, batch: Vec::new(), probes: Vec::new(), stopped: false };
        Self { state: Mutex::new(state), told: Condvar::new(), most, most_each: (most / 2).max(1) }
    }

    /// Queues a job. A refused job is dropped after the lock is released, because its drop may drop more.
    fn push(&self, party: Party, job: Box<dyn Job>) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(gone());
        }
        let is_full = state.jobs.waiting() >= self.most;
        if is_full || (party.is_request() && state.jobs.waiting_of(party) >= self.most_each) {
            counter!("ward_db_errors_total", "kind" => "queue_full").increment(1);
            return Err(Error::unavailable("the write queue is full"));
        }
        state.jobs.push(party, job);
        self.told.notify_one();
        Ok(())
    }

    fn probe(&self, sender: oneshot::Sender<Result<(), Error>>) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(gone());
        }
        state.probes.push(sender);
        self.told.notify_one();
        Ok(())
    }

    /// Waits for work and moves the next batch to `jobs`. `None`: the queue was stopped, and it is empty.
    fn take(
        &self,
        jobs: &mut Vec<Box<dyn Job>>,
        most: usize,
    ) -> Option<Vec<oneshot::Sender<Result<(), Error>>>> {
        let mut state = self.state.lock();
        for party in std::mem::take(&mut state.batch) {
            state.jobs.done(party);
        }
        while state.jobs.waiting() == 0 && state.probes.is_empty() {
            if state.stopped {
                return None;
            }
            self.told.wait(&mut state);
        }
        while jobs.len() < most
            && let Some((party, job)) = state.jobs.pop()
        {
            state.batch.push(party);
            jobs.push(job);
        }
        Some(std::mem::take(&mut state.probes))
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.told.notify_one();
    }

    /// Refuses what waits, when the thread has ended for any reason.
    fn end(&self) {
        let (jobs, probes) = {
            let mut state = self.state.lock();
            state.stopped = true;
            (state.jobs.extract(|_| true), std::mem::take(&mut state.probes))
        };
        // Dropping a job answers it, and may drop more; so it happens without the lock.
        drop((jobs, probes));
    }
}

fn gone() -> Error {
    Error::unavailable("the writer is gone")
}

/// Ends the queue with the thread, even when the thread panics.
struct EndsQueue(Arc<Queue>);

impl Drop for EndsQueue {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Writer {
    pub(super) fn start(source: Arc<Source>, counters: Arc<Counters>) -> Result<Self, Error> {
        let conn = source.connect(Role::Write)?;
        // These exist from the start, so that an alert can tell zero from missing.
        counter!("ward_db_flushes_failed_total", "file" => "log").absolute(0);
        counter!("ward_db_log_copies_failed_total").absolute(0);
        let mark = ReadMark::new(&source)?;
        let copier = Copier::start(&source)?;
        let queue = Arc::new(Queue::new(source.options.write_queue));
        let most = source.options.write_batch.max(1);
        let state = Thread {
            source,
            counters,
            conn,
            mark,
            copier,
            copying: false,
            log_bytes: gauge!("ward_db_log_bytes"),
            batch_size: histogram!("ward_db_batch_size"),
            commit_time: histogram!("ward_db_commit_seconds"),
            checkpoint_at: CHECKPOINT_PAGES,
            wary: 0,
        };
        let thread = std::thread::Builder::new()
            .name("ward-db-writer".into())
            .spawn({
                let ends = EndsQueue(Arc::clone(&queue));
                move || state.run(&ends.0, most)
            })
            .map_err(|error| Error::unavailable("the writer thread cannot be started").because(error))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Queues a job. A job that cannot be queued is dropped, which answers it.
    pub(super) fn submit(&self, job: Box<dyn Job>) -> Result<(), Error> {
        self.queue.push(Party::current(job.name(), true), job)
    }

    /// Resolves before the writer's next batch, with an error while the log cannot be flushed or copied.
    pub(super) async fn probe(&self) -> Result<(), Error> {
        let (sender, answer) = oneshot::channel();
        self.queue.probe(sender)?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Finishes the queue, makes a last checkpoint and ends the thread.
    pub(super) fn stop(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        self.queue.stop();
        // The last handle may be a closure's capture, dropped on the writer itself, which must not wait for
        // itself.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// One waiting write, with any type of result.
pub(super) trait Job: Send {
    /// Whether the caller has gone before the closure started.
    fn abandoned(&self) -> bool;
    /// Runs the closure; returns whether its changes should be kept.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// The closure's name, for its metrics.
    fn name(&self) -> &'static str;
    /// Sends the closure's result, or the batch's failure instead.
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

/// One closure and the channel for its answer. If it is dropped unanswered, it answers with an error, so that
/// no caller waits for a thread that is gone.
pub(super) struct QueuedWrite<T, E: From<Error>, F> {
    name: &'static str,
    f: F,
    outcome: Option<Result<T, E>>,
    started: bool,
    reply: Option<oneshot::Sender<Result<T, E>>>,
}

impl<T, E: From<Error>, F> QueuedWrite<T, E, F>
where
    F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    pub(super) fn queued(name: &'static str, f: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T, E>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { name, f, outcome: None, started: false, reply: Some(reply) }), answer)
    }
}

impl<T, E: From<Error>, F> Drop for QueuedWrite<T, E, F> {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            let error = if self.started {
                Error::new(ErrorKind::Unknown, "the writer gave up on the batch")
            } else {
                Error::unavailable("the writer stopped before it reached this write")
            };
            let _ = reply.send(Err(E::from(error)));
        }
    }
}

impl<T, E, F> Job for QueuedWrite<T, E, F>
where
    F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    fn abandoned(&self) -> bool {
        !self.started && self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        self.started = true;
        let outcome = closure::run(self.name, tx, &mut self.f);
        let keep = outcome.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn answer(mut self: Box<Self>, failure: Option<&Error>) {
        let outcome = match failure {
            Some(error) => Some(Err(E::from(error.clone()))),
            None => self.outcome.take(),
        };
        // A job without an outcome was skipped, and its caller is gone.
        if let (Some(reply), Some(outcome)) = (self.reply.take(), outcome) {
            let _ = reply.send(outcome);
        }
    }
}

struct Thread {
    source: Arc<Source>,
    counters: Arc<Counters>,
    conn: Box<Conn>,
    mark: ReadMark,
    copier: Option<Copier>,
    /// Whether the copier is at work, or has left the rest to be copied here.
    copying: bool,
    log_bytes: Gauge,
    batch_size: Histogram,
    commit_time: Histogram,
    checkpoint_at: usize,
    /// The number of further batches in which each closure runs in its own savepoint.
    wary: u32,
}

/// The counts of one run of a batch. A run that starts again does not count.
#[derive(Default)]
struct Ran {
    closures: u64,
    statements: u64,
}

impl Ran {
    fn count(&self, counters: &Counters) {
        add(&counters.writes, self.closures);
        add(&counters.statements, self.statements);
    }
}

fn aborted(error: Error) -> Error {
    error.with_kind(ErrorKind::Unavailable, "the batch was rolled back")
}

/// The meaning of a failed commit. A commit is a mark on its last page in the WAL. If the disk was full
/// before that page was complete, there is no mark and certainly no commit. After any other error the mark
/// may exist.
fn failed_commit(error: Error) -> Error {
    if error.is_disk_full() {
        return aborted(error);
    }
    error.with_kind(ErrorKind::Unknown, "the commit failed, and its changes may or may not have been made")
}

impl Thread {
    fn run(mut self, queue: &Queue, most: usize) {
        let mut jobs: Vec<Box<dyn Job>> = Vec::with_capacity(most);
        // The closures that arrived during the last commit are the next batch.
        while let Some(probes) = queue.take(&mut jobs, most) {
            for sender in probes {
                let _ = sender.send(self.probe());
            }
            // Panics of the callers' closures are caught one by one; this is for other panics.
            if catch_unwind(AssertUnwindSafe(|| self.batch(&mut jobs))).is_err() {
                tracing::error!("the writer panicked outside a closure");
                self.recover();
            }
            jobs.clear();
            self.checkpoint();
            // This comes after the answers, so that none of them waits for it.
            self.mark.hold_newest();
        }
        let Self { source, conn, mark, copier, .. } = self;
        drop(copier);
        // This must close before the writer's connection, which as the last one removes the empty log.
        drop(mark);
        if source.flushes.is_marked() {
            source.flushes.end_for_mark();
        }
        let _ = conn.raw.busy_timeout(LAST_CHECKPOINT);
        match conn.raw("PRAGMA wal_checkpoint(TRUNCATE)") {
            Err(error) if error.is_failed_flush() => {
                source.flushes.end("a flush failed while the log was copied into the database file", &error);
            }
            Err(error) => {
                tracing::warn!(%error, "the log could not be copied into the file; the next start does so");
            }
            Ok(()) => {}
        }
    }

    /// Retries the write, flush or copy that failed last, so that a server without writes notices when its disk
    /// recovers.
    fn probe(&self) -> Result<(), Error> {
        let flushes = &self.source.flushes;
        if flushes.log_failed() {
            let version: i64 = self.conn.raw.pragma_query_value(None, "user_version", |row| row.get(0))?;
            // A commit that changes nothing but is flushed.
            let flushed = self.conn.raw.pragma_update(None, "user_version", version).map_err(Error::from);
            if flushed.as_ref().map_or_else(Error::is_failed_io, |()| true) {
                flushes.note_log(flushed.is_err());
            }
            flushed.map_err(|error| error.with_kind(ErrorKind::Unavailable, "the log cannot be written"))?;
        }
        if flushes.copy_failed()
            && self.copier.as_ref().is_none_or(|copier| !self.copying || copier.is_done())
        {
            self.mark.release();
            copy(&self.conn, flushes);
        }
        if flushes.copy_failed() {
            return Err(Error::unavailable("the log cannot be copied into the database file"));
        }
        Ok(())
    }

    /// Runs `jobs` in one transaction. No job is answered before it ends.
    fn batch(&mut self, jobs: &mut Vec<Box<dyn Job>>) {
        jobs.retain(|job| !job.abandoned());
        if jobs.is_empty() {
            return;
        }
        self.batch_size.record(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        let failure = self.transaction(jobs).err();
        if let Some(error) = &failure {
            tracing::error!(%error, closures = jobs.len(), "a batch of writes failed; its callers get the error");
            counter!("ward_db_errors_total", "kind" => error.kind().label()).increment(1);
            self.recover();
            if error.is_failed_io() {
                self.log_failed();
            }
        }
        let outcome = if failure.is_some() { "failed" } else { "committed" };
        counter!("ward_db_batches_total", "outcome" => outcome).increment(1);
        for job in jobs.drain(..) {
            job.answer(failure.as_ref());
        }
    }

    /// Commits the work of `jobs`. The closures first run together. If one of several is refused, the
    /// transaction starts again with each closure in its own savepoint, and so do the next batches.
    fn transaction(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), Error> {
        self.begin()?;
        let ran = if self.wary > 0 {
            self.wary -= 1;
            self.apart(jobs)?
        } else {
            let (ran, refused) = self.together(jobs)?;
            if refused {
                self.conn.raw("ROLLBACK").map_err(aborted)?;
                if jobs.len() == 1 {
                    // The refusal undid everything, so there is nothing to run again and nothing to commit.
                    ran.count(&self.counters);
                    return Ok(());
                }
                self.begin()?;
                self.apart(jobs)?
            } else {
                ran
            }
        };
        ran.count(&self.counters);
        self.source.flushes.refuse_while_ending().map_err(aborted)?;
        let started = Instant::now();
        self.conn.raw("COMMIT").map_err(failed_commit)?;
        if self.source.flushes.log_failed() {
            tracing::info!("the log can be written again");
            self.source.flushes.note_log(false);
        }
        self.commit_time.record(started.elapsed());
        add(&self.counters.commits, 1);
        Ok(())
    }

    /// Begins the transaction. A first attempt does not wait. If the file is busy, the mark is released
    /// before the wait: another program's checkpoint may hold the write lock until no mark is held.
    fn begin(&self) -> Result<(), Error> {
        self.conn.raw.busy_timeout(Duration::ZERO)?;
        let begun = self.conn.raw("BEGIN IMMEDIATE");
        self.conn.raw.busy_timeout(self.source.options.busy_timeout)?;
        begun
            .or_else(|error| {
                if error.kind() != ErrorKind::Conflict {
                    return Err(error);
                }
                self.mark.release();
                self.conn.raw("BEGIN IMMEDIATE")
            })
            .map_err(|error| error.with_kind(ErrorKind::Unavailable, "the file cannot be written now"))
    }

    /// Runs the closures without savepoints up to the first refusal; the flag tells whether there was one.
    /// Savepoints would copy every page that a closure touches, and few closures need them.
    fn together(&self, jobs: &mut [Box<dyn Job>]) -> Result<(Ran, bool), Error> {
        let mut ran = Ran::default();
        for job in jobs.iter_mut().filter(|job| !job.abandoned()) {
            if !self.run_job(job.as_mut(), &mut ran)? {
                return Ok((ran, true));
            }
        }
        Ok((ran, false))
    }

    /// Runs each closure in its own savepoint. While refusals occur, the next batches run the same way, so
    /// that running batches twice does not become the rule.
    fn apart(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<Ran, Error> {
        let mut ran = Ran::default();
        for job in jobs.iter_mut().filter(|job| !job.abandoned()) {
            self.conn.raw("SAVEPOINT closure").map_err(aborted)?;
            if !self.run_job(job.as_mut(), &mut ran)? {
                self.wary = WARY_BATCHES;
                self.conn.raw("ROLLBACK TO closure").map_err(aborted)?;
            }
            self.conn.raw("RELEASE closure").map_err(aborted)?;
        }
        Ok(ran)
    }

    /// Runs one closure; returns whether its changes should be kept. An error fails the whole batch.
    fn run_job(&self, job: &mut dyn Job, ran: &mut Ran) -> Result<bool, Error> {
        let started = Instant::now();
        let mut tx = Tx::sqlite(&self.conn);
        let name = job.name();
        let keep = match &self.source.options.watch {
            Some(watch) => watch.over(name, || job.run(&mut tx)),
            None => job.run(&mut tx),
        };
        self.conn.time(name, started.elapsed());
        ran.closures += 1;
        ran.statements += tx.statements();
        // After a full disk, an I/O error, a lack of memory or an interrupt, SQLite ends sometimes the
        // transaction and sometimes only the statement. Either way the disk is in trouble for every member of
        // the batch.
        let disk = tx.failure().filter(|e| matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout));
        if let Some(error) = disk {
            return Err(aborted(error.clone()));
        }
        if self.conn.idle() {
            return Err(Error::unavailable("the transaction ended by itself"));
        }
        Ok(keep)
    }

    /// Lets the copier copy a long WAL into the file, and copies the rest when the copier has finished.
    /// SQLite's own way copies within the commit, so the whole batch would wait. Here only the next batch
    /// waits, and only for the rest.
    fn checkpoint(&mut self) {
        let pages = self.conn.wal_pages.load(Ordering::Relaxed);
        self.log_bytes.set(u32::try_from(pages).map_or(f64::INFINITY, f64::from) * PAGE_BYTES);
        if self.copying {
            if self.copier.as_ref().is_some_and(|copier| !copier.is_done()) {
                return;
            }
        } else if pages < self.checkpoint_at {
            // The log has restarted.
            if pages < CHECKPOINT_PAGES {
                self.checkpoint_at = CHECKPOINT_PAGES;
            }
            return;
        } else if self.can_copy_beside() {
            self.copying = true;
            return;
        }
        self.copying = false;
        self.checkpoint_at = pages + CHECKPOINT_AGAIN;
        self.mark.release();
        copy(&self.conn, &self.source.flushes);
    }

    /// Handles a failed write or flush of the log. The system reports a failed flush once through every
    /// descriptor open at that time. So the copier gets new descriptors; it would take the report for a
    /// failure of its own.
    fn log_failed(&mut self) {
        tracing::error!(
            "the log could not be written or flushed: the outcome of these writes is unknown, and the server is not \
            ready until a commit succeeds. Check the disk; a restart is not needed"
        );
        self.source.flushes.note_log(true);
        self.copier = None;
        self.copying = false;
        self.start_copier();
    }

    /// Starts a copy on the copier's thread; false if there is none.
    fn can_copy_beside(&mut self) -> bool {
        if self.copier.is_none() {
            self.start_copier();
        }
        self.copier.as_ref().is_some_and(Copier::begin)
    }

    fn start_copier(&mut self) {
        match Copier::start(&self.source) {
            Ok(copier) => self.copier = copier,
            Err(error) => {
                tracing::warn!(%error, "the copier cannot be started yet; the writer copies the log itself");
            }
        }
    }

    /// Returns to a connection without a transaction, a new one if needed.
    fn recover(&mut self) {
        if self.conn.idle() || (self.conn.raw("ROLLBACK").is_ok() && self.conn.idle()) {
            return;
        }
        match self.source.connect(Role::Write) {
            Ok(conn) => self.conn = conn,
            Err(error) => tracing::error!(%error, "the writer's connection cannot be replaced yet"),
        }
    }
}
