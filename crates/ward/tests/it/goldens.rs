//! The reference validator's recorded answers, replayed against a server.
//!
//! Two things may differ: the position at which malformed JSON breaks, and values that only Ward's own rules refuse.

use reqwest::{Method, StatusCode};
use serde_json::Value;
use ward_test::{Fields as _, Sending, Server, Tenant, both};

const GOLDENS: &str = include_str!("../../../ward-contract/tests/goldens/validation.json");

both!(every_recorded_request_gets_its_recorded_answer, async || {
    let goldens: Value = serde_json::from_str(GOLDENS).unwrap();
    let cases = goldens.list("cases");
    assert!(cases.len() >= 132, "{} cases", cases.len());
    let server = Server::start().await;
    let tenant = server.tenant("golden").await;
    for case in cases {
        // A creation takes its slug, so each accepted creation has a server of its own.
        if case["operation"] == "create-workspace" && case["status"] == 201 {
            let server = Server::start().await;
            let tenant = server.tenant("golden").await;
            replay(&server, &tenant, case).await;
        } else {
            replay(&server, &tenant, case).await;
        }
    }
});

async fn replay(server: &Server, tenant: &Tenant, case: &Value) {
    let note = format!("{}: {}", case.text("operation"), case.text("note"));
    let key = tenant.claimed.text("key_id");
    let (method, path) = match case.text("operation") {
        "create-workspace" => (Method::POST, "/v1/workspaces".to_owned()),
        "list-workspaces" => (Method::GET, "/v1/workspaces".to_owned()),
        "update-workspace" => (Method::PATCH, tenant.workspace("")),
        "archive-workspace" => (Method::POST, tenant.workspace("/archive")),
        "update-test-caller-numbers" => (Method::PUT, tenant.workspace("/test-caller-numbers")),
        "create-api-key" => (Method::POST, tenant.path("/api-keys")),
        // A rotation would end the key that this test uses, so only the recorded refusals are replayed.
        "rotate-api-key" if case["status"] == 200 => return,
        "rotate-api-key" => (Method::POST, tenant.path(&format!("/api-keys/{key}/rotate"))),
        other => panic!("an operation that no test knows: {other}"),
    };
    let path = match case["query"].as_str() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let sending = Sending {
        body: case["body"].as_str().map(|body| body.as_bytes().to_vec()),
        content_type: case["content_type"].as_str(),
        headers: &[],
    };
    let actor = if path == "/v1/workspaces" && method == Method::POST {
        server.anonymous()
    } else {
        tenant.owner.clone()
    };
    let answer = actor.send(method, &path, sending).await;
    assert_eq!(
        u64::from(answer.status.as_u16()),
        case["status"].as_u64().unwrap(),
        "{note}: {}",
        answer.text
    );
    if answer.status != StatusCode::UNPROCESSABLE_ENTITY {
        return;
    }
    let mut answered: Value = serde_json::from_str(&answer.text).unwrap();
    let mut recorded = case["detail"].clone();
    for problem in
        recorded.as_array_mut().unwrap().iter_mut().chain(answered["detail"].as_array_mut().unwrap())
    {
        if problem["type"] == "json_invalid" {
            assert!(problem["loc"][1].is_u64() && !problem["ctx"].text("error").is_empty(), "{note}");
            problem["loc"] = problem["loc"][0].clone();
            problem["ctx"] = Value::Null;
        }
    }
    assert_eq!(answered["detail"], recorded, "{note}");
}
