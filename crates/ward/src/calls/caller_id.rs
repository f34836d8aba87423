//! The parties of a call, in the forms that telephone networks use.
//!
//! Only numbers in international form can be on the list of test callers, so only such a number can make a
//! call a test. Ward never guesses a country: a number without a country code is never equal to one with
//! it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::phone::{self, NotANumber, is_keypad_spelling, is_separator};
use crate::text;

/// One party of a call: the caller or the callee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerId {
    /// A number in international form (ITU-T E.164), `+` and digits.
    Number(String),
    /// An address that is not a number: `sip:`, `client:` and others.
    Uri(String),
    /// Another text that telephones send: a short code, or a number without a country code.
    Other(String),
    /// The network does not name the party.
    Withheld,
}

/// The reason why the text of a party is refused. The error never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACallerId {
    /// The text has none of the accepted forms.
    #[error(
        "Not a caller: send a number in international form, like +1 555 010 0001 (Ward never guesses a country), a tel:, \
         sip:, whatsapp: or client: URI, a short code, or null for a withheld number{}",
        .0.map_or_else(String::new, |odd| format!(". The text contains the character U+{:04X}", u32::from(odd)))
    )]
    Form(Option<char>),
    /// The text is nearly a number.
    #[error(transparent)]
    Number(NotANumber),
}

/// Texts that networks and providers send, in any case, for a withheld or unknown number.
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

/// The longest kept address, in characters.
const LONGEST: usize = 320;

impl CallerId {
    /// Reads the text of a reporter; null and empty mean withheld.
    pub fn read(text: Option<&str>) -> Result<Self, NotACallerId> {
        let text = text.unwrap_or_default().trim();
        if let Some(unseen) = phone::unseen(text) {
            return Err(NotACallerId::Number(unseen));
        }
        match Self::from_network(Some(text)) {
            Ok(Self::Other(text)) if !is_short_code(&text) => {
                Err(NotACallerId::Form(text.chars().find(|c| !c.is_ascii() && !is_separator(*c))))
            }
            Ok(caller) => Ok(caller),
            Err(problem) => Err(NotACallerId::Number(problem)),
        }
    }

    /// Reads the text of a telephone network. A text of unknown form is kept without its control
    /// characters. The error means a number with an invisible character, or one that changes its meaning.
    /// Whether such a number belongs to a test caller would be a guess.
    pub fn from_network(text: Option<&str>) -> Result<Self, NotANumber> {
        let text = text.unwrap_or_default().trim();
        let kept: String = text.chars().filter(|c| !c.is_control()).collect();
        let kept = kept.trim();
        if is_withheld(kept) {
            return Ok(Self::Withheld);
        }
        let Some((scheme, rest)) = scheme(text) else {
            return Ok(read_number(text)?.map_or_else(|| Self::Other(cut(kept)), Self::Number));
        };
        let spelled = match scheme {
            // RFC 3966: parameters, such as an extension, follow the number.
            "tel" | "whatsapp" => Some(decoded(before(rest, &[';', '?']).trim())),
            "sip" | "sips" => sip_number(rest),
            _ => None,
        };
        if let Some(spelled) = &spelled {
            if is_withheld(spelled) {
                return Ok(Self::Withheld);
            }
            if let Some(number) = read_number(spelled)? {
                return Ok(Self::Number(number));
            }
        }
        // `sip:anonymous@anonymous.invalid` (RFC 3261, section 8.1.1.3) also means withheld.
        if scheme.starts_with("sip") && is_withheld(before(rest, &['@', ';'])) {
            return Ok(Self::Withheld);
        }
        match spelled {
            Some(local) if scheme == "tel" => {
                let local: String = local.chars().filter(|c| !c.is_control()).collect();
                Ok(if local.trim().is_empty() { Self::Withheld } else { Self::Other(cut(local.trim())) })
            }
            _ => Ok(Self::Uri(cut(kept))),
        }
    }

    /// The name of the form in the database and in answers.
    pub const fn form(&self) -> &'static str {
        match self {
            Self::Number(_) => "number",
            Self::Uri(_) => "uri",
            Self::Other(_) => "other",
            Self::Withheld => "withheld",
        }
    }

    /// Whether the party is a softphone of the practice (Twilio, "Client").
    pub fn is_softphone(&self) -> bool {
        matches!(self, Self::Uri(text) if scheme(text).is_some_and(|(scheme, _)| scheme == "client"))
    }

    /// The number in international form, if the party has one.
    pub fn number(&self) -> Option<&str> {
        match self {
            Self::Number(number) => Some(number),
            Self::Uri(_) | Self::Other(_) | Self::Withheld => None,
        }
    }

    /// The text of the party; `None` if it is withheld.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Number(text) | Self::Uri(text) | Self::Other(text) => Some(text),
            Self::Withheld => None,
        }
    }
}

/// The number that a text spells; `None` if it spells none.
fn read_number(text: &str) -> Result<Option<String>, NotANumber> {
    match phone::normalize(text) {
        Ok(number) => Ok(Some(number)),
        Err(NotANumber::Unseen(unseen)) => {
            let hides = matches!(phone::normalize(&text::seen(text)), Ok(_) | Err(NotANumber::TrunkZero));
            if hides { Err(NotANumber::Unseen(unseen)) } else { Ok(None) }
        }
        Err(NotANumber::TrunkZero) => Err(NotANumber::TrunkZero),
        Err(NotANumber::Form | NotANumber::Keypad | NotANumber::Foreign(_)) => Ok(None),
    }
}

