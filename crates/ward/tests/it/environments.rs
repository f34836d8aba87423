//! Environments and their conversion, credentials whose calls are tests, and tests of an integration's connection.

use std::time::Duration;

use serde_json::{Value, json};
use ward_test::{Actor, Fields as _, Server, Tenant, both};

use crate::calls::{connect, finished, put, set_test_callers};
use crate::outbound::{Peer, answer, open_server};

const PATIENT: &str = "+15550100002";
const TESTER: &str = "+15550100001";

async fn check(tenant: &Tenant, target: &str) -> Value {
    let path = tenant.workspace(&format!("/environment-check?target={target}"));
    tenant.owner.get(&path).await.ok()
}

fn codes(check: &Value) -> Vec<&str> {
    check.texts("findings", "code")
}

fn conversion(tenant: &Tenant, target: &str, accept: &[&str]) -> Value {
    json!({ "target": target, "confirm_slug": tenant.slug, "accept": accept })
}

both!(a_check_lists_the_obstacles_to_production_and_changes_nothing, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let started = tenant.owner.get(&tenant.workspace("")).await.ok();
    tenant.owner.patch(&tenant.workspace(""), json!({ "environment": "staging" })).await.ok();
    assert_eq!(codes(&check(&tenant, "production").await), ["no_connector"]);
    tenant.owner.patch(&tenant.workspace(""), json!({ "connector_type": "epic" })).await.ok();
    assert_eq!(codes(&check(&tenant, "production").await), ["integration_not_provisioned"]);
    connect(&tenant, "epic").await;
    set_test_callers(&tenant, &[TESTER]).await;
    let found = check(&tenant, "production").await;
    assert_eq!(found.fields(["current", "target"]), json!(["staging", "production"]));
    // Provisioning seeds Epic's integration with a URL that its operator must complete.
    assert!(codes(&found).contains(&"integration_unconfigured"), "{found}");
    assert!(codes(&found).contains(&"test_callers_remain"), "{found}");
    let sentences: Vec<&Value> = found.list("findings").iter().map(|it| &it["message"]).collect();
    assert_eq!(found.list("warnings").iter().collect::<Vec<_>>(), sentences);
    for finding in found.list("findings") {
        let blocks = finding.text("code").starts_with("integration_");
        assert_eq!(finding["severity"], if blocks { "blocker" } else { "warning" }, "{finding}");
    }
    // Real calls are an obstacle to a conversion to staging.
    put(&tenant, "CA1", finished(PATIENT)).await;
    tenant.owner.patch(&tenant.workspace(""), json!({ "environment": "development" })).await.ok();
    assert!(codes(&check(&tenant, "staging").await).contains(&"real_calls_present"));
    // The default target is production, and `development` is not allowed.
    let found = tenant.owner.get(&tenant.workspace("/environment-check")).await.ok();
    assert_eq!(found["target"], "production");
    let wrong = tenant.owner.get(&tenant.workspace("/environment-check?target=development")).await;
    assert_eq!(wrong.problem_locs(), ["query.target"]);
    let now = tenant.owner.get(&tenant.workspace("")).await.ok();
    assert_eq!(now.fields(["environment", "slug"]), json!(["development", started["slug"]]));
});

