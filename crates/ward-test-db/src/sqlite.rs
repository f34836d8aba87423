//! The product's data in an `SQLite` file: how tests write it, and how they read it beside a server.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, StatementStatus};

/// Translates literals of the form `uuid '…'` and `timestamptz '…'` into the form that the product stores in
/// a file. `PostgreSQL` takes these literals as they are.
///
/// # Panics
///
/// A literal does not end.
pub fn spelled(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((kind, at)) = ["uuid '", "timestamptz '"]
        .iter()
        .filter_map(|kind| Some((*kind, rest.find(kind)?)))
        .min_by_key(|found| found.1)
    {
        let (text, after) = rest[at + kind.len()..].split_once('\'').expect("a literal that ends");
        out.push_str(&rest[..at]);
        out.push_str(&if kind.starts_with("uuid") { uuid(text) } else { time(text) });
        rest = after;
    }
    out + rest
}

fn uuid(text: &str) -> String {
    format!("x'{}'", text.replace('-', ""))
}

fn time(text: &str) -> String {
    format!("(unixepoch('{text}') * 1000000 + CAST(substr('{text}', 21, 6) AS integer))")
}

/// SQL for a column's text, which differs for different values. An id, 16 bytes in a file, is shown in its
/// usual form; any other value is a literal.
pub fn shown(column: &str) -> String {
    let part = |(from, length): (u8, u8)| format!("lower(substr(hex({column}), {from}, {length}))");
    let id = [(1, 8), (9, 4), (13, 4), (17, 4), (21, 12)].map(part).join(" || '-' || ");
    format!("iif(typeof({column}) = 'blob' AND length({column}) = 16, {id}, quote({column}))")
}

/// Runs a query with its parameters. The text of each decides its type: a number, an id, a timestamp or a
/// text. Returns the number of steps of `SQLite`'s virtual machine.
///
/// # Panics
///
/// The file cannot be opened, or the query cannot be run.
pub fn steps(file: &Path, sql: &str, parameters: &[&str]) -> u64 {
    let run = || {
        let file = Connection::open(file)?;
        let mut statement = file.prepare(sql)?;
        for (index, text) in parameters.iter().enumerate() {
            statement.raw_bind_parameter(index + 1, read_as(&file, text)?)?;
        }
        let mut rows = statement.raw_query();
        while rows.next()?.is_some() {}
        drop(rows);
        Ok(statement.get_status(StatementStatus::VmStep))
    };
    let steps: Result<i32, rusqlite::Error> = run();
    let steps = steps.unwrap_or_else(|error| panic!("{sql}: {error}"));
    u64::try_from(steps).expect("a count")
}

/// Another program that has a database open, until it is dropped. Its end copies nothing, like a kill.
#[derive(Debug)]
pub struct OpenDatabase {
    _connection: Connection,
}

impl OpenDatabase {
    /// Opens the database and reads a row, as a shell does. `reading`: its transaction stays open, as a
    /// backup's does.
    ///
    /// # Panics
    ///
    /// The file cannot be read.
    pub fn hold(file: &Path, reading: bool) -> Self {
        let opened = Connection::open(file).expect("a database");
        let told = opened.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        assert!(told.is_ok_and(|is| is), "it would copy the log when it closes");
        if reading {
            opened.execute_batch("BEGIN").expect("a transaction");
        }
        let count = opened.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        count.expect("a database");
        Self { _connection: opened }
    }
}

fn read_as(file: &Connection, text: &str) -> rusqlite::Result<Value> {
    let dashes: Vec<usize> = text.match_indices('-').map(|found| found.0).collect();
    let value = match text.parse::<i64>() {
        Ok(number) => return Ok(number.into()),
        Err(_) if text.len() == 36 && dashes == [8, 13, 18, 23] => uuid(text),
        Err(_) if text.len() == 27 && dashes == [4, 7] => time(text),
        Err(_) => return Ok(text.to_owned().into()),
    };
    file.query_row(&format!("SELECT {value}"), [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_what_the_file_keeps() {
        let file = Connection::open_in_memory().unwrap();
        let row = "SELECT uuid '00112233-4455-6677-8899-aabbccddeeff', 'x', timestamptz '1970-01-01T00:00:02.000003Z'";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let (id, text, time): (Vec<u8>, String, i64) = file.query_row(&spelled(row), [], read).unwrap();
        assert_eq!((id[1], id.len(), text.as_str(), time), (0x11, 16, "x", 2_000_003));
        let shown = format!("SELECT {}", shown("unhex('00112233445566778899AABBCCDDEEFF')"));
        let shown: String = file.query_row(&shown, [], |row| row.get(0)).unwrap();
        assert_eq!(shown, "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(read_as(&file, "00112233-4455-6677-8899-aabbccddeeff").unwrap(), Value::Blob(id));
        assert_eq!(read_as(&file, "1970-01-01T00:00:02.000003Z").unwrap(), Value::Integer(2_000_003));
        assert_eq!(read_as(&file, "00112233").unwrap(), Value::Integer(112_233));
        assert_eq!(read_as(&file, "acme-1").unwrap(), Value::Text("acme-1".into()));
    }
}