/// The number in a SIP URI without its scheme. The user part is a number if `user=phone` declares it (RFC
/// 3261, section 19.1.6), or if it begins with `+`.
fn sip_number(rest: &str) -> Option<Cow<'_, str>> {
    let rest = before(rest, &['?']);
    let (user, host) = rest.split_once('@').unwrap_or((rest, ""));
    let declared =
        host.split(';').skip(1).any(|parameter| parameter.trim().eq_ignore_ascii_case("user=phone"));
    // A colon precedes a password, and a semicolon precedes parameters of the telephone number.
    let number = decoded(before(user, &[':', ';']).trim());
    (declared || number.starts_with('+')).then_some(number)
}

/// The part of a text before the first of these characters.
fn before<'t>(text: &'t str, ends: &[char]) -> &'t str {
    text.split(ends).next().unwrap_or_default()
}

/// Removes percent-encoding (RFC 3986, section 2.1), unless the result is not UTF-8.
fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text))
}

fn is_withheld(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let keypad = text.chars().all(|c| c.is_ascii_digit() || c == '+' || is_separator(c));
    text.is_empty()
        || WITHHELD.iter().any(|word| text.eq_ignore_ascii_case(word))
        || (keypad && is_keypad_spelling(&digits))
}

/// Whether a text has three to six digits: numbers of services, which have no country code.
fn is_short_code(text: &str) -> bool {
    (3..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The lower-case scheme of a URI (RFC 3986, section 3.1), and the text after its colon.
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
    use super::{CallerId, NotACallerId};
    use crate::phone::NotANumber;

    fn number(text: &str) -> CallerId {
        CallerId::Number(text.to_owned())
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
            assert_eq!(CallerId::read(Some(given)), Ok(number("+15551230100")), "{given}");
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
            assert_eq!(CallerId::read(Some(given)), Ok(CallerId::Withheld), "{given}");
        }
        assert_eq!(CallerId::read(None), Ok(CallerId::Withheld));
    }

    #[test]
    fn control_characters_of_the_network_are_not_kept() {
        for given in
            ["\u{1}", "tel:\u{1}", "anonymous\u{0}", "tel: anonymous", "sip:anonymous@anonymous.invalid"]
        {
            assert_eq!(CallerId::from_network(Some(given)), Ok(CallerId::Withheld), "{given:?}");
        }
        assert_eq!(CallerId::from_network(Some("tel: b\u{1}ob")), Ok(CallerId::Other("bob".to_owned())));
        let long = format!("sip:{} and more", "x".repeat(super::LONGEST - 5));
        let kept = CallerId::from_network(Some(&long)).unwrap();
        assert_eq!(CallerId::from_network(kept.text()), Ok(kept));
    }

    #[test]
    fn a_sign_that_changes_a_number_or_cannot_be_seen_is_refused_in_every_form() {
        for given in [
            "+44 (0)20 7946 0001",
            "tel:+44(0)2079460001",
            "whatsapp:+44 (0)20 7946 0001",
            "sip:+44(0)2079460001@pbx.example",
            "sip:+44(0)2079460001@pbx.example;user=phone",
            "tel:+44%280%292079460001",
        ] {
            assert_eq!(
                CallerId::read(Some(given)),
                Err(NotACallerId::Number(NotANumber::TrunkZero)),
                "{given}"
            );
            assert_eq!(CallerId::from_network(Some(given)), Err(NotANumber::TrunkZero), "{given}");
        }
        for given in
            ["+1555\u{200e}1230100", "tel:+1555\u{200e}1230100", "sip:+1555\u{200e}1230100@pbx.example"]
        {
            let unseen = NotANumber::Unseen('\u{200e}');
            assert_eq!(CallerId::read(Some(given)), Err(NotACallerId::Number(unseen)), "{given:?}");
            assert_eq!(CallerId::from_network(Some(given)), Err(unseen), "{given:?}");
        }
        assert!(CallerId::read(Some("client:al\u{200d}ice")).is_err());
        assert!(matches!(CallerId::from_network(Some("client:al\u{200d}ice")), Ok(CallerId::Uri(_))));
    }

    #[test]
    fn addresses_that_carry_a_number_are_that_number() {
        for given in [
            "whatsapp:+15551230100",
            "WhatsApp:+1 555 123 0100",
            "sip:+15551230100@pbx.example",
            "sip:+1-555-123-0100@pbx.example;user=phone",
            "sips:+15551230100;ext=7@pbx.example:5061;transport=tcp;USER=Phone?subject=x",
            "sip:+15551230100:secret@pbx.example",
            "sip:%2B15551230100@pbx.example",
            "sip:+15551230100",
            "tel:%2B15551230100",
        ] {
            assert_eq!(CallerId::read(Some(given)), Ok(number("+15551230100")), "{given}");
            assert_eq!(CallerId::from_network(Some(given)), Ok(number("+15551230100")), "{given}");
        }
    }

    #[test]
    fn addresses_are_callers_and_never_numbers() {
        for given in [
            "client:alice",
            "sips:bob@example.com",
            "sip:15551230100@pbx.example",
            "sip:15551230100@pbx.example;user=phone",
            "sip:desk@+15551230100.example",
            "client:+15551230100",
            "whatsapp:bob",
        ] {
            assert_eq!(CallerId::read(Some(given)), Ok(CallerId::Uri(given.to_owned())));
        }
        assert_eq!(CallerId::read(Some("911")), Ok(CallerId::Other("911".to_owned())));
    }

    #[test]
    fn no_country_is_guessed() {
        for given in
            ["15551230100", "0015551230100", "5551230100", "+0123456789", "+1555CALLNOW", "http://x", "bob"]
        {
            assert!(CallerId::read(Some(given)).is_err(), "{given}");
            assert_eq!(CallerId::from_network(Some(given)), Ok(CallerId::Other(given.to_owned())), "{given}");
        }
    }
}
