//! Bounds on requests and answers: the size of an answer does not grow with the number of mistakes in a request.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ward::operator;
use ward_test::{Actor, Answer, Fields as _, Sending, Server, Target, both, fresh_slug, new_workspace};

const LONGEST: usize = 128 * 1024;

async fn sent(actor: &Actor, method: Method, path: &str, body: String) -> Answer {
    actor.send(method, path, Sending::json_bytes(body)).await
}

/// `{"<field>":[<item>,<item>,…]}` of about 250 KB, with other fields before it.
fn full_of(before: &str, field: &str, item: &str) -> String {
    let items = vec![item; 250_000 / (item.len() + 1)].join(",");
    format!("{{{before}\"{field}\":[{items}]}}")
}

#[track_caller]
fn short(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text);
    assert!(answer.text.len() <= LONGEST, "{} bytes", answer.text.len());
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    let problems = body.list("detail").clone();
    assert!(problems.len() <= 101, "{} problems", problems.len());
    problems
}

both!(an_anonymous_claim_of_twenty_thousand_mistakes_gets_a_short_answer, async || {
    let server = Server::start().await;
    let stranger = server.anonymous();
    let claim = "/v1/01900000-0000-7000-8000-000000000000/api-keys";
    for (before, item) in [
        (r#""duration_days":1,"role":"viewer","#, r#""Call.view""#),
        (r#""duration_days":1,"role":"viewer","#, r#""Audit.view""#),
        (r#""duration_days":1,"#, "1"),
        (r#""duration_days":1,"#, r#""\u0000""#),
        (r#""role":{},"#, "{}"),
    ] {
        short(&sent(&stranger, Method::POST, claim, full_of(before, "permissions", item)).await);
    }
    for name in [r"\u0001", r"\u0000", "é", "a", r#"\""#] {
        let name = name.repeat(250_000 / name.len());
        let body = format!(r#"{{"slug":["{name}"],"name":{{"{name}":1}},"environment":"{name}"}}"#);
        short(&sent(&stranger, Method::POST, "/v1/workspaces", body[..250_000].to_owned() + "\"]}").await);
        short(&sent(&stranger, Method::POST, "/v1/workspaces", format!(r#"{{"slug":"{name}"}}"#)).await);
    }
    let number = "9".repeat(200_000);
    let answer = sent(&stranger, Method::POST, "/v1/workspaces", format!(r#"{{"name":{number}}}"#)).await;
    let problems = short(&answer);
    let shown = problems.iter().find(|problem| problem["loc"] == json!(["body", "name"])).unwrap();
    assert_eq!(
        shown["input"],
        format!("{}…(+195904 bytes)", "9".repeat(4096)),
        "the number is echoed in part"
    );
});

both!(an_integration_full_of_mistakes_gets_a_short_answer, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/integrations");
    let start = r#""name":"x","display_name":"X","base_url":"https://ehr.example","#;
    let endpoint = r#"{"name":"same","description":"d","path":"/"}"#;
    for item in
        ["{}", "1", endpoint, r#"{"name":"a b"}"#, r#"{"auth":{"type":"x","api_key_value":{"value":1}}}"#]
    {
        short(&sent(&tenant.owner, Method::POST, &path, full_of(start, "endpoints", item)).await);
    }
    let headers: Vec<String> = (0..14_000).map(|index| format!("\"a b{index}\":\"\"")).collect();
    let headers = format!("{{{}}}", headers.join(","));
    let body = format!(
        r#"{{{start}"endpoints":[{{"name":"n","description":"d","path":"/","headers":{headers}}}]}}"#
    );
    short(&sent(&tenant.owner, Method::POST, &path, body).await);
    let nested = format!("{}{}", "[".repeat(90), "]".repeat(90));
    short(&sent(&tenant.owner, Method::POST, &path, full_of(start, "mcp_args", &nested)).await);
});

both!(a_hundred_problems_are_listed_and_the_others_are_counted, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let endpoints: Vec<Value> = (0..40).map(|_| json!({})).collect();
    let body = json!({ "name": fresh_slug(), "display_name": "X", "endpoints": endpoints });
    let problems = short(&tenant.post("/integrations", body).await);
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[99]["loc"], json!(["body", "endpoints", 33, "description"]));
    assert_eq!(
        problems[100],
        json!({ "type": "too_many_problems", "loc": ["body"], "msg": "20 more problems are not listed",
                "input": null, "ctx": { "listed": 100, "more": 20 } })
    );
});

both!(a_query_of_thousands_of_parameters_gets_a_short_answer, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let many = "limit=x&phi_only=%01&".repeat(600);
    let problems = short(&tenant.get(&format!("/audit?{many}")).await);
    assert_eq!(problems.len(), 2);
    let long = "%01".repeat(4_000);
    let problems = short(&tenant.get(&format!("/audit?service={long}%00")).await);
    assert!(problems[0].text("input").ends_with("bytes)"), "{problems:?}");
});

// The `null` that was sent clears the credentials, whatever numbers the body also holds.
both!(a_number_beyond_every_double_does_not_keep_credentials, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let auth = json!({ "type": "bearer_token", "bearer_token_value": { "value": "a-token" } });
    let made =
        json!({ "name": "ehr", "display_name": "EHR", "base_url": "https://ehr.example", "auth": auth });
    let made = tenant.post("/integrations", made).await.created();
    let path = tenant.path(&format!("/integrations/{}", made.text("id")));
    for number in ["1e400", "-1e999", &"9".repeat(400)] {
        let schema = format!(r#"{{"maximum":{number}}}"#);
        let endpoint = format!(r#"{{"name":"n","description":"d","path":"/","input_schema":{schema}}}"#);
        let body = format!(r#"{{"auth":null,"endpoints":[{endpoint}]}}"#);
        let changed = sent(&tenant.owner, Method::PUT, &path, body).await.ok();
        assert_eq!(changed["auth"], Value::Null, "{number}");
        let body =
            json!({ "auth": { "type": "bearer_token", "bearer_token_value": { "value": "a-token" } } });
        sent(&tenant.owner, Method::PUT, &path, body.to_string()).await.ok();
    }
    let kept = sent(&tenant.owner, Method::PUT, &path, r#"{"display_name":"E"}"#.to_owned()).await;
    assert_ne!(kept.ok()["auth"], Value::Null, "an absent field stays unchanged");
});

/// The texts of `body` with `number` in place of each of its values in turn.
fn with_number(body: &Value, number: &str) -> Vec<String> {
    fn places(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found));
            }
            Value::Array(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(index, item)| places(item, &format!("{at}/{index}"), found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    places(body, "", &mut found);
    let replaced = found.iter().map(|at| {
        let mut body = body.clone();
        *body.pointer_mut(at).unwrap() = json!("the number");
        body.to_string().replace("\"the number\"", number)
    });
    replaced.collect()
}

// A body is parsed once. So no number passes the validation and then fails as a value of the program.
both!(no_number_in_any_place_of_any_body_is_an_error_of_the_server, async || {
    let (server, tenant) = Server::with_tenant().await;
    let integration = tenant.integration().await;
    let target = Target { integration, ..tenant.target(tenant.owner_key_id()) };
    // A change of this one leaves the unreachable address of the other, whose endpoint is called.
    let changed = Target { integration: tenant.integration().await, ..target.clone() };
    let document: Value = serde_json::from_str(include_str!("../../../../contract/openapi.json")).unwrap();
    let with_body = server.app.contract.operations().filter(|operation| operation.body.is_some());
    let mut sent_bodies = 0;
    // An archived workspace would answer nothing else.
    for operation in with_body.filter(|operation| operation.id != "archive-workspace") {
        let method = operation.method.as_str().to_lowercase();
        let target = if operation.id == "update-integration" { &changed } else { &target };
        let example = &document["paths"][&operation.path][&method]["x-example"];
        for body in [target.body(operation).unwrap(), example.clone()] {
            for number in ["1e400", "-1e400", "1e-400", "1.5", &"9".repeat(400), "18446744073709551616"] {
                for body in with_number(&body, number) {
                    let answer =
                        sent(&tenant.owner, operation.method.clone(), &target.path(operation), body.clone())
                            .await;
                    assert!(!answer.status.is_server_error(), "{}: {body}: {}", operation.id, answer.text);
                    sent_bodies += 1;
                }
            }
        }
    }
    assert!(sent_bodies > 500, "the walk sent only {sent_bodies} bodies");
});

both!(a_name_has_at_most_256_characters, async || {
    let (server, tenant) = Server::with_tenant().await;
    let longest = "é".repeat(256);
    let renamed = json!({ "name": format!("  {longest}  ") });
    let renamed = tenant.owner.patch(&tenant.workspace(""), renamed).await.ok();
    assert_eq!(renamed["name"], longest);
    let too_long = format!("{longest}é");
    let wanted = [("body.name".to_owned(), "Value error, must be at most 256 characters".to_owned())];
    for (actor, path, body) in [
        (server.anonymous(), "/v1/workspaces".to_owned(), new_workspace(&fresh_slug())),
        (tenant.owner.clone(), "/v1/workspaces/self-service".to_owned(), new_workspace(&fresh_slug())),
        (tenant.owner.clone(), tenant.path("/api-keys"), json!({ "duration_days": 1 })),
    ] {
        let mut body = body;
        body["name"] = json!(too_long);
        assert_eq!(actor.post(&path, body).await.problems(), wanted, "{path}");
    }
    let answer = tenant.owner.patch(&tenant.workspace(""), json!({ "name": too_long })).await;
    assert_eq!(answer.problems(), wanted);
    let long = tenant.get(&format!("/api-keys/{}", "a".repeat(3_000))).await;
    assert!(long.status == 405 || long.status == 404, "{}", long.status);
    let named = tenant.path(&format!("/integrations/{}", "0".repeat(3_000)));
    tenant.owner.get(&named).await.refused_as(404, "integration_not_found");
});

both!(stored_values_beyond_the_bounds_are_served_and_listed_for_the_operator, async || {
    let (server, tenant) = Server::with_tenant().await;
    server.tenant("other").await.integration().await;
    let integration = tenant.integration().await;
    assert_eq!(operator::over_long_values(&server.app).await.unwrap(), operator::OverLongValues::default());
    let long = "n".repeat(5_000);
    server
        .sql(format!("UPDATE workspaces SET name = '{long}', backend_org_id = '{long}' WHERE slug = 'acme'"))
        .await;
    let key = tenant.owner_key_id();
    server.sql(format!("UPDATE api_keys SET name = '{long}' WHERE key_id = '{key}'")).await;
    let path = tenant.path(&format!("/integrations/{integration}"));
    let made = tenant.owner.get(&path).await.ok();
    let mut endpoint = made["endpoints"][0].clone();
    endpoint["description"] = json!(long);
    endpoint["headers"] = (0..200).map(|index| (format!("x-{index}"), json!("v"))).collect();
    endpoint["retry_config"]["retry_on_status"] = json!(vec![503; 300]);
    endpoint["input_schema"] = json!({ "a": "b".repeat(70_000) });
    let endpoints: Vec<Value> = (0..150)
        .map(|index| {
            let mut endpoint = if index < 3 { endpoint.clone() } else { made["endpoints"][0].clone() };
            endpoint["name"] = json!(format!("e{index}"));
            endpoint
        })
        .collect();
    let stored = json!(endpoints).to_string();
    server
        .sql(format!("UPDATE integrations SET endpoints = '{stored}' WHERE id = uuid '{integration}'"))
        .await;

    let shown = tenant.owner.get(&tenant.workspace("")).await.ok();
    assert_eq!(shown["name"], long);
    let listed = tenant.owner.get("/v1/workspaces").await.ok();
    assert_eq!(listed["items"][0]["backend_org_id"], long);
    let keys = tenant.get("/api-keys").await.ok();
    assert_eq!(keys["items"][0]["name"], long);
    for path in [path.clone(), tenant.path("/integrations")] {
        let shown = tenant.owner.get(&path).await.ok();
        let endpoints =
            if shown["items"].is_array() { &shown["items"][0]["endpoints"] } else { &shown["endpoints"] };
        assert_eq!(endpoints.as_array().unwrap().len(), 150);
        assert_eq!(endpoints[0]["description"], long);
    }
    // A change leaves the fields that it does not send as they are, however long they are.
    let put = json!({ "display_name": "Renamed" });
    let changed = tenant.owner.put(&path, put).await.ok();
    assert_eq!(changed.list("endpoints").len(), 150);
    tenant.owner.patch(&tenant.workspace(""), json!({ "connector_type": "epic" })).await.ok();

    let found = operator::over_long_values(&server.app).await.unwrap();
    assert!(!found.more && found.found.iter().all(|value| value.workspace_id.to_string() == tenant.id));
    let fields: Vec<(&str, &str)> =
        found.found.iter().map(|value| (value.what, value.field.as_str())).collect();
    assert_eq!(
        fields,
        [
            ("workspace", "name"),
            ("workspace", "backend_org_id"),
            ("api_key", "name"),
            ("integration", "endpoints")
        ]
    );
    assert!(!serde_json::to_string(&found).unwrap().contains("nnnn"), "the value itself is not listed");
    let few = json!(&endpoints[..3]).to_string();
    server.sql(format!("UPDATE integrations SET endpoints = '{few}' WHERE id = uuid '{integration}'")).await;
    let found = operator::over_long_values(&server.app).await.unwrap().found;
    let fields: Vec<&str> = found[3..7].iter().map(|value| value.field.as_str()).collect();
    let expected = ["description", "headers", "input_schema", "retry_config.retry_on_status"];
    assert_eq!(fields, expected.map(|field| format!("endpoints.0.{field}")));
    assert_eq!(found.len(), 15);
});
