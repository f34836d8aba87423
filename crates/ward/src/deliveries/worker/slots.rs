//! The slots of a worker for queues that it serves at once, and which queue gets the next slot.
//!
//! A slow EHR occupies a slot for as long as its attempts last. Slots are therefore bounded three times:
//! for one workspace, for queues known as slow or failing, and for queues not known as quick. The slots
//! beyond these bounds stay free for other queues, however many slow ones there are.
//!
//! Slow EHRs that answer at the same moment leave hundreds of outcomes to store. Queues not known as quick
//! therefore take turns at the database, a few at once. The rest of a burst waits here, where it occupies no
//! connection, and requests and quick queues pass it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ward_db::Timestamp;

use super::super::outbox::{Due, LaneKey};
use super::Options;
use crate::shares::{Full, Holder, Limits, Share, Shares};

/// An attempt that takes longer makes its queue a slow one.
pub const SLOW: Duration = Duration::from_secs(2);
/// A queue stays slow for this many times the duration of the attempt.
const REMEMBERED: u32 = 30;
/// For each of so many slots, one queue not known as quick may use the database, and two in any case. Two
/// leave half of the connections that `PostgreSQL`'s pool uses at once with two processors.
const SLOTS_PER_TURN: u32 = 128;
/// Queues whose pace is cached. An evicted queue counts as not known to be quick.
const MOST_PACES: usize = 65_536;

pub struct Slots {
    /// A share for every queue that is being served.
    all: Shares,
    /// A share for each of them that was not known to be quick.
    unproven: Shares,
    /// A share for each of them that was, or has become, slow or failing.
    slow: Shares,
    /// A share for each piece of database work of a queue that is not known as quick.
    database: Shares,
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
    is_quick: AtomicBool,
    was_slow: bool,
}

impl Slot {
    /// The number of deliveries to lease. Of an EHR known as slow these are as many as are sent at once, because the
    /// time of a turn ends before it could answer more.
    pub fn batch(&self, options: &Options) -> i64 {
        let at_once = i64::try_from(options.concurrency.max(1)).unwrap_or(i64::MAX);
        if self.was_slow { options.batch.min(at_once) } else { options.batch }
    }
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
        let turns = (total / SLOTS_PER_TURN).max(2);
        // Work that waits is bounded by the slots and by the deliveries that each sends at once.
        let turns =
            Limits { total: turns, each: turns / 2, first: turns, beyond: turns, waiting_each: usize::MAX };
        Self {
            database: Shares::new("delivery_database", turns),
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
        let was_slow = matches!(pace, Some(Pace::SlowUntil(until)) if now < until);
        let is_slow = due.failures > 0 || was_slow;
        let is_quick = !is_slow && pace.is_some();
        let slow = is_slow.then(|| self.slow.try_take(holder, 1)).transpose()?;
        let unproven = (!is_quick).then(|| self.unproven.try_take(holder, 1)).transpose()?;
        let all = self.all.try_take(holder, 1)?;
        let (unproven, slow) = (Mutex::new(unproven), Mutex::new(slow));
        let is_quick = AtomicBool::new(is_quick);
        Ok(Arc::new(Slot { key: due.key, _all: all, unproven, slow, is_quick, was_slow }))
    }

    /// Does database work when it is the queue's turn: at once for a queue known as quick.
    pub async fn in_turn<F: Future>(&self, slot: &Slot, work: F) -> F::Output {
        let waits = !slot.is_quick.load(Ordering::Relaxed);
        // Any number may wait, so no turn is refused.
        let _turn =
            if waits { self.database.take(Holder::Workspace(slot.key.0), 1).await.ok() } else { None };
        work.await
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
        place.is_quick.store(false, Ordering::Relaxed);
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
    use futures_util::FutureExt as _;
    use tokio::sync::Notify;

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
        let options = Options::default();
        assert_eq!(place.batch(&options), options.batch);
        assert_eq!((places.unproven.used(), places.slow.used()), (0, 0));
        places.turn_slow(&place, NOW);
        assert_eq!((places.unproven.used(), places.slow.used()), (1, 1));
        drop(place);
        places.note_of(lane.key, Duration::from_millis(20), NOW);
        let again = places.take(&lane, NOW).unwrap();
        assert_eq!(places.slow.used(), 1, "one quick try does not clear a slow lane");
        assert_eq!(again.batch(&options), 4, "as many as are sent at once");
        drop(again);
        let later = NOW.saturating_add(SLOW * REMEMBERED);
        places.note_of(lane.key, Duration::from_millis(20), later);
        let _quick_again = places.take(&lane, later).unwrap();
        assert_eq!((places.unproven.used(), places.slow.used()), (0, 0));
    }

    #[tokio::test]
    async fn slow_queues_take_turns_at_the_database_and_quick_ones_pass_them() {
        let places = Slots::new(256);
        let (loud, other) = (places.take(&due(1), NOW).unwrap(), places.take(&due(0), NOW).unwrap());
        let (end, done) = (Notify::new(), Mutex::new(Vec::new()));
        let work = |slot: Arc<Slot>, name: &'static str| {
            let (places, end, done) = (&places, &end, &done);
            async move {
                let work = async {
                    end.notified().await;
                    done.lock().push(name);
                };
                places.in_turn(&slot, work).await;
            }
        };
        let mut waiting: Vec<_> = ["loud 1", "loud 2", "loud 3"]
            .into_iter()
            .map(|name| work(loud.clone(), name).boxed())
            .chain([work(other, "other").boxed()])
            .collect();
        for work in &mut waiting {
            assert!(work.now_or_never().is_none());
        }
        assert_eq!(places.database.used(), 2, "one of each workspace");
        let lane = quick(&places);
        let slot = places.take(&lane, NOW).unwrap();
        assert_eq!(places.in_turn(&slot, async { "quick" }).now_or_never(), Some("quick"));
        places.turn_slow(&slot, NOW);
        assert!(places.in_turn(&slot, async {}).now_or_never().is_none(), "it has turned slow");
        end.notify_waiters();
        for work in &mut waiting {
            let _ = work.now_or_never();
        }
        assert_eq!(*done.lock(), ["loud 1", "other"]);
    }
}
