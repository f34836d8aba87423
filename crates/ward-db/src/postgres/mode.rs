//! How closures run: their transactions, and the time limits of their statements.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::url::Target;
use crate::Options;
use crate::counters::Counters;

/// The shared data from which sessions are made.
pub(super) struct Source {
    pub(super) target: Target,
    pub(super) options: Options,
    pub(super) counters: Counters,
    /// Names of the reads that have sent more than one statement. They run in a transaction from the start.
    pub(super) several: RwLock<HashSet<&'static str>>,
    /// The index of the server of the last connection.
    pub(super) preferred: AtomicUsize,
    /// How often a server turned out not to take writes, or not to answer.
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

    /// Notes that the connected server does not take writes, or does not answer. Every older connection is
    /// dropped before its next use, because a read on it might return outdated data.
    pub(super) fn distrust(&self) {
        self.distrusted.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that [`distrust`](Self::distrust) changes. Connections made since it was read may be used.
    pub(super) fn trusted(&self) -> u64 {
        self.distrusted.load(Ordering::Relaxed)
    }
}

/// The way in which a closure runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// One statement without an explicit transaction.
    Single,
    /// All statements read one snapshot in a transaction.
    Read,
    /// Like `Read`, with the time limit of long reads.
    LongRead,
    /// One READ COMMITTED transaction that may write.
    Write,
    /// Like `Write`, without a time limit for a statement.
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

/// The time limit of one statement in this mode.
pub(super) fn statement_time(mode: Mode, options: &Options) -> Duration {
    match mode {
        Mode::Single | Mode::Read | Mode::Write => options.statement_time,
        Mode::LongRead => options.long_read_time,
        Mode::Schema => Duration::from_hours(24),
    }
}

/// The planner's settings. Each of the product's statements is a look-up by an index, whatever the tables
/// hold. But a plan made for a small table, or from outdated statistics, may read a whole table, and a
/// prepared statement keeps its plan. So plans that read whole tables are disfavoured, and one generic plan
/// serves every execution. No plan is forbidden: a statement without a suitable index still runs.
pub const PLANS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off; \
     SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_sort = off; SET enable_material = off; \
     SET jit = off";

/// Makes a server process keep the memory that its statements use. The usual C library returns free memory at
/// the end of the heap to the system once it reaches 128 KiB. Five index scans use that much. A process
/// with an unlucky heap therefore takes and returns this memory for each look-up. That costs five system
/// calls and three to seven page faults, or a third of the statement's time. After a larger block was freed,
/// the library waits for twice its size, so a process keeps up to 2 MiB more. With another allocator, this is
/// one small statement without effect.
///
/// (mallopt(3), `M_MMAP_THRESHOLD`: "dynamic mmap threshold".)
pub(super) const MEMORY: &str = "SELECT length(repeat('x', 1048576))";

/// The settings that every session gets once.
pub(super) fn settings(options: &Options) -> String {
    let (statement, idle) = limits(options);
    let flush = if options.flush { "" } else { "; SET synchronous_commit = off" };
    format!("SET statement_timeout = {statement}; SET idle_in_transaction_session_timeout = {idle}{flush}")
}

/// The time limit of a statement, and how long the server keeps the transaction of a silent replica, in
/// milliseconds.
fn limits(options: &Options) -> (u128, u128) {
    let statement = options.statement_time.as_millis().max(1);
    (statement, statement + options.closure_time.as_millis())
}

/// The statement that begins a transaction. It names the isolation level, because the database's default may
/// differ.
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
        // Later statements queue behind one that waits for a table's lock. So a schema change waits only
        // briefly, and asks again after they have passed.
        Mode::Schema => format!("{WRITE}; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '1s'"),
    })
}