both!(a_check_sees_every_url_that_is_called_without_tls, async || {
    let (_server, tenant) = Server::with_tenant().await;
    // A check of a change to the present environment finds nothing.
    tenant.owner.patch(&tenant.workspace(""), json!({ "environment": "staging" })).await.ok();
    let auth = |token_url: &str| {
        json!({ "type": "oauth2_client_credentials", "client_id": "c", "token_url": token_url,
                "client_secret_value": { "value": "a-secret" } })
    };
    let endpoint = |field: &str, value: Value| json!([{ "name": "look", "description": "Looks.", "path": "/", (field): value }]);
    for (changed, plain) in [
        (json!({}), false),
        (json!({ "base_url": "http://ehr.example.com" }), true),
        (json!({ "auth": auth("http://login.example.com/t") }), true),
        (json!({ "auth": auth("https://login.example.com/t") }), false),
        (json!({ "endpoints": endpoint("base_url", json!("http://other.example.com")) }), true),
        (json!({ "endpoints": endpoint("auth", auth("http://login.example.com/t")) }), true),
        (json!({ "endpoints": endpoint("description", json!("as http://other.example.com did")) }), false),
        (json!({ "mcp_url": "http://mcp.example.com" }), true),
    ] {
        let mut body = json!({ "name": "ehr", "display_name": "EHR", "base_url": "https://ehr.example.com" });
        body.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        let made = tenant.post("/integrations", body).await.created();
        let path = tenant.path(&format!("/integrations/{}", made.text("id")));
        let found = check(&tenant, "production").await;
        assert_eq!(codes(&found).contains(&"integration_without_tls"), plain, "{changed}: {found}");
        // An integration that is switched off is not called.
        tenant.owner.put(&path, json!({ "enabled": false })).await.ok();
        assert!(!codes(&check(&tenant, "production").await).contains(&"integration_without_tls"));
        assert_eq!(tenant.owner.delete(&path).await.status, 204);
    }
});

both!(a_conversion_needs_the_owner_the_slug_and_every_blocker_accepted, async || {
    let server = Server::with(|config| config.platform.environment_by_conversion = true).await;
    let tenant = server.tenant("acme").await;
    let path = tenant.workspace("/convert-environment");
    let convert = async |actor: &Actor, body: Value| actor.post(&path, body).await;
    let admin = tenant.service("admin").await;
    let to_staging = conversion(&tenant, "staging", &[]);
    convert(&admin, to_staging.clone()).await.refused_as(403, "owner_only");
    convert(&tenant.owner, to_staging.clone()).await.ok();
    let again = convert(&tenant.owner, to_staging).await.ok();
    assert_eq!(again["environment"], "staging");
    connect(&tenant, "epic").await;
    let mut wrong = conversion(&tenant, "production", &[]);
    wrong["confirm_slug"] = json!("another-slug");
    assert_eq!(convert(&tenant.owner, wrong).await.problem_locs(), ["body.confirm_slug"]);
    let unknown = conversion(&tenant, "production", &["integration_unconfigured", "whatever"]);
    assert_eq!(convert(&tenant.owner, unknown).await.problem_locs(), ["body.accept.1"]);
    let bare = json!({ "target": "development" });
    assert_eq!(convert(&tenant.owner, bare).await.problem_locs(), ["body.target", "body.confirm_slug"]);
    let found = check(&tenant, "production").await;
    let blockers: Vec<&str> = found
        .list("findings")
        .iter()
        .filter(|it| it["severity"] == "blocker")
        .map(|it| it.text("code"))
        .collect();
    let refused = convert(&tenant.owner, conversion(&tenant, "production", &["real_calls_present"])).await;
    assert!(blockers.iter().all(|code| refused.text.contains(code)), "{}", refused.text);
    refused.refused_as(409, "conversion_blocked");
    let shown = tenant.owner.get(&tenant.workspace("")).await.ok();
    assert_eq!(shown["environment"], "staging");
    let converted = convert(&tenant.owner, conversion(&tenant, "production", &blockers)).await.ok();
    assert_eq!(converted["environment"], "production");
    assert!(converted["updated_at"].as_str() > shown["updated_at"].as_str());
    let events = tenant.audit().await;
    let told: Vec<&Value> =
        events.iter().filter(|event| event["action"] == "workspace.convert_environment").collect();
    let change = json!({ "from": "staging", "to": "production" });
    assert_eq!(told[0]["metadata"]["changes"]["environment"], change);
    assert_eq!(told.iter().filter(|it| it["metadata"]["changes"]["environment"] == change).count(), 1);
});

