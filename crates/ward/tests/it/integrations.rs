//! Integrations through the API: what provisioning seeds, what is refused, where secrets go and where they do not.

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward_test::{Server, Tenant, both, new_integration};

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} in {value}"))
}

/// A value that must be found nowhere.
const SECRET: &str = "s3cret-that-nobody-may-see";

fn with_bearer(name: &str, base_url: &str) -> Value {
    json!({
        "name": name,
        "display_name": "With a bearer",
        "base_url": base_url,
        "auth": { "type": "bearer_token", "bearer_token_value": { "value": SECRET } },
    })
}

async fn create(tenant: &Tenant, body: Value) -> Value {
    tenant.owner.post(&tenant.path("/integrations"), body).await.expect(StatusCode::CREATED)
}

fn one(tenant: &Tenant, made: &Value) -> String {
    tenant.path(&format!("/integrations/{}", text(made, "id")))
}

both!(every_connector_seeds_a_row_that_only_lacks_what_its_operator_has);
async fn every_connector_seeds_a_row_that_only_lacks_what_its_operator_has() {
    let server = Server::start().await;
    for connector in [
        "revolution",
        "epic",
        "cerner",
        "allscripts",
        "fhir_store",
        "hubspot",
        "athenahealth",
        "charmhealth",
        "eclinicalworks",
        "meditab",
    ] {
        let tenant = server.tenant(&ward_test::fresh_slug()).await;
        tenant
            .owner
            .patch(&tenant.workspace(""), json!({ "connector_type": connector }))
            .await
            .expect(StatusCode::OK);
        tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.expect(StatusCode::OK);
        let listed = tenant.owner.get(&tenant.path("/integrations")).await.expect(StatusCode::OK);
        let row = &listed["items"][0];
        assert_eq!((listed["total"].as_i64(), text(row, "name")), (Some(1), connector));
        assert_eq!((&row["builtin"], &row["enabled"]), (&json!(true), &json!(false)));
        assert!(text(&row["endpoints"][0], "description").contains("NOT CERTAIN"));
        assert_eq!(tenant.owner.delete(&one(&tenant, row)).await.refused(409), "builtin_integration");
        // What the operator has: a host, an id and a secret. The row then works as it stands.
        let mut auth = row["auth"].clone();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        let given = match text(&auth, "type") {
            "bearer_token" => json!({ "bearer_token_value": { "value": SECRET } }),
            "oauth2_client_credentials" => {
                json!({ "client_id": "c", "client_secret_value": { "value": SECRET } })
            }
            "gcp_wif" => continue,
            _ => json!({
                "client_id": "c", "assertion_algorithm": "ES384", "private_key_value": { "value": key },
                "token_url": "https://ehr.example.com/token",
            }),
        };
        auth.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        let filled = json!({ "base_url": "https://ehr.example.com/fhir", "auth": auth, "enabled": true });
        let changed = tenant.owner.put(&one(&tenant, row), filled).await.expect(StatusCode::OK);
        assert_eq!(changed["enabled"], true);
        // Provisioning again, also after the edit, changes nothing.
        tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.expect(StatusCode::OK);
        assert_eq!(tenant.owner.get(&one(&tenant, row)).await.expect(StatusCode::OK), changed);
    }
}

both!(provisioning_at_once_and_after_a_change_of_connector_seeds_each_once, threads = 4);
async fn provisioning_at_once_and_after_a_change_of_connector_seeds_each_once() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    for (connector, rows) in [("epic", 1), ("hubspot", 2), ("epic", 2)] {
        tenant
            .owner
            .patch(&tenant.workspace(""), json!({ "connector_type": connector }))
            .await
            .expect(StatusCode::OK);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (owner, path) = (tenant.owner.clone(), tenant.workspace("/provision"));
            calls.spawn(async move { owner.post(&path, json!({})).await.expect(StatusCode::OK) });
        }
        calls.join_all().await;
        let listed = tenant.owner.get(&tenant.path("/integrations")).await.expect(StatusCode::OK);
        assert_eq!(listed["total"], rows, "{connector}");
    }
}

