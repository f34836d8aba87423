//! Bound credentials at the gate of other services: the proof is about the service's request, which only a trusted proxy may
//! state.

use std::sync::Arc;

use reqwest::StatusCode;
use ward_test::{Answer, Fields as _, Prover, Server, Tenant, both};

use super::{bound, credential};

/// The service that the proxy of these tests stands in front of.
const SERVICE: &str = "https://transcripts.example";

async fn gate(trusted: &str, origins: &[&str]) -> Server {
    Server::with(|config| {
        config.trusted_proxies = vec![trusted.parse().unwrap()];
        config.gate_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    })
    .await
}

/// The question of a proxy about a request, with these headers in place of the usual ones.
struct Question<'a> {
    key: &'a str,
    proof: &'a str,
    stated: &'a [(&'a str, &'a str)],
}

impl Question<'_> {
    async fn ask(&self, server: &Server, tenant: &Tenant) -> Answer {
        let authorization = format!("DPoP {}", self.key);
        let mut headers = vec![("authorization", authorization.as_str()), ("dpop", self.proof)];
        headers.extend_from_slice(self.stated);
        let path = tenant.path("/authorize?permission=Call.view");
        server.anonymous().with(&headers).get(&path).await
    }
}

fn stated<'a>(method: &'a str, host: &'a str, uri: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("x-forwarded-method", method),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", host),
        ("x-forwarded-uri", uri),
    ]
}

/// A proof about a request to the service.
fn proof(prover: &Prover, method: &str, path: &str, key: &str) -> String {
    let mut claims = prover.claims(method, path, key);
    claims["htu"] = format!("{SERVICE}{path}").into();
    prover.key.sign(&prover.header(), &claims)
}

both!(a_proof_about_the_services_request_is_accepted_from_a_trusted_proxy, async || {
    let server = gate("127.0.0.0/8", &["https://other.example", "https://Transcripts.example:443"]).await;
    let tenant = server.tenant("acme").await;
    let (actor, prover, minted) = bound(&server, &tenant, "operator").await;
    let key = credential(&actor);
    for (method, uri) in [("GET", "/a/b?since=1"), ("POST", "/a/b"), ("DELETE", "/")] {
        let proof = proof(&prover, method, uri.split('?').next().unwrap(), key);
        let stated = stated(method, "transcripts.example", uri);
        let question = Question { key, proof: &proof, stated: &stated };
        let answer = question.ask(&server, &tenant).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{method}: {}", answer.text);
        assert_eq!(answer.header("x-ward-key-id"), minted.text("key_id"));
        // It works once.
        question.ask(&server, &tenant).await.refused_as(401, "unauthorized");
    }
    // Without a stated request, the proof is about the question, as with every operation.
    let path = tenant.path("/authorize");
    assert_eq!(actor.get(&path).await.status, StatusCode::NO_CONTENT);
    // A plain bearer of the key is refused, whatever the proxy states.
    let stated = stated("GET", "transcripts.example", "/a");
    server.bearing(key).with(&stated).get(&path).await.refused_as(401, "unauthorized");
    // The headers mean nothing for a key that is not bound.
    assert_eq!(tenant.owner.with(&stated).get(&path).await.status, StatusCode::NO_CONTENT);
});

