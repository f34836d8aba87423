//! The state of the gauges and of the log of a worker.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

/// The labels and the messages that a worker has shown.
#[derive(Default)]
pub(super) struct Shown {
    /// The states and reasons that a gauge has shown, so that it can go back to 0.
    pub labels: Mutex<BTreeSet<(String, String)>>,
    /// The needs and reasons of open reviews that a gauge has shown.
    pub reviews: Mutex<BTreeSet<(String, String)>>,
    /// Whether there were calls without an end.
    pub unfinished: AtomicBool,
}
