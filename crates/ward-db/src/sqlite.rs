//! SQLite: one file, readers on the calling thread, one writer thread that commits in groups.

mod alone;
pub mod backup;
mod conn;
mod copier;
mod flush;
mod fold;
mod long_threads;
mod quiet;
mod read_mark;
mod readers;
mod run;
mod writer;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::counters::{Counters, add};
use crate::tx::Tx;
use crate::{Error, ErrorKind, Options};
pub use alone::{flush_mark, opened_by};
pub(crate) use conn::Conn;
use conn::{Role, Source};
use long_threads::LongThreads;
use quiet::OpenMode;
use readers::Readers;
use writer::{QueuedWrite, Writer};

/// SQLite versions (both ends included) in which two connections that reset the WAL at once could corrupt the
/// file.
const CORRUPTING: std::ops::RangeInclusive<i32> = 3_007_000..=3_051_002;

pub(crate) struct Sqlite {
    file: Arc<Source>,
    counters: Arc<Counters>,
    readers: Readers,
    long_readers: Readers,
    long_permits: Arc<tokio::sync::Semaphore>,
    /// `None`: the file was opened read-only.
    writer: Option<Writer>,
    long_threads: LongThreads,
    closed: AtomicBool,
    /// Held as long as this value lives, and never read.
    lock: Mutex<Option<File>>,
}

impl Sqlite {
    pub(crate) fn open(path: &str, options: Options) -> Result<Self, Error> {
        let version = rusqlite::version_number();
        if CORRUPTING.contains(&version) {
            return Err(Error::schema(format!(
                "SQLite {} can corrupt a file that two connections use; Ward needs 3.51.3 or later",
                rusqlite::version()
            )));
        }
        let path = PathBuf::from(path);
        make_private(&path, options.create && !options.read_only)?;
        let resolved = alone::resolved(&path);
        let lock = options.serve_lock.then(|| alone::lock_name(&resolved)).transpose()?;
        // Tests without flushes open one file several times in one process. Closing this descriptor would end
        // SQLite's locks.
        let kept = (options.serve_lock || options.flush).then(|| File::open(&path)).transpose();
        let kept = kept.map_err(|error| {
            Error::unavailable(format!("the database {} cannot be opened: {error}", path.display()))
                .because(error)
        })?;
        let locked = match &kept {
            Some(file) if options.serve_lock => alone::lock_file(file, &resolved).map(|()| true)?,
            Some(file) if options.read_only => alone::lock_to_read(file, &resolved)?,
            Some(file) => alone::lock_to_open(file, &resolved)?,
            None => false,
        };
        // A running server has this name, so the log is beside it.
        if locked {
            alone::refuse_other_names(&resolved)?;
        }
        let way = if options.read_only && kept.is_some() {
            OpenMode::to_read(&resolved, locked)
        } else {
            OpenMode::Usual
        };
        let file = Arc::new(Source::new(path, options, kept).opened_by(way));
        if file.options.flush && !file.options.read_only {
            fold::fold(&file, !locked)?;
        }
        let counters = Arc::new(Counters::default());
        let writer = (!file.options.read_only)
            .then(|| Writer::start(Arc::clone(&file), Arc::clone(&counters)))
            .transpose()?;
        if locked && !file.options.serve_lock && !file.options.read_only {
            // The log exists now, so a command that reads finds it.
            file.release();
        }
        if file.options.serve_lock && file.options.flush {
            // SQLite ignores the result of flushing a new log's directory entry.
            flush::flush_folder(&resolved).map_err(|error| {
                let folder = flush::folder_of(&resolved).display();
                Error::unavailable(format!("the folder {folder} cannot be flushed: {error}")).because(error)
            })?;
        }
        Ok(Self {
            readers: Readers::new(Arc::clone(&file), Role::Read, file.options.readers),
            long_readers: Readers::new(Arc::clone(&file), Role::LongRead, file.options.long_readers),
            long_permits: Arc::new(tokio::sync::Semaphore::new(file.options.long_readers.max(1))),
            long_threads: LongThreads::new(file.options.long_readers),
            file,
            counters,
            writer,
            closed: AtomicBool::new(false),
            lock: Mutex::new(lock),
        })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.file.options
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    fn open_or_refuse(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            Err(Error::closed())
        } else {
            self.file.flushes.refuse_while_ending()
        }
    }