both!(a_proof_about_another_request_opens_nothing, async || {
    let server = gate("127.0.0.0/8", &[SERVICE]).await;
    let tenant = server.tenant("acme").await;
    let (actor, prover, _) = bound(&server, &tenant, "operator").await;
    let key = credential(&actor);
    let refused = async |proof: &str, stated: &[(&str, &str)], why: &str| {
        let answer = Question { key, proof, stated }.ask(&server, &tenant).await;
        assert!(answer.text.contains(why), "{why}: {}", answer.text);
        answer.refused_as(401, "invalid_dpop_proof");
    };
    let valid = proof(&prover, "GET", "/a", key);
    let host = "transcripts.example";
    refused(&valid, &stated("POST", host, "/a"), "`htm`").await;
    refused(&valid, &stated("GET", host, "/b"), "`htu`").await;
    refused(&valid, &stated("get", host, "/a"), "`htm`").await;
    // The client chooses the host that many proxies state.
    refused(&valid, &stated("GET", "thief.example", "/a"), "`gate_origins`").await;
    for (host, uri) in [
        ("transcripts.example/a?", "/b"),
        ("transcripts.example#", "/b"),
        ("user@transcripts.example", "/a"),
        ("transcripts.example", "https://transcripts.example/a"),
        ("transcripts.example", "a"),
    ] {
        refused(&valid, &stated("GET", host, uri), "no URL of HTTP").await;
    }
    refused(&valid, &[("x-forwarded-proto", "http")], "`htu`").await;
    // Each part comes once.
    let all = stated("GET", host, "/a");
    for left_out in 0..4 {
        let some: Vec<_> =
            all.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, it)| *it).collect();
        let twice: Vec<_> = all.iter().chain([&all[left_out]]).copied().collect();
        refused(&valid, &some, "once in each").await;
        refused(&valid, &twice, "once in each").await;
    }
    // A proof for Ward itself is none for the service.
    let own = prover.proof("GET", &tenant.path("/authorize"), key);
    refused(&own, &all, "`htu`").await;
    // None of these has used the proof up.
    let answer = Question { key, proof: &valid, stated: &all }.ask(&server, &tenant).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
});

both!(only_a_trusted_proxy_states_a_request_and_only_for_chosen_services, async || {
    for (trusted, origins, why) in [
        ("192.0.2.0/24", &[SERVICE][..], "`trusted_proxies`"),
        ("127.0.0.0/8", &[][..], "`gate_origins`"),
        ("127.0.0.0/8", &["http://transcripts.example"][..], "`gate_origins`"),
        ("127.0.0.0/8", &["https://transcripts.example:8443"][..], "`gate_origins`"),
    ] {
        let server = gate(trusted, origins).await;
        let tenant = server.tenant("acme").await;
        let (actor, prover, _) = bound(&server, &tenant, "operator").await;
        let key = credential(&actor);
        let proof = proof(&prover, "GET", "/a", key);
        let stated = stated("GET", "transcripts.example", "/a");
        let answer = Question { key, proof: &proof, stated: &stated }.ask(&server, &tenant).await;
        assert!(answer.text.contains(why), "{why}: {}", answer.text);
        answer.refused_as(401, "invalid_dpop_proof");
    }
});

both!(a_stated_request_means_nothing_for_other_operations, async || {
    let server = gate("127.0.0.0/8", &[SERVICE]).await;
    let tenant = server.tenant("acme").await;
    let (actor, prover, _) = bound(&server, &tenant, "operator").await;
    let stated = stated("GET", "transcripts.example", "/v1/me");
    actor.with(&stated).get("/v1/me").await.ok();
    let key = credential(&actor);
    let proof = proof(&prover, "GET", "/v1/me", key);
    let authorization = format!("DPoP {key}");
    let mut headers = vec![("authorization", authorization.as_str()), ("dpop", proof.as_str())];
    headers.extend(stated);
    server.anonymous().with(&headers).get("/v1/me").await.refused_as(401, "invalid_dpop_proof");
});

both!(a_bound_token_passes_the_gate_with_its_proof, async || {
    let (server, issuer) = Server::with_issuer_and(|config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.gate_origins = vec![SERVICE.to_owned()];
    })
    .await;
    let prover = Arc::new(Prover::new(&server, "ES256"));
    let token = issuer.token_with("ada", &serde_json::json!({ "cnf": { "jkt": prover.jkt() } }));
    let ada = server.bearing(&token).proving(&prover);
    let own = ada.post("/v1/me/workspaces", ward_test::new_workspace("adas")).await.created();
    let proof = proof(&prover, "GET", "/a", &token);
    let authorization = format!("DPoP {token}");
    let mut headers = vec![("authorization", authorization.as_str()), ("dpop", proof.as_str())];
    headers.extend(stated("GET", "transcripts.example", "/a"));
    let answer = server.anonymous().with(&headers).get(&format!("/v1/{}/authorize", own.text("id"))).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
});
