//! Requests per second and answers of 403 per second of each workspace, counted by every replica for itself.
//!
//! A rate is a bucket with the requests of one second. It is stored as the time at which it will be full again
//! (generic cell rate algorithm).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use crate::ids::WorkspaceId;

const NANOS: u64 = 1_000_000_000;
/// Workspaces in the cache; the least recently seen ones are evicted first.
const REMEMBERED: usize = 65_536;

/// Each workspace's rate of requests, counted by this replica alone.
pub struct RequestRates {
    started: Instant,
    full_again: Cache<WorkspaceId, Arc<AtomicU64>>,
}

impl Default for RequestRates {
    fn default() -> Self {
        Self { started: Instant::now(), full_again: Cache::new(REMEMBERED) }
    }
}

impl RequestRates {
    /// Takes one request from this workspace's bucket. Returns `false` if `limit` requests came within a
    /// second.
    pub fn charge(&self, workspace: WorkspaceId, limit: i64) -> bool {
        self.charge_at(workspace, limit, self.elapsed())
    }

    fn charge_at(&self, workspace: WorkspaceId, limit: i64, now: u64) -> bool {
        let interval = interval(limit);
        let cell = self
            .full_again
            .get_or_insert_with(&workspace, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let cell = match cell {
            Ok(cell) => cell,
            Err(never) => match never {},
        };
        let taken = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, |full_again| {
            let next = full_again.max(now) + interval;
            (next - now <= NANOS.max(interval)).then_some(next)
        });
        taken.is_ok()
    }

    /// The number of requests that the workspace has used of the current second.
    pub fn used(&self, workspace: WorkspaceId, limit: i64) -> i64 {
        let now = self.elapsed();
        let full_again = self.full_again.get(&workspace).map_or(0, |cell| cell.load(Ordering::Acquire));
        i64::try_from(full_again.saturating_sub(now).div_ceil(interval(limit))).unwrap_or(i64::MAX)
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 4)
    }
}

/// Answers of 403 for one workspace in a second. Later ones wait for [`FORBIDDEN_WAIT`].
pub const FORBIDDEN_PER_SECOND: i64 = 200;
/// The wait of one more 403. A client that repeats a refused request sends the next one only after this answer, so the
/// checks and records of refusals leave the processors to other tenants.
pub const FORBIDDEN_WAIT: Duration = Duration::from_millis(100);

/// Nanoseconds after which one request is refilled.
fn interval(limit: i64) -> u64 {
    NANOS / limit.max(1).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use ward_db::Timestamp;

    use super::*;

    #[test]
    fn one_second_has_as_many_requests_as_the_limit_says() {
        let rates = RequestRates::default();
        let (one, other) =
            (WorkspaceId::at(Timestamp::from_micros(1)), WorkspaceId::at(Timestamp::from_micros(2)));
        for _ in 0..3 {
            assert!(rates.charge_at(one, 3, 5));
        }
        assert!(!rates.charge_at(one, 3, 5));
        assert!(rates.charge_at(other, 3, 5));
        assert!(rates.charge_at(one, 3, 5 + NANOS / 3));
        assert!(!rates.charge_at(one, 3, 5 + NANOS / 3));
        assert!(rates.charge_at(other, 1, 5 + 2 * NANOS));
    }
}
