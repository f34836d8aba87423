//! The form of a test caller's number: E.164, separators dropped, no country ever guessed.
//!
//! ITU-T E.164 allows fifteen digits. Whether a number is assigned is not asked: fictional numbers are what tests use.

use serde_json::Value;

use crate::http::contract::RuleProblem;

/// The number that `text` spells: surrounding space trimmed; spaces, dots, dashes and brackets dropped; then `+`, a digit
/// 1–9, and 6–14 more ASCII digits. The error says what a number looks like, never what was given.
pub fn normalize(text: &str) -> Result<String, &'static str> {
    const FORM: &str = "Not a phone number in international form, like +1 555 010 0001";
    let number: String =
        text.trim().chars().filter(|c| !matches!(c, ' ' | '.' | '-' | '(' | ')' | '[' | ']')).collect();
    let digits = number.strip_prefix('+').ok_or(FORM)?;
    let formed = (7..=15).contains(&digits.len())
        && digits.bytes().all(|digit| digit.is_ascii_digit())
        && !digits.starts_with('0');
    if !formed {
        return Err(FORM);
    }
    if KEYPAD_SPELLINGS.contains(&digits) {
        return Err("This is how a keypad spells a withheld caller, not a number");
    }
    Ok(number)
}

/// What networks send for callers who withhold their number: ANONYMOUS, RESTRICTED, UNAVAILABLE, UNKNOWN, BLOCKED.
const KEYPAD_SPELLINGS: [&str; 5] = ["266696687", "7378742833", "86282452253", "8656696", "2562533"];

/// The value rule of one number.
pub fn rule(value: &Value) -> Vec<RuleProblem> {
    match value.as_str().map(normalize) {
        Some(Err(message)) => vec![RuleProblem::here(message)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn accepted_forms() {
        for (given, number) in [
            ("+15551230100", "+15551230100"),
            ("  +1 (555) 123-0100\t", "+15551230100"),
            ("+44.7700.900123", "+447700900123"),
            ("+[49] 30 1234567", "+49301234567"),
            ("+1234567", "+1234567"),
            ("+123456789012345", "+123456789012345"),
        ] {
            assert_eq!(normalize(given).as_deref(), Ok(number), "{given}");
        }
    }

    #[test]
    fn refused_forms() {
        for given in [
            "",
            "+",
            "15551230100",
            "0015551230100",
            "+0123456789",
            "+123456",
            "+1234567890123456",
            "+1555CALLNOW",
            "tel:+15551230100",
            "+15551230100;ext=5",
            "+15551230100 x5",
            "anonymous",
            "sip:x@y",
            "++15551230100",
            "+1555\u{661}230100",
            "+1555/1230100",
            "+266696687",
            "+7378742833",
            "+86282452253",
            "+8656696",
            "+2562533",
        ] {
            assert!(normalize(given).is_err(), "{given}");
        }
    }
}
