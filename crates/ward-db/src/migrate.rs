//! Applies a schema's migrations step by step, safely beside other processes that do the same.

use std::collections::HashMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::tx::Tx;
use crate::value::Timestamp;
use crate::{Error, ErrorKind, lex};

/// One migration file, in the portable subset of SQL with PostgreSQL's types. These types (`uuid`,
/// `timestamptz`, `jsonb`, `boolean`, `bigint`, `text`, `bytea`) cannot be names of columns.
///
/// The text begins with a comment line `-- oldest binary: 0.1.0`: the oldest binary that may run on the
/// result. Lines `-- step` separate the steps, each of which is applied in its own transaction. The text of a
/// released step never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The file's name without its extension, such as `0001_workspaces`. Migrations are applied in the order
    /// of their names.
    pub name: &'static str,
    /// The file's text with its comments.
    pub sql: &'static str,
}

/// The result of [`Db::migrate`](crate::Db::migrate).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// The steps that this call applied, as `name/step`, in order.
    pub applied: Vec<String>,
    /// How many of the given steps were applied before, or by another process meanwhile.
    pub present: usize,
    /// How many applied steps are unknown to the given migrations: those of a newer binary.
    pub newer: usize,
}

/// The result of [`Db::compare`](crate::Db::compare).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaComparison {
    /// The given steps that are not applied yet, as `name/step`, in order.
    pub missing: Vec<String>,
    /// How many of the given steps were applied.
    pub present: usize,
    /// How many applied steps are unknown to the given migrations: those of a newer binary.
    pub newer: usize,
}

/// A step that was applied to a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedStep {
    /// The name of the step's migration.
    pub migration: String,
    /// The step's number within its migration, from 1.
    pub step: i64,
    /// SHA-256 of the step's text, 64 lower-case hexadecimal digits.
    pub checksum: String,
    /// The oldest binary that may run on the result, `major.minor.patch`.
    pub oldest_binary: String,
    /// The time of application, by the clock of the process that applied it.
    pub applied_at: Timestamp,
}

const STEPS_TABLE: &str = "create table if not exists schema_steps (
    migration text collate \"C\" not null,
    step bigint not null,
    checksum text not null,
    oldest_binary text not null,
    applied_at timestamptz not null,
    primary key (migration, step)
)";

/// The name of the step that marks a database as an unfinished copy. No binary runs on such a database.
pub(crate) const UNFINISHED: &str = "unfinished copy";

/// A step of a migration that this binary knows.
struct Step<'m> {
    migration: &'m str,
    number: i64,
    text: String,
    checksum: String,
    oldest_binary: &'m str,
}

