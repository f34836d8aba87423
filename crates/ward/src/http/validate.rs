//! Requests against the document: the 422s.
//!
//! Two stages, because a caller's right to know a workspace is decided between them. [`parse`] is syntax: text, JSON,
//! depth. [`query`] and [`body`] are schema and value rules together, and answer **every** error at once, one per
//! value, in the order the document declares the fields. What an error says (`type`, `loc`, `msg`, `input`, `ctx`)
//! is what `FastAPI` with pydantic says, because that is what the platform's clients were written against; the
//! recorded answers are in `tests/goldens/validation.json`, and `scripts/validation-differential` asks the real one.

mod json;
mod scalar;
mod walk;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};

use super::contract::Operation;

pub use json::{Json, NotJson};

/// One step of the way to a value: a field's name or an item's index. `body` or `query` comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Loc {
    /// A field.
    Key(Cow<'static, str>),
    /// An item.
    Index(usize),
}

impl From<&'static str> for Loc {
    fn from(key: &'static str) -> Self {
        Self::Key(Cow::Borrowed(key))
    }
}

impl From<String> for Loc {
    fn from(key: String) -> Self {
        Self::Key(Cow::Owned(key))
    }
}

impl From<usize> for Loc {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// One thing that is wrong with a request: an item of a 422's `detail` (the document's `ValidationError`).
///
/// Serializes to `{"type", "loc", "msg", "input"}`, and `"ctx"` where the kind of error has one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// The kind of error: a fixed word for programs.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Where it is.
    pub loc: Vec<Loc>,
    /// A sentence for people.
    pub msg: String,
    /// The value as it was sent, numbers digit for digit; secrets in it read `**********`.
    pub input: Json,
    /// What the sentence was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

impl Problem {
    /// A value that passed its schema and is refused all the same, in the shape pydantic gives a `ValueError`:
    /// `message` is the end of a sentence that starts with "Value error, ".
    ///
    /// For the checks that only an action can make (a slug's confirmation). `ctx.error` is an empty object there,
    /// as the reference has it: an exception has no JSON form.
    pub fn value_error(loc: Vec<Loc>, message: &str, input: Json) -> Self {
        Self {
            kind: "value_error",
            loc,
            msg: format!("Value error, {message}"),
            input,
            ctx: Some(serde_json::json!({ "error": {} })),
        }
    }
}

/// A body whose syntax is right.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// Nothing was sent.
    Missing,
    /// JSON was sent.
    Json(Json),
    /// Something was sent that does not say it is JSON: its text. No schema of ours takes that.
    Text(String),
}

/// A body whose syntax is wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum BodyRefused {
    /// The bytes are no UTF-8 text, the one encoding of JSON between systems (RFC 8259, section 8.1): a 400.
    NotUtf8,
    /// A 422 with these.
    Problems(Vec<Problem>),
}

/// A body that passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// As it was sent, for telling an absent field from one that was null.
    pub given: Value,
    /// As it is meant: declared fields in declared order, trimmed, read as their type, defaults filled in.
    pub value: Value,
}

/// The syntax of a body: text, then JSON where the content type says so, nested at most `max_depth` deep.
///
/// `application/json` and `application/*+json` are JSON, whatever their parameters. A byte order mark before JSON is
/// skipped (RFC 8259, section 8.1, allows that). An empty body is [`Parsed::Missing`] whatever its type.
pub fn parse(content_type: Option<&str>, body: &[u8], max_depth: usize) -> Result<Parsed, BodyRefused> {
    if body.is_empty() {
        return Ok(Parsed::Missing);
    }
    let text = std::str::from_utf8(body).map_err(|_| BodyRefused::NotUtf8)?;
    if !content_type.is_some_and(is_json) {
        return Ok(Parsed::Text(text.to_owned()));
    }
    match Json::parse(text.strip_prefix('\u{feff}').unwrap_or(text), max_depth) {
        Ok(json) => Ok(Parsed::Json(json)),
        Err(NotJson { at, error }) => Err(BodyRefused::Problems(vec![Problem {
            kind: "json_invalid",
            loc: vec!["body".into(), at.into()],
            msg: "JSON decode error".to_owned(),
            input: Json::Object(indexmap::IndexMap::new()),
            ctx: Some(serde_json::json!({ "error": error })),
        }])),
    }
}

/// Whether a content type is JSON (RFC 6839, section 3.1, for the `+json` suffix).
fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.split_once('/') {
        Some(("application", subtype)) => {
            !subtype.contains('/') && (subtype == "json" || subtype.ends_with("+json"))
        }
        _ => false,
    }
}

/// The body of `operation` against its schema and value rules.
///
/// Absent fields are filled in: with the declared default; else with null where null will do; else with the empty
/// list or object where one is taken. Not for a `PATCH`, where an absent field says "leave as it is" and stays absent.
/// Whole numbers beyond 64 bits, where the document sets no bound, read as the nearest 64-bit number. An operation
/// that takes no body accepts any, as null.
pub fn body(operation: &Operation, parsed: &Parsed) -> Result<Body, Vec<Problem>> {
    let Some(node) = &operation.body else { return Ok(Body { given: Value::Null, value: Value::Null }) };
    let text;
    let given = match parsed {
        Parsed::Missing => {
            return Err(vec![walk::missing(vec!["body".into()], Json::Null)]);
        }
        Parsed::Json(json) => json,
        Parsed::Text(sent) => {
            text = Json::String(sent.clone());
            &text
        }
    };
    let value = walk::check(node, given, "body", operation.sparse)?;
    Ok(Body { given: given.to_value(), value })
}

/// The query string of `operation` against its parameters, with their defaults; an absent one without default is
/// absent in the answer too.
///
/// The string is percent-decoded, `+` is a space, the last of equal names wins and unknown names are ignored
/// (`application/x-www-form-urlencoded`, URL Standard, section 5.1). Numbers as for [`body`]; times are
/// `2026-04-18T12:00:00.123456Z`, and one sent without an offset is UTC; UUIDs are lower case with hyphens.
pub fn query(operation: &Operation, raw_query: Option<&str>) -> Result<Map<String, Value>, Vec<Problem>> {
    let mut value = Map::new();
    let mut problems = Vec::new();
    for parameter in &operation.query {
        let sent = form_urlencoded::parse(raw_query.unwrap_or_default().as_bytes())
            .filter_map(|(name, text)| (name == parameter.name).then_some(text))
            .last();
        match sent {
            Some(text) => {
                let given = Json::String(text.into_owned());
                let mut loc = vec!["query".into(), parameter.name.clone().into()];
                if let Some(read) = walk::value(&parameter.node, &given, &mut loc, false, &mut problems) {
                    value.insert(parameter.name.clone(), read);
                }
            }
            None if parameter.required => {
                problems.push(walk::missing(vec!["query".into(), parameter.name.clone().into()], Json::Null));
            }
            None => {
                if let Some(default) = &parameter.node.default {
                    value.insert(parameter.name.clone(), default.clone());
                }
            }
        }
    }
    if problems.is_empty() { Ok(value) } else { Err(problems) }
}
