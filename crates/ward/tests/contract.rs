//! The contract layer by itself, no server: the served document against the given one, and recorded requests
//! against the validators.

// Helpers of tests are tests: what they unwrap has no other answer than a failure.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use ward::router::RULES;
use ward_contract::validate::{self, Loc, Problem};
use ward_contract::{Access, CallerKind, Contract};

const GIVEN: &str = include_str!("../../../contract/workspaces.openapi.json");

/// Roles and permissions are listed here once more on purpose: the document must not drift by a slip.
const PERMISSIONS: [&str; 13] = [
    "Workspace.view",
    "Workspace.update",
    "Workspace.create",
    "Integration.view",
    "Integration.update",
    "Integration.create",
    "Integration.delete",
    "ApiKey.view",
    "ApiKey.create",
    "ApiKey.delete",
    "Call.view",
    "Call.create",
    "Audit.view",
];

fn contract() -> Contract {
    ward::contract::load(&[]).expect("the document loads")
}

fn document() -> Value {
    serde_json::from_slice(contract().document()).expect("the document is JSON")
}

/// `operationId` to operation, each with its path and method inside.
fn operations(document: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if let Some(id) = operation.get("operationId").and_then(Value::as_str) {
                let mut operation = operation.clone();
                operation["path"] = json!(path);
                operation["method"] = json!(method);
                assert!(found.insert(id.to_owned(), operation).is_none(), "{id} is declared twice");
            }
        }
    }
    found
}

fn without_extensions(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !key.starts_with("x-"))
            .map(|(key, value)| (key.clone(), without_extensions(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(without_extensions).collect(),
        other => other.clone(),
    }
}

#[test]
fn the_nine_given_operations_are_served_as_given() {
    let given: Value = serde_json::from_str(GIVEN).unwrap();
    let served = without_extensions(&document());
    let served_operations = operations(&served);
    let given_operations = operations(&given);
    assert_eq!(given_operations.len(), 9);
    for (id, given) in given_operations {
        let mut served = served_operations[&id].clone();
        let served_fields = served.as_object_mut().unwrap();
        served_fields.remove("security");
        // Ward accepts additional headers and may answer additional statuses. The given part of a response stays word
        // for word. Its headers and the bodies of its errors are Ward's own.
        if let Some(parameters) = served_fields.get_mut("parameters").and_then(Value::as_array_mut) {
            parameters.retain(|parameter| parameter["in"] != "header");
            if parameters.is_empty() && given.get("parameters").is_none() {
                served_fields.shift_remove("parameters");
            }
        }
        let responses = served_fields["responses"].as_object_mut().unwrap();
        responses.retain(|status, _| given["responses"].get(status).is_some());
        for (status, response) in responses {
            let given = given["responses"][status].as_object().unwrap();
            response.as_object_mut().unwrap().retain(|part, _| given.contains_key(part));
        }
        assert_eq!(served, given, "{id}");
    }
    for (name, given) in given["components"]["schemas"].as_object().unwrap() {
        assert_eq!(&served["components"]["schemas"][name], given, "{name}");
    }
    // Ward's only further scheme is for credentials that are bound to a key. No given operation names it.
    let mut schemes = served["components"]["securitySchemes"].clone();
    assert!(schemes.as_object_mut().unwrap().shift_remove("DPoPAuth").is_some());
    assert_eq!(schemes, given["components"]["securitySchemes"]);
    assert_eq!(served["security"], json!([{ "BearerAuth": [] }]));
}

#[test]
fn the_document_bears_this_version() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["title"], "Ward");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_operation_says_who_may_call_it() {
    let contract = contract();
    let anonymous: BTreeSet<&str> = contract
        .operations()
        .filter(|operation| operation.access == Access::Anonymous)
        .map(|operation| operation.id.as_str())
        .collect();
    assert_eq!(
        anonymous,
        BTreeSet::from([
            "create-workspace",
            "get-docs",
            "get-handover-page",
            "get-health",
            "get-integration-jwks",
            "get-openapi-document",
            "get-readiness",
            "open-handover",
            "receive-twilio-status",
            "report-leaked-keys",
            "revoke-presented-api-key"
        ])
    );
    for operation in contract.operations() {
        if let Access::Key { permission, role, caller, or_anonymous } = &operation.access {
            let any_credential = [
                "get-auth-info",
                "get-me",
                "authorize",
                "accept-invitation",
                "list-my-invitations",
                "accept-my-invitation",
            ]
            .contains(&operation.id.as_str());
            assert_eq!(permission.is_none(), any_credential, "{}", operation.id);
            assert!(permission.as_deref().is_none_or(|p| PERMISSIONS.contains(&p)), "{}", operation.id);
            assert_eq!(
                role.as_deref() == Some("owner"),
                [
                    "archive-workspace",
                    "convert-workspace-environment",
                    "nominate-owner",
                    "rename-workspace",
                    "restore-archived-workspace",
                    "set-key-policy",
                    "set-access-policy",
                    "set-leaked-key-policy"
                ]
                .contains(&operation.id.as_str()),
                "{}",
                operation.id
            );
            let kind = match operation.id.as_str() {
                "create-self-service-workspace"
                | "create-my-workspace"
                | "nominate-owner"
                | "accept-invitation"
                | "accept-my-invitation"
                | "restore-archived-workspace" => Some(CallerKind::User),
                "get-auth-info" => Some(CallerKind::ApiKey),
                "leave-workspace" => Some(CallerKind::Whole),
                _ => None,
            };
            assert_eq!(*caller, kind, "{}", operation.id);
            assert_eq!(*or_anonymous, operation.id == "create-api-key", "{}", operation.id);
        }
        assert!(!operation.idempotent || operation.method == http::Method::POST, "{}", operation.id);
        assert!(operation.statuses.iter().any(|status| (200..300).contains(status)), "{}", operation.id);
    }
}

