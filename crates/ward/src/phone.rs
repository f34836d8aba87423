//! Phone numbers in international form, in the list of test callers and in reported calls.
//!
//! One rule serves both, so that a number on the list and the same number in a report are equal. ITU-T
//! E.164 allows fifteen digits. The rule does not check whether a number is assigned, because tests use
//! fictional numbers.

use serde_json::Value;
use ward_contract::RuleProblem;

use crate::text;

/// The reason why a text is not a number in international form. The sentences never repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotANumber {
    /// The text does not have the required form.
    #[error("Not a phone number in international form, like +1 555 010 0001")]
    Form,
    /// A keypad spells a withheld caller like this.
    #[error("This is how a keypad spells a withheld caller, not a number")]
    Keypad,
    /// A 0 that brackets mark. Callers from abroad omit it, so the digits with it are another number.
    #[error(
        "The 0 in brackets is left out when calling from abroad; write the number without it, like +44 20 7946 0001"
    )]
    TrunkZero,
    /// A character that cannot be seen.
    #[error("The number contains the character U+{:04X}, which cannot be seen; remove it", u32::from(*.0))]
    Unseen(char),
    /// A character from outside of ASCII that can be seen.
    #[error(
        "The number contains the character U+{:04X}; use the ASCII digits 0 to 9 and one leading +",
        u32::from(*.0)
    )]
    Foreign(char),
}

/// Normalizes a number. Surrounding white space is trimmed; spaces, dots, dashes and brackets are dropped.
/// The rest must be `+`, a digit from 1 to 9, and 6 to 14 more ASCII digits. A 0 that brackets mark as
/// omitted from abroad makes the text invalid. Without brackets a 0 is a digit like others, because the text
/// does not say that it is omitted, and no country's rules are guessed.
pub fn normalize(text: &str) -> Result<String, NotANumber> {
    let text = text.trim();
    if let Some(unseen) = unseen(text) {
        return Err(unseen);
    }
    let number: String = text.chars().filter(|c| !is_separator(*c)).collect();
    if let Some(foreign) = number.chars().find(|c| !c.is_ascii()) {
        return Err(NotANumber::Foreign(foreign));
    }
    let digits = number.strip_prefix('+').ok_or(NotANumber::Form)?;
    let formed = digits.bytes().all(|digit| digit.is_ascii_digit());
    if formed && has_trunk_zero(text) {
        return Err(NotANumber::TrunkZero);
    }
    if !formed || !(7..=15).contains(&digits.len()) || digits.starts_with('0') {
        return Err(NotANumber::Form);
    }
    if is_keypad_spelling(digits) {
        return Err(NotANumber::Keypad);
    }
    Ok(number)
}

/// The first character of a text that cannot be seen, as the problem that it causes.
pub fn unseen(text: &str) -> Option<NotANumber> {
    text::first_unseen(text).map(NotANumber::Unseen)
}

/// Whether a character only separates the digits of a number: a space, a dot, a dash or a bracket.
pub fn is_separator(c: char) -> bool {
    text::is_space(c) || text::is_dash(c) || is_opening(c) || is_closing(c) || is_dot(c)
}

/// Full stops, and the middle dot that some countries write between groups.
const fn is_dot(c: char) -> bool {
    matches!(c, '.' | '\u{b7}' | '\u{2024}' | '\u{ff0e}')
}

const fn is_opening(c: char) -> bool {
    matches!(c, '(' | '[' | '\u{ff08}' | '\u{ff3b}')
}

const fn is_closing(c: char) -> bool {
    matches!(c, ')' | ']' | '\u{ff09}' | '\u{ff3d}')
}

/// Country codes whose national numbers keep their first 0 from abroad: Italy, San Marino, the Vatican, Ivory
/// Coast, Benin, Gabon and the Republic of the Congo (ITU-T E.164, Operational Bulletins on numbering plans).
const KEEP_ZERO: [&str; 7] = ["39", "378", "379", "225", "229", "241", "242"];
/// The most digits of a country code (ITU-T E.164, 6.2.1).
const LONGEST_COUNTRY: usize = 3;

/// Whether a bracket marks a 0 that callers from abroad omit. Such a 0 stands alone between brackets, or it
/// is the first digit in the bracket after a country code: `(0)`, `(020)`.
fn has_trunk_zero(text: &str) -> bool {
    /// The characters since the last bracket, separators aside.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum After {
        Opening,
        Closing,
        Zeros,
        Digits,
    }
    let mut digits = String::new();
    let mut after = After::Digits;
    let mut open = 0_u32;
    for c in text.chars() {
        if is_opening(c) || is_closing(c) {
            // Which digits a bracket closes that was never opened is unknown; the 0 before it may stand alone.
            if after == After::Zeros || open == 0 && is_closing(c) && digits.ends_with('0') {
                return true;
            }
            open = if is_opening(c) { open + 1 } else { open.saturating_sub(1) };
            after = if is_opening(c) { After::Opening } else { After::Closing };
        } else if c.is_ascii_digit() {
            let follows_country = digits.len() <= LONGEST_COUNTRY && !KEEP_ZERO.contains(&digits.as_str());
            if c == '0' && after == After::Opening && follows_country {
                return true;
            }
            after = if c == '0' && after != After::Digits { After::Zeros } else { After::Digits };
            digits.push(c);
        }
    }
    false
}

