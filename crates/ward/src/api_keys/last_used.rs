//! The last uses of keys, collected in memory and written in batches.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use serde_json::json;
use ward_db::{Db, Timestamp, Tx};

use super::secret::KeyId;
use super::store;
use crate::audit::{Actor, Subject, Write};
use crate::context::Context;
use crate::error::ApiError;
use crate::identity::KeyUsed;
use crate::ids::PrincipalId;

/// Keys whose last use is collected between two flushes.
const MOST_LAST_USED: usize = 100_000;
/// Last uses that one transaction writes.
const LAST_USED_BATCH: usize = 1_000;
pub(super) const MINUTE: i64 = 60 * 1_000_000;
/// The minutes of which a key knows whether they have an event.
const KNOWN_MINUTES: i64 = 63;

/// The last successful use of each key since the last flush.
#[derive(Default)]
pub struct LastUsed {
    gathered: Mutex<HashMap<KeyId, Timestamp>>,
    /// By key and minute, because each minute has its own event.
    previous: Mutex<HashMap<(i64, KeyId), PreviousUse>>,
}

/// A use of the secret that a rotation replaced.
#[derive(Clone)]
struct PreviousUse {
    key: KeyUsed,
    principal: PrincipalId,
    at: Timestamp,
}

impl LastUsed {
    /// Records a use of the key for the next flush.
    pub fn note(&self, key: &KeyUsed, principal: PrincipalId, at: Timestamp) {
        newest(&mut self.gathered.lock(), key.key_id, at, |last| last);
        if key.previous {
            let used = PreviousUse { key: key.clone(), principal, at };
            newest(&mut self.previous.lock(), used.minute(), used, |used| &mut used.at);
        }
    }

    /// Whether a use of the key waits for the next flush of this server.
    pub fn has(&self, key: KeyId) -> bool {
        self.gathered.lock().contains_key(&key)
    }

    /// Writes the collected uses. Those that cannot be written are collected again.
    pub async fn flush(&self, db: &Db) {
        let mut gathered: Vec<(KeyId, Timestamp)> =
            std::mem::take(&mut *self.gathered.lock()).into_iter().collect();
        // Every replica locks the rows in the same order, so that no two wait for each other.
        gathered.sort_unstable_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        for batch in gathered.chunks(LAST_USED_BATCH) {
            let uses = batch.to_vec();
            let written = db
                .write("api_keys.last_used", move |tx: &mut Tx<'_>| {
                    uses.iter().try_for_each(|(key, at)| store::store_last_used(tx, *key, *at))
                })
                .await;
            if let Err(error) = written {
                let error: ward_db::Error = error;
                tracing::error!(%error, keys = batch.len(), "cannot write the last uses of keys; they are kept for the next flush");
                for (key, at) in batch {
                    newest(&mut self.gathered.lock(), *key, *at, |last| last);
                }
            }
        }
        self.flush_previous(db).await;
    }

    /// Records each use of a previous secret in its workspace's audit, once a minute over all replicas.
    async fn flush_previous(&self, db: &Db) {
        let mut gathered: Vec<PreviousUse> =
            std::mem::take(&mut *self.previous.lock()).into_values().collect();
        // The last use of a key in the database only moves forward.
        gathered.sort_unstable_by_key(|used| used.at);
        for used in gathered {
            let again = used.clone();
            let written = db.write("api_keys.previous_used", move |tx| used.record(tx)).await;
            if let Err(error) = written {
                let error: ApiError = error;
                tracing::error!(
                    error = %error.into_cause(),
                    "cannot record the use of a key's previous secret; it is kept for the next flush"
                );
                newest(&mut self.previous.lock(), again.minute(), again, |used| &mut used.at);
            }
        }
    }
}

impl PreviousUse {
    /// The minute of the use, with the key.
    fn minute(&self) -> (i64, KeyId) {
        (self.at.micros().div_euclid(MINUTE), self.key.key_id)
    }

    fn record(&self, tx: &mut Tx<'_>) -> Result<(), ApiError> {
        let context = Context::of_time(self.at);
        let mut write = Write::begin(tx, self.key.home, Actor::new(self.principal, self.key.id), &context)?;
        let (minute, key_id) = self.minute();
        if !store::store_previous_used(&mut write, key_id, minute, self.key.expires_at)? {
            return Ok(());
        }
        let name = self.key.name.as_deref();
        let about = Subject { service: "api_keys", kind: "api_key", id: Some(self.key.id.0), name };
        let what = json!({ "key_id": self.key.key_id.as_str(), "ends_at": self.key.expires_at });
        write.record("api_key.previous_secret_used", about, what)
    }
}

/// Adds a minute to those of a key: the last one, and a bit for each before it, bit 0 for the last. `None`: it has an event.
///
/// A minute of more than an hour before the last counts as new. Only a replica that could not write for an hour has one, and
/// a second event is better than none.
pub(super) fn with_minute(noted: Option<(i64, i64)>, minute: i64) -> Option<(i64, i64)> {
    let Some((last, bits)) = noted else { return Some((minute, 1)) };
    let apart = minute.abs_diff(last);
    let known = i64::try_from(apart).is_ok_and(|apart| apart < KNOWN_MINUTES);
    match (minute > last, known) {
        (true, true) => Some((minute, (bits << apart) & i64::MAX | 1)),
        (true, false) => Some((minute, 1)),
        (false, true) => (bits & (1 << apart) == 0).then(|| (last, bits | (1 << apart))),
        (false, false) => Some((last, bits)),
    }
}

/// Keeps the later of two uses of a key. A new key is dropped and counted where too many are collected.
fn newest<K: Hash + Eq, T>(
    gathered: &mut HashMap<K, T>,
    key: K,
    mut used: T,
    at: impl Fn(&mut T) -> &mut Timestamp,
) {
    if let Some(last) = gathered.get_mut(&key) {
        if *at(last) < *at(&mut used) {
            *last = used;
        }
    } else if gathered.len() < MOST_LAST_USED {
        gathered.insert(key, used);
    } else {
        metrics::counter!("ward_last_used_dropped_total").increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::with_minute;

    #[test]
    fn each_minute_is_new_once_in_any_order() {
        let mut noted = None;
        let mut is_new = |minute| match with_minute(noted, minute) {
            Some(with) => {
                noted = Some(with);
                true
            }
            None => false,
        };
        for minute in [100, 99, 162, 101, 163] {
            assert!(is_new(minute), "{minute}");
            assert!(!is_new(minute), "{minute} again");
        }
        assert!(!is_new(162) && !is_new(101));
        // More than an hour before the last one, nothing is known any more.
        assert!(is_new(100) && is_new(100));
        assert!(is_new(163 + 63) && !is_new(163 + 63) && is_new(164));
        assert!(is_new(1 << 40) && !is_new(1 << 40));
    }
}
