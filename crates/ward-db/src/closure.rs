//! Running a caller's closure: where it may run, what its panic means, and when its `Ok` is not believed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::tx::Tx;
use crate::{Error, ErrorKind};

thread_local! {
    /// The name of the closure that this thread is inside of.
    static INSIDE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Panics when called from inside a closure. A nested call would wait for a connection that its own transaction
/// holds, or change things that the outer transaction's rollback would not undo.
pub(crate) fn assert_outside(name: &str) {
    if let Some(outer) = INSIDE.get() {
        panic!("database call `{name}` inside the closure `{outer}`: pass the closure's Tx on instead");
    }
}

struct Inside;

impl Inside {
    fn enter(name: &'static str) -> Self {
        INSIDE.set(Some(name));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(None);
    }
}

/// Runs `f` in `tx`. `Ok` only if the transaction is to be kept: a closure that met an SQL error and answers `Ok`
/// all the same is refused, for PostgreSQL would turn its commit into a rollback.
pub(crate) fn run<T, E: From<Error>>(
    name: &'static str,
    tx: &mut Tx<'_>,
    f: &mut impl FnMut(&mut Tx<'_>) -> Result<T, E>,
) -> Result<T, E> {
    // The closure's own state after a panic is not looked at again, and the transaction is rolled back.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let _inside = Inside::enter(name);
        f(tx)
    }));
    match ended {
        Ok(Ok(_)) if let Some(failure) = tx.failure() => Err(E::from(
            Error::new(
                ErrorKind::Refused,
                format!("{name}: rolled back, for a statement failed although the closure went on"),
            )
            .because(failure.clone()),
        )),
        Ok(result) => result,
        Err(_payload) => {
            // Not the payload: an `unwrap` puts the value into it, and the value may be a patient's.
            tracing::error!(closure = name, "a database closure panicked");
            metrics::counter!("ward_db_errors_total", "kind" => ErrorKind::Panic.label()).increment(1);
            Err(E::from(Error::new(ErrorKind::Panic, format!("{name}: the closure panicked"))))
        }
    }
}
