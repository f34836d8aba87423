//! Complete copies of a SQLite file: made while a server writes, checked, and restored.
//!
//! A copy is made by SQLite's online backup, over *one* snapshot held from the first page to the last. Two
//! other ways exist, each with a drawback:
//!
//! - The usual online backup copies a few pages at a time and releases the snapshot in between. Every commit
//!   of another process restarts it, so beside a busy server it never ends.
//! - `VACUUM INTO` holds one snapshot too, but rewrites every row and index. That takes several times the
//!   processor time, and silently repairs a damaged index of the original in the copy.
//!
//! In WAL mode a held snapshot does not stop writers. But the WAL cannot restart while the snapshot is held.
//! The `-wal` file grows by the writes made meanwhile, and shrinks with the next checkpoint.

use std::ffi::c_int;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup as Copying, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::alone::{lock_name, lock_to_read, resolved};
use super::conn::{Conn, Role, Source};
use super::flush::{beside, flush_folder, folder_of};
use super::make_private;
use super::quiet::{OpenMode, Stamp};
use crate::tx::Tx;
use crate::{Error, ErrorKind, Migration, Options, migrate, names_postgres, sqlite_path};

/// Pages (of 4 KiB) copied between two progress reports.
const STEP_PAGES: c_int = 512;
/// Steps between two flushes of the copy. A commit's flush may have to wait for all dirty data on the same
/// disk, so the copy must leave little of it.
const STEPS_PER_FLUSH: u32 = 8;
/// The number of bytes of a file that are read at once.
const CHUNK: usize = 1 << 20;
const HEADER: &[u8] = b"SQLite format 3\0";

/// The stage of a backup or a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The database's pages are being copied.
    Copying,
    /// The copy is read again for its digest.
    Digesting,
    /// Every page, index and table is being checked.
    Checking,
}

/// The progress of a backup or a check.
#[derive(Clone, Copy, Debug)]
pub struct BackupProgress {
    /// The stage that `done` and `total` count.
    pub stage: Stage,
    /// Bytes done in this stage. For [`Stage::Checking`], parts of the check.
    pub done: u64,
    /// The value of `done` at the end of the stage.
    pub total: u64,
}

/// A finished backup, flushed to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// The path, as it was given.
    pub file: PathBuf,
    /// The length of the file in bytes.
    pub bytes: u64,
    /// The SHA-256 of the file in 64 lower-case hexadecimal digits, as `sha256sum` prints it.
    pub sha256: String,
}

/// The number of rows of one table of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// The table's name, not quoted for SQL.
    pub table: String,
    /// The number of rows after the migration.
    pub rows: u64,
}

/// A backup that was checked on a scratch copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckedBackup {
    /// The backup's path, length and digest.
    #[serde(flatten)]
    pub backup: Backup,
    /// The steps that serving the backup with this binary would apply, as `name/step`.
    pub applied: Vec<String>,
    /// The tables after these steps, in the order of their names.
    pub tables: Vec<Rows>,
}

/// Copies the current content of the database at `url` into the new file `to`, beside a server that may use
/// it. It blocks.
///
/// Every write acknowledged before the call is in the copy. The copy grows under a temporary name in the same
/// folder, and gets its own name once it is complete and on the disk. An existing file is never overwritten.
/// Only the owner may read the copy.
pub fn make(url: &str, to: &Path, mut progress: impl FnMut(BackupProgress)) -> Result<Backup, Error> {
    let path = path_of(url)?;
    refuse_existing(to)?;
    make_private(&path, false)?;
    let temporary = new_beside(to)?;
    copy_unchanged(&path, &temporary, &mut progress)?;
    let bytes = length(temporary.as_file())?;
    let file = File::open(temporary.path()).map_err(|error| trouble("the copy cannot be read", error))?;
    let sha256 = stream(file, &mut std::io::sink(), bytes, Stage::Digesting, &mut progress)?;
    publish(temporary, to)?;
    Ok(Backup { file: to.to_owned(), bytes, sha256 })
}

