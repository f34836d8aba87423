use serde_json::json;

use super::*;
use crate::{Contract, Rule, RuleProblem};

/// An operation that accepts `schema` as its body and has no parameters.
fn operation(method: &str, schema: &Value, rules: &[(&str, Rule)]) -> Operation {
    let mut item = Map::new();
    item.insert(
        method.to_owned(),
        json!({
            "operationId": "do", "security": [], "responses": {},
            "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/schema"}}}}
        }),
    );
    let document = json!({"paths": {"/": item}, "schema": schema});
    Contract::operations_of(&document, rules).unwrap().remove(0)
}

fn send(operation: &Operation, sent: &Value) -> Result<Value, Value> {
    let parsed = ParsedBody::Json(sent.clone().into());
    body(operation, &parsed)
        .map(|body| body.value)
        .map_err(|problems| serde_json::to_value(problems.into_answer()).unwrap())
}

/// `type` and `loc` of each problem.
fn outline(refused: &Value) -> Vec<(&str, String)> {
    let problems = refused.as_array().unwrap();
    problems.iter().map(|problem| (problem["type"].as_str().unwrap(), problem["loc"].to_string())).collect()
}

#[test]
fn models_nest_and_dicts_hold() {
    let operation = operation(
        "post",
        &json!({"type": "object", "required": ["inner"], "properties": {
            "inner": {"type": "object", "required": ["on"], "properties": {
                "on": {"type": "boolean"}, "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2}}},
            "headers": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"title": "Free"}
        }}),
        &[],
    );
    assert_eq!(
        send(&operation, &json!({"inner": {"on": "yes"}, "free": {"b": [1.5]}, "extra": 1})),
        Ok(json!({"inner": {"on": true, "tags": []}, "headers": {}, "free": {"b": [1.5]}}))
    );
    let refused = send(
        &operation,
        &json!({"inner": {"on": 2, "tags": ["a"]}, "headers": {"a": 1, "b": "c"}, "free": ["\0"]}),
    )
    .unwrap_err();
    assert_eq!(
        outline(&refused),
        [
            ("bool_parsing", r#"["body","inner","on"]"#.to_owned()),
            ("too_short", r#"["body","inner","tags"]"#.to_owned()),
            ("string_type", r#"["body","headers","a"]"#.to_owned()),
            ("value_error", r#"["body","free",0]"#.to_owned()),
        ]
    );
    let refused = send(&operation, &json!({"inner": [], "headers": []})).unwrap_err();
    assert_eq!(
        outline(&refused),
        [
            ("model_attributes_type", r#"["body","inner"]"#.to_owned()),
            ("dict_type", r#"["body","headers"]"#.to_owned())
        ]
    );
}

#[test]
fn what_a_rule_finds_is_told_in_declared_order_and_once_per_value() {
    fn wrong(at: &[Loc], message: &str) -> RuleProblem {
        RuleProblem { at: at.to_vec(), message: message.into() }
    }
    fn whole(_: &Value) -> Vec<RuleProblem> {
        vec![
            wrong(&["last".into(), "k".into()], "k"),
            wrong(&["first".into(), 10.into()], "ten"),
            wrong(&["first".into(), 2.into()], "two"),
            wrong(&["last".into(), "a".into()], "a"),
            wrong(&["absent".into()], "is needed"),
            wrong(&["absent".into()], "is too short"),
        ]
    }
    let operation = operation(
        "post",
        &json!({"type": "object", "properties": {
            "first": {"type": "array", "items": {"type": "integer"}},
            "absent": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "last": {"type": "object", "additionalProperties": {"type": "string"}}
        }}),
        &[("#/schema", whole)],
    );
    let refused = send(&operation, &json!({"last": {"k": "", "a": ""}, "first": vec![0; 11]})).unwrap_err();
    assert_eq!(
        outline(&refused).into_iter().map(|(_, loc)| loc).collect::<Vec<_>>(),
        [
            r#"["body","first",2]"#,
            r#"["body","first",10]"#,
            r#"["body","absent"]"#,
            r#"["body","last","k"]"#,
            r#"["body","last","a"]"#,
        ]
    );
    assert_eq!(refused[2]["msg"], "Value error, is needed");
}

#[test]
fn value_rules_stand_among_the_schema_s_in_order() {
    fn even(value: &Value) -> Vec<RuleProblem> {
        if value.as_i64().is_some_and(|n| n % 2 == 0) {
            Vec::new()
        } else {
            vec![RuleProblem::here("must be even")]
        }
    }
    fn ascending(value: &Value) -> Vec<RuleProblem> {
        let numbers: Vec<i64> = value.as_array().unwrap().iter().filter_map(Value::as_i64).collect();
        let falls = numbers.windows(2).position(|pair| pair[0] > pair[1]);
        falls
            .map(|at| RuleProblem { at: vec![(at + 1).into()], message: "must not fall".into() })
            .into_iter()
            .collect()
    }
    let operation = operation(
        "post",
        &json!({"type": "array", "items": {"type": "integer", "maximum": 10}}),
        &[("#/schema/items", even), ("#/schema", ascending)],
    );
    assert_eq!(send(&operation, &json!([2, "4", 6.0])), Ok(json!([2, 4, 6])));
    let refused = send(&operation, &json!([8, 3, 12, "x", 5])).unwrap_err();
    assert_eq!(
        outline(&refused),
        [
            ("value_error", r#"["body",1]"#.to_owned()),
            ("less_than_equal", r#"["body",2]"#.to_owned()),
            ("int_parsing", r#"["body",3]"#.to_owned()),
            ("value_error", r#"["body",4]"#.to_owned()),
        ],
        "and the rule of the whole does not run"
    );
    assert_eq!(
        send(&operation, &json!([8, "4"])).unwrap_err(),
        json!([{"type": "value_error", "loc": ["body", 1], "msg": "Value error, must not fall", "input": "4",
                "ctx": {"error": {}}}])
    );
}

#[test]
fn a_text_of_any_character_may_contain_nul() {
    let operation = operation(
        "post",
        &json!({"type": "object", "properties": {
            "a": {"anyOf": [{"type": "string", "maxLength": 3, "x-any-character": true}, {"type": "null"}]}}}),
        &[],
    );
    assert_eq!(send(&operation, &json!({"a": "a\0b"})), Ok(json!({"a": "a\0b"})));
}

#[test]
fn a_text_with_nul_is_refused_where_it_stands() {
    let operation = operation(
        "post",
        &json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 2}, "b": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}),
        &[],
    );
    let refused = send(&operation, &json!({"a": "a\0b", "b": "\0"})).unwrap_err();
    assert_eq!(
        outline(&refused),
        [("string_too_long", r#"["body","a"]"#.to_owned()), ("value_error", r#"["body","b"]"#.to_owned())]
    );
}

#[test]
fn absent_fields_are_filled_except_in_a_patch() {
    let schema = json!({"type": "object", "properties": {
        "plain": {"type": "string"},
        "named": {"type": "string", "default": "x"},
        "nullable": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "list": {"type": "array", "items": {"type": "string"}}}});
    assert_eq!(
        send(&operation("post", &schema, &[]), &json!({})),
        Ok(json!({"named": "x", "nullable": null, "list": []}))
    );
    let patch = operation("patch", &schema, &[]);
    assert_eq!(send(&patch, &json!({})), Ok(json!({})));
    assert_eq!(send(&patch, &json!({"nullable": null})), Ok(json!({"nullable": null})));
}

#[test]
fn secrets_are_never_echoed() {
    let operation = operation(
        "post",
        &json!({"type": "object", "required": ["name", "auth"], "properties": {
            "name": {"type": "string"},
            "auth": {"type": "object", "required": ["kind"], "properties": {
                "kind": {"type": "string"},
                "token": {"type": "string", "minLength": 8, "x-secret": true}}},
            "all": {"type": "array", "items": {"$ref": "#/schema/properties/auth"}}}}),
        &[],
    );
    for sent in [
        json!({"auth": {"token": "hunter2"}}),
        json!({"auth": ["hunter2"]}),
        json!({"auth": "hunter2"}),
        json!({"auth": {"tokn": "hunter2"}}),
        json!({"auth": {"tokens": {"token": ["hunter2"]}}}),
        json!({"all": [{"secret": "hunter2"}], "auth": {}}),
        json!({"tokn": "hunter2", "auth": {"token": "hunter2"}}),
        json!({"all": [{"token": "hunter2"}], "auth": {}}),
        json!({"all": "hunter2", "auth": {"kind": 1, "token": {"hunter2": "hunter2"}}}),
        json!("hunter2"),
        json!(["hunter2"]),
    ] {
        let refused = send(&operation, &sent).unwrap_err().to_string();
        assert!(!refused.contains("hunter2"), "{refused}");
        assert!(refused.contains("**********"), "{refused}");
    }
    let refused = send(&operation, &json!({"auth": {"kind": "k", "token": "hunter2"}})).unwrap_err();
    assert_eq!(refused[0]["input"], json!({"auth": {"kind": "k", "token": "**********"}}));
}

#[test]
fn what_is_json_is_what_says_so() {
    for yes in ["application/json", "Application/JSON ; charset=utf-8", "application/merge-patch+json"] {
        assert_eq!(parse(Some(yes), b"1", 8), Ok(ParsedBody::Json(Json::Number("1".into()))), "{yes}");
    }
    for no in [
        "text/json",
        "application/jsonp",
        "application/json/x",
        "json",
        "",
        "application/x-www-form-urlencoded",
    ] {
        assert_eq!(parse(Some(no), b"1", 8), Ok(ParsedBody::Text("1".into())), "{no}");
    }
    assert_eq!(parse(None, b"1", 8), Ok(ParsedBody::Text("1".into())));
    assert_eq!(parse(None, b"", 8), Ok(ParsedBody::Missing));
    assert_eq!(parse(Some("application/json"), b"\"\xff\"", 8), Err(BodyRefused::NotUtf8));
    assert_eq!(
        parse(Some("application/json"), b"\xef\xbb\xbf1", 8),
        Ok(ParsedBody::Json(Json::Number("1".into())))
    );
    for bad in ["NaN", "[Infinity]", "\"\\ud800\"", "[[[1]]]"] {
        let Err(BodyRefused::Problems(problems)) = parse(Some("application/json"), bad.as_bytes(), 2) else {
            panic!("{bad} is not refused")
        };
        assert_eq!(problems[0].kind, "json_invalid");
    }
}

#[test]
fn numbers_are_echoed_as_they_were_sent() {
    let operation = operation("post", &json!({"type": "string"}), &[]);
    for number in ["99999999999999999999", "1.0", "-0", "0.1000", "1e308"] {
        let parsed = parse(Some("application/json"), format!("[{number}]").as_bytes(), 8).unwrap();
        let problems = body(&operation, &parsed).unwrap_err().into_answer();
        let said = serde_json::to_string(&problems).unwrap();
        assert!(said.contains(&format!("\"input\":[{number}]")), "{said}");
    }
}

#[test]
fn queries_are_forms() {
    let document = serde_json::from_str(include_str!("../../../../contract/openapi.json")).unwrap();
    let contract = Contract::read(&document, bytes::Bytes::new(), &[], &[]).unwrap();
    let events = contract.operation("list-audit-events").unwrap();
    let read = query(
        events,
        Some(
            "action=a+b%2Bc&action=%C3%A9&limit=07&phi_only=ON&actor_entity_id=550E8400E29B41D4A716446655440000&x=1&date_from=2026-04-18",
        ),
    );
    assert_eq!(
        Value::Object(read.unwrap()),
        json!({"action": "é", "actor_entity_id": "550e8400-e29b-41d4-a716-446655440000", "phi_only": true,
               "date_from": "2026-04-18T00:00:00.000000Z", "limit": 7, "offset": 0})
    );
    assert_eq!(
        Value::Object(query(events, None).unwrap()),
        json!({"phi_only": false, "limit": 50, "offset": 0})
    );
    let problems =
        query(events, Some("service=%00&limit=101&offset=-1&phi_only=")).unwrap_err().into_answer();
    let kinds: Vec<&str> = problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, ["value_error", "bool_parsing", "less_than_equal", "greater_than_equal"]);
    let list = contract.operation("list-workspaces").unwrap();
    let far = query(list, Some("continuation_token=99999999999999999999999")).unwrap();
    assert_eq!(far["continuation_token"], json!(i64::MAX));
}
