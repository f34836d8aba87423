//! From an answer to a result: filter, mapping, template, length. All ways to a value are names with dots between:
//! `entry.resource.id`; a list is walked item by item, or by index where the step is a number.

use serde_json::{Map, Value};

/// What is made of an answer.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// The values to keep; `None` keeps all.
    pub filter: Option<Vec<String>>,
    /// New names, and the ways to their values; `None` leaves the names alone.
    pub mapping: Option<Map<String, Value>>,
    /// The way to the one value that is the result.
    pub result_key: Option<String>,
    /// A text with `{ways}` in it that is the result.
    pub result_template: Option<String>,
    /// The longest result, characters; 0 for no bound.
    pub max_length: usize,
}

impl Shape {
    /// What the filter leaves.
    pub fn filtered(&self, value: &Value) -> Value {
        match &self.filter {
            None => value.clone(),
            Some(ways) => {
                let ways: Vec<Vec<&str>> = ways.iter().map(|way| way.split('.').collect()).collect();
                let ways: Vec<&[&str]> = ways.iter().map(Vec::as_slice).collect();
                keep(value, &ways).unwrap_or(Value::Null)
            }
        }
    }

    /// What the mapping makes of that.
    pub fn mapped(&self, value: &Value) -> Value {
        match &self.mapping {
            None => value.clone(),
            Some(mapping) => {
                let found = mapping.iter().map(|(name, way)| {
                    let found = way.as_str().and_then(|way| look_up(value, way)).unwrap_or(Value::Null);
                    (name.clone(), found)
                });
                Value::Object(found.collect())
            }
        }
    }

    /// The result, as text.
    pub fn finished(&self, value: &Value) -> String {
        let text = match (&self.result_template, &self.result_key) {
            (Some(template), _) => rendered(template, value),
            (None, Some(way)) => look_up(value, way).as_ref().map(as_text).unwrap_or_default(),
            (None, None) => as_text(value),
        };
        match self.max_length {
            0 => text,
            most => text.chars().take(most).collect(),
        }
    }
}

/// `value` with only what the ways lead to, in its own structure.
fn keep(value: &Value, ways: &[&[&str]]) -> Option<Value> {
    if ways.iter().any(|way| way.is_empty()) {
        return Some(value.clone());
    }
    match value {
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(|item| keep(item, ways)).collect())),
        Value::Object(fields) => {
            let kept: Map<String, Value> = fields
                .iter()
                .filter_map(|(name, field)| {
                    let on: Vec<&[&str]> =
                        ways.iter().filter(|way| way[0] == name).map(|way| &way[1..]).collect();
                    if on.is_empty() { None } else { Some((name.clone(), keep(field, &on)?)) }
                })
                .collect();
            Some(Value::Object(kept))
        }
        _ => None,
    }
}

fn look_up(value: &Value, way: &str) -> Option<Value> {
    let Some((step, rest)) = way.split_once('.') else { return one_step(value, way) };
    look_up(&one_step(value, step)?, rest)
}

fn one_step(value: &Value, step: &str) -> Option<Value> {
    match value {
        Value::Object(fields) => fields.get(step).cloned(),
        Value::Array(items) => match step.parse::<usize>() {
            Ok(index) => items.get(index).cloned(),
            Err(_) => Some(Value::Array(items.iter().filter_map(|item| one_step(item, step)).collect())),
        },
        _ => None,
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The template with every `{way}` that leads somewhere replaced; braces around anything else stay.
fn rendered(template: &str, value: &Value) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, tail)) = rest.split_once('{') {
        text.push_str(before);
        let filled = tail.split_once('}').and_then(|(way, after)| Some((look_up(value, way.trim())?, after)));
        if let Some((found, after)) = filled {
            text.push_str(&as_text(&found));
            rest = after;
        } else {
            text.push('{');
            rest = tail;
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        json!({
            "total": 2,
            "secret": "no",
            "entry": [
                {"resource": {"id": "a", "name": "Ann", "x": 1}},
                {"resource": {"id": "b", "name": "Bob", "x": 2}},
            ],
        })
    }

    #[test]
    fn the_steps_follow_each_other() {
        let shape = Shape {
            filter: Some(vec!["total".into(), "entry.resource.id".into(), "entry.resource.name".into()]),
            mapping: json!({"ids": "entry.resource.id", "first": "entry.0.resource.name", "none": "a.b"})
                .as_object()
                .cloned(),
            result_template: Some("{first}, then {ids.1}; {unknown} {".into()),
            ..Shape::default()
        };
        let filtered = shape.filtered(&answer());
        assert_eq!(
            filtered,
            json!({"total": 2, "entry": [{"resource": {"id": "a", "name": "Ann"}}, {"resource": {"id": "b", "name": "Bob"}}]})
        );
        let mapped = shape.mapped(&filtered);
        assert_eq!(mapped, json!({"ids": ["a", "b"], "first": "Ann", "none": null}));
        assert_eq!(shape.finished(&mapped), "Ann, then b; {unknown} {");
    }

    #[test]
    fn without_steps_the_answer_is_the_result() {
        let plain = Shape::default();
        assert_eq!(plain.filtered(&answer()), answer());
        assert_eq!(plain.finished(&json!("ok")), "ok");
        assert_eq!(plain.finished(&json!({"a": 1})), "{\"a\":1}");
        assert_eq!(plain.finished(&Value::Null), "");
    }

    #[test]
    fn a_result_is_cut_by_characters() {
        let cut = Shape { result_key: Some("name".into()), max_length: 3, ..Shape::default() };
        assert_eq!(cut.finished(&json!({"name": "Zürich"})), "Zür");
        assert_eq!(cut.finished(&json!({"other": 1})), "");
    }

    #[test]
    fn nothing_the_other_side_sends_is_too_odd() {
        let shape = Shape {
            filter: Some(vec!["a.b".into(), String::new()]),
            mapping: json!({"x": "..", "y": "a."}).as_object().cloned(),
            result_key: Some("x".into()),
            ..Shape::default()
        };
        for odd in
            [json!(null), json!(1), json!("t"), json!([]), json!([[[1]]]), json!({"a": [1, {"b": {}}]})]
        {
            shape.finished(&shape.mapped(&shape.filtered(&odd)));
        }
    }
}