    pub(crate) fn read<T, E: From<Error>>(
        &self,
        name: &'static str,
        f: &mut impl FnMut(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.open_or_refuse()?;
        let conn = self.readers.take()?;
        add(&self.counters.reads, 1);
        let (result, reusable) = conn.snapshot(name, f, &self.counters);
        self.readers.give_back(conn, reusable);
        result
    }

    pub(crate) async fn read_long<T, E, F>(self: &Arc<Self>, name: &'static str, mut f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.open_or_refuse()?;
        let limit = self.file.options.long_read_time;
        let deadline = Instant::now() + limit;
        let permits = Arc::clone(&self.long_permits);
        let permit = tokio::time::timeout(limit, permits.acquire_owned())
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, format!("{name}: no long reader was free in time")))?
            .map_err(|_| Error::closed())?;
        let abandoned = Arc::new(AtomicBool::new(false));
        let _on_drop = Abandon(Arc::clone(&abandoned));
        let this = Arc::clone(self);
        let (answer, answered) = oneshot::channel();
        let read = move || {
            let _permit = permit;
            let mut conn = this.long_readers.take()?;
            if let Err(error) = conn.stop_when(Some((deadline, abandoned)), &this.counters) {
                this.long_readers.give_back(conn, false);
                return Err(E::from(error));
            }
            add(&this.counters.long_reads, 1);
            let (result, reusable) = conn.snapshot(name, &mut f, &this.counters);
            let reusable = reusable && conn.stop_when(None, &this.counters).is_ok();
            this.long_readers.give_back(conn, reusable);
            result
        };
        self.long_threads.run(Box::new(move || drop(answer.send(read()))))?;
        answered.await.unwrap_or_else(|_| Err(E::from(Error::closed())))
    }

    pub(crate) async fn write<T, E, F>(&self, name: &'static str, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.open_or_refuse()?;
        let (call, answer) = QueuedWrite::queued(name, f);
        self.writer.as_ref().ok_or_else(Error::closed)?.submit(call)?;
        // A call answers even when it is dropped, so only a bug in the writer closes the channel.
        answer.await.unwrap_or_else(|_| {
            Err(E::from(Error::new(ErrorKind::Unknown, format!("{name}: the writer gave no answer"))))
        })
    }

    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.open_or_refuse()?;
        if let Some(writer) = &self.writer {
            writer.probe().await?;
        }
        let conn = self.readers.take()?;
        // The schema table is on the file's first page, so this opens a real read transaction.
        let touched = conn.raw("SELECT count(*) FROM (SELECT 1 FROM sqlite_schema LIMIT 1)");
        self.readers.give_back(conn, touched.is_ok());
        touched
    }

    /// A connection for schema changes, owned by the caller.
    pub(crate) fn for_schema(&self) -> Result<Box<Conn>, Error> {
        self.open_or_refuse()?;
        self.file.connect(Role::Migrate)
    }

    pub(crate) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.long_permits.close();
        self.long_threads.close();
        self.readers.close();
        self.long_readers.close();
        if let Some(writer) = &self.writer {
            writer.stop();
        }
        // This comes last: another server may open the file only after this one's writer has closed it.
        self.file.release();
        self.lock.lock().take();
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

/// Tells a long read, when dropped, that its caller has gone.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Creates the file before SQLite does, so that other users can never read it. SQLite gives its WAL the same
/// mode.
fn make_private(path: &Path, create: bool) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    if !create {
        return Err(Error::invalid(format!("there is no database at {}", path.display())));
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    alone::private(&mut options);
    match options.open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::unavailable(format!("the database {} cannot be created: {error}", path.display()))
                .because(error))
        }
        _ => Ok(()),
    }
}
