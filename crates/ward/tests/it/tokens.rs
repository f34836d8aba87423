//! Access tokens of an issuer: accepted and refused ones, the principals that they create, and outages.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use serde_json::{Value, json};
use ward::config::issuers::IssuerConfig;
use ward_test::{
    AUDIENCE, Cost, Fields as _, Server, SigningKey, TestIssuer, both, fresh_slug, new_workspace,
};

use crate::support::together;

async fn let_in(server: &Server, token: &str) -> bool {
    match server.bearing(token).get("/v1/me").await.status.as_u16() {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

// Accepted tokens

both!(each_algorithm_is_verified_with_and_without_a_key_id, async || {
    let (server, issuer) = Server::with_issuer().await;
    for algorithm in ["ES256", "EdDSA", "RS256"] {
        for id in [Some("one"), None] {
            issuer.serve_keys(vec![SigningKey::new("ES256", None), SigningKey::new(algorithm, id)]);
            server.clock.advance(Duration::from_hours(25));
            assert!(let_in(&server, &issuer.token("ada")).await, "{algorithm} {id:?}");
            // One token names no key of a set with ids, and one names a key of a set without ids.
            let key = issuer.key();
            let header = json!({ "alg": algorithm });
            assert!(let_in(&server, &key.sign(&header, &issuer.claims("ada"))).await, "{algorithm} {id:?}");
            let header = json!({ "alg": algorithm, "kid": "one" });
            assert!(let_in(&server, &key.sign(&header, &issuer.claims("ada"))).await, "{algorithm} {id:?}");
        }
    }
});

both!(whatever_is_wrong_with_a_token_it_is_the_same_401_and_costs_no_more_than_a_key, async || {
    let (server, issuer) = Server::with_issuer().await;
    let other = TestIssuer::start().await;
    let key = issuer.key();
    let good = issuer.claims("ada");
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        issuer.sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().shift_remove(name);
        issuer.sign(&claims)
    };
    let header = |name: &str, value: Value| {
        let mut header = key.header();
        header[name] = value;
        key.sign(&header, &good)
    };
    let b64 = |text: String| URL_SAFE_NO_PAD.encode(text);
    let unsigned = format!("{}.{}.", b64(json!({ "alg": "none" }).to_string()), b64(good.to_string()));
    let valid = issuer.token("ada");
    let (signed, _) = valid.rsplit_once('.').unwrap();
    let tampered = {
        let parts: Vec<&str> = valid.split('.').collect();
        format!("{}.{}.{}", parts[0], b64(issuer.claims("root").to_string()), parts[2])
    };
    let thief = SigningKey::new("ES256", Some("first"));
    let bad = [
        ("expired", with("exp", json!(issuer.seconds(-31)))),
        ("without an end", without("exp")),
        ("ending never", with("exp", json!("never"))),
        ("ending beyond time", with("exp", json!(1e300))),
        ("not yet good", with("nbf", json!(issuer.seconds(300)))),
        ("good from a word on", with("nbf", json!("now"))),
        ("of an unknown issuer", with("iss", json!("https://elsewhere.example"))),
        ("of no issuer", without("iss")),
        ("of an issuer with a slash more", with("iss", json!(format!("{}/", issuer.url())))),
        ("of several issuers", with("iss", json!([issuer.url()]))),
        ("for another audience", with("aud", json!("https://other.test"))),
        ("for several other audiences", with("aud", json!(["a", "b"]))),
        ("for no audience", without("aud")),
        ("without a subject", without("sub")),
        ("with an empty subject", with("sub", json!(""))),
        ("with a number as subject", with("sub", json!(7))),
        ("with a control character as subject", with("sub", json!("a\u{0}"))),
        ("with an endless subject", with("sub", json!("a".repeat(256)))),
        ("bound to a key", with("cnf", json!({ "jkt": "x" }))),
        ("unsigned", unsigned),
        ("unsigned, in a signed one's place", header("alg", json!("none"))),
        ("symmetric", header("alg", json!("HS256"))),
        ("of another algorithm than its key's", header("alg", json!("RS256"))),
        ("of a longer algorithm", header("alg", json!("ES384"))),
        ("with a critical extension", header("crit", json!(["exp"]))),
        ("a log-out token", header("typ", json!("logout+jwt"))),
        ("a proof", header("typ", json!("dpop+jwt"))),
        ("of an unknown key", header("kid", json!("second"))),
        ("signed by another person's key", thief.sign(&key.header(), &good)),
        ("signed by another issuer", other.key().sign(&key.header(), &good)),
        ("of an issuer that is not configured", other.token("ada")),
        ("tampered with", tampered),
        ("with no signature", format!("{signed}.")),
        ("with half a signature", valid[..valid.len() - 20].to_owned()),
        ("cut in two", signed.to_owned()),
        ("in four parts", format!("{valid}.x")),
        ("garbage", "a.b.c".to_owned()),
        ("dots", "..".to_owned()),
        ("too long", format!("{valid}{}", "A".repeat(17_000))),
    ];
    assert!(let_in(&server, &valid).await);
    // A test without a server checks the limit to the microsecond.
    assert!(let_in(&server, &with("exp", json!(issuer.seconds(-1)))).await, "a clock may differ a little");
    assert!(let_in(&server, &with("nbf", json!(issuer.seconds(29)))).await, "a clock may differ a little");
    assert!(let_in(&server, &with("aud", json!(["x", AUDIENCE]))).await);
    assert!(let_in(&server, &header("typ", json!("JWT"))).await);
    let key = server.bearing(ward_test::unknown_key()).get("/v1/me").await;
    // A trust rule can name any issuer that the operator has not configured. The look-up for one is that of an unknown key.
    let foreign =
        ["of an unknown issuer", "of an issuer with a slash more", "of an issuer that is not configured"];
    for (what, token) in bad {
        let (answer, cost) = server.costs(server.bearing(token).get("/v1/me")).await;
        let expected = if foreign.contains(&what) { Cost::LOOK_UP } else { Cost::NOTHING };
        assert_eq!(cost, expected, "{what}");
        assert_eq!(answer.anonymized(), key.anonymized(), "{what}");
        assert_eq!(answer.refused(401), "unauthorized", "{what}");
    }
});

both!(a_public_key_is_no_shared_secret, async || {
    use aws_lc_rs::hmac;
    let (server, issuer) = Server::with_issuer().await;
    issuer.serve_keys(vec![SigningKey::new("RS256", Some("first"))]);
    let jwk = issuer.key().jwk();
    for secret in [jwk.text("n").to_owned(), jwk.to_string()] {
        let head = json!({ "alg": "HS256", "kid": "first", "typ": "JWT" }).to_string();
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(head),
            URL_SAFE_NO_PAD.encode(issuer.claims("ada").to_string())
        );
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
        assert!(!let_in(&server, &format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))).await);
    }
    assert!(let_in(&server, &issuer.token("ada")).await);
});

