//! CPU work whose amount a tenant decides: parsing what it stores, signing with its keys, judging what it sends.
//!
//! Such work runs on threads of its own, so that requests of other tenants keep the runtime's threads. At most as many
//! pieces run at once as the machine has cores, at most half of them for one workspace, and workspaces take turns.

use crate::error::ApiError;
use crate::shares::{Holder, Limits, Shares};

/// Pieces of work of one workspace that may wait for their turn.
const WAITING_EACH: usize = 128;

/// The pool of CPU work.
#[derive(Clone)]
pub struct Work {
    shares: Shares,
}

impl Default for Work {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let total = u32::try_from(cores.max(2)).unwrap_or(u32::MAX);
        let limits = Limits { total, each: total / 2, waiting_each: WAITING_EACH };
        Self { shares: Shares::new("cpu_work", limits) }
    }
}

impl Work {
    /// Runs `work` on a thread of its own, when it is the holder's turn. A caller that goes away leaves work that has begun
    /// to its end.
    ///
    /// # Errors
    /// 429 when too much work of this holder waits; 500 when the work panics.
    pub async fn run<T: Send + 'static>(
        &self,
        holder: Holder,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let share = self.shares.take(holder, 1).await.map_err(ApiError::share_used_up)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(share);
            done
        });
        done.await.map_err(ApiError::internal)
    }
}
