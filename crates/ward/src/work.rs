//! CPU work whose amount a tenant decides: parsing stored data, signing with keys, validating requests.
//!
//! Such work runs on separate threads, so that requests of other tenants keep the runtime's threads. At
//! most as many pieces run at once as the machine has cores. One workspace gets at most half of them, and
//! workspaces take turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ApiError;
use crate::shares::{Holder, Limits, Shares};

/// Pieces of work of one workspace that may wait.
const WAITING_EACH: usize = 128;

/// The pool of threads for such work, divided by holder.
#[derive(Clone)]
pub struct Work {
    shares: Shares,
    begun: Arc<AtomicU64>,
}

impl Default for Work {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let total = u32::try_from(cores.max(2)).unwrap_or(u32::MAX);
        let limits =
            Limits { total, each: total / 2, first: total, beyond: total, waiting_each: WAITING_EACH };
        Self { shares: Shares::new("cpu_work", limits), begun: Arc::default() }
    }
}

impl Work {
    /// The pieces of work that have begun so far.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Runs `work` on a separate thread, when it is the holder's turn. Work that has begun runs to its end,
    /// even if the caller is cancelled.
    ///
    /// # Errors
    /// 429 if too much work of this holder is waiting; 500 if the work panics.
    pub async fn run<T: Send + 'static>(
        &self,
        holder: Holder,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let share = self.shares.take(holder, 1).await.map_err(ApiError::share_used_up)?;
        self.begun.fetch_add(1, Ordering::Relaxed);
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(share);
            done
        });
        done.await.map_err(ApiError::internal)
    }
}