both!(an_unfinished_integration_cannot_be_enabled_and_takes_no_secret);
async fn an_unfinished_integration_cannot_be_enabled_and_takes_no_secret() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let made = create(
        &tenant,
        json!({ "name": "a", "display_name": "A", "base_url": "https://{host}/x", "enabled": false }),
    )
    .await;
    let enabled = tenant.owner.put(&one(&tenant, &made), json!({ "enabled": true })).await;
    assert_eq!(enabled.refused(409), "integration_unfinished");
    let auth = json!({ "auth": { "type": "bearer_token", "bearer_token_value": { "value": SECRET } } });
    let refused = tenant.owner.put(&one(&tenant, &made), auth).await;
    assert!(!refused.text.contains(SECRET));
    assert_eq!(refused.problem_locs(), ["body.auth.bearer_token_value"]);
}

both!(an_integration_lives_from_create_to_delete);
async fn an_integration_lives_from_create_to_delete() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let made = create(&tenant, new_integration("scheduling")).await;
    assert_eq!(
        (&made["builtin"], &made["enabled"], &made["protocol"]),
        (&json!(false), &json!(true), &json!("rest"))
    );
    assert_eq!(tenant.owner.get(&one(&tenant, &made)).await.expect(StatusCode::OK), made);
    let taken = tenant.owner.post(&tenant.path("/integrations"), new_integration("scheduling")).await;
    assert_eq!(taken.refused(409), "name_taken");
    let reserved = tenant.owner.post(&tenant.path("/integrations"), new_integration("epic")).await;
    assert_eq!(reserved.refused(409), "name_reserved");
    let same = tenant.owner.put(&one(&tenant, &made), json!({ "display_name": null, "enabled": true })).await;
    assert_eq!(same.expect(StatusCode::OK), made, "what changes nothing writes nothing");
    let mcp = json!({ "mcp_transport": "stdio", "mcp_command": "rm", "mcp_args": ["-rf", "/"] });
    let changed = tenant.owner.put(&one(&tenant, &made), mcp.clone()).await.expect(StatusCode::OK);
    assert_eq!((&changed["mcp_command"], &changed["mcp_args"]), (&mcp["mcp_command"], &mcp["mcp_args"]));
    assert!(text(&changed, "updated_at") > text(&made, "updated_at"));
    let cleared =
        tenant.owner.put(&one(&tenant, &made), json!({ "mcp_args": null })).await.expect(StatusCode::OK);
    assert_eq!((&cleared["mcp_args"], &cleared["mcp_command"]), (&Value::Null, &mcp["mcp_command"]));
    tenant.owner.delete(&one(&tenant, &made)).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(tenant.owner.get(&one(&tenant, &made)).await.refused(404), "integration_not_found");
    assert_eq!(tenant.owner.delete(&one(&tenant, &made)).await.refused(404), "integration_not_found");
    assert_eq!(
        tenant.actions().await[2..],
        ["integration.create", "integration.update", "integration.update", "integration.delete"]
    );
    let audit = tenant.audit().await;
    assert_eq!(audit[1]["metadata"]["fields"], json!(["mcp"]));
}

both!(a_secret_is_written_and_never_shown);
async fn a_secret_is_written_and_never_shown() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let path = tenant.path("/integrations");
    let answer =
        tenant.owner.post_once(&path, "a-key-of-16-chars", with_bearer("a", "https://ehr.example.com")).await;
    assert!(!answer.text.contains(SECRET));
    let made = answer.expect(StatusCode::CREATED);
    let reference = text(&made["auth"], "token_ssm_param_path").to_owned();
    assert!(reference.starts_with("ward:"));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    for body in [
        json!({ "auth": { "type": "bearer_token", "bearer_token_value": { "value": format!("{SECRET}\n") } } }),
        json!({ "auth": { "type": "bearer_token", "bearer_token_value": SECRET } }),
        json!({ "auth": { "type": "bearer_token", "api_key_value": { "value": SECRET } } }),
        json!({ "auth": { "type": "nothing", "api_key_value": { "value": SECRET } } }),
        json!({ "auth": { "type": "smart_backend_services", "client_id": "c", "private_key_value": { "value": SECRET } } }),
        json!({ "auth": { "type": "smart_backend_services", "client_id": "c", "private_key_value": { "value": key } } }),
    ] {
        let refused = tenant.owner.put(&one(&tenant, &made), body).await;
        assert!(!refused.text.contains(SECRET) && !refused.text.contains("BEGIN"), "{}", refused.text);
        refused.problems();
    }
    let shown = tenant.owner.get(&path).await;
    assert!(shown.text.contains(&reference) && !shown.text.contains(SECRET));
    let audit = format!("{:?}", tenant.audit().await);
    assert!(audit.contains("auth/bearer_token") && !audit.contains(SECRET));
    let found = server.dump().await.join("\n");
    assert!(found.contains(&reference) && !found.contains(SECRET));
    assert!(!server.at_rest().await.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
}

