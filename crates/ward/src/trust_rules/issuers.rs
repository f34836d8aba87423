//! The signing keys of the issuers that trust rules name, fetched within the share of the workspace whose rule needs them.
//!
//! Keys are public and belong to their issuer, so all workspaces use the same ones. The tenant that names an issuer can be its author,
//! so everything here is bounded: the documents, the keys, the entries of one workspace, and all entries together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex as Turn;
use ward_db::Timestamp;

use crate::clock::Clock;
use crate::error::ApiError;
use crate::identity::issuers::{Key, Last, Unavailable, key};
use crate::ids::WorkspaceId;
use crate::integrations::outbound::documents::Documents;

/// The age at which keys are fetched again, beside the requests.
const REFRESH: Duration = Duration::from_mins(10);
/// The age up to which keys are used while the issuer cannot be reached.
const OUTAGE: Duration = Duration::from_hours(1);
/// A token with an unknown key causes a fetch only after this pause since the last such fetch.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_mins(1);
/// No fetch begins within this pause after a failed one.
const FAILURE_PAUSE: Duration = Duration::from_secs(30);
/// Time limit of a fetch, both documents together.
const FETCH_TIME: Duration = Duration::from_secs(8);
/// Keys of one issuer. A token without `kid` is tried against all of them.
const MOST_KEYS: usize = 16;
/// The longest RSA modulus, in characters of base64url: 4,096 bits. The check of a signature then takes less than 0.1 ms.
const LONGEST_MODULUS: usize = 683;
/// Issuers whose keys are kept; the one that was unused for the longest time gives way.
const MOST_ISSUERS: usize = 4096;
/// Issuers that are kept at the expense of one workspace.
const MOST_OF_A_WORKSPACE: usize = 8;

/// The keys of an issuer at the time of one fetch.
pub struct Keys {
    pub keys: Vec<Key>,
    generation: u64,
}

/// The reason why a token's keys cannot be had now.
pub enum NoKeys {
    /// The issuer cannot be reached, or was asked too lately.
    Unavailable(Unavailable),
    /// The workspace has no place for a fetch (429).
    NoPlace(ApiError),
}

impl From<Unavailable> for NoKeys {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

/// The issuers that were needed lately. Clones share them.
#[derive(Clone)]
pub struct WorkloadIssuers {
    kept: Arc<Mutex<HashMap<Arc<str>, Kept>>>,
    clock: Clock,
}

struct Kept {
    keys: Option<Arc<Keys>>,
    generation: u64,
    /// The start of the fetch that brought the keys.
    fetched: Last,
    /// The last failed fetch, if none has succeeded since.
    failed: Last,
    /// The last fetch because of an unknown key.
    looked_again: Last,
    /// The workspace in whose share the last fetch ran. The entry counts for it.
    paid_by: WorkspaceId,
    used: Timestamp,
    /// Held during a fetch, so that one fetch serves all waiting callers.
    turn: Arc<Turn<()>>,
}

impl WorkloadIssuers {
    pub fn new(clock: &Clock) -> Self {
        Self { kept: Arc::default(), clock: clock.clone() }
    }

    /// The keys of an issuer, if they were fetched and are not too old.
    pub fn known(&self, issuer: &str) -> Option<Arc<Keys>> {
        let now = self.clock.now();
        let mut kept = self.kept.lock();
        let entry = kept.get_mut(issuer)?;
        entry.used = now;
        entry.fetched.is_younger(OUTAGE, now).then(|| entry.keys.clone())?
    }

    /// Whether the keys of an issuer should be fetched again, and no fetch is running.
    pub fn is_old(&self, issuer: &str) -> bool {
        let now = self.clock.now();
        let mut kept = self.kept.lock();
        kept.get_mut(issuer).is_some_and(|entry| {
            !entry.fetched.is_younger(REFRESH, now)
                && !entry.failed.is_younger(FAILURE_PAUSE, now)
                && entry.turn.try_lock().is_ok()
        })
    }

