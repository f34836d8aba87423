//! Malformed proofs of API keys, for the audit.
//!
//! Such a proof is refused before any query, so the key's workspace is not known then. The refusals are collected here, and the
//! keys are looked up at the next flush. So a refusal costs its caller no look-up and says nothing of the key, and the
//! auditors of the key's workspace see it nevertheless.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use ward_db::{Db, Timestamp, Tx};

use super::secret::{KeyId, Presented, SecretHash};
use super::{KeyRecord, store};
use crate::address::bucket;
use crate::audit::refusals::{Refusal, Refusals};
use crate::context::Context;

/// Distinct refusals between two flushes: in total, and from one address.
const MOST: usize = 1_000;
const MOST_OF_ADDRESS: usize = 100;
/// Keys that one read looks up.
const BATCH: usize = 50;

/// The fields by which two refusals are equal.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Same {
    key_id: KeyId,
    hash: SecretHash,
    operation: Arc<str>,
    address: IpAddr,
}

#[derive(Clone)]
struct Counted {
    room: &'static str,
    user_agent: Option<String>,
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

/// The refusals since the last flush.
#[derive(Default)]
pub struct MalformedProofs(Mutex<Gathered>);

#[derive(Default)]
struct Gathered {
    kept: HashMap<Same, Counted>,
    of_addresses: HashMap<IpAddr, usize>,
}

impl Gathered {
    fn add(&mut self, same: Same, more: Counted) {
        if let Some(known) = self.kept.get_mut(&same) {
            known.count += more.count;
            known.first = known.first.min(more.first);
            known.last = known.last.max(more.last);
            return;
        }
        let of_address = self.of_addresses.entry(bucket(same.address)).or_default();
        if *of_address >= MOST_OF_ADDRESS || self.kept.len() >= MOST {
            metrics::counter!("ward_audit_refusals_dropped_total", "bound" => "malformed")
                .increment(more.count);
            return;
        }
        *of_address += 1;
        self.kept.insert(same, more);
    }
}

impl MalformedProofs {
    /// Collects a refusal of this key's request for the next flush.
    pub fn note(&self, key: &Presented, context: &Context, (room, operation): (&'static str, &str)) {
        let same = Same {
            key_id: key.key_id,
            hash: key.hash,
            operation: Arc::from(operation),
            address: context.address,
        };
        let (user_agent, at) = (context.user_agent.clone(), context.now);
        self.0.lock().add(same, Counted { room, user_agent, first: at, last: at, count: 1 });
    }

    /// Hands the refusals of existing keys to those that wait for the audit. Refusals whose keys cannot be looked up are
    /// collected again.
    pub async fn flush(&self, db: &Db, refusals: &Refusals) {
        let gathered: Vec<(Same, Counted)> = std::mem::take(&mut *self.0.lock()).kept.into_iter().collect();
        for batch in gathered.chunks(BATCH) {
            let keys: Vec<KeyId> = batch.iter().map(|(same, _)| same.key_id).collect();
            let look_up = move |tx: &mut Tx<'_>| {
                keys.iter().map(|key| store::look_up(tx, *key)).collect::<Result<Vec<_>, ward_db::Error>>()
            };
            match db.read_long("api_keys.malformed_proofs", look_up).await {
                Ok(found) => {
                    let known = batch.iter().zip(found).filter_map(|(one, record)| Some((one, record?)));
                    known.for_each(|((same, counted), record)| {
                        refusals.note_repeated(refusal(same, counted, &record), counted.last, counted.count);
                    });
                }
                Err(error) => {
                    let keys = batch.len();
                    tracing::error!(%error, keys, "cannot look up the keys of malformed proofs; they are kept for the next flush");
                    let mut state = self.0.lock();
                    for (same, counted) in batch {
                        state.add(same.clone(), counted.clone());
                    }
                }
            }
        }
    }
}

/// The refusal for the audit. Its reason is the one that the key would get with a proof that fits, if that is a refusal too.
fn refusal(same: &Same, counted: &Counted, record: &KeyRecord) -> Refusal {
    let admitted = record.admit(same.address);
    let judged = record.proven_by(&same.hash, counted.last).and(admitted);
    Refusal {
        workspace: record.home,
        service: counted.room,
        action: "access.unauthorized",
        operation: same.operation.clone(),
        actor: None,
        credential: Some(record.credential),
        reason: judged.err().unwrap_or("proof_malformed"),
        address: same.address,
        user_agent: counted.user_agent.clone(),
        at: counted.first,
    }
}