#[test]
fn a_day_may_bound_every_period_and_is_in_it() {
    let document = document();
    let mut periods = 0;
    for (id, operation) in operations(&document) {
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let body = body.as_str().and_then(|at| document.pointer(&at[1..])).cloned().unwrap_or_default();
        for (name, means) in [("date_from", "start"), ("date_to", "end")] {
            let of_query = parameters.iter().filter(|parameter| parameter["name"] == name);
            let of_body = Some(&body["properties"][name]).filter(|field| !field.is_null());
            for schema in of_query.map(|parameter| &parameter["schema"]["anyOf"][0]).chain(of_body) {
                let has_days = schema["format"] == "date" || schema["x-day"] == means;
                assert!(has_days, "{id}: {schema}");
                periods += 1;
            }
        }
    }
    assert!(periods > 8, "only {periods} bounds of periods");
}

#[test]
fn every_post_that_writes_can_be_repeated_safely() {
    for operation in contract().operations() {
        // Twilio and GitHub send no such header. The first three are safe to repeat, because they set a state, and the fourth only
        // reads. A handover shows its secret once, so a second answer would break its promise.
        let has_none = [
            "receive-twilio-status",
            "revoke-presented-api-key",
            "report-leaked-keys",
            "explain-access",
            "open-handover",
        ];
        let repeatable = operation.method == http::Method::POST && !has_none.contains(&operation.id.as_str());
        assert_eq!(operation.idempotent, repeatable, "{}", operation.id);
    }
}

#[test]
fn every_operation_is_described_and_every_reference_leads_somewhere() {
    let document = document();
    let tags: Vec<&Value> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    for (id, operation) in operations(&document) {
        for field in ["summary", "description"] {
            assert!(
                operation[field].as_str().is_some_and(|text| !text.trim().is_empty()),
                "{id} has no {field}"
            );
        }
        assert!(tags.contains(&&operation["tags"][0]), "{id} has no known tag");
    }
    each(&document, &mut |fields| {
        if let Some(pointer) = fields.get("$ref").and_then(Value::as_str) {
            let path = pointer.strip_prefix('#').expect("references stay inside the document");
            assert!(document.pointer(path).is_some(), "{pointer}");
        }
    });
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        let pointer = format!("#/components/schemas/{name}");
        let mut used = false;
        each(&document, &mut |fields| used |= fields.get("$ref").and_then(Value::as_str) == Some(&pointer));
        assert!(used, "{name} is used by nothing");
    }
}

fn each(value: &Value, visit: &mut impl FnMut(&Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            visit(fields);
            fields.values().for_each(|value| each(value, visit));
        }
        Value::Array(items) => items.iter().for_each(|value| each(value, visit)),
        _ => {}
    }
}

