//! Opens a database with a leftover log: copies the whole log into the file, and empties it.
//!
//! A leftover log may hold frames that the disk does not have: those of a commit whose flush failed. The
//! system keeps them in memory, so SQLite's recovery takes them as committed. A later commit would be lost in
//! a power cut, because recovery from the disk ends at the gap. So the log is first rewritten and flushed,
//! then copied and emptied, all before the first commit.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::alone::openers;
use super::conn::{Role, Source};
use super::flush::flush_folder;
use crate::{Error, ErrorKind};

/// The number of bytes of the log that are rewritten at once.
const CHUNK: usize = 1 << 20;

/// How long opening waits for other processes to close the file when it can also work beside them.
const ALONE: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(10);

/// Copies the log into the file and empties it. `served`: a server has the file open and takes care of its
/// log.
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
                "a flush of {} failed, so its log must be copied again while no other program has the file open, but {}. \
                Close them, then start Ward again",
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
            "an earlier flush of the database failed; its whole log was copied into it again, and nothing is lost"
        );
    }
    Ok(())
}

/// Opens a connection with exclusive use of the file. It does not share its count of copied pages, which
/// starts at zero. `None` while other processes have the file open.
fn alone(source: &Source, until: Instant) -> Result<Option<Connection>, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let raw = Connection::open_with_flags(&source.path, flags)?;
    raw.busy_timeout(Duration::ZERO)?;
    raw.pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))?;
    loop {
        // The first access locks the file, or finds it busy.
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

/// Copies the log while other processes have the file open. The pages that they count as copied are flushed;
/// otherwise there would be a mark.
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
    // This transaction keeps other processes from writing into the log.
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

/// Copies and empties the whole log; false if other processes prevent it.
fn emptied(conn: &Connection) -> Result<bool, Error> {
    let busy: i64 =
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(|error| {
            Error::from(error).with_kind(ErrorKind::Unavailable, "the log cannot be copied into the file")
        })?;
    Ok(busy == 0)
}

/// Overwrites the log with its own content, so that a flush also covers what an earlier flush failed to
/// write.
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

/// Makes the empty log durable. Its old content would otherwise be copied again, over newer data.
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
