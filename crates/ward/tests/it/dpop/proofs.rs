//! Proofs with one wrong part each, and the URLs that a proof may name.

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward_test::{Cost, Fields as _, Prover, Server, both, unknown_key};

use super::{bound, credential, face, get_with};

const ME: &str = "/v1/me";

both!(whatever_does_not_fit_in_a_proof_costs_no_query_and_says_nothing_of_the_credential, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, prover, _) = bound(&server, &tenant, "owner").await;
    let unknown = unknown_key();
    let other = server.tenant("other").await;
    let base = &prover.base;
    let now = server.clock.now().micros() / 1_000_000;
    let jwk = |name: &str, value: Value| {
        let mut jwk = prover.jwk();
        jwk[name] = value;
        ("jwk", Some(jwk))
    };
    let wrong_headers = [
        ("typ", None),
        ("typ", Some(json!("JWT"))),
        ("typ", Some(json!("at+jwt"))),
        ("typ", Some(json!("DPOP+JWT"))),
        ("alg", None),
        ("alg", Some(json!("none"))),
        ("alg", Some(json!("HS256"))),
        ("alg", Some(json!("ES384"))),
        ("alg", Some(json!("RS256"))),
        ("alg", Some(json!("es256"))),
        ("crit", Some(json!(["b64"]))),
        ("jwk", None),
        ("jwk", Some(json!(prover.jkt()))),
        ("jwk", Some(json!({ "kty": "oct", "k": "c2VjcmV0" }))),
        jwk("d", json!("AAAA")),
        jwk("crv", json!("P-521")),
        jwk("x", json!("AAAA")),
        jwk("y", json!(7)),
    ];
    let wrong_claims = [
        ("jti", None),
        ("jti", Some(json!(""))),
        ("jti", Some(json!(7))),
        ("jti", Some(json!("x".repeat(257)))),
        ("htm", None),
        ("htm", Some(json!("get"))),
        ("htm", Some(json!("POST"))),
        ("htu", None),
        ("htu", Some(json!(ME))),
        ("htu", Some(json!(""))),
        ("htu", Some(json!(format!("{base}/v1/me/")))),
        ("htu", Some(json!(format!("{base}/v1/workspaces")))),
        ("htu", Some(json!(format!("{base}1/v1/me")))),
        ("htu", Some(json!("https://ward.example.com/v1/me"))),
        ("htu", Some(json!(base.replacen("http:", "https:", 1) + ME))),
        ("htu", Some(json!(base.replacen("http://", "http://ward@", 1) + ME))),
        ("htu", Some(json!([format!("{base}{ME}")]))),
        ("iat", None),
        ("iat", Some(json!(now - 120))),
        ("iat", Some(json!(now + 120))),
        ("iat", Some(json!(0))),
        ("iat", Some(json!(-1))),
        ("iat", Some(json!(1e300))),
        ("iat", Some(json!("now"))),
        ("exp", Some(json!(now - 120))),
        ("nbf", Some(json!(now + 120))),
        ("ath", None),
        ("ath", Some(json!(""))),
        ("ath", Some(json!("fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"))),
        ("nonce", Some(json!(7))),
    ];
    let changed = |mut value: Value, (name, with): &(&str, Option<Value>)| {
        match with {
            Some(with) => value[*name] = with.clone(),
            None => drop(value.as_object_mut().unwrap().shift_remove(*name)),
        }
        value
    };
    for credential in [credential(&actor), credential(&other.owner), &unknown, "garbage", "a.b.c"] {
        let claims = || prover.claims("GET", ME, credential);
        let signed = |header: &Value, claims: &Value| prover.key.sign(header, claims);
        let valid = signed(&prover.header(), &claims());
        let (parts, signature) = valid.rsplit_once('.').unwrap();
        let mut proofs: Vec<(String, String)> = [
            ("empty", String::new()),
            ("garbage", "garbage".to_owned()),
            ("dots", "..".to_owned()),
            ("in two parts", parts.to_owned()),
            ("in four parts", format!("{valid}.x")),
            ("padded", format!("{parts}=.{signature}")),
            ("too long", format!("{valid}{}", "A".repeat(4096))),
            (
                "long before it is large",
                signed(&changed(prover.header(), &("x", Some(json!("x".repeat(4096))))), &claims()),
            ),
        ]
        .map(|(what, proof)| (what.to_owned(), proof))
        .into();
        for wrong in &wrong_headers {
            proofs.push((format!("{wrong:?}"), signed(&changed(prover.header(), wrong), &claims())));
        }
        for wrong in &wrong_claims {
            proofs.push((format!("{wrong:?}"), signed(&prover.header(), &changed(claims(), wrong))));
        }
        for (what, proof) in proofs {
            let (answer, cost) = server.costs(get_with(&server, ME, credential, &proof)).await;
            assert_eq!(cost, Cost::NOTHING, "{what}");
            assert_eq!(answer.refused(401), "invalid_dpop_proof", "{what}");
        }
        // A request has exactly one proof.
        let authorization = format!("DPoP {credential}");
        let twice = [("authorization", authorization.as_str()), ("dpop", &valid), ("dpop", &valid)];
        for headers in [&twice[..1], &twice[..]] {
            let (answer, cost) = server.costs(server.anonymous().with(headers).get(ME)).await;
            assert_eq!((answer.refused(401).as_str(), cost), ("invalid_dpop_proof", Cost::NOTHING));
        }
    }
    // All of them were about the proof: the key itself still works.
    actor.get(ME).await.ok();
});

