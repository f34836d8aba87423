//! Requests against the document: the 422s.
//!
//! Two stages, because a caller's right to know a workspace is decided between them. [`parse`] is syntax: text, JSON,
//! depth. [`query`] and [`body`] are schema and value rules together, and answer **every** error at once, one per
//! value, in the order the document declares the fields. What an error says (`type`, `loc`, `msg`, `input`, `ctx`)
//! is what `FastAPI` with pydantic says, because that is what the platform's clients were written against; the
//! recorded answers are in `tests/goldens/validation.json`, and `scripts/validation-differential` asks the real one.
//!
//! Both stages cost time and memory linear in what was sent, whatever it is. An answer lists the first
//! [`MOST_LISTED`] problems, echoes at most [`LONGEST_INPUT`] of each value and has at most [`LONGEST_ANSWER`] bytes.

mod echo;
mod json;
mod problems;
mod scalar;
mod walk;
mod work;

#[cfg(test)]
mod growth;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::contract::Operation;

pub use json::{Json, NotJson};
pub use problems::{LONGEST_ANSWER, LONGEST_INPUT, Loc, MOST_LISTED, Problem, Problems};

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
    /// As it is meant: declared fields in declared order, trimmed, read as their type, defaults filled in.
    pub value: Value,
    /// Which declared fields the body itself holds, null or not.
    pub present: Present,
}

/// The declared fields that a body holds, null or not. Tells an absent field from one that was filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present(Vec<String>);

impl Present {
    /// Whether the body holds this field.
    pub fn gives(&self, field: &str) -> bool {
        self.0.iter().any(|given| given == field)
    }
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

/// `given` as a problem of a room's own may show it: cut to [`LONGEST_INPUT`]. For a value that holds no secret.
pub fn shown(given: &Json) -> Json {
    echo::plain(given, LONGEST_INPUT)
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
pub fn body(operation: &Operation, parsed: &Parsed) -> Result<Body, Problems> {
    let Some(node) = &operation.body else {
        return Ok(Body { value: Value::Null, present: Present::default() });
    };
    let text;
    let given = match parsed {
        Parsed::Missing => {
            return Err(vec![walk::missing(vec!["body".into()], Json::Null)].into());
        }
        Parsed::Json(json) => json,
        Parsed::Text(sent) => {
            text = Json::String(sent.clone());
            &text
        }
    };
    let value = walk::check(node, given, "body", operation.sparse)?;
    let present = match given {
        Json::Object(fields) => {
            node.field_names().filter(|name| fields.contains_key(*name)).map(str::to_owned)
        }
        _ => return Ok(Body { value, present: Present::default() }),
    };
    Ok(Body { present: Present(present.collect()), value })
}

/// The query string of `operation` against its parameters, with their defaults; an absent one without default is
/// absent in the answer too.
///
/// The string is percent-decoded, `+` is a space, the last of equal names wins and unknown names are ignored
/// (`application/x-www-form-urlencoded`, URL Standard, section 5.1). Numbers as for [`body`]; times are
/// `2026-04-18T12:00:00.123456Z`, and one sent without an offset is UTC; UUIDs are lower case with hyphens.
pub fn query(operation: &Operation, raw_query: Option<&str>) -> Result<Map<String, Value>, Problems> {
    // One pass over the string, however many parameters it holds.
    let mut sent: Vec<Option<Cow<'_, str>>> = vec![None; operation.query.len()];
    for (name, text) in form_urlencoded::parse(raw_query.unwrap_or_default().as_bytes()) {
        work::spend(1 + name.len() + text.len());
        if let Some(index) = operation.query.iter().position(|parameter| parameter.name == name) {
            sent[index] = Some(text);
        }
    }
    let mut value = Map::new();
    let mut problems = Problems::default();
    for (parameter, sent) in operation.query.iter().zip(sent) {
        let name = &parameter.name;
        match sent {
            Some(text) => {
                let given = Json::String(text.into_owned());
                if let Some(read) = walk::parameter(&parameter.node, name, &given, &mut problems) {
                    value.insert(name.clone(), read);
                }
            }
            None if parameter.required => {
                let loc = vec!["query".into(), name.clone().into()];
                problems.add(|_| walk::missing(loc, Json::Null));
            }
            None => {
                if let Some(default) = &parameter.node.default {
                    value.insert(name.clone(), default.clone());
                }
            }
        }
    }
    if problems.is_empty() { Ok(value) } else { Err(problems) }
}
