//! From an answer to a result: filter, mapping, template, length. Tenants configure these steps and other
//! systems answer, so each step has its own limit.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::way::{Budget, Found, TooMuch, Way};

/// The steps from an answer to a result.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// The paths of the values to keep; `None` keeps all.
    pub filter: Option<Vec<String>>,
    /// New names, and the paths to their values; `None` keeps the names.
    pub mapping: Option<Map<String, Value>>,
    /// The path to the value that is the result.
    pub result_key: Option<String>,
    /// A text with `{paths}` that is the result.
    pub result_template: Option<String>,
    /// The maximum length of the result in characters; 0 for no limit.
    pub max_length: usize,
}

impl Shape {
    /// The answer after the filter, which is never larger.
    pub fn filtered(&self, value: &Value) -> Value {
        match &self.filter {
            None => value.clone(),
            Some(ways) => {
                let mut kept = Kept::default();
                ways.iter().filter_map(|way| Way::read(way)).for_each(|way| kept.add(&way));
                kept.of(value).unwrap_or(Value::Null)
            }
        }
    }

    /// The answer after the mapping, of at most `most` bytes of text.
    ///
    /// # Errors
    /// The result would be larger, or take too much work.
    pub fn mapped(&self, value: &Value, most: usize) -> Result<Value, TooMuch> {
        let Some(mapping) = &self.mapping else { return Ok(value.clone()) };
        let mut budget = Budget::of(most);
        let mut made = Map::new();
        for (name, way) in mapping {
            budget.spend(name.len() + 4)?;
            let found = match way.as_str().and_then(Way::read) {
                Some(way) => budget.look_up(value, &way)?,
                None => None,
            };
            let found = found.map(|found| budget.owned(&found)).transpose()?;
            made.insert(name.clone(), found.unwrap_or(Value::Null));
        }
        Ok(Value::Object(made))
    }

    /// The result as text, cut to its maximum length. If it is larger than the answer, it has at most `most`
    /// bytes.
    ///
    /// # Errors
    /// The result would be larger, or take too much work.
    pub fn finished(&self, value: &Value, most: usize) -> Result<String, TooMuch> {
        let text = match (&self.result_template, &self.result_key) {
            (Some(template), _) => self.rendered(template, value, most)?,
            (None, Some(way)) => {
                let mut budget = Budget::of(most);
                let found = match Way::read(way) {
                    Some(way) => budget.look_up(value, &way)?,
                    None => None,
                };
                match found {
                    Some(Found::One(found)) => as_text(found),
                    Some(many) => as_text(&budget.owned(&many)?),
                    None => String::new(),
                }
            }
            (None, None) => as_text(value),
        };
        match self.max_length {
            0 => Ok(text),
            most => Ok(text.chars().take(most).collect()),
        }
    }

    /// The template with every `{path}` that leads to a value replaced. Other braces stay.
    fn rendered(&self, template: &str, value: &Value, most: usize) -> Result<String, TooMuch> {
        let mut budget = Budget::of(most);
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, tail)) = rest.split_once('{') {
            budget.spend(before.len() + 1)?;
            text.push_str(before);
            // A character has at most four bytes, so the part that would be cut off is not even made.
            if self.max_length > 0 && text.len() / 4 >= self.max_length {
                return Ok(text);
            }
            let way = tail.split_once('}').and_then(|(way, after)| Some((Way::read(way.trim())?, after)));
            let filled = match way {
                Some((way, after)) => budget.look_up(value, &way)?.map(|found| (found, after)),
                None => None,
            };
            if let Some((found, after)) = filled {
                text.push_str(&as_text(&budget.owned(&found)?));
                rest = after;
            } else {
                text.push('{');
                rest = tail;
            }
        }
        text.push_str(rest);
        Ok(text)
    }
}

/// The paths of a filter as a tree, so that each field of an answer is visited once for all paths.
#[derive(Default)]
struct Kept<'w> {
    whole: bool,
    fields: BTreeMap<&'w str, Self>,
}

impl<'w> Kept<'w> {
    fn add(&mut self, way: &Way<'w>) {
        let end = way.steps().iter().fold(self, |at, step| at.fields.entry(step).or_default());
        end.whole = true;
    }

