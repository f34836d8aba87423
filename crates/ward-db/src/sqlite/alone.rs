//! One server per file: the locks on the file and on its name, and the programs that hold the file open.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::flush::{FLUSH_MARK, beside, folder_of};
use crate::Error;

// A command holds the lock for an instant. A server that meets it tries again.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// The maximum number of programs that an error names.
#[cfg(target_os = "linux")]
const NAMED: usize = 10;

/// The reason why a lock could not be taken.
enum LockFailure {
    Held,
    Trouble(std::io::Error),
}

fn lock(file: &File) -> Result<(), LockFailure> {
    for attempt in 1.. {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if attempt < TRIES => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => return Err(LockFailure::Held),
            Err(TryLockError::Error(error)) => return Err(LockFailure::Trouble(error)),
        }
    }
    Err(LockFailure::Held)
}

/// The path with all links resolved. The file itself need not exist yet.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let there = path.canonicalize();
    there
        .or_else(|_| {
            let folder = folder_of(path).canonicalize()?;
            Ok::<_, std::io::Error>(path.file_name().map_or_else(|| folder.clone(), |name| folder.join(name)))
        })
        .unwrap_or_else(|_| path.to_owned())
}

/// Locks the name of a resolved path. The lock keeps two servers apart even while the file is replaced.
pub(super) fn lock_name(path: &Path) -> Result<File, Error> {
    let lock_path = beside(path, "-lock");
    let trouble = |error: std::io::Error| {
        Error::unavailable(format!("the lock file {} cannot be used: {error}", lock_path.display()))
            .because(error)
    };
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    private(&mut options);
    let file = options.open(&lock_path).map_err(trouble)?;
    match lock(&file) {
        Ok(()) => Ok(file),
        Err(LockFailure::Held) => Err(Error::unavailable(format!(
            "another server already serves {}: only one server can use a file",
            path.display()
        ))),
        Err(LockFailure::Trouble(error)) => Err(trouble(error)),
    }
}

/// How long a server waits for commands that read a file without a server.
const FOR_READERS: Duration = Duration::from_secs(30);
/// How long an opening process waits for another one that is opening the file too.
const FOR_OPENING: Duration = Duration::from_secs(2);

/// The other processes that have locked a file.
enum Others {
    /// Commands that read it without a server.
    Readers,
    /// A server, or a command that opens the file.
    Exclusive,
}

