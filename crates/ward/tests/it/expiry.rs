//! Warnings before a key expires: the header, `GET /v1/me`, and events that are recorded once over all replicas.

use std::time::Duration;

use serde_json::{Value, json};
use ward_db::Timestamp;
use ward_test::{Fields as _, Server, Tenant, both};

const DAY: Duration = Duration::from_hours(24);
const MICROSECOND: Duration = Duration::from_micros(1);

fn time(value: &Value) -> Timestamp {
    value.as_str().expect("a time").parse().expect("a time")
}

/// Stops the clock at this time, which must be ahead.
fn go_to(server: &Server, at: Timestamp) {
    server.clock.stop_at(server.clock.now());
    let ahead = at.micros() - server.clock.now().micros();
    server.clock.advance(Duration::from_micros(u64::try_from(ahead).expect("a time ahead")));
}

/// The `days_before` of the warnings about a key, the oldest first.
async fn warnings(tenant: &Tenant, key: &Value) -> Vec<u64> {
    let page = tenant.get("/audit?action=api_key.expires_soon&limit=100").await.ok();
    let about = page.list("events").iter().filter(|event| event["metadata"]["key_id"] == key["key_id"]);
    about.rev().map(|event| event["metadata"]["days_before"].as_u64().expect("days")).collect()
}

async fn sweep_both(server: &Server, replica: &Server) {
    tokio::join!(server.app.sweep(), replica.app.sweep());
    server.app.sweep().await;
}

both!(each_warning_is_recorded_once_over_all_replicas, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    let (_, minted) = tenant.key(json!({ "duration_days": 40, "name": "ci" })).await;
    let (_, revoked) = tenant.key(json!({ "duration_days": 40 })).await;
    tenant.delete(&format!("/api-keys/{}", revoked.text("key_id"))).await.no_content();
    let expires_at = time(&minted["expires_at"]);
    let mut recorded = Vec::new();
    for before in [14, 7, 1] {
        let due = expires_at.saturating_sub(DAY * before);
        go_to(&server, due.saturating_sub(MICROSECOND));
        sweep_both(&server, &replica).await;
        assert_eq!(warnings(&tenant, &minted).await, recorded, "before {before}");
        server.clock.advance(MICROSECOND);
        sweep_both(&server, &replica).await;
        recorded.push(u64::from(before));
        assert_eq!(warnings(&tenant, &minted).await, recorded, "at {before}");
    }
    server.clock.advance(DAY * 2);
    sweep_both(&server, &replica).await;
    assert_eq!(warnings(&tenant, &minted).await, recorded, "an expired key gets no warning");
    assert!(warnings(&tenant, &revoked).await.is_empty());
    let page = tenant.get("/audit?action=api_key.expires_soon").await.ok();
    let event = page.list("events").last().expect("an event");
    assert_eq!(
        (&event["resource_name"], &event["metadata"]["expires_at"]),
        (&json!("ci"), &minted["expires_at"])
    );
    assert_eq!(event["actor_entity_id"], Value::Null);
});

both!(a_rotation_restarts_the_warnings, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (_, minted) = tenant.key(json!({ "duration_days": 20 })).await;
    go_to(&server, time(&minted["expires_at"]).saturating_sub(DAY));
    server.app.sweep().await;
    assert_eq!(warnings(&tenant, &minted).await, [1], "of several that are due at once, only the last");
    let rotation = format!("/api-keys/{}/rotate", minted.text("key_id"));
    let rotated = tenant.post(&rotation, json!({ "duration_days": 10 })).await.ok();
    server.app.sweep().await;
    assert_eq!(warnings(&tenant, &minted).await, [1], "a life of 10 days begins after the first warning");
    for (before, recorded) in [(7, vec![1, 7]), (1, vec![1, 7, 1])] {
        go_to(&server, time(&rotated["expires_at"]).saturating_sub(DAY * before));
        server.app.sweep().await;
        assert_eq!(warnings(&tenant, &minted).await, recorded);
    }
});

// An older server beside this one rotates a key without the counter. This server corrects it, and warns again.
both!(a_rotation_by_an_older_server_restarts_the_warnings_too, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (_, minted) = tenant.key(json!({ "duration_days": 20 })).await;
    go_to(&server, time(&minted["expires_at"]).saturating_sub(DAY));
    server.app.sweep().await;
    let rotation = format!("/api-keys/{}/rotate", minted.text("key_id"));
    let rotated = tenant.post(&rotation, json!({ "duration_days": 20 })).await.ok();
    server.sql(format!("UPDATE api_keys SET warnings = 3 WHERE key_id = '{}'", minted.text("key_id"))).await;
    server.app.sweep().await;
    assert_eq!(warnings(&tenant, &minted).await, [1]);
    go_to(&server, time(&rotated["expires_at"]).saturating_sub(DAY * 14));
    server.app.sweep().await;
    assert_eq!(warnings(&tenant, &minted).await, [1, 14]);
});

both!(a_key_that_nobody_can_use_gets_no_warning, async || {
    let (server, tenant) = Server::with_tenant().await;
    let other = server.tenant("archived").await;
    let (_, minted) = other.key(json!({ "duration_days": 20 })).await;
    other.archive().await;
    go_to(&server, time(&minted["expires_at"]).saturating_sub(DAY));
    server.app.sweep().await;
    let events = "SELECT count(*) FROM audit_events WHERE action = 'api_key.expires_soon'";
    assert_eq!(server.count(events).await, 0);
    // A member who left has no key any more.
    let (_, minted) = tenant.key(json!({ "duration_days": 20 })).await;
    let members = tenant.owner.get(&tenant.workspace("/members?limit=20")).await.ok();
    let service = members.list("items").iter().find(|member| member["kind"] == "service").expect("a service");
    let member = tenant.workspace(&format!("/members/{}", service.text("entity_id")));
    tenant.owner.delete(&member).await.no_content();
    go_to(&server, time(&minted["expires_at"]).saturating_sub(DAY));
    server.app.sweep().await;
    assert_eq!(server.count(events).await, 0);
});

both!(answers_about_the_caller_say_that_its_key_expires_soon, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (service, minted) = tenant.key(json!({ "duration_days": 20, "role": "viewer" })).await;
    let told = async || service.get("/v1/me").await.ok()["credential"]["expires_soon"].clone();
    assert_eq!(told().await, json!(false));
    go_to(&server, time(&minted["expires_at"]).saturating_sub(DAY * 14));
    assert_eq!(told().await, json!(false), "exactly 14 days are left");
    server.clock.advance(MICROSECOND);
    assert_eq!(told().await, json!(true));
    let expires_at = minted.text("expires_at");
    let unknown = format!("/v1/{}/key-policy", tenant.id);
    for (path, status) in [("/v1/me", 200), ("/v1/me?limit=0", 422), (unknown.as_str(), 403)] {
        let answer = service.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-api-key-expires")),
            (status, expires_at),
            "{path}"
        );
    }
});

both!(a_refusal_by_the_rate_carries_the_warning_too, async || {
    let quotas = |config: &mut ward::config::Config| {
        config.quotas.set(ward::quotas::Quota::RequestsPerSecond, 1);
        config.rates.enforced = true;
    };
    let server = Server::with(quotas).await;
    let tenant = server.tenant("eager").await;
    server.clock.advance(DAY * 80);
    loop {
        let answer = tenant.owner.get("/v1/me").await;
        assert_eq!(
            answer.header("x-api-key-expires"),
            tenant.claimed.text("expires_at"),
            "{}",
            answer.status
        );
        if answer.status == 429 {
            break;
        }
    }
});
