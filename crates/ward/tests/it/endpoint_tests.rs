//! The test of an endpoint: the values that it may send, the answers that it may show, and the callers who may run it.

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward_test::{Actor, Fields as _, Server, Tenant, both};

use crate::calls::connect;
use crate::outbound::{Peer, answer, endpoint, open_server, run};

/// A `HubSpot` that answers each list of calls with a number and a summary, provisioned and enabled.
async fn connected(server: &Server) -> (Tenant, Peer, String) {
    let tenant = server.tenant("acme").await;
    let calls = r#"{"results":[{"properties":{"hs_call_from_number":"+15550100001","hs_call_body":"Has a cough."}}]}"#;
    let peer = Peer::start(move |_, _| Some(answer(200, calls))).await;
    connect(&tenant, "hubspot").await;
    let listed = tenant.get("/integrations").await.ok();
    let integration = tenant.path(&format!("/integrations/{}", listed["items"][0].text("id")));
    let auth = json!({ "type": "bearer_token", "bearer_token_value": { "value": "a-private-apps-token" } });
    let change = json!({ "base_url": peer.url(), "auth": auth, "enabled": true });
    tenant.owner.put(&integration, change).await.ok();
    (tenant, peer, format!("{integration}/endpoints/list_calls/test"))
}

both!(a_viewer_reads_no_patient_data_through_the_connector, async || {
    let server = open_server().await;
    let (tenant, peer, path) = connected(&server).await;
    let viewer = tenant.service("viewer").await;
    viewer.post(&path, json!({})).await.refused_as(403, "forbidden");
    let narrow = json!({ "duration_days": 1, "role": "operator", "permissions": ["Integration.view", "Integration.update"] });
    let (narrow, _) = tenant.key(narrow).await;
    assert_eq!(narrow.post(&path, json!({})).await.refused(403), "forbidden", "the key lacks Call.view");
    viewer.post_once(&path, "a-key-of-16-chars", json!({})).await.refused_as(403, "forbidden");
    assert_eq!(peer.asked(), 0);
    // A caller who may view calls may run it, and the audit records access to patient data.
    let member = tenant.service("member").await;
    let told = run(&member, &path, json!({})).await;
    assert_eq!(told["raw_response"]["results"][0]["properties"]["hs_call_body"], "Has a cough.");
    let event = &tenant.audit().await[0];
    assert_eq!(event.fields(["action", "phi_accessed"]), json!(["integration.test", true]));
});

both!(only_parameters_that_the_endpoint_names_are_sent, async || {
    let server = open_server().await;
    let (tenant, peer, path) = connected(&server).await;
    let asked = json!({ "params": { "limit": "100", "properties": "hs_call_body,hs_call_from_number" } });
    let refused = tenant.owner.post(&path, asked).await;
    assert!(!refused.text.contains("hs_call_body"), "{}", refused.text);
    assert_eq!(refused.problem_locs(), ["body.params.limit", "body.params.properties"]);
    assert_eq!(peer.asked(), 0);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        for form in ["json", "form"] {
            let schema = json!({ "properties": { "day": {} }, "allOf": [{ "properties": { "room": {} } }] });
            let shape =
                json!({ "path": "/{id}", "method": method, "body_format": form, "input_schema": schema });
            let echo = Peer::start(|head, _| Some(answer(200, &json!(head).to_string()))).await;
            let path = endpoint(&tenant, &echo.url(), shape).await;
            let more = json!({ "params": { "id": "1", "day": "x", "admin": true } });
            assert_eq!(
                tenant.owner.post(&path, more).await.problem_locs(),
                ["body.params.admin"],
                "{method}"
            );
            assert_eq!(echo.asked(), 0);
            let told = run(&tenant.owner, &path, json!({ "id": "1", "day": "x", "room": "y" })).await;
            let sent = told.text("raw_response");
            assert!(sent.contains("day") && sent.contains("room"), "{method} {form}: {sent}");
        }
    }
});

/// Values that would leave their segment of the path.
const ESCAPES: [&str; 34] = [
    "../admin/keys",
    "a/b",
    "a\\b",
    "..\\admin",
    "%2e%2e%2Fadmin",
    "%2F",
    "%2f",
    "%5C",
    "%5c",
    "%252F",
    "%25252fx",
    "%255C",
    "%c0%af",
    "%C1%9C",
    "%e0%80%af",
    "\u{FF0F}admin",
    "\u{FF3C}admin",
    "%EF%BC%8F",
    "\u{2215}x",
    "%u002f",
    "..",
    "%2e%2E",
    "\u{FF0E}\u{FF0E}",
    "..;a=b",
    "\u{FE30}",
    "%EF%B8%B0",
    ".\u{FE0F}.",
    "..\u{2061}",
    "..\u{3164}",
    "a\u{A5}b",
    "a\u{20A9}b",
    "..?",
    "%2e%2e%3f",
    "..%23",
];