/// Copies the pages without a change to the database, its log or the log's index. A server may start meanwhile. It finds
/// no lock and may write, so the pages are then copied again beside it.
fn copy_unchanged(
    path: &Path,
    to: &NamedTempFile,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<(), Error> {
    let resolved = resolved(path);
    let kept = File::open(path).map_err(|error| trouble("the database cannot be opened", error))?;
    let stopped = lock_to_read(&kept, &resolved)?;
    let way = OpenMode::to_read(&resolved, stopped);
    let stamp = Stamp::of(&resolved);
    let options = Options { read_only: true, ..Options::default() };
    let source = Source::new(path.to_owned(), options, Some(kept)).opened_by(way);
    source.release();
    let copied = source.connect(Role::LongRead).and_then(|conn| copy_pages(&conn, to, progress));
    // Beside a server, SQLite's own locks protect the pages.
    if !stopped || stamp == Stamp::of(&resolved) {
        return copied;
    }
    to.as_file().set_len(0).map_err(|error| trouble("the copy cannot be written", error))?;
    let source = source.opened_by(OpenMode::to_read(&resolved, false));
    copy_pages(&*source.connect(Role::LongRead)?, to, progress)
}

fn copy_pages(
    source: &Conn,
    to: &NamedTempFile,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<(), Error> {
    let page_bytes: u32 = source.raw.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to.path(), flags)?;
    // No reader sees this file before it is complete, so it needs no journal. It is flushed below.
    copy.pragma_update_and_check(None, "journal_mode", "off", |_| Ok(()))?;
    copy.pragma_update(None, "synchronous", "off")?;
    // The first read takes the snapshot, and the backup uses the open transaction.
    source.raw("BEGIN")?;
    source.raw("SELECT count(*) FROM (SELECT 1 FROM sqlite_schema LIMIT 1)")?;
    let copying = Copying::new(&source.raw, &mut copy)?;
    for step in 1_u32.. {
        let stepped = copying.step(STEP_PAGES)?;
        let pages = copying.progress();
        let bytes = |pages: c_int| u64::try_from(pages).unwrap_or(0) * u64::from(page_bytes);
        progress(BackupProgress {
            stage: Stage::Copying,
            done: bytes(pages.pagecount - pages.remaining),
            total: bytes(pages.pagecount),
        });
        match stepped {
            StepResult::Done => break,
            StepResult::More => {}
            _ => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "another program has locked the database exclusively: close it and try again",
                ));
            }
        }
        if step % STEPS_PER_FLUSH == 0 {
            to.as_file().sync_data().map_err(|error| trouble("the copy cannot be flushed", error))?;
        }
    }
    drop(copying);
    source.raw("ROLLBACK")?;
    copy.close().map_err(|(_, error)| Error::from(error))
}

/// Checks a backup on a scratch copy in the system's folder for temporary files, and only reads the backup
/// itself. The copy must open, every page, index and reference must be sound, and it must migrate to
/// `migrations`. The result has the numbers of rows after that. It blocks.
pub fn check(
    file: &Path,
    migrations: &[Migration],
    binary_version: &str,
    mut progress: impl FnMut(BackupProgress),
) -> Result<CheckedBackup, Error> {
    refuse_open_database(file)?;
    let folder = tempfile::Builder::new()
        .prefix("ward-check-")
        .tempdir()
        .map_err(|error| trouble("a folder for the scratch copy cannot be made", error))?;
    let scratch = folder.path().join("ward.db");
    make_private(&scratch, true)?;
    let backup = copy_file(
        file,
        &mut File::options()
            .write(true)
            .open(&scratch)
            .map_err(|e| trouble("the scratch copy cannot be written", e))?,
        &mut progress,
    )?;
    let mut conn =
        Source::new(scratch, Options { flush: false, ..Options::default() }, None).connect(Role::Migrate)?;
    let mut at = |done| progress(BackupProgress { stage: Stage::Checking, done, total: 4 });
    at(0);
    sound(&conn, "PRAGMA integrity_check", |said| said != "ok")?;
    at(1);
    sound(&conn, "PRAGMA foreign_key_check", |_| true)?;
    at(2);
    if migrate::applied(&mut *conn)?.is_empty() {
        return Err(Error::invalid(format!("{} is not a Ward database", file.display())));
    }
    let applied = migrate::migrate(&mut *conn, migrations, binary_version)?.applied;
    at(3);
    let tables = count(&conn)?;
    at(4);
    Ok(CheckedBackup { backup, applied, tables })
}

