//! Words of outside systems about a call: its status, its direction, and texts of any length.
//!
//! Systems spell the same word in several ways, and add words over time. A finished call must not be lost
//! because of one, so an unknown word gets a meaning here and is counted.

use super::{Direction, Status, count_unknown};
use crate::text;

/// The longest kept status that Ward does not know, in characters. The document has the same bounds.
pub const LONGEST_STATUS: usize = 64;
/// The longest kept word, in characters.
pub const LONGEST_WORD: usize = 256;
/// The longest kept summary, in characters.
pub const LONGEST_SUMMARY: usize = 20_000;

/// A word in one spelling: lower case, with `-` for every dash, underscore and space.
fn spelled(word: &str) -> String {
    let dashed = |c: char| if c == '_' || text::is_dash(c) || text::is_space(c) { '-' } else { c };
    text::seen(word.trim()).to_lowercase().chars().map(dashed).collect()
}

/// Whether two words are the same in some spelling.
pub fn is_same_word(one: &str, other: &str) -> bool {
    spelled(one) == spelled(other)
}

/// The status with this name in any spelling. `queued` counts as initiated, because the API has no such
/// status.
fn status(word: &str) -> Option<Status> {
    match spelled(word).as_str() {
        "queued" => Some(Status::Initiated),
        "cancelled" => Some(Status::Canceled),
        name => Status::named(name),
    }
}

/// The status of a report, and whether Ward knows its word.
///
/// A word that Ward does not know counts as the end if the report has an end. That end is `completed` only
/// if the reason for it does not say otherwise.
pub fn status_of(told: &str, reason: Option<&str>, end_is_told: bool) -> (Status, bool) {
    match status(told) {
        Some(known) if known != Status::Unknown => (known.because(reason), true),
        known => {
            let erred = reason.is_some_and(|reason| spelled(reason) == "error");
            let end = if erred { Status::Failed } else { Status::Completed.because(reason) };
            let is_over = end_is_told || reason.is_some();
            (if is_over { end } else { Status::Unknown }, known.is_some())
        }
    }
}

impl Status {
    /// The status with regard to the reason for the end. A call without an answer by its reason
    /// is not completed, because its record in an EHR would claim a conversation.
    #[must_use]
    pub fn because(self, reason: Option<&str>) -> Self {
        let unanswered = reason.and_then(status).filter(|status| status.is_unanswered());
        if self == Self::Completed { unanswered.unwrap_or(self) } else { self }
    }

    /// Whether the call ended without an answer.
    const fn is_unanswered(self) -> bool {
        matches!(self, Self::Busy | Self::NoAnswer | Self::Failed | Self::Canceled)
    }
}

/// The direction of a report, and whether Ward knows its word. SIP trunks use the words of the telephone
/// network: a call that originates there is inbound. An unknown word gets the direction that it begins with.
/// Otherwise it is inbound, so that a real call is not kept from the EHR.
pub fn direction(told: &str) -> (Direction, bool) {
    let word = spelled(told);
    match word.as_str() {
        "trunking-originating" => (Direction::Inbound, true),
        "outbound-api" | "outbound-dial" | "trunking-terminating" => (Direction::Outbound, true),
        name => Direction::named(name).map_or_else(|| (begun(name), false), |known| (known, true)),
    }
}

fn begun(word: &str) -> Direction {
    count_unknown("direction");
    [
        ("outbound", Direction::Outbound),
        ("test", Direction::Test),
        ("playground", Direction::Playground),
        ("simulat", Direction::Simulated),
    ]
    .into_iter()
    .find_map(|(begin, direction)| word.starts_with(begin).then_some(direction))
    .unwrap_or(Direction::Inbound)
}

/// The kept part of a reported word: without invisible characters, and at most `most` characters.
pub fn kept_word(told: &str, most: usize) -> String {
    told.trim().chars().filter(|c| !text::is_unseen(*c)).take(most).collect()
}

/// The kept part of a reported summary. Lines and joined letters stay as they are; other control characters
/// are left out, because EHRs refuse them. A cut summary ends with `…`, which its readers see.
pub fn kept_summary(told: &str) -> String {
    let mut kept: String = told
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
        .take(LONGEST_SUMMARY + 1)
        .collect();
    if let Some((last, _)) = kept.char_indices().nth(LONGEST_SUMMARY) {
        kept.truncate(last);
        kept.pop();
        kept.push('…');
    }
    kept
}

/// Whether a text can be the id of a patient or an encounter in an EHR (FHIR R4, datatype `id`).
pub fn is_fhir_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_many_spellings() {
        for (told, meant) in [
            ("Completed", Status::Completed),
            ("NO_ANSWER", Status::NoAnswer),
            ("no answer", Status::NoAnswer),
            ("In_Progress", Status::InProgress),
            ("Cancelled", Status::Canceled),
            ("QUEUED", Status::Initiated),
            (" busy\u{200b}", Status::Busy),
        ] {
            assert_eq!(status_of(told, None, false), (meant, true), "{told}");
        }
    }

    #[test]
    fn no_reason_of_an_unanswered_call_completes_it() {
        for reason in ["no_answer", "No-Answer", "busy", "FAILED", "canceled", "cancelled"] {
            for told in ["completed", "COMPLETED", "hung-up", "unknown"] {
                for end in [false, true] {
                    let (status, _) = status_of(told, Some(reason), end);
                    assert!(status.is_unanswered(), "{told} {reason}");
                }
            }
            assert_eq!(status_of("in-progress", Some(reason), true).0, Status::InProgress);
        }
        assert_eq!(status_of("hung-up", Some("error"), true), (Status::Failed, false));
        assert_eq!(status_of("completed", Some("error"), true), (Status::Completed, true));
        assert_eq!(status_of("hung-up", Some("voicemail"), false), (Status::Completed, false));
        assert_eq!(status_of("hung-up", None, false), (Status::Unknown, false));
    }

    #[test]
    fn a_direction_is_never_unknown() {
        for (told, meant) in [
            ("Inbound", (Direction::Inbound, true)),
            ("OUTBOUND_API", (Direction::Outbound, true)),
            ("trunking-terminating", (Direction::Outbound, true)),
            ("test", (Direction::Test, true)),
            ("test-call", (Direction::Test, false)),
            ("Simulation", (Direction::Simulated, false)),
            ("outbound-fax", (Direction::Outbound, false)),
            ("web", (Direction::Inbound, false)),
        ] {
            assert_eq!(direction(told), meant, "{told}");
        }
    }

    #[test]
    fn kept_texts_are_bounded_and_have_no_controls() {
        assert_eq!(kept_word(" a\u{7}b\u{202e}c ", 2), "ab");
        let long = "é".repeat(LONGEST_SUMMARY);
        assert_eq!(kept_summary(&long), long);
        let cut = kept_summary(&format!("{long}x"));
        assert_eq!((cut.chars().count(), cut.ends_with("é…")), (LONGEST_SUMMARY, true));
        assert_eq!(kept_summary("a\u{7}\nb\u{200d}"), "a\nb\u{200d}");
    }
}
