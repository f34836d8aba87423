//! Refusals and failed sign-ins. No transaction belongs to them, so they are collected in memory and
//! written later.
//!
//! Equal refusals (same key, reason and address) become one event per flush, with a count. The buffer is
//! bounded in total, per workspace and per credential. A refusal that finds no room is only counted, by its
//! reason, and one event per flush tells the workspace these counts. A full buffer evicts from the
//! workspace that has the most, so a flood in one workspace costs no other workspace an event.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use serde_json::json;
use ward_db::{Db, Timestamp};

use super::{Actor, Record, store};
use crate::ids::{CredentialId, EventId, PrincipalId, WorkspaceId};
use crate::quotas::{self, Change};

/// Distinct refusals that are kept between two flushes: in total, of one workspace, and of one credential
/// in it.
const BOUNDS: Bounds = Bounds { all: 10_000, workspace: 1_000, credential: 250 };
/// Events that one transaction writes. Few, so that a flush takes neither the writer nor a processor from others for long.
const BATCH: usize = 50;

/// A refused request, for the audit.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The workspace whose auditors see the event.
    pub workspace: WorkspaceId,
    /// The room of the operation, such as `workspaces`.
    pub service: &'static str,
    /// `access.forbidden` or `access.unauthorized`.
    pub action: &'static str,
    pub operation: Arc<str>,
    /// The principal, if the credential was valid.
    pub actor: Option<PrincipalId>,
    /// The API key; `None` for a token.
    pub credential: Option<CredentialId>,
    /// The reason, which only auditors see.
    pub reason: &'static str,
    pub address: IpAddr,
    /// The `user-agent` header of the first of equal refusals.
    pub user_agent: Option<String>,
    pub at: Timestamp,
}

/// The fields by which two refusals are equal.
#[derive(Clone, PartialEq, Eq, Hash)]
struct RefusalKey {
    workspace: WorkspaceId,
    actor: Option<PrincipalId>,
    credential: Option<CredentialId>,
    operation: Arc<str>,
    reason: &'static str,
    address: IpAddr,
}

impl RefusalKey {
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
struct RefusalCount {
    first: Refusal,
    last: Timestamp,
    count: u64,
}

#[derive(Clone, Copy)]
struct Bounds {
    all: usize,
    workspace: usize,
    credential: usize,
}

/// An API key, or the principal of a token.
type Requester = (Option<PrincipalId>, Option<CredentialId>);

/// The refusals of one workspace since the last flush.
#[derive(Default)]
struct WorkspaceRefusals {
    kept: IndexMap<RefusalKey, RefusalCount>,
    of_credentials: HashMap<Requester, usize>,
    unlisted: UnlistedRefusals,
}

/// Refusals beyond the bounds of the memory, of which only the number is kept.
#[derive(Clone, Default)]
struct UnlistedRefusals {
    /// The number of refusals, by action and reason.
    counts: BTreeMap<(&'static str, &'static str), u64>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl UnlistedRefusals {
    fn add(&mut self, refused: &RefusalCount) {
        *self.counts.entry((refused.first.action, refused.first.reason)).or_default() += refused.count;
        self.cover(Some(refused.first.at), Some(refused.last));
    }

    fn merge(&mut self, other: &Self) {
        for (cause, count) in &other.counts {
            *self.counts.entry(*cause).or_default() += count;
        }
        self.cover(other.first, other.last);
    }

    fn cover(&mut self, first: Option<Timestamp>, last: Option<Timestamp>) {
        self.first = [self.first, first].into_iter().flatten().min();
        self.last = self.last.max(last);
    }
}

/// The refusals since the last flush.
pub struct Refusals {
    bounds: Bounds,
    state: Mutex<RefusalTable>,
}

#[derive(Default)]
struct RefusalTable {
    kept: usize,
    workspaces: HashMap<WorkspaceId, WorkspaceRefusals>,
    /// The workspaces, sorted by their number of kept refusals.
    by_size: BTreeSet<(usize, WorkspaceId)>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { bounds: BOUNDS, state: Mutex::default() }
    }
}

impl Refusals {
    /// Collects a refusal for the next flush.
    pub fn note(&self, refusal: Refusal) {
        self.add(RefusalCount { last: refusal.at, first: refusal, count: 1 });
    }

    /// Collects equal refusals that another buffer has counted. `refusal` is the first of them.
    pub fn note_repeated(&self, refusal: Refusal, last: Timestamp, count: u64) {
        self.add(RefusalCount { first: refusal, last, count });
    }

    fn add(&self, more: RefusalCount) {
        let mut state = self.state.lock();
        if let Err(bound) = state.add(more, self.bounds) {
            metrics::counter!("ward_audit_refusals_dropped_total", "bound" => bound).increment(1);
        }
    }