/// The digits that networks send for a withheld caller: ANONYMOUS, RESTRICTED, UNAVAILABLE, UNKNOWN and
/// BLOCKED on a keypad.
const KEYPAD_SPELLINGS: [&str; 5] = ["266696687", "7378742833", "86282452253", "8656696", "2562533"];

/// Whether these digits spell a withheld caller on a keypad.
pub fn is_keypad_spelling(digits: &str) -> bool {
    KEYPAD_SPELLINGS.contains(&digits)
}

pub fn rule(value: &Value) -> Vec<RuleProblem> {
    match value.as_str().map(normalize) {
        Some(Err(problem)) => vec![RuleProblem::here(problem.to_string())],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{NotANumber, normalize};

    #[test]
    fn accepted_forms() {
        for (given, number) in [
            ("+15551230100", "+15551230100"),
            ("  +1 (555) 123-0100\t", "+15551230100"),
            ("+44.7700.900123", "+447700900123"),
            ("+[49] 30 1234567", "+49301234567"),
            ("+1234567", "+1234567"),
            ("+123456789012345", "+123456789012345"),
            ("\u{a0}+1\u{a0}555\u{202f}123\u{2007}0100\u{3000}", "+15551230100"),
            ("+1\u{2010}555\u{2011}123\u{2012}01\u{2013}0\u{2014}0\u{2015}", "+15551230100"),
            ("+1 \u{2212} 555 \u{ff0d} 123\u{fe63}0100", "+15551230100"),
            ("+1 \u{ff08}555\u{ff09} 123\u{b7}0100", "+15551230100"),
            ("+39 (06) 698 12345", "+390669812345"),
            ("+1 (500) 123-0100", "+15001230100"),
            ("+378 (0549) 888 888", "+3780549888888"),
            ("+225 (07) 01 02 03 04", "+2250701020304"),
            ("+49 30 (0123) 4567", "+493001234567"),
            ("+44 020 7946 0001", "+4402079460001"),
            ("+44-0-20-7946-0001", "+4402079460001"),
            ("+1 (555 000) 1234", "+15550001234"),
            ("+1 555 123) 0100", "+15551230100"),
        ] {
            let read = normalize(given).unwrap_or_else(|problem| format!("{problem:?}"));
            assert_eq!(read, number, "{given}");
        }
    }

    #[test]
    fn a_zero_in_brackets_is_never_dropped() {
        for given in [
            "+44 (0)20 7946 0001",
            "+44(0)2079460001",
            "+49 (0) 30 1234567",
            "+61 [0]2 5550 1234",
            "+44 ( 0 ) 20 7946 0001",
            "+44 (\u{a0}0\u{a0}) 20 7946 0001",
            "+44 \u{ff08}0\u{ff09} 20 7946 0001",
            "+44-(0)-20-7946-0001",
            "+44 ((0)) 20 7946 0001",
            "+44 (00) 20 7946 0001",
            "+(0)44 20 7946 0001",
            "+1 555 (0)123",
            "+44 (020) 7946 0001",
            "+49 (0 30) 1234567",
            "+44 ()0() 20 7946 0001",
            "+(44) 0 (20) 7946 0001",
            "+61 [02] 5550 1234",
            "+33 \u{ff08}01\u{ff09} 23 45 67 89",
            "+353 ( (01) 234 5678",
            "+39 (0) 6 698 12345",
            "+44 0) 20 7946 0001",
            "+44-0 ] 20 7946 0001",
            "+44 (20) 00) 7946 0001",
        ] {
            assert_eq!(normalize(given), Err(NotANumber::TrunkZero), "{given}");
        }
    }

    #[test]
    fn characters_that_cannot_be_seen_are_named() {
        for unseen in
            ['\u{200b}', '\u{200e}', '\u{202a}', '\u{2066}', '\u{feff}', '\u{ad}', '\u{1}', '\n', '\t']
        {
            let given = format!("+1555{unseen}1230100");
            assert_eq!(normalize(&given), Err(NotANumber::Unseen(unseen)), "{given:?}");
            let named = normalize(&given).map_err(|problem| problem.to_string());
            assert!(named.is_err_and(|said| said.contains(&format!("U+{:04X}", u32::from(unseen)))));
        }
        assert_eq!(normalize("\u{202a}+15551230100\u{202c}"), Err(NotANumber::Unseen('\u{202a}')));
        assert_eq!(normalize("+1555\u{661}230100"), Err(NotANumber::Foreign('\u{661}')));
        assert_eq!(normalize("\u{ff0b}15551230100"), Err(NotANumber::Foreign('\u{ff0b}')));
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
            "+1555\u{2215}1230100",
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
