//! The gauges of queues, deliveries and calls that wait.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ward_db::Timestamp;

use super::super::healing::{self, Lasting};
use super::super::matching::{self, OpenReviews};
use super::Worker;
use crate::calls;

/// The counts of gauges end at this number.
const MOST_COUNTED: i64 = 100_000;

/// The seconds since a time; 0 without one.
fn age(now: Timestamp, since: Option<Timestamp>) -> f64 {
    let micros = since.map_or(0, |since| now.micros().saturating_sub(since.micros()));
    Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64()
}

impl Worker {
    /// Sets the gauges of everything that waits.
    pub(super) async fn measure(&self) {
        let depth = self.app.db.read_long("sync.depth", |tx| healing::depth(tx, MOST_COUNTED)).await;
        let Ok((depth, oldest)): Result<_, ward_db::Error> = depth else { return };
        metrics::gauge!("ward_sync_queue_depth").set(f64::from(u32::try_from(depth).unwrap_or(u32::MAX)));
        metrics::gauge!("ward_sync_queue_oldest_seconds").set(age(self.app.clock.now(), oldest));
        let waits = self.app.db.read_long("sync.waits", |tx| {
            let queues = healing::waiting_queues(tx, MOST_COUNTED)?;
            Ok::<_, ward_db::Error>((queues, healing::stuck_deliveries(tx, MOST_COUNTED)?))
        });
        if let Ok((queues, deliveries)) = waits.await {
            self.show(queues, deliveries);
        }
        let reviews = self.app.db.read_long("sync.reviews_of_all", |tx| matching::waiting(tx, MOST_COUNTED));
        if let Ok::<_, ward_db::Error>(reviews) = reviews.await {
            self.show_reviews(&reviews);
        }
        self.measure_calls().await;
    }

    /// Sets the gauges of open reviews, and logs when the first one for a reason opens and when the last one is closed.
    fn show_reviews(&self, reviews: &[OpenReviews]) {
        let now = self.app.clock.now();
        let mut shown = self.shown.reviews.lock();
        let mut left = std::mem::take(&mut *shown);
        let set = |needs: &str, because: &str, count: i64, age: f64| {
            let labels = [("needs", needs.to_owned()), ("reason", because.to_owned())];
            let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            metrics::gauge!("ward_sync_reviews", &labels).set(count);
            metrics::gauge!("ward_sync_reviews_oldest_seconds", &labels).set(age);
        };
        for one in reviews {
            let key = (one.needs.clone(), one.because.clone());
            set(&one.needs, &one.because, one.count, age(now, one.since));
            if !left.remove(&key) {
                let (needs, reason) = (&one.needs, &one.because);
                tracing::warn!(
                    needs,
                    reason,
                    count = one.count,
                    "deliveries wait for a person who knows the patient or the encounter; `ward sync reviews` lists them, and `ward sync review` decides one"
                );
            }
            shown.insert(key);
        }
        for (needs, reason) in left {
            set(&needs, &reason, 0, 0.0);
            tracing::info!(needs, reason, "no delivery waits for a person for this reason any more");
        }
    }

    /// Measures the calls that have no reported end, and logs the first and the last of them.
    async fn measure_calls(&self) {
        let now = self.app.clock.now();
        let before = now.saturating_sub(self.app.config.outbound.unfinished_after);
        let found =
            self.app.db.read_long("calls.unfinished", move |tx| calls::unfinished(tx, before, MOST_COUNTED));
        let Ok::<(i64, Option<Timestamp>), ward_db::Error>((count, since)) = found.await else { return };
        metrics::gauge!("ward_calls_unfinished").set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        metrics::gauge!("ward_calls_unfinished_oldest_seconds").set(age(now, since));
        let had_some = self.shown.unfinished.swap(count > 0, Ordering::Relaxed);
        if count > 0 && !had_some {
            tracing::warn!(
                count,
                "calls have no reported end and are not delivered; `ward calls unfinished` lists them, and `ward calls end` ends one"
            );
        } else if count == 0 && had_some {
            tracing::info!("every call has a reported end again, or a newer report");
        }
    }

    /// Sets the gauges of queues and deliveries that wait for a person. A reason that has ended goes back to 0.
    fn show(&self, queues: Vec<Lasting>, deliveries: Vec<Lasting>) {
        let now = self.app.clock.now();
        let mut shown = self.shown.labels.lock();
        let mut left = std::mem::take(&mut *shown);
        let gone = |(state, reason)| Lasting { state, reason, count: 0, since: None };
        for one in queues.iter().chain(&deliveries) {
            left.remove(&(one.state.clone(), one.reason.clone()));
            shown.insert((one.state.clone(), one.reason.clone()));
        }
        let ended: Vec<Lasting> = left.into_iter().map(gone).collect();
        for Lasting { state, reason, count, since } in queues.into_iter().chain(deliveries).chain(ended) {
            let age = age(now, since);
            let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            if state.is_empty() {
                metrics::gauge!("ward_sync_waiting_queues", "reason" => reason.clone()).set(count);
                metrics::gauge!("ward_sync_waiting_queues_oldest_seconds", "reason" => reason).set(age);
            } else {
                let labels = [("state", state), ("reason", reason)];
                metrics::gauge!("ward_sync_stuck_deliveries", &labels).set(count);
                metrics::gauge!("ward_sync_stuck_deliveries_oldest_seconds", &labels).set(age);
            }
        }
    }
}
