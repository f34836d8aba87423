//! Opening a database whose log was left: all of the log is copied into the file, and the log is emptied.
//!
//! A log that was left may hold frames that the disk does not have: those of a commit whose flush failed. The system keeps
//! them in memory, so SQLite's recovery takes them for committed. A commit behind them would be lost with the next power
//! cut, because recovery from the disk ends at the gap. So the log is first rewritten and flushed, then copied and
//! emptied, all before the first commit.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::alone::openers;
use super::conn::{Role, Source};
use super::flush::flush_folder;
use crate::{Error, ErrorKind};

/// How much of the log is rewritten at once.
const CHUNK: usize = 1 << 20;

/// How long opening waits for others to close the file, where it can also work beside them.
const ALONE: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(10);

/// Copies the log into the file and empties it. `served`: a server has the file, whose log is then its own affair.
pub(super) fn fold(source: &Source, served: bool) -> Result<(), Error> {
    let flushes = &source.flushes;
    let marked = flushes.is_marked();
    if served && !marked {
        return Ok(());
    }
    let empty = flushes.log().metadata().map_or(true, |log| log.len() == 0);
    if empty && !marked {
        return Ok(());
    }
    let wait = if marked { source.options.busy_timeout } else { ALONE.min(source.options.busy_timeout) };
    match alone(source, Instant::now() + wait)? {
        Some(conn) => fold_alone(source, conn)?,
        None if marked => {
            return Err(Error::unavailable(format!(
                "a flush of {} failed, and the log must be copied into it again by a process that is alone with the file, \
                 but {}. Close them, then start Ward again",
                flushes.path().display(),
                openers(flushes.path())
            )));
        }
        None => fold_beside(source)?,
    }
    if marked {
        let mark = flushes.mark();
        std::fs::remove_file(&mark).and_then(|()| flush_folder(&mark)).map_err(|error| {
            Error::unavailable(format!("the mark {} cannot be removed: {error}", mark.display()))
                .because(error)
        })?;
        tracing::warn!(
            "a flush of the database had failed; its whole log was copied into it again, and nothing is lost"
        );
    }
    Ok(())
}

/// Opens a connection that has the file to itself. It does not share its count of copied pages, which begins at zero.
/// `None` while other processes have the file open.
fn alone(source: &Source, until: Instant) -> Result<Option<Connection>, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let raw = Connection::open_with_flags(&source.path, flags)?;
    raw.busy_timeout(Duration::ZERO)?;
    raw.pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))?;
    loop {
        // The first look at the file takes it, or is told that it is busy.
        match raw.pragma_update(None, "synchronous", "FULL").map_err(Error::from) {
            Ok(()) => return Ok(Some(raw)),
            Err(error) if error.kind() != ErrorKind::Conflict => {
                return Err(error.with_kind(ErrorKind::Unavailable, "the log cannot be read"));
            }
            Err(_) if Instant::now() >= until => return Ok(None),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn fold_alone(source: &Source, conn: Connection) -> Result<(), Error> {
    let log = source.flushes.log();
    rewrite(&log)?;
    if !emptied(&conn)? {
        return Err(Error::unavailable(
            "the log could not be copied into the file, although nothing else has it open",
        ));
    }
    flush(&log)?;
    conn.close().map_err(|(_, error)| Error::from(error))
}

/// Folds while others have the file open. The pages that they count as copied are flushed, or there would be a mark.
fn fold_beside(source: &Source) -> Result<(), Error> {
    let path = source.flushes.path();
    let log = source.flushes.log();
    let busy = || {
        Error::unavailable(format!(
            "the log of {} must be copied into it before Ward uses it, but {}. Close them, then start Ward again",
            path.display(),
            openers(path)
        ))
    };
    let conn = source.connect(Role::Migrate)?;
    let begun = conn.raw("BEGIN IMMEDIATE").map_err(|error| match error.kind() {
        ErrorKind::Conflict => busy(),
        _ => error,
    });
    begun?;
    // This transaction keeps others from writing into the log.
    rewrite(&log)?;
    conn.raw("ROLLBACK")?;
    match emptied(&conn.raw) {
        Ok(true) => flush(&log),
        Ok(false) => Err(busy()),
        Err(error) => {
            if error.is_failed_flush() {
                source.flushes.leave_mark();
            }
            Err(error)
        }
    }
}

/// Copies all of the log and empties it; false when others stand in the way.
fn emptied(conn: &Connection) -> Result<bool, Error> {
    let busy: i64 =
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(|error| {
            Error::from(error).with_kind(ErrorKind::Unavailable, "the log cannot be copied into the file")
        })?;
    Ok(busy == 0)
}

/// Writes the log's own content over it, so that a flush reaches also what an earlier one failed to write.
fn rewrite(log: &Path) -> Result<(), Error> {
    let written = File::options().read(true).write(true).open(log).and_then(|mut file| {
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        loop {
            let read = match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&chunk[..read])?;
            at += read as u64;
        }
        file.sync_all()
    });
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(trouble(log, error)),
        _ => Ok(()),
    }
}

/// Makes the empty log durable: with its old content it would be copied again, over what is newer.
fn flush(log: &Path) -> Result<(), Error> {
    match File::options().write(true).open(log).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(trouble(log, error)),
        _ => Ok(()),
    }
}

fn trouble(log: &Path, error: std::io::Error) -> Error {
    Error::unavailable(format!(
        "the log {} cannot be flushed: {error}. Nothing was changed; repair the disk, then start Ward again",
        log.display()
    ))
    .because(error)
}
