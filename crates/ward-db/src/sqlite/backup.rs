//! Whole copies of a SQLite file: made beside a server that writes, tried out, and put back.
//!
//! A copy is made by SQLite's online backup, over *one* snapshot that is held from the first page to the last. The two
//! other ways were weighed:
//!
//! - The online backup as it is mostly used, a few pages at a time and letting go between: every commit of another
//!   process makes it begin anew, so beside a server that never stops writing it never ends.
//! - `VACUUM INTO` holds one snapshot too, but writes every row and index anew: several times the processor's time, and a
//!   damaged index of the original would be mended in the copy without a word.
//!
//! In WAL mode a held snapshot keeps nobody from writing. What it does keep back is the WAL's return to its beginning: for
//! as long as the copy takes, the `-wal` file grows by what is written meanwhile, and shrinks with the next checkpoint.

use std::ffi::c_int;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup as Copying, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::alone::{lock_name, resolved};
use super::conn::{Conn, Role, Source};
use super::flush::{beside, flush_folder, folder_of};
use super::make_private;
use crate::tx::Tx;
use crate::{Error, ErrorKind, Migration, Options, migrate, names_postgres, sqlite_path};

/// Pages (of 4 KiB) between two looks at how far it is.
const STEP_PAGES: c_int = 512;
/// Steps between two flushes of the copy. A commit's flush may have to wait for everything that is dirty on the same
/// disk: it must find little of the copy there.
const STEPS_PER_FLUSH: u32 = 8;
/// How much of a file is read at once.
const CHUNK: usize = 1 << 20;
const HEADER: &[u8] = b"SQLite format 3\0";

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Pages go over.
    Copying,
    /// The copy is read again for its digest.
    Digesting,
    /// Every page, index and table is looked at.
    Checking,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes done in this stage; of [`Stage::Checking`], parts of the check.
    pub done: u64,
    /// All of them.
    pub total: u64,
}

/// A backup, finished and flushed to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Where it is.
    pub file: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// The SHA-256 of the file, 64 lower-case hexadecimal digits: what `sha256sum` says.
    pub sha256: String,
}

/// A table of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// Its name.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
}

/// A backup that was tried out, on a copy of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Which.
    #[serde(flatten)]
    pub backup: Backup,
    /// The migrations' steps that serving it with this binary would apply, as `name/step`.
    pub applied: Vec<String>,
    /// How many rows each table has after them, in the order of their names.
    pub tables: Vec<Rows>,
}

/// Copies the database at `url` as it is now into the new file `to`, beside whoever serves it. Blocking.
///
/// Whatever was acknowledged before is in the copy. It grows under another name in the same folder and gets its own when
/// it is whole and on the disk; a file that is there already is never touched. Only its owner may read it.
pub fn make(url: &str, to: &Path, mut progress: impl FnMut(Progress)) -> Result<Backup, Error> {
    let path = path_of(url)?;
    refuse_existing(to)?;
    make_private(&path, false)?;
    let temporary = new_beside(to)?;
    let source = Source::new(path, Options::default(), None).connect(Role::LongRead)?;
    copy_pages(&source, &temporary, &mut progress)?;
    let bytes = length(temporary.as_file())?;
    let file = File::open(temporary.path()).map_err(|error| trouble("the copy cannot be read", error))?;
    let sha256 = stream(file, &mut std::io::sink(), bytes, Stage::Digesting, &mut progress)?;
    publish(temporary, to)?;
    Ok(Backup { file: to.to_owned(), bytes, sha256 })
}

