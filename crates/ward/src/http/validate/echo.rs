//! The `input` of a problem: the value as it was sent, without its secrets and without more than a little of it.
//!
//! A text that is too long is cut. A list or an object that is too long is shown as the beginning of its JSON, as text.
//! Both end with `…(+N bytes)`: how much of the text, or of the JSON, is not shown.

use std::fmt::Write as _;

use indexmap::IndexMap;

use super::{Json, work};
use crate::http::contract::{Kind, Node};

/// What a problem shows in place of a secret.
const MASK: &str = "**********";

/// `given` as a problem may show it, in at most `most` bytes of JSON: secrets masked, the rest cut. A value that holds
/// secrets and has not the shape that says where is masked whole.
pub(super) fn echo(node: &Node, given: &Json, most: usize) -> Json {
    shown(Some(node), given, most)
}

/// The same for a value of no declared shape.
pub(super) fn plain(given: &Json, most: usize) -> Json {
    shown(None, given, most)
}

/// A text of no declared shape, such as a field's name.
pub(super) fn plain_text(text: &str, most: usize) -> Json {
    Json::String(cut_text(text, most).unwrap_or_else(|| text.to_owned()))
}

/// `input` cut to `most` bytes of JSON, or nothing if it fits.
pub(super) fn cut(input: &Json, most: usize) -> Option<Json> {
    let mut left = most;
    (!fits(None, input, &mut left)).then(|| cut_value(None, input, most))
}

/// `text` cut to `most` bytes of JSON, or nothing if it fits.
pub(super) fn cut_text(text: &str, most: usize) -> Option<String> {
    (json_length(text) > most + 2).then(|| {
        let mut cut = Cut::new(most);
        cut.write(text);
        cut.end()
    })
}

/// The length of `text` as JSON, with its quotes.
pub(super) fn json_length(text: &str) -> usize {
    work::spend(text.len());
    2 + text.bytes().map(escaped_length).sum::<usize>()
}

/// Bytes that one byte of a text takes in JSON as `serde_json` writes it.
const fn escaped_length(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..=0x1f => 6,
        _ => 1,
    }
}

fn shown(node: Option<&Node>, given: &Json, most: usize) -> Json {
    let mut left = most;
    if fits(node, given, &mut left) { masked(node, given) } else { cut_value(node, given, most) }
}

/// What `node` says of a part of `given`.
enum Part<'n> {
    /// It may be shown; for what is inside, ask again with this.
    Open(Option<&'n Node>),
    /// It is a secret, or would have to show where the secrets in it are.
    Secret,
}

fn part<'n>(node: Option<&'n Node>, given: &Json) -> Part<'n> {
    let Some(node) = node.filter(|node| node.holds_secret && *given != Json::Null) else {
        return Part::Open(None);
    };
    let shaped = matches!(
        (&node.kind, given),
        (Kind::Array { .. }, Json::Array(_)) | (Kind::Dict { .. } | Kind::Model { .. }, Json::Object(_))
    );
    if node.secret || !shaped { Part::Secret } else { Part::Open(Some(node)) }
}

/// The node of an item or a field of a value whose node is `node`.
fn below<'n>(node: Option<&'n Node>, key: Option<&str>) -> Option<&'n Node> {
    match (&node?.kind, key) {
        (Kind::Array { items, .. }, None) => Some(items),
        (Kind::Dict { values, .. }, Some(_)) => Some(values),
        (Kind::Model { properties }, Some(key)) => {
            properties.iter().find(|property| property.name == key).map(|property| &property.node)
        }
        _ => None,
    }
}

/// Whether the masked JSON of `given` takes at most what is left. Stops where it does not.
fn fits(node: Option<&Node>, given: &Json, left: &mut usize) -> bool {
    work::spend(1);
    let take = |length: usize, left: &mut usize| match left.checked_sub(length) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    };
    let Part::Open(node) = part(node, given) else { return take(MASK.len() + 2, left) };
    match given {
        Json::Null | Json::Bool(_) => take(4 + usize::from(*given == Json::Bool(false)), left),
        // A cut shows `most` bytes between the quotes, so a text of that length fits.
        Json::String(text) if text.len() > *left => false,
        Json::String(text) => take(json_length(text) - 2, left),
        Json::Number(text) => take(text.len(), left),
        Json::Array(items) => {
            take(2 + items.len().saturating_sub(1), left)
                && items.iter().all(|item| fits(below(node, None), item, left) && take(quotes(item), left))
        }
        Json::Object(fields) => {
            take(2 + fields.len().saturating_sub(1), left)
                && fields.iter().all(|(key, value)| {
                    key.len() <= *left
                        && take(json_length(key) + 1, left)
                        && fits(below(node, Some(key)), value, left)
                        && take(quotes(value), left)
                })
        }
    }
}

