//! The one source of time, so that tests can move it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ward_db::Timestamp;

/// The system's clock plus an offset, zero outside tests.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset: Arc<AtomicI64>,
    stopped_at: Arc<OnceLock<Timestamp>>,
}

impl Clock {
    /// The current time in whole microseconds, or the time of a stopped clock.
    #[expect(clippy::disallowed_methods, reason = "the one source of time")]
    pub fn now(&self) -> Timestamp {
        if let Some(stopped) = self.stopped_at.get() {
            return Timestamp::from_micros(stopped.micros() + self.offset.load(Ordering::Relaxed));
        }
        let system = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Timestamp::from_micros(system.saturating_add(self.offset.load(Ordering::Relaxed)))
    }

    /// For tests of real processes: moves the clock by the seconds in `WARD_TEST_CLOCK_OFFSET`, back if
    /// they are negative. Returns the offset, so that the server can log it: its operator must see such a
    /// setting.
    #[doc(hidden)]
    pub fn moved_by_environment(&self) -> Option<i64> {
        let seconds: i64 = std::env::var("WARD_TEST_CLOCK_OFFSET").ok()?.parse().ok()?;
        let span = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            self.set_back(span);
        } else {
            self.advance(span);
        }
        Some(seconds)
    }

    /// Moves this clock, and every clone of it, forward.
    pub fn advance(&self, by: Duration) {
        self.offset.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Stops this clock, and every clone of it, for tests of a single microsecond. Only `advance` and `set_back` move it then.
    pub fn stop_at(&self, at: Timestamp) {
        let offset = self.offset.load(Ordering::Relaxed);
        self.stopped_at.get_or_init(|| Timestamp::from_micros(at.micros() - offset));
    }

    /// Moves this clock, and every clone of it, back, as the clocks of machines may move.
    pub fn set_back(&self, by: Duration) {
        self.offset.fetch_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}
