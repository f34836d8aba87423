//! What a request may cost: the size of an answer does not follow what is wrong with a request.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ward_test::{Actor, Answer, Sending, Server, both, fresh_slug};

/// The longest 422.
const LONGEST: usize = 128 * 1024;

async fn sent(actor: &Actor, method: Method, path: &str, body: String) -> Answer {
    let body = Some(body.into_bytes());
    let json = Some("application/json");
    actor.send(method, path, Sending { body, content_type: json, headers: &[] }).await
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
    let problems = body["detail"].as_array().unwrap().clone();
    assert!(problems.len() <= 101, "{} problems", problems.len());
    problems
}

both!(an_anonymous_claim_of_twenty_thousand_mistakes_gets_a_short_answer);
async fn an_anonymous_claim_of_twenty_thousand_mistakes_gets_a_short_answer() {
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
    assert_eq!(shown["input"], format!("{}…(+195904 bytes)", "9".repeat(4096)), "no number of that length");
}

both!(an_integration_full_of_mistakes_gets_a_short_answer);
async fn an_integration_full_of_mistakes_gets_a_short_answer() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
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
    let body = full_of(start, "mcp_args", &nested);
    short(&sent(&tenant.owner, Method::POST, &path, body).await);
}

both!(a_hundred_problems_are_listed_and_the_others_are_counted);
async fn a_hundred_problems_are_listed_and_the_others_are_counted() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let endpoints: Vec<Value> = (0..40).map(|_| json!({})).collect();
    let body = json!({ "name": fresh_slug(), "display_name": "X", "endpoints": endpoints });
    let answer = tenant.owner.post(&tenant.path("/integrations"), body).await;
    let problems = short(&answer);
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[99]["loc"], json!(["body", "endpoints", 33, "description"]));
    assert_eq!(
        problems[100],
        json!({ "type": "too_many_problems", "loc": ["body"], "msg": "20 more problems are not listed",
                "input": null, "ctx": { "listed": 100, "more": 20 } })
    );
}

both!(a_query_of_thousands_of_parameters_gets_a_short_answer);
async fn a_query_of_thousands_of_parameters_gets_a_short_answer() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let many = "limit=x&phi_only=%01&".repeat(600);
    let problems = short(&tenant.owner.get(&tenant.path(&format!("/audit?{many}"))).await);
    assert_eq!(problems.len(), 2);
    let long = "%01".repeat(4_000);
    let problems = short(&tenant.owner.get(&tenant.path(&format!("/audit?service={long}%00"))).await);
    assert!(problems[0]["input"].as_str().unwrap().ends_with("bytes)"), "{problems:?}");
}

// The credentials are cleared by the null that was sent, whatever numbers stand beside it.
both!(a_number_beyond_every_double_does_not_keep_credentials);
async fn a_number_beyond_every_double_does_not_keep_credentials() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let auth = json!({ "type": "bearer_token", "bearer_token_value": { "value": "a-token" } });
    let made =
        json!({ "name": "ehr", "display_name": "EHR", "base_url": "https://ehr.example", "auth": auth });
    let made = tenant.owner.post(&tenant.path("/integrations"), made).await.expect(StatusCode::CREATED);
    let path = tenant.path(&format!("/integrations/{}", made["id"].as_str().unwrap()));
    for number in ["1e400", "-1e999", &"9".repeat(400)] {
        let schema = format!(r#"{{"maximum":{number}}}"#);
        let endpoint = format!(r#"{{"name":"n","description":"d","path":"/","input_schema":{schema}}}"#);
        let body = format!(r#"{{"auth":null,"endpoints":[{endpoint}]}}"#);
        let changed = sent(&tenant.owner, Method::PUT, &path, body).await.expect(StatusCode::OK);
        assert_eq!(changed["auth"], Value::Null, "{number}");
        let body =
            json!({ "auth": { "type": "bearer_token", "bearer_token_value": { "value": "a-token" } } });
        sent(&tenant.owner, Method::PUT, &path, body.to_string()).await.expect(StatusCode::OK);
    }
    let kept = sent(&tenant.owner, Method::PUT, &path, r#"{"display_name":"E"}"#.to_owned()).await;
    assert_ne!(kept.expect(StatusCode::OK)["auth"], Value::Null, "an absent field is left alone");
}
