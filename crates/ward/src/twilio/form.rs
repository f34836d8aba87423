//! The fields of a callback, and the signature over them.
//!
//! Twilio signs the URL and the fields, sorted by name, with names and values joined without separators. So
//! a signed text could be split into other names and values under the same signature.
//! [`Form::read_by_one_way`] refuses every form that another split of a genuine one could yield.

use aws_lc_rs::hmac;

/// Fields of every status callback; a form without one of them is refused.
const REQUIRED: [&str; 6] = ["AccountSid", "CallSid", "CallStatus", "Direction", "From", "To"];

/// Optional fields of a status callback that change the recorded call.
const OPTIONAL: [&str; 3] = ["CallDuration", "ParentCallSid", "Timestamp"];

/// Other names that Twilio documents for status callbacks. Names that Twilio adds later are accepted as
/// well, unless they contain one of these.
const DOCUMENTED: [&str; 44] = [
    "AnsweredBy",
    "ApiVersion",
    "CallToken",
    "CallbackSource",
    "Called",
    "CalledCity",
    "CalledCountry",
    "CalledState",
    "CalledZip",
    "Caller",
    "CallerCity",
    "CallerCountry",
    "CallerName",
    "CallerState",
    "CallerZip",
    "Duration",
    "ErrorCode",
    "ErrorMessage",
    "ForwardedFrom",
    "FromCity",
    "FromCountry",
    "FromState",
    "FromZip",
    "MachineDetectionDuration",
    "ParentCallStatus",
    "PhoneNumberSid",
    "QueueTime",
    "RecordingDuration",
    "RecordingSid",
    "RecordingStatus",
    "RecordingUrl",
    "SequenceNumber",
    "SipCallId",
    "SipDomain",
    "SipDomainSid",
    "SipResponseCode",
    "SipSourceIp",
    "StirPassportToken",
    "StirStatus",
    "StirVerstat",
    "ToCity",
    "ToCountry",
    "ToState",
    "ToZip",
];

/// The longest name of a field, in bytes.
const LONGEST_NAME: usize = 100;

/// The fields of a form, sorted by name as Twilio signs them.
pub struct Form(Vec<(String, String)>);

fn known() -> impl Iterator<Item = &'static str> {
    REQUIRED.into_iter().chain(OPTIONAL).chain(DOCUMENTED)
}

/// Whether `text` contains a field name that is long enough not to occur in ordinary words.
fn holds_a_name(text: &str, after: &str) -> bool {
    known().any(|name| name.len() >= 5 && name > after && text.contains(name))
}