/// Quotes around a text inside a list or an object.
const fn quotes(value: &Json) -> usize {
    if matches!(value, Json::String(_)) { 2 } else { 0 }
}

/// `given` with its secrets masked, whole.
fn masked(node: Option<&Node>, given: &Json) -> Json {
    work::spend(1);
    let Part::Open(node) = part(node, given) else { return Json::String(MASK.to_owned()) };
    match given {
        Json::Number(text) if !is_common(text) => Json::String(text.clone()),
        Json::Array(items) => Json::Array(items.iter().map(|item| masked(below(node, None), item)).collect()),
        Json::Object(fields) => Json::Object(
            fields
                .iter()
                .map(|(key, value)| (key.clone(), masked(below(node, Some(key)), value)))
                .collect::<IndexMap<_, _>>(),
        ),
        plain => plain.clone(),
    }
}

/// Whether common parsers take this number: most refuse one that is beyond every double.
fn is_common(number: &str) -> bool {
    number.parse::<f64>().is_ok_and(f64::is_finite)
}

fn cut_value(node: Option<&Node>, given: &Json, most: usize) -> Json {
    let mut cut = Cut::new(most);
    match (part(node, given), given) {
        (Part::Secret, _) => cut.write(MASK),
        (Part::Open(_), Json::String(text) | Json::Number(text)) => cut.write(text),
        (Part::Open(node), _) => write(node, given, &mut cut),
    }
    Json::String(cut.end())
}

/// Writes the masked JSON of `given`.
fn write(node: Option<&Node>, given: &Json, out: &mut Cut) {
    work::spend(1);
    let Part::Open(node) = part(node, given) else { return out.text(MASK) };
    match given {
        Json::Null => out.write("null"),
        Json::Bool(flag) => out.write(if *flag { "true" } else { "false" }),
        Json::Number(text) => out.write(text),
        Json::String(text) => out.text(text),
        Json::Array(items) => {
            out.write("[");
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.write(",");
                }
                write(below(node, None), item, out);
            }
            out.write("]");
        }
        Json::Object(fields) => {
            out.write("{");
            for (index, (key, value)) in fields.iter().enumerate() {
                if index > 0 {
                    out.write(",");
                }
                out.text(key);
                out.write(":");
                write(below(node, Some(key)), value, out);
            }
            out.write("}");
        }
    }
}

/// The beginning of a text, and how long all of it is.
struct Cut {
    kept: String,
    /// Bytes of JSON that may still be kept; nothing once a character did not fit.
    left: usize,
    whole: usize,
}

impl Cut {
    const fn new(most: usize) -> Self {
        Self { kept: String::new(), left: most, whole: 0 }
    }

    fn write(&mut self, text: &str) {
        self.whole += text.len();
        if self.left == 0 {
            return;
        }
        let mut end = 0;
        for character in text.chars() {
            let length = match u8::try_from(character) {
                Ok(byte) if byte.is_ascii() => escaped_length(byte),
                _ => character.len_utf8(),
            };
            let Some(left) = self.left.checked_sub(length) else {
                self.left = 0;
                break;
            };
            self.left = left;
            end += character.len_utf8();
        }
        work::spend(end);
        self.kept.push_str(&text[..end]);
    }

    /// Writes a text as JSON.
    fn text(&mut self, text: &str) {
        if self.left == 0 {
            self.whole += json_length(text);
        } else {
            work::spend(text.len());
            // A text can always be written as JSON.
            self.write(&serde_json::to_string(text).unwrap_or_default());
        }
    }

    fn end(mut self) -> String {
        let rest = self.whole - self.kept.len();
        if rest > 0 {
            let _ = write!(self.kept, "\u{2026}(+{rest} bytes)");
        }
        self.kept
    }
}
