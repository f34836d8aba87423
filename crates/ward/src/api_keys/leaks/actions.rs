//! Writes on leaked keys, and on the choice of a workspace for them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ward_db::{Timestamp, Tx};

use super::store::Suspect;
use super::{Leak, LeakAction, QUARANTINE, store};
use crate::api_keys::actions::{end, end_previous, record_with};
use crate::api_keys::secret::KeyId;
use crate::api_keys::{ApiKey, Secret, store as keys};
use crate::app::App;
use crate::audit::{Actor, Write};
use crate::context::Context;
use crate::error::ApiError;
use crate::gate::{Entry, Held};
use crate::ids::WorkspaceId;

/// Leaked keys that one transaction ends, all of one workspace.
const AT_ONCE: usize = 50;

/// The effect of a leak on its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Revoked,
    Quarantined,
    PreviousEnded,
}

impl Effect {
    const fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Quarantined => "quarantined",
            Self::PreviousEnded => "previous_secret_ended",
        }
    }
}

/// Looks the leaks up in one statement, and ends or quarantines each key that could still be used. Returns the public parts
/// of existing keys.
///
/// A repeated report finds keys that have ended or are in quarantine, so it changes nothing. A failure in one workspace
/// does not protect the leaked keys of another: the others are ended first, and the reporter sends the failed ones again.
pub async fn end_leaked(
    app: &App,
    context: &Arc<Context>,
    reporter: &str,
    leaks: Vec<Leak>,
) -> Result<HashSet<KeyId>, ApiError> {
    let keys: Vec<KeyId> = leaks.iter().map(|leak| leak.presented.key_id).collect();
    let share = app.long_reads.take(context.holder(), 1).await.map_err(ApiError::share_used_up)?;
    let suspects = app.db.read_long("api_keys.leaked", move |tx| store::find(tx, &keys)).await?;
    drop(share);
    let known: BTreeMap<&str, &Suspect> =
        suspects.iter().map(|suspect| (suspect.key_id.as_str(), suspect)).collect();
    let mut usable: BTreeMap<WorkspaceId, Vec<Leak>> = BTreeMap::new();
    for leak in leaks {
        let suspect = known.get(leak.presented.key_id.as_str()).copied();
        match suspect.map(|suspect| (suspect, suspect.due(&leak, context.now))) {
            None => count("unknown", leak.count),
            Some((_, None)) => count("ended_before", leak.count),
            Some((suspect, Some(_))) => usable.entry(suspect.workspace).or_default().push(leak),
        }
    }
    let mut failed = None;
    for (workspace, leaks) in usable {
        for some in leaks.chunks(AT_ONCE) {
            if let Err(error) = end_some(app, context, reporter, workspace, some.to_vec()).await {
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(suspects.iter().filter_map(|suspect| KeyId::parse(&suspect.key_id)).collect()),
    }
}

/// Counts reported tokens by the effect on their keys.
pub fn count(effect: &'static str, tokens: usize) {
    let tokens = u64::try_from(tokens).unwrap_or(u64::MAX);
    metrics::counter!("ward_leaked_keys_total", "effect" => effect).increment(tokens);
}

impl Suspect {
    /// The leaked secret, if something is left to do about it.
    fn due(&self, leak: &Leak, now: Timestamp) -> Option<Secret> {
        let secret = self.usable(&leak.presented.hash, now)?;
        (secret != Secret::Current || !self.quarantined).then_some(secret)
    }
}

/// Ends or quarantines leaked keys of one workspace in one transaction, each with one event.
async fn end_some(
    app: &App,
    context: &Arc<Context>,
    reporter: &str,
    workspace: WorkspaceId,
    leaks: Vec<Leak>,
) -> Result<(), ApiError> {
    let (written, reporter) = (context.clone(), reporter.to_owned());
    let end = move |tx: &mut Tx<'_>| {
        let mut write = Write::begin(tx, workspace, Actor::NOBODY, &written)?;
        let action = store::policy(&mut write, workspace)?;
        let mut effects = Vec::with_capacity(leaks.len());
        for leak in &leaks {
            effects.push(
                end_one(&mut write, &reporter, leak, action)?.map(|effect| (leak.presented.key_id, effect)),
            );
        }
        Ok::<_, ApiError>((effects, leaks.iter().map(|leak| leak.count).collect::<Vec<_>>()))
    };
    let (effects, counts) = app.db.write("api_keys.end_leaked", end).await?;
    for (effect, places) in effects.into_iter().zip(counts) {
        let Some((key_id, effect)) = effect else {
            count("ended_before", places);
            continue;
        };
        count(effect.name(), places);
        tracing::warn!(
            request_id = context.request_id,
            %workspace,
            %key_id,
            effect = effect.name(),
            places,
            "the secret of a key was found in a public place"
        );
    }
    Ok(())
}

/// Ends one leaked secret. Another transaction may have ended it before this one took the guard row.
fn end_one(
    write: &mut Write<'_, '_>,
    reporter: &str,
    leak: &Leak,
    action: LeakAction,
) -> Result<Option<Effect>, ApiError> {
    let key_id = leak.presented.key_id;
    let found = store::find(write, &[key_id])?.pop();
    let Some(secret) = found.and_then(|suspect| suspect.due(leak, write.now())) else { return Ok(None) };
    let Some(key) = keys::get_anywhere(write, key_id)? else { return Ok(None) };
    let what = json!({ "reporter": reporter, "places": leak.places, "place_count": leak.count });
    Ok(Some(match (secret, action) {
        // The key has a newer secret, which did not leak.
        (Secret::Previous { .. }, _) => {
            end_previous(write, key, Some(what))?;
            Effect::PreviousEnded
        }
        (Secret::Current, LeakAction::Revoke) => {
            end(write, &key, Some(what))?;
            Effect::Revoked
        }
        (Secret::Current, LeakAction::Quarantine) => {
            quarantine(write, key, what)?;
            Effect::Quarantined
        }
    }))
}

/// Leaves a key only reads, and ends it after [`QUARANTINE`]. Its change also ends the invitations and nominations that the
/// key made, as a rotation does.
fn quarantine(write: &mut Write<'_, '_>, mut key: ApiKey, mut leak: Value) -> Result<(), ApiError> {
    let now = write.now();
    leak["former_expires_at"] = json!(key.expires_at);
    key.expires_at = key.expires_at.min(now.saturating_add(QUARANTINE));
    key.updated_at = now.max(Timestamp::from_micros(key.updated_at.micros() + 1));
    key.quarantined_at = Some(now);
    store::quarantine(write, &key)?;
    record_with(write, "api_key.quarantine", &key, Some(leak))
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct SetLeakedKeyPolicyRequest {
    action: LeakAction,
}

/// The choice of a workspace for its leaked keys.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LeakedKeyPolicyResponse {
    pub action: LeakAction,
}

/// Chooses what happens to leaked keys. The choice concerns later reports, and no key that is in quarantine already.
pub async fn set_policy(
    app: &Arc<App>,
    entry: Entry,
    wanted: SetLeakedKeyPolicyRequest,
) -> Result<LeakedKeyPolicyResponse, ApiError> {
    let set = move |write: &mut Write<'_, '_>, held: &Held| {
        let (workspace, now) = (write.row(), write.now());
        let (former, action) = (store::policy(write, workspace)?, wanted.action);
        if former != action {
            store::set_policy(write, action, now)?;
            let what = json!({ "changes": { "action": { "from": former, "to": action } } });
            write.record("leaked_key_policy.update", held.seen.workspace.subject(), what)?;
        }
        Ok(LeakedKeyPolicyResponse { action })
    };
    entry.write(app, "api_keys.set_leaked_key_policy", set).await
}
