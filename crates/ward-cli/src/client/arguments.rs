//! From the arguments of a command line to a request: `NAME=VALUE`, `NAME:=JSON`, `NAME=@FILE` and `@FILE`.

use std::io::Read;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Number, Value};

use super::operations::{BodyForm, Field, Kind, Operation, Place};
use crate::failure::CodedFailure;

/// The characters of a path segment that stay as they are (RFC 3986, section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path parameter that a profile can give.
pub const WORKSPACE: &str = "workspace_id";

/// The parts of a request that the arguments determine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filled {
    /// The path with its parameters, encoded.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub body: Option<Value>,
}

/// The names and values of one argument.
enum Argument<'a> {
    /// The file of `@FILE`, which has the whole body.
    Body(&'a str),
    /// A name and its text, from `NAME=VALUE`.
    Text(&'a str, &'a str),
    /// A name and its JSON, from `NAME:=JSON`.
    Json(&'a str, &'a str),
}

impl<'a> Argument<'a> {
    fn parse(text: &'a str) -> Result<Self, CodedFailure> {
        if let Some(file) = text.strip_prefix('@') {
            return Ok(Self::Body(file));
        }
        let wrong = || {
            let what = format!("{} is neither NAME=VALUE, NAME:=JSON nor @FILE", shown(text));
            CodedFailure::usage(what)
        };
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        Ok(match name.strip_suffix(':') {
            Some(name) => Self::Json(name, value),
            None => Self::Text(name, value),
        })
    }
}

/// The start of an argument. The rest may be a secret that was pasted into the wrong place.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(20).collect();
    if start.len() < text.len() { format!("{start:?}…") } else { format!("{start:?}") }
}

/// Fills a request of `operation`. `workspace` is the default of the path's workspace. `input` is standard input, which `-` names.
///
/// # Errors
///
/// An argument has an unknown name, a value of another type, or is missing in the path. Whether a value is valid is left to the
/// server, which reports all problems at once.
pub fn fill(
    operation: &Operation,
    given: &[String],
    workspace: Option<&str>,
    input: &mut dyn Read,
) -> Result<Filled, CodedFailure> {
    let mut input = Some(input);
    let mut path: Map<String, Value> = Map::new();
    let mut query: Vec<(String, String)> = Vec::new();
    let mut fields: Map<String, Value> = Map::new();
    let mut whole = None;
    for argument in given {
        let (name, text, json) = match Argument::parse(argument)? {
            Argument::Body(file) => {
                if operation.body.is_none() {
                    return Err(CodedFailure::usage(format!("{} takes no body", operation.name)));
                }
                let text = read(file, &mut input)?;
                whole = Some(json_of(&text, &format!("the body from {file}"))?);
                continue;
            }
            Argument::Text(name, text) => (name, text, false),
            Argument::Json(name, text) => (name, text, true),
        };
        let field = operation.field(name).ok_or_else(|| unknown(operation, name))?;
        let text = match text.strip_prefix('@') {
            Some(file) => read(file, &mut input)?,
            None if field.secret => {
                let what = format!(
                    "{name} is a secret, which other users of this machine can see in a command line. \
                     Give it as {name}=@FILE, or as {name}=@- for standard input"
                );
                return Err(CodedFailure::usage(what));
            }
            None => text.to_owned(),
        };
        let value = if json { json_of(&text, name)? } else { typed(operation, field, &field.kind, text)? };
        match (field.place, value) {
            (Place::Path, value) => drop(path.insert(name.to_owned(), value)),
            (Place::Query, Value::Array(items)) => {
                query.extend(items.iter().map(|item| (name.to_owned(), plain(item))));
            }
            (Place::Query, value) => {
                query.retain(|(other, _)| other != name);
                query.push((name.to_owned(), plain(&value)));
            }
            (Place::Body, Value::Array(more)) if !json => {
                match fields.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                    Value::Array(items) => items.extend(more),
                    other => *other = Value::Array(more),
                }
            }
            (Place::Body, value) => drop(fields.insert(name.to_owned(), value)),
        }
    }
    if let Some(workspace) = workspace.filter(|_| operation.field(WORKSPACE).is_some()) {
        path.entry(WORKSPACE).or_insert_with(|| workspace.into());
    }
    Ok(Filled { path: path_of(operation, &path)?, query, body: body_of(operation, whole, fields)? })
}

