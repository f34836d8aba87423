//! The times of retries, with full jitter: many deliveries that failed together do not come back together.

use std::time::Duration;

/// The upper bound of the first wait.
const FIRST: Duration = Duration::from_secs(5);
/// The greatest upper bound of a wait.
const LONGEST: Duration = Duration::from_hours(1);
/// The longest wait that the EHR can demand.
pub const LONGEST_ASKED: Duration = Duration::from_hours(24);
/// The shortest waits after attempts of one delivery that may have arrived. Some systems find a new resource by a search
/// only seconds later. A system whose second answer is missing too is slow, and may file both requests minutes later.
const AFTER_UNKNOWN: [Duration; 4] =
    [Duration::from_secs(10), Duration::from_mins(5), Duration::from_mins(15), Duration::from_hours(1)];
/// A delivery that was tried for this long has failed for good.
pub const TRIED_FOR: Duration = Duration::from_hours(24);
/// After this many consecutive failures, a queue pauses, and then sends a single delivery to test the EHR.
pub const BREAKS_AFTER: i64 = 5;

/// The upper bound of the wait after attempt number `tried`: doubled with every attempt, within bounds.
pub fn ceiling(tried: i64) -> Duration {
    let doublings = u32::try_from(tried.saturating_sub(1).clamp(0, 20)).unwrap_or(0);
    FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST)
}

/// A random wait between zero and the upper bound, drawn from `random` (any 64 bits). It is never shorter
/// than the wait that the EHR asked for, up to a day.
pub fn wait(tried: i64, asked: Option<Duration>, random: u64) -> Duration {
    let ceiling = u64::try_from(ceiling(tried).as_micros()).unwrap_or(u64::MAX);
    let drawn = Duration::from_micros(random % (ceiling + 1));
    drawn.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

/// The shortest wait before the next try of a delivery of which this many creates have an unknown outcome.
pub fn after_unknown(unknowns: i64) -> Duration {
    let index = usize::try_from(unknowns.max(1) - 1).unwrap_or(0);
    AFTER_UNKNOWN[index.min(AFTER_UNKNOWN.len() - 1)]
}

/// 64 random bits. Without a source of randomness, the clock still spreads the values.
pub fn random(now: ward_db::Timestamp) -> u64 {
    let mut bytes = [0; 8];
    match crate::random::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => now.micros().unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_an_hour_and_no_further() {
        let ceilings: Vec<u64> = (1..=12).map(|tried| ceiling(tried).as_secs()).collect();
        assert_eq!(ceilings, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]);
        assert_eq!(ceiling(i64::MAX), LONGEST);
        assert_eq!(ceiling(0), FIRST);
    }

    #[test]
    fn a_wait_is_anywhere_below_its_ceiling_and_never_below_what_was_asked() {
        for random in [0, 1, u64::MAX, 123_456_789_012] {
            assert!(wait(3, None, random) <= ceiling(3));
            assert!(wait(1, Some(Duration::from_secs(90)), random) == Duration::from_secs(90));
            assert!(wait(1, Some(Duration::from_hours(9)), random) == Duration::from_hours(9));
            assert!(wait(1, Some(Duration::from_hours(99)), random) == LONGEST_ASKED);
        }
        let mean =
            (0..10_000_u64).map(|n| wait(4, None, n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).as_secs_f64());
        let mean = mean.sum::<f64>() / 10_000.0;
        assert!((19.0..21.0).contains(&mean), "{mean}");
    }
}
