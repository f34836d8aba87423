//! Integrations: their seeds, validation, and the storage and use of their secrets.

use serde_json::{Value, json};
use ward_test::{Fields as _, Server, Tenant, both, new_integration};

use crate::calls::connect;
use crate::support::together;

/// A secret that must not appear in any answer, event or file.
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
    tenant.post("/integrations", body).await.created()
}

fn one(tenant: &Tenant, made: &Value) -> String {
    tenant.path(&format!("/integrations/{}", made.text("id")))
}

/// The seed of a connector, from the vendor's documentation: name, protocol, base URL, authentication, token URL, scopes.
type Seed =
    (&'static str, &'static str, &'static str, &'static str, Option<&'static str>, Option<&'static str>);
const SEEDS: [Seed; 10] = [
    (
        "revolution",
        "fhir",
        "https://revolutionehr.dynamicfhir.com/fhir/revolutionehr/{practice}/r4",
        "smart_backend_services",
        None,
        None,
    ),
    ("epic", "fhir", "https://{host}/{instance}/api/FHIR/R4", "smart_backend_services", None, None),
    (
        "cerner",
        "fhir",
        "https://fhir-ehr.cerner.com/r4/{tenant}",
        "smart_backend_services",
        Some(
            "https://authorization.cerner.com/tenants/{tenant}/hosts/{host}/protocols/oauth2/profiles/smart-v1/token",
        ),
        Some("system/DocumentReference.read system/DocumentReference.write system/Encounter.read"),
    ),
    (
        "allscripts",
        "fhir",
        "https://{host}/fhirroute/fhir/{tenant}",
        "smart_backend_services",
        None,
        Some("system/DocumentReference.read system/DocumentReference.write"),
    ),
    (
        "fhir_store",
        "fhir",
        "https://healthcare.googleapis.com/v1/projects/{project}/locations/{location}/datasets/{dataset}/fhirStores/{store}/fhir",
        "gcp_wif",
        Some("https://sts.googleapis.com/v1/token"),
        Some("https://www.googleapis.com/auth/cloud-healthcare"),
    ),
    ("hubspot", "rest", "https://api.hubapi.com", "bearer_token", None, None),
    (
        "athenahealth",
        "rest",
        "https://api.platform.athenahealth.com/v1/{practiceid}",
        "oauth2_client_credentials",
        Some("https://api.platform.athenahealth.com/oauth2/v1/token"),
        Some("athena/service/Athenanet.MDP.*"),
    ),
    (
        "charmhealth",
        "fhir",
        "https://ehr2.charmtracker.com/api/ehr/v2/fhir",
        "smart_backend_services",
        Some("https://ehr2.charmtracker.com/oauth/v2/token"),
        None,
    ),
    (
        "eclinicalworks",
        "fhir",
        "https://fhir4.eclinicalworks.com/fhir/r4/{practice_code}",
        "smart_backend_services",
        Some("https://oauthserver.eclinicalworks.com/oauth/oauth2/token"),
        None,
    ),
    ("meditab", "fhir", "", "smart_backend_services", None, None),
];

/// A URL with its placeholders filled in.
fn filled(url: &str) -> String {
    let mut text = url.replace("{host}", "ehr.example.com");
    while let Some((before, rest)) = text.split_once('{') {
        text = format!("{before}ours{}", rest.split_once('}').unwrap().1);
    }
    text
}