#[test]
fn every_example_is_a_valid_request() {
    let contract = contract();
    for (id, operation) in operations(&document()) {
        let served = contract.operation(&id).unwrap();
        assert_eq!(served.body.is_some(), operation.get("x-example").is_some(), "{id}");
        for example in ["x-example", "x-example-keyless"].iter().filter_map(|name| operation.get(*name)) {
            let parsed =
                validate::parse(Some("application/json"), example.to_string().as_bytes(), 64).unwrap();
            assert!(validate::body(served, &parsed).is_ok(), "{id}: {example}");
        }
    }
}

/// The example of an operation's success, and the schema that it must fit. The given operations may have nothing beside what
/// was given, so theirs is an extension.
fn example_answer(operation: &Value, given: bool) -> Option<(&Value, &Value)> {
    let (_, response) =
        operation["responses"].as_object()?.iter().find(|(status, _)| status.starts_with('2'))?;
    let (kind, media) = response.get("content")?.as_object()?.iter().next()?;
    if kind == "text/html" {
        return None;
    }
    let example = if given { &operation["x-example-answer"] } else { &media["example"] };
    Some((example, &media["schema"]))
}

/// The fields that an example has and its schema does not know, as paths.
fn unknown_fields(document: &Value, schema: &Value, example: &Value, at: &str) -> Vec<String> {
    if let Some(pointer) = schema["$ref"].as_str() {
        return unknown_fields(document, document.pointer(&pointer[1..]).unwrap(), example, at);
    }
    if let Some(ways) = schema["anyOf"].as_array() {
        let found = ways.iter().filter(|way| (way["type"] == "null") == example.is_null());
        return found.flat_map(|way| unknown_fields(document, way, example, at)).collect();
    }
    let below = |(key, value): (&String, &Value)| match schema["properties"].get(key) {
        Some(schema) => unknown_fields(document, schema, value, &format!("{at}.{key}")),
        None => vec![format!("{at}.{key}")],
    };
    match example {
        Value::Object(fields) if schema["properties"].is_object() => fields.iter().flat_map(below).collect(),
        Value::Array(items) => {
            items.iter().flat_map(|item| unknown_fields(document, &schema["items"], item, at)).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn every_success_has_an_example_that_fits_its_schema() {
    let document = document();
    let given: Value = serde_json::from_str(GIVEN).unwrap();
    let given = operations(&given);
    let mut shown = 0;
    for (id, operation) in operations(&document) {
        let Some((example, schema)) = example_answer(&operation, given.contains_key(&id)) else { continue };
        assert!(!example.is_null(), "{id} has no example of its answer");
        let mut whole = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "components": document["components"] });
        whole.as_object_mut().unwrap().extend(schema.as_object().unwrap().clone());
        let validator = jsonschema::options().should_validate_formats(true).build(&whole).unwrap();
        let wrong: Vec<String> =
            validator.iter_errors(example).map(|it| format!("{it} at {}", it.instance_path())).collect();
        assert!(wrong.is_empty(), "{id}: {wrong:?}");
        let unknown = unknown_fields(&document, schema, example, &id);
        assert!(unknown.is_empty(), "not in the schema: {unknown:?}");
        shown += 1;
    }
    assert!(shown > 50, "{shown} operations have a success with a body");
}

/// Texts of the given schemas, which say no maximum, and the maximum that a value rule of Ward's sets.
const BOUND_BY_RULE: [(&str, usize); 2] = [
    ("#/components/schemas/StrippedNonemptyString", 256),
    ("#/components/schemas/TestCallerNumbersRequest/properties/numbers/items", 64),
];

/// A value somewhere in a request, and what is declared of it.
struct Place<'d> {
    /// A request body that holds the filler at this place.
    body: Box<dyn Fn(Value) -> Value>,
    loc: Vec<Loc>,
    pointer: String,
    schema: &'d Value,
}

