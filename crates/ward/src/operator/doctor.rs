//! `ward doctor`: checks of an installation that change nothing.

mod disk;
mod places;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use ward_db::Db;

use super::{check_regions, lost_secrets, over_long_values};
use crate::app::{self, App};
use crate::clock::Clock;
use crate::config::{self, Config, MasterKey};
use crate::schema::{self, MIGRATIONS, VERSION};
use crate::vault::{self, Vault};
use crate::workspaces;

/// The time that a database has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A larger difference from the database server's clock is a problem.
const CLOCKS_APART: Duration = Duration::from_secs(5);
/// The number of lost values that one message names.
const NAMED: usize = 5;

/// The outcome of one check, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Ok,
    /// The check could not run to its end, but found nothing wrong; the message says why.
    Note,
    /// The check found something that the operator must mend.
    Problem,
}

/// One line of the doctor's report.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The name of the check, a fixed word.
    pub check: &'static str,
    pub status: Health,
    /// The observation as a sentence, without a secret.
    pub message: String,
    /// The operator's next step; `None` unless `status` is [`Health::Problem`].
    pub action: Option<String>,
}

impl Finding {
    /// A check that found nothing wrong.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, status: Health::Ok, message: message.into(), action: None }
    }

    /// A check that did not run, or not to its end.
    pub fn note(check: &'static str, message: impl Into<String>) -> Self {
        Self { status: Health::Note, ..Self::ok(check, message) }
    }

    /// A failed check, with the operator's next step.
    pub fn problem(check: &'static str, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self { status: Health::Problem, action: Some(action.into()), ..Self::ok(check, message) }
    }
}

/// Runs every check. The first checks need no database; the others are left out if it does not open.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut found = vec![key_file(config)];
    if let Some(path) = config.database_file() {
        found.extend([permissions(&path), disk::free(&path), places::flushes(&path)]);
    } else {
        found.push(Finding::note("disk", "the database is on a server: look at its disk there"));
    }
    if let Some(tls) = &config.tls {
        found.push(tls_key(&tls.key));
    }
    if let Some(exports) = &config.exports {
        found.push(places::exports(exports));
    }
    match open(config).await {
        Ok(db) => {
            found.push(Finding::ok("database", "answers"));
            found.extend(look_into(config, &db).await);
            let closing = tokio::task::spawn_blocking(move || db.close());
            let _ = closing.await;
        }
        Err(error) => {
            let todo = match config.database_file() {
                Some(path) if !path.exists() => format!(
                    "name the file with --database, or make it: ward serve. {} is not there",
                    path.display()
                ),
                _ => "see that the database is there and reachable, and that the setting `database` names it"
                    .to_owned(),
            };
            found.push(Finding::problem("database", error, todo));
        }
    }
    found
}

/// An error's text with those of its causes, each once.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

async fn open(config: &Config) -> Result<Db, String> {
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || schema::open_to_read(&config)).await;
    let db = opened.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()));
    let db = db.map_err(|error| full(&error))?;
    match tokio::time::timeout(PATIENCE, db.check()).await {
        Ok(Ok(())) => Ok(db),
        Ok(Err(error)) => Err(full(&error)),
        Err(_) => Err("the database gave no answer within 10 seconds".to_owned()),
    }
}

/// The checks that need an open database.
async fn look_into(config: &Config, db: &Db) -> Vec<Finding> {
    let mut found = vec![encoding(db).await, clock(db).await];
    let judged = {
        let db = db.clone();
        tokio::task::spawn_blocking(move || db.compare(MIGRATIONS, VERSION)).await
    };
    let compared = match judged.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic())) {
        Ok(compared) => compared,
        Err(error) => {
            found.push(Finding::problem(
                "schema",
                full(&error),
                "run the Ward that this database belongs to",
            ));
            return found;
        }
    };
    if !compared.missing.is_empty() {
        let steps = compared.missing.len();
        found.push(Finding::problem(
            "schema",
            format!("{steps} steps are missing, the first is {}", compared.missing[0]),
            "run `ward migrate`, or restart the server with this Ward; then run the doctor again",
        ));
        return found;
    }
    found.push(match compared.newer {
        0 => Finding::ok("schema", format!("up to date, {} steps", compared.present)),
        newer => Finding::note(
            "schema",
            format!("{newer} steps come from a newer Ward, and this Ward can run on them"),
        ),
    });
    match app::keys_at_hand(config) {
        Ok(keys) => found.extend(with_keys(config, db, keys).await),
        // The finding about the key's file says why.
        Err(_) => {
            found.push(Finding::note(
                "master key",
                "not compared with the database, because the key cannot be read",
            ));
        }
    }
    found
}

async fn with_keys(config: &Config, db: &Db, keys: Vault) -> Vec<Finding> {
    let mut found = vec![master_key(config, db, &keys).await];
    let app = match App::with(config.clone(), db.clone(), Clock::default(), keys) {
        Ok(app) => app,
        Err(error) => {
            found.push(Finding::problem(
                "settings",
                full(&error),
                "correct the setting that the message names",
            ));
            return found;
        }
    };
    found.push(sealed(&app).await);
    found.push(regions(&app).await);
    found.push(lengths(&app).await);
    found.extend(issuers(&app).await);
    found
}