both!(every_connector_seeds_a_row_that_its_operator_only_completes, async || {
    let server = Server::start().await;
    let rsa = ward_test::rsa_pem();
    for (connector, protocol, base_url, kind, token_url, scope) in SEEDS {
        let tenant = server.tenant(&ward_test::fresh_slug()).await;
        connect(&tenant, connector).await;
        let listed = tenant.get("/integrations").await.ok();
        let row = &listed["items"][0];
        assert_eq!((listed["total"].as_i64(), row.text("name")), (Some(1), connector));
        assert_eq!(row.fields(["builtin", "enabled"]), json!([true, false]));
        let mut auth = row["auth"].clone();
        assert_eq!((row.text("protocol"), row.text("base_url")), (protocol, base_url), "{connector}");
        assert_eq!((auth.text("type"), auth["token_url"].as_str()), (kind, token_url), "{connector}");
        let scopes = if kind == "gcp_wif" { &auth["gcp_scopes"] } else { &auth["scopes"] };
        assert_eq!(
            *scopes,
            scope.map_or(Value::Null, |all| json!(all.split(' ').collect::<Vec<_>>())),
            "{connector}"
        );
        let description = row["endpoints"][0].text("description");
        assert!(description.contains("NOT CERTAIN"));
        assert!(description.contains("Register at the vendor"), "{description}");
        let held = ["revolution", "charmhealth", "eclinicalworks", "meditab"].contains(&connector);
        assert_eq!(description.contains("are held"), held, "{description}");
        assert_eq!(description.contains("ward_call_id"), connector == "hubspot", "{description}");
        tenant.owner.delete(&one(&tenant, row)).await.refused_as(409, "builtin_integration");
        // The seed is unfinished and cannot be enabled.
        if base_url.is_empty() || base_url.contains('{') {
            let early = tenant.owner.put(&one(&tenant, row), json!({ "enabled": true })).await;
            assert_eq!(early.refused(409), "integration_unfinished", "{connector}");
        }
        // The operator adds values for the placeholders, an id and a secret. The row is then complete.
        let given = match kind {
            "bearer_token" => json!({ "bearer_token_value": { "value": SECRET } }),
            "oauth2_client_credentials" => {
                json!({ "client_id": "c", "client_secret_value": { "value": SECRET } })
            }
            "gcp_wif" => json!({
                "assertion_issuer": "https://ward.example.com", "assertion_subject": "clinic",
                "assertion_audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/w",
                "private_key_value": { "value": rsa },
            }),
            _ => json!({ "client_id": "c", "private_key_value": { "value": rsa } }),
        };
        auth.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        if let Some(token_url) = token_url {
            auth["token_url"] = json!(filled(token_url));
        }
        let base_url =
            if base_url.is_empty() { "https://ehr.example.com/fhir".into() } else { filled(base_url) };
        let wanted = json!({ "base_url": base_url, "auth": auth, "enabled": true });
        let changed = tenant.owner.put(&one(&tenant, row), wanted).await.ok();
        assert_eq!((&changed["enabled"], changed.text("base_url")), (&json!(true), &*base_url));
        assert!(
            changed["auth"].to_string().contains("\"ward:"),
            "the reference is present: {}",
            changed["auth"]
        );
        // Provisioning again changes nothing, even after the edit.
        tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.ok();
        assert_eq!(tenant.owner.get(&one(&tenant, row)).await.ok(), changed);
    }
});

both!(provisioning_at_once_and_after_a_change_of_connector_seeds_each_once, threads = 4, async || {
    let (_server, tenant) = Server::with_tenant().await;
    for (connector, rows) in [("epic", 1), ("hubspot", 2), ("epic", 2)] {
        tenant.owner.patch(&tenant.workspace(""), json!({ "connector_type": connector })).await.ok();
        together((0..8).map(|_| {
            let (owner, path) = (tenant.owner.clone(), tenant.workspace("/provision"));
            async move { owner.post(&path, json!({})).await.ok() }
        }))
        .await;
        let listed = tenant.get("/integrations").await.ok();
        assert_eq!(listed["total"], rows, "{connector}");
    }
});

both!(an_unfinished_integration_cannot_be_enabled_and_takes_no_secret, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let made = create(
        &tenant,
        json!({ "name": "a", "display_name": "A", "base_url": "https://{host}/x", "enabled": false }),
    )
    .await;
    tenant
        .owner
        .put(&one(&tenant, &made), json!({ "enabled": true }))
        .await
        .refused_as(409, "integration_unfinished");
    let token_url = json!({ "type": "oauth2_client_credentials", "client_id": "c", "token_url": "https://x.example/{tenant}" });
    for more in [json!({ "base_url": "https://{host}" }), json!({ "auth": token_url })] {
        let mut endpoint = json!({ "name": "e", "description": "E", "path": "/" });
        endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = json!({ "enabled": true, "base_url": "https://ehr.example.com", "endpoints": [endpoint] });
        let enabled = tenant.owner.put(&one(&tenant, &made), body).await;
        assert_eq!(enabled.refused(409), "integration_unfinished", "{more}");
    }
    let auth = json!({ "auth": { "type": "bearer_token", "bearer_token_value": { "value": SECRET } } });
    let refused = tenant.owner.put(&one(&tenant, &made), auth).await;
    assert!(!refused.text.contains(SECRET));
    assert_eq!(refused.problem_locs(), ["body.auth.bearer_token_value"]);
});