    /// The parts of `value` that the paths lead to, in its own structure.
    fn of(&self, value: &Value) -> Option<Value> {
        if self.whole {
            return Some(value.clone());
        }
        match value {
            Value::Array(items) => Some(items.iter().filter_map(|item| self.of(item)).collect()),
            Value::Object(fields) => {
                let kept = fields.iter().filter_map(|(name, field)| {
                    Some((name.clone(), self.fields.get(name.as_str())?.of(field)?))
                });
                Some(Value::Object(kept.collect()))
            }
            _ => None,
        }
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
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
        let mapped = shape.mapped(&filtered, 1000).unwrap();
        assert_eq!(mapped, json!({"ids": ["a", "b"], "first": "Ann", "none": null}));
        assert_eq!(shape.finished(&mapped, 1000).unwrap(), "Ann, then b; {unknown} {");
    }

    #[test]
    fn without_steps_the_answer_is_the_result() {
        let plain = Shape::default();
        assert_eq!(plain.filtered(&answer()), answer());
        assert_eq!(plain.finished(&json!("ok"), 1000).unwrap(), "ok");
        assert_eq!(plain.finished(&json!({"a": 1}), 1000).unwrap(), "{\"a\":1}");
        assert_eq!(plain.finished(&Value::Null, 1000).unwrap(), "");
    }

    #[test]
    fn a_result_is_cut_by_characters() {
        let cut = Shape { result_key: Some("name".into()), max_length: 3, ..Shape::default() };
        assert_eq!(cut.finished(&json!({"name": "Zürich"}), 1000).unwrap(), "Zür");
        assert_eq!(cut.finished(&json!({"other": 1}), 1000).unwrap(), "");
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
            shape.finished(&shape.mapped(&shape.filtered(&odd), 1000).unwrap(), 1000).unwrap();
        }
    }

    #[test]
    fn a_way_has_an_end() {
        let steps = |count: usize| vec!["a"; count].join(".");
        assert!(Way::read(&steps(32)).is_some() && Way::read(&steps(33)).is_none());
        assert!(Way::read(&"a".repeat(256)).is_some() && Way::read(&"a".repeat(257)).is_none());
        for none in ["", ".", "a.", ".a", "a..b"] {
            assert_eq!(Way::read(none), None, "{none}");
        }
        // As many steps as a request's body can hold, on lists into which every step could continue.
        let endless = ".".repeat(1 << 20);
        let shape = Shape {
            mapping: json!({ "x": endless }).as_object().cloned(),
            filter: Some(vec![endless.clone()]),
            result_template: Some(format!("{{{endless}}}")),
            ..Shape::default()
        };
        let odd = json!([[], [[]]]);
        shape.filtered(&odd);
        assert_eq!(shape.mapped(&odd, 1000), Ok(json!({ "x": null })));
        let key = Shape { result_key: Some(endless), ..Shape::default() };
        assert_eq!(key.finished(&odd, 1000), Ok(String::new()));
    }

    #[test]
    fn no_more_is_made_of_an_answer_than_may_be() {
        let answer = json!({ "a": "x".repeat(1000) });
        let mapping: Map<String, Value> = (0..100).map(|index| (index.to_string(), json!("a"))).collect();
        let mapped = Shape { mapping: Some(mapping), ..Shape::default() };
        assert_eq!(mapped.mapped(&answer, 2000), Err(TooMuch));
        assert!(mapped.mapped(&answer, 200_000).is_ok());
        let template = Shape { result_template: Some("{a}".repeat(100)), ..Shape::default() };
        assert_eq!(template.finished(&answer, 2000), Err(TooMuch));
        assert_eq!(template.finished(&answer, 200_000).unwrap().len(), 100_000);
        let cut = Shape { max_length: 10, ..template };
        assert_eq!(cut.finished(&answer, 2000).unwrap(), "x".repeat(10), "what is cut off is not made");
    }

    #[test]
    fn the_work_on_an_answer_has_an_end_too() {
        let wide = Value::Array(vec![json!([]); 100_000]);
        let long = vec!["a"; 32].join(".");
        let mapping: Map<String, Value> = (0..100).map(|index| (index.to_string(), json!(long))).collect();
        let shape = Shape { mapping: Some(mapping), ..Shape::default() };
        assert_eq!(shape.mapped(&wide, usize::MAX), Err(TooMuch));
    }
}
