//! The validation of requests against the document, which makes the 422 answers.
//!
//! There are two stages, because a product checks the caller's access to the object between them. [`parse`]
//! checks the syntax: text, JSON, depth. [`query`] and [`body`] check the schema and the value rules together.
//! They report **every** error at once, one per value, in the order in which the document declares the fields.
//!
//! The content of an error (`type`, `loc`, `msg`, `input`, `ctx`) is that of `FastAPI` with pydantic,
//! because the clients of the platform were written against it. The recorded answers are in
//! `tests/goldens/validation.json`, and `scripts/validation-differential` compares Ward with the original.
//!
//! Both stages cost time and memory linear in the size of the request. An answer lists the first
//! [`MOST_LISTED`] problems, echoes at most [`LONGEST_INPUT`] of each value and has at most
//! [`LONGEST_ANSWER`] bytes.

mod echo;
mod json;
mod problems;
mod scalar;
mod times;
mod walk;
mod work;

#[cfg(test)]
mod growth;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::document::Operation;

pub use json::{Json, NotJson};
pub use problems::{LONGEST_ANSWER, LONGEST_INPUT, Loc, MOST_LISTED, Problem, Problems, serialized_length};

/// A body with valid syntax, before the validation against a schema.
#[derive(Clone, Debug, PartialEq)]
pub enum ParsedBody {
    /// The request has no body, or an empty one.
    Missing,
    /// The content type is JSON, and the body is valid JSON.
    Json(Json),
    /// The text of a body whose content type is not JSON. No schema of the document accepts it.
    Text(String),
}

/// The reason for the refusal of a body with invalid syntax.
#[derive(Clone, Debug, PartialEq)]
pub enum BodyRefused {
    /// The bytes are not UTF-8, the only encoding of JSON between systems (RFC 8259, section 8.1). The
    /// answer is 400.
    NotUtf8,
    /// The answer is 422 with these problems.
    Problems(Vec<Problem>),
}

/// A body that passed the validation.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// The normalised value: declared fields in declared order, texts trimmed, each value in its declared
    /// type, defaults filled in.
    pub value: Value,
    /// The declared fields that the request contains, null or not.
    pub present: Present,
}

/// The declared fields that a body contains, null or not. They distinguish an absent field from one that a
/// default filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present(Vec<String>);

impl Present {
    /// Whether the request contains `field`, with any value.
    pub fn gives(&self, field: &str) -> bool {
        self.0.iter().any(|given| given == field)
    }
}

/// Checks the syntax of a body: UTF-8 text, then JSON if the content type says so, nested at most
/// `max_depth` deep.
///
/// `application/json` and `application/*+json` are JSON, with any parameters. A byte order mark before JSON
/// is skipped, which RFC 8259, section 8.1, allows. An empty body is [`ParsedBody::Missing`] with any content
/// type.
pub fn parse(content_type: Option<&str>, body: &[u8], max_depth: usize) -> Result<ParsedBody, BodyRefused> {
    if body.is_empty() {
        return Ok(ParsedBody::Missing);
    }
    let text = std::str::from_utf8(body).map_err(|_| BodyRefused::NotUtf8)?;
    if !content_type.is_some_and(is_json) {
        return Ok(ParsedBody::Text(text.to_owned()));
    }
    match Json::parse(text.strip_prefix('\u{feff}').unwrap_or(text), max_depth) {
        Ok(json) => Ok(ParsedBody::Json(json)),
        Err(NotJson { at, error }) => Err(BodyRefused::Problems(vec![Problem {
            kind: "json_invalid",
            loc: vec!["body".into(), at.into()],
            msg: "JSON decode error".to_owned(),
            input: Json::Object(indexmap::IndexMap::new()),
            ctx: Some(serde_json::json!({ "error": error })),
        }])),
    }
}

/// `given` for a problem that a room reports itself, cut to [`LONGEST_INPUT`]. The value must not contain a
/// secret.
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

/// Checks the body of `operation` against its schema and value rules.
///
/// An absent field gets the declared default. Without a default, it gets null if null is valid, or else an
/// empty list or object if that is valid. A `PATCH` is the exception: an absent field means "no change" and
/// stays absent.
///
/// A whole number beyond 64 bits becomes the nearest 64-bit number where the document sets no bound. An
/// operation without a body accepts any body, as null.
pub fn body(operation: &Operation, parsed: &ParsedBody) -> Result<Body, Problems> {
    let Some(node) = &operation.body else {
        return Ok(Body { value: Value::Null, present: Present::default() });
    };
    let text;
    let given = match parsed {
        ParsedBody::Missing => {
            return Err(vec![walk::missing(vec!["body".into()], Json::Null)].into());
        }
        ParsedBody::Json(json) => json,
        ParsedBody::Text(sent) => {
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

/// Checks the query string of `operation` against its parameters and fills in their defaults. An absent
/// parameter without a default is absent in the result.
///
/// The string is percent-decoded, and `+` is a space (`application/x-www-form-urlencoded`, URL Standard,
/// section 5.1). The last of equal names wins, and unknown names are ignored. Numbers are read as in
/// [`body`]. Timestamps become `2026-04-18T12:00:00.123456Z`; one without an offset is UTC. UUIDs become
/// lower case with hyphens.
pub fn query(operation: &Operation, raw_query: Option<&str>) -> Result<Map<String, Value>, Problems> {
    // The string is read once, with any number of parameters.
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