fn path_of(operation: &Operation, values: &Map<String, Value>) -> Result<String, CodedFailure> {
    let mut path = operation.path.clone();
    for field in operation.fields.iter().filter(|field| field.place == Place::Path) {
        let name = &field.name;
        let value = values.get(name).map(plain).filter(|value| !value.is_empty()).ok_or_else(|| {
            let way = if name == WORKSPACE { "; --workspace or a profile can give it too" } else { "" };
            CodedFailure::usage(format!("{} needs {name}=VALUE{way}", operation.name))
        })?;
        // A URL has no way to spell these as the name of a thing.
        if value == "." || value == ".." {
            return Err(CodedFailure::usage(format!("{name} cannot be {value:?}")));
        }
        let encoded = utf8_percent_encode(&value, UNRESERVED).to_string();
        path = path.replace(&format!("{{{name}}}"), &encoded);
    }
    Ok(path)
}

fn body_of(
    operation: &Operation,
    whole: Option<Value>,
    fields: Map<String, Value>,
) -> Result<Option<Value>, CodedFailure> {
    match (operation.body, whole) {
        (None, _) => Ok(None),
        (Some(BodyForm::Object), None) => Ok(Some(Value::Object(fields))),
        (Some(BodyForm::Whole), None) => {
            Err(CodedFailure::usage(format!("{} needs its body as @FILE", operation.name)))
        }
        (Some(_), Some(Value::Object(mut body))) => {
            body.extend(fields);
            Ok(Some(Value::Object(body)))
        }
        (Some(_), Some(body)) if fields.is_empty() => Ok(Some(body)),
        (Some(_), Some(_)) => {
            Err(CodedFailure::usage("fields can be given beside a body only if the body is an object"))
        }
    }
}

/// The value of a text by the type of its field.
fn typed(operation: &Operation, field: &Field, kind: &Kind, text: String) -> Result<Value, CodedFailure> {
    let name = &field.name;
    let wrong = || {
        let what = format!("{name} of {} is {}, not {}", operation.name, kind.words(), shown(&text));
        CodedFailure::usage(what)
    };
    match kind {
        Kind::Text => Ok(Value::String(text)),
        Kind::Integer => match text.parse::<i64>() {
            Ok(number) => Ok(number.into()),
            Err(_) => text.parse::<u64>().map(Value::from).map_err(|_| wrong()),
        },
        Kind::Number => {
            let whole = text.parse::<i64>().ok().map(Number::from);
            let number = whole.or_else(|| text.parse().ok().and_then(Number::from_f64));
            number.map(Value::Number).ok_or_else(wrong)
        }
        Kind::Boolean => text.parse().map(Value::Bool).map_err(|_| wrong()),
        Kind::List(item) => Ok(Value::Array(vec![typed(operation, field, item, text)?])),
        Kind::Json => {
            Err(CodedFailure::usage(format!("{name} is JSON: give it as {name}:=JSON or {name}:=@FILE")))
        }
    }
}

/// A value as the text of a path or a query.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn json_of(text: &str, what: &str) -> Result<Value, CodedFailure> {
    // The error of the parser has the place, and nothing of the text.
    serde_json::from_str(text).map_err(|error| CodedFailure::usage(format!("{what} is not JSON: {error}")))
}

/// The text of a file, or of standard input for `-`, without the line break at its end.
fn read(file: &str, input: &mut Option<&mut dyn Read>) -> Result<String, CodedFailure> {
    let unread =
        |error: &dyn std::fmt::Display| CodedFailure::local(format!("{file} cannot be read: {error}"));
    let mut text = if file == "-" {
        let again = || CodedFailure::usage("standard input can be used for one value only");
        let mut text = String::new();
        input.take().ok_or_else(again)?.read_to_string(&mut text).map_err(|error| unread(&error))?;
        text
    } else {
        std::fs::read_to_string(file).map_err(|error| unread(&error))?
    };
    let length = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(length);
    Ok(text)
}

