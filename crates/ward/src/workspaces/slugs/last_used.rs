//! The last look-ups by former slugs, collected in memory and written in batches.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use ward_db::{Db, Error, Timestamp, Tx};

use super::store;
use crate::ids::WorkspaceId;

/// Former slugs whose last use is collected between two flushes. Callers name only slugs of their own workspaces.
const MOST_COLLECTED: usize = 100_000;
/// Last uses that one transaction writes.
const BATCH: usize = 1_000;
const MINUTE: i64 = 60 * 1_000_000;

/// The minute of the last look-up by each former slug since the last flush. The order of the map is the order of the locks, so
/// no two replicas wait for each other.
#[derive(Default)]
pub struct FormerSlugUses(Mutex<BTreeMap<(WorkspaceId, String), Timestamp>>);

impl FormerSlugUses {
    /// Records a look-up for the next flush.
    pub fn note(&self, workspace: WorkspaceId, slug: &str, at: Timestamp) {
        let minute = Timestamp::from_micros(at.micros() - at.micros().rem_euclid(MINUTE));
        let mut collected = self.0.lock();
        let key = (workspace, slug.to_owned());
        if collected.len() < MOST_COLLECTED || collected.contains_key(&key) {
            let last = collected.entry(key).or_insert(minute);
            *last = minute.max(*last);
        } else {
            metrics::counter!("ward_last_used_dropped_total").increment(1);
        }
    }

    /// Writes the collected look-ups. Those that cannot be written are collected again.
    pub async fn flush(&self, db: &Db) {
        let collected: Vec<_> = std::mem::take(&mut *self.0.lock()).into_iter().collect();
        for batch in collected.chunks(BATCH) {
            let uses = batch.to_vec();
            let written = db.write("workspaces.slugs_used", move |tx: &mut Tx<'_>| {
                uses.iter()
                    .try_for_each(|((workspace, slug), at)| store::store_last_used(tx, *workspace, slug, *at))
            });
            let written: Result<(), Error> = written.await;
            if let Err(error) = written {
                tracing::error!(%error, slugs = batch.len(), "cannot write the last uses of former slugs; they are kept for the next flush");
                for ((workspace, slug), at) in batch {
                    self.note(*workspace, slug, *at);
                }
            }
        }
    }
}
