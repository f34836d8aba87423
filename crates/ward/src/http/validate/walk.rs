//! The walk over a value with its compiled schema at hand.

use serde_json::{Map, Value, json};

use super::{Json, Loc, Problem, scalar};
use crate::http::contract::{Kind, Lengths, Node, Property, Text};

/// What an error shows in place of a secret.
const MASK: &str = "**********";

/// Checks `given`, which came as the request's `place` (`body`), and answers what it means.
pub(super) fn check(
    node: &Node,
    given: &Json,
    place: &'static str,
    sparse: bool,
) -> Result<Value, Vec<Problem>> {
    let mut problems = Vec::new();
    let read = value(node, given, &mut vec![place.into()], sparse, &mut problems);
    match read {
        Some(read) if problems.is_empty() => Ok(read),
        _ => Err(problems),
    }
}

/// A field that is required and absent; `parent` is the object it is absent from.
pub(super) fn missing(loc: Vec<Loc>, parent: Json) -> Problem {
    Problem { kind: "missing", loc, msg: "Field required".to_owned(), input: parent, ctx: None }
}

/// What is wrong with one value: kind, sentence, context.
pub(super) struct Fault {
    kind: &'static str,
    msg: String,
    ctx: Option<Value>,
}

impl Fault {
    pub(super) fn new(kind: &'static str, msg: impl Into<String>) -> Self {
        Self { kind, msg: msg.into(), ctx: None }
    }

    pub(super) fn with(kind: &'static str, msg: impl Into<String>, ctx: Value) -> Self {
        Self { kind, msg: msg.into(), ctx: Some(ctx) }
    }

    #[cfg(test)]
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    fn at(self, node: &Node, given: &Json, loc: &[Loc]) -> Problem {
        Problem { kind: self.kind, loc: loc.to_vec(), msg: self.msg, input: echo(node, given), ctx: self.ctx }
    }
}

/// What `given` means, or `None` after adding at least one problem. `loc` is restored on return.
pub(super) fn value(
    node: &Node,
    given: &Json,
    loc: &mut Vec<Loc>,
    sparse: bool,
    problems: &mut Vec<Problem>,
) -> Option<Value> {
    if node.nullable && *given == Json::Null {
        return Some(Value::Null);
    }
    let before = problems.len();
    let read = match &node.kind {
        Kind::Any => {
            texts(given, loc, problems);
            Ok(given.to_value())
        }
        Kind::Text(text) => trimmed(text, given).map(Value::String),
        Kind::Enum { values, expected } => match given {
            Json::String(text) if values.contains(text) => Ok(Value::String(text.clone())),
            _ => Err(Fault::with(
                "literal_error",
                format!("Input should be {expected}"),
                json!({ "expected": expected }),
            )),
        },
        Kind::Uuid => scalar::uuid(given),
        Kind::DateTime => scalar::date_time(given),
        Kind::Date => scalar::date(given),
        Kind::Integer(bounds) => scalar::integer(bounds, given),
        Kind::Number(range) => scalar::number(range, given),
        Kind::Boolean => scalar::boolean(given),
        Kind::Array { items, lengths } => match given {
            Json::Array(given) => array(items, lengths, given, loc, sparse, problems),
            _ => Err(Fault::new("list_type", "Input should be a valid list")),
        },
        Kind::Model { properties } => match given {
            Json::Object(_) => Ok(model(node, properties, given, loc, sparse, problems)),
            _ => Err(Fault::new(
                "model_attributes_type",
                "Input should be a valid dictionary or object to extract fields from",
            )),
        },
        Kind::Dict { values } => match given {
            Json::Object(fields) => Ok(fields
                .iter()
                .filter_map(|(key, given)| {
                    let read = within(key.clone().into(), loc, |loc| {
                        refuse_nul(key, loc, problems);
                        value(values, given, loc, sparse, problems)
                    });
                    read.map(|read| (key.clone(), read))
                })
                .collect::<Map<_, _>>()
                .into()),
            _ => Err(Fault::new("dict_type", "Input should be a valid dictionary")),
        },
    };
    match read {
        Err(fault) => {
            problems.push(fault.at(node, given, loc));
            None
        }
        // A part of the value was refused: the value passed nothing, and its own rules do not run.
        Ok(_) if problems.len() > before => None,
        Ok(read) => {
            rules(node, given, &read, loc, problems);
            (problems.len() == before).then_some(read)
        }
    }
}

