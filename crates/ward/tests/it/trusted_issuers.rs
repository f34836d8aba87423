//! Issuers that tenants name in trust rules: what makes Ward call them, and what a hostile one can do.

use std::time::Duration;

use serde_json::json;
use ward_test::{Cost, Fields as _, Server, SigningKey, Tenant, TestIssuer, both, fresh_slug};

use crate::outbound::{Peer, answer, open_outbound};
use crate::trust_rules::{github, is, job, rule, scene, sign};

async fn trust(tenant: &Tenant, issuer: &str) -> String {
    let request = rule(issuer, json!([is("repository_id", "74231904")]), "viewer");
    tenant.post("/trust-rules", request).await.created().text("id").to_owned()
}

/// The status of a request with the token of a job, in the workspace of this tenant.
async fn status(server: &Server, tenant: &Tenant, token: &str) -> u16 {
    server.bearing(token).get(&tenant.workspace("")).await.status.as_u16()
}

/// A token that names an issuer at this address. Nobody signed it.
fn forged(address: &str, issuer: &TestIssuer) -> String {
    let mut claims = github(issuer);
    claims["iss"] = json!(address);
    sign(issuer, Some("JWT"), &claims)
}

// Fetches

both!(a_stranger_cannot_make_ward_call_an_address, async || {
    let (server, issuer, tenant) = scene().await;
    let other = server.tenant("other").await;
    let token = sign(&issuer, Some("JWT"), &github(&issuer));
    for path in [tenant.workspace(""), "/v1/me".to_owned()] {
        let (refused, cost) = server.costs(server.bearing(&token).get(&path)).await;
        refused.refused(401);
        assert_eq!(cost, Cost::LOOK_UP, "no rule names the issuer");
    }
    let made = trust(&tenant, issuer.url()).await;
    assert_eq!(status(&server, &other, &token).await, 401, "another workspace's rule");
    for (claim, value) in [("repository_id", "1"), ("aud", "https://other.example")] {
        let mut claims = github(&issuer);
        claims[claim] = json!(value);
        assert_eq!(status(&server, &tenant, &sign(&issuer, None, &claims)).await, 401, "{claim}");
    }
    let mut expired = github(&issuer);
    expired["exp"] = json!(issuer.seconds(-60));
    let expired = sign(&issuer, None, &expired);
    let (_, cost) = server.costs(status(&server, &tenant, &expired)).await;
    assert_eq!((cost, issuer.discoveries()), (Cost::NOTHING, 0));
    // A forged token that claims what a rule trusts causes one fetch, and no other within a minute.
    let thief = SigningKey::new("ES256", Some("second"));
    let stolen = thief.sign(&json!({ "alg": "ES256", "kid": "second" }), &github(&issuer));
    for _ in 0..5 {
        assert_eq!(status(&server, &tenant, &stolen).await, 401);
    }
    assert!((1..=2).contains(&issuer.discoveries()), "{}", issuer.discoveries());
    assert_eq!(status(&server, &tenant, &token).await, 200);
    let before = issuer.discoveries();
    tenant.delete(&format!("/trust-rules/{made}")).await.no_content();
    server.clock.advance(Duration::from_mins(2));
    for token in [&token, &stolen] {
        assert_eq!(status(&server, &tenant, token).await, 401);
    }
    assert_eq!(issuer.discoveries(), before, "no live rule names the issuer any more");
});

both!(keys_are_shared_fetched_once_and_renewed_beside_the_requests, async || {
    let (server, issuer, tenant) = scene().await;
    let other = server.tenant("other").await;
    trust(&tenant, issuer.url()).await;
    trust(&other, issuer.url()).await;
    let fresh = || sign(&issuer, Some("JWT"), &github(&issuer));
    for one in [&tenant, &other, &tenant, &other] {
        assert_eq!(status(&server, one, &fresh()).await, 200);
    }
    assert_eq!(issuer.discoveries(), 1);
    // A new key is found when a token names it.
    let old = issuer.key();
    issuer.serve_keys(vec![SigningKey::new("EdDSA", Some("second"))]);
    let new = issuer.key();
    let token =
        |key: &SigningKey| key.sign(&json!({ "alg": key.algorithm(), "kid": key.id }), &github(&issuer));
    assert_eq!(status(&server, &tenant, &token(&new)).await, 200);
    assert_eq!((status(&server, &tenant, &token(&old)).await, issuer.discoveries()), (401, 2));
    // Old keys are fetched again beside a request.
    server.clock.advance(Duration::from_mins(11));
    assert_eq!(status(&server, &other, &token(&new)).await, 200);
    while issuer.discoveries() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The next key waits for that fetch. It is found by it, or by a fetch of its own.
    issuer.serve_keys(vec![SigningKey::new("ES256", Some("third"))]);
    let new = issuer.key();
    assert_eq!(status(&server, &tenant, &token(&new)).await, 200);
    // While the issuer is not reachable, the keys serve for an hour.
    issuer.set_down(true);
    server.clock.advance(Duration::from_mins(58));
    assert_eq!(status(&server, &tenant, &token(&new)).await, 200);
    server.clock.advance(Duration::from_mins(3));
    let refused = server.bearing(token(&new)).get(&tenant.workspace("")).await;
    assert!(!refused.header("retry-after").is_empty());
    refused.refused_as(503, "identity_unavailable");
    let tried = issuer.discoveries();
    assert_eq!(status(&server, &other, &token(&new)).await, 503);
    assert_eq!(issuer.discoveries(), tried, "a failed fetch is not repeated at once");
    issuer.set_down(false);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(status(&server, &other, &token(&new)).await, 200);
});