both!(a_reference_is_good_for_its_own_field_and_origin_only);
async fn a_reference_is_good_for_its_own_field_and_origin_only() {
    let server = Server::start().await;
    let (tenant, other) = (server.tenant("acme").await, server.tenant("other").await);
    let made = create(&tenant, with_bearer("a", "https://ehr.example.com/v1")).await;
    let auth = made["auth"].clone();
    let second =
        create(&tenant, json!({ "name": "b", "display_name": "B", "base_url": "https://ehr.example.com" }))
            .await;
    let theirs =
        create(&other, json!({ "name": "a", "display_name": "A", "base_url": "https://ehr.example.com" }))
            .await;
    let locs = ["body.auth.token_ssm_param_path"];
    for (owner, path) in [(&tenant.owner, one(&tenant, &second)), (&other.owner, one(&other, &theirs))] {
        assert_eq!(owner.put(&path, json!({ "auth": auth })).await.problem_locs(), locs);
    }
    let again =
        json!({ "name": "c", "display_name": "C", "base_url": "https://ehr.example.com", "auth": auth });
    assert_eq!(tenant.owner.post(&tenant.path("/integrations"), again).await.problem_locs(), locs);
    let endpoint = json!({ "name": "e", "description": "E", "path": "/", "auth": auth });
    let refused = tenant.owner.put(&one(&tenant, &made), json!({ "endpoints": [endpoint] })).await;
    assert_eq!(refused.problem_locs(), ["body.endpoints.0.auth.token_ssm_param_path"]);
    // Sent back as it is, with another path, it stays; on another origin it is dropped.
    let path = one(&tenant, &made);
    let kept = json!({ "auth": auth, "base_url": "https://ehr.example.com/v2" });
    assert_eq!(tenant.owner.put(&path, kept).await.expect(StatusCode::OK)["auth"], auth);
    for elsewhere in
        ["https://evil.example.com/v1", "https://ehr.example.com:8443/v1", "http://ehr.example.com/v1"]
    {
        let made = create(&tenant, with_bearer(&ward_test::fresh_slug(), "https://ehr.example.com/v1")).await;
        let moved = tenant
            .owner
            .put(&one(&tenant, &made), json!({ "base_url": elsewhere }))
            .await
            .expect(StatusCode::OK);
        assert_eq!(
            moved["auth"],
            json!({ "type": "bearer_token", "token_lifetime_seconds": 3600, "assertion_scopes_in_jwt": false })
        );
        let back = json!({ "base_url": "https://ehr.example.com/v1", "auth": made["auth"] });
        assert_eq!(
            tenant.owner.put(&one(&tenant, &made), back).await.problem_locs(),
            locs,
            "it is gone for good"
        );
    }
    assert_eq!(tenant.audit().await[0]["metadata"]["secrets_dropped"], json!(["auth/bearer_token"]));
    assert_eq!(server.count("SELECT count(*) FROM integration_secrets").await, 1);
}

both!(a_change_of_token_url_drops_what_would_go_there);
async fn a_change_of_token_url_drops_what_would_go_there() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let auth = json!({
        "type": "oauth2_client_credentials", "client_id": "c", "token_url": "https://login.example.com/token",
        "client_secret_value": { "value": SECRET },
    });
    let body =
        json!({ "name": "a", "display_name": "A", "base_url": "https://ehr.example.com", "auth": auth });
    let made = create(&tenant, body).await;
    let mut moved = made["auth"].clone();
    moved["token_url"] = json!("https://login.example.com/another");
    let kept = tenant.owner.put(&one(&tenant, &made), json!({ "auth": moved })).await.expect(StatusCode::OK);
    assert!(kept["auth"]["client_secret_ssm_param_path"].is_string());
    moved["token_url"] = json!("https://evil.example.com/token");
    let dropped =
        tenant.owner.put(&one(&tenant, &made), json!({ "auth": moved })).await.expect(StatusCode::OK);
    assert!(dropped["auth"].get("client_secret_ssm_param_path").is_none());
}

