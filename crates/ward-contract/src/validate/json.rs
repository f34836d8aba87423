//! JSON as the client sent it: a value whose numbers keep their text, and the parser for it.
//!
//! A refusal echoes the refused value, so `99999999999999999999` and `1.0` must keep their digits. The
//! feature `arbitrary_precision` of `serde_json` does this, but for the whole build. Its private number
//! type then appears in the output of other serializers. A separate parser also reports the position of a
//! syntax error, and bounds the depth before anything recurses.

use indexmap::IndexMap;
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use super::work;

/// The deepest nesting that is ever parsed, with any `max_depth`, because the drop and the walk of a value
/// recurse.
const DEEPEST: usize = 512;

/// A JSON value as the client sent it. It serializes with `serde_json` to the same value, and numbers keep
/// their digits.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as its text: always a valid JSON number, possibly beyond every machine type.
    Number(String),
    /// A string with its escape sequences decoded.
    String(String),
    /// An array with its items in order.
    Array(Vec<Json>),
    /// An object. A repeated key keeps its first position and its last value.
    Object(IndexMap<String, Json>),
}

/// The syntax error of a text that is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotJson {
    /// The position of the error: the number of characters before it.
    pub at: usize,
    /// The reason, in the words of the reference where it has the same error.
    pub error: String,
}

impl Json {
    /// Parses one JSON value with only white space (RFC 8259, section 2) around it.
    ///
    /// The parser is stricter than the grammar in one point: it refuses a lone half of a surrogate pair,
    /// because that is not a character. It also refuses nesting deeper than `max_depth` (at most 512).
    pub fn parse(text: &str, max_depth: usize) -> Result<Self, NotJson> {
        let mut parser = Parser { text, at: 0, depth: max_depth.min(DEEPEST), limit: max_depth.min(DEEPEST) };
        parser.document().map_err(|fault| {
            let at =
                text.as_bytes()[..fault.at.min(text.len())].iter().filter(|b| !is_continuation(**b)).count();
            NotJson { at, error: fault.error }
        })
    }

