//! Checks every answer against the served document.

use std::collections::HashMap;
use std::sync::LazyLock;

use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};

use crate::Answer;

pub const DOCUMENT: &str = include_str!("../../../contract/openapi.json");

/// One operation's declared answers by status.
struct DeclaredOperation {
    method: String,
    segments: Vec<String>,
    statuses: HashMap<u16, Response>,
}

/// One declared answer: its headers, and a validator if it has a JSON schema.
struct Response {
    headers: Vec<String>,
    body: Option<Validator>,
}

/// Headers of HTTP itself and of browsers, which the document does not declare.
const GENERAL: [&str; 16] = [
    "access-control-allow-credentials",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "referrer-policy",
    "transfer-encoding",
    "vary",
    "x-content-type-options",
    "x-frame-options",
];

static OPERATIONS: LazyLock<Vec<DeclaredOperation>> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(DOCUMENT).expect("the document is JSON");
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("a path item") {
            let Some(responses) = operation["responses"].as_object() else { continue };
            let statuses = responses.iter().map(|(status, response)| {
                let schema = &response["content"]["application/json"]["schema"];
                let body = schema.is_object().then(|| validator(&document, schema));
                let headers = response["headers"].as_object().into_iter().flatten();
                let headers = headers.map(|(name, _)| name.clone()).collect();
                (status.parse().expect("a status"), Response { headers, body })
            });
            operations.push(DeclaredOperation {
                method: method.to_uppercase(),
                segments: path.split('/').map(str::to_owned).collect(),
                statuses: statuses.collect(),
            });
        }
    }
    operations
});

fn validator(document: &Value, schema: &Value) -> Validator {
    let whole = json!({ "allOf": [schema], "components": document["components"] });
    jsonschema::options().should_validate_formats(true).build(&whole).expect("a response schema compiles")
}

/// The operation of a request. As in the router, the path decides before the method. Of several matching
/// paths, the one with earlier literal segments wins.
fn operation(method: &Method, path: &str) -> Option<&'static DeclaredOperation> {
    let path = path.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').collect();
    let literal = |segment: &String| !segment.starts_with('{');
    let fits = |declared: &&DeclaredOperation| {
        let mut pairs = declared.segments.iter().zip(&segments);
        declared.segments.len() == segments.len()
            && pairs.all(|(known, given)| !literal(known) || known == given)
    };
    let closeness =
        |declared: &&DeclaredOperation| declared.segments.iter().map(literal).collect::<Vec<bool>>();
    let closest = OPERATIONS.iter().filter(fits).map(|declared| closeness(&declared)).max()?;
    let mut served = OPERATIONS.iter().filter(fits).filter(|declared| closeness(declared) == closest);
    served.find(|declared| declared.method == method.as_str())
}

/// Fails the test if the answer does not match the document.
#[track_caller]
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let what = format!("{method} {path}: {} {}", answer.status, answer.text);
    assert!(!answer.header("x-request-id").is_empty(), "no request id: {what}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{what}");
    let status = answer.status.as_u16();
    if status == 204 {
        assert!(answer.text.is_empty(), "a body: {what}");
    }
    let body: Option<Value> = serde_json::from_str(&answer.text).ok();
    if status >= 400 && method != Method::HEAD {
        let body = body.as_ref().unwrap_or_else(|| panic!("an error that is not JSON: {what}"));
        assert_eq!(answer.header("content-type"), "application/json", "{what}");
        if body["detail"].is_array() {
            assert_eq!(status, 422, "{what}");
        } else {
            let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
            let keys: Vec<_> = keys.into_iter().filter(|key| *key != "quota").collect();
            // Every 403 has its reasons. No other error has them, so a 401 and a 404 tell a stranger nothing.
            let reasons: &[&str] = if status == 403 { &["missing", "because"] } else { &[] };
            assert_eq!(keys, [&["detail", "error_code", "request_id"], reasons].concat(), "{what}");
            assert_eq!(body["request_id"].as_str(), Some(answer.header("x-request-id")), "{what}");
        }
    }
    if status == 401 {
        // The challenge has the same error as the body. The answer to HEAD has no body.
        let challenge = answer.header("www-authenticate");
        let error = match body.as_ref().and_then(|body| body["error_code"].as_str()) {
            Some("unauthorized") | None => "invalid_token",
            Some(code) => code,
        };
        let of_proof = format!("DPoP algs=\"ES256 ES384 EdDSA Ed25519 PS256 RS256\", error=\"{error}\"");
        let expected = error == "invalid_token" && challenge == "Bearer" || challenge == of_proof;
        assert!(expected, "{challenge}: {what}");
    }
    // RFC 9110, section 9.3.2: HEAD has the answer of GET without its body.
    let meant = if method == Method::HEAD && status != 405 { &Method::GET } else { method };
    if status == 303 && path == "/" {
        return;
    }
    let Some(declared) = operation(meant, path) else {
        assert!(status == 404 || status == 405, "no operation, and yet: {what}");
        return;
    };
    let Some(response) = declared.statuses.get(&status) else {
        panic!("a status that is not declared: {what}")
    };
    for name in answer.headers.keys().map(reqwest::header::HeaderName::as_str) {
        let known = GENERAL.contains(&name) || response.headers.iter().any(|declared| declared == name);
        assert!(known, "the header {name} is not declared: {what}");
    }
    let (Some(schema), Some(body)) = (&response.body, body) else { return };
    let problems: Vec<String> =
        schema.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "{what}\ndoes not fit: {problems:#?}");
}