fn places<'d>(document: &'d Value, place: Place<'d>, visit: &mut impl FnMut(Place<'d>)) {
    let Place { body, loc, pointer, schema } = place;
    if let Some(target) = schema["$ref"].as_str() {
        let schema = document.pointer(&target[1..]).unwrap();
        return places(document, Place { body, loc, pointer: target.to_owned(), schema }, visit);
    }
    if let Some(first) = schema["anyOf"].get(0) {
        return places(
            document,
            Place { body, loc, pointer: format!("{pointer}/anyOf/0"), schema: first },
            visit,
        );
    }
    let body = std::rc::Rc::new(body);
    let mut below =
        |step: Loc, rest: String, schema: &'d Value, around: fn(Option<String>, Value) -> Value| {
            let (body, name) =
                (body.clone(), if let Loc::Key(key) = &step { Some(key.to_string()) } else { None });
            let loc = loc.iter().cloned().chain([step]).collect();
            let body: Box<dyn Fn(Value) -> Value> = Box::new(move |value| body(around(name.clone(), value)));
            places(document, Place { body, loc, pointer: format!("{pointer}{rest}"), schema }, visit);
        };
    let field = |name: Option<String>, value| json!({ name.unwrap_or_default(): value });
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        below(name.clone().into(), format!("/properties/{name}"), part, field);
    }
    if schema["items"].is_object() {
        below(0.into(), "/items".to_owned(), &schema["items"], |_, value| json!([value]));
    }
    if schema["additionalProperties"].is_object() {
        below("k".into(), "/additionalProperties".to_owned(), &schema["additionalProperties"], field);
    }
    let body: Box<dyn Fn(Value) -> Value> = Box::new(move |value| body(value));
    visit(Place { body, loc, pointer, schema });
}

/// A value that is one longer than the maximum of its schema, for each maximum that it must have.
fn too_long(place: &Place<'_>) -> Vec<Value> {
    let schema = place.schema;
    let at = &place.pointer;
    let bound = |keyword: &str| {
        let most = schema[keyword].as_u64().unwrap_or_else(|| panic!("{at} has no {keyword}"));
        usize::try_from(most).unwrap()
    };
    let names = |count: usize, length: usize| {
        (0..count).map(|index| (format!("{index:0>length$}"), json!(""))).collect::<Map<_, _>>()
    };
    match schema["type"].as_str() {
        Some("string") if schema["enum"].is_array() || schema["format"].is_string() => Vec::new(),
        Some("string") => {
            let by_rule = BOUND_BY_RULE.iter().find(|(pointer, _)| pointer == at).map(|(_, most)| *most);
            vec![json!("a".repeat(by_rule.unwrap_or_else(|| bound("maxLength")) + 1))]
        }
        Some("array") => vec![json!(vec![Value::Null; bound("maxItems") + 1])],
        Some("object") if schema["properties"].is_object() => Vec::new(),
        kind => {
            let mut values = Vec::new();
            if kind == Some("object") {
                let longest = schema["propertyNames"]["maxLength"].as_u64();
                let longest = longest.unwrap_or_else(|| panic!("{at} bounds no names"));
                values.push(json!(names(bound("maxProperties") + 1, 4)));
                values.push(json!(names(1, usize::try_from(longest).unwrap() + 1)));
            }
            if !schema["additionalProperties"].is_object() && kind.is_none_or(|kind| kind == "object") {
                let deep = (0..=bound("x-max-depth")).fold(json!({}), |inner, _| json!({ "k": inner }));
                values.extend([json!({ "k": "a".repeat(bound("x-max-bytes")) }), deep]);
            }
            values
        }
    }
}

#[test]
fn every_text_list_and_map_of_a_request_has_a_maximum_that_is_enforced() {
    let (contract, document) = (ward::contract::load(RULES).unwrap(), document());
    let mut checked = 0;
    for operation in contract.operations().filter(|operation| operation.body.is_some()) {
        let declared = &document["paths"][&operation.path][operation.method.as_str().to_lowercase()];
        let schema = &declared["requestBody"]["content"]["application/json"]["schema"];
        let whole =
            Place { body: Box::new(|value| value), loc: vec!["body".into()], pointer: "#".into(), schema };
        places(&document, whole, &mut |place| {
            for value in too_long(&place) {
                let sent = (place.body)(value).to_string();
                let parsed = validate::parse(Some("application/json"), sent.as_bytes(), 128).unwrap();
                let problems = validate::body(operation, &parsed).unwrap_err();
                let refused = |problem: &Problem| {
                    let length =
                        ["string_too_long", "too_long", "json_too_large", "json_too_deep", "value_error"];
                    problem.loc.starts_with(&place.loc) && length.contains(&problem.kind)
                };
                let found = problems.listed();
                assert!(
                    found.iter().any(refused),
                    "{} takes any length of {}: {found:?}",
                    operation.id,
                    place.pointer
                );
                checked += 1;
            }
        });
    }
    assert!(checked > 60, "only {checked} maxima");
}

