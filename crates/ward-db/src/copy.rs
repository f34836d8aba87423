//! Copies a whole database from a SQLite file to a PostgreSQL server.
//!
//! The code knows no table by name: both schemas come from the same migrations, so it reads them from the
//! databases. While a copy runs, a row in the target's table of steps says so, under a name that every binary
//! refuses to run on. A half-copied installation is therefore never served. An interrupted copy starts again
//! from the beginning and overwrites what the first one left.

mod table;
mod value;

use std::path::PathBuf;

use serde::Serialize;
use uuid::Uuid;

use crate::migrate::UNFINISHED;
use crate::{Db, Error, ErrorKind, Migration, Options, Tx};
use table::Table;
use value::{Digest, OwnedValue};

/// Rows read at once and written in one transaction; distributed engines accept transactions of this size.
const BATCH: usize = 500;

/// The stage that a copy has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rows are being copied to the target.
    Copying,
    /// Both sides are read again and compared.
    Verifying,
}

/// The progress of a copy, reported after each batch.
#[derive(Clone, Copy, Debug)]
pub struct CopyProgress<'p> {
    /// The stage that `done` and `total` count.
    pub stage: Stage,
    /// The table being copied or compared.
    pub table: &'p str,
    /// Rows done in this stage, over all tables.
    pub done: u64,
    /// The value of `done` at the end of the stage.
    pub total: u64,
}

/// A table that was copied and compared equal on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopiedTable {
    /// The table's name, without a schema.
    pub table: String,
    /// The number of rows, equal on both sides.
    pub rows: u64,
    /// The sum of its rows' digests, in hexadecimal: independent of the order of rows and of the engine.
    pub digest: String,
}

impl Db {
    /// Copies every row into `target` and compares both sides row by row. `target` must be a PostgreSQL
    /// database that was never written to. It is migrated to `migrations` first; this database must be at
    /// those migrations already.
    ///
    /// No process may write to this database during the copy: open it with [`Options::serve_lock`]. The
    /// comparison finds a change that happened nevertheless, and returns [`ErrorKind::Conflict`].
    ///
    /// An interrupted copy leaves a target that no server starts on. Another copy into it starts from the
    /// beginning.
    pub async fn copy_to(
        &self,
        target: &Db,
        migrations: &[Migration],
        binary_version: &str,
        mut progress: impl FnMut(CopyProgress<'_>),
    ) -> Result<Vec<CopiedTable>, Error> {
        let tables = prepare(self, target, migrations, binary_version).await?;
        let run = begin(target, &tables, migrations, binary_version).await?;
        let mut total = 0;
        for table in &tables {
            total += table.count(self).await?;
        }
        for table in tables.iter().rev() {
            clear(target, table, run).await?;
        }
        let mut done = 0;
        for table in &tables {
            let mut after = None;
            while let Some(rows) = table.page(self, after.take(), BATCH).await? {
                done += rows.len() as u64;
                after = Some(table.key_of(rows.last()));
                insert(target, table, rows, run).await?;
                progress(CopyProgress { stage: Stage::Copying, table: &table.name, done, total });
            }
        }
        let mut copied = Vec::with_capacity(tables.len());
        let mut done = 0;
        for table in &tables {
            let here = digest(self, table).await?;
            let there = digest(target, table).await?;
            if here != there {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "the table {} differs after the copy ({} rows here, {} there): one of the databases was written to \
                        meanwhile. Stop every program that uses them and copy again",
                        table.name, here.rows, there.rows
                    ),
                ));
            }
            done += here.rows;
            progress(CopyProgress { stage: Stage::Verifying, table: &table.name, done, total });
            copied.push(CopiedTable { table: table.name.clone(), rows: here.rows, digest: here.hex() });
        }
        finish(target, run).await?;
        Ok(copied)
    }
}

/// Migrates the target's schema to the source's version, and returns the tables of both in the order of their
/// references.
async fn prepare(
    source: &Db,
    target: &Db,
    migrations: &[Migration],
    binary_version: &str,
) -> Result<Vec<Table>, Error> {
    if !target.is_postgres() {
        return Err(Error::invalid("the target of a copy must be a PostgreSQL database"));
    }
    if source.is_postgres() {
        return Err(Error::invalid("the source of a copy must be a SQLite file"));
    }
    if !is_begun(target)? {
        target.migrate(migrations, binary_version)?;
    }
    let steps = |db: &Db| -> Result<Vec<_>, Error> {
        let steps = db.schema()?.into_iter().filter(|step| step.migration != UNFINISHED);
        Ok(steps.map(|step| (step.migration, step.step, step.checksum)).collect())
    };
    if steps(source)? != steps(target)? {
        return Err(Error::schema(
            "the two databases are not at the same migration: migrate the source with this binary first, and copy into \
             an empty database",
        ));
    }
    let tables = table::read(source, target).await?;
    Ok(tables)
}