both!(tokens_are_nothing_where_no_issuer_is_configured, async || {
    let (_, issuer) = Server::with_issuer().await;
    let server = Server::start().await;
    assert!(!let_in(&server, &issuer.token("ada")).await);
    assert_eq!(issuer.discoveries(), 0);
});

both!(an_issuer_may_narrow_its_algorithms_and_name_its_claims, async || {
    let issuer = TestIssuer::start().await;
    let config = IssuerConfig {
        algorithms: vec![ward::config::issuers::TokenAlgorithm::EdDsa],
        subject_claim: "oid".to_owned(),
        name_claim: "nick".to_owned(),
        machine: Some(("groups".to_owned(), json!("robots"))),
        ..issuer.config()
    };
    let server = Server::with(|settings| settings.issuers = vec![config]).await;
    issuer
        .serve_keys(vec![SigningKey::new("ES256", Some("first")), SigningKey::new("EdDSA", Some("second"))]);
    let token = issuer.token_with("ada", &json!({ "oid": "4711", "nick": " Ada\n ", "client_id": "ada" }));
    let me = server.bearing(token).get("/v1/me").await.ok();
    assert_eq!(me.fields(["kind", "display_name"]), json!(["user", "Ada"]));
    assert!(!let_in(&server, &issuer.token("ada")).await, "no oid");
    let robot = issuer.token_with("ada", &json!({ "oid": "4712", "groups": ["staff", "robots"] }));
    assert_eq!(server.bearing(robot).get("/v1/me").await.ok()["kind"], "service");
    issuer
        .serve_keys(vec![SigningKey::new("EdDSA", Some("second")), SigningKey::new("ES256", Some("first"))]);
    assert!(
        !let_in(&server, &issuer.token_with("ada", &json!({ "oid": "4711" }))).await,
        "ES256 is not accepted"
    );
});

