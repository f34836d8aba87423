//! Test support: every test on every engine, and temporary PostgreSQL servers.
//!
//! A test is a block in [`both!`], which makes two tests of it:
//!
//! ```ignore
//! both!(a_name_can_be_changed, async || { /* `Engine::current()` returns the test's engine */ });
//! ```
//!
//! `WARD_TEST_ENGINES` (`sqlite` or `postgres`) leaves the other engine out, and the tests report that.
//! `WARD_TEST_POSTGRES_BIN` names the folder of PostgreSQL's programs if they are in none of the usual
//! places.

#![allow(missing_docs, reason = "a comment that only repeats a name is left out")]

mod guarded;
pub mod postgres;
pub mod proxy;
pub mod recovery;
pub mod replicated;
pub mod sqlite;

use std::cell::Cell;
use std::io::Write as _;
use std::sync::Once;

pub use guarded::GuardedProcess;

/// An engine on which tests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// SQLite, with one file per test.
    Sqlite,
    /// PostgreSQL, with one database per test.
    Postgres,
}

thread_local! {
    static CURRENT: Cell<Option<Engine>> = const { Cell::new(None) };
}

impl Engine {
    /// Whether this thread runs a PostgreSQL test; false outside of tests.
    pub fn is_postgres() -> bool {
        CURRENT.get() == Some(Self::Postgres)
    }

    /// The engine of the test that this thread runs.
    ///
    /// # Panics
    ///
    /// The thread runs no test made by [`both!`]; this includes threads that such a test started.
    #[track_caller]
    pub fn current() -> Self {
        CURRENT
            .get()
            .expect("a test that needs an engine is made by `both!(its_name)`, not by `#[tokio::test]`")
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }

    /// Whether `WARD_TEST_ENGINES` leaves this engine out. If so, a warning is printed once.
    ///
    /// # Panics
    ///
    /// The variable names an unknown engine.
    pub fn is_left_out(self) -> bool {
        static SAID: Once = Once::new();
        let Ok(wanted) = std::env::var("WARD_TEST_ENGINES") else { return false };
        let known = [Self::Sqlite, Self::Postgres];
        let names: Vec<&str> = wanted.split(',').map(str::trim).collect();
        assert!(
            names.iter().all(|name| known.iter().any(|engine| engine.name() == *name)),
            "WARD_TEST_ENGINES is a list of `sqlite` and `postgres`, not {wanted:?}"
        );
        let out = !names.contains(&self.name());
        if out {
            SAID.call_once(|| {
                // `eprintln!` does not work here: the test harness hides its output when the test passes.
                let said = format!(
                    "\nWARNING: WARD_TEST_ENGINES={wanted} leaves out {}: these tests prove nothing about it.\n\n",
                    self.name()
                );
                let _ = std::io::stderr().write_all(said.as_bytes());
            });
        }
        out
    }
}

/// Runs a test's body on an engine, in a runtime with this many worker threads; 0: only the test's own
/// thread.
///
/// # Panics
///
/// The body panics.
pub fn run<F: Future<Output = ()>>(engine: Engine, threads: usize, body: impl FnOnce() -> F) {
    if engine.is_left_out() {
        return;
    }
    let mut builder = if threads == 0 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.worker_threads(threads.max(1)).enable_all().build().expect("a runtime");
    CURRENT.set(Some(engine));
    // Each engine compares the same snapshot once, so the results must be equal.
    insta::allow_duplicates! {
        runtime.block_on(body());
    }
    CURRENT.set(None);
}

/// Runs the body of a blocking test on an engine, such as a test of whole processes.
///
/// # Panics
///
/// The body panics.
pub fn run_blocking(engine: Engine, body: impl FnOnce()) {
    if engine.is_left_out() {
        return;
    }
    CURRENT.set(Some(engine));
    body();
    CURRENT.set(None);
}

/// Makes two tests, `name::sqlite` and `name::postgres`, from the given block or from the `async fn` of this name beside it.
/// With `threads = n` their runtimes have this many worker threads. With `blocking` the function is an ordinary `fn`.
#[macro_export]
macro_rules! both {
    ($name:ident, async || $body:block) => {
        $crate::both!($name, threads = 0, async || $body);
    };
    ($name:ident, threads = $threads:expr, async || $body:block) => {
        $crate::both!($name, threads = $threads);
        async fn $name() $body
    };
    ($name:ident, blocking) => {
        mod $name {
            #[test]
            fn sqlite() {
                $crate::run_blocking($crate::Engine::Sqlite, super::$name);
            }

            #[test]
            fn postgres() {
                $crate::run_blocking($crate::Engine::Postgres, super::$name);
            }
        }
    };
    ($name:ident) => {
        $crate::both!($name, threads = 0);
    };
    ($name:ident, threads = $threads:expr) => {
        mod $name {
            #[test]
            fn sqlite() {
                $crate::run($crate::Engine::Sqlite, $threads, super::$name);
            }

            #[test]
            fn postgres() {
                $crate::run($crate::Engine::Postgres, $threads, super::$name);
            }
        }
    };
}

/// Makes a test for PostgreSQL alone, `name::postgres`, from the given block or from the `async fn` of this name beside it.
/// With `threads = n` its runtime has this many worker threads. With `blocking` the function is an ordinary `fn`.
#[macro_export]
macro_rules! postgres_only {
    ($name:ident, async || $body:block) => {
        $crate::postgres_only!($name, threads = 0, async || $body);
    };
    ($name:ident, threads = $threads:expr, async || $body:block) => {
        $crate::postgres_only!($name, threads = $threads);
        async fn $name() $body
    };
    ($name:ident, blocking) => {
        mod $name {
            #[test]
            fn postgres() {
                $crate::run_blocking($crate::Engine::Postgres, super::$name);
            }
        }
    };
    ($name:ident) => {
        $crate::postgres_only!($name, threads = 0);
    };
    ($name:ident, threads = $threads:expr) => {
        mod $name {
            #[test]
            fn postgres() {
                $crate::run($crate::Engine::Postgres, $threads, super::$name);
            }
        }
    };
}

/// Makes a test for SQLite alone: `name::sqlite`.
#[macro_export]
macro_rules! sqlite_only {
    ($name:ident, async || $body:block) => {
        $crate::sqlite_only!($name);
        async fn $name() $body
    };
    ($name:ident) => {
        mod $name {
            #[test]
            fn sqlite() {
                $crate::run($crate::Engine::Sqlite, 0, super::$name);
            }
        }
    };
}
