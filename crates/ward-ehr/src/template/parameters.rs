//! Checks the parameters of a call before anything is sent.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{LONGEST_PATH, Part, flat, parts, segment};

const RESERVED_VALUE: &str = "must not hold a slash, a backslash or a dot segment in any encoding, unless the endpoint sets allow_reserved";
const DOT_SEGMENT: &str = "must not make a step of the path . or ..";
const TOO_LONG: &str = "makes the path longer than 8,192 characters";
const UNKNOWN: &str = "is neither a placeholder of the endpoint's path nor named by its input_schema";

/// A parameter of a call and its fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongParameter {
    /// The name of the faulty parameter.
    pub name: String,
    /// The fault, as the end of a sentence. It never repeats the value.
    pub message: &'static str,
}

/// Checks the parameters of a call against the path's template and the other names that the endpoint
/// declares. `allow_reserved`: whether a value may contain characters that some servers read as the end of
/// its segment. A parameter with several faults is reported once.
pub fn wrong_parameters(
    path: &str,
    declared: &[&str],
    params: &Map<String, Value>,
    allow_reserved: bool,
) -> Vec<WrongParameter> {
    let Ok(parts) = parts(path) else { return Vec::new() };
    let mut judge = Judge { allow_reserved, segment: String::new(), last: None, added: 0, wrong: Vec::new() };
    let mut placeholders: HashSet<&str> = HashSet::new();
    let mut in_query = false;
    for part in &parts {
        match part {
            Part::Text(_) if in_query => {}
            Part::Text(text) => {
                judge.text(text.split('?').next().unwrap_or_default());
                in_query = text.contains('?');
            }
            Part::Placeholder(name) => {
                placeholders.insert(name);
                judge.placeholder(name, flat(params.get(*name)), in_query);
            }
        }
    }
    judge.end_segment();
    let declared: HashSet<&str> = declared.iter().copied().collect();
    let known = |name: &str| placeholders.contains(name) || declared.contains(name);
    let unknown = params.keys().filter(|name| !known(name));
    judge.wrong.extend(unknown.map(|name| WrongParameter { name: name.clone(), message: UNKNOWN }));
    judge.wrong
}

struct Judge<'t> {
    allow_reserved: bool,
    /// The segment so far, in the form that its check needs.
    segment: String,
    /// The last parameter in the segment.
    last: Option<&'t str>,
    /// The number of characters that the values add to the path.
    added: usize,
    wrong: Vec<WrongParameter>,
}

impl<'t> Judge<'t> {
    fn fail(&mut self, name: &str, message: &'static str) {
        if !self.wrong.iter().any(|known| known.name == name) {
            self.wrong.push(WrongParameter { name: name.to_owned(), message });
        }
    }

    fn text(&mut self, text: &str) {
        for (index, step) in text.split('/').enumerate() {
            if index > 0 {
                self.end_segment();
            }
            self.segment.push_str(&segment::neutral(step));
        }
    }

    fn placeholder(&mut self, name: &'t str, value: Result<String, &'static str>, in_query: bool) {
        self.added += value.as_ref().map_or(0, String::len);
        match value {
            Err(message) => self.fail(name, message),
            Ok(_) if self.added > LONGEST_PATH => self.fail(name, TOO_LONG),
            Ok(_) if in_query => {}
            Ok(value) if value.is_empty() => self.fail(name, "must not be empty"),
            Ok(value) => {
                if !self.allow_reserved && !segment::is_plain(&value) {
                    self.fail(name, RESERVED_VALUE);
                }
                self.segment.push_str(&value);
                self.last = Some(name);
            }
        }
    }

    /// Checks the finished segment as a whole: harmless values can form a dot segment together.
    fn end_segment(&mut self) {
        let (segment, last) = (std::mem::take(&mut self.segment), self.last.take());
        let Some(name) = last else { return };
        if matches!(segment.as_str(), "." | "..") {
            self.fail(name, DOT_SEGMENT);
        } else if !self.allow_reserved && !segment::is_plain(&segment) {
            self.fail(name, RESERVED_VALUE);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(path: &str, params: &Value, allow_reserved: bool) -> Vec<String> {
        let declared = ["day"];
        let params = params.as_object().unwrap();
        let wrong = wrong_parameters(path, &declared, params, allow_reserved);
        wrong.into_iter().map(|it| it.name).collect()
    }

    #[test]
    fn each_wrong_parameter_is_named_once() {
        let path = "/patients/{id}/notes?since={since}";
        let none: [&str; 0] = [];
        assert_eq!(wrong(path, &json!({ "id": "1", "since": "a/b", "day": "x/y" }), false), none);
        assert_eq!(
            wrong(path, &json!({ "id": "1", "since": "", "limit": 5, "more": 1 }), false),
            ["limit", "more"]
        );
        assert_eq!(wrong(path, &json!({ "id": "../x" }), false), ["id", "since"]);
        assert_eq!(wrong(path, &json!({ "id": [1], "since": {} }), true), ["id", "since"]);
        for value in ["a/b", "%2F", "\u{FF0F}", "..%2f"] {
            assert_eq!(wrong("/{id}", &json!({ "id": value }), false), ["id"], "{value}");
            assert_eq!(wrong("/{id}", &json!({ "id": value }), true), none, "{value}");
        }
        assert_eq!(wrong("/{id}", &json!({ "id": ".." }), true), ["id"], "no URL carries it");
    }

    #[test]
    fn values_are_judged_together_with_their_neighbours() {
        let none: [&str; 0] = [];
        assert_eq!(wrong("/{a}{b}/x", &json!({ "a": ".", "b": "x" }), false), ["a"]);
        assert_eq!(wrong("/{a}{b}", &json!({ "a": "%2", "b": "F" }), false), ["b"]);
        assert_eq!(wrong("/.{a}/x", &json!({ "a": ".;y" }), false), ["a"]);
        assert_eq!(wrong("/x%25{a}", &json!({ "a": "2F" }), false), ["a"]);
        assert_eq!(wrong("/a%2Fb/{a}.json", &json!({ "a": "1" }), false), none);
    }
}
