//! Queues that heal themselves: when Ward tries a held queue again, and how people learn that one waits.

mod store;

use std::time::Duration;

use serde_json::json;

use super::outbox::LaneKey;
use super::subject;
use crate::audit::Write;
use crate::error::ApiError;

pub use store::{
    Lasting, depth, go_on, hold, put_refused_back, release, resume_after, settle_check, stuck_deliveries,
    waiting_queues,
};

/// The pauses before the tries of a held queue. The last one repeats.
const PAUSES: [Duration; 4] =
    [Duration::from_mins(1), Duration::from_mins(5), Duration::from_mins(15), Duration::from_hours(1)];

/// The pause before the next try of a held queue that was tried this often.
pub fn until_probe(probes: i64) -> Duration {
    let index = usize::try_from(probes).unwrap_or(0);
    PAUSES[index.min(PAUSES.len() - 1)]
}

/// Logs that a queue begins or ends to wait, once per change.
pub fn tell_change(key: LaneKey, before: Option<&str>, after: Option<&str>) {
    if before == after {
        return;
    }
    let integration = key.1;
    match (before, after) {
        (_, Some(reason)) => tracing::warn!(
            %integration, reason,
            "an integration's deliveries wait and are kept; `ward sync status --all` shows them, and the page on deliveries says what each reason needs"
        ),
        (Some(reason), None) => {
            tracing::info!(%integration, reason, "an integration's deliveries no longer wait");
        }
        (None, None) => {}
    }
}

/// Holds a queue for a reason of Ward's own, with its event. A hold by a person stays.
pub fn hold_and_record(
    write: &mut Write<'_, '_>,
    key: LaneKey,
    because: &'static str,
    probes: i64,
) -> Result<(), ApiError> {
    let now = write.now();
    if hold(write, key, because, probes, now)? {
        let what = json!({ "by": "ward", "because": because });
        write.record("integration.hold", subject("integration", Some(key.1.0)), what)?;
    }
    Ok(())
}

/// Releases a queue that Ward held, with its event, because a try of it succeeded.
pub fn release_and_record(write: &mut Write<'_, '_>, key: LaneKey, because: &str) -> Result<(), ApiError> {
    let now = write.now();
    if release(write, key, because, now)? {
        let what = json!({ "by": "ward", "because": because });
        write.record("integration.release", subject("integration", Some(key.1.0)), what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_queue_is_tried_soon_and_then_hourly() {
        let minutes: Vec<u64> = (0..6).map(|probes| until_probe(probes).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 5, 15, 60, 60, 60]);
        assert_eq!(until_probe(-1), PAUSES[0]);
    }
}