// Keys: rotation and outages

both!(a_new_key_is_fetched_when_a_token_names_it_at_most_once_a_minute, async || {
    let (server, issuer) = Server::with_issuer().await;
    let old = issuer.token("ada");
    assert!(let_in(&server, &old).await);
    assert_eq!(issuer.discoveries(), 1);
    issuer.serve_keys(vec![SigningKey::new("ES256", Some("second"))]);
    assert!(let_in(&server, &old).await, "nothing has told Ward of the change yet");
    assert!(let_in(&server, &issuer.token("ada")).await);
    assert_eq!(issuer.discoveries(), 2);
    assert!(!let_in(&server, &old).await, "its key is gone");
    issuer.serve_keys(vec![SigningKey::new("ES256", Some("third"))]);
    for _ in 0..5 {
        assert!(!let_in(&server, &issuer.token("ada")).await, "less than a minute after the last look");
    }
    assert_eq!(issuer.discoveries(), 2);
    server.clock.advance(Duration::from_mins(1));
    assert!(let_in(&server, &issuer.token("ada")).await);
    assert_eq!(issuer.discoveries(), 3);
});

both!(of_many_who_come_with_a_new_key_all_are_let_in, threads = 4, async || {
    let (server, issuer) = Server::with_issuer().await;
    assert!(let_in(&server, &issuer.token("ada")).await);
    issuer.serve_keys(vec![SigningKey::new("ES256", Some("second"))]);
    issuer.set_delay(Duration::from_millis(300));
    let statuses = together((0..20).map(|index| {
        let person = server.person(&issuer, &format!("person-{index}"));
        async move { person.get("/v1/me").await.status }
    }))
    .await;
    assert_eq!(statuses, [StatusCode::OK; 20]);
    assert_eq!(issuer.discoveries(), 2);
});

both!(keys_without_ids_rotate_too, async || {
    let (server, issuer) = Server::with_issuer().await;
    issuer.serve_keys(vec![SigningKey::new("ES256", None)]);
    let old = issuer.token("ada");
    assert!(let_in(&server, &old).await);
    issuer.serve_keys(vec![SigningKey::new("ES256", None)]);
    assert!(let_in(&server, &issuer.token("ada")).await);
    assert!(!let_in(&server, &old).await);
});

both!(looking_for_an_unknown_key_delays_no_other_caller, threads = 4, async || {
    let (server, issuer) = Server::with_issuer().await;
    let good = issuer.token("ada");
    assert!(let_in(&server, &good).await);
    issuer.set_delay(Duration::from_secs(3));
    let key = issuer.key();
    let mut header = key.header();
    header["kid"] = json!("unknown");
    let unknown = server.bearing(key.sign(&header, &issuer.claims("ada")));
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let unknown = unknown.clone();
            tokio::spawn(async move { unknown.get("/v1/me").await.status })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..10 {
        assert!(let_in(&server, &good).await);
    }
    assert!(waiting.iter().all(|asked| !asked.is_finished()), "the issuer answered before these were let in");
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(issuer.discoveries(), 2, "one look for all of them");
});