both!(a_refused_proof_looks_the_same_for_every_credential, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, prover, _) = bound(&server, &tenant, "owner").await;
    let mut seen = None;
    for key in [credential(&actor), credential(&tenant.owner), &unknown_key()] {
        let answer = get_with(&server, ME, key, &prover.proof("POST", ME, key)).await;
        assert_eq!(*seen.get_or_insert_with(|| face(&answer)), face(&answer));
        assert!(answer.text.contains("`htm`"), "it says what to mend: {}", answer.text);
    }
});

both!(what_differs_only_in_writing_is_accepted, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, prover, _) = bound(&server, &tenant, "owner").await;
    let (key, base) = (credential(&actor), prover.base.as_str());
    let now = server.clock.now().micros() / 1_000_000;
    let port = server.address.port();
    for (name, value) in [
        ("htu", json!(format!("{base}/v1/me?limit=1"))),
        ("htu", json!(format!("{base}/v1/me#here"))),
        ("htu", json!(format!("{base}/v1/./m%65"))),
        ("htu", json!(base.to_uppercase() + ME)),
        ("htu", json!(format!("http://localhost:{port}/v1/me"))),
        ("iat", json!(now - 50)),
        ("iat", json!(now + 50)),
        ("iat", json!(f64::from(i32::try_from(now).unwrap()) + 0.5)),
        ("exp", json!(now + 300)),
        ("nbf", json!(now - 300)),
        ("jti", json!("x".repeat(256))),
        ("nonce", json!("of another server")),
        ("further", json!({ "claims": ["are", "ignored"] })),
    ] {
        let mut claims = prover.claims("GET", ME, key);
        claims[name] = value.clone();
        let proof = prover.key.sign(&prover.header(), &claims);
        let answer = get_with(&server, "/v1/me?limit=2", key, &proof).await;
        assert_eq!(answer.status, 200, "{name} {value}: {}", answer.text);
    }
    // The scheme's name has no case.
    let proof = prover.proof("GET", ME, key);
    let headers = [("authorization", format!("dpop {key}")), ("dpop", proof)];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    server.anonymous().with(&headers).get(ME).await.ok();
    // The `DPoP` header of a plain bearer means nothing.
    tenant.owner.with(&[("dpop", "anything")]).get(ME).await.ok();
});

both!(a_proof_names_the_public_url_and_no_other, async || {
    let server = Server::with(|config| config.public_url = Some("https://ward.test/gate".to_owned())).await;
    let tenant = server.tenant("acme").await;
    let mut prover = Prover::new(&server, "ES256");
    let inside = prover.base.clone();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({ "duration_days": 1, "role": "owner", "bound_to": { "jkt": prover.jkt() } });
    let (actor, _) = tenant.key(body).await;
    for (base, accepted) in [
        ("https://ward.test/gate", true),
        ("https://WARD.test:443/gate", true),
        ("https://ward.test", false),
        ("https://ward.test/other", false),
        ("http://ward.test/gate", false),
        ("https://ward.test:8443/gate", false),
        (inside.as_str(), false),
    ] {
        base.clone_into(&mut prover.base);
        let key = credential(&actor);
        // The proxy may strip its prefix or leave it. The host headers that it sends mean nothing.
        for path in ["/v1/me", "/gate/v1/me"] {
            let asking = client.get(format!("{inside}{path}"));
            let asking = asking.header("authorization", format!("DPoP {key}"));
            let asking = asking.header("dpop", prover.proof("GET", ME, key));
            let answer = asking.header("x-forwarded-host", "elsewhere.test").send().await.unwrap();
            let expected = if accepted { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            assert_eq!(answer.status(), expected, "{base} {path}: {}", answer.text().await.unwrap());
        }
    }
    "https://ward.test/gate".clone_into(&mut prover.base);
    let prover = Arc::new(prover);
    let path = tenant.path("/api-keys?limit=3");
    assert_eq!(actor.proving(&prover).get(&path).await.ok().list("items").len(), 2);
});

both!(a_browser_may_send_proofs_and_read_nonces, async || {
    let server = Server::with(|config| config.cors_origins = vec!["https://app.test".to_owned()]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asking = client.request(reqwest::Method::OPTIONS, format!("{}{ME}", server.url()));
    let asking = asking.header("origin", "https://app.test").header("access-control-request-method", "GET");
    let asking = asking.header("access-control-request-headers", "authorization,dpop").send().await.unwrap();
    let allowed = asking.headers()["access-control-allow-headers"].to_str().unwrap();
    assert!(allowed.split(',').any(|name| name.trim() == "dpop"), "{allowed}");
    let refused = server.anonymous().with(&[("origin", "https://app.test")]).get(ME).await;
    assert!(refused.header("access-control-expose-headers").contains("dpop-nonce"));
});
