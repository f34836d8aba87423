//! Answers, and access to the fields of their JSON.

use reqwest::StatusCode;
use serde_json::Value;

/// The answer to a request, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    /// The body, which must be UTF-8 text.
    pub text: String,
}

impl Answer {
    /// The body as JSON; the answer must have this status.
    #[track_caller]
    pub fn expect(self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { serde_json::from_str(&self.text).expect("JSON") }
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        self.expect(StatusCode::OK)
    }

    #[track_caller]
    pub fn created(self) -> Value {
        self.expect(StatusCode::CREATED)
    }

    /// Checks that the answer is a 204, which has no body.
    #[track_caller]
    pub fn no_content(self) {
        self.expect(StatusCode::NO_CONTENT);
    }

    /// Checks that the request was refused with this status and this `error_code`.
    #[track_caller]
    pub fn refused_as(self, status: u16, error_code: &str) {
        assert_eq!(self.refused(status), error_code);
    }

    /// The `error_code`; the answer must have this status.
    #[track_caller]
    pub fn refused(self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let body: Value = serde_json::from_str(&self.text).expect("JSON");
        body["error_code"].as_str().unwrap_or("validation_error").to_owned()
    }

    /// The body without the fields that identify this request.
    #[track_caller]
    pub fn anonymized(&self) -> Value {
        let mut body: Value = serde_json::from_str(&self.text).expect("JSON");
        body.as_object_mut().expect("an object").shift_remove("request_id");
        body
    }

    /// The location and message of each problem of a 422, in order.
    #[track_caller]
    pub fn problems(&self) -> Vec<(String, String)> {
        assert_eq!(self.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", self.text);
        let body: Value = serde_json::from_str(&self.text).expect("JSON");
        let problems = body["detail"].as_array().expect("a list of problems");
        problems
            .iter()
            .map(|problem| {
                let steps = problem["loc"].as_array().expect("a loc").iter();
                let steps: Vec<String> =
                    steps.map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned)).collect();
                (steps.join("."), problem["msg"].as_str().expect("a sentence").to_owned())
            })
            .collect()
    }

    /// The locations of the problems of a 422, in order.
    #[track_caller]
    pub fn problem_locs(&self) -> Vec<String> {
        self.problems().into_iter().map(|(at, _)| at).collect()
    }

    /// A header's value; empty if the header is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Access to the fields of a JSON object. A missing field, or one of another type, fails the test.
pub trait Fields {
    fn text(&self, field: &str) -> &str;

    fn list(&self, field: &str) -> &Vec<Value>;

    /// One text field of every object in an array, in the array's order.
    fn texts(&self, list: &str, field: &str) -> Vec<&str>;

    /// The values of these fields as an array, so that one assertion compares them all. `null` where a field is absent.
    fn fields<const N: usize>(&self, names: [&str; N]) -> Value;
}

impl Fields for Value {
    #[track_caller]
    fn text(&self, field: &str) -> &str {
        self[field].as_str().unwrap_or_else(|| panic!("no text in {field}: {self}"))
    }

    #[track_caller]
    fn list(&self, field: &str) -> &Vec<Value> {
        self[field].as_array().unwrap_or_else(|| panic!("no array in {field}: {self}"))
    }

    #[track_caller]
    fn texts(&self, list: &str, field: &str) -> Vec<&str> {
        self.list(list).iter().map(|object| object.text(field)).collect()
    }

    fn fields<const N: usize>(&self, names: [&str; N]) -> Value {
        names.iter().map(|name| self[name].clone()).collect()
    }
}