both!(without_keys_a_token_is_503_and_with_cached_ones_it_works_for_a_stated_time, async || {
    let (server, issuer) = Server::with_issuer().await;
    issuer.set_down(true);
    let ada = server.person(&issuer, "ada");
    for path in ["/v1/me", "/v1/workspaces"] {
        let (answer, cost) = server.costs(ada.get(path)).await;
        assert!(!answer.header("retry-after").is_empty());
        answer.refused_as(503, "identity_unavailable");
        assert_eq!(cost, Cost::NOTHING);
    }
    let refused = ada.post("/v1/workspaces/self-service", new_workspace("ada")).await;
    assert!(!refused.header("retry-after").is_empty());
    refused.refused_as(503, "identity_unavailable");
    assert_eq!(issuer.discoveries(), 1, "what just failed is not asked again at once");
    // Keys of the issuer have nothing to do with API keys.
    server.tenant("acme").await.owner.get("/v1/me").await.ok();

    issuer.set_down(false);
    server.clock.advance(Duration::from_secs(5));
    ada.get("/v1/me").await.ok();
    issuer.set_down(true);
    server.clock.advance(Duration::from_hours(24) - Duration::from_secs(1));
    server.person(&issuer, "ada").get("/v1/me").await.ok();
    server.clock.advance(Duration::from_mins(1));
    server.person(&issuer, "ada").get("/v1/me").await.refused_as(503, "identity_unavailable");
    issuer.set_down(false);
    server.clock.advance(Duration::from_secs(5));
    server.person(&issuer, "ada").get("/v1/me").await.ok();
});