/// The value rules of `node`: no NUL in a text (storage could not keep it), then those the rooms attached.
fn rules(node: &Node, given: &Json, read: &Value, loc: &[Loc], problems: &mut Vec<Problem>) {
    if matches!(node.kind, Kind::Text(_)) && read.as_str().is_some_and(|text| text.contains('\0')) {
        problems.push(Problem::value_error(loc.to_vec(), NUL, echo(node, given)));
        return;
    }
    // In declared order and one per value, as everything that is refused: a rule says what it finds as it finds it.
    let mut found: Vec<_> = node.rules.iter().flat_map(|rule| rule(read)).collect();
    found.sort_by_cached_key(|problem| place(node, read, &problem.at));
    found.dedup_by(|later, first| later.at == first.at);
    for found in found {
        let mut at = loc.to_vec();
        let shown = found.at.iter().try_fold(echo(node, given), step).unwrap_or(Json::Null);
        at.extend(found.at);
        problems.push(Problem::value_error(at, &found.message, shown));
    }
}

/// Where a part of `read` stands: among the declared fields, the items or the given keys, step by step.
fn place(node: &Node, read: &Value, at: &[Loc]) -> Vec<usize> {
    let Some((step, rest)) = at.split_first() else { return Vec::new() };
    let part = match (step, &node.kind) {
        (Loc::Index(index), Kind::Array { items, .. }) => Some((*index, &**items, read.get(*index))),
        (Loc::Key(key), Kind::Model { properties }) => properties
            .iter()
            .position(|property| property.name == *key)
            .map(|index| (index, &properties[index].node, read.get(&**key))),
        (Loc::Key(key), Kind::Dict { values }) => read
            .as_object()
            .and_then(|fields| fields.keys().position(|field| field == key))
            .map(|index| (index, &**values, read.get(&**key))),
        _ => None,
    };
    let Some((index, node, read)) = part else { return Vec::new() };
    let below = read.map(|read| place(node, read, rest)).unwrap_or_default();
    std::iter::once(index).chain(below).collect()
}

const NUL: &str = "text must not contain the character U+0000";

/// The part of `whole` one step further.
fn step(whole: Json, loc: &Loc) -> Option<Json> {
    match (whole, loc) {
        (Json::Object(mut fields), Loc::Key(key)) => fields.swap_remove(key.as_ref()),
        (Json::Array(mut items), Loc::Index(index)) if *index < items.len() => {
            Some(items.swap_remove(*index))
        }
        _ => None,
    }
}

/// Runs `walk` one step further down.
fn within<T>(step: Loc, loc: &mut Vec<Loc>, walk: impl FnOnce(&mut Vec<Loc>) -> T) -> T {
    loc.push(step);
    let result = walk(loc);
    loc.pop();
    result
}

