//! The walk over a value with its compiled schema.
//!
//! Each value is visited once. A problem is built only if the answer has space for it ([`Problems::add`]).
//! Neither time nor memory therefore grows with the number of errors.

use serde_json::{Map, Value, json};

use super::problems::{Loc, Problem, Problems, bounded_loc};
use super::{Json, echo, scalar, times, work};
use crate::document::{Extent, Kind, Lengths, Node, Property, RuleProblem, Text};

const NUL: &str = "text must not contain the character U+0000";

/// Checks `given`, the part `place` of the request (`body`), and returns its normalised value.
pub(super) fn check(node: &Node, given: &Json, place: &'static str, sparse: bool) -> Result<Value, Problems> {
    let mut problems = Problems::default();
    let read = Walk { loc: vec![place.into()], sparse, problems: &mut problems }.value(node, given);
    match read {
        Some(read) if problems.is_empty() => Ok(read),
        _ => Err(problems),
    }
}

/// Checks one query parameter. The result is `None` after at least one problem was added.
pub(super) fn parameter(node: &Node, name: &str, given: &Json, problems: &mut Problems) -> Option<Value> {
    Walk { loc: vec!["query".into(), name.to_owned().into()], sparse: false, problems }.value(node, given)
}

/// The problem of a required field that is absent. `parent` is the object without it.
pub(super) fn missing(loc: Vec<Loc>, parent: Json) -> Problem {
    Problem { kind: "missing", loc, msg: "Field required".to_owned(), input: parent, ctx: None }
}

/// The error of one value: kind, sentence, context.
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

    /// A text, list or object with more than `max` parts.
    fn too_long(field_type: &str, max: usize, length: usize) -> Self {
        let msg = format!(
            "{field_type} should have at most {max} item{} after validation, not {length}",
            plural(max)
        );
        let ctx = json!({ "field_type": field_type, "max_length": max, "actual_length": length });
        Self::with("too_long", msg, ctx)
    }

    #[cfg(test)]
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }
}

/// The state of a walk: its position and the problems so far.
struct Walk<'p> {
    loc: Vec<Loc>,
    sparse: bool,
    problems: &'p mut Problems,
}

