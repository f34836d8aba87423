//! Runs a caller's closure: where it may run, what a panic means, and when its `Ok` is refused.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::tx::Tx;
use crate::{Error, ErrorKind};

thread_local! {
    /// The name of the closure that runs on this thread.
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

/// Runs `f` in `tx`. A closure that met an SQL error and still returns `Ok` is refused, because PostgreSQL
/// would turn its commit into a rollback.
pub(crate) fn run<T, E: From<Error>>(
    name: &'static str,
    tx: &mut Tx<'_>,
    f: &mut impl FnMut(&mut Tx<'_>) -> Result<T, E>,
) -> Result<T, E> {
    // The transaction is rolled back after a panic, and the closure's own state is not used again.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let _inside = Inside::enter(name);
        f(tx)
    }));
    match ended {
        Ok(Ok(_)) if let Some(failure) = tx.failure() => Err(E::from(
            Error::new(
                ErrorKind::Refused,
                format!(
                    "{name}: rolled back: a statement failed, and the closure returned success all the same"
                ),
            )
            .because(failure.clone()),
        )),
        Ok(result) => result,
        Err(_payload) => {
            // The payload is not logged: an `unwrap` puts the value into it, and the value may be a
            // patient's.
            tracing::error!(closure = name, "a database closure panicked; its changes are rolled back");
            metrics::counter!("ward_db_errors_total", "kind" => ErrorKind::Panic.label()).increment(1);
            Err(E::from(Error::new(ErrorKind::Panic, format!("{name}: the closure panicked"))))
        }
    }
}
