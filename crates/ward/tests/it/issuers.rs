//! Slow, faulty and unavailable issuers, and clocks that go back: Ward's requests to issuers and its use of the answers.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward::config::issuers::IssuerConfig;
use ward_test::{Server, SigningKey, TestIssuer, both, new_workspace};

use super::members::{Shared, accept};
use crate::support::together;

/// Waits until the issuer has had this number of requests.
async fn asked(issuer: &TestIssuer, times: u64) {
    while issuer.discoveries() < times {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn status(server: &Server, token: String) -> u16 {
    server.bearing(token).get("/v1/me").await.status.as_u16()
}

// Fetches

both!(a_fetch_of_keys_finishes_after_its_request_has_timed_out, async || {
    let mut issuer = TestIssuer::start().await;
    let server = Server::with(|config| {
        config.issuers = vec![issuer.config()];
        config.limits.request_time = Duration::from_millis(300);
    })
    .await;
    issuer.follow(&server.clock);
    while status(&server, issuer.token("ada")).await != 200 {}
    // A forged token makes Ward fetch keys, and its request times out.
    let mut header = issuer.key().header();
    header["kid"] = json!("forged");
    let forged = issuer.key().sign(&header, &issuer.claims("eve"));
    issuer.hold();
    while issuer.discoveries() < 2 {
        assert_eq!(status(&server, forged.clone()).await, 503);
    }
    // The fetch serves a later token of a genuinely new key, though the minute is not over.
    issuer.serve_keys(vec![SigningKey::new("ES256", Some("second"))]);
    issuer.let_go();
    for _ in 0..50 {
        if status(&server, issuer.token("ada")).await == 200 {
            return assert_eq!(issuer.discoveries(), 2);
        }
    }
    panic!("one forged token a minute keeps new keys away");
});

both!(the_first_fetch_serves_later_requests_after_the_first_timed_out, async || {
    let mut issuer = TestIssuer::start().await;
    let server = Server::with(|config| {
        config.issuers = vec![issuer.config()];
        config.limits.request_time = Duration::from_millis(300);
    })
    .await;
    issuer.follow(&server.clock);
    issuer.hold();
    while issuer.discoveries() < 1 {
        assert_eq!(status(&server, issuer.token("ada")).await, 503);
    }
    issuer.let_go();
    while status(&server, issuer.token("ada")).await != 200 {}
    assert_eq!(issuer.discoveries(), 1);
});

both!(requests_that_waited_for_a_slow_failure_do_not_fetch_again, threads = 4, async || {
    let (server, issuer) = Server::with_issuer().await;
    issuer.set_down(true);
    issuer.hold();
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let ada = server.person(&issuer, "ada");
            tokio::spawn(async move { ada.get("/v1/me").await.refused(503) })
        })
        .collect();
    asked(&issuer, 1).await;
    // This is longer than the pause after a failed fetch.
    server.clock.advance(Duration::from_secs(8));
    issuer.let_go();
    for one in waiting {
        assert_eq!(one.await.unwrap(), "identity_unavailable");
    }
    assert_eq!(issuer.discoveries(), 1);
});

both!(a_clock_that_goes_back_prolongs_neither_trust_nor_pauses, async || {
    let (server, issuer) = Server::with_issuer().await;
    assert_eq!(status(&server, issuer.token("ada")).await, 200);
    server.clock.set_back(Duration::from_hours(24 * 30));
    assert_eq!(status(&server, issuer.token("ada")).await, 200, "a clock step must not be an outage");
    issuer.set_down(true);
    server.clock.advance(Duration::from_hours(25));
    assert_eq!(status(&server, issuer.token("ada")).await, 503, "keys expire at the stated time");
    // A failed fetch is repeated after five seconds, not when the clock reaches the old time again.
    server.clock.set_back(Duration::from_hours(1));
    issuer.set_down(false);
    assert_eq!(status(&server, issuer.token("ada")).await, 503);
    server.clock.advance(Duration::from_secs(5));
    assert_eq!(status(&server, issuer.token("ada")).await, 200);
});

both!(fetches_are_bounded_and_limited_to_checked_urls, async || {
    let (server, issuer) = Server::with_issuer().await;
    let at = |path: &str| json!({ "jwks_uri": format!("{}{path}", issuer.url()) });
    for (what, amended) in [
        ("behind a redirect", at("/moved")),
        ("larger than it may be", at("/large")),
        ("not there", at("/nowhere")),
        ("in clear text elsewhere", json!({ "jwks_uri": "http://id.example.com/keys" })),
        ("of another scheme", json!({ "jwks_uri": "file:///etc/keys" })),
        ("nowhere", json!({ "jwks_uri": null })),
        ("of another issuer", json!({ "issuer": "https://id.example.com" })),
    ] {
        issuer.amend_discovery(amended);
        let refused = server.person(&issuer, "ada").get("/v1/me").await;
        assert_eq!(refused.refused(503), "identity_unavailable", "{what}");
        server.clock.advance(Duration::from_secs(5));
    }
    issuer.amend_discovery(json!({}));
    assert_eq!(status(&server, issuer.token("ada")).await, 200);
});

both!(only_the_first_keys_of_a_large_key_set_count, async || {
    let (server, issuer) = Server::with_issuer().await;
    let set = |many: usize| (0..many).map(|_| SigningKey::new("ES256", None)).collect();
    issuer.serve_keys(set(32));
    assert_eq!(status(&server, issuer.token("ada")).await, 200, "the 32nd");
    issuer.serve_keys(set(33));
    assert_eq!(status(&server, issuer.token("ada")).await, 401, "the 33rd");
    assert_eq!(issuer.discoveries(), 2);
});