impl Walk<'_> {
    /// The normalised value of `given`, or `None` after at least one problem was added. `loc` is restored
    /// on return.
    fn value(&mut self, node: &Node, given: &Json) -> Option<Value> {
        work::spend(1);
        let is_null = match given {
            Json::Null => node.nullable,
            Json::Array(items) => node.empty_is_null && items.is_empty(),
            _ => false,
        };
        if is_null {
            return Some(Value::Null);
        }
        let before = self.problems.count();
        let read = match &node.kind {
            Kind::Any => self.any(node, given),
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
            Kind::DateTime(moment) => times::date_time(*moment, given),
            Kind::Date => times::date(given),
            Kind::Integer(bounds) => scalar::integer(bounds, given),
            Kind::Number(range) => scalar::number(range, given),
            Kind::Boolean => scalar::boolean(given),
            Kind::Array { items, lengths } => self.array(items, lengths, given),
            Kind::Model { properties } => self.model(node, properties, given),
            Kind::Dict { values, names, lengths } => self.dict(node, values, names.as_ref(), lengths, given),
        };
        match read {
            Err(fault) => {
                self.refuse(node, given, fault);
                None
            }
            // A part of the value was refused. The rules of the whole value do not run.
            Ok(_) if self.problems.count() > before => None,
            Ok(read) => {
                self.rules(node, given, &read);
                (self.problems.count() == before).then_some(read)
            }
        }
    }

    fn refuse(&mut self, node: &Node, given: &Json, fault: Fault) {
        let loc = &self.loc;
        self.problems.add(|limits| Problem {
            kind: fault.kind,
            loc: bounded_loc(loc, limits.loc),
            msg: fault.msg,
            input: echo::echo(node, given, limits.input),
            ctx: fault.ctx,
        });
    }

    fn within<T>(&mut self, step: Loc, walk: impl FnOnce(&mut Self) -> T) -> T {
        if let Loc::Key(key) = &step {
            work::spend(key.len());
        }
        self.loc.push(step);
        let result = walk(self);
        self.loc.pop();
        result
    }

    /// Checks a value without a declared shape: its size, and NUL in its texts.
    fn any(&mut self, node: &Node, given: &Json) -> Result<Value, Fault> {
        if let Some(extent) = &node.extent {
            within_extent(extent, given)?;
        }
        let before = self.problems.count();
        self.texts(given);
        if self.problems.count() > before {
            return Ok(Value::Null);
        }
        Ok(given.to_value())
    }

    fn array(&mut self, items: &Node, lengths: &Lengths, given: &Json) -> Result<Value, Fault> {
        let Json::Array(given) = given else {
            return Err(Fault::new("list_type", "Input should be a valid list"));
        };
        let length = given.len();
        // A list that is too long gets only this problem. A list that is too short gets its problem only if
        // all items are valid.
        if let Some(max) = lengths.max.filter(|max| length > *max) {
            return Err(Fault::too_long("List", max, length));
        }
        let before = self.problems.count();
        let mut read = Vec::new();
        for (index, item) in given.iter().enumerate() {
            let item = self.within(index.into(), |walk| walk.value(items, item));
            // After the first problem the list is refused, so the other items are not kept.
            if self.problems.count() == before {
                read.extend(item);
            }
        }
        if let Some(min) = lengths.min.filter(|min| length < *min && self.problems.count() == before) {
            let msg =
                format!("List should have at least {min} item{} after validation, not {length}", plural(min));
            let ctx = json!({ "field_type": "List", "min_length": min, "actual_length": length });
            return Err(Fault::with("too_short", msg, ctx));
        }
        Ok(Value::Array(read))
    }

    fn dict(
        &mut self,
        node: &Node,
        values: &Node,
        names: Option<&Text>,
        lengths: &Lengths,
        given: &Json,
    ) -> Result<Value, Fault> {
        let Json::Object(fields) = given else {
            return Err(Fault::new("dict_type", "Input should be a valid dictionary"));
        };
        if let Some(max) = lengths.max.filter(|max| fields.len() > *max) {
            return Err(Fault::too_long("Dictionary", max, fields.len()));
        }
        if let Some(extent) = &node.extent {
            within_extent(extent, given)?;
        }
        let before = self.problems.count();
        let mut read = Map::new();
        for (key, given) in fields {
            let found = self.within(key.clone().into(), |walk| {
                if let Some(fault) = names.and_then(|names| check_text(names, key).err()) {
                    walk.within("[key]".into(), |walk| walk.refuse_name(key, fault));
                }
                walk.refuse_nul(key);
                walk.value(values, given)
            });
            if let Some(found) = found.filter(|_| self.problems.count() == before) {
                read.insert(key.clone(), found);
            }
        }
        Ok(Value::Object(read))
    }

    fn refuse_name(&mut self, name: &str, fault: Fault) {
        let loc = &self.loc;
        self.problems.add(|limits| Problem {
            kind: fault.kind,
            loc: bounded_loc(loc, limits.loc),
            msg: fault.msg,
            input: echo::plain_text(name, limits.input),
            ctx: fault.ctx,
        });
    }

    fn model(&mut self, node: &Node, properties: &[Property], given: &Json) -> Result<Value, Fault> {
        let Json::Object(fields) = given else {
            return Err(Fault::new(
                "model_attributes_type",
                "Input should be a valid dictionary or object to extract fields from",
            ));
        };
        let before = self.problems.count();
        let mut read = Map::new();
        for property in properties {
            let name = &property.name;
            let found = match fields.get(name) {
                Some(given) => self.within(name.clone().into(), |walk| walk.value(&property.node, given)),
                None if property.required => {
                    let loc = &self.loc;
                    self.problems.add(|limits| {
                        let mut loc = bounded_loc(loc, limits.loc);
                        loc.push(name.clone().into());
                        missing(loc, echo::echo(node, given, limits.input))
                    });
                    None
                }
                None if self.sparse || self.problems.count() > before => None,
                None => filling(&property.node),
            };
            if let Some(found) = found.filter(|_| self.problems.count() == before) {
                read.insert(name.clone(), found);
            }
        }
        Ok(Value::Object(read))
    }

    /// Refuses NUL in the texts of a value without a declared shape. Nothing else in such a value can be
    /// invalid.
    fn texts(&mut self, given: &Json) {
        work::spend(1);
        match given {
            Json::String(text) => self.refuse_nul(text),
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.within(index.into(), |walk| walk.texts(item));
                }
            }
            Json::Object(fields) => {
                for (key, value) in fields {
                    self.within(key.clone().into(), |walk| {
                        walk.refuse_nul(key);
                        walk.texts(value);
                    });
                }
            }
            _ => {}
        }
    }

    /// No engine stores a NUL in a text, and not every engine stores one in a JSON key.
    fn refuse_nul(&mut self, text: &str) {
        work::spend(text.len());
        if text.contains('\0') {
            let loc = &self.loc;
            self.problems.add(|limits| {
                Problem::value_error(bounded_loc(loc, limits.loc), NUL, echo::plain_text(text, limits.input))
            });
        }
    }

    /// Runs the value rules of `node`: first no NUL in a text, which the storage could not keep, then the
    /// rules of the rooms.
    fn rules(&mut self, node: &Node, given: &Json, read: &Value) {
        let refuses_nul = matches!(&node.kind, Kind::Text(text) if !text.any_character);
        if refuses_nul && read.as_str().is_some_and(|text| text.contains('\0')) {
            let loc = &self.loc;
            self.problems.add(|limits| {
                Problem::value_error(bounded_loc(loc, limits.loc), NUL, echo::echo(node, given, limits.input))
            });
            return;
        }
        // A rule reports its findings in any order. The answer has them in declared order and one per
        // value, like all problems.
        let mut found: Vec<_> = node.rules.iter().flat_map(|rule| rule(read)).collect();
        found.sort_by_cached_key(|problem| place(node, given, &problem.at));
        found.dedup_by(|later, first| later.at == first.at);
        for RuleProblem { at, message } in found {
            work::spend(at.len() + message.len());
            let loc = &self.loc;
            self.problems.add(|limits| {
                let input = match part(node, given, &at) {
                    Some((Some(node), given)) => echo::echo(node, given, limits.input),
                    Some((None, given)) => echo::plain(given, limits.input),
                    None => Json::Null,
                };
                let mut loc = loc.clone();
                loc.extend(at);
                Problem::value_error(bounded_loc(&loc, limits.loc), &message, input)
            });
        }
    }
}

