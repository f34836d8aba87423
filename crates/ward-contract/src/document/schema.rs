//! Request schemas, compiled from JSON Schema into the few kinds of values that the API accepts.

use regex::Regex;
use serde_json::{Map, Value};

use super::{ContractError, Rule};

/// A compiled request schema for one value.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a keyword of the schema, and any of them may be set"
)]
pub struct Node {
    pub(crate) kind: Kind,
    /// Whether `null` is accepted as well.
    pub(crate) nullable: bool,
    /// Whether an empty list is accepted as well, and counts as `null`.
    pub(crate) empty_is_null: bool,
    /// Whether the value is a secret that no answer may repeat.
    pub(crate) secret: bool,
    /// Whether the value, or a part of it, is a secret.
    pub(crate) holds_secret: bool,
    /// Bounds on a value whose parts are not declared.
    pub(crate) extent: Option<Extent>,
    pub(crate) default: Option<Value>,
    /// Value rules; those of the outermost reference come last.
    pub(crate) rules: Vec<Rule>,
}

/// The kinds of values that the walker knows.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Any JSON value, within the bounds of [`Extent`] if it has some.
    Any,
    /// A string with bounds on its length.
    Text(Text),
    /// One of these strings; `expected` lists them for error messages.
    Enum {
        values: Vec<String>,
        expected: String,
    },
    /// A string with `format: uuid`, with or without hyphens.
    Uuid,
    /// A timestamp with `format: date-time` and an offset from UTC.
    DateTime(Moment),
    /// A day without a time, `format: date`.
    Date,
    /// A whole number with bounds, also in the notation `90.0`.
    Integer(Bounds),
    /// A finite number with inclusive bounds.
    Number(Range),
    /// A flag, also as 0, 1 or a word for it.
    Boolean,
    Array {
        items: Box<Node>,
        lengths: Lengths,
    },
    /// An object with declared fields; other fields are ignored.
    Model {
        properties: Vec<Property>,
    },
    /// An object with arbitrary fields that share one schema, and bounds on their names and number.
    Dict {
        values: Box<Node>,
        names: Option<Text>,
        lengths: Lengths,
    },
}

#[derive(Debug)]
pub(crate) struct Text {
    /// Whether surrounding white space is removed first.
    pub trim: bool,
    /// Whether U+0000 is accepted, because the operation leaves out characters that it cannot store.
    pub any_character: bool,
    pub lengths: Lengths,
    pub pattern: Option<Regex>,
}

/// Bounds on a value whose parts are not declared: `x-max-bytes` for its length as JSON, and `x-max-depth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub bytes: Option<usize>,
    pub depth: Option<usize>,
}

/// The accepted notations of a timestamp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The most characters of the text, if the schema has a bound.
    pub longest: Option<usize>,
    /// The instant that a day without a time means, if such a day is accepted: `x-day`. A time always needs its
    /// offset from UTC, as in RFC 3339, because no zone is guessed.
    pub day: Option<DayMeans>,
}

/// The instant of a day (UTC) that bounds a period.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DayMeans {
    /// Its midnight, for the inclusive start of a period: `x-day: start`.
    Start,
    /// Its last instant, for the inclusive end of a period: `x-day: end`.
    End,
}

#[derive(Debug, Default)]
pub(crate) struct Bounds {
    pub maximum: Option<i64>,
    pub exclusive_maximum: Option<i64>,
    pub minimum: Option<i64>,
    pub exclusive_minimum: Option<i64>,
}

/// Inclusive bounds on a number, from `minimum` and `maximum`.
#[derive(Debug, Default)]
pub(crate) struct Range {
    pub maximum: Option<f64>,
    pub minimum: Option<f64>,
}

/// Bounds on the length of a string, or the size of an array.
#[derive(Debug)]
pub(crate) struct Lengths {
    pub min: Option<usize>,
    pub max: Option<usize>,
}

/// A declared field of an object.
#[derive(Debug)]
pub(crate) struct Property {
    pub name: String,
    pub required: bool,
    pub node: Node,
}

/// Keywords that describe but do not constrain, in addition to all that start with `x-`.
const ANNOTATIONS: [&str; 4] = ["title", "description", "examples", "default"];