/// Checks that every stored workspace has this Ward's region.
async fn regions(app: &App) -> Finding {
    const CHECK: &str = "regions";
    match check_regions(app).await {
        Err(error) => Finding::problem(CHECK, full(&error), "check that the database answers"),
        Ok(None) => Finding::ok(CHECK, "the setting `region` is not set, so every region is right"),
        Ok(Some(check)) if check.misplaced == 0 => {
            Finding::ok(CHECK, format!("all {} workspaces have this Ward's region", check.checked))
        }
        Ok(Some(check)) => {
            let named: Vec<String> = check
                .named
                .iter()
                .take(NAMED)
                .map(|found| format!("{} ({})", found.workspace.slug, found.workspace.region))
                .collect();
            Finding::problem(
                CHECK,
                format!(
                    "{} of {} workspaces have another region: {}",
                    check.misplaced,
                    check.checked,
                    named.join(", ")
                ),
                "set `region` to the region that this database serves; move workspaces of other regions to databases of their own",
            )
        }
    }
}

/// Checks that no stored value is longer than its limit of today.
async fn lengths(app: &App) -> Finding {
    const CHECK: &str = "lengths";
    match over_long_values(app).await {
        Err(error) => Finding::problem(CHECK, full(&error), "check that the database answers"),
        Ok(values) if values.found.is_empty() => {
            Finding::ok(CHECK, "no stored value is longer than its limit")
        }
        Ok(values) => {
            let named: Vec<String> = values
                .found
                .iter()
                .take(NAMED)
                .map(|value| format!("{} of {} {} ({})", value.field, value.what, value.id, value.limit))
                .collect();
            let count = values.found.len();
            let more = if values.more { "or more " } else { "" };
            Finding::problem(
                CHECK,
                format!("{count} {more}stored values are longer than their limits: {}", named.join(", ")),
                "shorten them through the API; until then, Ward serves them but refuses changes that send them again",
            )
        }
    }
}

fn key_file(config: &Config) -> Finding {
    const CHECK: &str = "key file";
    match (config::find_master_key(&config.master_key), &config.master_key) {
        (Ok(Some(_)), MasterKey::File { path, .. }) => {
            Finding::ok(CHECK, format!("{} is a key that only its owner can use", path.display()))
        }
        (Ok(Some(_)), _) => Finding::ok(CHECK, "the settings give the key itself"),
        (Ok(None), MasterKey::File { path, .. }) => {
            Finding::note(CHECK, format!("{} does not exist", path.display()))
        }
        (Ok(None), _) => Finding::note(CHECK, "the settings name no key"),
        (Err(error), _) => {
            Finding::problem(CHECK, error.to_string(), "follow the instruction in the message")
        }
    }
}

/// Checks that the database was used with the configured key.
async fn master_key(config: &Config, db: &Db, keys: &Vault) -> Finding {
    const CHECK: &str = "master key";
    let known = keys.check_values();
    let noted = db.read("operator.noted_keys", move |tx| vault::recorded_keys(tx, &known)).await;
    match (noted, keys.has_key()) {
        (Err(error), _) => Finding::problem(CHECK, full(&error), "check that the database answers"),
        (Ok(noted), true) if noted.foreign == 0 => {
            Finding::ok(CHECK, "the database is used with the configured key")
        }
        (Ok(_), true) => Finding::problem(
            CHECK,
            "the database was used with another key",
            "name the right key's file with master_key_file; during a rotation, the other key among \
             former_master_key_files. If that key is lost: ward secrets forget",
        ),
        (Ok(noted), false) if noted.all == 0 => {
            Finding::note(CHECK, "the database was never used with a key; ward secrets create-key makes one")
        }
        (Ok(_), false) => {
            let at = match &config.master_key {
                MasterKey::File { path, .. } => path.display().to_string(),
                _ => "master_key_file".to_owned(),
            };
            Finding::problem(
                CHECK,
                format!("the database was used with a key, and {at} does not exist"),
                "put the key's file back, or name its place with --master-key-file. If the key is lost: ward secrets forget",
            )
        }
    }
}

/// Checks that the configured keys open every sealed value.
async fn sealed(app: &App) -> Finding {
    const CHECK: &str = "sealed values";
    match lost_secrets(app, &app.vault).await {
        Err(error) => Finding::problem(CHECK, full(&error), "check that the database answers"),
        Ok(lost) if lost.is_empty() => Finding::ok(CHECK, format!("all {} values open", lost.sealed)),
        Ok(lost) => {
            let mut named: Vec<String> = lost.unopened.iter().take(NAMED).map(ToString::to_string).collect();
            if lost.unopened.len() > NAMED {
                named.push(format!("{} more", lost.unopened.len() - NAMED));
            }
            Finding::problem(
                CHECK,
                format!(
                    "{} of {} values cannot be opened: {}",
                    lost.unopened.len(),
                    lost.sealed,
                    named.join(", ")
                ),
                "add the key that sealed them to former_master_key_files; if that key is lost, run \
                 ward secrets forget",
            )
        }
    }
}