/// The part of `given` at the path `at`, with its node if one is declared. The result is `None` if the part
/// does not exist, or if it must not be shown because a secret encloses it.
fn part<'g>(node: &'g Node, given: &'g Json, at: &[Loc]) -> Option<(Option<&'g Node>, &'g Json)> {
    let (mut node, mut given) = (Some(node), given);
    for step in at {
        if node.is_some_and(|node| node.secret) {
            return None;
        }
        let shaped = match (step, given) {
            (Loc::Index(index), Json::Array(items)) => {
                let declared = node.and_then(|node| match &node.kind {
                    Kind::Array { items, .. } => Some(&**items),
                    _ => None,
                });
                (declared, items.get(*index)?)
            }
            (Loc::Key(key), Json::Object(fields)) => {
                let declared = node.and_then(|node| match &node.kind {
                    Kind::Dict { values, .. } => Some(&**values),
                    Kind::Model { properties } => properties
                        .iter()
                        .find(|property| property.name == *key)
                        .map(|property| &property.node),
                    _ => None,
                });
                (declared, fields.get(&**key)?)
            }
            _ => return None,
        };
        (node, given) = shaped;
    }
    Some((node, given))
}

/// The position of a part of `given` among the declared fields, the items or the keys, one number per step.
fn place(node: &Node, given: &Json, at: &[Loc]) -> Vec<usize> {
    let (mut node, mut given) = (node, Some(given));
    let mut place = Vec::with_capacity(at.len());
    for step in at {
        work::spend(1);
        let below = match (step, &node.kind) {
            (Loc::Index(index), Kind::Array { items, .. }) => {
                let item = match given {
                    Some(Json::Array(items)) => items.get(*index),
                    _ => None,
                };
                Some((*index, &**items, item))
            }
            (Loc::Key(key), Kind::Model { properties }) => {
                let index = properties.iter().position(|property| property.name == *key);
                index.map(|index| (index, &properties[index].node, field(given, key).map(|(_, field)| field)))
            }
            (Loc::Key(key), Kind::Dict { values, .. }) => {
                field(given, key).map(|(index, field)| (index, &**values, Some(field)))
            }
            _ => None,
        };
        let Some((index, declared, found)) = below else { break };
        place.push(index);
        (node, given) = (declared, found);
    }
    place
}