fn trimmed(text: &Text, given: &Json) -> Result<String, Fault> {
    let Json::String(sent) = given else {
        return Err(Fault::new("string_type", "Input should be a valid string"));
    };
    // The reference trims what Unicode calls white space, and so does `trim`; Python's own `strip` would also
    // take U+001C to U+001F.
    let read = if text.trim { sent.trim() } else { sent };
    let length = read.chars().count();
    if let Some(max) = text.lengths.max.filter(|max| length > *max) {
        let msg = format!("String should have at most {max} character{}", plural(max));
        return Err(Fault::with("string_too_long", msg, json!({ "max_length": max })));
    }
    if let Some(min) = text.lengths.min.filter(|min| length < *min) {
        let msg = format!("String should have at least {min} character{}", plural(min));
        return Err(Fault::with("string_too_short", msg, json!({ "min_length": min })));
    }
    if let Some(pattern) = text.pattern.as_ref().filter(|pattern| !pattern.is_match(read)) {
        let msg = format!("String should match pattern '{pattern}'");
        return Err(Fault::with("string_pattern_mismatch", msg, json!({ "pattern": pattern.as_str() })));
    }
    Ok(read.to_owned())
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn array(
    items: &Node,
    lengths: &Lengths,
    given: &[Json],
    loc: &mut Vec<Loc>,
    sparse: bool,
    problems: &mut Vec<Problem>,
) -> Result<Value, Fault> {
    let length = given.len();
    // A list that is too long says only that; one that is too short only when its items are right.
    if let Some(max) = lengths.max.filter(|max| length > *max) {
        let msg =
            format!("List should have at most {max} item{} after validation, not {length}", plural(max));
        let ctx = json!({ "field_type": "List", "max_length": max, "actual_length": length });
        return Err(Fault::with("too_long", msg, ctx));
    }
    let before = problems.len();
    let read = given
        .iter()
        .enumerate()
        .filter_map(|(index, item)| {
            within(index.into(), loc, |loc| value(items, item, loc, sparse, problems))
        })
        .collect();
    if let Some(min) = lengths.min.filter(|min| length < *min && problems.len() == before) {
        let msg =
            format!("List should have at least {min} item{} after validation, not {length}", plural(min));
        let ctx = json!({ "field_type": "List", "min_length": min, "actual_length": length });
        return Err(Fault::with("too_short", msg, ctx));
    }
    Ok(read)
}

fn model(
    node: &Node,
    properties: &[Property],
    given: &Json,
    loc: &mut Vec<Loc>,
    sparse: bool,
    problems: &mut Vec<Problem>,
) -> Value {
    let Json::Object(fields) = given else { return Value::Null };
    let mut read = Map::new();
    for property in properties {
        let name = &property.name;
        let found = match fields.get(name) {
            Some(given) => {
                within(name.clone().into(), loc, |loc| value(&property.node, given, loc, sparse, problems))
            }
            None if property.required => {
                let loc = within(name.clone().into(), loc, |loc| loc.clone());
                problems.push(missing(loc, echo(node, given)));
                None
            }
            None if sparse => None,
            None => filling(&property.node),
        };
        if let Some(found) = found {
            read.insert(name.clone(), found);
        }
    }
    Value::Object(read)
}

/// What an absent field means; see [`super::body`].
fn filling(node: &Node) -> Option<Value> {
    match (&node.default, &node.kind) {
        (Some(default), _) => Some(default.clone()),
        (None, _) if node.nullable => Some(Value::Null),
        (None, Kind::Array { .. }) => Some(json!([])),
        (None, Kind::Dict { .. }) => Some(json!({})),
        _ => None,
    }
}

/// Refuses NUL in the texts of a value of no declared shape; nothing else in it can be wrong.
fn texts(given: &Json, loc: &mut Vec<Loc>, problems: &mut Vec<Problem>) {
    match given {
        Json::String(text) => refuse_nul(text, loc, problems),
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                within(index.into(), loc, |loc| texts(item, loc, problems));
            }
        }
        Json::Object(fields) => {
            for (key, value) in fields {
                within(key.clone().into(), loc, |loc| {
                    refuse_nul(key, loc, problems);
                    texts(value, loc, problems);
                });
            }
        }
        _ => {}
    }
}

/// No engine keeps a NUL in a text, and not every one in a key.
fn refuse_nul(text: &str, loc: &[Loc], problems: &mut Vec<Problem>) {
    if text.contains('\0') {
        problems.push(Problem::value_error(loc.to_vec(), NUL, Json::String(text.to_owned())));
    }
}

/// `given` as an error may show it: secrets masked. A value that holds secrets and has not the shape that says where
/// is masked whole.
fn echo(node: &Node, given: &Json) -> Json {
    if !node.holds_secret || *given == Json::Null {
        return given.clone();
    }
    let masked = || Json::String(MASK.to_owned());
    if node.secret {
        return masked();
    }
    match (&node.kind, given) {
        (Kind::Array { items, .. }, Json::Array(given)) => {
            Json::Array(given.iter().map(|item| echo(items, item)).collect())
        }
        (Kind::Dict { values }, Json::Object(given)) => {
            Json::Object(given.iter().map(|(key, value)| (key.clone(), echo(values, value))).collect())
        }
        (Kind::Model { properties }, Json::Object(given)) => {
            let shown = |(key, value): (&String, &Json)| {
                let declared = properties.iter().find(|property| property.name == *key);
                (key.clone(), declared.map_or_else(|| value.clone(), |property| echo(&property.node, value)))
            };
            Json::Object(given.iter().map(shown).collect())
        }
        _ => masked(),
    }
}
