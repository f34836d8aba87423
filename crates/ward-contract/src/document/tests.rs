use serde_json::json;

use super::*;

/// A document with one operation, whose body has this schema.
fn document(schema: &Value) -> Value {
    json!({
        "security": [{"Key": []}],
        "paths": {"/things/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}],
            "post": {
                "operationId": "make",
                "x-permission": "Thing.make",
                "requestBody": {"required": true, "content": {"application/json": {"schema": schema}}},
                "responses": {"201": {"description": "Made"}}
            }
        }},
        "components": {"schemas": {
            "Loop": {"type": "array", "items": {"$ref": "#/components/schemas/Loop"}},
            "Name": {"type": "string", "minLength": 1}
        }}
    })
}

fn refusal(document: &Value, rules: &[(&str, Rule)]) -> String {
    read(document, &[], rules).expect_err("should be refused").to_string()
}

fn fine(_: &Value) -> Vec<RuleProblem> {
    Vec::new()
}

#[test]
fn what_would_not_be_enforced_is_refused() {
    for (schema, why) in [
        (json!({"type": "string", "maxBytes": 3}), "keyword maxBytes is not enforced here"),
        (json!({"type": "integer", "multipleOf": 3}), "keyword multipleOf is not enforced here"),
        (json!({"type": "integer", "maximum": 1.5}), "maximum 1.5 is not a whole number"),
        (json!({"type": "string", "minLength": -1}), "minLength is negative"),
        (json!({"type": "null"}), "type \"null\" is not understood"),
        (json!({"type": ["string", "null"]}), "type [\"string\",\"null\"] is not understood"),
        (json!({"type": "string", "format": "email"}), "format \"email\" is not understood"),
        (json!({"type": "string", "pattern": "("}), "unclosed group"),
        (json!({"type": "string", "enum": []}), "an enum needs values"),
        (json!({"oneOf": []}), "keyword oneOf is not enforced here"),
        (json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}), "the only unions understood"),
        (
            json!({"anyOf": [{"type": "string"}, {"type": "array", "maxItems": 1}, {"type": "null"}]}),
            "the only unions understood",
        ),
        (
            json!({"$ref": "#/components/schemas/Name", "maxLength": 3}),
            "keyword maxLength is not enforced here",
        ),
        (json!({"$ref": "#/components/schemas/None"}), "is not in this document"),
        (json!({"$ref": "#/components/schemas/Loop"}), "contains itself"),
        (json!({"type": "object", "properties": {}, "required": ["a"]}), "a is required and not declared"),
        (
            json!({"type": "object", "properties": {}, "additionalProperties": false}),
            "keyword additionalProperties",
        ),
        (json!(true), "not a schema object"),
    ] {
        let said = refusal(&document(&schema), &[]);
        assert!(said.contains(why), "{schema}: {said}");
    }
}

#[test]
fn a_rule_must_find_its_place() {
    let document =
        document(&json!({"type": "object", "properties": {"name": {"$ref": "#/components/schemas/Name"}}}));
    let body = "#/paths/~1things~1{id}/post/requestBody/content/application~1json/schema/properties/name";
    let operations = read(&document, &[], &[("#/components/schemas/Name", fine), (body, fine)]).unwrap();
    let Some(Node { kind: Kind::Model { properties }, .. }) = &operations[0].body else { panic!("a model") };
    assert_eq!(properties[0].node.rules.len(), 2);
    let said = refusal(&document, &[("#/components/schemas/Loop", fine)]);
    assert!(said.contains("a rule is attached here, but no request schema is"), "{said}");
}

#[test]
fn an_operation_says_who_may_call_it() {
    let of = |change: &dyn Fn(&mut Value)| {
        let mut document = document(&json!({"type": "boolean"}));
        change(&mut document["paths"]["/things/{id}"]);
        read(&document, &[], &[])
    };
    assert!(of(&|_| ()).is_ok());
    let open = of(&|item| {
        item["post"]["security"] = json!([]);
        item["post"].as_object_mut().unwrap().remove("x-permission");
    });
    assert_eq!(open.unwrap()[0].access, Access::Anonymous);
    assert!(of(&|item| item["post"]["security"] = json!([])).is_err());
    assert!(of(&|item| drop(item["post"].as_object_mut().unwrap().remove("x-permission"))).is_err());
    assert!(
        of(&|item| drop(item.as_object_mut().unwrap().remove("parameters"))).is_err(),
        "undeclared {{id}}"
    );
    assert!(of(&|item| drop(item["post"].as_object_mut().unwrap().remove("operationId"))).is_err());
    let for_callers = |kind: Value| of(&|item| item["post"]["x-caller"] = kind.clone());
    for (kind, read) in
        [("user", CallerKind::User), ("api_key", CallerKind::ApiKey), ("whole", CallerKind::Whole)]
    {
        let operations = for_callers(json!(kind)).unwrap();
        assert!(matches!(operations[0].access, Access::Key { caller: Some(caller), .. } if caller == read));
    }
    for unknown in [json!("person"), json!(null), json!(["user"])] {
        assert!(for_callers(unknown).is_err());
    }
    assert!(of(&|item| item["put"] = item["post"].clone()).is_err(), "an id declared twice");
    assert!(of(&|item| item["post"]["requestBody"]["required"] = json!(false)).is_err());
    let list =
        json!([{"name": "q", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}]);
    assert!(of(&|item| item["post"]["parameters"] = list.clone()).is_err(), "no lists in queries");
    let header = json!([{"name": "h", "in": "header", "schema": {"type": "string"}}]);
    assert!(of(&|item| item["post"]["parameters"] = header.clone()).is_err());
}