both!(no_value_leaves_its_segment_of_the_path, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(|head, _| {
        Some(answer(200, &json!(head.split(' ').nth(1).unwrap_or_default()).to_string()))
    })
    .await;
    let strict = endpoint(&tenant, &peer.url(), json!({ "path": "/patients/{id}/notes?q={q}" })).await;
    for value in ESCAPES {
        let refused = tenant.owner.post(&strict, json!({ "params": { "id": value, "q": value } })).await;
        assert_eq!(refused.problem_locs(), ["body.params.id"], "{value}");
    }
    let joined = endpoint(&tenant, &peer.url(), json!({ "path": "/patients/{a}{b}/notes" })).await;
    for (a, b, wrong) in [(".", ".", "a"), ("%2", "F", "b"), ("%", "2f", "b")] {
        let refused = tenant.owner.post(&joined, json!({ "params": { "a": a, "b": b } })).await;
        assert!(
            refused.problem_locs().contains(&format!("body.params.{wrong}")),
            "{a} {b}: {}",
            refused.text
        );
    }
    assert_eq!(peer.asked(), 0);
    // Characters that do not separate segments are sent, and all characters if the endpoint allows reserved ones.
    let told = run(&tenant.owner, &strict, json!({ "id": "Zürich 5%:é", "q": "a/../b" })).await;
    assert_eq!(told["raw_response"], "/patients/Z%C3%BCrich%205%25%3A%C3%A9/notes?q=a%2F..%2Fb");
    let open = json!({ "path": "/patients/{id}/notes", "allow_reserved": true });
    let open = endpoint(&tenant, &peer.url(), open).await;
    let told = run(&tenant.owner, &open, json!({ "id": "a/b\\c%2F" })).await;
    assert_eq!(told["raw_response"], "/patients/a%2Fb%5Cc%252F/notes");
    let dots = tenant.owner.post(&open, json!({ "params": { "id": ".." } })).await;
    assert_eq!(dots.problem_locs(), ["body.params.id"], "a URL cannot hold it");
    let long = tenant.owner.post(&open, json!({ "params": { "id": "x".repeat(10_000) } })).await;
    assert_eq!(long.problem_locs(), ["body.params.id"]);
});

both!(tests_of_ehrs_need_call_view_and_every_test_is_audited, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(|_, _| Some(answer(200, "{}"))).await;
    let get = endpoint(&tenant, &peer.url(), json!({})).await;
    let integration = get.split("/endpoints").next().unwrap().to_owned();
    let viewer: Actor = tenant.service("viewer").await;
    run(&viewer, &get, json!({})).await;
    let event = &tenant.audit().await[0];
    assert_eq!(
        event["phi_accessed"],
        Value::Bool(true),
        "Ward does not know whether the answer holds patient data"
    );
    tenant.owner.put(&integration, json!({ "protocol": "fhir" })).await.ok();
    viewer.post(&get, json!({})).await.refused_as(403, "forbidden");
    run(&tenant.service("member").await, &get, json!({})).await;
    assert_eq!(peer.asked(), 2);
});

both!(a_replay_is_answered_after_the_endpoint_has_changed, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(|_, index| Some(answer(200, &index.to_string()))).await;
    let path = endpoint(&tenant, &peer.url(), json!({ "path": "/{id}" })).await;
    let body = json!({ "params": { "id": "1" } });
    let first = tenant.owner.post_once(&path, "a-key-of-16-chars", body.clone()).await;
    let integration = path.split("/endpoints").next().unwrap().to_owned();
    let other = json!({ "endpoints": [{ "name": "e", "description": "E", "path": "/", "method": "GET" }] });
    tenant.owner.put(&integration, other).await.ok();
    let again = tenant.owner.post_once(&path, "a-key-of-16-chars", body.clone()).await;
    assert_eq!((again.header("idempotency-replayed"), &again.text), ("true", &first.text));
    // A refusal is not stored for replay.
    let refused = tenant.owner.post_once(&path, "another-key-of-16", body).await;
    assert_eq!(refused.problem_locs(), ["body.params.id"]);
    let fine = tenant.owner.post_once(&path, "another-key-of-16", json!({})).await;
    assert_eq!(fine.status, StatusCode::OK, "{}", fine.text);
});
