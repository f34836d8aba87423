//! The places that a server needs beside its database: a file without a failed flush, a folder for exports.

use std::io;
use std::path::Path;

use rustix::fs::Access;

use super::{Finding, folder_of};
use crate::config::Exports;

/// Checks that no failed flush left its mark beside the database file at `path`.
pub(super) fn flushes(path: &Path) -> Finding {
    const CHECK: &str = "flushes";
    let Some(mark) = ward_db::flush_mark(path) else {
        return Finding::ok(CHECK, "no flush of the database file has failed");
    };
    let openers = ward_db::opened_by(path);
    let openers = if openers.is_empty() {
        "no other program has the file open".to_owned()
    } else {
        format!("a start is refused while these programs have the file open: {}", openers.join(", "))
    };
    Finding::problem(
        CHECK,
        format!("a flush of the database file failed and left {}; {openers}", mark.display()),
        "repair the disk, close every other program that has the file open, and start ward serve, which removes the mark",
    )
}

/// Checks that the server can write exports. A bucket is not asked, because that would cost a request.
pub(super) fn exports(exports: &Exports) -> Finding {
    const CHECK: &str = "exports";
    let Exports::Folder(folder) = exports else {
        return Finding::note(CHECK, "they go to a bucket, which this check does not ask");
    };
    match try_folder(folder) {
        Ok(()) => Finding::ok(CHECK, format!("{} can be written", folder.display())),
        Err(error) => Finding::problem(
            CHECK,
            format!("the folder {} of the setting `export_dir` cannot be written: {error}", folder.display()),
            "name another folder with export_dir, or give this one to the user that serves",
        ),
    }
}

/// Asks the system whether this user may write into a folder, or make it in its nearest existing parent.
fn try_folder(folder: &Path) -> io::Result<()> {
    let mut place = folder.to_owned();
    while !place.exists() {
        place = folder_of(&place);
    }
    if !place.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(rustix::fs::access(&place, Access::WRITE_OK | Access::EXEC_OK)?)
}
