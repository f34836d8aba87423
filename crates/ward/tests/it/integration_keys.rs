//! Key pairs that Ward generates: what is shown of them, their rotation, and the vendor's view of both.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use ward::config::Rate;
use ward_test::vendor::{CLIENT, ClientAuth, Vendor};
use ward_test::{Fields as _, Server, Tenant, both, fresh_slug};

use crate::outbound::open_server;

const SCOPE: &str = "system/DocumentReference.write";
/// Both algorithms of SMART App Launch 2.2, "Client Authentication: Asymmetric".
const SMART: ClientAuth = ClientAuth::Smart { algorithms: &["RS384", "ES384"], scopes: &[SCOPE] };

/// An integration at `base_url` with this `auth`, and an endpoint `ping`.
async fn signing(tenant: &Tenant, base_url: &str, auth: Value) -> String {
    let body = json!({
        "name": fresh_slug(), "display_name": "EHR", "base_url": base_url, "protocol": "fhir", "auth": auth,
        "endpoints": [{ "name": "ping", "description": "P", "path": "/ping", "method": "GET",
                        "retry_config": { "max_retries": 0 } }],
    });
    let made = tenant.post("/integrations", body).await.created();
    tenant.path(&format!("/integrations/{}", made.text("id")))
}

fn smart(vendor: &Vendor) -> Value {
    json!({ "type": "smart_backend_services", "client_id": CLIENT, "token_url": vendor.token_url(), "scopes": [SCOPE] })
}

async fn key(tenant: &Tenant, integration: &str, algorithm: &str) -> Value {
    tenant.owner.post(&format!("{integration}/keys"), json!({ "algorithm": algorithm })).await.created()
}

/// Calls the vendor through the integration, and gives the status that its test shows.
async fn ping(tenant: &Tenant, integration: &str) -> Value {
    let path = format!("{integration}/endpoints/ping/test");
    tenant.owner.post(&path, json!({ "params": {} })).await.ok()["status_code"].clone()
}

/// The ids of the published keys, as a stranger sees them.
async fn published(server: &Server, integration: &str) -> Vec<String> {
    let answer = server.anonymous().get(&format!("{integration}/jwks.json")).await;
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    let set = answer.ok();
    for key in set["keys"].as_array().unwrap() {
        for private in ["d", "p", "q", "dp", "dq", "qi"] {
            assert!(key.get(private).is_none(), "{key}");
        }
        assert_eq!(key["use"], "sig");
    }
    set.texts("keys", "kid").into_iter().map(str::to_owned).collect()
}

both!(a_generated_key_signs_and_only_its_public_half_is_shown, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    for algorithm in ["ES384", "RS384"] {
        let vendor = Vendor::start(SMART, |_, _| (200, Vec::new(), json!({ "pong": true }))).await;
        let integration = signing(&tenant, &vendor.url(), smart(&vendor)).await;
        let jwks = format!("{integration}/jwks.json");
        server.anonymous().get(&jwks).await.refused_as(404, "keys_not_found");
        let made = key(&tenant, &integration, algorithm).await;
        assert_eq!(made.fields(["algorithm", "state"]), json!([algorithm, "active"]));
        assert_eq!(
            (&made["public_key"]["kid"], &made["public_key"]["alg"]),
            (&made["kid"], &json!(algorithm))
        );
        vendor.register(format!("{}{jwks}", server.url()));
        assert_eq!(ping(&tenant, &integration).await, 200);
        let header = vendor.assertions()[0].clone();
        assert_eq!(
            (&header["kid"], &header["alg"], &header["jku"]),
            (&made["kid"], &json!(algorithm), &Value::Null)
        );
        assert_eq!(published(&server, &integration).await, [made.text("kid")]);
        let listed = tenant.owner.get(&format!("{integration}/keys")).await;
        assert!(!listed.text.contains("PRIVATE"));
        assert_eq!(listed.ok()["items"], json!([made]));
    }
    let private = "PRIVATE KEY";
    assert!(!server.dump().await.join("\n").contains(private));
    assert!(!server.at_rest().await.windows(private.len()).any(|part| part == private.as_bytes()));
    let created = &tenant.audit().await[1];
    assert_eq!(created["action"], "integration.key_create");
    assert_eq!(created["metadata"]["state"], "active");
});

