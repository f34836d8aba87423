//! Warnings before a key expires: an event 14, 7 and 1 days before, and a gauge for the operator.
//!
//! A row counts the warnings that its key has passed, so an event is recorded once over all replicas. A warning that was due
//! before the key's mint or rotation counts as passed. Of several that are due at once, only the last is recorded.

mod store;

use std::time::Duration;

use serde_json::json;
use ward_db::{Timestamp, Tx};

use super::DAY;
use crate::audit::{Actor, Subject, Write};
use crate::context::Context;
use crate::error::ApiError;
use crate::ids::{CredentialId, WorkspaceId};

/// The days before the expiry at which a warning is due.
const DAYS: [u64; 3] = [14, 7, 1];
/// The keys that one transaction looks at.
const AT_ONCE: u32 = 100;
/// The keys that the gauge counts at most, for each number of passed warnings.
const MOST_COUNTED: u32 = 10_000;
/// The clocks of replicas differ by less than this. Within it, no replica takes back a warning of another.
const CLOCKS: Duration = Duration::from_hours(1);

fn days(days: u64) -> Duration {
    Duration::from_secs(days * DAY)
}

/// The number of warnings that a key with this expiry has passed at `now`.
pub(super) fn passed(expires_at: Timestamp, now: Timestamp) -> i64 {
    DAYS.into_iter().map(|before| i64::from(expires_at <= now.saturating_add(days(before)))).sum()
}

/// A key whose number of passed warnings is no longer true.
#[derive(Debug)]
struct DueKey {
    id: CredentialId,
    key_id: String,
    workspace: WorkspaceId,
    name: Option<String>,
    role: crate::access::Role,
    expires_at: Timestamp,
    /// The stored number of passed warnings.
    passed: i64,
    /// Whether the gate accepts the key.
    live: bool,
}

/// Records the warnings that are due for some keys of one workspace. Returns `false` if none is due.
pub fn warn_some(tx: &mut Tx<'_>, now: Timestamp) -> Result<bool, ApiError> {
    let due = store::due(tx, now, AT_ONCE)?;
    let Some(workspace) = due.first().map(|key| key.workspace) else { return Ok(false) };
    let context = Context::of_time(now);
    let mut write = Write::begin(tx, workspace, Actor::NOBODY, &context)?;
    for key in due.iter().filter(|key| key.workspace == workspace) {
        let passed = passed(key.expires_at, now);
        // Another replica may have recorded it, or the key may have been rotated, before this one took the guard row.
        if store::pass(&mut write, key, passed)? && key.live && passed > key.passed {
            warn(&mut write, key, passed)?;
        }
    }
    Ok(true)
}

fn warn(write: &mut Write<'_, '_>, key: &DueKey, passed: i64) -> Result<(), ApiError> {
    let before = usize::try_from(passed - 1).ok().and_then(|last| DAYS.get(last));
    let about =
        Subject { service: "api_keys", kind: "api_key", id: Some(key.id.0), name: key.name.as_deref() };
    let what = json!({
        "key_id": key.key_id,
        "role": key.role,
        "expires_at": key.expires_at,
        "days_before": before,
    });
    write.record("api_key.expires_soon", about, what)
}

/// Measures how many keys expire within each number of days.
pub fn measure(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), ward_db::Error> {
    for (before, keys) in DAYS.into_iter().zip(store::count(tx, now, MOST_COUNTED)?) {
        #[expect(clippy::cast_precision_loss, reason = "a count that is bounded far below that")]
        metrics::gauge!("ward_api_keys_expiring", "within_days" => before.to_string()).set(keys as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_passes_at_its_microsecond() {
        let expires_at = Timestamp::from_micros(2_000_000_000_000_000);
        for (index, before) in DAYS.into_iter().enumerate() {
            let due = expires_at.saturating_sub(days(before));
            let index = i64::try_from(index).unwrap();
            assert_eq!(passed(expires_at, due.saturating_sub(Duration::from_micros(1))), index, "{before}");
            assert_eq!(passed(expires_at, due), index + 1, "{before}");
        }
    }
}