async fn encoding(db: &Db) -> Finding {
    const CHECK: &str = "encoding";
    match db.encoding().await {
        Ok(name) if ward_db::holds_every_text(&name) => Finding::ok(CHECK, name),
        Ok(name) => Finding::problem(
            CHECK,
            format!("{name} cannot hold every name"),
            "make a database in UTF-8 (CREATE DATABASE ward ENCODING 'UTF8' TEMPLATE template0), and move the data there",
        ),
        Err(error) => Finding::problem(CHECK, full(&error), "check that the database answers"),
    }
}

/// Compares the local clock with that of the database server, or with the stored timestamps.
async fn clock(db: &Db) -> Finding {
    const CHECK: &str = "clock";
    let now = Clock::default().now();
    let theirs = match db.clock().await {
        Ok(theirs) => theirs,
        Err(error) => return Finding::problem(CHECK, full(&error), "check that the database answers"),
    };
    if let Some(theirs) = theirs {
        let apart = Duration::from_micros(now.micros().abs_diff(theirs.micros()));
        return if apart <= CLOCKS_APART {
            Finding::ok(CHECK, format!("within {} s of the database server's", CLOCKS_APART.as_secs()))
        } else {
            Finding::problem(
                CHECK,
                format!("{} s from the database server's clock", apart.as_secs()),
                "set both clocks by NTP, on this machine and on the server",
            )
        };
    }
    // The database has no clock of its own here, so only the newest rows can show that this clock was set
    // back.
    let newest = db.read("operator.newest", workspaces::operator::newest).await.ok().flatten();
    match newest {
        Some(newest) if newest > now.saturating_add(CLOCKS_APART) => Finding::problem(
            CHECK,
            format!("it says {now}, but the newest workspace was made at {newest}"),
            "set the clock by NTP",
        ),
        _ => Finding::ok(CHECK, format!("{now}, not behind the newest workspace")),
    }
}

/// Checks that only its owner can use the database file, and that not everyone can write to its folder.
#[cfg(unix)]
fn permissions(path: &Path) -> Finding {
    use std::os::unix::fs::PermissionsExt as _;
    const CHECK: &str = "permissions";
    let mode = |path: &Path| std::fs::metadata(path).map(|about| about.permissions().mode() & 0o777);
    for file in beside(path) {
        if let Ok(mode) = mode(&file)
            && mode & 0o077 != 0
        {
            return Finding::problem(
                CHECK,
                format!("users other than its owner can use {} (mode {mode:04o})", file.display()),
                format!("chmod 600 {}", file.display()),
            );
        }
    }
    let folder = folder_of(path);
    match mode(&folder) {
        Ok(mode) if mode & 0o002 != 0 => Finding::problem(
            CHECK,
            format!("everyone can put files into {} (mode {mode:04o})", folder.display()),
            format!("chmod o-w {}", folder.display()),
        ),
        Ok(_) if path.exists() => Finding::ok(CHECK, format!("only its owner can use {}", path.display())),
        Ok(_) => Finding::ok(CHECK, format!("only users of its folder can create {}", path.display())),
        Err(error) => Finding::problem(
            CHECK,
            format!("cannot read the permissions of {}: {error}", folder.display()),
            "run the doctor as the user that serves the database, or as root",
        ),
    }
}

/// The database file and the files that `SQLite` and Ward keep beside it.
fn beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    ["", "-wal", "-shm", "-lock"]
        .map(|ending| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        })
        .into_iter()
}

/// The folder of a file; `.` for a bare file name.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Checks that the listener's private key is closed to other users.
#[cfg(unix)]
fn tls_key(path: &Path) -> Finding {
    use std::os::unix::fs::PermissionsExt as _;
    const CHECK: &str = "tls key";
    match std::fs::metadata(path).map(|about| about.permissions().mode() & 0o777) {
        Ok(mode) if mode & 0o007 != 0 => Finding::problem(
            CHECK,
            format!("everyone can use {} (mode {mode:04o})", path.display()),
            format!("chmod o-rwx {}", path.display()),
        ),
        Ok(_) => Finding::ok(CHECK, format!("{} is closed to other users", path.display())),
        Err(error) => Finding::problem(
            CHECK,
            format!("cannot read the permissions of {}: {error}", path.display()),
            "name the file with tls_key",
        ),
    }
}

/// Checks that the keys of every issuer can be fetched.
async fn issuers(app: &App) -> Vec<Finding> {
    let mut found = Vec::new();
    for issuer in app.issuers.all() {
        found.push(match issuer.keys().await {
            Ok(_) => Finding::ok("issuer", format!("the keys of {} can be fetched", issuer.name)),
            Err(_) => Finding::problem(
                "issuer",
                format!("the keys of {} cannot be fetched, so its tokens are refused with 503", issuer.name),
                "check that this machine reaches the issuer and that the setting `issuers` is right",
            ),
        });
    }
    found
}
