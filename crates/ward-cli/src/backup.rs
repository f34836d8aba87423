//! `ward backup` and `ward restore`. They open only the database file, and need no master key.

use std::path::Path;

use ward::config::Config;
use ward::operator;
use ward::schema::backup::{self, BackupProgress, CheckedBackup, Stage};
use ward::schema::{MIGRATIONS, VERSION};

use crate::failure::Failure;
use crate::show;
use crate::show::Output;

pub fn back_up(config: &Config, to: &Path, out: Output) -> Result<(), Failure> {
    let made = watched(|progress| backup::make(&config.database, to, progress))?;
    out.one(&made)?;
    out.remark(
        "The backup does not include the master key: keep a copy of it elsewhere. `ward restore --check` checks the backup.",
    );
    Ok(())
}

pub fn check(file: &Path, out: Output) -> Result<(), Failure> {
    let checked = watched(|progress| backup::check(file, MIGRATIONS, VERSION, progress))?;
    tell(&checked, out)?;
    out.remark("The backup is sound, and this Ward can serve it.");
    Ok(())
}

pub fn restore(config: &Config, file: &Path, out: Output) -> Result<(), Failure> {
    let checked = watched(|progress| operator::restore_backup(file, &config.database, progress))?;
    tell(&checked, out)?;
    out.remark("The database is in place. Serve it with the master key under which it was written.");
    Ok(())
}

fn tell(checked: &CheckedBackup, out: Output) -> Result<(), Failure> {
    if out.is_json() {
        return Ok(out.one(checked)?);
    }
    out.many(&checked.tables, &["table", "rows"])?;
    for step in &checked.applied {
        show::line(&format!("serving it will apply {step}"));
    }
    show::line(&format!("{} bytes, SHA-256 {}", checked.backup.bytes, checked.backup.sha256));
    Ok(())
}

/// Runs long work with a progress bar.
fn watched<T, E>(work: impl FnOnce(&mut dyn FnMut(BackupProgress)) -> Result<T, E>) -> Result<T, E> {
    let bar = show::Bar::new();
    let done = work(&mut |progress| {
        let mib = |bytes: u64| bytes >> 20;
        match progress.stage {
            Stage::Copying => bar.at(mib(progress.done), mib(progress.total), "MiB copied"),
            Stage::Digesting => bar.at(mib(progress.done), mib(progress.total), "MiB digested"),
            Stage::Checking => bar.at(progress.done, progress.total, "parts of the check"),
        }
    });
    bar.done();
    done
}