/// The operations of an engine on its schema. All texts are in the portable subset.
pub(crate) trait Schema {
    /// Whether the table of applied steps exists.
    fn has_steps(&mut self) -> Result<bool, Error>;
    fn read(&mut self, work: &mut dyn FnMut(&mut Tx<'_>) -> Result<(), Error>) -> Result<(), Error>;
    /// Creates the table of applied steps, or finds that another process created it.
    fn make(&mut self, script: &str) -> Result<(), Error>;
    /// Runs `claim`, then `script` if `claim` returned true, in one transaction. Returns what `claim`
    /// returned. Both may run again.
    fn apply(
        &mut self,
        claim: &mut dyn FnMut(&mut Tx<'_>) -> Result<bool, Error>,
        script: &str,
    ) -> Result<bool, Error>;
}

pub(crate) fn migrate(
    engine: &mut dyn Schema,
    migrations: &[Migration],
    binary_version: &str,
) -> Result<MigrationReport, Error> {
    let (binary, steps) = read(migrations, binary_version)?;
    let mut there = applied(engine)?;
    // This comes before any change: a binary that must not run on this schema must not migrate it either.
    let newer = judge(&steps, &there, binary)?;
    let mut migrated = MigrationReport { newer, ..MigrationReport::default() };
    if there.is_empty() && !steps.is_empty() {
        engine.make(STEPS_TABLE)?;
    }
    for step in &steps {
        let known = there.iter().any(|row| row.migration == step.migration && row.step == step.number);
        if !known && apply(engine, step)? {
            migrated.applied.push(format!("{}/{}", step.migration, step.number));
        } else {
            migrated.present += 1;
        }
    }
    if steps.len() > there.len() - newer {
        // Other processes may have run beside this one: their steps are judged like earlier ones.
        there = applied(engine)?;
        migrated.newer = judge(&steps, &there, binary)?;
    }
    Ok(migrated)
}

/// Compares the schema with `migrations`, and changes nothing.
pub(crate) fn compare(
    engine: &mut dyn Schema,
    migrations: &[Migration],
    binary_version: &str,
) -> Result<SchemaComparison, Error> {
    let (binary, steps) = read(migrations, binary_version)?;
    let there = applied(engine)?;
    let newer = judge(&steps, &there, binary)?;
    let missing: Vec<String> = steps
        .iter()
        .filter(|step| !there.iter().any(|row| row.migration == step.migration && row.step == step.number))
        .map(|step| format!("{}/{}", step.migration, step.number))
        .collect();
    Ok(SchemaComparison { present: steps.len() - missing.len(), missing, newer })
}

/// The binary's version and the steps of its migrations.
fn read<'m>(migrations: &'m [Migration], binary_version: &str) -> Result<([u64; 3], Vec<Step<'m>>), Error> {
    let binary = version(binary_version)
        .ok_or_else(|| Error::invalid(format!("`{binary_version}` is not a version of the form 1.2.3")))?;
    if let Some(pair) = migrations.windows(2).find(|pair| pair[0].name >= pair[1].name) {
        return Err(Error::schema(format!(
            "migration {} must not come after {}",
            pair[1].name, pair[0].name
        )));
    }
    let mut steps = Vec::new();
    for migration in migrations {
        parse(migration, &mut steps)?;
    }
    Ok((binary, steps))
}

/// Applies one step; returns false if another process was first. The version row is inserted before the DDL,
/// so the second of two processes waits for that row and then finds it.
fn apply(engine: &mut dyn Schema, step: &Step<'_>) -> Result<bool, Error> {
    let now = crate::ambient::now();
    let mut claim = |tx: &mut Tx<'_>| {
        let inserted = tx.execute(
            "insert into schema_steps (migration, step, checksum, oldest_binary, applied_at)
             values ($1, $2, $3, $4, $5) on conflict (migration, step) do nothing",
            &[
                step.migration.into(),
                step.number.into(),
                (&step.checksum).into(),
                step.oldest_binary.into(),
                now.into(),
            ],
        )?;
        Ok(inserted == 1)
    };
    engine.apply(&mut claim, &step.text).map_err(|error| {
        let kind = match error.kind() {
            // A change of the step's text would not help against these.
            kind @ (ErrorKind::Unavailable
            | ErrorKind::Unknown
            | ErrorKind::Timeout
            | ErrorKind::Conflict) => kind,
            _ => ErrorKind::Schema,
        };
        error.with_kind(kind, &format!("migration {} step {}", step.migration, step.number))
    })
}

/// The applied steps, as the database records them.
pub(crate) fn applied(engine: &mut dyn Schema) -> Result<Vec<AppliedStep>, Error> {
    let mut steps = Vec::new();
    if !engine.has_steps()? {
        return Ok(steps);
    }
    engine.read(&mut |tx| {
        steps = tx.all(
            "select migration, step, checksum, oldest_binary, applied_at from schema_steps \
             order by migration, step",
            &[],
            |row| {
                Ok(AppliedStep {
                    migration: row.get(0)?,
                    step: row.get(1)?,
                    checksum: row.get(2)?,
                    oldest_binary: row.get(3)?,
                    applied_at: row.get(4)?,
                })
            },
        )?;
        Ok(())
    })?;
    Ok(steps)
}

/// Checks the applied steps against the steps that the binary knows. Returns the number of unknown ones.
fn judge(steps: &[Step<'_>], there: &[AppliedStep], binary: [u64; 3]) -> Result<usize, Error> {
    let known: HashMap<_, _> = steps.iter().map(|step| ((step.migration, step.number), step)).collect();
    let mut newer = 0;
    for row in there {
        match known.get(&(row.migration.as_str(), row.step)) {
            Some(step) if step.checksum != row.checksum => {
                return Err(Error::schema(format!(
                    "migration {} step {} differs from the one applied to this database: its text has changed",
                    row.migration, row.step
                )));
            }
            Some(_) => {}
            None if row.migration == UNFINISHED => {
                return Err(Error::schema("a copy into this database did not finish: run the copy again"));
            }
            None => {
                newer += 1;
                if version(&row.oldest_binary).is_none_or(|oldest| oldest > binary) {
                    return Err(Error::schema(format!(
                        "migration {} step {} was applied by a newer binary and needs {} or later",
                        row.migration, row.step, row.oldest_binary
                    )));
                }
            }
        }
    }
    Ok(newer)
}

fn parse<'m>(migration: &'m Migration, steps: &mut Vec<Step<'m>>) -> Result<(), Error> {
    let name = migration.name;
    let oldest_binary = migration
        .sql
        .lines()
        .map(str::trim)
        .take_while(|line| line.is_empty() || line.starts_with("--"))
        .find_map(|line| line.trim_start_matches('-').trim_start().strip_prefix("oldest binary:"))
        .map(str::trim)
        .filter(|text| version(text).is_some())
        .ok_or_else(|| {
            Error::schema(format!("migration {name} does not begin with `-- oldest binary: 1.2.3`"))
        })?;
    let mut number = 0;
    let mut text = String::new();
    // `lines` drops the carriage returns of a checkout on Windows, so the checksum is the same on every
    // system.
    for line in migration.sql.lines().chain(std::iter::once("-- step")) {
        if line.trim() != "-- step" {
            text.push_str(line.trim_end());
            text.push('\n');
            continue;
        }
        number += 1;
        let step = std::mem::take(&mut text);
        let step = step.trim();
        if lex::tokens(step).all(|token| matches!(token, lex::Token::Blank(_))) {
            return Err(Error::schema(format!("migration {name} step {number} is empty")));
        }
        steps.push(Step {
            migration: name,
            number,
            checksum: checksum(step),
            text: step.to_owned(),
            oldest_binary,
        });
    }
    Ok(())
}

fn checksum(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// The bytes in lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// `major.minor.patch` without a pre-release mark: a development build of 0.2.0 runs on the same schemas as
/// 0.2.0.
fn version(text: &str) -> Option<[u64; 3]> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}