/// A field of an object, and its position there.
fn field<'g>(given: Option<&'g Json>, key: &str) -> Option<(usize, &'g Json)> {
    match given {
        Some(Json::Object(fields)) => fields.get_full(key).map(|(index, _, field)| (index, field)),
        _ => None,
    }
}

fn trimmed(text: &Text, given: &Json) -> Result<String, Fault> {
    let Json::String(sent) = given else {
        return Err(Fault::new("string_type", "Input should be a valid string"));
    };
    check_text(text, sent).map(str::to_owned)
}

/// Checks a text against its bounds, and trims it if its schema says so.
fn check_text<'t>(text: &Text, sent: &'t str) -> Result<&'t str, Fault> {
    work::spend(sent.len());
    // The reference trims the white space of Unicode, like `trim`. The `strip` of Python would also remove
    // U+001C to U+001F.
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
    Ok(read)
}

/// Checks the size and the depth of a value without a declared shape.
fn within_extent(extent: &Extent, given: &Json) -> Result<(), Fault> {
    let mut bytes = 0;
    let depth = measure(given, &mut bytes);
    if let Some(max) = extent.bytes.filter(|max| bytes > *max) {
        let msg = format!("Input should have at most {max} bytes as JSON, not {bytes}");
        return Err(Fault::with("json_too_large", msg, json!({ "max_bytes": max, "actual_bytes": bytes })));
    }
    if let Some(max) = extent.depth.filter(|max| depth > *max) {
        let msg = format!("Input should be nested at most {max} deep, not {depth}");
        return Err(Fault::with("json_too_deep", msg, json!({ "max_depth": max, "actual_depth": depth })));
    }
    Ok(())
}

/// The depth of a value. The function adds the value's length as JSON to `bytes`.
fn measure(given: &Json, bytes: &mut usize) -> usize {
    work::spend(1);
    match given {
        Json::Null | Json::Bool(true) => *bytes += 4,
        Json::Bool(false) => *bytes += 5,
        Json::Number(text) => *bytes += text.len(),
        Json::String(text) => *bytes += echo::json_length(text),
        Json::Array(items) => {
            *bytes += 2 + items.len().saturating_sub(1);
            return 1 + items.iter().map(|item| measure(item, bytes)).max().unwrap_or_default();
        }
        Json::Object(fields) => {
            *bytes += 2 + fields.len().saturating_sub(1);
            let deepest = fields.iter().map(|(key, value)| {
                *bytes += echo::json_length(key) + 1;
                measure(value, bytes)
            });
            return 1 + deepest.max().unwrap_or_default();
        }
    }
    0
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The value for an absent field; see [`super::body`].
fn filling(node: &Node) -> Option<Value> {
    match (&node.default, &node.kind) {
        (Some(default), _) => Some(default.clone()),
        (None, _) if node.nullable => Some(Value::Null),
        (None, Kind::Array { .. }) => Some(json!([])),
        (None, Kind::Dict { .. }) => Some(json!({})),
        _ => None,
    }
}
