//! The rule that says which finished calls a workspace has written into its EHR.

use super::{CallRecord, RealDirection, Status, told};
use crate::integrations::{CallChoice, CallDirection, CallEnd};

/// Whether a finished call meets every condition of a choice. A call of unknown duration or disposition meets no
/// condition on it.
pub(super) fn is_chosen(call: &CallRecord, direction: RealDirection, choice: &CallChoice) -> bool {
    let Some(end) = end_of(call.status) else { return false };
    let direction = if direction.is_inbound() { CallDirection::Inbound } else { CallDirection::Outbound };
    choice.statuses.as_deref().unwrap_or(&[CallEnd::Completed]).contains(&end)
        && choice.directions.as_deref().is_none_or(|wanted| wanted.contains(&direction))
        && is_long_enough(call.duration_ms, choice.min_duration_seconds.unwrap_or(0))
        && choice
            .dispositions
            .as_deref()
            .is_none_or(|wanted| has_disposition(call.completion_reason.as_deref(), wanted))
}

const fn end_of(status: Status) -> Option<CallEnd> {
    match status {
        Status::Completed => Some(CallEnd::Completed),
        Status::Busy => Some(CallEnd::Busy),
        Status::NoAnswer => Some(CallEnd::NoAnswer),
        Status::Failed => Some(CallEnd::Failed),
        Status::Canceled => Some(CallEnd::Canceled),
        Status::Unknown | Status::Initiated | Status::Ringing | Status::InProgress => None,
    }
}

fn is_long_enough(duration_ms: Option<i64>, least_seconds: u32) -> bool {
    least_seconds == 0 || duration_ms.is_some_and(|duration| duration >= i64::from(least_seconds) * 1_000)
}

fn has_disposition(reported: Option<&str>, wanted: &[String]) -> bool {
    reported.is_some_and(|reported| wanted.iter().any(|one| told::is_same_word(one, reported)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_name_in_choices_and_no_other_status_has_one() {
        for status in Status::ALL {
            assert_eq!(end_of(status).is_some(), status.is_final(), "{status:?}");
        }
    }

    #[test]
    fn an_unknown_duration_is_shorter_than_every_minimum() {
        assert!(is_long_enough(None, 0) && is_long_enough(Some(0), 0));
        assert!(!is_long_enough(None, 1) && !is_long_enough(Some(9_999), 10));
        assert!(is_long_enough(Some(10_000), 10));
    }

    #[test]
    fn a_disposition_is_compared_in_any_spelling() {
        let wanted = ["caller_hangup".to_owned(), "Handed to a nurse".to_owned()];
        for reported in ["Caller-Hangup", "caller hangup", "handed_to_a_nurse"] {
            assert!(has_disposition(Some(reported), &wanted), "{reported}");
        }
        assert!(!has_disposition(Some("caller"), &wanted) && !has_disposition(None, &wanted));
    }
}