both!(what_is_configured_is_judged_all_at_once);
async fn what_is_configured_is_judged_all_at_once() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let endpoint = |more: Value| {
        let mut endpoint = json!({ "name": "e", "description": "E", "path": "/" });
        endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        endpoint
    };
    let locs = async |more: Value| {
        let mut body = json!({ "name": "a", "display_name": "A" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tenant.owner.post(&tenant.path("/integrations"), body).await.problem_locs()
    };
    assert_eq!(locs(json!({ "name": "a/b", "base_url": "ftp://x" })).await, ["body.base_url", "body.name"]);
    for bad in [
        "x",
        "https://",
        "https://u:p@x.example",
        "https://x.example/?a=b",
        "https://x.example/#f",
        "https://x.example/a/../b",
        "https://x y.example",
        "file:///etc/passwd",
        "https://{",
        "https://x.example\\@evil.example",
        "javascript:1",
    ] {
        assert_eq!(locs(json!({ "base_url": bad })).await, ["body.base_url"], "{bad}");
    }
    for (name, value) in [
        ("host", "x"),
        ("Content-Length", "1"),
        ("AUTHORIZATION", "x"),
        ("transfer-encoding", "chunked"),
        ("a b", "x"),
        ("", "x"),
        ("x-a", "b\r\nx-c: d"),
        ("connection", "close"),
        ("proxy-authorization", "x"),
    ] {
        let endpoints = json!({ "endpoints": [endpoint(json!({ "headers": { name: value } }))] });
        assert_eq!(locs(endpoints).await, [format!("body.endpoints.0.headers.{name}")], "{name}");
    }
    for path in ["x", "//evil.example/", "/../x", "/a#b", "/{a b}", "/{", "/a b"] {
        assert_eq!(
            locs(json!({ "endpoints": [endpoint(json!({ "path": path }))] })).await,
            ["body.endpoints.0.path"],
            "{path}"
        );
    }
    let twice = json!({ "endpoints": [endpoint(json!({})), endpoint(json!({}))] });
    assert_eq!(locs(twice).await, ["body.endpoints.1.name"]);
    let retry =
        json!({ "retry_config": { "max_retries": 99, "retry_on_status": [200] }, "max_result_length": -1 });
    assert_eq!(locs(json!({ "endpoints": [endpoint(retry)] })).await.len(), 3);
    assert_eq!(locs(json!({ "auth": { "type": "api_key_header" } })).await, ["body.auth.header_name"]);
    assert_eq!(
        locs(json!({ "auth": { "type": "api_key_header", "header_name": "host" } })).await,
        ["body.auth.header_name"]
    );
    assert_eq!(locs(json!({ "auth": { "type": "gcp_wif" } })).await.len(), 3);
    assert_eq!(server.count("SELECT count(*) FROM integrations").await, 0);
}

both!(another_tenants_integration_does_not_exist);
async fn another_tenants_integration_does_not_exist() {
    let server = Server::start().await;
    let (ours, theirs) = (server.tenant("ours").await, server.tenant("theirs").await);
    let id = theirs.integration().await;
    let path = ours.path(&format!("/integrations/{id}"));
    assert_eq!(ours.owner.get(&path).await.refused(404), "integration_not_found");
    assert_eq!(
        ours.owner.put(&path, json!({ "display_name": "mine" })).await.refused(404),
        "integration_not_found"
    );
    assert_eq!(ours.owner.delete(&path).await.refused(404), "integration_not_found");
    let test = format!("{path}/endpoints/find/test");
    assert_eq!(ours.owner.post(&test, json!({})).await.refused(404), "integration_not_found");
    assert_eq!(server.count("SELECT count(*) FROM integrations").await, 1);
}
