//! The recorded answers of the reference validator, compared with those of Ward.

#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

use bytes::Bytes;
use serde_json::{Value, json};
use ward_contract::validate::{self, BodyRefused};
use ward_contract::{Contract, Problem};

const DOCUMENT: &str = include_str!("../../../contract/openapi.json");
const GOLDENS: &str = include_str!("goldens/validation.json");

fn contract() -> Contract {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    Contract::read(&document, Bytes::new(), &[], &[]).unwrap()
}

/// The result of one recorded request: `Ok` with the accepted value, or the status and its `detail`.
fn replay(contract: &Contract, case: &Value) -> Result<Value, (u16, Value)> {
    let operation = contract.operation(case["operation"].as_str().unwrap()).expect("a served operation");
    let detail = |problems: Vec<Problem>| (422, serde_json::to_value(problems).unwrap());
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
    // The reference does not have these fields of Ward's.
    if let Some(fields) = value.as_object_mut().filter(|_| operation.id == "create-api-key") {
        assert_eq!(fields.remove("speaks_for"), Some(json!("service")));
        assert_eq!(fields.remove("bound_to"), Some(Value::Null));
        assert_eq!(fields.remove("networks"), Some(json!([])));
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
                    // Each parser has its own position and its own words for a syntax error.
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