    /// The same value for code that reads plain `serde_json`. A number beyond 64 bits becomes the nearest
    /// double. A number beyond the range of a double becomes `null`.
    pub fn to_value(&self) -> Value {
        work::spend(1);
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Number(text) => number(text),
            Self::String(text) => Value::String(text.clone()),
            Self::Array(items) => items.iter().map(Self::to_value).collect(),
            Self::Object(fields) => Value::Object(
                fields.iter().map(|(key, value)| (key.clone(), value.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }
}

fn number(text: &str) -> Value {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    if let Ok(whole) = text.parse::<u64>() {
        return whole.into();
    }
    text.parse::<f64>().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(flag),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) => Self::String(text),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Value::Object(fields) => {
                Self::Object(fields.into_iter().map(|(key, value)| (key, Self::from(value))).collect())
            }
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Number(text) => {
                RawValue::from_string(text.clone()).map_err(S::Error::custom)?.serialize(serializer)
            }
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => {
                let mut sequence = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    sequence.serialize_element(item)?;
                }
                sequence.end()
            }
            Self::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// A syntax error at a byte offset.
struct Fault {
    at: usize,
    error: String,
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    /// The number of levels that may still open.
    depth: usize,
    limit: usize,
}

type Parse<T> = Result<T, Fault>;

impl Parser<'_> {
    fn document(&mut self) -> Parse<Json> {
        let value = self.value()?;
        self.space();
        if self.at < self.text.len() {
            return self.fault("Extra data");
        }
        Ok(value)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn fault<T>(&self, error: impl Into<String>) -> Parse<T> {
        Err(Fault { at: self.at, error: error.into() })
    }

    fn value(&mut self) -> Parse<Json> {
        work::spend(1);
        self.space();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            _ => self.fault("Expecting value"),
        }
    }

    fn nested(&mut self, parse: fn(&mut Self) -> Parse<Json>) -> Parse<Json> {
        if self.depth == 0 {
            return self.fault(format!("Nested deeper than {} levels", self.limit));
        }
        self.depth -= 1;
        self.at += 1;
        let value = parse(self)?;
        self.depth += 1;
        Ok(value)
    }

    fn word(&mut self, word: &str, value: Json) -> Parse<Json> {
        if !self.text[self.at..].starts_with(word) {
            return self.fault("Expecting value");
        }
        self.at += word.len();
        Ok(value)
    }

    fn object(&mut self) -> Parse<Json> {
        let mut fields = IndexMap::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(fields));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return self.fault("Expecting property name enclosed in double quotes");
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return self.fault("Expecting ':' delimiter");
            }
            self.at += 1;
            let value = self.value()?;
            fields.insert(key, value);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(fields));
                }
                _ => return self.fault("Expecting ',' delimiter"),
            }
        }
    }

    fn array(&mut self) -> Parse<Json> {
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::Array(items));
                }
                _ => return self.fault("Expecting ',' delimiter"),
            }
        }
    }

    fn number(&mut self) -> Parse<Json> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            // A leading zero is a whole number. A digit after it is extra data, as in the grammar.
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => {
                self.at = start;
                return self.fault("Expecting value");
            }
        }
        // A dot or an exponent without digits is an error at the end of the whole number.
        let whole = self.at;
        if self.peek() == Some(b'.') {
            self.at += 1;
            if !matches!(self.peek(), Some(b'0'..=b'9')) {
                self.at = whole;
                return self.fault("Expecting digits after '.'");
            }
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !matches!(self.peek(), Some(b'0'..=b'9')) {
                return self.fault("Expecting digits in the exponent");
            }
            self.digits();
        }
        work::spend(self.at - start);
        Ok(Json::Number(self.text[start..self.at].to_owned()))
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Parse<String> {
        let open = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let run = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            work::spend(self.at - run);
            out.push_str(&self.text[run..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return self.fault("Invalid control character"),
                None => {
                    self.at = open;
                    return self.fault("Unterminated string");
                }
            }
        }
    }

    fn escape(&mut self) -> Parse<char> {
        let start = self.at;
        self.at += 1;
        let plain = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(start),
            _ => {
                self.at = start;
                return self.fault("Invalid \\escape");
            }
        };
        self.at += 1;
        Ok(plain)
    }

    /// Reads `\uXXXX`, and the second half after a high surrogate. `self.at` is at the `u`.
    fn unicode(&mut self, start: usize) -> Parse<char> {
        let first = self.hex(start)?;
        let scalar = if (0xD800..0xDC00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            self.at += 1;
            let second = self.hex(start)?;
            if (0xDC00..0xE000).contains(&second) {
                0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
            } else {
                first
            }
        } else {
            first
        };
        char::from_u32(scalar)
            .ok_or(Fault { at: start, error: "Unpaired surrogate in \\uXXXX escape".to_owned() })
    }

    fn hex(&mut self, start: usize) -> Parse<u32> {
        let digits = self
            .text
            .as_bytes()
            .get(self.at + 1..self.at + 5)
            .filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else {
            self.at = start;
            return self.fault("Invalid \\uXXXX escape");
        };
        self.at += 5;
        Ok(digits.iter().fold(0, |sum, digit| sum * 16 + char::from(*digit).to_digit(16).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_digit_for_digit() {
        for text in ["99999999999999999999", "-0", "1.0", "1e400", "0.10", "1E+2", "-12.5e-3"] {
            let json = Json::parse(text, 8).unwrap();
            assert_eq!(serde_json::to_string(&json).unwrap(), text);
        }
        for text in ["01", "1.", ".5", "+1", "1e", "-", "NaN", "Infinity", "0x1", "1_0"] {
            assert!(Json::parse(text, 8).is_err(), "{text}");
        }
    }

    #[test]
    fn escapes_are_undone_and_half_characters_refused() {
        let parse = |text: &str| Json::parse(text, 8).map_err(|fault| (fault.at, fault.error));
        assert_eq!(parse(r#""\u00e9\ud83c\udfe5\n\/\u0000""#), Ok(Json::String("é🏥\n/\0".to_owned())));
        for text in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\ud800""#, r#""\ud800x""#] {
            assert_eq!(parse(text), Err((1, "Unpaired surrogate in \\uXXXX escape".to_owned())), "{text}");
        }
        assert_eq!(parse("\"é\u{1}\""), Err((2, "Invalid control character".to_owned())));
        assert_eq!(parse(r#""\u12é""#), Err((1, "Invalid \\uXXXX escape".to_owned())));
        assert_eq!(parse(r#""\x""#), Err((1, "Invalid \\escape".to_owned())));
        assert_eq!(parse("\"abc"), Err((0, "Unterminated string".to_owned())));
    }

    #[test]
    fn depth_is_bounded() {
        assert!(Json::parse("[[1]]", 2).is_ok());
        assert_eq!(Json::parse("[[[1]]]", 2).unwrap_err().error, "Nested deeper than 2 levels");
        assert!(Json::parse("[[],[],{}]", 2).is_ok(), "siblings do not add up");
        assert!(Json::parse(&"[".repeat(1_000_000), usize::MAX).is_err());
    }

    #[test]
    fn the_last_of_equal_keys_wins_in_the_first_place() {
        let json = Json::parse(r#"{"a":1,"b":2,"a":3}"#, 8).unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn it_agrees_with_serde_json_on_what_is_json() {
        for text in [
            "",
            " ",
            "{}",
            "[]",
            "[1,]",
            "{\"a\":}",
            "{\"a\" 1}",
            "{,}",
            "[,]",
            "tru",
            "true",
            "nul",
            "null x",
            "\u{feff}1",
            "[1 2]",
            "{\"a\":1,}",
            "\"\t\"",
            " [ { \"a\" : [ ] } ] ",
            "1 ",
            "\u{a0}1",
            "{1:2}",
            "[\"\\u0041\"]",
            "--1",
            "-01",
            "1.5e+",
            "1.5E5",
            "[1.e1]",
            "\"\u{7f}\"",
            "{\"\":{}}",
        ] {
            let theirs = serde_json::from_str::<Value>(text).ok();
            assert_eq!(Json::parse(text, 100).ok().map(|json| json.to_value()), theirs, "{text:?}");
        }
    }
}