impl Form {
    /// Parses a form's body. Equal fields count once, as they do for Twilio.
    pub fn parse(body: &[u8]) -> Self {
        let fields = form_urlencoded::parse(body);
        Self::of(fields.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// Makes a form of these fields, in any order.
    pub fn of(mut fields: Vec<(String, String)>) -> Self {
        fields.sort();
        fields.dedup();
        Self(fields)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A required field that this form lacks.
    pub fn lacks(&self) -> Option<&'static str> {
        REQUIRED.into_iter().find(|name| self.field(name).is_none())
    }

    /// Whether `given` (20 bytes) is the signature over this URL and these fields under this auth token.
    /// The comparison takes constant time.
    pub fn is_signed(&self, token: &[u8], url: &str, given: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token);
        hmac::verify(&key, [url, &self.joined()].concat().as_bytes(), given).is_ok()
    }

    fn joined(&self) -> String {
        self.0.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect()
    }

    /// Whether no other split of the same text can be a genuine callback with another content.
    pub fn read_by_one_way(&self) -> bool {
        let names_are_genuine = self.0.iter().all(|(name, _)| is_genuine(name));
        let each_once = self.0.windows(2).all(|pair| pair[0].0 != pair[1].0);
        names_are_genuine && each_once && self.ends_are_where_they_seem() && self.optional_names_are_names()
    }

    /// Whether no recorded value contains the next field, or has lost its own end to the next field's name.
    fn ends_are_where_they_seem(&self) -> bool {
        let word = |name: &str| {
            let value = self.field(name).unwrap_or_default();
            !value.bytes().any(|byte| byte.is_ascii_uppercase())
        };
        let party = |name: &str| {
            let value = self.field(name).unwrap_or_default();
            let number = value.starts_with(|first: char| first == '+' || first.is_ascii_digit());
            // A split inside of the next name would leave a letter at the number's end. The rule of numbers
            // judges other characters.
            let letters = value.bytes().any(|byte| byte.is_ascii_alphabetic());
            !(holds_a_name(value, name) || number && letters)
        };
        let whole =
            |name: &str| self.field(name).is_none_or(|value| !value.is_empty() && !holds_a_name(value, name));
        word("CallStatus")
            && word("Direction")
            && OPTIONAL.into_iter().all(whole)
            && whole("CallSid")
            && party("From")
            && party("To")
    }

    /// Whether the names of optional fields occur only at the beginning of such a field: in no other value,
    /// and not across the end of one.
    fn optional_names_are_names(&self) -> bool {
        let joined = self.joined();
        let mut begins = Vec::with_capacity(self.0.len());
        let mut at = 0;
        for (name, value) in &self.0 {
            begins.push((at, name.as_str()));
            at += name.len() + value.len();
        }
        OPTIONAL
            .into_iter()
            .all(|name| joined.match_indices(name).all(|(at, _)| begins.contains(&(at, name))))
    }
}

/// Whether Twilio may use this field name: it begins with a capital, and contains no other known name.
fn is_genuine(name: &str) -> bool {
    let word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let inner = name.get(1..).unwrap_or_default();
    word && name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_uppercase())
        && (known().any(|known| known == name) || !holds_a_name(inner, ""))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn form(fields: &[(&str, &str)]) -> Form {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        Form::parse(body.as_bytes())
    }

    const GENUINE: [(&str, &str); 24] = [
        ("AccountSid", "AC00000000000000000000000000000001"),
        ("ApiVersion", "2010-04-01"),
        ("CallDuration", "42"),
        ("CallSid", "CA0123456789abcdef0123456789abcdef"),
        ("CallStatus", "completed"),
        ("CallbackSource", "call-progress-events"),
        ("Called", "+15550109999"),
        ("CalledCity", "TOLEDO"),
        ("CalledCountry", "US"),
        ("Caller", "+15550100001"),
        ("CallerName", "Directions From Toledo"),
        ("CallerZip", "43604"),
        ("Direction", "inbound"),
        ("Duration", "1"),
        ("From", "+15550100001"),
        ("FromCity", "Toledo"),
        ("FromCountry", "US"),
        ("ParentCallSid", "CAfedcba9876543210fedcba9876543210"),
        ("SequenceNumber", "3"),
        ("SipResponseCode", "200"),
        ("StirVerstat", "TN-Validation-Passed-A"),
        ("Timestamp", "Mon, 15 Aug 2005 15:52:01 +0000"),
        ("To", "+15550109999"),
        ("ToCity", "TOMAH"),
    ];

    /// Whether a form is accepted that carries the signature of a genuine one.
    fn is_taken_for(genuine: &[(String, String)], fields: &[(String, String)]) -> bool {
        let (form, genuine) = (Form::of(fields.to_vec()), Form::of(genuine.to_vec()));
        form.joined() == genuine.joined()
            && form.field("AccountSid") == genuine.field("AccountSid")
            && form.read_by_one_way()
            && form.lacks().is_none()
            && form.field("CallSid").is_some_and(crate::calls::is_sid)
            && form.field("CallStatus").is_some_and(|told| !told.is_empty())
    }

    fn taken(fields: &[(String, String)]) -> bool {
        is_taken_for(fields, fields)
    }

