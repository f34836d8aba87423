//! Refusals and failed sign-ins: events that no transaction did, so they are gathered off the request's path.
//!
//! However often the same key is refused the same way from the same address, one event a flush tells it, with a count.
//! What is gathered is bounded; what does not fit is counted in `ward_audit_refusals_dropped_total`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;
use ward_db::{Db, Timestamp};

use super::{Actor, Record, store};
use crate::ids::{CredentialId, EventId, PrincipalId, WorkspaceId};

/// How many different refusals are gathered between two flushes.
const MOST: usize = 10_000;
/// How many events one transaction writes.
const BATCH: usize = 500;

/// One refusal.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The workspace whose auditors should know.
    pub workspace: WorkspaceId,
    /// The room of the operation.
    pub service: &'static str,
    /// `access.forbidden` or `access.unauthorized`.
    pub action: &'static str,
    /// What was tried.
    pub operation: Arc<str>,
    /// By whom, where the credential was good.
    pub actor: Option<PrincipalId>,
    /// With which key; `None` for a token.
    pub credential: Option<CredentialId>,
    /// Why it was refused, for the auditors only.
    pub reason: &'static str,
    /// From where.
    pub address: IpAddr,
    /// What the first such client called itself.
    pub user_agent: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What makes two refusals the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Same {
    workspace: WorkspaceId,
    actor: Option<PrincipalId>,
    credential: Option<CredentialId>,
    operation: Arc<str>,
    reason: &'static str,
    address: IpAddr,
}

impl Same {
    fn of(refusal: &Refusal) -> Self {
        Self {
            workspace: refusal.workspace,
            actor: refusal.actor,
            credential: refusal.credential,
            operation: refusal.operation.clone(),
            reason: refusal.reason,
            address: refusal.address,
        }
    }
}

#[derive(Clone)]
struct Counted {
    first: Refusal,
    last: Timestamp,
    count: u64,
}

/// The refusals since the last flush.
#[derive(Default)]
pub struct Refusals {
    gathered: Mutex<HashMap<Same, Counted>>,
}

impl Refusals {
    /// Takes note of a refusal.
    pub fn note(&self, refusal: Refusal) {
        self.add(Counted { last: refusal.at, first: refusal, count: 1 });
    }

    fn add(&self, more: Counted) {
        let same = Same::of(&more.first);
        let mut gathered = self.gathered.lock();
        if let Some(known) = gathered.get_mut(&same) {
            known.count += more.count;
            known.last = known.last.max(more.last);
            if more.first.at < known.first.at {
                known.first = more.first;
            }
        } else if gathered.len() < MOST {
            gathered.insert(same, more);
        } else {
            metrics::counter!("ward_audit_refusals_dropped_total").increment(more.count);
        }
    }

    /// Writes what was gathered. What cannot be written is gathered again, as far as there is room.
    pub async fn flush(&self, db: &Db) {
        let gathered: Vec<Counted> = std::mem::take(&mut *self.gathered.lock()).into_values().collect();
        for batch in gathered.chunks(BATCH) {
            let events = batch.to_vec();
            let written = db
                .write("audit.refusals", move |tx| {
                    events
                        .iter()
                        .try_for_each(|counted| store::insert(tx, &counted.record(&counted.metadata())))
                })
                .await;
            if let Err(error) = written {
                let error: ward_db::Error = error;
                tracing::error!(%error, events = batch.len(), "refusals could not be recorded; they are kept for the next try");
                batch.iter().cloned().for_each(|counted| self.add(counted));
            }
        }
    }
}

impl Counted {
    fn metadata(&self) -> serde_json::Value {
        json!({
            "operation": &*self.first.operation,
            "reason": self.first.reason,
            "count": self.count,
            "first_at": self.first.at,
            "last_at": self.last,
        })
    }

    fn record<'a>(&'a self, metadata: &'a serde_json::Value) -> Record<'a> {
        Record {
            id: EventId::at(self.last),
            workspace: self.first.workspace,
            at: self.last,
            service: self.first.service,
            action: self.first.action,
            resource_type: if self.first.credential.is_some() { "api_key" } else { "member" },
            resource_id: self
                .first
                .credential
                .map(|credential| credential.0)
                .or(self.first.actor.map(|actor| actor.0)),
            resource_name: None,
            actor: Actor {
                entity: self.first.actor,
                credential: self.first.credential,
                operator: false,
                token: None,
            },
            address: Some(self.first.address),
            user_agent: self.first.user_agent.as_deref(),
            phi_accessed: false,
            metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: u8) -> Refusal {
        Refusal {
            workspace: WorkspaceId::at(Timestamp::from_micros(0)),
            service: "workspaces",
            action: "access.forbidden",
            operation: Arc::from("update-workspace"),
            actor: None,
            credential: Some(CredentialId::at(Timestamp::from_micros(0))),
            reason: "permission",
            address: IpAddr::from([192, 0, 2, address]),
            user_agent: None,
            at: Timestamp::from_micros(0),
        }
    }

    #[test]
    fn the_same_refusal_is_counted_and_others_are_told_apart() {
        let refusals = Refusals::default();
        let one = refusal(1);
        for _ in 0..5 {
            refusals.note(one.clone());
        }
        refusals.note(Refusal { address: IpAddr::from([192, 0, 2, 9]), ..one });
        let gathered = refusals.gathered.lock();
        let mut counts: Vec<u64> = gathered.values().map(|counted| counted.count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 5]);
    }

    #[test]
    fn what_is_gathered_is_bounded() {
        let refusals = Refusals::default();
        for _ in 0..MOST + 10 {
            refusals.note(refusal(1));
        }
        assert_eq!(refusals.gathered.lock().len(), MOST);
    }
}