    /// Writes the collected refusals. Those that cannot be written are collected again, as far as there is
    /// room.
    pub async fn flush(&self, db: &Db) {
        let gathered = std::mem::take(&mut *self.state.lock()).workspaces;
        let mut events: Vec<RefusalEvent> = Vec::new();
        for (workspace, gathered) in gathered {
            events.extend(gathered.kept.into_values().map(RefusalEvent::One));
            if !gathered.unlisted.counts.is_empty() {
                events.push(RefusalEvent::Sum(workspace, gathered.unlisted));
            }
        }
        for batch in events.chunks(BATCH) {
            let events = batch.to_vec();
            let written = db
                .write("audit.refusals", move |tx| {
                    // In the order of their ids, so that two replicas that flush at once wait for each other in one order.
                    let mut bytes = BTreeMap::<WorkspaceId, usize>::new();
                    for told in &events {
                        let metadata = told.metadata();
                        let record = told.record(&metadata);
                        *bytes.entry(record.workspace).or_default() += store::insert(tx, &record)?;
                    }
                    bytes
                        .into_iter()
                        .try_for_each(|(of, more)| quotas::give_back(tx, of, Change::bytes(more)))
                })
                .await;
            if let Err(error) = written {
                let error: ward_db::Error = error;
                tracing::error!(%error, events = batch.len(), "cannot record refusals; they are kept for the next flush");
                for told in batch.iter().cloned() {
                    match told {
                        RefusalEvent::One(counted) => self.add(counted),
                        RefusalEvent::Sum(workspace, unlisted) => self.add_unlisted(workspace, &unlisted),
                    }
                }
            }
        }
    }

    fn add_unlisted(&self, workspace: WorkspaceId, unlisted: &UnlistedRefusals) {
        let mut state = self.state.lock();
        if state.workspaces.contains_key(&workspace) || state.workspaces.len() < self.bounds.all {
            state.workspaces.entry(workspace).or_default().unlisted.merge(unlisted);
        } else {
            let lost = unlisted.counts.values().sum();
            metrics::counter!("ward_audit_refusals_dropped_total", "bound" => "all").increment(lost);
        }
    }
}

impl RefusalTable {
    /// Adds a refusal. The error names the bound because of which one refusal was only counted.
    fn add(&mut self, more: RefusalCount, bounds: Bounds) -> Result<(), &'static str> {
        let (workspace, same) = (more.first.workspace, RefusalKey::of(&more.first));
        let who = (same.actor, same.credential);
        let (mut of_workspace, mut of_credential) = (0, 0);
        if let Some(gathered) = self.workspaces.get_mut(&workspace) {
            if let Some(known) = gathered.kept.get_mut(&same) {
                known.count += more.count;
                known.last = known.last.max(more.last);
                if more.first.at < known.first.at {
                    known.first = more.first;
                }
                return Ok(());
            }
            of_workspace = gathered.kept.len();
            of_credential = gathered.of_credentials.get(&who).copied().unwrap_or_default();
        }
        let bound = if of_credential >= bounds.credential {
            Some("credential")
        } else if of_workspace >= bounds.workspace {
            Some("workspace")
        } else {
            None
        };
        if let Some(bound) = bound {
            self.workspaces.entry(workspace).or_default().unlisted.add(&more);
            return Err(bound);
        }
        let is_full = self.kept >= bounds.all;
        if is_full && !self.take_from_the_largest(of_workspace) {
            if let Some(gathered) = self.workspaces.get_mut(&workspace) {
                gathered.unlisted.add(&more);
            }
            return Err("all");
        }
        let gathered = self.workspaces.entry(workspace).or_default();
        gathered.kept.insert(same, more);
        *gathered.of_credentials.entry(who).or_default() += 1;
        self.by_size.remove(&(of_workspace, workspace));
        self.by_size.insert((of_workspace + 1, workspace));
        self.kept += 1;
        if is_full { Err("all") } else { Ok(()) }
    }

    /// Evicts the newest refusal of the workspace that has the most, if that one has at least two more than
    /// `size`.
    fn take_from_the_largest(&mut self, size: usize) -> bool {
        let Some((largest, workspace)) = self.by_size.last().copied() else { return false };
        if largest <= size + 1 {
            return false;
        }
        let Some(gathered) = self.workspaces.get_mut(&workspace) else { return false };
        let Some((same, counted)) = gathered.kept.pop() else { return false };
        gathered.unlisted.add(&counted);
        if let Some(count) = gathered.of_credentials.get_mut(&(same.actor, same.credential)) {
            *count -= 1;
        }
        self.by_size.remove(&(largest, workspace));
        self.by_size.insert((largest - 1, workspace));
        self.kept -= 1;
        true
    }
}

/// The content of one audit event about refusals.
#[derive(Clone)]
enum RefusalEvent {
    /// Refusals that are equal as [`RefusalKey`] defines.
    One(RefusalCount),
    /// The counts of a workspace's other refusals.
    Sum(WorkspaceId, UnlistedRefusals),
}

impl RefusalEvent {
    fn metadata(&self) -> serde_json::Value {
        match self {
            Self::One(counted) => counted.metadata(),
            Self::Sum(_, unlisted) => {
                let causes: Vec<_> = unlisted
                    .counts
                    .iter()
                    .map(|((action, reason), count)| json!({ "action": action, "reason": reason, "count": count }))
                    .collect();
                json!({
                    "count": unlisted.counts.values().sum::<u64>(),
                    "refusals": causes,
                    "first_at": unlisted.first,
                    "last_at": unlisted.last,
                })
            }
        }
    }

