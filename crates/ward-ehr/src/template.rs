//! Paths with `{placeholders}`, and the URLs made from them.

mod parameters;
mod segment;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use url::Url;

use crate::Failure;

pub use parameters::{WrongParameter, wrong_parameters};

/// Everything but the unreserved characters (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The maximum number of characters that values may add to a path. Few servers accept longer paths.
const LONGEST_PATH: usize = 8192;

#[derive(Debug, PartialEq, Eq)]
enum Part<'t> {
    Text(&'t str),
    Placeholder(&'t str),
}

fn parts(template: &str) -> Result<Vec<Part<'_>>, &'static str> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        let (text, tail) = rest.split_at(open);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        let inside = tail.strip_prefix('{').ok_or("a closing brace without its opening one")?;
        let (name, after) = inside.split_once('}').ok_or("an opening brace without its closing one")?;
        let first_is_fine = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if !first_is_fine || !name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
            return Err("a placeholder is a name of letters, digits and underscores in braces");
        }
        parts.push(Part::Placeholder(name));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    Ok(parts)
}

/// Whether a text has placeholders left to fill.
pub fn is_unfinished(text: &str) -> bool {
    text.contains('{')
}

/// Checks an endpoint's path.
///
/// # Errors
/// The fault, as the end of a sentence.
pub fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') || path.starts_with("//") {
        return Err("a path must start with one slash");
    }
    for part in parts(path)? {
        if let Part::Text(text) = part {
            // The characters that a URL's path and query may contain (RFC 3986 sections 3.3 and 3.4). The
            // apostrophe is excluded, because some parsers escape it and some do not.
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&()*+,;=:@/?%".contains(&byte);
            if !text.bytes().all(fine) {
                return Err("a path must consist of the characters of a URL, without a fragment");
            }
        }
    }
    let (steps, query) = path.split_once('?').unwrap_or((path, ""));
    if query.contains('?') {
        return Err("a path has one query at most");
    }
    let dots = |step: &str| matches!(step.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if steps.split('/').any(dots) {
        return Err("a path must not have . or .. as a step");
    }
    Ok(())
}

/// A placeholder's value as plain text.
fn flat(value: Option<&Value>) -> Result<String, &'static str> {
    match value {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(_) => Err("must be a text, a number or a flag"),
        None => Err("is missing"),
    }
}

/// A path with its placeholders filled in from `params`, each value percent-encoded as one segment. The
/// second part has the names of the parameters that were used.
///
/// # Errors
/// A parameter is missing, is not a plain value, or would change the structure of the path.
pub fn fill<'t>(path: &'t str, params: &Map<String, Value>) -> Result<(String, Vec<&'t str>), Failure> {
    let wrong = |name: &str, what: &str| Err(Failure::misconfigured(format!("the parameter {name} {what}")));
    let mut filled = String::with_capacity(path.len());
    let (mut used, mut in_query, mut added) = (Vec::new(), false, 0);
    for part in parts(path).map_err(Failure::misconfigured)? {
        match part {
            Part::Text(text) => filled.push_str(text),
            Part::Placeholder(name) => {
                let value = match flat(params.get(name)) {
                    Ok(value) => value,
                    Err(message) => return wrong(name, message),
                };
                in_query = in_query || filled.contains('?');
                if value.is_empty() && !in_query {
                    return wrong(name, "must not be empty");
                }
                added += value.len();
                if added > LONGEST_PATH {
                    return wrong(name, "is too long for a path");
                }
                filled.extend(utf8_percent_encode(&value, RESERVED));
                used.push(name);
            }
        }
    }
    let steps = filled.split('?').next().unwrap_or_default();
    if steps.split('/').any(|step| matches!(step, "." | "..")) {
        return Err(Failure::misconfigured("a parameter must not turn a step of the path into . or .."));
    }
    Ok((filled, used))
}