/// Checks a backup, then puts it in the place of the database at `url`, migrated and changed by `amend`. That
/// place must be empty, and no server may use it. It blocks.
pub fn restore(
    file: &Path,
    url: &str,
    migrations: &[Migration],
    binary_version: &str,
    amend: impl FnOnce(&mut Tx<'_>) -> Result<(), Error>,
    mut progress: impl FnMut(BackupProgress),
) -> Result<CheckedBackup, Error> {
    let path = path_of(url)?;
    let _lock = lock_name(&resolved(&path))?;
    for part in ["", "-wal", "-journal"] {
        refuse_existing(&beside(&path, part))?;
    }
    let checked = check(file, migrations, binary_version, &mut progress)?;
    let mut temporary = new_beside(&path)?;
    let copied = copy_file(file, temporary.as_file_mut(), &mut progress)?;
    if copied != checked.backup {
        return Err(Error::new(
            ErrorKind::Conflict,
            "the backup changed while it was being restored: restore it again",
        ));
    }
    let source = Source::new(temporary.path().to_owned(), Options::default(), None);
    let mut conn = source.connect(Role::Migrate)?;
    migrate::migrate(&mut *conn, migrations, binary_version)?;
    conn.transaction(|tx| amend(tx).map(|()| true))?;
    conn.raw("PRAGMA wal_checkpoint(TRUNCATE)")?;
    // The last connection removes the empty log when it closes, so only the file remains.
    conn.raw.close().map_err(|(_, error)| Error::from(error))?;
    refuse_existing(&beside(temporary.path(), "-wal"))?;
    publish(temporary, &path)?;
    Ok(checked)
}

fn path_of(url: &str) -> Result<PathBuf, Error> {
    if names_postgres(url) {
        return Err(Error::invalid(
            "a PostgreSQL database is backed up and restored with PostgreSQL's own tools: see docs/operate/backup.md",
        ));
    }
    sqlite_path(url).map(PathBuf::from)
}

fn trouble(what: &str, error: std::io::Error) -> Error {
    Error::unavailable(format!("{what}: {error}")).because(error)
}

fn refuse_existing(file: &Path) -> Result<(), Error> {
    match file.symlink_metadata() {
        Ok(_) => {
            Err(Error::invalid(format!("{} already exists, and Ward does not overwrite it", file.display())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(trouble(&format!("the metadata of {} cannot be read", file.display()), error)),
    }
}

/// Refuses a file with a WAL or journal beside it: a database in use, or a raw copy of one, which may lack
/// its last commits.
fn refuse_open_database(file: &Path) -> Result<(), Error> {
    for suffix in ["-wal", "-journal"] {
        if beside(file, suffix).metadata().is_ok_and(|there| there.len() > 0) {
            return Err(Error::invalid(format!(
                "{} has a {suffix} file beside it, so it is a database and not a backup: make a backup with `ward backup`",
                file.display()
            )));
        }
    }
    Ok(())
}

/// An empty file in the same folder as `file`, readable only by its owner. It is deleted with this value
/// unless it is published.
fn new_beside(file: &Path) -> Result<NamedTempFile, Error> {
    tempfile::Builder::new().prefix(".ward-unfinished-").tempfile_in(folder_of(file)).map_err(|error| {
        trouble(&format!("nothing can be written in the folder {}", folder_of(file).display()), error)
    })
}

/// Flushes a finished file and gives it its name, if that name is free.
fn publish(temporary: NamedTempFile, to: &Path) -> Result<(), Error> {
    temporary.as_file().sync_all().map_err(|error| trouble("the copy cannot be flushed", error))?;
    temporary.persist_noclobber(to).map_err(|failed| match failed.error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::invalid(format!("{} already exists, and Ward does not overwrite it", to.display()))
        }
        _ => trouble(&format!("the copy cannot be renamed to {}", to.display()), failed.error),
    })?;
    // The name must be as durable as the file.
    flush_folder(to).map_err(|error| trouble("the folder cannot be flushed", error))
}

fn length(file: &File) -> Result<u64, Error> {
    file.metadata()
        .map(|there| there.len())
        .map_err(|error| trouble("the length of a file cannot be read", error))
}

fn copy_file(from: &Path, to: &mut File, progress: &mut dyn FnMut(BackupProgress)) -> Result<Backup, Error> {
    let cannot = |error| trouble(&format!("{} cannot be read", from.display()), error);
    let mut file = File::open(from).map_err(cannot)?;
    let bytes = length(&file)?;
    let mut header = Vec::new();
    Read::by_ref(&mut file).take(HEADER.len() as u64).read_to_end(&mut header).map_err(cannot)?;
    if header != HEADER {
        return Err(Error::invalid(format!("{} is not a SQLite file", from.display())));
    }
    let whole = header.as_slice().chain(file);
    let sha256 = stream(whole, to, bytes, Stage::Copying, progress)?;
    Ok(Backup { file: from.to_owned(), bytes, sha256 })
}

/// Copies all bytes, and returns their SHA-256 in hexadecimal.
fn stream(
    mut from: impl Read,
    to: &mut impl Write,
    total: u64,
    stage: Stage,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(trouble("a file cannot be read", error)),
        };
        hash.update(&chunk[..read]);
        to.write_all(&chunk[..read]).map_err(|error| trouble("a copy cannot be written", error))?;
        done += read as u64;
        progress(BackupProgress { stage, done, total });
    }
    Ok(migrate::hex(&hash.finalize()))
}

/// Runs one of SQLite's checks. A row for which `bad` is true reports damage.
fn sound(conn: &Conn, check: &str, bad: impl Fn(&str) -> bool) -> Result<(), Error> {
    let damaged = |what: &str| Error::new(ErrorKind::Decode, format!("the database is damaged: {what}"));
    let mut statement = conn.raw.prepare(check)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(|error| damaged(&error.to_string()))? {
        // The text holds names of tables and indexes, but no value of a row.
        let said: String = row.get(0)?;
        if bad(&said) {
            return Err(damaged(&said));
        }
    }
    Ok(())
}

fn count(conn: &Conn) -> Result<Vec<Rows>, Error> {
    let mut tx = Tx::sqlite(conn);
    let names: Vec<String> = tx.all(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
        &[],
        |row| row.get(0),
    )?;
    names
        .into_iter()
        .map(|table| {
            let rows: i64 = tx.one(&format!("SELECT count(*) FROM \"{table}\""), &[], |row| row.get(0))?;
            Ok(Rows { table, rows: u64::try_from(rows).unwrap_or(0) })
        })
        .collect()
}
