//! API keys that are bound to a public key, through their life.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ward::config::Rate;
use ward_test::{
    Actor, Fields as _, Prover, Sending, Server, SigningKey, Tenant, both, unknown_key, wants_key,
    wrong_secret_of,
};

use super::{bound, credential, face, get_with};

fn path_of(tenant: &Tenant, minted: &Value, rest: &str) -> String {
    tenant.path(&format!("/api-keys/{}{rest}", minted.text("key_id")))
}

async fn listed(tenant: &Tenant, minted: &Value) -> Value {
    let page = tenant.get("/api-keys?limit=20").await.ok();
    let found = page.list("items").iter().find(|key| key["key_id"] == minted["key_id"]);
    found.expect("the key is listed").clone()
}

/// The reasons of the refused credentials in the tenant's audit.
async fn reasons(server: &Server, tenant: &Tenant) -> BTreeSet<String> {
    server.app.flush().await;
    let listed = tenant.get("/audit?action=access.unauthorized&limit=100").await.ok();
    listed.list("events").iter().map(|event| event["metadata"].text("reason").to_owned()).collect()
}

both!(a_key_of_each_algorithm_works_with_proofs_of_its_own_key, async || {
    let (server, tenant) = Server::with_tenant().await;
    for algorithm in ["ES256", "ES384", "EdDSA", "RS256", "PS256"] {
        let prover = Arc::new(Prover::new(&server, algorithm));
        let body = json!({ "duration_days": 30, "role": "admin", "bound_to": { "jwk": prover.key.jwk() } });
        let (bearer, minted) = tenant.key(body).await;
        assert_eq!(minted["bound_to"], json!({ "jkt": prover.jkt() }), "{algorithm}");
        assert_eq!(listed(&tenant, &minted).await["bound_to"], json!({ "jkt": prover.jkt() }));
        let actor = bearer.proving(&prover);
        actor.get("/v1/me").await.ok();
        actor.get(&tenant.path("/api-keys?limit=1&mine_only=true")).await.ok();
        actor.patch(&tenant.workspace(""), json!({ "name": format!("By {algorithm}") })).await.ok();
        bearer.get("/v1/me").await.refused_as(401, "unauthorized");
        let other = Arc::new(Prover::new(&server, algorithm));
        bearer.proving(&other).get("/v1/me").await.refused_as(401, "unauthorized");
    }
    // RFC 9864 has a second name for EdDSA on this curve.
    let prover = Prover::new(&server, "EdDSA");
    let body = json!({ "duration_days": 30, "role": "admin", "bound_to": { "jkt": prover.jkt() } });
    let (actor, _) = tenant.key(body).await;
    let mut header = prover.header();
    header["alg"] = json!("Ed25519");
    let key = credential(&actor);
    let proof = prover.key.sign(&header, &prover.claims("GET", "/v1/me", key));
    get_with(&server, "/v1/me", key, &proof).await.ok();
    // An unbound key shows that it is unbound.
    let (_, plain) = tenant.key(json!({ "duration_days": 30 })).await;
    assert_eq!(plain["bound_to"], Value::Null);
    assert_eq!(listed(&tenant, &plain).await["bound_to"], Value::Null);
    let created = tenant.audit().await.into_iter().filter(|event| event["action"] == "api_key.create");
    let noted: Vec<Value> = created.map(|event| event["metadata"]["bound_to"]["jkt"].clone()).collect();
    assert_eq!((noted[0].clone(), noted[1].clone()), (Value::Null, json!(prover.jkt())));
});

