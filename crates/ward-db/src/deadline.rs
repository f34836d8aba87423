//! How long one request may use the database, over all its closures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

tokio::task_local! {
    static CURRENT: Arc<Deadline>;
}

/// What one request has for all its closures together, so that its caller hears how they ended before the request's own
/// time is over. Without one each closure has the time that [`Options`](crate::Options) give it.
#[derive(Debug)]
pub struct Deadline {
    /// Statements end here, and nothing is begun anew.
    until: Instant,
    /// A commit that was sent in time is waited for until here; then it is [`ErrorKind::Unknown`](crate::ErrorKind).
    commit_until: Instant,
    wrote: AtomicBool,
}

impl Deadline {
    /// A deadline for a request that is given up after `time`: a tenth of it earlier, but at most a second.
    pub fn of(time: Duration) -> Arc<Self> {
        let margin = (time / 10).min(Duration::from_secs(1));
        let until = Instant::now() + time.saturating_sub(margin);
        Arc::new(Self { until, commit_until: until + margin / 2, wrote: AtomicBool::new(false) })
    }

    /// Runs `work`, whose database calls are bound by this; not those of tasks that it spawns.
    pub fn over<F: Future>(self: Arc<Self>, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// Whether a write was begun: then something may have been changed, or may still be.
    pub fn may_have_written(&self) -> bool {
        self.wrote.load(Ordering::Acquire)
    }

    /// Notes that a write begins.
    pub(crate) fn note_write() {
        let _ = CURRENT.try_with(|current| current.wrote.store(true, Ordering::Release));
    }

    /// When the statements of a closure that may take so long end, and its commit if that is bound by a request.
    pub(crate) fn bound(time: Duration) -> (Instant, Option<Instant>) {
        let own = Instant::now() + time;
        CURRENT
            .try_with(|current| (own.min(current.until), Some(current.commit_until)))
            .unwrap_or((own, None))
    }
}