    fn record<'a>(&'a self, metadata: &'a serde_json::Value) -> Record<'a> {
        match self {
            Self::One(counted) => counted.record(metadata),
            Self::Sum(workspace, unlisted) => {
                let at = unlisted.last.unwrap_or(Timestamp::from_micros(0));
                Record {
                    id: EventId::at(at),
                    workspace: *workspace,
                    at,
                    service: "audit",
                    action: "access.refusals_unlisted",
                    resource_type: "workspace",
                    resource_id: Some(workspace.0),
                    resource_name: None,
                    actor: Actor::NOBODY,
                    address: None,
                    user_agent: None,
                    phi_accessed: false,
                    metadata,
                }
            }
        }
    }
}

impl RefusalCount {
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
                workload: None,
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

    const SMALL: Bounds = Bounds { all: 12, workspace: 8, credential: 5 };

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn workspace(number: u128) -> WorkspaceId {
        WorkspaceId(ward_db::Uuid::from_u128(number))
    }

    fn refusal(of: WorkspaceId, credential: u128, address: u8) -> Refusal {
        Refusal {
            workspace: of,
            service: "workspaces",
            action: "access.forbidden",
            operation: Arc::from("update-workspace"),
            actor: None,
            credential: Some(CredentialId(ward_db::Uuid::from_u128(credential))),
            reason: "permission",
            address: IpAddr::from([192, 0, 2, address]),
            user_agent: None,
            at: at(i64::from(address)),
        }
    }

    fn small() -> Refusals {
        Refusals { bounds: SMALL, state: Mutex::default() }
    }

    /// The number of the workspace's kept refusals, and of those that are only counted.
    fn figures(refusals: &Refusals, of: WorkspaceId) -> (usize, u64) {
        let state = refusals.state.lock();
        let sizes: usize = state.workspaces.values().map(|gathered| gathered.kept.len()).sum();
        assert_eq!(sizes, state.kept);
        let gathered = state.workspaces.get(&of);
        gathered.map_or((0, 0), |found| (found.kept.len(), found.unlisted.counts.values().sum()))
    }

    #[test]
    fn the_same_refusal_is_counted_and_others_are_told_apart() {
        let refusals = Refusals::default();
        let one = refusal(workspace(1), 1, 1);
        for _ in 0..5 {
            refusals.note(one.clone());
        }
        refusals.note(Refusal { address: IpAddr::from([192, 0, 2, 9]), ..one });
        let state = refusals.state.lock();
        let kept = state.workspaces[&workspace(1)].kept.values();
        let mut counts: Vec<u64> = kept.map(|counted| counted.count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 5]);
    }

    #[test]
    fn a_credential_and_a_workspace_have_their_shares() {
        let refusals = small();
        for address in 0..10 {
            refusals.note(refusal(workspace(1), 1, address));
        }
        assert_eq!(figures(&refusals, workspace(1)), (5, 5), "one credential");
        for address in 0..10 {
            refusals.note(refusal(workspace(1), 2, address));
        }
        assert_eq!(figures(&refusals, workspace(1)), (8, 12), "all of a workspace");
        refusals.note(refusal(workspace(2), 1, 1));
        assert_eq!(figures(&refusals, workspace(2)), (1, 0));
    }

    #[test]
    fn a_full_buffer_takes_places_from_the_workspace_that_has_most() {
        let refusals = small();
        for credential in [1, 2] {
            for address in 0..10 {
                refusals.note(refusal(workspace(1), credential, address));
            }
        }
        for number in 2..20 {
            refusals.note(refusal(workspace(number), 1, 1));
        }
        assert_eq!(figures(&refusals, workspace(1)), (1, 19));
        for number in 2..13 {
            assert_eq!(figures(&refusals, workspace(number)), (1, 0), "workspace {number}");
        }
        assert_eq!(figures(&refusals, workspace(13)), (0, 0), "every workspace has as much as it");
        refusals.note(refusal(workspace(2), 1, 2));
        assert_eq!(figures(&refusals, workspace(2)), (1, 1));
    }

    #[test]
    fn the_sum_tells_reasons_and_times() {
        let refusals = small();
        for address in 0..7 {
            refusals.note(refusal(workspace(1), 1, address));
        }
        refusals.note(Refusal { reason: "role", ..refusal(workspace(1), 1, 9) });
        let unlisted = refusals.state.lock().workspaces[&workspace(1)].unlisted.clone();
        let told = RefusalEvent::Sum(workspace(1), unlisted).metadata();
        let cause = |reason, count| json!({ "action": "access.forbidden", "reason": reason, "count": count });
        assert_eq!(told["count"], 3);
        assert_eq!(told["refusals"], json!([cause("permission", 2), cause("role", 1)]));
        assert_eq!((&told["first_at"], &told["last_at"]), (&json!(at(5)), &json!(at(9))));
    }
}