struct AttachedRule<'r> {
    pointer: &'r str,
    rule: Rule,
    used: bool,
}

/// Compiles the schemas of one document, and tracks which rules found their schema.
pub(super) struct Compiler<'d> {
    document: &'d Value,
    rules: Vec<AttachedRule<'d>>,
    /// References that are being followed, to refuse a recursive schema.
    open: Vec<String>,
}

impl<'d> Compiler<'d> {
    pub(super) fn new(document: &'d Value, rules: &[(&'d str, Rule)]) -> Self {
        let rules =
            rules.iter().map(|(pointer, rule)| AttachedRule { pointer, rule: *rule, used: false }).collect();
        Self { document, rules, open: Vec::new() }
    }

    /// Fails if a rule was attached to a place that no request schema has.
    pub(super) fn finish(self) -> Result<(), ContractError> {
        match self.rules.iter().find(|attached| !attached.used) {
            Some(stray) => {
                Err(ContractError::new(stray.pointer, "a rule is attached here, but no request schema is"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn body(&mut self, schema: &Value, at: &str) -> Result<Node, ContractError> {
        self.node(schema, at)
    }

    /// Compiles `schema`, which is at the JSON pointer `at`.
    pub(super) fn node(&mut self, schema: &Value, at: &str) -> Result<Node, ContractError> {
        let schema = schema.as_object().ok_or_else(|| ContractError::new(at, "not a schema object"))?;
        let mut node = if let Some(target) = schema.get("$ref") {
            known(schema, at, &["$ref"])?;
            self.reference(target, at)?
        } else if let Some(alternatives) = schema.get("anyOf") {
            known(schema, at, &["anyOf"])?;
            self.nullable(alternatives, at)?
        } else {
            self.plain(schema, at)?
        };
        if let Some(default) = schema.get("default") {
            node.default = Some(default.clone());
        }
        let extent =
            Extent { bytes: size(schema, "x-max-bytes", at)?, depth: size(schema, "x-max-depth", at)? };
        if extent.bytes.is_some() || extent.depth.is_some() {
            if !matches!(node.kind, Kind::Any | Kind::Dict { .. }) {
                return Err(ContractError::new(
                    at,
                    "x-max-bytes and x-max-depth bound only undeclared values",
                ));
            }
            node.extent = Some(extent);
        }
        if schema.get("x-secret") == Some(&Value::Bool(true)) {
            node.secret = true;
            node.holds_secret = true;
        }
        for attached in self.rules.iter_mut().filter(|attached| attached.pointer == at) {
            attached.used = true;
            node.rules.push(attached.rule);
        }
        Ok(node)
    }

    fn reference(&mut self, target: &Value, at: &str) -> Result<Node, ContractError> {
        let pointer = target.as_str().unwrap_or_default();
        if self.open.iter().any(|open| open == pointer) {
            return Err(ContractError::new(at, format!("{pointer} contains itself")));
        }
        let document = self.document;
        let schema = pointer
            .strip_prefix('#')
            .and_then(|path| document.pointer(path))
            .ok_or_else(|| ContractError::new(at, format!("{pointer} is not in this document")))?;
        self.open.push(pointer.to_owned());
        let node = self.node(schema, pointer);
        self.open.pop();
        node
    }

    /// Compiles `anyOf: [X, null]` or `[X, a list of at most 0 items, null]`, the only supported unions. Their
    /// errors are those of X. The list is for answers that a client sends back, where it stands for nothing.
    fn nullable(&mut self, alternatives: &Value, at: &str) -> Result<Node, ContractError> {
        let is_null = |schema: &Value| schema.get("type").and_then(Value::as_str) == Some("null");
        let is_empty = |schema: &Value| schema["type"] == "array" && schema["maxItems"] == 0;
        let (schema, empty_is_null) = match alternatives.as_array().map(Vec::as_slice) {
            Some([schema, null]) if is_null(null) => (schema, false),
            Some([schema, empty, null]) if is_empty(empty) && is_null(null) => (schema, true),
            _ => (&Value::Null, false),
        };
        match schema {
            schema if schema.is_object() && !is_null(schema) => {
                let node = self.node(schema, &format!("{at}/anyOf/0"))?;
                Ok(Node { nullable: true, empty_is_null, ..node })
            }
            _ => Err(ContractError::new(
                at,
                "the only unions understood are [schema, null] and [schema, an empty list, null]",
            )),
        }
    }

    fn plain(&mut self, schema: &Map<String, Value>, at: &str) -> Result<Node, ContractError> {
        let kind = match schema.get("type").and_then(Value::as_str) {
            Some("string") => string(schema, at)?,
            Some("integer") => {
                known(schema, at, &["type", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"])?;
                Kind::Integer(Bounds {
                    maximum: whole(schema, "maximum", at)?,
                    exclusive_maximum: whole(schema, "exclusiveMaximum", at)?,
                    minimum: whole(schema, "minimum", at)?,
                    exclusive_minimum: whole(schema, "exclusiveMinimum", at)?,
                })
            }
            Some("number") => {
                known(schema, at, &["type", "maximum", "minimum"])?;
                let bound = |keyword| schema.get(keyword).and_then(Value::as_f64);
                Kind::Number(Range { maximum: bound("maximum"), minimum: bound("minimum") })
            }
            Some("boolean") => {
                known(schema, at, &["type"])?;
                Kind::Boolean
            }
            Some("array") => {
                known(schema, at, &["type", "items", "minItems", "maxItems"])?;
                let items = match schema.get("items") {
                    Some(items) => self.node(items, &format!("{at}/items"))?,
                    None => Node::of(Kind::Any),
                };
                Kind::Array { items: Box::new(items), lengths: lengths(schema, "minItems", "maxItems", at)? }
            }
            Some("object") => self.object(schema, at)?,
            None if !schema.contains_key("type") => {
                known(schema, at, &[])?;
                Kind::Any
            }
            _ => return Err(ContractError::new(at, format!("type {} is not understood", schema["type"]))),
        };
        Ok(Node::of(kind))
    }

    fn object(&mut self, schema: &Map<String, Value>, at: &str) -> Result<Kind, ContractError> {
        let Some(properties) = schema.get("properties") else {
            known(schema, at, &["type", "additionalProperties", "propertyNames", "maxProperties"])?;
            let values = match schema.get("additionalProperties") {
                None | Some(Value::Bool(true)) => Node::of(Kind::Any),
                Some(values) => self.node(values, &format!("{at}/additionalProperties"))?,
            };
            let lengths = Lengths { min: None, max: size(schema, "maxProperties", at)? };
            let names = schema.get("propertyNames").map(|names| property_names(names, at)).transpose()?;
            return Ok(Kind::Dict { values: Box::new(values), names, lengths });
        };
        known(schema, at, &["type", "properties", "required"])?;
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut compiled = Vec::new();
        for (name, property) in super::fields(Some(properties), at)? {
            let node = self
                .node(property, &format!("{at}/properties/{}", name.replace('~', "~0").replace('/', "~1")))?;
            compiled.push(Property { name: name.clone(), required: required.contains(&name.as_str()), node });
        }
        if let Some(stray) =
            required.iter().find(|name| !compiled.iter().any(|property| property.name == **name))
        {
            return Err(ContractError::new(at, format!("{stray} is required and not declared")));
        }
        Ok(Kind::Model { properties: compiled })
    }
}

impl Node {
    fn of(kind: Kind) -> Self {
        let holds_secret = match &kind {
            Kind::Array { items, .. } => items.holds_secret,
            Kind::Dict { values, .. } => values.holds_secret,
            Kind::Model { properties } => properties.iter().any(|property| property.node.holds_secret),
            _ => false,
        };
        Self {
            kind,
            nullable: false,
            empty_is_null: false,
            secret: false,
            holds_secret,
            extent: None,
            default: None,
            rules: Vec::new(),
        }
    }

    /// The names of the declared fields, if the value is an object with such.
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        let properties = match &self.kind {
            Kind::Model { properties } => properties.as_slice(),
            _ => &[],
        };
        properties.iter().map(|property| property.name.as_str())
    }
}

fn string(schema: &Map<String, Value>, at: &str) -> Result<Kind, ContractError> {
    if let Some(format) = schema.get("format") {
        let keywords: &[&str] =
            if format == "date-time" { &["type", "format", "maxLength"] } else { &["type", "format"] };
        known(schema, at, keywords)?;
        let longest = whole(schema, "maxLength", at)?.and_then(|most| usize::try_from(most).ok());
        return match format.as_str() {
            Some("uuid") => Ok(Kind::Uuid),
            Some("date-time") => Ok(Kind::DateTime(Moment { longest, day: day(schema, at)? })),
            Some("date") => Ok(Kind::Date),
            _ => Err(ContractError::new(at, format!("format {format} is not understood"))),
        };
    }
    if let Some(values) = schema.get("enum") {
        known(schema, at, &["type", "enum"])?;
        let values: Vec<String> =
            values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let Some((last, others)) = values.split_last() else {
            return Err(ContractError::new(at, "an enum needs values"));
        };
        let quoted: Vec<String> = others.iter().map(|value| format!("'{value}'")).collect();
        let expected = if quoted.is_empty() {
            format!("'{last}'")
        } else {
            format!("{} or '{last}'", quoted.join(", "))
        };
        return Ok(Kind::Enum { values, expected });
    }
    known(schema, at, &["type", "minLength", "maxLength", "pattern"])?;
    let pattern = schema
        .get("pattern")
        .map(|pattern| Regex::new(pattern.as_str().unwrap_or_default()))
        .transpose()
        .map_err(|error| ContractError::new(at, error.to_string()))?;
    Ok(Kind::Text(Text {
        trim: schema.get("x-trim") == Some(&Value::Bool(true)),
        any_character: schema.get("x-any-character") == Some(&Value::Bool(true)),
        lengths: lengths(schema, "minLength", "maxLength", at)?,
        pattern,
    }))
}

/// The meaning of a day in place of a time.
fn day(schema: &Map<String, Value>, at: &str) -> Result<Option<DayMeans>, ContractError> {
    match schema.get("x-day").map(Value::as_str) {
        None => Ok(None),
        Some(Some("start")) => Ok(Some(DayMeans::Start)),
        Some(Some("end")) => Ok(Some(DayMeans::End)),
        Some(_) => Err(ContractError::new(at, "x-day is start or end")),
    }
}

/// The bounds on field names: those of a string without `type`, because names are always strings.
fn property_names(schema: &Value, at: &str) -> Result<Text, ContractError> {
    let at = format!("{at}/propertyNames");
    let schema = super::fields(Some(schema), &at)?;
    known(schema, &at, &["maxLength"])?;
    Ok(Text {
        trim: false,
        any_character: false,
        lengths: lengths(schema, "minLength", "maxLength", &at)?,
        pattern: None,
    })
}

/// Fails for a keyword that is neither in `keywords` nor an annotation, because it would not be enforced.
fn known(schema: &Map<String, Value>, at: &str, keywords: &[&str]) -> Result<(), ContractError> {
    let stray = schema.keys().find(|key| {
        !keywords.contains(&key.as_str()) && !ANNOTATIONS.contains(&key.as_str()) && !key.starts_with("x-")
    });
    match stray {
        Some(keyword) => Err(ContractError::new(at, format!("keyword {keyword} is not enforced here"))),
        None => Ok(()),
    }
}

/// An integer bound in any notation: `90` and `90.0` are the same number (JSON Schema, 4.2.3).
fn whole(schema: &Map<String, Value>, keyword: &str, at: &str) -> Result<Option<i64>, ContractError> {
    let Some(bound) = schema.get(keyword) else { return Ok(None) };
    let text = bound.to_string();
    let digits = text.strip_suffix(".0").unwrap_or(&text);
    digits
        .parse()
        .map(Some)
        .map_err(|_| ContractError::new(at, format!("{keyword} {text} is not a whole number")))
}

fn lengths(schema: &Map<String, Value>, min: &str, max: &str, at: &str) -> Result<Lengths, ContractError> {
    Ok(Lengths { min: size(schema, min, at)?, max: size(schema, max, at)? })
}

/// A non-negative bound on a length or a count.
fn size(schema: &Map<String, Value>, keyword: &str, at: &str) -> Result<Option<usize>, ContractError> {
    let bound = whole(schema, keyword, at)?.map(usize::try_from).transpose();
    bound.map_err(|_| ContractError::new(at, format!("{keyword} is negative")))
}