/// A service with a key, and the answer to minting it, to which the key's id from the list is added.
async fn key(tenant: &Tenant, body: Value) -> (Actor, Value) {
    let (actor, mut minted) = tenant.key(body).await;
    let listed = tenant.get("/api-keys?limit=20").await.ok();
    let keys = listed.list("items");
    minted["id"] = keys.iter().find(|key| key["key_id"] == minted["key_id"]).unwrap()["id"].clone();
    (actor, minted)
}

fn id(minted: &Value) -> String {
    minted.text("id").to_owned()
}

both!(calls_made_with_a_test_credential_are_tests, async || {
    let (server, tenant) = Server::with_tenant().await;
    let body = json!({ "duration_days": 1, "role": "operator" });
    let (playground, minted) = key(&tenant, body.clone()).await;
    let (runtime, of_runtime) = key(&tenant, body).await;
    let path = tenant.workspace("/test-credential-ids");
    let set = tenant.owner.put(&path, json!({ "credential_ids": [id(&minted), id(&minted)] })).await.ok();
    assert_eq!(set, json!({ "credential_ids": [id(&minted)] }));
    assert_eq!(tenant.owner.get(&path).await.ok(), set);
    let report = async |actor: &Actor, sid: &str, made_with: Option<String>| {
        let mut body = finished(PATIENT);
        body["credential_id"] = json!(made_with);
        actor.put(&tenant.path(&format!("/calls/{sid}")), body).await.ok()
    };
    for (sid, actor, made_with, rule) in [
        ("CA1", &playground, None, json!("test_credential")),
        ("CA2", &runtime, None, Value::Null),
        ("CA3", &runtime, Some(id(&minted)), json!("test_credential")),
        ("CA4", &runtime, Some(id(&of_runtime)), Value::Null),
        ("CA5", &playground, Some(id(&of_runtime)), json!("test_credential")),
    ] {
        let call = report(actor, sid, made_with).await;
        let direction = if rule.is_null() { "inbound" } else { "test" };
        assert_eq!((&call["test"]["rule"], &call["direction"]), (&rule, &json!(direction)), "{sid}");
        assert_eq!(call["sync"]["decision"] == "excluded", !rule.is_null(), "{sid}");
    }
    // A later report with such a key changes nothing.
    let call = report(&playground, "CA2", Some(id(&minted))).await;
    assert_eq!(call["direction"], "inbound");
    // The rule of the number comes before the rule of the key.
    set_test_callers(&tenant, &[PATIENT]).await;
    assert_eq!(report(&playground, "CA6", None).await["test"]["rule"], "test_caller");
    let proof =
        ward::operator::prove_exclusion(&server.app, &tenant.slug, "2020-01-01", "2100-01-01").await.unwrap();
    assert_eq!(proof.violations, 0);
});