/// The error for an unknown name, with the nearest right one.
fn unknown(operation: &Operation, name: &str) -> CodedFailure {
    let names: Vec<&str> = operation.fields.iter().map(|field| field.name.as_str()).collect();
    let near = |other: &&str| strsim::jaro_winkler(name, other);
    let nearest = names.iter().copied().max_by(|a, b| near(a).total_cmp(&near(b)));
    let hint = match nearest.filter(|nearest| near(nearest) > 0.75) {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None if names.is_empty() => "; it has none".to_owned(),
        None => format!("; it has {}", names.join(", ")),
    };
    CodedFailure::usage(format!("{} has no parameter {}{hint}", operation.name, shown(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled_with(operation: &str, given: &[&str], input: &str) -> Result<Filled, String> {
        let operation = Operation::named(operation).unwrap();
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        fill(operation, &given, Some("w-1"), &mut input.as_bytes()).map_err(|failure| {
            assert!([1, 2].contains(&failure.exit));
            failure.message
        })
    }

    fn filled(operation: &str, given: &[&str]) -> Filled {
        filled_with(operation, given, "").unwrap()
    }

    fn wrong(operation: &str, given: &[&str]) -> String {
        filled_with(operation, given, "").unwrap_err()
    }

    #[test]
    fn each_value_goes_to_its_place_in_its_type() {
        let keys = filled("list-api-keys", &["mine_only=true", "limit=5", "limit=6"]);
        assert_eq!(keys.path, "/v1/w-1/api-keys");
        assert_eq!(keys.query, [("mine_only".into(), "true".into()), ("limit".into(), "6".into())]);
        assert_eq!(keys.body, None);
        let key = filled(
            "create-api-key",
            &["name=5", "duration_days=5", "networks=10.0.0.0/8", "networks=::1/128", "bound_to:=null"],
        );
        let body = json!({ "name": "5", "duration_days": 5, "networks": ["10.0.0.0/8", "::1/128"], "bound_to": null });
        assert_eq!(key.body, Some(body));
        let call = filled("report-call", &["call_sid=CA/1 ü", "duration_seconds=1.5", "status=a=b"]);
        assert_eq!(call.path, "/v1/w-1/calls/CA%2F1%20%C3%BC");
        assert_eq!(call.body, Some(json!({ "duration_seconds": 1.5, "status": "a=b" })));
        assert_eq!(filled("update-workspace", &[]).body, Some(json!({})));
        assert_eq!(filled("get-workspace", &["workspace_id=w-2"]).path, "/v1/workspaces/w-2");
    }

    #[test]
    fn files_and_standard_input_give_bodies_and_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("body.json");
        std::fs::write(&file, r#"{"account_sid": "AC1", "auth_token": "in the file"}"#).unwrap();
        let body = format!("@{}", file.display());
        let filled = filled_with("set-twilio", &[&body, "auth_token=@-"], "s3cret\n").unwrap();
        assert_eq!(filled.body, Some(json!({ "account_sid": "AC1", "auth_token": "s3cret" })));
        let error = wrong("set-twilio", &["auth_token=s3cret"]);
        assert!(error.contains("auth_token=@-") && !error.contains("s3cret"), "{error}");
        assert!(wrong("set-twilio", &["auth_token=@-", "@-"]).contains("one value only"));
        assert!(wrong("set-twilio", &["@/no/such/file"]).contains("/no/such/file cannot be read"));
    }

    #[test]
    fn a_wrong_argument_is_named_with_the_right_one() {
        assert_eq!(
            wrong("list-workspaces", &["limti=5"]),
            "list-workspaces has no parameter \"limti\"; did you mean limit?"
        );
        let none = wrong("list-workspaces", &["xyz=5"]);
        assert_eq!(none, "list-workspaces has no parameter \"xyz\"; it has limit, continuation_token");
        assert_eq!(wrong("get-auth-info", &["a=b"]), "get-auth-info has no parameter \"a\"; it has none");
        assert_eq!(
            wrong("list-workspaces", &["limit=five"]),
            "limit of list-workspaces is integer, not \"five\""
        );
        assert_eq!(wrong("get-delivery", &[]), "get-delivery needs delivery_id=VALUE");
        assert!(wrong("get-delivery", &["delivery_id=.."]).contains("cannot be"));
        assert!(wrong("get-delivery", &["@file"]).contains("takes no body"));
        assert!(wrong("create-trust-rule", &["conditions=x"]).contains("conditions:=JSON"));
        assert!(wrong("create-trust-rule", &["conditions:=[1"]).contains("is not JSON"));
        assert!(wrong("report-leaked-keys", &[]).contains("needs its body as @FILE"));
        assert!(wrong("list-workspaces", &["five"]).contains("neither NAME=VALUE"));
        let operation = Operation::named("get-workspace").unwrap();
        let error = fill(operation, &[], None, &mut std::io::empty()).unwrap_err();
        assert!(error.message.contains("--workspace"), "{}", error.message);
    }
}