// Userinfo

both!(userinfo_without_an_address_is_403_and_unavailable_userinfo_is_503, async || {
    let (shared, ada) = Shared::new().await;
    let (server, issuer) = (&shared.server, &shared.issuer);
    let bound = json!({ "email": "bea@clinic.example" });
    let link = ada.post(&shared.path("/invitations"), bound).await.created();
    let bea = server.person(issuer, "bea");
    let accept = async || accept(&bea, &link).await;
    let own = json!({ "sub": "bea", "email": "bea@clinic.example", "email_verified": true }).to_string();
    for (what, status, body) in [
        ("signed", 200, "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"),
        ("a page", 200, "<html>"),
        ("no object", 200, "[]"),
        ("a redirect", 302, &own),
        ("a refusal", 401, ""),
        ("a refusal", 403, ""),
        ("unknown", 404, ""),
    ] {
        issuer.answer_userinfo(status, body);
        assert_eq!(accept().await.refused(403), "email_not_verified", "{what} {status}");
    }
    for status in [408, 429, 500, 503] {
        issuer.answer_userinfo(status, "");
        let refused = accept().await;
        assert!(!refused.header("retry-after").is_empty());
        assert_eq!(refused.refused(503), "identity_unavailable", "{status}");
    }
    issuer.answer_userinfo(200, &own);
    accept().await.created();
});

both!(an_issuer_without_userinfo_verifies_in_the_token_only, async || {
    for none in [Value::Null, json!("http://id.example.com/userinfo")] {
        let (server, issuer) = Server::with_issuer().await;
        issuer.amend_discovery(json!({ "userinfo_endpoint": none }));
        let verified = json!({ "email": "bea@clinic.example", "email_verified": true });
        issuer.set_userinfo(Some(
            json!({ "sub": "bea", "email": "bea@clinic.example", "email_verified": true }),
        ));
        let tenant = server.tenant("acme").await;
        let bound = json!({ "email": "bea@clinic.example" });
        let link = tenant.owner.post(&tenant.workspace("/invitations"), bound).await.created();
        let body = json!({ "invitation": link["invitation"] });
        server
            .person(&issuer, "bea")
            .post("/v1/invitations/accept", body.clone())
            .await
            .refused_as(403, "email_not_verified");
        let told = server.bearing(issuer.token_with("bea", &verified));
        told.post("/v1/invitations/accept", body).await.created();
    }
});

both!(an_address_is_the_same_in_either_case_and_otherwise_only_itself, async || {
    let (shared, ada) = Shared::new().await;
    let bound = json!({ "email": "Kim@Clinic.Example" });
    let link = ada.post(&shared.path("/invitations"), bound).await.created();
    let accept = async |address: &str| {
        let claims = json!({ "email": address, "email_verified": true });
        let actor = shared.server.bearing(shared.issuer.token_with("kim", &claims));
        actor.post("/v1/invitations/accept", json!({ "invitation": link["invitation"] })).await
    };
    // The first letter is the Kelvin sign, which folds to a small k.
    for other in ["\u{212a}im@clinic.example", " kim@clinic.example", "kim@clinic.example\u{a0}"] {
        assert_eq!(accept(other).await.refused(403), "email_not_verified", "{other:?}");
    }
    accept("kIM@clinic.example").await.created();
});

// Principals

both!(many_first_writes_at_once_make_one_principal, threads = 4, async || {
    let (server, issuer) = Server::with_issuer().await;
    let statuses = together((0..20).map(|index| {
        let (ada, body) = (server.person(&issuer, "ada"), new_workspace(&format!("clinic-no-{index}")));
        async move { ada.post("/v1/me/workspaces", body).await.status }
    }))
    .await;
    assert_eq!(statuses, [StatusCode::CREATED; 20]);
    assert_eq!(server.count("SELECT count(*) FROM principals").await, 1);
    assert_eq!(server.count("SELECT count(*) FROM identities").await, 1);
    let me = server.person(&issuer, "ada").get("/v1/me").await.ok();
    assert_eq!(me["memberships"]["total"], 20);
});

both!(machines_of_common_providers_are_recognized_without_configuration, async || {
    let (server, issuer) = Server::with_issuer().await;
    let kind = async |claims: Value| {
        let token = issuer.token_with("subject", &claims);
        server.bearing(token).get("/v1/me").await.ok()["kind"].clone()
    };
    for machine in [
        json!({ "client_id": "subject" }),
        json!({ "azp": "subject" }),
        json!({ "cid": "subject" }),
        json!({ "appid": "subject" }),
        json!({ "gty": "client-credentials" }),
        json!({ "idtyp": "app" }),
        json!({ "preferred_username": "service-account-reporting" }),
    ] {
        assert_eq!(kind(machine.clone()).await, "service", "{machine}");
    }
    for person in [
        json!({ "cid": "app", "appid": "app", "azp": "app" }),
        json!({ "preferred_username": "ada-service-account-" }),
        json!({ "idtyp": "user", "gty": "password" }),
    ] {
        assert_eq!(kind(person.clone()).await, "user", "{person}");
    }
    // A configured rule replaces the common ones.
    let config = IssuerConfig { machine: Some(("robot".to_owned(), json!(true))), ..issuer.config() };
    let server = Server::with(|settings| settings.issuers = vec![config]).await;
    let told = issuer.token_with("subject", &json!({ "cid": "subject" }));
    assert_eq!(server.bearing(told).get("/v1/me").await.ok()["kind"], "user");
});
