//! The time that one request has for all its database closures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

tokio::task_local! {
    static CURRENT: Arc<Deadline>;
}

/// The time limit of all database closures of one request together, so that the caller gets the result before
/// the request itself times out. Without a deadline, each closure has the time that
/// [`Options`](crate::Options) gives it.
#[derive(Debug)]
pub struct Deadline {
    /// Statements end here, and no closure runs again later.
    until: Instant,
    /// The wait for a commit that was sent in time ends here, with [`ErrorKind::Unknown`](crate::ErrorKind).
    commit_until: Instant,
    wrote: AtomicBool,
    party: Mutex<u128>,
}

impl Deadline {
    /// A deadline for a request that is given up after `time`. It is earlier by a tenth of that, and at most
    /// by a second.
    pub fn of(time: Duration) -> Arc<Self> {
        let margin = (time / 10).min(Duration::from_secs(1));
        let until = Instant::now() + time.saturating_sub(margin);
        let commit_until = until + margin / 2;
        Arc::new(Self { until, commit_until, wrote: AtomicBool::new(false), party: Mutex::default() })
    }

    /// Runs `work` under this deadline. Tasks that `work` spawns are not bound by it.
    pub fn over<F: Future>(self: Arc<Self>, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// Names the party whose turn the request's closures take when closures wait: a number for each tenant, or
    /// for each address while the tenant is unknown. Parties are served in turn.
    pub fn charge_to(&self, party: u128) {
        *self.party.lock() = party;
    }

    /// Does the same for the request that the current task serves, if it serves one.
    pub fn charge_current_to(party: u128) {
        let _ = CURRENT.try_with(|current| current.charge_to(party));
    }

    /// The party of the request that the current task serves, if it serves one.
    pub(crate) fn charged() -> Option<u128> {
        CURRENT.try_with(|current| *current.party.lock()).ok()
    }

    /// Whether a write was started. If so, data may have changed, or may still change.
    pub fn may_have_written(&self) -> bool {
        self.wrote.load(Ordering::Acquire)
    }

    /// Notes that the current request starts a write.
    pub(crate) fn note_write() {
        let _ = CURRENT.try_with(|current| current.wrote.store(true, Ordering::Release));
    }

    /// The end of a closure's statements, given its own time limit. The second value is the end of its
    /// commit, if the request has a deadline.
    pub(crate) fn bound(time: Duration) -> (Instant, Option<Instant>) {
        let own = Instant::now() + time;
        CURRENT
            .try_with(|current| (own.min(current.until), Some(current.commit_until)))
            .unwrap_or((own, None))
    }
}
