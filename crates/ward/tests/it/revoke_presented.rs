//! A key is revoked by a client that presents its text, without any other credential.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use ward::config::Rate;
use ward_test::{Actor, Fields as _, Sending, Server, Tenant, both, unknown_key, wrong_secret_of};

const PATH: &str = "/v1/keys/revoke";

fn text(actor: &Actor) -> String {
    actor.bearer.clone().expect("a key")
}

/// Sends the text of a key without any credential.
async fn revoke(server: &Server, key: &str) {
    server.anonymous().post(PATH, json!({ "api_key": key })).await.no_content();
}

async fn revocations(tenant: &Tenant) -> usize {
    tenant.actions().await.iter().filter(|action| *action == "api_key.revoke").count()
}

both!(a_finder_of_a_key_ends_it_on_every_replica, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    let (found, minted) = tenant.key(json!({ "duration_days": 9, "role": "admin" })).await;
    let (bearer, _) = tenant.key(json!({ "duration_days": 9, "role": "viewer" })).await;
    found.get("/v1/auth/me").await.ok();
    revoke(&replica, &text(&found)).await;
    found.get("/v1/auth/me").await.refused(401);
    // Without a body, the bearer is the key.
    bearer.send(Method::POST, PATH, Sending::default()).await.no_content();
    bearer.get("/v1/auth/me").await.refused(401);
    assert_eq!(revocations(&tenant).await, 2);
    let event = tenant.audit().await.into_iter().find(|event| event["resource_name"] == minted["name"]);
    assert!(event.is_some());
    // The services of both keys left with them.
    let usage = tenant.get("/usage").await.ok();
    let used = |name: &str| {
        usage.list("quotas").iter().find(|quota| quota["name"] == name).expect("a quota")["used"].clone()
    };
    assert_eq!((used("keys"), used("members")), (json!(1), json!(1)));
});

both!(every_text_gets_the_same_answer_and_only_valid_secrets_write, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (expired, _) = tenant.key(json!({ "duration_days": 1 })).await;
    let (twice, _) = tenant.key(json!({ "duration_days": 9 })).await;
    revoke(&server, &text(&twice)).await;
    server.clock.advance(Duration::from_hours(24));
    let texts = [
        String::new(),
        "garbage".to_owned(),
        unknown_key(),
        wrong_secret_of(tenant.owner_key_id()),
        text(&expired),
        text(&twice),
    ];
    let before = server.dump().await;
    for key in texts {
        let ((), cost) = server.costs(revoke(&server, &key)).await;
        assert_eq!(cost.writes, 0, "{key}");
    }
    assert!(server.dump().await == before);
    tenant.owner.get("/v1/auth/me").await.ok();
});

both!(an_old_secret_ends_alone_and_its_key_stays, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (old, minted) = tenant.key(json!({ "duration_days": 9, "role": "admin" })).await;
    let path = tenant.path(&format!("/api-keys/{}/rotate", minted.text("key_id")));
    let rotated = tenant.owner.post(&path, json!({ "duration_days": 9, "grace_seconds": 3600 })).await.ok();
    let new = server.bearing(rotated.text("api_key"));
    old.get("/v1/auth/me").await.ok();
    revoke(&server, &text(&old)).await;
    old.get("/v1/auth/me").await.refused(401);
    new.get("/v1/auth/me").await.ok();
    revoke(&server, &text(&new)).await;
    new.get("/v1/auth/me").await.refused(401);
});

both!(even_the_last_way_in_ends_and_the_operator_can_issue_another, async || {
    let (server, tenant) = Server::with_tenant().await;
    revoke(&server, &text(&tenant.owner)).await;
    tenant.get("/usage").await.refused(401);
});

both!(unknown_keys_count_against_their_address_and_valid_ones_still_end, async || {
    let server = Server::with(|config| {
        config.rates.enforced = true;
        config.rates.failed_credentials = Rate { burst: 3, per_minute: 1 };
    });
    let server = server.await;
    let tenant = server.tenant("clinic").await;
    let unknown = async || server.anonymous().post(PATH, json!({ "api_key": unknown_key() })).await;
    for _ in 0..3 {
        unknown().await.no_content();
    }
    unknown().await.refused(429);
    revoke(&server, &text(&tenant.owner)).await;
    // A revoked key is one more refused credential of this address.
    tenant.get("/usage").await.refused(429);
});