both!(documents_of_an_issuer_are_bounded_and_lead_to_no_inner_address, async || {
    let (server, issuer, tenant) = scene().await;
    trust(&tenant, issuer.url()).await;
    let at = |path: &str| json!({ "jwks_uri": format!("{}{path}", issuer.url()) });
    for (what, amended) in [
        ("larger than they may be", at("/large")),
        ("not there", at("/nowhere")),
        ("of another scheme", json!({ "jwks_uri": "file:///etc/keys" })),
        ("at an inner address", json!({ "jwks_uri": "http://10.0.0.1/keys" })),
        ("at the address of a cloud's metadata", json!({ "jwks_uri": "http://169.254.169.254/latest" })),
        ("nowhere", json!({ "jwks_uri": null })),
        ("of another issuer", json!({ "issuer": "https://id.example.com" })),
    ] {
        issuer.amend_discovery(amended);
        let refused = job(&server, &issuer).get(&tenant.workspace("")).await;
        assert_eq!(refused.refused(503), "identity_unavailable", "{what}");
        server.clock.advance(Duration::from_secs(30));
    }
    // A redirect within the issuer's origin is followed.
    issuer.amend_discovery(at("/moved"));
    job(&server, &issuer).get(&tenant.workspace("")).await.ok();
    // A redirect to another origin is not.
    let elsewhere = format!(
        "HTTP/1.1 302 X\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        issuer.url()
    );
    let redirecting = Peer::start(move |_, _| Some(elsewhere.clone().into_bytes())).await;
    let before = issuer.discoveries();
    trust(&tenant, &redirecting.url()).await;
    assert_eq!(status(&server, &tenant, &forged(&redirecting.url(), &issuer)).await, 503);
    assert_eq!((redirecting.asked(), issuer.discoveries()), (1, before));
    server.app.flush().await;
    let refusals = tenant.get("/audit?action=access.unauthorized").await.ok();
    assert!(refusals.list("events").iter().any(|event| event["metadata"]["reason"] == "issuer_unavailable"));
});

both!(an_issuer_inside_the_operators_network_is_never_called, async || {
    let mut issuer = TestIssuer::start().await;
    let server = Server::with(|config| config.outbound.plain_http = true).await;
    issuer.follow(&server.clock);
    let tenant = server.tenant("acme").await;
    trust(&tenant, issuer.url()).await;
    assert_eq!(job(&server, &issuer).get(&tenant.workspace("")).await.refused(503), "identity_unavailable");
    assert_eq!(issuer.discoveries(), 0);
});

// Neighbours

both!(a_hostile_issuer_costs_other_tenants_nothing, threads = 4, async || {
    let mut issuer = TestIssuer::start().await;
    let server = Server::with(open_outbound).await;
    issuer.follow(&server.clock);
    let (hostile, quiet) = (server.tenant("hostile").await, server.tenant("quiet").await);
    trust(&quiet, issuer.url()).await;
    // More silent issuers than one workspace may call at once, and one that never ends its document.
    let mut peers = Vec::new();
    for number in 0..48 {
        let endless = format!("HTTP/1.1 200 X\r\ncontent-length: 99999999\r\n\r\n{}", " ".repeat(100_000));
        let peer = Peer::start(move |_, _| (number == 0).then(|| endless.clone().into_bytes())).await;
        trust(&hostile, &peer.url()).await;
        peers.push(peer);
    }
    let mut attacks = tokio::task::JoinSet::new();
    for peer in &peers {
        for _ in 0..4 {
            let (actor, path) = (server.bearing(forged(&peer.url(), &issuer)), hostile.workspace(""));
            attacks.spawn(async move { actor.get(&path).await.status.as_u16() });
        }
    }
    while peers.iter().map(Peer::asked).sum::<usize>() < 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The quiet tenant's first fetch, and all that follows, happens while the hostile ones wait.
    for _ in 0..5 {
        job(&server, &issuer).get(&quiet.workspace("")).await.ok();
        quiet.get("/audit").await.ok();
    }
    assert!(!attacks.is_empty());
    assert_eq!(issuer.discoveries(), 1);
    while let Some(refused) = attacks.join_next().await {
        assert!([503, 429].contains(&refused.unwrap()));
    }
    job(&server, &issuer).get(&quiet.workspace("")).await.ok();
    assert_eq!(issuer.discoveries(), 1, "the keys of others are kept");
});

both!(one_workspace_does_not_drive_out_the_keys_of_another, async || {
    let (server, issuer, quiet) = scene().await;
    let busy = server.tenant("busy").await;
    trust(&quiet, issuer.url()).await;
    job(&server, &issuer).get(&quiet.workspace("")).await.ok();
    for _ in 0..12 {
        let peer = Peer::start(|_, _| Some(answer(404, ""))).await;
        trust(&busy, &peer.url()).await;
        assert_eq!(status(&server, &busy, &forged(&peer.url(), &issuer)).await, 503);
    }
    job(&server, &issuer).get(&quiet.workspace("")).await.ok();
    assert_eq!(issuer.discoveries(), 1);
    let unused = fresh_slug();
    assert_eq!(status(&server, &quiet, &forged(&format!("https://{unused}.example"), &issuer)).await, 401);
});
