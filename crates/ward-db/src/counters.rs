//! Counters behind [`Stats`](crate::Stats).

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) long_reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) statements: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) pauses: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
