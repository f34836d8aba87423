//! How closures run: which transactions they get, and how long their statements may take.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::url::Target;
use crate::Options;
use crate::counters::Counters;

/// Where sessions come from.
pub(super) struct Source {
    pub(super) target: Target,
    pub(super) options: Options,
    pub(super) counters: Counters,
    /// Names of the reads that were seen to send more than one statement: they run in a transaction from its start.
    pub(super) several: RwLock<HashSet<&'static str>>,
    /// Which of the target's places the last connection was made to.
    pub(super) preferred: AtomicUsize,
    /// How often a server was found to be none, or none any more.
    distrusted: AtomicU64,
}

impl Source {
    pub(super) fn new(target: Target, options: Options) -> Self {
        Self {
            target,
            options,
            counters: Counters::default(),
            several: RwLock::default(),
            preferred: AtomicUsize::new(0),
            distrusted: AtomicU64::new(0),
        }
    }

    /// Notes that the server which was connected to is not the one that takes writes, or does not answer. Every
    /// connection that was made before is let go before it is used again: a read on it might be of another day.
    pub(super) fn distrust(&self) {
        self.distrusted.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that changes with [`distrust`](Self::distrust): connections made since it was read may be used.
    pub(super) fn trusted(&self) -> u64 {
        self.distrusted.load(Ordering::Relaxed)
    }
}

/// How a closure runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// One statement by itself.
    Single,
    /// All statements over one snapshot.
    Read,
    /// The same with more time.
    LongRead,
    /// One transaction, READ COMMITTED.
    Write,
    /// The same without a limit on a statement's time.
    Schema,
}

impl Mode {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Single | Self::Read => "read",
            Self::LongRead => "long_read",
            Self::Write => "write",
            Self::Schema => "migrate",
        }
    }
}

/// How long one statement may take.
pub(super) fn statement_time(mode: Mode, options: &Options) -> Duration {
    match mode {
        Mode::Single | Mode::Read | Mode::Write => options.statement_time,
        Mode::LongRead => options.long_read_time,
        Mode::Schema => Duration::from_hours(24),
    }
}

/// How statements are planned. Each of the product's is a look-up by an index, whatever the tables hold; but a plan that
/// was made while a table was small, or by statistics of another day, may read all of it, and a prepared statement keeps
/// its plan. So the ways to read all of a table are not to be preferred, and one plan, made without looking at values,
/// serves every execution. (Nothing is forbidden by this: a statement that has no index to use still runs.)
pub const PLANS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off; \
     SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_sort = off; SET enable_material = off; \
     SET jit = off";

/// Makes a server process keep the memory that its statements take. The C library that PostgreSQL mostly runs on gives what
/// is free at the heap's end back to the system as soon as it is 128 KiB, which is what five index scans take: where a
/// process's heap happens to lie so, each look-up takes it and gives it back, five calls and three to seven page faults or
/// a third of the statement's time. Once something larger was freed, the library waits for twice as much. So a process
/// keeps up to 2 MiB more. Where memory is managed otherwise, this is one small statement for nothing.
///
/// (mallopt(3), `M_MMAP_THRESHOLD`: "dynamic mmap threshold".)
pub(super) const MEMORY: &str = "SELECT length(repeat('x', 1048576))";

/// What every session is told once.
pub(super) fn settings(options: &Options) -> String {
    let (statement, idle) = limits(options);
    let flush = if options.flush { "" } else { "; SET synchronous_commit = off" };
    format!("SET statement_timeout = {statement}; SET idle_in_transaction_session_timeout = {idle}{flush}")
}

/// How long a statement may take and how long the server keeps a transaction whose replica says nothing more, in
/// milliseconds.
fn limits(options: &Options) -> (u128, u128) {
    let statement = options.statement_time.as_millis().max(1);
    (statement, statement + options.closure_time.as_millis())
}

/// How a transaction begins. The level is named, whatever the database's default is.
pub(super) fn begin(mode: Mode, source: &Source) -> Option<String> {
    const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    const WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
    let options = &source.options;
    Some(match mode {
        Mode::Single => return None,
        Mode::LongRead => {
            format!("{READ}; SET LOCAL statement_timeout = {}", options.long_read_time.as_millis().max(1))
        }
        Mode::Read if source.target.sessions => READ.to_owned(),
        Mode::Write if source.target.sessions => WRITE.to_owned(),
        Mode::Read | Mode::Write => {
            let (statement, idle) = limits(options);
            let begin = if mode == Mode::Read { READ } else { WRITE };
            format!(
                "{begin}; SET LOCAL statement_timeout = {statement}; \
                 SET LOCAL idle_in_transaction_session_timeout = {idle}"
            )
        }
        // Whoever comes after a statement that waits for a table's lock waits behind it. So it does not wait for long, and
        // asks again when they are through.
        Mode::Schema => format!("{WRITE}; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '1s'"),
    })
}