/// Tries once to lock the file alone. `None`: the lock is taken.
fn lock_alone(file: &File) -> std::io::Result<Option<Others>> {
    match file.try_lock() {
        Ok(()) => return Ok(None),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| Some(Others::Readers)),
        Err(TryLockError::WouldBlock) => Ok(Some(Others::Exclusive)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn no_lock(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| {
        Error::unavailable(format!("the file {} cannot be locked: {error}", path.display())).because(error)
    }
}

/// Locks the file itself for a server. The lock keeps two servers apart even if they know the file by different names,
/// and waits for commands that read the file as it stands.
pub(super) fn lock_file(file: &File, path: &Path) -> Result<(), Error> {
    let since = Instant::now();
    loop {
        match lock_alone(file).map_err(no_lock(path))? {
            None => return Ok(()),
            Some(Others::Readers) if since.elapsed() >= FOR_READERS => {
                return Err(Error::unavailable(format!(
                    "a command still reads the file {}: start Ward again when it has ended",
                    path.display()
                )));
            }
            Some(Others::Exclusive) if since.elapsed() >= FOR_OPENING => {
                return Err(Error::unavailable(format!(
                    "another server already serves the file {} under another name: only one server can use a file",
                    path.display()
                )));
            }
            Some(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Keeps servers and writing commands from opening the file while `file` is locked, so that it can be read without any
/// change. The result is `false` without that lock if a server has the file open.
pub(super) fn lock_to_read(file: &File, path: &Path) -> Result<bool, Error> {
    let since = Instant::now();
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(no_lock(path)(error)),
            Err(TryLockError::WouldBlock) if has_name_locked(path)? => return Ok(false),
            Err(TryLockError::WouldBlock) if since.elapsed() >= FOR_OPENING => return Err(other_name(path)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
        }
    }
}

/// As [`lock_to_read`], for a command that writes: while it opens the file, no command reads it as it stands.
pub(super) fn lock_to_open(file: &File, path: &Path) -> Result<bool, Error> {
    let since = Instant::now();
    loop {
        match lock_alone(file).map_err(no_lock(path))? {
            None => return Ok(true),
            Some(Others::Exclusive) if has_name_locked(path)? => return Ok(false),
            Some(Others::Exclusive) if since.elapsed() >= FOR_OPENING => return Err(other_name(path)),
            Some(Others::Readers) if since.elapsed() >= FOR_READERS => {
                return Err(Error::unavailable(format!(
                    "another command still reads the file {}: try again when it has ended",
                    path.display()
                )));
            }
            Some(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Whether a server has locked this name of the file.
fn has_name_locked(path: &Path) -> Result<bool, Error> {
    let held = |file: &File| match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    };
    match File::open(beside(path, "-lock")) {
        Ok(lock) => held(&lock).map_err(no_lock(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(no_lock(path)(error)),
    }
}

/// A server that uses another name for the file is an error: SQLite keeps the log beside the name, so this process would
/// miss that server's writes and damage the file.
fn other_name(path: &Path) -> Error {
    Error::unavailable(format!(
        "a server has the file {} open under another name, and its log is beside that name: use the server's name for the file",
        path.display()
    ))
}

/// Refuses a file with other names (hard links). SQLite keeps the log beside the name, so acknowledged writes may be in the
/// log of another name, and that name can be in any folder.
#[cfg(unix)]
pub(super) fn refuse_other_names(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt as _;
    let same = |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    let Ok(this) = path.metadata() else { return Ok(()) };
    if this.nlink() < 2 {
        return Ok(());
    }
    let entries = folder_of(path).read_dir().into_iter().flatten().flatten();
    for other in entries.map(|entry| entry.path()).filter(|other| other.file_name() != path.file_name()) {
        let is_this = other.symlink_metadata().is_ok_and(|there| same(&there, &this));
        if is_this && beside(&other, "-wal").metadata().is_ok_and(|log| log.len() > 0) {
            return Err(Error::unavailable(format!(
                "the file {} has another name, {}, and its log is beside that one: remove this name, and use that one",
                path.display(),
                other.display()
            )));
        }
    }
    Err(Error::unavailable(format!(
        "the file {} has {} names (hard links), and acknowledged writes may be in the log of another one. List them with \
         `find / -xdev -samefile {}`. Keep the name that has a -wal file beside it, remove the others, and start Ward by \
         that name",
        path.display(),
        this.nlink(),
        path.display()
    )))
}

#[cfg(not(unix))]
pub(super) fn refuse_other_names(_: &Path) -> Result<(), Error> {
    Ok(())
}

/// The mark of a failed flush beside the database at `path`, if there is one. The next server insists on being
/// the only program that has the file open, and then removes the mark.
pub fn flush_mark(path: &Path) -> Option<PathBuf> {
    let mark = beside(&resolved(path), FLUSH_MARK);
    mark.symlink_metadata().is_ok().then_some(mark)
}

/// Says which other programs have the file open, as far as the system shows them to this user.
pub(super) fn openers(path: &Path) -> String {
    match opened_by(path) {
        names if names.is_empty() => "another program has it open".to_owned(),
        names => format!("these programs have it open: {}", names.join(", ")),
    }
}

/// The names of up to ten other programs that have the file open, as far as the system shows them to this user.
#[cfg(target_os = "linux")]
pub fn opened_by(path: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(this), Ok(processes)) = (path.metadata(), Path::new("/proc").read_dir()) else {
        return Vec::new();
    };
    let has_it = |process: &Path| {
        let files = process.join("fd").read_dir().into_iter().flatten().flatten();
        files
            .filter_map(|file| file.path().metadata().ok())
            .any(|file: Metadata| (file.dev(), file.ino()) == (this.dev(), this.ino()))
    };
    let mut names = Vec::new();
    for process in processes.flatten() {
        let number: Option<u32> = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|number| *number != std::process::id()) else { continue };
        if names.len() < NAMED && has_it(&process.path()) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            names.push(format!("{} (process {number})", name.trim().escape_debug()));
        }
    }
    names
}

/// No names, because this system shows none.
#[cfg(not(target_os = "linux"))]
pub fn opened_by(_: &Path) -> Vec<String> {
    Vec::new()
}

pub(super) fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}
