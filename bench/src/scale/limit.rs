//! The lower limit of the growth of a GET: SQLite alone finds the same three rows by its fastest kind of key.

use std::path::Path;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rusqlite::{Connection, OpenFlags};

use crate::Failure;
use crate::place::remove;

/// The tables in which a GET of one object finds a row. Each has a column from the end of its rows.
const TABLES: [(&str, &str); 3] =
    [("api_keys", "updated_at"), ("memberships", "seat"), ("workspaces", "updated_at")];

/// The page cache of one of Ward's reading connections, in KiB.
const CACHE: i64 = 8 << 10;

/// A separate file with the rows of those tables under integer keys. It has no other columns and one tree per table,
/// whose upper levels hold only integers.
pub struct Limit {
    connection: Connection,
    rows: [i64; 3],
    random: StdRng,
}

impl Limit {
    /// Opens `file`, after it has copied the rows of a Ward database into it if necessary.
    pub fn of(database: &Path, file: &Path) -> Result<Self, Failure> {
        if !file.exists() {
            let unfinished = file.with_extension("unfinished");
            copy(database, &unfinished)?;
            std::fs::rename(unfinished, file)?;
        }
        std::io::copy(&mut std::fs::File::open(file)?, &mut std::io::sink())?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.pragma_update(None, "cache_size", -CACHE)?;
        let mut rows = [0; 3];
        for (rows, (table, _)) in rows.iter_mut().zip(TABLES) {
            *rows = connection.query_row(&format!("SELECT max(n) FROM {table}"), [], |row| row.get(0))?;
        }
        Ok(Self { connection, rows, random: StdRng::seed_from_u64(rows[0].unsigned_abs()) })
    }

    /// Finds a row of each table in one statement and one transaction, `times` times. The result is the median in
    /// microseconds.
    pub fn run(&mut self, times: u32) -> Result<f64, Failure> {
        let one = |at: usize| {
            let (table, column) = TABLES[at];
            format!("(SELECT {column} FROM {table} WHERE n = ?{})", at + 1)
        };
        let mut find = self.connection.prepare(&format!("SELECT {}, {}, {}", one(0), one(1), one(2)))?;
        let mut spans = Vec::new();
        for _ in 0..times {
            let numbers = self.rows.map(|rows| self.random.random_range(1..=rows));
            let began = Instant::now();
            self.connection.execute_batch("BEGIN")?;
            let all: bool = find.query_row(numbers, |row| {
                Ok(row.get::<_, i64>(0)? > 0 && row.get::<_, i64>(1)? > 0 && row.get::<_, i64>(2)? > 0)
            })?;
            self.connection.execute_batch("COMMIT")?;
            spans.push(began.elapsed());
            if !all {
                return Err("a row is missing".into());
            }
        }
        spans.sort_unstable();
        Ok(spans.get(spans.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e6)
    }
}

fn copy(database: &Path, file: &Path) -> Result<(), Failure> {
    remove(file)?;
    let connection = Connection::open(file)?;
    let _: String = connection.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.execute("ATTACH ?1 AS ward", [database.to_str().ok_or("the path is not UTF-8")?])?;
    for (table, _) in TABLES {
        let columns: String = connection.query_row(
            "SELECT group_concat(name) FROM pragma_table_info(?1, 'ward')",
            [table],
            |row| row.get(0),
        )?;
        connection.execute_batch(&format!(
            "CREATE TABLE {table} (n INTEGER PRIMARY KEY, {columns}); \
             INSERT INTO {table} SELECT NULL, * FROM ward.{table}"
        ))?;
    }
    connection.execute_batch("DETACH ward; PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}
