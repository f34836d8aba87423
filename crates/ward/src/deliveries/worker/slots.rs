//! The slots of a worker for queues that it serves at once, and which queue gets the next slot.
//!
//! A slow EHR occupies a slot for as long as its attempts last. Slots are therefore bounded three times:
//! for one workspace, for queues known as slow or failing, and for queues not known as quick. The slots
//! beyond these bounds stay free for other queues, however many slow ones there are.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ward_db::Timestamp;

use super::super::outbox::{Due, LaneKey};
use crate::shares::{Full, Holder, Limits, Share, Shares};

/// An attempt that takes longer makes its queue a slow one.
pub const SLOW: Duration = Duration::from_secs(2);
/// A queue stays slow for this many times the duration of the attempt.
const REMEMBERED: u32 = 30;
/// Queues whose pace is cached. An evicted queue counts as not known to be quick.
const MOST_PACES: usize = 65_536;

/// The slots of one worker.
pub struct Slots {
    /// A share for every queue that is being served.
    all: Shares,
    /// A share for each of them that was not known to be quick.
    unproven: Shares,
    /// A share for each of them that was, or has become, slow or failing.
    slow: Shares,
    paces: Cache<LaneKey, Pace>,
}

/// How quickly the EHR of a queue has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Quick,
    SlowUntil(Timestamp),
}

/// A queue's slot. Dropping it returns its shares.
pub struct Slot {
    key: LaneKey,
    _all: Share,
    unproven: Mutex<Option<Share>>,
    slow: Mutex<Option<Share>>,
}

impl Slots {
    /// Creates this many slots. A workspace gets a sixteenth of them, slow queues half, and queues not
    /// known to be quick three quarters.
    pub fn new(lanes: usize) -> Self {
        let total = u32::try_from(lanes.max(1)).unwrap_or(u32::MAX);
        let shares = |name, units: u32| {
            let (total, each) = (units.max(1), (total / 16).max(1));
            Shares::new(name, Limits { total, each, first: each, beyond: total, waiting_each: 0 })
        };
        Self {
            all: shares("delivery_lanes", total),
            unproven: shares("delivery_lanes_unproven", total - total / 4),
            slow: shares("delivery_lanes_slow", total / 2),
            paces: Cache::new(MOST_PACES),
        }
    }

    /// Takes a slot for this queue, if one is free for its kind.
    ///
    /// # Errors
    /// [`Full`] if the workspace, the queues of this pace, or all queues together have reached their bound.
    pub fn take(&self, due: &Due, now: Timestamp) -> Result<Arc<Slot>, Full> {
        let holder = Holder::Workspace(due.key.0);
        let pace = self.paces.get(&due.key);
        let is_slow = due.failures > 0 || matches!(pace, Some(Pace::SlowUntil(until)) if now < until);
        let is_quick = !is_slow && pace.is_some();
        let slow = is_slow.then(|| self.slow.try_take(holder, 1)).transpose()?;
        let unproven = (!is_quick).then(|| self.unproven.try_take(holder, 1)).transpose()?;
        let all = self.all.try_take(holder, 1)?;
        Ok(Arc::new(Slot { key: due.key, _all: all, unproven: Mutex::new(unproven), slow: Mutex::new(slow) }))
    }

    pub fn are_free(&self) -> bool {
        self.all.used() < self.all.limits().total
    }
}

impl Slots {
    /// Records that an attempt of this queue takes longer than [`SLOW`] and goes on. The queue counts as
    /// slow at once, so that fewer other slow queues begin.
    pub fn turn_slow(&self, place: &Slot, now: Timestamp) {
        self.note(place, SLOW, now);
        let holder = Holder::Workspace(place.key.0);
        for (held, pool) in [(&place.unproven, &self.unproven), (&place.slow, &self.slow)] {
            let mut held = held.lock();
            if held.is_none() {
                // A queue that is being served goes on, even if its new kind has no room.
                *held = pool.try_take(holder, 1).ok();
            }
        }
    }

    /// Records the duration of an attempt of this queue.
    pub fn note(&self, place: &Slot, took: Duration, now: Timestamp) {
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

    /// A queue that was quick once.
    fn quick(places: &Slots) -> Due {
        let lane = due(0);
        places.note_of(lane.key, Duration::from_millis(20), NOW);
        lane
    }

    #[test]
    fn failing_lanes_leave_half_of_the_places_to_others() {
        let places = Slots::new(8);
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
        let places = Slots::new(32);
        let workspace = WorkspaceId::at(NOW);
        let lane = || Due { key: (workspace, IntegrationId::at(NOW)), failures: 0 };
        let taken: Vec<_> = (0..20).filter_map(|_| places.take(&lane(), NOW).ok()).collect();
        assert_eq!(taken.len(), 2);
        assert!(places.take(&due(0), NOW).is_ok(), "another workspace has its own share");
    }

    #[test]
    fn a_lane_that_turns_slow_counts_as_slow_at_once_and_for_a_while() {
        let places = Slots::new(4);
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