both!(only_live_keys_of_the_workspace_are_test_credentials_and_they_go_with_their_key, async || {
    let (server, tenant) = Server::with_tenant().await;
    let other = server.tenant("other").await;
    let body = json!({ "duration_days": 1 });
    let (_, foreign) = key(&other, body.clone()).await;
    let (_, ended) = key(&tenant, body.clone()).await;
    tenant.delete(&format!("/api-keys/{}", ended.text("key_id"))).await.no_content();
    let (_, short) = key(&tenant, body.clone()).await;
    let (_, long) = key(&tenant, json!({ "duration_days": 30 })).await;
    let (rotated, to_rotate) = key(&tenant, json!({ "duration_days": 30, "role": "admin" })).await;
    let path = tenant.workspace("/test-credential-ids");
    let set = async |ids: &[String]| tenant.owner.put(&path, json!({ "credential_ids": ids })).await;
    let nobody = "6ba7b810-9dad-41d1-80b4-00c04fd430c8".to_owned();
    let refused = set(&[id(&short), id(&foreign), nobody, id(&ended), id(&long)]).await;
    assert_eq!(
        refused.problem_locs(),
        ["body.credential_ids.1", "body.credential_ids.2", "body.credential_ids.3"]
    );
    assert_eq!(set(&["not-an-id".to_owned()]).await.problem_locs(), ["body.credential_ids.0"]);
    assert_eq!(tenant.owner.get(&path).await.ok()["credential_ids"], json!([]));
    let all = [id(&short), id(&long), id(&to_rotate)];
    set(&all).await.ok();
    // A rotation keeps the key; an expiry or a revocation removes it.
    let key_of = |minted: &Value| tenant.path(&format!("/api-keys/{}", minted.text("key_id")));
    let rotate = format!("{}/rotate", key_of(&to_rotate));
    rotated.post(&rotate, json!({ "duration_days": 30 })).await.ok();
    server.clock.advance(Duration::from_hours(25));
    let listed = async || tenant.owner.get(&path).await.ok()["credential_ids"].clone();
    assert_eq!(listed().await, json!(all[1..]));
    tenant.owner.delete(&key_of(&long)).await.no_content();
    assert_eq!(listed().await, json!(all[2..]));
    let kept = "SELECT count(*) FROM test_credentials WHERE ordinal = 1";
    assert_eq!(server.count(kept).await, 0, "the revoked key's row is gone");
    // A viewer may read the list but not change it.
    let viewer = tenant.service("viewer").await;
    viewer.get(&path).await.ok();
    viewer.put(&path, json!({ "credential_ids": [] })).await.refused(403);
    let many: Vec<String> = (0..101).map(|_| id(&to_rotate)).collect();
    assert_eq!(set(&many).await.problem_locs(), ["body.credential_ids"]);
    set(&[]).await.ok();
    let events = tenant.audit().await;
    assert_eq!(events.iter().filter(|event| event["action"] == "test_credentials.update").count(), 2);
});

both!(a_connections_test_is_kept_with_the_integration_until_it_changes, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(|_, asked| Some(answer(if asked == 0 { 200 } else { 401 }, "{}"))).await;
    let body = json!({
        "name": "clinic", "display_name": "Clinic", "protocol": "rest", "base_url": peer.url(), "enabled": false,
    });
    let made = tenant.post("/integrations", body).await.created();
    assert_eq!(made.fields(["last_tested_at", "last_test_status"]), json!([null, null]));
    let path = tenant.path(&format!("/integrations/{}", made.text("id")));
    let test = format!("{path}/test-connection");
    tenant.service("viewer").await.post(&test, json!({})).await.refused(403);
    assert_eq!(peer.asked(), 0);
    let told = tenant.owner.post(&test, json!({})).await.ok();
    assert_eq!(told.fields(["status", "integration_id"]), json!(["healthy", made["id"]]));
    let shown = async || tenant.owner.get(&path).await.ok();
    let now = shown().await;
    assert_eq!(
        now.fields(["last_test_status", "last_tested_at"]),
        json!(["healthy", told["last_tested_at"]])
    );
    assert_eq!(now["updated_at"], made["updated_at"], "a test changes nothing that is configured");
    // One Idempotency-Key makes one request to the EHR.
    let key = "sixteen-or-more-characters";
    for _ in 0..2 {
        let told = tenant.owner.post_once(&test, key, json!({})).await.ok();
        assert_eq!(told["status"], "auth_failed");
    }
    assert_eq!(peer.asked(), 2);
    assert_eq!(shown().await["last_test_status"], "auth_failed");
    tenant.owner.put(&path, json!({ "display_name": "The clinic" })).await.ok();
    assert_eq!(shown().await["last_test_status"], Value::Null);
    let nowhere = tenant.path("/integrations/6ba7b810-9dad-41d1-80b4-00c04fd430c8/test-connection");
    tenant.owner.post(&nowhere, json!({})).await.refused(404);
    let events = tenant.audit().await;
    assert_eq!(events.iter().filter(|event| event["action"] == "integration.test_connection").count(), 2);
});