    /// Fetches the keys of an issuer for a workspace, unless others than `not` are there. `place` takes the fetch's place in the
    /// share of the workspace.
    ///
    /// Only a caller with a place holds the turn. So a workspace whose share is used up does not delay another one that needs the
    /// same issuer, and callers that wait for a running fetch use no place.
    pub async fn fetch(
        &self,
        place: impl Future<Output = Result<Documents, ApiError>>,
        payer: WorkspaceId,
        issuer: &Arc<str>,
        not: Option<&Keys>,
    ) -> Result<Arc<Keys>, NoKeys> {
        let not = not.map_or(0, |keys| keys.generation);
        let turn = self.entry(issuer, payer);
        drop(turn.lock().await);
        if let Some(found) = self.without_a_fetch(issuer, not) {
            return Ok(found?);
        }
        let documents = place.await.map_err(NoKeys::NoPlace)?;
        let turn = turn.lock_owned().await;
        if let Some(found) = self.without_a_fetch(issuer, not) {
            return Ok(found?);
        }
        self.note_look(issuer);
        let (this, issuer) = (self.clone(), issuer.clone());
        // The request that needs the keys may be cancelled. The fetch still ends for the others.
        let fetching = tokio::spawn(async move {
            let _turn = turn;
            this.fetch_and_keep(&documents, payer, &issuer).await
        });
        Ok(fetching.await.unwrap_or(Err(Unavailable { retry_after: FAILURE_PAUSE.as_secs() }))?)
    }

    /// The turn of this issuer, whose entry is made if it is not there.
    fn entry(&self, issuer: &Arc<str>, payer: WorkspaceId) -> Arc<Turn<()>> {
        let now = self.clock.now();
        let mut kept = self.kept.lock();
        if !kept.contains_key(issuer) {
            make_room(&mut kept, payer);
        }
        let entry = kept.entry(issuer.clone()).or_insert_with(|| Kept {
            keys: None,
            generation: 0,
            fetched: Last::default(),
            failed: Last::default(),
            looked_again: Last::default(),
            paid_by: payer,
            used: now,
            turn: Arc::default(),
        });
        entry.used = now;
        entry.turn.clone()
    }

    /// The result, if no fetch is needed or allowed now.
    fn without_a_fetch(&self, issuer: &str, not: u64) -> Option<Result<Arc<Keys>, Unavailable>> {
        let now = self.clock.now();
        let mut kept = self.kept.lock();
        let entry = kept.get_mut(issuer)?;
        let fresh = entry.fetched.is_younger(OUTAGE, now);
        if let Some(keys) = entry.keys.as_ref().filter(|keys| fresh && keys.generation > not) {
            // A refresh passes `not`, so only a caller without keys gets them here.
            return Some(Ok(keys.clone()));
        }
        let wait = |seconds: Duration| Some(Err(Unavailable { retry_after: seconds.as_secs().max(1) }));
        if entry.failed.is_younger(FAILURE_PAUSE, now) {
            return wait(FAILURE_PAUSE);
        }
        let young = fresh && entry.fetched.is_younger(REFRESH, now);
        if young && entry.looked_again.is_younger(UNKNOWN_KEY_PAUSE, now) {
            return wait(UNKNOWN_KEY_PAUSE);
        }
        None
    }

    /// Notes that a fetch begins, because of an unknown key if the known ones are young.
    fn note_look(&self, issuer: &str) {
        let now = self.clock.now();
        if let Some(entry) = self.kept.lock().get_mut(issuer)
            && entry.fetched.is_younger(REFRESH, now)
        {
            entry.looked_again = Last(Some(now));
        }
    }