both!(an_integration_lives_from_create_to_delete, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let made = create(&tenant, new_integration("scheduling")).await;
    assert_eq!(made.fields(["builtin", "enabled", "protocol"]), json!([false, true, "rest"]));
    assert_eq!(tenant.owner.get(&one(&tenant, &made)).await.ok(), made);
    tenant.post("/integrations", new_integration("scheduling")).await.refused_as(409, "name_taken");
    tenant.post("/integrations", new_integration("epic")).await.refused_as(409, "name_reserved");
    let same = tenant.owner.put(&one(&tenant, &made), json!({ "display_name": null, "enabled": true })).await;
    assert_eq!(same.ok(), made, "an update without a change writes nothing");
    let mcp = json!({ "mcp_transport": "stdio", "mcp_command": "rm", "mcp_args": ["-rf", "/"] });
    let changed = tenant.owner.put(&one(&tenant, &made), mcp.clone()).await.ok();
    assert_eq!(changed.fields(["mcp_command", "mcp_args"]), json!([mcp["mcp_command"], mcp["mcp_args"]]));
    assert!(changed.text("updated_at") > made.text("updated_at"));
    let cleared = tenant.owner.put(&one(&tenant, &made), json!({ "mcp_args": null })).await.ok();
    assert_eq!(cleared.fields(["mcp_args", "mcp_command"]), json!([null, mcp["mcp_command"]]));
    tenant.owner.delete(&one(&tenant, &made)).await.no_content();
    tenant.owner.get(&one(&tenant, &made)).await.refused_as(404, "integration_not_found");
    tenant.owner.delete(&one(&tenant, &made)).await.refused_as(404, "integration_not_found");
    assert_eq!(
        tenant.actions().await[2..],
        ["integration.create", "integration.update", "integration.update", "integration.delete"]
    );
    let audit = tenant.audit().await;
    assert_eq!(audit[1]["metadata"]["fields"], json!(["mcp"]));
});

both!(the_audit_tells_what_changed_in_which_endpoint, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let endpoint = |name: &str, path: &str, headers: Value| json!({ "name": name, "description": "E", "path": path, "headers": headers });
    let mut body = new_integration("ehr");
    let headers = json!({ "x-same": "1", "x-changed": "1", "x-gone": "1" });
    body["endpoints"] =
        json!([endpoint("a", "/a", headers), endpoint("b", "/b", json!({})), endpoint("c", "/c", json!({}))]);
    let made = create(&tenant, body).await;
    let headers = json!({ "x-same": "1", "x-changed": "a-secret-of-a-header", "x-new": "1" });
    let endpoints = json!([
        endpoint("a", "/other", headers),
        endpoint("b", "/b", json!({})),
        endpoint("d", "/d", json!({}))
    ]);
    tenant.owner.put(&one(&tenant, &made), json!({ "endpoints": endpoints })).await.ok();
    let told = &tenant.audit().await[0]["metadata"];
    assert_eq!(told["fields"], json!(["endpoints"]));
    let a = json!(["headers/x-changed", "headers/x-gone", "headers/x-new", "path"]);
    assert_eq!(told["endpoints_changed"], json!({ "a": a, "c": "removed", "d": "added" }));
    assert!(!told.to_string().contains("a-secret-of-a-header"));
    let name = json!({ "display_name": "Another" });
    tenant.owner.put(&one(&tenant, &made), name).await.ok();
    assert_eq!(tenant.audit().await[0]["metadata"]["endpoints_changed"], Value::Null);
});