/// The URL of a path below a base URL.
///
/// # Errors
/// The base has placeholders left or is not a URL, or parsing the URL would change the path.
pub fn below(base: &str, path: &str) -> Result<Url, Failure> {
    if base.is_empty() {
        return Err(Failure::misconfigured("no base_url is configured"));
    }
    if is_unfinished(base) {
        return Err(Failure::misconfigured("base_url still has placeholders to fill in"));
    }
    let base = base.trim_end_matches('/');
    let root = Url::parse(base).map_err(|_| Failure::misconfigured("base_url is not a URL"))?;
    let url = Url::parse(&format!("{base}{path}"))
        .map_err(|_| Failure::misconfigured("base_url and path do not form a URL"))?;
    if url.origin() != root.origin() || !url.as_str().ends_with(path) {
        return Err(Failure::misconfigured("a URL would not keep the path unchanged"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(path: &str, params: Value) -> Result<String, String> {
        let Value::Object(params) = params else { unreachable!() };
        let (path, _) = fill(path, &params).map_err(|failure| failure.message)?;
        below("https://ehr.example/base", &path).map(|url| url.to_string()).map_err(|failure| failure.message)
    }

    #[test]
    fn a_value_stays_one_segment_whatever_it_holds() {
        for (value, url) in [
            (json!("42"), "https://ehr.example/base/patients/42/notes"),
            (json!(42), "https://ehr.example/base/patients/42/notes"),
            (json!(true), "https://ehr.example/base/patients/true/notes"),
            (json!("a/b"), "https://ehr.example/base/patients/a%2Fb/notes"),
            (json!("../../admin"), "https://ehr.example/base/patients/..%2F..%2Fadmin/notes"),
            (json!("a?b=c#d"), "https://ehr.example/base/patients/a%3Fb%3Dc%23d/notes"),
            (json!("%2e%2e"), "https://ehr.example/base/patients/%252e%252e/notes"),
            (json!("a b\\c@d:'e"), "https://ehr.example/base/patients/a%20b%5Cc%40d%3A%27e/notes"),
            (json!("Zürich\r\nX: y"), "https://ehr.example/base/patients/Z%C3%BCrich%0D%0AX%3A%20y/notes"),
            (json!("..."), "https://ehr.example/base/patients/.../notes"),
        ] {
            assert_eq!(filled("/patients/{id}/notes", json!({ "id": value })).as_deref(), Ok(url));
        }
        let url = filled("/p?q={q}&n={n}", json!({ "q": "a&b=c", "n": "" }));
        assert_eq!(url.as_deref(), Ok("https://ehr.example/base/p?q=a%26b%3Dc&n="));
    }

    #[test]
    fn what_would_be_another_path_is_refused() {
        for value in [json!(".."), json!("."), json!(""), json!(null), json!([1]), json!({})] {
            assert!(filled("/patients/{id}/notes", json!({ "id": value })).is_err(), "{value}");
        }
        assert!(filled("/patients/{id}", json!({})).is_err());
        // Each value is harmless alone, but together they are dots.
        assert!(filled("/patients/{a}{b}/x", json!({ "a": ".", "b": "." })).is_err());
    }

    #[test]
    fn paths_are_judged_before_they_are_kept() {
        for good in [
            "/",
            "/a/b",
            "/a/{b}",
            "/a/{b}.json",
            "/a?x={y}&z=1",
            "/$export",
            "/Patient/{id}/$everything",
            "/a%20b",
        ] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a",
            "//evil.example/x",
            "/a/../b",
            "/a/%2e%2E/b",
            "/./a",
            "/a#b",
            "/a b",
            "/a\\b",
            "/a'b",
            "/{",
            "/}",
            "/{}",
            "/{a b}",
            "/{1}",
            "/{a{b}}",
            "/a?b?c",
            "/\u{0}",
            "/ü",
        ] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unfinished_base_is_told_from_a_wrong_one() {
        let told = |base: &str| below(base, "/x").map(|_| ()).unwrap_err().message;
        assert!(told("https://{host}/fhir").contains("placeholders"));
        assert!(told("").contains("no base_url"));
        assert!(told("ehr.example").contains("not a URL"));
    }
}
