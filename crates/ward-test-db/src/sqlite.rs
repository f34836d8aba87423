//! A look at an `SQLite` file beside the server that has it open.

use std::path::Path;

use rusqlite::{Connection, StatementStatus};

/// Runs a query with its parameters, of which those that read as numbers are bound as such, and says how many steps of
/// `SQLite`'s machine it took.
///
/// # Panics
///
/// When the file cannot be opened or the query not be run.
pub fn steps(file: &Path, sql: &str, parameters: &[&str]) -> u64 {
    let run = || {
        let file = Connection::open(file)?;
        let mut statement = file.prepare(sql)?;
        for (index, text) in parameters.iter().enumerate() {
            match text.parse::<i64>() {
                Ok(number) => statement.raw_bind_parameter(index + 1, number)?,
                Err(_) => statement.raw_bind_parameter(index + 1, text)?,
            }
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
