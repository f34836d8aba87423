//! Who calls, in the forms in which telephones say so.
//!
//! Only a number in international form can be on the list of test callers, so only such a number can make a call a test.
//! No country is ever guessed: a number that lacks its country code is never taken for one that has it.

use crate::workspaces::test_callers;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A number in international form (ITU-T E.164), `+` and digits.
    Number(String),
    /// An address that is no number: `sip:`, `client:` and the like.
    Uri(String),
    /// Something that telephones send and that is neither: a short code, a number without its country.
    Other(String),
    /// A caller who does not say.
    Withheld,
}

/// What a text in the place of a caller means when it is none.
const NOT_A_CALLER: &str = "Not a caller: send a number in international form, like +1 555 010 0001 (no country is ever \
                            guessed), a tel:, sip: or client: URI, a short code, or null for a withheld number";

/// What networks and providers say, in any case, instead of a number that is withheld or not known.
const WITHHELD: [&str; 9] = [
    "anonymous",
    "restricted",
    "unavailable",
    "unknown",
    "blocked",
    "private",
    "withheld",
    "no caller id",
    "private number",
];

/// The same on a keypad: ANONYMOUS, RESTRICTED, UNAVAILABLE, UNKNOWN, BLOCKED.
const WITHHELD_ON_KEYPAD: [&str; 5] = ["266696687", "7378742833", "86282452253", "8656696", "2562533"];

/// Longest address taken over, in characters.
const LONGEST: usize = 320;

impl Caller {
    /// Reads what a reporter sent: null and empty are withheld. The error says what a caller looks like, never what was
    /// given.
    pub fn read(text: Option<&str>) -> Result<Self, &'static str> {
        match Self::lenient(text) {
            Self::Other(text) if !is_short_code(&text) => Err(NOT_A_CALLER),
            caller => Ok(caller),
        }
    }

    /// Reads what the telephone network sent, which cannot be refused: what is not understood is kept as it is.
    pub fn lenient(text: Option<&str>) -> Self {
        // Control characters first: what is judged is what is kept.
        let text: String = text.unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        let text = text.trim();
        if is_withheld(text) {
            return Self::Withheld;
        }
        // RFC 3966: what follows the number are parameters, an extension for example. The caller is the number.
        let number = match scheme(text) {
            Some(("tel", rest)) => rest.split(';').next().unwrap_or_default().trim(),
            Some((scheme, rest)) => {
                // `sip:anonymous@anonymous.invalid` (RFC 3261, section 8.1.1.3) withholds too.
                let user = rest.split(['@', ';']).next().unwrap_or_default();
                if scheme.starts_with("sip") && is_withheld(user) {
                    return Self::Withheld;
                }
                return Self::Uri(cut(text));
            }
            None => text,
        };
        if is_withheld(number) {
            return Self::Withheld;
        }
        match test_callers::normalize(number) {
            Ok(number) => Self::Number(number),
            Err(_) => Self::Other(cut(number)),
        }
    }

    /// Which of the forms it is, as the database and answers say.
    pub const fn form(&self) -> &'static str {
        match self {
            Self::Number(_) => "number",
            Self::Uri(_) => "uri",
            Self::Other(_) => "other",
            Self::Withheld => "withheld",
        }
    }

    /// The text that names it; `None` when it is withheld.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Number(text) | Self::Uri(text) | Self::Other(text) => Some(text),
            Self::Withheld => None,
        }
    }
}

fn is_withheld(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let keypad = text.bytes().all(|byte| byte.is_ascii_digit() || b"+ -.()[]".contains(&byte));
    text.is_empty()
        || WITHHELD.iter().any(|word| text.eq_ignore_ascii_case(word))
        || (keypad && WITHHELD_ON_KEYPAD.contains(&digits.as_str()))
}

/// Three to six digits: numbers of services, which have no country code.
fn is_short_code(text: &str) -> bool {
    (3..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The scheme of a URI in lower case (RFC 3986, section 3.1) and what follows its colon.
fn scheme(text: &str) -> Option<(&'static str, &str)> {
    const KNOWN: [&str; 6] = ["tel", "sip", "sips", "client", "whatsapp", "sim"];
    let (scheme, rest) = text.split_once(':')?;
    KNOWN.into_iter().find(|known| scheme.eq_ignore_ascii_case(known)).map(|known| (known, rest))
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::Caller;

    fn number(text: &str) -> Caller {
        Caller::Number(text.to_owned())
    }

    #[test]
    fn one_number_in_all_its_spellings() {
        for given in [
            "+15551230100",
            " +1 (555) 123-0100 ",
            "+1.555.123.0100",
            "tel:+1-555-123-0100",
            "TEL:+15551230100;ext=7;phone-context=x",
        ] {
            assert_eq!(Caller::read(Some(given)), Ok(number("+15551230100")), "{given}");
        }
    }

    #[test]
    fn withheld_callers_are_nobody() {
        for given in [
            "",
            "  ",
            "anonymous",
            "Anonymous",
            "RESTRICTED",
            "unavailable",
            "Unknown",
            "+266696687",
            "266696687",
            "+7378742833",
            "+86282452253",
            "+8656696",
            "+2562533",
            "+2-666-96687",
            "+[266] 696687",
            "(+)266696687",
            "tel:anonymous",
            "sip:anonymous@anonymous.invalid",
        ] {
            assert_eq!(Caller::read(Some(given)), Ok(Caller::Withheld), "{given}");
        }
        assert_eq!(Caller::read(None), Ok(Caller::Withheld));
    }

    #[test]
    fn what_is_kept_is_what_is_judged() {
        let stray = [
            "\u{1}",
            "tel:\u{1}",
            "anonymous\u{0}",
            "tel: anonymous",
            "sip:\u{1}anonymous@anonymous.invalid",
        ];
        for given in stray {
            assert_eq!(Caller::read(Some(given)), Ok(Caller::Withheld), "{given:?}");
        }
        assert_eq!(Caller::lenient(Some("+1555\u{1}1230100\u{0}")), number("+15551230100"));
        assert_eq!(Caller::lenient(Some("tel: bob")), Caller::Other("bob".to_owned()));
        let long = format!("sip:{} and more", "x".repeat(super::LONGEST - 5));
        let kept = Caller::lenient(Some(&long));
        assert_eq!(Caller::lenient(kept.text()), kept);
    }

    #[test]
    fn addresses_are_callers_and_never_numbers() {
        for given in
            ["sip:+15551230100@pbx.example", "client:alice", "sips:bob@example.com", "client:+15551230100"]
        {
            assert_eq!(Caller::read(Some(given)), Ok(Caller::Uri(given.to_owned())));
        }
        assert_eq!(Caller::read(Some("911")), Ok(Caller::Other("911".to_owned())));
    }

    #[test]
    fn no_country_is_guessed() {
        for given in
            ["15551230100", "0015551230100", "5551230100", "+0123456789", "+1555CALLNOW", "http://x", "bob"]
        {
            assert!(Caller::read(Some(given)).is_err(), "{given}");
            assert_eq!(Caller::lenient(Some(given)), Caller::Other(given.to_owned()), "{given}");
        }
    }
}
