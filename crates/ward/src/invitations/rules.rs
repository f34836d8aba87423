//! The value rule of an invitation's address.

use serde_json::Value;
use ward_contract::RuleProblem;

use crate::text::first_unseen;

/// Accepts addresses that an identity provider could verify. No person could accept an invitation to
/// another address.
pub fn email(value: &Value) -> Vec<RuleProblem> {
    match value.as_str().map(address) {
        Some(Err(message)) => vec![RuleProblem::here(message)],
        _ => Vec::new(),
    }
}

/// Checks for a dot-atom on both sides of one `@` (RFC 5322, section 3.4.1; RFC 6531 for letters beyond
/// ASCII). Quoted local parts and address literals are refused, because identity providers verify none.
fn address(text: &str) -> Result<(), String> {
    if let Some(unseen) = first_unseen(text) {
        let code = u32::from(unseen);
        return Err(format!(
            "The address contains the character U+{code:04X}, which cannot be seen; remove it"
        ));
    }
    let (local, domain) = text.rsplit_once('@').unwrap_or((text, ""));
    let local_fits =
        local.len() <= 64 && local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext));
    if !local_fits {
        return Err("Not an email address: the part before the @ is not a valid mailbox name".to_owned());
    }
    if !domain.split('.').all(is_label) {
        return Err(
            "Not an email address: the part after the @ is not a domain, like clinic.example".to_owned()
        );
    }
    Ok(())
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && c.is_alphanumeric())
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.chars().count())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .chars()
            .all(|c| c == '-' || c.is_ascii_alphanumeric() || (!c.is_ascii() && c.is_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_that_can_be_verified() {
        for given in [
            "bea@clinic.example",
            "Bea.O'Hara+ward@mail.clinic.example",
            "b@x",
            "_@a-b.example",
            "bea@m\u{fc}nchen.example",
            "\u{431}\u{435}\u{430}@clinic.example",
        ] {
            assert_eq!(address(given), Ok(()), "{given}");
        }
    }

    #[test]
    fn addresses_that_nobody_can_accept_with() {
        for given in [
            "bea@clinic.example.",
            "bea@.clinic.example",
            "bea@clinic..example",
            "bea.@clinic.example",
            ".bea@clinic.example",
            "b..ea@clinic.example",
            "<bea@clinic.example>",
            "mailto:bea@clinic.example",
            "bea@clinic.example,",
            "bea@clinic.example;",
            "bea@-clinic.example",
            "bea@clinic_.example",
            "bea@[127.0.0.1]",
            "\"bea\"@clinic.example",
            "bea\u{200b}@clinic.example",
            "bea@clinic.example\u{200e}",
            "bea@clinic\u{3002}example",
        ] {
            assert!(address(given).is_err(), "{given:?}");
        }
        let long = format!("{}@clinic.example", "b".repeat(65));
        assert!(address(&long).is_err());
        assert!(address(&format!("bea@{}.example", "c".repeat(64))).is_err());
        let named = address("be\u{200b}a@clinic.example");
        assert!(named.is_err_and(|message| message.contains("U+200B")));
    }
}
