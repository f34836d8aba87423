//! The contract layer by itself, no server: the served document against the given one, and recorded requests
//! against the validators.

// Helpers of tests are tests: what they unwrap has no other answer than a failure.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use ward::http::contract::{Access, Contract};
use ward::http::validate::{self, BodyRefused};

const GIVEN: &str = include_str!("../../../contract/workspaces.openapi.json");
const GOLDENS: &str = include_str!("goldens/validation.json");

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
    Contract::load(&[]).expect("the document loads")
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
        // Ward may answer more statuses than were given; those that were given stand word for word.
        let responses = served_fields["responses"].as_object_mut().unwrap();
        responses.retain(|status, _| given["responses"].get(status).is_some());
        assert_eq!(served, given, "{id}");
    }
    for (name, given) in given["components"]["schemas"].as_object().unwrap() {
        assert_eq!(&served["components"]["schemas"][name], given, "{name}");
    }
    assert_eq!(served["components"]["securitySchemes"], given["components"]["securitySchemes"]);
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
            "get-health",
            "get-openapi-document",
            "get-readiness",
            "receive-twilio-status"
        ])
    );
    for operation in contract.operations() {
        if let Access::Key { permission, role, or_anonymous } = &operation.access {
            let any_credential =
                ["get-auth-info", "get-me", "accept-invitation"].contains(&operation.id.as_str());
            assert_eq!(permission.is_none(), any_credential, "{}", operation.id);
            assert!(permission.as_deref().is_none_or(|p| PERMISSIONS.contains(&p)), "{}", operation.id);
            assert_eq!(
                role.as_deref() == Some("owner"),
                ["archive-workspace", "nominate-owner"].contains(&operation.id.as_str()),
                "{}",
                operation.id
            );
            assert_eq!(*or_anonymous, operation.id == "create-api-key", "{}", operation.id);
        }
        assert!(!operation.idempotent || operation.method == http::Method::POST, "{}", operation.id);
        assert!(operation.statuses.iter().any(|status| (200..300).contains(status)), "{}", operation.id);
    }
}

#[test]
fn every_post_that_writes_can_be_repeated_safely() {
    for operation in contract().operations() {
        // Twilio sends no such header; its callbacks are safe to repeat by what they say.
        let repeatable = operation.method == http::Method::POST && operation.id != "receive-twilio-status";
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

/// What the validators make of one recorded request: `Ok` of what is accepted, or the status and its `detail`.
fn replay(contract: &Contract, case: &Value) -> Result<Value, (u16, Value)> {
    let operation = contract.operation(case["operation"].as_str().unwrap()).expect("a served operation");
    let detail = |problems: Vec<validate::Problem>| (422, serde_json::to_value(problems).unwrap());
    if operation.body.is_none() {
        let query = validate::query(operation, case["query"].as_str())
            .map_err(|problems| detail(problems.into_answer()))?;
        return Ok(Value::Object(query));
    }
    let sent = case["body"].as_str().unwrap_or_default().as_bytes();
    let parsed =
        validate::parse(case["content_type"].as_str(), sent, 64).map_err(|refused| match refused {
            BodyRefused::NotUtf8 => (400, Value::Null),
            BodyRefused::Problems(problems) => detail(problems),
        })?;
    let judged = validate::body(operation, &parsed).map_err(|problems| detail(problems.into_answer()))?;
    let mut value = judged.value;
    // Ward's own addition, which the reference does not know.
    if let Some(fields) = value.as_object_mut().filter(|_| operation.id == "create-api-key") {
        assert_eq!(fields.remove("speaks_for"), Some(json!("service")));
    }
    Ok(value)
}

/// `1` and `1.0` are one number in JSON.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[test]
fn recorded_requests_get_the_recorded_answers() {
    let contract = contract();
    let goldens: Value = serde_json::from_str(GOLDENS).unwrap();
    let cases = goldens["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 132);
    let mut wrong = Vec::new();
    for case in cases {
        let got = replay(&contract, case);
        let agrees = match (&got, case["status"].as_u64().unwrap()) {
            (Ok(value), 200 | 201) => same(value, &case["accepted"]),
            (Err((422, detail)), 422) => {
                let recorded = &case["detail"];
                if recorded[0]["type"] == "json_invalid" {
                    // Where a text stops being JSON, and the words for it, are each parser's own.
                    detail[0]["type"] == "json_invalid"
                        && detail[0]["loc"][0] == "body"
                        && detail[0]["loc"][1].is_u64()
                } else {
                    same(detail, recorded)
                }
            }
            _ => false,
        };
        if !agrees {
            wrong.push(format!(
                "{}: {}\n  sent {}\n  got {got:?}",
                case["operation"], case["note"], case["body"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
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