both!(a_rotation_publishes_the_next_key_before_it_signs, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let vendor = Vendor::start(SMART, |_, _| (200, Vec::new(), json!({}))).await;
    let integration = signing(&tenant, &vendor.url(), smart(&vendor)).await;
    vendor.register(format!("{}{integration}/jwks.json", server.url()));
    let first = key(&tenant, &integration, "ES384").await;
    assert_eq!(ping(&tenant, &integration).await, 200);
    let next = key(&tenant, &integration, "ES384").await;
    assert_eq!(next["state"], "next");
    let both: BTreeSet<String> = published(&server, &integration).await.into_iter().collect();
    assert_eq!(both, BTreeSet::from([first.text("kid"), next.text("kid")].map(str::to_owned)));
    let more = tenant.owner.post(&format!("{integration}/keys"), json!({})).await;
    more.refused_as(409, "too_many_keys");
    // A changed key would fetch another token; the present one still signs.
    vendor.forget_tokens();
    assert_eq!(ping(&tenant, &integration).await, 200);
    let activate = format!("{integration}/keys/{}/activate", next.text("kid"));
    let active = tenant.owner.post(&activate, json!({})).await.ok();
    assert_eq!(active["state"], "active");
    assert_eq!(tenant.owner.post(&activate, json!({})).await.ok(), active, "it is active already");
    assert_eq!(published(&server, &integration).await.len(), 2, "the former key stays published");
    assert_eq!(ping(&tenant, &integration).await, 200);
    let kids: Vec<Value> = vendor.assertions().iter().map(|header| header["kid"].clone()).collect();
    assert_eq!(kids, [&first["kid"], &first["kid"], &next["kid"]].map(Clone::clone));
    let former = format!("{integration}/keys/{}", first.text("kid"));
    tenant.owner.delete(&former).await.no_content();
    tenant.owner.delete(&former).await.refused_as(404, "key_not_found");
    tenant.owner.post(&format!("{former}/activate"), json!({})).await.refused_as(404, "key_not_found");
    assert_eq!(published(&server, &integration).await, [next.text("kid")]);
    assert_eq!(ping(&tenant, &integration).await, 200);
    // Without the key that signs, nothing is signed.
    tenant.owner.delete(&format!("{integration}/keys/{}", next.text("kid"))).await.no_content();
    let refused =
        tenant.owner.post(&format!("{integration}/endpoints/ping/test"), json!({ "params": {} })).await;
    assert!(refused.ok()["error"].as_str().unwrap().contains("secret is missing"));
    let actions = tenant.actions().await;
    for (action, count) in
        [("integration.key_create", 2), ("integration.key_activate", 1), ("integration.key_delete", 2)]
    {
        assert_eq!(actions.iter().filter(|done| *done == action).count(), count, "{action}");
    }
});

both!(a_key_goes_with_the_hosts_that_it_was_made_for, async || {
    let (server, tenant) = Server::with_tenant().await;
    let auth = json!({ "type": "smart_backend_services", "client_id": "c" });
    let integration = signing(&tenant, "https://ehr.example.com/a", auth.clone()).await;
    key(&tenant, &integration, "ES384").await;
    let change = async |change: Value| tenant.owner.put(&integration, change).await.ok();
    change(json!({ "base_url": "https://ehr.example.com/b", "display_name": "Another" })).await;
    assert_eq!(published(&server, &integration).await.len(), 1);
    change(json!({ "base_url": "https://elsewhere.example.com/b" })).await;
    server.anonymous().get(&format!("{integration}/jwks.json")).await.refused(404);
    let dropped = tenant.audit().await[0]["metadata"]["secrets_dropped"].clone();
    assert!(dropped[0].as_str().unwrap().starts_with("keys/"), "{dropped}");
    // The same holds for the token endpoint, and for the end of signing.
    key(&tenant, &integration, "ES384").await;
    let mut with_url = auth.clone();
    with_url["token_url"] = json!("https://login.example.com/token");
    change(json!({ "auth": with_url })).await;
    server.anonymous().get(&format!("{integration}/jwks.json")).await.refused(404);
    key(&tenant, &integration, "ES384").await;
    change(json!({ "auth": { "type": "bearer_token" } })).await;
    server.anonymous().get(&format!("{integration}/jwks.json")).await.refused(404);
    assert_eq!(server.count("SELECT count(*) FROM integration_secrets").await, 0);
    let made = tenant.owner.post(&format!("{integration}/keys"), json!({})).await;
    made.refused_as(409, "integration_signs_nothing");
    let unknown = json!({
        "name": "unknown", "display_name": "U", "base_url": "https://{host}/fhir", "auth": auth, "enabled": false,
    });
    let unknown = tenant.post("/integrations", unknown).await.created();
    let unknown = tenant.path(&format!("/integrations/{}", unknown.text("id")));
    tenant.owner.post(&format!("{unknown}/keys"), json!({})).await.refused_as(409, "integration_unfinished");
    let refused = tenant.owner.post(&format!("{unknown}/keys"), json!({ "algorithm": "none" })).await;
    assert_eq!(refused.problem_locs(), ["body.algorithm"]);
    tenant.owner.delete(&integration).await.no_content();
    tenant.owner.get(&format!("{integration}/keys")).await.refused_as(404, "integration_not_found");
});

