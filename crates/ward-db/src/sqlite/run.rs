//! Closures and schema changes on one connection.

use std::time::Instant;

use super::conn::Conn;
use crate::counters::{Counters, add};
use crate::migrate::Schema;
use crate::tx::Tx;
use crate::{Error, closure};

impl Conn {
    /// Runs `f` over one snapshot. The flag says whether the connection can be used again.
    pub(super) fn snapshot<T, E: From<Error>>(
        &self,
        name: &'static str,
        f: &mut impl FnMut(&mut Tx<'_>) -> Result<T, E>,
        counters: &Counters,
    ) -> (Result<T, E>, bool) {
        let started = Instant::now();
        if let Err(error) = self.raw("BEGIN") {
            return (Err(E::from(error)), false);
        }
        let mut tx = Tx::sqlite(self);
        let mut result = closure::run(name, &mut tx, f);
        add(&counters.statements, tx.statements());
        let ended = self.raw("COMMIT").or_else(|_| self.raw("ROLLBACK"));
        if let (Ok(_), Err(error)) = (&result, &ended) {
            result = Err(E::from(error.clone()));
        }
        self.time(name, started.elapsed());
        (result, self.idle())
    }
}

impl Schema for Conn {
    fn has_steps(&mut self) -> Result<bool, Error> {
        let table = Tx::sqlite(self).optional(
            "select sql like '%applied_at INTEGER%' from sqlite_schema where name = 'schema_steps'",
            &[],
            |row| row.get::<bool>(0),
        )?;
        if table == Some(false) {
            return Err(Error::schema(
                "this file was written by a build before the first release, which stored ids and times as text; Ward \
                cannot use it",
            ));
        }
        Ok(table.is_some())
    }

    fn read(&mut self, work: &mut dyn FnMut(&mut Tx<'_>) -> Result<(), Error>) -> Result<(), Error> {
        work(&mut Tx::sqlite(self))
    }

    fn make(&mut self, script: &str) -> Result<(), Error> {
        self.transaction(|tx| tx.script(script).map(|()| true)).map(|_| ())
    }

    fn apply(
        &mut self,
        claim: &mut dyn FnMut(&mut Tx<'_>) -> Result<bool, Error>,
        script: &str,
    ) -> Result<bool, Error> {
        self.transaction(|tx| {
            if !claim(tx)? {
                return Ok(false);
            }
            tx.script(script).map(|()| true)
        })
    }
}

impl Conn {
    /// Runs `change` in a transaction, and commits if it returned true.
    pub(super) fn transaction(
        &self,
        change: impl FnOnce(&mut Tx<'_>) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        self.raw("BEGIN IMMEDIATE")?;
        let result = change(&mut Tx::sqlite(self))
            .and_then(|keep| self.raw(if keep { "COMMIT" } else { "ROLLBACK" }).map(|()| keep));
        if !self.idle() {
            self.raw("ROLLBACK")?;
        }
        result
    }
}