    fn recorded(fields: &[(String, String)]) -> Vec<(String, String)> {
        let recorded = |name: &String| REQUIRED.into_iter().chain(OPTIONAL).any(|known| known == name);
        fields.iter().filter(|(name, _)| recorded(name)).cloned().collect()
    }

    #[test]
    fn no_other_cut_of_a_signed_text_says_something_else() {
        for caller in ["+15550100001", "sip:Bob@example.com", "client:Alice"] {
            let mut fields: Vec<(String, String)> =
                GENUINE.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            fields
                .iter_mut()
                .filter(|(name, _)| name == "From")
                .for_each(|(_, value)| caller.clone_into(value));
            assert!(taken(&fields), "{caller}");
            // A name that does not begin with a capital is refused anyway.
            let cuts = |text: String| {
                let capitals = text.clone().into_bytes();
                let cuts = (0..text.len()).filter(move |cut| capitals[*cut].is_ascii_uppercase());
                cuts.flat_map(move |cut| (cut + 1..=text.len()).map(move |end| (cut, end)))
            };
            assert!(!is_genuine("1From") && !is_genuine("o") && !is_genuine(""));
            let check = |other: Vec<(String, String)>| {
                let taken = is_taken_for(&fields, &other);
                assert!(!taken || recorded(&other) == recorded(&fields), "{other:?}");
            };
            for at in 0..fields.len() {
                // Moves the border between a name and its value to every position.
                let whole = format!("{}{}", fields[at].0, fields[at].1);
                for cut in 1..=whole.len() {
                    let mut other = fields.clone();
                    other[at] = (whole[..cut].to_owned(), whole[cut..].to_owned());
                    check(other);
                }
                // Splits the field in two at every position.
                let own = &fields[at].1;
                for (cut, name_ends) in cuts(own.clone()) {
                    let mut other = fields.clone();
                    other.insert(at + 1, (own[cut..name_ends].to_owned(), own[name_ends..].to_owned()));
                    other[at].1.truncate(cut);
                    check(other);
                }
                let Some((next_name, next_value)) = fields.get(at + 1) else { continue };
                // Makes this value contain the next field.
                let value = format!("{own}{next_name}{next_value}");
                let mut other = fields.clone();
                other[at].1.clone_from(&value);
                other.remove(at + 1);
                check(other);
                // Moves the border between this field and the next to every position, with every end of the
                // next name.
                for (cut, name_ends) in cuts(value.clone()) {
                    let mut other = fields.clone();
                    other[at].1 = value[..cut].to_owned();
                    other[at + 1] = (value[cut..name_ends].to_owned(), value[name_ends..].to_owned());
                    check(other);
                }
            }
        }
    }

    #[test]
    fn a_field_that_twilio_adds_later_is_taken() {
        let mut fields: Vec<(String, String)> =
            GENUINE.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        fields.push(("TrafficProfile".to_owned(), "standard".to_owned()));
        assert!(taken(&fields));
        fields.push(("TrafficProfile".to_owned(), "other".to_owned()));
        assert!(!taken(&fields), "a name with two values");
    }

    /// Uses the example of Twilio's own documentation.
    #[test]
    fn the_published_signature_is_recognized() {
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        let fields = [
            ("To", "+18005551212"),
            ("CallSid", "CA1234567890ABCDE"),
            ("From", "+14158675309"),
            ("Digits", "1234"),
            ("Caller", "+14158675309"),
        ];
        let given = STANDARD.decode("RSOYDt4T1cUTdK1PDd93/VVr8B8=").unwrap();
        assert!(form(&fields).is_signed(b"12345", url, &given));
        assert!(!form(&fields).is_signed(b"12346", url, &given));
        let other = "https://mycompany.com/myapp.php?foo=1&bar=3";
        assert!(!form(&fields).is_signed(b"12345", other, &given));
        assert!(!form(&fields[1..]).is_signed(b"12345", url, &given));
        assert!(!form(&fields).is_signed(b"12345", url, &given[1..]));
        assert!(!form(&fields).is_signed(b"12345", url, &[]));
    }
}
