//! Removes a request's secrets from its answer, because some servers send a request back.

mod forms;
mod view;

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::{Map, Value};

use crate::{Secret, json};

use view::View;

/// The text that replaces a secret.
const MASK: &str = "**********";
/// The minimum length of a masked secret, in bytes: a shorter one would be found everywhere.
const SHORTEST_MASKED: usize = 6;
/// The maximum number of encoding layers that are undone in search of a secret.
const MOST_LAYERS: usize = 4;

/// The secrets to look for, in every known form of an echo.
pub struct Mask {
    /// `None`: there is no secret to look for.
    forms: Option<AhoCorasick>,
}

impl Mask {
    /// A mask for these secrets in all known forms.
    pub fn of(secrets: &[Secret]) -> Self {
        let long_enough = secrets.iter().map(Secret::expose).filter(|text| text.len() >= SHORTEST_MASKED);
        let forms = long_enough.flat_map(forms::of).filter(|form| form.len() >= SHORTEST_MASKED);
        let forms: Vec<_> = forms.map(|form| form.as_bytes().to_vec()).collect();
        if forms.is_empty() {
            return Self { forms: None };
        }
        // The longest form wins, so that a part of it does not break it up.
        let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(forms);
        Self { forms: built.ok() }
    }

    /// A masked body: JSON if it is JSON and its tree has at most `most_memory` bytes, otherwise text; null
    /// if empty. JSON is parsed before it is masked, because a string can be written in many ways.
    pub fn body(&self, body: &[u8], most_memory: usize) -> Value {
        let text = String::from_utf8_lossy(body);
        if text.trim().is_empty() {
            return Value::Null;
        }
        match json::parse(text.as_bytes(), most_memory) {
            Some(value) => self.value(value),
            None => Value::String(self.text(&text)),
        }
    }

    /// A masked body as bytes. The spelling of JSON may change; its meaning does not.
    pub fn bytes(&self, body: &[u8]) -> Vec<u8> {
        match self.body(body, json::SMALL_TREE) {
            Value::Null => Vec::new(),
            Value::String(text) => text.into_bytes(),
            other => other.to_string().into_bytes(),
        }
    }

    /// A masked value, including the names of its fields.
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

    /// A text with each secret masked, under up to four layers of encoding, and also where it was wrapped
    /// over lines.
    pub fn text(&self, text: &str) -> String {
        let Some(forms) = &self.forms else { return text.to_owned() };
        let mut ranges = Vec::new();
        let mut layer = Some(View::of(text));
        for _ in 0..=MOST_LAYERS {
            let Some(view) = layer else { break };
            let others = [view.unwrapped(), view.spaced()];
            for seen in others.iter().flatten().chain([&view]) {
                ranges.extend(forms.find_iter(&seen.bytes).map(|found| seen.source(&found.range())));
            }
            layer = view.decoded();
        }
        if ranges.is_empty() {
            return text.to_owned();
        }
        ranges.sort_unstable_by_key(|range| range.start);
        let (mut masked, mut written) = (String::with_capacity(text.len()), 0);
        for range in ranges {
            // Ranges that a layer found inside or across another range become one.
            if range.start >= written {
                masked.push_str(text.get(written..range.start).unwrap_or_default());
                masked.push_str(MASK);
            }
            written = written.max(range.end);
        }
        masked.push_str(text.get(written..).unwrap_or_default());
        masked
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "s3cr/t+\"Zü";

    fn masked(body: &str) -> Value {
        Mask::of(&[Secret::new(SECRET), Secret::new("1234567"), Secret::new("short")])
            .body(body.as_bytes(), usize::MAX)
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
        let encoded = STANDARD.encode(SECRET);
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
    fn no_encoding_of_a_whole_header_shows_it() {
        let secret = "a+secret/of=this~test";
        let mask = Mask::of(&[Secret::new(secret)]);
        let hidden = |text: &str| {
            let masked = mask.text(text);
            assert!(masked.contains(MASK), "{text}");
            masked
        };
        for header in ["", "x", "xy", "Bearer ", "authorization: Bearer ", "{\"a\":\""] {
            let whole = format!("{header}{secret}\r\n");
            for encoded in [STANDARD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
                hidden(&encoded);
                let (first, second) = encoded.split_at(encoded.len() / 2);
                hidden(&format!("{first}\r\n  {second}"));
            }
        }
        let each = |write: fn(u8) -> String| secret.bytes().map(write).collect::<String>();
        let twice = each(|byte| format!("%25{byte:02X}"));
        for (text, left) in [
            (each(|byte| format!("{byte:02x}")), MASK),
            (each(|byte| format!("{byte:02X}")), MASK),
            (each(|byte| format!("%{byte:02x}")), MASK),
            (twice.clone(), MASK),
            (twice.replace('%', "%25"), MASK),
            (each(|byte| format!("&#{byte};")), MASK),
            (each(|byte| format!("&#x{byte:x};")), MASK),
            (each(|byte| format!("={byte:02X}")), MASK),
            (each(|byte| format!("\\u{byte:04x}")), MASK),
            (each(|byte| format!("\\x{byte:02x}")), MASK),
            ("a&plus;secret&sol;of&equals;this~test".to_owned(), MASK),
            ("a+secret/of=3Dthis=\r\n~test".to_owned(), MASK),
            ("a+secret/\n\tof=this~test".to_owned(), MASK),
            ("<a+secret/of=\r\n this~test>".to_owned(), "<**********>"),
            ("a%2Bsecret&#x2f;of=3Dthis~test".to_owned(), MASK),
            ("a%252Bsecret%252Fof%253Dthis~test&more=%25".to_owned(), "**********&more=%25"),
        ] {
            assert_eq!(hidden(&text), left, "{text}");
        }
        for harmless in
            ["a+secret", "100% of =3D & more\n lines \\u0041", "&unknown; &#xffffffff; =ZZ %GG \\q"]
        {
            assert_eq!(mask.text(harmless), harmless);
        }
    }

    #[test]
    fn masking_takes_time_in_proportion_to_the_text() {
        let mask = Mask::of(&[Secret::new("a-secret-to-mask")]);
        // Each sign begins an escape. A quadratic reader would not finish.
        for sign in ["%25", "&", "=", "\\u", " ", "+", "&#x41;"] {
            let text = sign.repeat(200_000);
            assert_eq!(mask.text(&text), text);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        let plain = json!({ "a": [1.5, true, null, "short", "s3cr"] });
        assert_eq!(masked(&plain.to_string()), plain);
        assert_eq!((masked(" \n"), masked("not json")), (Value::Null, json!("not json")));
    }
}
