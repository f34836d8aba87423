//! An answer without what was secret in its request: some servers send a request back.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::Secret;

/// What stands where a secret stood.
const MASK: &str = "**********";
/// A secret shorter than this, bytes, is not looked for: it would be found everywhere.
const SHORTEST_MASKED: usize = 6;

/// The secrets to look for, in every form that an echo is known to have.
pub struct Mask {
    /// The longest first, so that none is broken up by a part of it.
    forms: Vec<Zeroizing<String>>,
}

impl Mask {
    /// For these secrets.
    pub fn of(secrets: &[Secret]) -> Self {
        let long_enough = secrets.iter().map(Secret::expose).filter(|text| text.len() >= SHORTEST_MASKED);
        let mut forms: Vec<Zeroizing<String>> = long_enough.flat_map(forms_of).map(Zeroizing::new).collect();
        forms.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        forms.dedup();
        Self { forms }
    }

    /// A body: JSON where it is, else text; null when empty. JSON is read first and masked then, because a string can be
    /// written in more ways than anybody would think of.
    pub fn body(&self, body: &[u8]) -> Value {
        let text = String::from_utf8_lossy(body);
        if text.trim().is_empty() {
            return Value::Null;
        }
        match serde_json::from_str(&text) {
            Ok(value) => self.value(value),
            Err(_) => Value::String(self.text(&text)),
        }
    }

    /// A body as bytes again; JSON's spelling may change, its meaning does not.
    pub fn bytes(&self, body: &[u8]) -> Vec<u8> {
        match self.body(body) {
            Value::Null => Vec::new(),
            Value::String(text) => text.into_bytes(),
            other => other.to_string().into_bytes(),
        }
    }

    /// A value, its fields' names included.
    pub fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => {
                let masked = fields.into_iter().map(|(name, field)| (self.text(&name), self.value(field)));
                Value::Object(masked.collect::<Map<_, _>>())
            }
            Value::Number(number) => {
                let text = number.to_string();
                let masked = self.text(&text);
                if masked == text { Value::Number(number) } else { Value::String(masked) }
            }
            other => other,
        }
    }

    /// A text. Where only its percent-decoded form holds a secret, that form is what is masked and given.
    pub fn text(&self, text: &str) -> String {
        let plain = self.replaced(text);
        if !plain.contains('%') {
            return plain;
        }
        for spaced in [plain.clone(), plain.replace('+', " ")] {
            let decoded = percent_decode_str(&spaced).decode_utf8_lossy().into_owned();
            let masked = self.replaced(&decoded);
            if masked != decoded {
                return masked;
            }
        }
        plain
    }

    fn replaced(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for form in &self.forms {
            if text.contains(form.as_str()) {
                text = text.replace(form.as_str(), MASK);
            }
        }
        text
    }
}

/// A secret as it is, as it stands in JSON (for where JSON stands in a string), and in base64.
fn forms_of(secret: &str) -> [String; 5] {
    let quoted = Value::from(secret).to_string();
    let escaped = &quoted[1..quoted.len() - 1];
    [
        escaped.replace('/', "\\/"),
        escaped.to_owned(),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        secret.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "s3cr/t+\"Zü";

    fn masked(body: &str) -> Value {
        Mask::of(&[Secret::new(SECRET), Secret::new("1234567"), Secret::new("short")]).body(body.as_bytes())
    }

    #[test]
    fn no_way_of_writing_it_shows_it() {
        for body in [
            r#"{"a":"s3cr/t+\"Zü"}"#,
            r#"{"a":"s3cr\/t+\"Zü"}"#,
            r#"{"a":"\u0073\u0033cr/t\u002b\u0022Z\u00fc"}"#,
            r#"{"a":"s3cr%2Ft%2B%22Z%C3%BC"}"#,
            r#"{"a":"s3cr%2ft%2B%22Z%c3%bc"}"#,
            r#"{"a":"s3cr/t%2B\"Zü"}"#,
        ] {
            assert_eq!(masked(body), json!({ "a": MASK }), "{body}");
        }
        let encoded = base64::engine::general_purpose::STANDARD.encode(SECRET);
        let stripped = masked(&json!({ "a": encoded }).to_string());
        assert!(stripped["a"].as_str().unwrap().trim_end_matches('=') == MASK, "{stripped}");
        assert_eq!(masked(r#"{"s3cr\/t+\"Zü":1}"#), json!({ MASK: 1 }), "also as a name");
        assert_eq!(masked(r#"[["Bearer s3cr/t+\"Zü!"]]"#), json!([["Bearer **********!"]]));
        let twice = json!({ "echo": json!({ "a": SECRET }).to_string().replace('/', "\\/") });
        assert_eq!(masked(&twice.to_string()), json!({ "echo": r#"{"a":"**********"}"# }));
        assert_eq!(masked("12345678"), json!("**********8"), "also as a number");
        assert_eq!(masked(&format!("<a>{SECRET}</a>")), json!("<a>**********</a>"));
    }

    #[test]
    fn what_is_no_secret_stays() {
        let plain = json!({ "a": [1.5, true, null, "short", "s3cr"] });
        assert_eq!(masked(&plain.to_string()), plain);
        assert_eq!((masked(" \n"), masked("not json")), (Value::Null, json!("not json")));
    }
}