fn copy_pages(source: &Conn, to: &NamedTempFile, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
    let page_bytes: u32 = source.raw.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to.path(), flags)?;
    // Nobody sees this file before it is whole, so there is nothing to roll back to; it is flushed below.
    copy.pragma_update_and_check(None, "journal_mode", "off", |_| Ok(()))?;
    copy.pragma_update(None, "synchronous", "off")?;
    // The snapshot is taken by the first look, and the backup uses the transaction that it finds.
    source.raw("BEGIN")?;
    source.raw("SELECT count(*) FROM (SELECT 1 FROM sqlite_schema LIMIT 1)")?;
    let copying = Copying::new(&source.raw, &mut copy)?;
    for step in 1_u32.. {
        let stepped = copying.step(STEP_PAGES)?;
        let pages = copying.progress();
        let bytes = |pages: c_int| u64::try_from(pages).unwrap_or(0) * u64::from(page_bytes);
        progress(Progress {
            stage: Stage::Copying,
            done: bytes(pages.pagecount - pages.remaining),
            total: bytes(pages.pagecount),
        });
        match stepped {
            StepResult::Done => break,
            StepResult::More => {}
            _ => {
                return Err(Error::new(ErrorKind::Conflict, "somebody locks the database for himself alone"));
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

/// Tries a backup out on a scratch copy in the system's folder for temporary files: that it opens, that every page, index
/// and reference is sound, that it migrates to `migrations`, and how many rows it then has. The backup itself is only read.
/// Blocking.
pub fn check(
    file: &Path,
    migrations: &[Migration],
    binary_version: &str,
    mut progress: impl FnMut(Progress),
) -> Result<Checked, Error> {
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
    let mut at = |done| progress(Progress { stage: Stage::Checking, done, total: 4 });
    at(0);
    sound(&conn, "PRAGMA integrity_check", |said| said != "ok")?;
    at(1);
    sound(&conn, "PRAGMA foreign_key_check", |_| true)?;
    at(2);
    if migrate::applied(&mut *conn)?.is_empty() {
        return Err(Error::invalid(format!("{} is no database of Ward's", file.display())));
    }
    let applied = migrate::migrate(&mut *conn, migrations, binary_version)?.applied;
    at(3);
    let tables = count(&conn)?;
    at(4);
    Ok(Checked { backup, applied, tables })
}

/// Checks a backup, then puts it where the database at `url` is to be, migrated and with what `amend` changes in it. There
/// must be nothing there yet, and nobody who serves it. Blocking.
pub fn restore(
    file: &Path,
    url: &str,
    migrations: &[Migration],
    binary_version: &str,
    amend: impl FnOnce(&mut Tx<'_>) -> Result<(), Error>,
    mut progress: impl FnMut(Progress),
) -> Result<Checked, Error> {
    let path = path_of(url)?;
    let _lock = lock_name(&resolved(&path))?;
    for part in ["", "-wal", "-journal"] {
        refuse_existing(&beside(&path, part))?;
    }
    let checked = check(file, migrations, binary_version, &mut progress)?;
    let mut temporary = new_beside(&path)?;
    let copied = copy_file(file, temporary.as_file_mut(), &mut progress)?;
    if copied != checked.backup {
        return Err(Error::new(ErrorKind::Conflict, "the backup was changed while it was being restored"));
    }
    let source = Source::new(temporary.path().to_owned(), Options::default(), None);
    let mut conn = source.connect(Role::Migrate)?;
    migrate::migrate(&mut *conn, migrations, binary_version)?;
    conn.transaction(|tx| amend(tx).map(|()| true))?;
    conn.raw("PRAGMA wal_checkpoint(TRUNCATE)")?;
    // The last connection takes the empty log away, so that the file is all there is.
    conn.raw.close().map_err(|(_, error)| Error::from(error))?;
    refuse_existing(&beside(temporary.path(), "-wal"))?;
    publish(temporary, &path)?;
    Ok(checked)
}

fn path_of(url: &str) -> Result<PathBuf, Error> {
    if names_postgres(url) {
        return Err(Error::invalid(
            "a PostgreSQL database is backed up and restored with PostgreSQL's own tools: see docs/backup.md",
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
            Err(Error::invalid(format!("{} is there already, and nothing is overwritten", file.display())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(trouble(&format!("{} cannot be looked at", file.display()), error)),
    }
}

/// What is beside its WAL is a database that somebody has open, or a raw copy of one: it may lack its last commits.
fn refuse_open_database(file: &Path) -> Result<(), Error> {
    for suffix in ["-wal", "-journal"] {
        if beside(file, suffix).metadata().is_ok_and(|there| there.len() > 0) {
            return Err(Error::invalid(format!(
                "{} has a {suffix} file beside it, so it is a database and no backup: make one with `ward backup`",
                file.display()
            )));
        }
    }
    Ok(())
}

/// An empty file in the same folder as `file`, for its owner alone; gone with the value, if it is not published.
fn new_beside(file: &Path) -> Result<NamedTempFile, Error> {
    tempfile::Builder::new().prefix(".ward-unfinished-").tempfile_in(folder_of(file)).map_err(|error| {
        trouble(&format!("nothing can be written in the folder {}", folder_of(file).display()), error)
    })
}

/// Flushes a finished file and gives it its name, unless there is one of that name.
fn publish(temporary: NamedTempFile, to: &Path) -> Result<(), Error> {
    temporary.as_file().sync_all().map_err(|error| trouble("the copy cannot be flushed", error))?;
    temporary.persist_noclobber(to).map_err(|failed| match failed.error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::invalid(format!("{} is there already, and nothing is overwritten", to.display()))
        }
        _ => trouble(&format!("{} cannot be named", to.display()), failed.error),
    })?;
    // The name must be as lasting as the file.
    flush_folder(to).map_err(|error| trouble("the folder cannot be flushed", error))
}

fn length(file: &File) -> Result<u64, Error> {
    file.metadata().map(|there| there.len()).map_err(|error| trouble("a file cannot be looked at", error))
}

fn copy_file(from: &Path, to: &mut File, progress: &mut dyn FnMut(Progress)) -> Result<Backup, Error> {
    let cannot = |error| trouble(&format!("{} cannot be read", from.display()), error);
    let mut file = File::open(from).map_err(cannot)?;
    let bytes = length(&file)?;
    let mut header = Vec::new();
    Read::by_ref(&mut file).take(HEADER.len() as u64).read_to_end(&mut header).map_err(cannot)?;
    if header != HEADER {
        return Err(Error::invalid(format!("{} is no SQLite file", from.display())));
    }
    let whole = header.as_slice().chain(file);
    let sha256 = stream(whole, to, bytes, Stage::Copying, progress)?;
    Ok(Backup { file: from.to_owned(), bytes, sha256 })
}

/// Passes everything on; the SHA-256 of it.
fn stream(
    mut from: impl Read,
    to: &mut impl Write,
    total: u64,
    stage: Stage,
    progress: &mut dyn FnMut(Progress),
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
        progress(Progress { stage, done, total });
    }
    Ok(hash.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

/// Runs one of SQLite's checks, of whose rows `bad` ones are what it complains of.
fn sound(conn: &Conn, check: &str, bad: impl Fn(&str) -> bool) -> Result<(), Error> {
    let damaged = |what: &str| Error::new(ErrorKind::Decode, format!("the database is damaged: {what}"));
    let mut statement = conn.raw.prepare(check)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(|error| damaged(&error.to_string()))? {
        // The names of tables and indexes; no value of a row.
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