#[test]
fn every_parameter_has_a_maximum_that_is_enforced() {
    let (contract, document) = (ward::contract::load(RULES).unwrap(), document());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, declared) in
            item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters")
        {
            let operation = contract.operation(declared["operationId"].as_str().unwrap()).unwrap();
            let own = declared["parameters"].as_array().into_iter().flatten();
            for parameter in item["parameters"].as_array().into_iter().flatten().chain(own) {
                let parameter = match parameter["$ref"].as_str() {
                    Some(target) => document.pointer(&target[1..]).unwrap(),
                    None => parameter,
                };
                let what = format!("{method} {path}, {}", parameter["name"]);
                let mut schema = &parameter["schema"];
                while let Some(inner) = schema["anyOf"]
                    .get(0)
                    .or_else(|| schema["$ref"].as_str().map(|target| document.pointer(&target[1..]).unwrap()))
                {
                    schema = inner;
                }
                if schema["type"] != "string" || schema["enum"].is_array() {
                    continue;
                }
                // The other formats have a fixed length.
                if schema["format"].is_string() && schema["format"] != "date-time" {
                    continue;
                }
                let most = schema["maxLength"].as_u64().unwrap_or_else(|| panic!("{what} has no maxLength"));
                let name = parameter["name"].as_str().unwrap();
                match parameter["in"].as_str().unwrap() {
                    "query" => {
                        let long = "a".repeat(usize::try_from(most).unwrap() + 1);
                        let problems =
                            validate::query(operation, Some(&format!("{name}={long}"))).unwrap_err();
                        assert_eq!(problems.listed()[0].kind, "string_too_long", "{what}");
                    }
                    "path" => {
                        let known = operation.path_lengths.iter().find(|(known, _)| known == name);
                        assert_eq!(
                            known.map(|(_, length)| u64::try_from(*length).unwrap()),
                            Some(most),
                            "{what}"
                        );
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn every_response_declares_its_headers_and_every_error_its_body() {
    let document = document();
    let header = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    let schema = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    for (id, operation) in operations(&document) {
        let says = "run scripts/contract-headers";
        for (status, response) in operation["responses"].as_object().unwrap() {
            let what = format!("{id} {status}: {says}");
            assert_eq!(response["headers"]["x-request-id"], header("RequestId"), "{what}");
            if status == "401" {
                assert_eq!(response["headers"]["www-authenticate"], header("WwwAuthenticate"), "{what}");
            }
            if status == "429" || status == "503" {
                assert_eq!(response["headers"]["retry-after"], header("RetryAfter"), "{what}");
            }
            if status == "429" {
                for (name, declared) in [
                    ("x-ratelimit-limit", "RateLimitLimit"),
                    ("x-ratelimit-remaining", "RateLimitRemaining"),
                    ("x-ratelimit-reset", "RateLimitReset"),
                ] {
                    assert_eq!(response["headers"][name], header(declared), "{what}");
                }
            }
            if status.as_str() >= "400" {
                let body = &response["content"]["application/json"]["schema"];
                let either = json!({ "anyOf": [schema("HTTPValidationError"), schema("ErrorResponse")] });
                let known = match status.as_str() {
                    "422" => [schema("HTTPValidationError"), either, schema("ErrorResponse")].contains(body),
                    "403" => *body == schema("ForbiddenResponse"),
                    _ => *body == schema("ErrorResponse"),
                };
                assert!(known, "{what}: {body}");
            }
        }
        let keys: Vec<&Value> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "header")
            .collect();
        assert_eq!(!keys.is_empty(), operation["x-idempotency"] == true, "{id}: {says}");
        for key in keys {
            assert_eq!(key["name"], "Idempotency-Key", "{id}");
            let bounds =
                (key["schema"]["minLength"].as_u64().unwrap(), key["schema"]["maxLength"].as_u64().unwrap());
            let anonymous = operation["security"] == json!([]);
            assert_eq!(bounds, (if anonymous { 22 } else { 16 }, 255), "{id}");
        }
    }
}