both!(without_a_proof_it_is_refused_like_a_wrong_key_at_the_same_cost, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, prover, minted) = bound(&server, &tenant, "owner").await;
    let (plain, _) = tenant.key(json!({ "duration_days": 30, "role": "owner" })).await;
    let key = credential(&actor);
    let path = tenant.path("/api-keys");
    let wrong = wrong_secret_of(minted.text("key_id"));

    // As a plain bearer.
    let (expected, cost) = server.costs(server.bearing(unknown_key()).get(&path)).await;
    let (known, wrong_cost) = server.costs(server.bearing(&wrong).get(&path)).await;
    let (answer, bound_cost) = server.costs(server.bearing(key).get(&path)).await;
    assert_eq!((face(&answer), bound_cost), (face(&expected), cost));
    assert_eq!((face(&known), wrong_cost), (face(&expected), cost));
    assert_eq!((answer.header("www-authenticate"), cost.reads, cost.writes), ("Bearer", 1, 0));

    // With a well-formed proof, which only its own credential's key could complete.
    let unknown = unknown_key();
    let thief = Prover::new(&server, "ES256");
    let forged = |credential: &str| {
        let signed = thief.key.sign(&prover.header(), &prover.claims("GET", &path, credential));
        assert!(signed.len() < 4096);
        signed
    };
    let presented = [
        ("an unknown key", unknown.as_str(), thief.proof("GET", &path, &unknown)),
        ("a wrong secret", wrong.as_str(), prover.proof("GET", &path, &wrong)),
        ("a proof of another key", key, thief.proof("GET", &path, key)),
        ("a proof that another key signed", key, forged(key)),
        ("a key that is not bound", credential(&plain), thief.proof("GET", &path, credential(&plain))),
    ];
    let mut seen = None;
    for (what, credential, proof) in presented {
        let (answer, cost) = server.costs(get_with(&server, &path, credential, &proof)).await;
        let face = (face(&answer), cost);
        assert_eq!(answer.refused(401), "unauthorized", "{what}");
        assert_eq!(*seen.get_or_insert_with(|| face.clone()), face, "{what}");
    }
    let proof = prover.proof("GET", &path, key);
    get_with(&server, &path, key, &proof).await.ok();
    let (answer, again) = server.costs(get_with(&server, &path, key, &proof)).await;
    assert_eq!(Some((face(&answer), again)), seen, "a proof that was used before");

    // Only auditors see the reasons. A refused use is no last use.
    let expected =
        ["not_bound", "proof_key", "proof_missing", "proof_replayed", "proof_signature", "wrong_secret"];
    assert_eq!(reasons(&server, &tenant).await, expected.map(str::to_owned).into());
});

both!(a_refused_use_is_no_last_use, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, _, minted) = bound(&server, &tenant, "owner").await;
    let thief = Arc::new(Prover::new(&server, "ES256"));
    server.bearing(credential(&actor)).get("/v1/me").await.refused(401);
    let refused = actor.proving(&thief).get("/v1/me").await;
    assert_eq!(refused.header("x-api-key-expires"), "");
    refused.refused(401);
    server.app.flush().await;
    assert_eq!(listed(&tenant, &minted).await["last_used_at"], Value::Null);
    actor.get("/v1/me").await.ok();
    server.app.flush().await;
    assert_ne!(listed(&tenant, &minted).await["last_used_at"], Value::Null);
});

both!(a_rotation_keeps_the_binding_for_both_secrets, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (old, prover, minted) = bound(&server, &tenant, "owner").await;
    let rotate = path_of(&tenant, &minted, "/rotate");
    let body = json!({ "duration_days": 30, "grace_seconds": 600 });
    let rotated = old.post(&rotate, body).await.ok();
    assert_eq!(rotated["bound_to"], minted["bound_to"]);
    assert_eq!(listed(&tenant, &minted).await["bound_to"], minted["bound_to"]);
    let new = server.bearing(rotated.text("api_key"));
    for secret in [&old, &new.proving(&prover)] {
        secret.get("/v1/me").await.ok();
        server.bearing(credential(secret)).get("/v1/me").await.refused(401);
    }
    server.clock.advance(Duration::from_mins(10));
    old.get("/v1/me").await.refused_as(401, "unauthorized");
    new.proving(&prover).get("/v1/me").await.ok();
});

