//! The `input` of a problem: the value from the request, with its secrets masked and its length limited.
//!
//! A long text is cut. A long list or object is shown as the beginning of its JSON, as a text. Both end
//! with `…(+N bytes)`, where N is the length of the omitted text or JSON.

use std::fmt::Write as _;

use indexmap::IndexMap;

use super::{Json, work};
use crate::document::{Kind, Node};

/// The text that replaces a secret.
const MASK: &str = "**********";

/// `given` for a problem, in at most `most` bytes of JSON: secrets masked, the rest cut. A value that
/// contains secrets but does not have the declared shape is masked as a whole.
pub(super) fn echo(node: &Node, given: &Json, most: usize) -> Json {
    shown(Declaration::Declared(node), given, most)
}

/// The same as [`echo`] for a value without a declared shape.
pub(super) fn plain(given: &Json, most: usize) -> Json {
    shown(Declaration::Open, given, most)
}

/// A text without a declared shape, for example the name of a field.
pub(super) fn plain_text(text: &str, most: usize) -> Json {
    Json::String(cut_text(text, most).unwrap_or_else(|| text.to_owned()))
}

/// `input` cut to `most` bytes of JSON, or `None` if it fits.
pub(super) fn cut(input: &Json, most: usize) -> Option<Json> {
    let mut left = most;
    (!fits(Declaration::Open, input, &mut left)).then(|| cut_value(Declaration::Open, input, most))
}

/// `text` cut to `most` bytes of JSON, or `None` if it fits.
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

/// The bytes that one byte of a text takes in the JSON of `serde_json`.
const fn escaped_length(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..=0x1f => 6,
        _ => 1,
    }
}

fn shown(place: Declaration<'_>, given: &Json, most: usize) -> Json {
    let mut left = most;
    if fits(place, given, &mut left) { masked(place, given) } else { cut_value(place, given, most) }
}

/// The part of the document that describes a value.
#[derive(Clone, Copy)]
enum Declaration<'n> {
    /// Nothing, and no secret is near.
    Open,
    Declared(&'n Node),
    /// Nothing, in an object with secrets: the value may be a secret under a wrong name.
    Undeclared,
}

/// How a part of `given` may be shown.
enum Part<'n> {
    /// The part may be shown. The place decides about the values inside it.
    Open(Declaration<'n>),
    /// The part is or may be a secret, or its wrong shape hides where its secrets are.
    Secret,
}

fn part<'n>(place: Declaration<'n>, given: &Json) -> Part<'n> {
    let node = match place {
        Declaration::Undeclared if *given != Json::Null => return Part::Secret,
        Declaration::Declared(node) if node.holds_secret && *given != Json::Null => node,
        _ => return Part::Open(Declaration::Open),
    };
    let shaped = matches!(
        (&node.kind, given),
        (Kind::Array { .. }, Json::Array(_)) | (Kind::Dict { .. } | Kind::Model { .. }, Json::Object(_))
    );
    if node.secret || !shaped { Part::Secret } else { Part::Open(place) }
}

/// The place of an item or a field of a value at `place`.
fn below<'n>(place: Declaration<'n>, key: Option<&str>) -> Declaration<'n> {
    let Declaration::Declared(node) = place else { return place };
    match (&node.kind, key) {
        (Kind::Array { items, .. }, None) => Declaration::Declared(items),
        (Kind::Dict { values, .. }, Some(_)) => Declaration::Declared(values),
        (Kind::Model { properties }, Some(key)) => properties
            .iter()
            .find(|property| property.name == key)
            .map_or(Declaration::Undeclared, |property| Declaration::Declared(&property.node)),
        _ => Declaration::Open,
    }
}

/// Whether the masked JSON of `given` fits into `left`. The function stops at the first value that does not
/// fit.
fn fits(place: Declaration<'_>, given: &Json, left: &mut usize) -> bool {
    work::spend(1);
    let take = |length: usize, left: &mut usize| match left.checked_sub(length) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    };
    let Part::Open(place) = part(place, given) else { return take(MASK.len() + 2, left) };
    match given {
        Json::Null | Json::Bool(_) => take(4 + usize::from(*given == Json::Bool(false)), left),
        // A cut shows `most` bytes between the quotes, so a text of that length fits.
        Json::String(text) if text.len() > *left => false,
        Json::String(text) => take(json_length(text) - 2, left),
        Json::Number(text) => take(text.len(), left),
        Json::Array(items) => {
            take(2 + items.len().saturating_sub(1), left)
                && items.iter().all(|item| fits(below(place, None), item, left) && take(quotes(item), left))
        }
        Json::Object(fields) => {
            take(2 + fields.len().saturating_sub(1), left)
                && fields.iter().all(|(key, value)| {
                    key.len() <= *left
                        && take(json_length(key) + 1, left)
                        && fits(below(place, Some(key)), value, left)
                        && take(quotes(value), left)
                })
        }
    }
}

/// The bytes for the quotes of a text inside a list or an object.
const fn quotes(value: &Json) -> usize {
    if matches!(value, Json::String(_)) { 2 } else { 0 }
}

/// The whole of `given` with its secrets masked.
fn masked(place: Declaration<'_>, given: &Json) -> Json {
    work::spend(1);
    let Part::Open(place) = part(place, given) else { return Json::String(MASK.to_owned()) };
    match given {
        Json::Number(text) if !is_common(text) => Json::String(text.clone()),
        Json::Array(items) => {
            Json::Array(items.iter().map(|item| masked(below(place, None), item)).collect())
        }
        Json::Object(fields) => Json::Object(
            fields
                .iter()
                .map(|(key, value)| (key.clone(), masked(below(place, Some(key)), value)))
                .collect::<IndexMap<_, _>>(),
        ),
        plain => plain.clone(),
    }
}

/// Whether common parsers accept this number. Most of them refuse a number beyond the range of a double.
fn is_common(number: &str) -> bool {
    number.parse::<f64>().is_ok_and(f64::is_finite)
}

fn cut_value(place: Declaration<'_>, given: &Json, most: usize) -> Json {
    let mut cut = Cut::new(most);
    match (part(place, given), given) {
        (Part::Secret, _) => cut.write(MASK),
        (Part::Open(_), Json::String(text) | Json::Number(text)) => cut.write(text),
        (Part::Open(place), _) => write(place, given, &mut cut),
    }
    Json::String(cut.end())
}

/// Writes the masked JSON of `given`.
fn write(place: Declaration<'_>, given: &Json, out: &mut Cut) {
    work::spend(1);
    let Part::Open(place) = part(place, given) else { return out.text(MASK) };
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
                write(below(place, None), item, out);
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
                write(below(place, Some(key)), value, out);
            }
            out.write("}");
        }
    }
}

/// The beginning of a text, and the length of the whole.
struct Cut {
    kept: String,
    /// The bytes of JSON that may still be kept; 0 after the first character that did not fit.
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

    /// Writes `text` as a JSON string.
    fn text(&mut self, text: &str) {
        if self.left == 0 {
            self.whole += json_length(text);
        } else {
            work::spend(text.len());
            // The serialization of a text cannot fail.
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