fn is_begun(target: &Db) -> Result<bool, Error> {
    Ok(target.schema()?.iter().any(|step| step.migration == UNFINISHED))
}

/// Marks the target as being copied to by this run. Refuses a target with rows that its migrations did not
/// insert.
async fn begin(
    target: &Db,
    tables: &[Table],
    migrations: &[Migration],
    binary_version: &str,
) -> Result<Uuid, Error> {
    if !is_begun(target)? {
        let fresh = Fresh::make(migrations, binary_version)?;
        for table in tables {
            let (here, there) = (digest(&fresh.db, table).await?, digest(target, table).await?);
            if here != there {
                return Err(Error::invalid(format!(
                    "the target is in use: its table {} holds rows of its own. Copy into an empty database",
                    table.name
                )));
            }
        }
    }
    let run = crate::ambient::id();
    let now = crate::ambient::now();
    target
        .write("copy.begin", move |tx| {
            tx.execute(
                "INSERT INTO schema_steps (migration, step, checksum, oldest_binary, applied_at) \
                 VALUES ($1, 1, $2, '', $3) ON CONFLICT (migration, step) DO UPDATE SET checksum = excluded.checksum",
                &[UNFINISHED.into(), run.to_string().as_str().into(), now.into()],
            )
        })
        .await?;
    Ok(run)
}

/// Locks the row of the mark. Of two copies into one target, only the later one can go on.
fn guard(tx: &mut Tx<'_>, run: Uuid) -> Result<(), Error> {
    let mine = tx.execute(
        "UPDATE schema_steps SET checksum = checksum WHERE migration = $1 AND checksum = $2",
        &[UNFINISHED.into(), run.to_string().as_str().into()],
    )?;
    if mine == 1 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        "another copy into the same database was started after this one, which stops",
    ))
}

async fn clear(target: &Db, table: &Table, run: Uuid) -> Result<(), Error> {
    let sql = table.delete_some(BATCH);
    loop {
        let sql = sql.clone();
        let gone = target
            .write("copy.clear", move |tx| {
                guard(tx, run)?;
                tx.execute(&sql, &[])
            })
            .await?;
        if gone == 0 {
            return Ok(());
        }
    }
}

async fn insert(target: &Db, table: &Table, rows: Vec<Vec<OwnedValue>>, run: Uuid) -> Result<(), Error> {
    let sql = table.insert(rows.len());
    target
        .write("copy.insert", move |tx| {
            guard(tx, run)?;
            let values: Vec<_> = rows.iter().flatten().map(OwnedValue::value).collect();
            tx.execute(&sql, &values).map(|_| ())
        })
        .await
}

async fn finish(target: &Db, run: Uuid) -> Result<(), Error> {
    target
        .write("copy.finish", move |tx| {
            guard(tx, run)?;
            tx.execute("DELETE FROM schema_steps WHERE migration = $1", &[UNFINISHED.into()]).map(|_| ())
        })
        .await
}

async fn digest(db: &Db, table: &Table) -> Result<Digest, Error> {
    let mut digest = Digest::default();
    let mut after = None;
    while let Some(rows) = table.page(db, after.take(), BATCH).await? {
        for row in &rows {
            digest.add(row);
        }
        after = Some(table.key_of(rows.last()));
    }
    Ok(digest)
}

/// A file with only what the migrations create: the content of an unused database.
struct Fresh {
    db: Db,
    folder: PathBuf,
}

impl Fresh {
    fn make(migrations: &[Migration], binary_version: &str) -> Result<Self, Error> {
        let folder = std::env::temp_dir().join(format!("ward-copy-{}", crate::ambient::id()));
        std::fs::create_dir(&folder)
            .map_err(|error| Error::unavailable("a temporary folder cannot be created").because(error))?;
        let url = format!("sqlite:{}", folder.join("fresh.db").display());
        let db = Db::open(&url, Options { flush: false, ..Options::default() })?;
        let fresh = Self { db, folder };
        fresh.db.migrate(migrations, binary_version)?;
        Ok(fresh)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.db.close();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