both!(a_key_of_ones_own_signs_until_a_generated_one_is_active, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let vendor = Vendor::start(SMART, |_, _| (200, Vec::new(), json!({}))).await;
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    let mut auth = smart(&vendor);
    auth["assertion_algorithm"] = json!("ES384");
    auth["assertion_kid"] = json!("my-own");
    auth["private_key_value"] = json!({ "value": pem.replace('\n', "\\n") });
    let integration = signing(&tenant, &vendor.url(), auth).await;
    let made = key(&tenant, &integration, "ES384").await;
    assert_eq!(made["state"], "next");
    ping(&tenant, &integration).await;
    assert_eq!(vendor.assertions()[0]["kid"], "my-own");
    let activate = format!("{integration}/keys/{}/activate", made.text("kid"));
    tenant.owner.post(&activate, json!({})).await.ok();
    vendor.register(format!("{}{integration}/jwks.json", server.url()));
    assert_eq!(ping(&tenant, &integration).await, 200);
    assert_eq!(vendor.assertions()[1]["kid"], made["kid"]);
});

both!(a_repeat_makes_no_second_key_and_a_set_names_itself_where_it_is_asked_for, async || {
    let server = Server::with(|config| {
        crate::outbound::open_outbound(config);
        config.public_url = Some("https://ward.example.com/".to_owned());
    })
    .await;
    let tenant = server.tenant("acme").await;
    let vendor = Vendor::start(SMART, |_, _| (200, Vec::new(), json!({}))).await;
    let mut auth = smart(&vendor);
    auth["assertion_includes_jku"] = json!(true);
    let integration = signing(&tenant, &vendor.url(), auth).await;
    let path = format!("{integration}/keys");
    let repeat = "sixteen-or-more-characters";
    let first = tenant.owner.post_once(&path, repeat, json!({ "algorithm": "ES384" })).await.created();
    let again = tenant.owner.post_once(&path, repeat, json!({ "algorithm": "ES384" })).await.created();
    assert_eq!(first, again);
    assert_eq!(first["jwks_url"], format!("https://ward.example.com{integration}/jwks.json"));
    assert_eq!(tenant.owner.get(&path).await.ok()["items"].as_array().unwrap().len(), 1);
    ping(&tenant, &integration).await;
    assert_eq!(vendor.assertions()[0]["jku"], first["jwks_url"]);
});

both!(a_set_that_does_not_exist_is_404_and_a_client_has_a_rate, async || {
    let server = Server::with(|config| {
        config.rates.enforced = true;
        config.rates.key_sets = Rate { burst: 6, per_minute: 1 };
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let (tenant, other) = (server.tenant("acme").await, server.tenant("other").await);
    let auth = json!({ "type": "smart_backend_services", "client_id": "c" });
    let integration = signing(&tenant, "https://ehr.example.com", auth).await;
    key(&tenant, &integration, "ES384").await;
    let vendor = server.anonymous().with(&[("x-forwarded-for", "192.0.2.1")]);
    let set = format!("{integration}/jwks.json");
    assert_eq!(vendor.get(&set).await.header("x-ratelimit-remaining"), "5");
    let foreign = set.replace(&tenant.id, &other.id);
    for nothing in [foreign.as_str(), "/v1/x/integrations/y/jwks.json"] {
        vendor.get(nothing).await.refused_as(404, "keys_not_found");
    }
    tenant.archive().await;
    for _ in 0..3 {
        vendor.get(&set).await.refused_as(404, "keys_not_found");
    }
    vendor.get(&set).await.refused_as(429, "rate_limited");
    server.anonymous().with(&[("x-forwarded-for", "192.0.2.2")]).get(&set).await.refused(404);
});

both!(googles_service_account_signs_a_grant_with_its_scope_inside, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let account = "ward@project.iam.gserviceaccount.com";
    let access = ClientAuth::Assertion { issuer: "ward@project.iam.gserviceaccount.com" };
    let vendor = Vendor::start(access, |_, _| (200, Vec::new(), json!({}))).await;
    let auth = json!({
        "type": "oauth2_jwt_bearer", "token_url": vendor.token_url(), "assertion_issuer": account,
        "assertion_algorithm": "RS256", "assertion_scopes_in_jwt": true,
        "scopes": ["https://www.googleapis.com/auth/cloud-healthcare"],
    });
    let integration = signing(&tenant, &vendor.url(), auth.clone()).await;
    let made = tenant.owner.post(&format!("{integration}/keys"), json!({})).await.created();
    assert_eq!(made["algorithm"], "RS256");
    vendor.register(format!("{}{integration}/jwks.json", server.url()));
    assert_eq!(ping(&tenant, &integration).await, 200);
    // The file that Google's console gives holds the key and its id.
    let pem = "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n";
    let file = json!({ "type": "service_account", "private_key_id": "k1", "private_key": pem, "client_email": account });
    let mut with_file = auth;
    with_file["private_key_value"] = json!({ "value": file.to_string() });
    let refused = tenant.owner.put(&integration, json!({ "auth": with_file })).await;
    assert_eq!(refused.problem_locs(), ["body.auth.private_key_value.value"]);
    assert!(!refused.text.contains("bm90"), "{}", refused.text);
    let smart = json!({ "type": "smart_backend_services", "client_id": "c", "assertion_algorithm": "RS256" });
    let refused = tenant.owner.put(&integration, json!({ "auth": smart })).await;
    assert_eq!(refused.problem_locs(), ["body.auth.assertion_algorithm"]);
});
