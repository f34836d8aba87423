//! The last uses of keys, collected in memory and written in batches.

use std::collections::HashMap;

use parking_lot::Mutex;
use ward_db::{Db, Timestamp, Tx};

use super::secret::KeyId;
use super::store;

/// Keys whose last use is collected between two flushes.
const MOST_LAST_USED: usize = 100_000;
/// Last uses that one transaction writes.
const LAST_USED_BATCH: usize = 1_000;

/// The last successful use of each key since the last flush.
#[derive(Default)]
pub struct LastUsed {
    gathered: Mutex<HashMap<KeyId, Timestamp>>,
}

impl LastUsed {
    /// Records a use of the key for the next flush.
    pub fn note(&self, key: KeyId, at: Timestamp) {
        let mut gathered = self.gathered.lock();
        if let Some(last) = gathered.get_mut(&key) {
            *last = at.max(*last);
        } else if gathered.len() < MOST_LAST_USED {
            gathered.insert(key, at);
        } else {
            metrics::counter!("ward_last_used_dropped_total").increment(1);
        }
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
                    self.note(*key, *at);
                }
            }
        }
    }
}
