//! Forms: the values that a visitor sent, and the API's problems with them, at their fields.

use http::StatusCode;
use serde_json::Value;

/// The fields of a form or of a query, in order. A name may come several times.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn parse(encoded: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(encoded);
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// The trimmed value of a field. Empty if it was not sent.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// The value of a field with its white space. Empty if it was not sent.
    pub fn whole(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The value of a field that is not empty.
    pub fn given(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|value| !value.is_empty())
    }

    /// Every value of a field with several.
    pub fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether one of the field's values is this one.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.all(name).any(|sent| sent == value)
    }

    /// Sets a field, as a form shows it first.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    /// A whole number as JSON. Other texts stay texts, so that the API names the problem.
    pub fn number(&self, name: &str) -> Value {
        let text = self.get(name);
        text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from)
    }

    /// A text, or null if it is empty.
    pub fn text_or_null(&self, name: &str) -> Value {
        self.given(name).map_or(Value::Null, Value::from)
    }

    /// The items of a field with one per line, or separated by commas.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let items = self.get(name).split(['\n', ',']).map(str::trim);
        items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }
}

/// The problems of a form: those of its fields, and those of the whole.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    pub general: Vec<String>,
    fields: Vec<(String, String)>,
    pub status: Option<StatusCode>,
}

impl Problems {
    pub fn general(said: impl Into<String>) -> Self {
        Self { general: vec![said.into()], ..Self::default() }
    }

    /// The same problems, which answer with this status.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status: Some(status), ..self }
    }

    pub fn at_field(name: &str, said: impl Into<String>) -> Self {
        let status = Some(StatusCode::UNPROCESSABLE_ENTITY);
        Self { fields: vec![(name.to_owned(), said.into())], general: Vec::new(), status }
    }

    /// The problems that an answer of the API names. A place in the body is a field of the form by its dotted path, such as
    /// `auth.client_id`.
    pub fn of_answer(status: StatusCode, body: &[u8]) -> Self {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut problems = Self { status: Some(status), ..Self::default() };
        match &said["detail"] {
            Value::String(sentence) => {
                let id = said["request_id"].as_str().filter(|_| status.is_server_error());
                let id = id.map(|id| format!(" Request {id}.")).unwrap_or_default();
                problems.general.push(format!("{sentence}{id}"));
            }
            Value::Array(details) => {
                for detail in details {
                    problems.add(detail);
                }
            }
            _ => problems.general.push(format!("The API answered with status {}.", status.as_u16())),
        }
        problems
    }

    fn add(&mut self, detail: &Value) {
        let place: Vec<String> = detail["loc"].as_array().into_iter().flatten().skip(1).map(plain).collect();
        let said = sentence(detail["msg"].as_str().unwrap_or("This value is not accepted."));
        if place.is_empty() {
            self.general.push(said);
        } else {
            self.fields.push((place.join("."), said));
        }
    }

    /// The problems of a field and of the parts of its value. The text is empty without any.
    pub fn at(&self, name: &str) -> String {
        let said =
            self.fields.iter().filter_map(|(place, said)| {
                let rest = place.strip_prefix(name)?;
                if rest.is_empty() {
                    return Some(said.clone());
                }
                // A secret is an object with its value.
                let item = rest.strip_prefix('.')?;
                if item == "value" {
                    return Some(said.clone());
                }
                Some(item.parse::<usize>().map_or_else(
                    |_| format!("{item}: {said}"),
                    |index| format!("Item {}: {said}", index + 1),
                ))
            });
        said.collect::<Vec<_>>().join(" ")
    }

    /// Every problem as a sentence, for a page without the form.
    pub fn sentences(&self) -> Vec<String> {
        [self.general.clone(), self.elsewhere(&[])].concat()
    }

    pub fn is_empty(&self) -> bool {
        self.general.is_empty() && self.fields.is_empty()
    }

    /// The problems that no field of the form shows, with their places.
    fn elsewhere(&self, shown: &[&str]) -> Vec<String> {
        let is_shown = |place: &str| {
            shown.iter().any(|name| {
                place == *name || place.strip_prefix(*name).is_some_and(|rest| rest.starts_with('.'))
            })
        };
        let rest = self.fields.iter().filter(|(place, _)| !is_shown(place));
        rest.map(|(place, said)| format!("{place}: {said}")).collect()
    }
}

fn plain(part: &Value) -> String {
    part.as_str().map_or_else(|| part.to_string(), str::to_owned)
}

/// A message of the API as a sentence.
fn sentence(message: &str) -> String {
    let message = message.strip_prefix("Value error, ").unwrap_or(message);
    let mut letters = message.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if message.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

/// A form on a page: its values, its problems, and the hidden fields of every form.
#[derive(Clone, Debug, Default)]
pub struct Form {
    pub fields: Fields,
    pub problems: Problems,
    /// The session's token. Empty without a session.
    pub csrf: String,
    /// The idempotency key of its write, so that a repeated form does nothing twice.
    pub repeat: String,
}

impl Form {
    pub fn value(&self, name: &str) -> &str {
        self.fields.whole(name)
    }

    pub fn error(&self, name: &str) -> String {
        self.problems.at(name)
    }

    pub fn has(&self, name: &str, value: &str) -> bool {
        self.fields.has(name, value)
    }

    /// The problems that stand above the form, because none of these fields shows them.
    pub fn above(&self, shown: &[&str]) -> Vec<String> {
        [self.problems.general.clone(), self.problems.elsewhere(shown)].concat()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_with_details_says_each_at_its_field() {
        let body = json!({ "detail": [
            { "type": "string_too_short", "loc": ["body", "name"], "msg": "String should have at least 1 character" },
            { "type": "value_error", "loc": ["body", "numbers", 1], "msg": "Value error, it has letters." },
            { "type": "missing", "loc": ["body", "auth", "client_id"], "msg": "Field required" },
        ] });
        let problems = Problems::of_answer(StatusCode::UNPROCESSABLE_ENTITY, body.to_string().as_bytes());
        assert_eq!(problems.at("name"), "String should have at least 1 character.");
        assert_eq!(problems.at("numbers"), "Item 2: It has letters.");
        assert_eq!(problems.at("nam"), "");
        let form = Form { problems, ..Form::default() };
        assert_eq!(form.above(&["name", "numbers"]), ["auth.client_id: Field required."]);
    }

    #[test]
    fn a_refusal_of_the_server_has_the_id_of_its_request() {
        let body = json!({ "detail": "The database is busy.", "error_code": "busy", "request_id": "r-1" });
        let text = body.to_string();
        let of = |status| Problems::of_answer(status, text.as_bytes()).general.concat();
        assert_eq!(of(StatusCode::SERVICE_UNAVAILABLE), "The database is busy. Request r-1.");
        assert_eq!(of(StatusCode::CONFLICT), "The database is busy.");
    }
}