both!(the_retry_of_a_rotation_with_the_ended_secret_needs_a_proof, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, _, minted) = bound(&server, &tenant, "owner").await;
    let rotate = path_of(&tenant, &minted, "/rotate");
    let (repeat, body) = ("a-rotation-that-is-repeated", json!({ "duration_days": 30 }));
    let rotated = actor.post_once(&rotate, repeat, body.clone()).await.ok();
    // The answer has the new secret. The old secret alone must not open it.
    let thief = Arc::new(Prover::new(&server, "ES256"));
    let stolen = server.bearing(credential(&actor));
    for attempt in [&stolen, &stolen.proving(&thief)] {
        attempt.post_once(&rotate, repeat, body.clone()).await.refused_as(401, "unauthorized");
    }
    let again = actor.post_once(&rotate, repeat, body).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.ok()["api_key"], rotated["api_key"]);
});

both!(a_found_bound_key_is_revoked_without_a_proof, async || {
    let (server, tenant) = Server::with_tenant().await;
    let revoke = "/v1/keys/revoke";
    let (in_body, _, _) = bound(&server, &tenant, "owner").await;
    server.anonymous().post(revoke, json!({ "api_key": credential(&in_body) })).await.no_content();
    let (as_bearer, _, _) = bound(&server, &tenant, "owner").await;
    server.bearing(credential(&as_bearer)).send(Method::POST, revoke, Sending::default()).await.no_content();
    let (with_proof, _, _) = bound(&server, &tenant, "owner").await;
    with_proof.send(Method::POST, revoke, Sending::default()).await.no_content();
    for ended in [in_body, as_bearer, with_proof] {
        ended.get("/v1/me").await.refused_as(401, "unauthorized");
    }
});

both!(a_claim_may_bind_the_first_key, async || {
    let server = Server::start().await;
    let made = server.anonymous().create_workspace("acme").await;
    let keys = format!("/v1/{}/api-keys", made.text("id"));
    let prover = Arc::new(Prover::new(&server, "EdDSA"));
    let body = json!({ "duration_days": 30, "bound_to": { "jwk": prover.jwk() } });
    let claimed = server.anonymous().post(&keys, body).await.created();
    let stolen = server.bearing(claimed.text("api_key"));
    stolen.get(&keys).await.refused_as(401, "unauthorized");
    let owner = stolen.proving(&prover);
    assert_eq!(owner.get(&keys).await.ok()["items"][0]["bound_to"]["jkt"], prover.jkt());
    // A key that its owner mints has a binding of its own, or none.
    let minted = owner.post(&keys, json!({ "duration_days": 1 })).await.created();
    assert_eq!(minted["bound_to"], Value::Null);
    server.bearing(minted.text("api_key")).get("/v1/me").await.ok();
});

both!(only_a_public_key_can_be_named, async || {
    let (server, tenant) = Server::with_tenant().await;
    let prover = Prover::new(&server, "ES256");
    let with = |name: &str, value: Value| {
        let mut jwk = prover.jwk();
        jwk[name] = value;
        json!({ "jwk": jwk })
    };
    let (at_jkt, at_jwk, at_all) = ("body.bound_to.jkt", "body.bound_to.jwk", "body.bound_to");
    let other_bits = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4J";
    for (wrong, at) in [
        (json!({}), at_all),
        (json!({ "jkt": null, "jwk": null }), at_all),
        (json!({ "jkt": prover.jkt(), "jwk": prover.jwk() }), at_all),
        (json!("a-text"), at_all),
        (json!({ "jkt": "short" }), at_jkt),
        (json!({ "jkt": format!("{}=", &prover.jkt()[..42]) }), at_jkt),
        (json!({ "jkt": other_bits }), at_jkt),
        (json!({ "jkt": 7 }), at_jkt),
        (json!({ "jwk": "a-text" }), at_jwk),
        (json!({ "jwk": {} }), at_jwk),
        (json!({ "jwk": { "kty": "oct", "k": "c2VjcmV0" } }), at_jwk),
        (with("d", json!("the-private-part-of-a-key")), at_jwk),
        (with("crv", json!("secp256k1")), at_jwk),
        (with("x", json!("AAAA")), at_jwk),
        (with("y", json!(null)), at_jwk),
        (with("x5c", json!(["A".repeat(5_000)])), at_jwk),
    ] {
        let body = json!({ "duration_days": 1, "bound_to": wrong });
        let answer = tenant.post("/api-keys", body).await;
        assert_eq!(answer.problem_locs(), [at], "{wrong}");
        assert!(
            !answer.text.contains("private-part") && !answer.text.contains("c2VjcmV0"),
            "{}",
            answer.text
        );
    }
    for fine in
        [json!(null), with("use", json!("sig")), with("key_ops", json!(["verify"])), with("ext", json!(true))]
    {
        tenant.post("/api-keys", json!({ "duration_days": 1, "bound_to": fine })).await.created();
    }
});

