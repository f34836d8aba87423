//! The lanes that a worker serves at once, and which lane gets the next place.
//!
//! An EHR that answers slowly keeps a place for as long as its tries last. Places are therefore bounded three times: for
//! one workspace, for lanes that are known to be slow or failing, and for lanes that have not been quick yet. What the
//! slow lanes may not have stays free for the others, however many slow lanes there are.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ward_db::Timestamp;

use super::super::outbox::{Due, LaneKey};
use crate::shares::{Full, Holder, Limits, Share, Shares};

/// A try that takes longer than this makes its lane a slow one.
pub const SLOW: Duration = Duration::from_secs(2);
/// A lane stays a slow one for this many times as long as the try took.
const REMEMBERED: u32 = 30;
/// Lanes whose pace is remembered. A lane that is forgotten counts as one that has not been quick yet.
const MOST_PACES: usize = 65_536;

/// The places of one worker.
pub struct Places {
    /// Every lane that is being served.
    all: Shares,
    /// Those of them that were not known to be quick.
    unproven: Shares,
    /// Those of them that were known to be slow or failing, or turned out to be slow.
    slow: Shares,
    paces: Cache<LaneKey, Pace>,
}

/// How quickly a lane's EHR has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Quick,
    SlowUntil(Timestamp),
}

/// A lane's place. Its shares return when it is dropped.
pub struct Place {
    key: LaneKey,
    _all: Share,
    unproven: Mutex<Option<Share>>,
    slow: Mutex<Option<Share>>,
}

impl Places {
    /// So many places. A workspace has a sixteenth of them, slow lanes half, lanes not known to be quick three quarters.
    pub fn new(lanes: usize) -> Self {
        let total = u32::try_from(lanes.max(1)).unwrap_or(u32::MAX);
        let shares = |name, units: u32| {
            Shares::new(name, Limits { total: units.max(1), each: (total / 16).max(1), waiting_each: 0 })
        };
        Self {
            all: shares("delivery_lanes", total),
            unproven: shares("delivery_lanes_unproven", total - total / 4),
            slow: shares("delivery_lanes_slow", total / 2),
            paces: Cache::new(MOST_PACES),
        }
    }

    /// A place for this lane, if one is free for its kind.
    ///
    /// # Errors
    /// [`Full`] when the workspace, the lanes of this pace, or all lanes together have what they may.
    pub fn take(&self, due: &Due, now: Timestamp) -> Result<Arc<Place>, Full> {
        let holder = Holder::Workspace(due.key.0);
        let pace = self.paces.get(&due.key);
        let is_slow = due.failures > 0 || matches!(pace, Some(Pace::SlowUntil(until)) if now < until);
        let is_quick = !is_slow && pace.is_some();
        let slow = is_slow.then(|| self.slow.try_take(holder, 1)).transpose()?;
        let unproven = (!is_quick).then(|| self.unproven.try_take(holder, 1)).transpose()?;
        let all = self.all.try_take(holder, 1)?;
        Ok(Arc::new(Place {
            key: due.key,
            _all: all,
            unproven: Mutex::new(unproven),
            slow: Mutex::new(slow),
        }))
    }

    /// Whether a lane of any pace could get a place.
    pub fn are_free(&self) -> bool {
        self.all.used() < self.all.limits().total
    }
}

impl Places {
    /// Notes that a try of this lane has taken longer than [`SLOW`] and goes on. The lane counts as a slow one at once, so
    /// that fewer other slow lanes begin beside it.
    pub fn turn_slow(&self, place: &Place, now: Timestamp) {
        self.note(place, SLOW, now);
        let holder = Holder::Workspace(place.key.0);
        for (held, pool) in [(&place.unproven, &self.unproven), (&place.slow, &self.slow)] {
            let mut held = held.lock();
            if held.is_none() {
                // A lane that is served already goes on, whether its new kind has room or not.
                *held = pool.try_take(holder, 1).ok();
            }
        }
    }

    /// Notes how long a try of this lane took.
    pub fn note(&self, place: &Place, took: Duration, now: Timestamp) {
        self.note_of(place.key, took, now);
    }

    fn note_of(&self, key: LaneKey, took: Duration, now: Timestamp) {
        let known = self.paces.get(&key);
        let pace = if took >= SLOW {
            let until = now.saturating_add(took * REMEMBERED);
            match known {
                Some(Pace::SlowUntil(longer)) if longer > until => return,
                _ => Pace::SlowUntil(until),
            }
        } else {
            match known {
                Some(Pace::SlowUntil(until)) if now < until => return,
                _ => Pace::Quick,
            }
        };
        self.paces.insert(key, pace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{IntegrationId, WorkspaceId};

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn due(failures: i64) -> Due {
        Due { key: (WorkspaceId::at(NOW), IntegrationId::at(NOW)), failures }
    }

    /// A lane that has been quick once.
    fn quick(places: &Places) -> Due {
        let lane = due(0);
        places.note_of(lane.key, Duration::from_millis(20), NOW);
        lane
    }

    #[test]
    fn failing_lanes_leave_half_of_the_places_to_others() {
        let places = Places::new(8);
        let failing: Vec<_> = (0..20).filter_map(|_| places.take(&due(1), NOW).ok()).collect();
        assert_eq!(failing.len(), 4);
        let unknown: Vec<_> = (0..20).filter_map(|_| places.take(&due(0), NOW).ok()).collect();
        assert_eq!(unknown.len(), 2, "lanes without a pace leave a quarter to those known to be quick");
        let known: Vec<_> = (0..20).filter_map(|_| places.take(&quick(&places), NOW).ok()).collect();
        assert_eq!(known.len(), 2);
        assert!(!places.are_free());
        drop((failing, unknown, known));
        assert!(places.are_free() && places.slow.used() == 0 && places.unproven.used() == 0);
    }

    #[test]
    fn one_workspace_has_a_sixteenth_of_the_places() {
        let places = Places::new(32);
        let workspace = WorkspaceId::at(NOW);
        let lane = || Due { key: (workspace, IntegrationId::at(NOW)), failures: 0 };
        let taken: Vec<_> = (0..20).filter_map(|_| places.take(&lane(), NOW).ok()).collect();
        assert_eq!(taken.len(), 2);
        assert!(places.take(&due(0), NOW).is_ok(), "another workspace has its own share");
    }

    #[test]
    fn a_lane_that_turns_slow_counts_as_slow_at_once_and_for_a_while() {
        let places = Places::new(4);
        let lane = quick(&places);
        let place = places.take(&lane, NOW).unwrap();
        assert_eq!((places.unproven.used(), places.slow.used()), (0, 0));
        places.turn_slow(&place, NOW);
        assert_eq!((places.unproven.used(), places.slow.used()), (1, 1));
        drop(place);
        places.note_of(lane.key, Duration::from_millis(20), NOW);
        let again = places.take(&lane, NOW).unwrap();
        assert_eq!(places.slow.used(), 1, "one quick try does not clear a slow lane");
        drop(again);
        let later = NOW.saturating_add(SLOW * REMEMBERED);
        places.note_of(lane.key, Duration::from_millis(20), later);
        let _quick_again = places.take(&lane, later).unwrap();
        assert_eq!((places.unproven.used(), places.slow.used()), (0, 0));
    }
}
