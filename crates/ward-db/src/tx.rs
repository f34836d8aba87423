//! The transaction of a closure.

use crate::postgres::Session;
use crate::row::{Row, RowOf};
use crate::sqlite::Conn;
use crate::value::Value;
use crate::{Error, ErrorKind, lex};

/// The transaction of a closure: portable SQL with `$1`, `$2`, … and the values to bind, in that order.
///
/// After any SQL error it refuses every further statement with [`ErrorKind::Refused`], and its changes are
/// rolled back even if the closure returns `Ok`. SQLite thus behaves as PostgreSQL does. So an expected
/// conflict is written as `ON CONFLICT DO NOTHING` and detected by the row count. `BEGIN`, `COMMIT` and
/// similar statements are [`ErrorKind::Invalid`]: the closure is the transaction.
pub struct Tx<'c> {
    engine: Engine<'c>,
    state: Health,
    statements: u64,
}

enum Engine<'c> {
    Sqlite(&'c Conn),
    Postgres(&'c mut Session),
}

#[derive(Clone, Debug)]
enum Health {
    Sound,
    /// A statement failed with this error.
    Failed(Error),
}

impl<'c> Tx<'c> {
    pub(crate) fn sqlite(conn: &'c Conn) -> Self {
        Self { engine: Engine::Sqlite(conn), state: Health::Sound, statements: 0 }
    }

    pub(crate) fn postgres(session: &'c mut Session) -> Self {
        Self { engine: Engine::Postgres(session), state: Health::Sound, statements: 0 }
    }

    /// Runs a statement and returns the number of rows that it inserted, updated or deleted. Returned rows
    /// are dropped.
    pub fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64, Error> {
        self.statement(|engine| match engine {
            Engine::Sqlite(conn) => conn.execute(sql, params),
            Engine::Postgres(session) => session.statement(sql, params).map(|(_, changed)| changed),
        })
    }

    /// Runs a change whose row count is not needed, and on whose success the rest of the closure does not
    /// depend. On PostgreSQL it is sent with the next statement or the commit, so it costs no round trip. Its
    /// error becomes the error of that statement or commit.
    ///
    /// Do not use it just before the commit for a change that may wait for a lock: a commit that takes too
    /// long is [`ErrorKind::Unknown`].
    pub fn execute_later(&mut self, sql: &str, params: &[Value<'_>]) -> Result<(), Error> {
        self.statement(|engine| match engine {
            Engine::Sqlite(conn) => conn.execute(sql, params).map(drop),
            Engine::Postgres(session) => session.statement_later(sql, params),
        })
    }

    /// The first row, mapped. No row is [`ErrorKind::NoRow`].
    pub fn one<T>(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        map: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.optional(sql, params, map)?
            .ok_or_else(|| Error::new(ErrorKind::NoRow, "a query that must give a row gave none"))
    }

    /// The first row, mapped, or `None` when there is none.
    pub fn optional<T>(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        map: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        // An error of the mapping is not an SQL error: the transaction stays usable.
        let mapped = self.statement(|engine| match engine {
            Engine::Sqlite(conn) => conn.first(sql, params, |row| map(&Row(RowOf::Sqlite(row)))),
            Engine::Postgres(session) => {
                let (rows, _) = session.statement(sql, params)?;
                Ok(rows.first().map(|row| map(&Row(RowOf::Postgres(row)))))
            }
        })?;
        mapped.transpose()
    }

    /// Every row, mapped, in the result's order. The whole result is held in memory: bound it by a key or a
    /// `LIMIT`.
    pub fn all<T>(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        mut map: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.statement(|engine| match engine {
            Engine::Sqlite(conn) => {
                let mut rows = Vec::new();
                let outcome = conn.each(sql, params, |row| {
                    rows.push(map(&Row(RowOf::Sqlite(row)))?);
                    Ok(())
                })?;
                Ok(outcome.map(|()| rows))
            }
            Engine::Postgres(session) => {
                let (rows, _) = session.statement(sql, params)?;
                Ok(rows.iter().map(|row| map(&Row(RowOf::Postgres(row)))).collect())
            }
        })?
    }

    /// Runs every statement of a migration step's text.
    pub(crate) fn script(&mut self, sql: &str) -> Result<(), Error> {
        self.statement(|engine| match engine {
            Engine::Sqlite(conn) => conn.script(&lex::schema_for_sqlite(sql)),
            Engine::Postgres(session) => session.script(sql),
        })
    }

    /// The only way to the engine. It counts statements, remembers the first error, and refuses further
    /// statements after it.
    fn statement<T>(&mut self, run: impl FnOnce(&mut Engine<'c>) -> Result<T, Error>) -> Result<T, Error> {
        if let Health::Failed(first) = &self.state {
            return Err(Error::new(
                ErrorKind::Refused,
                "the transaction takes no further statement after an error",
            )
            .because(first.clone()));
        }
        self.statements += 1;
        run(&mut self.engine).inspect_err(|error| {
            metrics::counter!("ward_db_errors_total", "kind" => error.kind().label()).increment(1);
            self.state = Health::Failed(error.clone());
        })
    }

    /// The SQL error after which this transaction takes no statements, if there was one.
    pub(crate) fn failure(&self) -> Option<&Error> {
        match &self.state {
            Health::Sound => None,
            Health::Failed(error) => Some(error),
        }
    }

    /// The number of statements sent to the engine.
    pub(crate) fn statements(&self) -> u64 {
        self.statements
    }
}