both!(a_server_that_does_not_know_its_url_binds_no_key, async || {
    let server = Server::with(|config| config.listen.set_ip([0, 0, 0, 0].into())).await;
    let tenant = server.tenant("acme").await;
    let prover = Arc::new(Prover::new(&server, "ES256"));
    let body = json!({ "duration_days": 1, "bound_to": { "jkt": prover.jkt() } });
    tenant.post("/api-keys", body.clone()).await.refused_as(409, "public_url_not_set");
    let made = server.anonymous().create_workspace("other").await;
    let claim = format!("/v1/{}/api-keys", made.text("id"));
    server.anonymous().post(&claim, body.clone()).await.refused_as(409, "public_url_not_set");
    server.anonymous().post(&claim, json!({ "duration_days": 1 })).await.created();
    // The refusal of a proof says it too.
    let refused = tenant.owner.proving(&prover).get("/v1/me").await;
    assert!(refused.text.contains("public_url"), "{}", refused.text);
    refused.refused_as(401, "invalid_dpop_proof");
    let named = server.replica_with(|config| config.public_url = Some("https://ward.test".to_owned())).await;
    let owner = named.bearing(credential(&tenant.owner));
    owner.post(&tenant.path("/api-keys"), body).await.created();
});

both!(every_reading_operation_is_open_to_a_proof, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, _, _) = bound(&server, &tenant, "owner").await;
    let (plain, _) = tenant.key(json!({ "duration_days": 30, "role": "owner" })).await;
    let target = tenant.whole_target(tenant.owner_key_id()).await;
    let mut asked = 0;
    for operation in server.app.contract.operations().filter(|it| wants_key(it) && it.method == "GET") {
        let expected = plain.call(operation, &target).await.status;
        assert_ne!(expected, StatusCode::UNAUTHORIZED, "{}", operation.id);
        assert_eq!(actor.call(operation, &target).await.status, expected, "{}", operation.id);
        let stolen = server.bearing(credential(&actor));
        stolen.call(operation, &target).await.refused_as(401, "unauthorized");
        asked += 1;
    }
    assert!(asked > 25, "{asked}");
});

both!(failed_proofs_do_not_refuse_the_keys_holder, async || {
    let server = Server::with(|config| {
        config.rates.enforced = true;
        config.rates.failed_credentials = Rate { burst: 2, per_minute: 1 };
    })
    .await;
    let tenant = server.tenant("acme").await;
    let (actor, prover, _) = bound(&server, &tenant, "owner").await;
    actor.get("/v1/me").await.ok();
    let forger = SigningKey::new("ES256", None);
    let key = credential(&actor);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let proof = forger.sign(&prover.header(), &prover.claims("GET", "/v1/me", key));
        statuses.push(get_with(&server, "/v1/me", key, &proof).await.status.as_u16());
        statuses.push(server.bearing(key).get("/v1/me").await.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 429, 429, 429, 429, 429, 429]);
    actor.get("/v1/me").await.ok();
    let fresh: Actor = tenant.service("viewer").await;
    fresh.get("/v1/me").await.ok();
});