    async fn fetch_and_keep(
        &self,
        documents: &Documents,
        payer: WorkspaceId,
        issuer: &Arc<str>,
    ) -> Result<Arc<Keys>, Unavailable> {
        let began = self.clock.now();
        let fetched = match tokio::time::timeout(FETCH_TIME, fetch(documents, issuer)).await {
            Ok(fetched) => fetched,
            Err(_) => Err("no answer in time".to_owned()),
        };
        let outcome = if fetched.is_ok() { "ok" } else { "failed" };
        metrics::counter!("ward_workload_issuer_fetches_total", "outcome" => outcome).increment(1);
        let mut kept = self.kept.lock();
        // A busy server may have dropped the entry in the meantime. The keys then serve this caller only.
        let entry = kept.get_mut(issuer);
        match fetched {
            Ok(keys) => {
                let generation = entry.as_ref().map_or(1, |entry| entry.generation + 1);
                let keys = Arc::new(Keys { keys, generation });
                if let Some(entry) = entry {
                    entry.generation = generation;
                    entry.keys = Some(keys.clone());
                    entry.paid_by = payer;
                    (entry.fetched, entry.failed) = (Last(Some(began)), Last(None));
                }
                Ok(keys)
            }
            Err(error) => {
                tracing::info!(%issuer, error, "cannot fetch the keys of an issuer that a trust rule names");
                if let Some(entry) = entry {
                    entry.failed = Last(Some(self.clock.now()));
                }
                Err(Unavailable { retry_after: FAILURE_PAUSE.as_secs() })
            }
        }
    }
}

/// Drops the entry that was unused for the longest time: of this workspace if it has as many as it may have, otherwise of all.
fn make_room(kept: &mut HashMap<Arc<str>, Kept>, payer: WorkspaceId) {
    let own = |entry: &Kept| entry.paid_by == payer;
    let all = kept.len() >= MOST_ISSUERS;
    if !all && kept.values().filter(|entry| own(entry)).count() < MOST_OF_A_WORKSPACE {
        return;
    }
    let may_go = kept.iter().filter(|(_, entry)| all || own(entry));
    let oldest = may_go.min_by_key(|(_, entry)| entry.used).map(|(issuer, _)| issuer.clone());
    if let Some(oldest) = oldest {
        kept.remove(&oldest);
    }
}

/// Fetches the discovery document, then the keys (`OpenID` Connect Discovery 1.0, section 4; RFC 7517, section 5).
async fn fetch(documents: &Documents, issuer: &str) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Metadata {
        issuer: String,
        jwks_uri: String,
    }
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let metadata: Metadata = serde_json::from_value(documents.get(&url).await?)
        .map_err(|_| "the discovery document has no issuer or no jwks_uri")?;
    // Section 4.3: without this check, the author of any page on the host could speak for the issuer.
    if metadata.issuer != issuer {
        return Err("the discovery document is of another issuer".to_owned());
    }
    let document = documents.get(&metadata.jwks_uri).await?;
    let listed = document.get("keys").and_then(Value::as_array).ok_or("the key set has no keys")?;
    let short =
        |jwk: &&Value| jwk.get("n").and_then(Value::as_str).is_none_or(|n| n.len() <= LONGEST_MODULUS);
    let keys: Vec<Key> = listed.iter().filter(short).filter_map(key).take(MOST_KEYS).collect();
    if keys.is_empty() { Err("the key set holds no key that is accepted".to_owned()) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn workspace(number: u128) -> WorkspaceId {
        WorkspaceId(Uuid::from_u128(number))
    }

    #[test]
    fn a_workspace_drops_its_own_oldest_issuer_and_no_other_ones() {
        let issuers = WorkloadIssuers::new(&Clock::default());
        let named = |text: String| Arc::from(text.as_str());
        issuers.entry(&named("https://quiet.example".to_owned()), workspace(1));
        for number in 0..100 {
            issuers.entry(&named(format!("https://{number}.example")), workspace(2));
        }
        let kept = issuers.kept.lock();
        assert_eq!(kept.len(), 1 + MOST_OF_A_WORKSPACE);
        assert!(kept.contains_key("https://quiet.example") && kept.contains_key("https://99.example"));
        assert!(!kept.contains_key("https://0.example"));
    }

    #[test]
    fn many_workspaces_keep_a_bounded_number_together() {
        let issuers = WorkloadIssuers::new(&Clock::default());
        for number in 0..MOST_ISSUERS as u128 + 100 {
            let name = format!("https://{number}.example");
            issuers.entry(&Arc::from(name.as_str()), workspace(number));
        }
        assert_eq!(issuers.kept.lock().len(), MOST_ISSUERS);
    }

    #[tokio::test]
    async fn a_failure_is_remembered_and_an_unknown_key_is_looked_for_once_a_minute() {
        let clock = Clock::default();
        let issuers = WorkloadIssuers::new(&clock);
        let issuer: Arc<str> = Arc::from("https://id.example");
        issuers.entry(&issuer, workspace(1));
        assert!(issuers.without_a_fetch(&issuer, 0).is_none(), "nothing is known");
        issuers.kept.lock().get_mut(&issuer).unwrap().failed = Last(Some(clock.now()));
        assert!(issuers.without_a_fetch(&issuer, 0).is_some_and(|result| result.is_err()));
        clock.advance(FAILURE_PAUSE);
        assert!(issuers.without_a_fetch(&issuer, 0).is_none());
        {
            let mut kept = issuers.kept.lock();
            let entry = kept.get_mut(&issuer).unwrap();
            entry.keys = Some(Arc::new(Keys { keys: Vec::new(), generation: 1 }));
            (entry.fetched, entry.failed) = (Last(Some(clock.now())), Last(None));
        }
        assert!(issuers.without_a_fetch(&issuer, 0).is_some_and(|result| result.is_ok()));
        assert!(issuers.without_a_fetch(&issuer, 1).is_none(), "the first look for an unknown key");
        issuers.note_look(&issuer);
        assert!(issuers.without_a_fetch(&issuer, 1).is_some_and(|result| result.is_err()));
        clock.advance(UNKNOWN_KEY_PAUSE);
        assert!(issuers.without_a_fetch(&issuer, 1).is_none());
        assert!(!issuers.is_old(&issuer));
        clock.advance(REFRESH);
        assert!(issuers.is_old(&issuer));
        clock.advance(OUTAGE);
        assert!(issuers.known(&issuer).is_none());
    }
}