both!(a_secret_is_written_and_never_shown, async || {
    let (server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/integrations");
    let answer =
        tenant.owner.post_once(&path, "a-key-of-16-chars", with_bearer("a", "https://ehr.example.com")).await;
    assert!(!answer.text.contains(SECRET));
    let made = answer.created();
    let reference = made["auth"].text("token_ssm_param_path").to_owned();
    assert!(reference.starts_with("ward:"));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    for body in [
        json!({ "auth": { "type": "bearer_token", "bearer_token_value": { "value": format!("{SECRET}\n") } } }),
        json!({ "auth": { "type": "bearer_token", "bearer_token_value": SECRET } }),
        json!({ "auth": { "type": "bearer_token", "api_key_value": { "value": SECRET } } }),
        json!({ "auth": { "type": "bearer_token", "token_ssm_param_path": SECRET } }),
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
});

both!(a_reference_is_good_for_its_own_field_and_origin_only, async || {
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
    assert_eq!(tenant.post("/integrations", again).await.problem_locs(), locs);
    let endpoint = json!({ "name": "e", "description": "E", "path": "/", "auth": auth });
    let refused = tenant.owner.put(&one(&tenant, &made), json!({ "endpoints": [endpoint] })).await;
    assert_eq!(refused.problem_locs(), ["body.endpoints.0.auth.token_ssm_param_path"]);
    // A reference that is sent back stays valid for another path, and is dropped for another origin.
    let path = one(&tenant, &made);
    let kept = json!({ "auth": auth, "base_url": "https://ehr.example.com/v2" });
    assert_eq!(tenant.owner.put(&path, kept).await.ok()["auth"], auth);
    for elsewhere in
        ["https://evil.example.com/v1", "https://ehr.example.com:8443/v1", "http://ehr.example.com/v1"]
    {
        let made = create(&tenant, with_bearer(&ward_test::fresh_slug(), "https://ehr.example.com/v1")).await;
        let moved = tenant.owner.put(&one(&tenant, &made), json!({ "base_url": elsewhere })).await.ok();
        assert_eq!(
            moved["auth"],
            json!({ "type": "bearer_token", "token_lifetime_seconds": 3600, "assertion_scopes_in_jwt": false })
        );
        let back = json!({ "base_url": "https://ehr.example.com/v1", "auth": made["auth"] });
        assert_eq!(
            tenant.owner.put(&one(&tenant, &made), back).await.problem_locs(),
            locs,
            "the secret stays dropped"
        );
    }
    assert_eq!(tenant.audit().await[0]["metadata"]["secrets_dropped"], json!(["auth/bearer_token"]));
    assert_eq!(server.count("SELECT count(*) FROM integration_secrets").await, 1);
});

both!(an_endpoints_secret_is_bound_to_its_endpoint_and_origin, async || {
    let (server, tenant) = Server::with_tenant().await;
    let endpoint = |base_url: Option<&str>, auth: &Value| json!({ "name": "e", "description": "E", "path": "/", "base_url": base_url, "auth": auth });
    let fresh = json!({ "type": "bearer_token", "bearer_token_value": { "value": SECRET } });
    let with = async |base_url: Option<&str>| {
        let body = json!({
            "name": ward_test::fresh_slug(), "display_name": "A", "base_url": "https://ehr.example.com",
            "endpoints": [endpoint(base_url, &fresh)],
        });
        create(&tenant, body).await
    };
    let change = async |made: &Value, change: Value| {
        let changed = tenant.owner.put(&one(&tenant, made), change).await.ok();
        let dropped = tenant.audit().await[0]["metadata"]["secrets_dropped"].clone();
        (changed["endpoints"][0]["auth"].get("token_ssm_param_path").is_some(), dropped)
    };
    let gone = (false, json!(["endpoints/e/auth/bearer_token"]));
    // With a base URL of its own, the endpoint keeps its secret for another path, and loses it for another or no origin.
    let made = with(Some("https://own.example.com/v1")).await;
    let auth = made["endpoints"][0]["auth"].clone();
    let to = |base_url| json!({ "endpoints": [endpoint(base_url, &auth)] });
    assert_eq!(change(&made, to(Some("https://own.example.com/v2"))).await, (true, json!([])));
    assert_eq!(change(&made, json!({ "base_url": "https://else.example.com" })).await, (true, json!([])));
    assert_eq!(change(&made, to(Some("https://evil.example.com/v2"))).await, gone);
    let made = with(Some("https://own.example.com/v1")).await;
    let auth = made["endpoints"][0]["auth"].clone();
    assert_eq!(change(&made, json!({ "endpoints": [endpoint(None, &auth)] })).await, gone);
    // Without a base URL of its own, the endpoint follows the integration's origin.
    let made = with(None).await;
    assert_eq!(change(&made, json!({ "base_url": "https://ehr.example.com/v2" })).await, (true, json!([])));
    assert_eq!(change(&made, json!({ "base_url": "https://evil.example.com" })).await, gone);
    // Another endpoint of the same name does not inherit the secret.
    let made = with(None).await;
    let auth = made["endpoints"][0]["auth"].clone();
    assert_eq!(change(&made, json!({ "endpoints": [] })).await, gone);
    let again = tenant.owner.put(&one(&tenant, &made), json!({ "endpoints": [endpoint(None, &auth)] })).await;
    assert_eq!(again.problem_locs(), ["body.endpoints.0.auth.token_ssm_param_path"]);
    let bare = json!({ "endpoints": [endpoint(None, &json!({ "type": "bearer_token" }))] });
    assert!(!change(&made, bare).await.0);
    assert_eq!(server.count("SELECT count(*) FROM integration_secrets").await, 0);
});

both!(a_sorted_list_continues_after_its_last_item_was_changed, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let mut made = std::collections::HashMap::new();
    for name in ["d", "b", "a", "c"] {
        made.insert(name, create(&tenant, json!({ "name": name, "display_name": name })).await);
    }
    let list = tenant.path("/integrations?sort_by=name&enabled=true&limit=2");
    let page = tenant.owner.get(&list).await.ok();
    assert_eq!(page.texts("items", "name"), ["a", "b"]);
    let next = format!("{list}&continuation_token={}", page["continuation_token"]);
    assert_eq!(tenant.owner.get(&next).await.ok().texts("items", "name"), ["c", "d"]);
    // The last integration of the first page no longer matches the filter.
    tenant.owner.put(&one(&tenant, &made["b"]), json!({ "enabled": false })).await.ok();
    let rest = tenant.owner.get(&next).await.ok();
    assert_eq!((rest.texts("items", "name"), rest["total"].as_i64()), (vec!["c", "d"], Some(3)));
    // It is deleted, so the position is unknown. The answer is an error, because an empty page would look like the end.
    tenant.owner.delete(&one(&tenant, &made["b"])).await.no_content();
    assert_eq!(tenant.owner.get(&next).await.problem_locs(), ["query.continuation_token"]);
    for wrong in ["--name", "-", "names"] {
        let refused = tenant.get(&format!("/integrations?sort_by={wrong}")).await;
        assert_eq!(refused.problem_locs(), ["query.sort_by"], "{wrong}");
    }
});

both!(a_change_of_token_url_to_another_origin_drops_the_secret, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let auth = json!({
        "type": "oauth2_client_credentials", "client_id": "c", "token_url": "https://login.example.com/token",
        "client_secret_value": { "value": SECRET },
    });
    let body =
        json!({ "name": "a", "display_name": "A", "base_url": "https://ehr.example.com", "auth": auth });
    let made = create(&tenant, body).await;
    let mut moved = made["auth"].clone();
    moved["token_url"] = json!("https://login.example.com/another");
    let kept = tenant.owner.put(&one(&tenant, &made), json!({ "auth": moved })).await.ok();
    assert!(kept["auth"]["client_secret_ssm_param_path"].is_string());
    moved["token_url"] = json!("https://evil.example.com/token");
    let dropped = tenant.owner.put(&one(&tenant, &made), json!({ "auth": moved })).await.ok();
    assert!(dropped["auth"].get("client_secret_ssm_param_path").is_none());
});

both!(every_mistake_in_a_configuration_is_reported_at_once, async || {
    let (server, tenant) = Server::with_tenant().await;
    let endpoint = |more: Value| {
        let mut endpoint = json!({ "name": "e", "description": "E", "path": "/" });
        endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        endpoint
    };
    let locs = async |more: Value| {
        let mut body = json!({ "name": "a", "display_name": "A" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tenant.post("/integrations", body).await.problem_locs()
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
});

both!(another_tenants_integration_does_not_exist, async || {
    let server = Server::start().await;
    let (ours, theirs) = (server.tenant("ours").await, server.tenant("theirs").await);
    let id = theirs.integration().await;
    let path = ours.path(&format!("/integrations/{id}"));
    ours.owner.get(&path).await.refused_as(404, "integration_not_found");
    ours.owner.put(&path, json!({ "display_name": "mine" })).await.refused_as(404, "integration_not_found");
    ours.owner.delete(&path).await.refused_as(404, "integration_not_found");
    let test = format!("{path}/endpoints/find/test");
    ours.owner.post(&test, json!({})).await.refused_as(404, "integration_not_found");
    assert_eq!(server.count("SELECT count(*) FROM integrations").await, 1);
});