both!(keys_that_grew_old_are_fetched_anew_beside_the_requests, async || {
    let (server, issuer) = Server::with_issuer().await;
    assert!(let_in(&server, &issuer.token("ada")).await);
    server.clock.advance(Duration::from_mins(10));
    let of_old_key = issuer.token("ada");
    issuer.serve_keys(vec![SigningKey::new("ES256", Some("second"))]);
    assert!(let_in(&server, &of_old_key).await, "this request does not wait");
    for _ in 0..100 {
        if issuer.discoveries() == 2 && !let_in(&server, &of_old_key).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a key that the issuer withdrew is still trusted");
});

both!(a_server_that_claims_to_be_another_issuer_is_not_believed, async || {
    let (server, issuer) = Server::with_issuer().await;
    issuer.claim_to_be("https://id.example.com");
    server.person(&issuer, "ada").get("/v1/me").await.refused_as(503, "identity_unavailable");
});

both!(an_empty_key_set_is_an_outage_and_not_an_answer, async || {
    let (server, issuer) = Server::with_issuer().await;
    let token = issuer.token("ada");
    assert!(let_in(&server, &token).await);
    let key = issuer.key();
    issuer.serve_keys(vec![]);
    server.clock.advance(Duration::from_mins(11));
    let claims = issuer.claims("ada");
    for _ in 0..5 {
        assert!(let_in(&server, &key.sign(&key.header(), &claims)).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
});

// Principals

both!(a_subject_becomes_a_principal_with_its_first_write, async || {
    let (server, issuer) = Server::with_issuer().await;
    let ada = server.person(&issuer, "ada");
    let me = ada.get("/v1/me").await.ok();
    assert_eq!(me["entity_id"], Value::Null);
    assert_eq!(me.fields(["kind", "display_name"]), json!(["user", "ada the tester"]));
    assert_eq!(me["credential"]["type"], "token");
    assert_eq!(me["credential"]["issuer"], issuer.url());
    assert_eq!(
        me["memberships"],
        json!({ "items": [], "has_more": false, "continuation_token": null, "total": 0 })
    );
    assert_eq!(ada.get("/v1/workspaces").await.ok()["items"], json!([]));
    ada.get("/v1/auth/me").await.refused_as(403, "not_an_api_key");
    for slug in ["taken", "taken"] {
        server.anonymous().post("/v1/workspaces", new_workspace(slug)).await;
    }
    // A refused write does not count as one.
    ada.post("/v1/me/workspaces", new_workspace("taken")).await.refused_as(409, "slug_taken");
    assert_eq!(server.count("SELECT count(*) FROM principals").await, 0);
    assert_eq!(server.count("SELECT count(*) FROM identities").await, 0);

    let created = ada.post("/v1/workspaces/self-service", new_workspace("ada")).await.created();
    ada.post("/v1/me/workspaces", new_workspace("ada-too")).await.created();
    assert_eq!(server.count("SELECT count(*) FROM principals WHERE kind = 'user'").await, 1);
    assert_eq!(server.count("SELECT count(*) FROM identities").await, 1);
    let me = ada.get("/v1/me?limit=1").await.ok();
    assert!(me["entity_id"].is_string());
    assert_eq!(me["memberships"]["total"], 2);
    assert_eq!(me["memberships"]["items"][0]["workspace_id"], created["id"]);
    assert_eq!(me["memberships"]["items"][0]["role"], "owner");
    let next = format!("/v1/me?continuation_token={}", me["memberships"]["continuation_token"]);
    assert_eq!(ada.get(&next).await.ok()["memberships"]["items"][0]["slug"], "ada-too");
    // A later token of the same subject is the same principal, with its current name.
    let renamed = issuer.token_with("ada", &json!({ "name": "Ada L." }));
    let again = server.bearing(renamed).get("/v1/me").await.ok();
    assert_eq!(again.fields(["entity_id", "display_name"]), json!([me["entity_id"], "Ada L."]));
});

both!(the_same_subject_of_two_issuers_is_two_principals, async || {
    let (one, two) = (TestIssuer::start().await, TestIssuer::start().await);
    let server = Server::with(|config| config.issuers = vec![one.config(), two.config()]).await;
    let (ada, other) = (server.person(&one, "ada"), server.person(&two, "ada"));
    let created = ada.post("/v1/me/workspaces", new_workspace("ada")).await.created();
    let path = format!("/v1/workspaces/{}", created.text("id"));
    other.get(&path).await.refused_as(404, "workspace_not_found");
    other.post("/v1/me/workspaces", new_workspace("other")).await.created();
    assert_eq!(server.count("SELECT count(*) FROM principals").await, 2);
    // One issuer's key signs no token of the other.
    assert!(!let_in(&server, &two.key().sign(&two.key().header(), &one.claims("ada"))).await);
});

both!(a_subject_that_changes_its_kind_is_refused, async || {
    let (server, issuer) = Server::with_issuer().await;
    server.person(&issuer, "ada").post("/v1/me/workspaces", new_workspace("ada")).await.created();
    assert!(!let_in(&server, &issuer.machine("ada")).await);
    assert!(let_in(&server, &issuer.token("ada")).await);
});

both!(self_service_is_for_people, async || {
    let (server, issuer) = Server::with_issuer().await;
    for machine in [
        issuer.machine("robot"),
        issuer.token_with("robot", &json!({ "azp": "robot" })),
        issuer.token_with("robot", &json!({ "gty": "client-credentials" })),
        issuer.token_with("robot", &json!({ "idtyp": "app" })),
    ] {
        let robot = server.bearing(machine);
        for path in ["/v1/workspaces/self-service", "/v1/me/workspaces"] {
            robot.post(path, new_workspace(&fresh_slug())).await.refused_as(403, "unsupported_principal");
        }
        assert_eq!(robot.get("/v1/me").await.ok()["kind"], "service");
    }
    assert_eq!(server.count("SELECT count(*) FROM principals").await, 0);
});

both!(a_token_may_do_what_its_subjects_memberships_allow, async || {
    let (server, issuer) = Server::with_issuer().await;
    let ada = server.person(&issuer, "ada");
    let created = ada.post("/v1/me/workspaces", new_workspace("ada")).await.created();
    let path = format!("/v1/workspaces/{}", created.text("id"));
    ada.patch(&path, json!({ "name": "Renamed" })).await.ok();
    server.sql("UPDATE memberships SET role = 'viewer'").await;
    ada.patch(&path, json!({ "name": "x" })).await.refused_as(403, "forbidden");
    ada.get(&path).await.ok();
    // Another person's token opens nothing.
    server.person(&issuer, "bea").get(&path).await.refused_as(404, "workspace_not_found");
    server.sql("DELETE FROM memberships").await;
    ada.get(&path).await.refused_as(404, "workspace_not_found");
});

both!(repeats_of_people_never_seen_before_are_their_own, async || {
    let (server, issuer) = Server::with_issuer().await;
    let key = "one-key-for-everybody";
    let create = async |subject: &str| {
        let body = new_workspace("wanted");
        server.person(&issuer, subject).post_once("/v1/me/workspaces", key, body).await
    };
    let created = create("ada").await.created();
    assert_eq!(create("ada").await.created()["id"], created["id"]);
    create("bea").await.refused_as(409, "slug_taken");
});

both!(the_audit_knows_a_token_by_issuer_and_a_hash, async || {
    let (server, issuer) = Server::with_issuer().await;
    let ada = server.person(&issuer, "ada@clinic.example");
    let created = ada.post("/v1/me/workspaces", new_workspace("ada")).await.created();
    let id = created.text("id");
    let audit = ada.get(&format!("/v1/{id}/audit")).await.ok();
    let event = &audit["events"][0];
    let me = ada.get("/v1/me").await.ok();
    assert_eq!(event["actor_entity_id"], me["entity_id"]);
    assert_eq!(event["actor_credential_id"], Value::Null);
    assert_eq!(event["metadata"]["token"]["issuer"], issuer.url());
    assert_eq!(event["metadata"]["token"].text("subject_hash").len(), 32);
    assert!(!audit.to_string().contains("ada@clinic"), "{audit}");
    // A refusal is recorded as well.
    server.sql("UPDATE memberships SET role = 'viewer'").await;
    ada.patch(&format!("/v1/workspaces/{id}"), json!({})).await.refused(403);
    server.sql("UPDATE memberships SET role = 'owner'").await;
    server.app.flush().await;
    let audit = ada.get(&format!("/v1/{id}/audit?action=access.forbidden")).await.ok();
    assert_eq!(audit["events"][0]["actor_entity_id"], me["entity_id"]);
    assert_eq!(audit["events"][0]["actor_credential_id"], Value::Null);
});

// Personal keys

both!(a_user_mints_keys_that_speak_for_themselves, async || {
    let (server, issuer) = Server::with_issuer().await;
    let ada = server.person(&issuer, "ada");
    let created = ada.post("/v1/me/workspaces", new_workspace("first")).await.created();
    let second = ada.post("/v1/me/workspaces", new_workspace("second")).await.created();
    let keys = format!("/v1/{}/api-keys", created.text("id"));
    let body = json!({ "duration_days": 1, "role": "operator", "speaks_for": "self", "name": "laptop" });
    let minted = ada.post(&keys, body).await.created();
    let me = ada.get("/v1/me").await.ok();
    assert_eq!(minted["created_by_entity_id"], me["entity_id"]);
    assert_eq!(minted["created_by_credential_id"], Value::Null);

    let laptop = server.bearing(minted.text("api_key"));
    let own = laptop.get("/v1/me").await.ok();
    assert_eq!(own["entity_id"], me["entity_id"]);
    assert_eq!((&own["kind"], &own["credential"]["key_id"]), (&json!("user"), &minted["key_id"]));
    // The key works in every workspace of the user, within its own role.
    let path = format!("/v1/workspaces/{}", second.text("id"));
    laptop.get(&path).await.ok();
    laptop.patch(&path, json!({ "name": "x" })).await.refused_as(403, "forbidden");
    laptop.post("/v1/me/workspaces", new_workspace("third")).await.refused_as(403, "forbidden");
    assert!(own["memberships"].list("items").iter().all(|it| it.list("permissions").len() == 6));

    let service = ada.post(&keys, json!({ "duration_days": 1 })).await.created();
    let mine = ada.get(&format!("{keys}?mine_only=true")).await.ok();
    assert_eq!(mine["total"], 2);
    let robot = server.bearing(service.text("api_key"));
    assert_eq!(robot.get("/v1/me").await.ok()["kind"], "service");

    // A user's key creates keys with its own id as the creating credential; `mine_only` is about the person.
    let body = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
    let whole = ada.post(&keys, body).await.created();
    let whole = server.bearing(whole.text("api_key"));
    let by_key = whole.post(&keys, json!({ "duration_days": 1, "role": "viewer" })).await.created();
    assert_eq!(by_key["created_by_entity_id"], me["entity_id"]);
    assert!(by_key["created_by_credential_id"].is_string());
    assert_eq!(whole.get(&format!("{keys}?mine_only=true")).await.ok()["total"], 4);

    // Its user may rotate it with any of their credentials.
    let rotate = format!("{keys}/{}/rotate", minted.text("key_id"));
    let rotated = ada.post(&rotate, json!({ "duration_days": 2 })).await.ok();
    laptop.get("/v1/me").await.refused(401);
    server.bearing(rotated.text("api_key")).get("/v1/me").await.ok();
});

both!(a_service_has_no_personal_keys_and_no_user_grants_more_than_they_have, async || {
    let (server, issuer) = Server::with_issuer().await;
    let tenant = server.tenant("acme").await;
    let service = tenant.service("owner").await;
    let body = json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" });
    service.post(&tenant.path("/api-keys"), body.clone()).await.refused_as(403, "unsupported_principal");
    let wrong = json!({ "duration_days": 1, "speaks_for": "me" });
    assert_eq!(service.post(&tenant.path("/api-keys"), wrong).await.problem_locs(), ["body.speaks_for"]);
    let ada = server.person(&issuer, "ada");
    let created = ada.post("/v1/me/workspaces", new_workspace("ada")).await.created();
    let keys = format!("/v1/{}/api-keys", created.text("id"));
    server
        .sql(format!(
            "UPDATE memberships SET role = 'admin' WHERE workspace_id = uuid '{}'",
            created.text("id")
        ))
        .await;
    let owner = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
    ada.post(&keys, owner).await.refused_as(403, "beyond_caller");
});

// Tokens without an audience

both!(a_token_without_an_audience_is_judged_by_its_client_where_the_issuer_is_set_so, async || {
    let issuer = TestIssuer::start().await;
    let config = IssuerConfig { client_id_claim: Some("client_id".to_owned()), ..issuer.config() };
    let server = Server::with(|settings| settings.issuers = vec![config]).await;
    let strict = Server::with(|settings| settings.issuers = vec![issuer.config()]).await;
    // Amazon Cognito writes access tokens this way: without `aud`, with the client in `client_id` and the use
    // of the token.
    let token = |more: Value| {
        let mut claims = issuer.claims("ada");
        let own = claims.as_object_mut().unwrap();
        own.shift_remove("aud");
        own.insert("token_use".to_owned(), json!("access"));
        own.insert("client_id".to_owned(), json!(AUDIENCE));
        for (name, value) in more.as_object().unwrap() {
            own.insert(name.clone(), value.clone());
        }
        issuer.sign(&claims)
    };
    assert!(let_in(&server, &token(json!({}))).await);
    assert!(!let_in(&strict, &token(json!({}))).await, "the setting is per issuer, and off by default");
    for wrong in [
        json!({ "client_id": "another-client" }),
        json!({ "client_id": null }),
        json!({ "client_id": 7 }),
        // An existing audience decides, regardless of the client.
        json!({ "aud": "https://another.example" }),
        json!({ "aud": null }),
        json!({ "aud": [] }),
        // An ID token is meant for the client and not for Ward.
        json!({ "token_use": "id" }),
        json!({ "token_use": "id", "aud": AUDIENCE }),
        json!({ "token_use": null }),
    ] {
        assert!(!let_in(&server, &token(wrong.clone())).await, "{wrong}");
    }
    assert!(let_in(&server, &token(json!({ "aud": AUDIENCE }))).await);
    assert!(let_in(&server, &issuer.token("ada")).await);
});
