//! A rotation with an overlap: the old secret stays valid for a while beside the new one.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward_db::Timestamp;
use ward_test::{Actor, Fields as _, Server, Tenant, both};

const HOUR: Duration = Duration::from_hours(1);
const MICROSECOND: Duration = Duration::from_micros(1);
const RETRY: &str = "a-retry-of-a-rotation";

fn time(value: &Value) -> Timestamp {
    value.as_str().expect("a time").parse().expect("a time")
}

fn bearer(actor: &Actor) -> String {
    actor.bearer.clone().expect("a key")
}

fn rotation(tenant: &Tenant, key: &Value, rest: &str) -> String {
    tenant.path(&format!("/api-keys/{}/rotate{rest}", key.text("key_id")))
}

async fn listed(tenant: &Tenant, key: &Value) -> Value {
    let page = tenant.get("/api-keys").await.ok();
    let found = page.list("items").iter().find(|item| item["key_id"] == key["key_id"]);
    found.expect("the key is listed").clone()
}

/// A service's key that was rotated with an overlap of an hour: the old bearer, the new one, and the minted key.
async fn rotated(server: &Server, tenant: &Tenant) -> (Actor, Actor, Value) {
    let (old, minted) = tenant.key(json!({ "duration_days": 5, "name": "ci", "role": "admin" })).await;
    let body = json!({ "duration_days": 50, "grace_seconds": 3600 });
    let rotated = tenant.owner.post(&rotation(tenant, &minted, ""), body).await.ok();
    (old, server.bearing(rotated.text("api_key")), minted)
}

both!(an_old_secret_is_valid_to_the_last_microsecond_of_its_overlap, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    let (old, new, minted) = rotated(&server, &tenant).await;
    let ends_at = listed(&tenant, &minted).await["previous"]["ends_at"].clone();
    server.clock.stop_at(time(&ends_at).saturating_sub(MICROSECOND));
    let elsewhere = replica.bearing(bearer(&old));
    for actor in [&old, &elsewhere, &new] {
        actor.get("/v1/auth/me").await.ok();
    }
    let seen = old.get("/v1/auth/me").await;
    assert_eq!(seen.header("x-api-key-expires"), ends_at.as_str().expect("a time"));
    server.clock.advance(MICROSECOND);
    for actor in [&old, &elsewhere] {
        actor.get("/v1/auth/me").await.refused(401);
    }
    new.get("/v1/auth/me").await.ok();
    assert_eq!(listed(&tenant, &minted).await["previous"], Value::Null);
});

both!(finishing_a_rotation_ends_the_old_secret_on_every_replica, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    let (old, new, minted) = rotated(&server, &tenant).await;
    let finish = rotation(&tenant, &minted, "/finish");
    old.post(&finish, json!({})).await.refused_as(403, "previous_secret");
    let finished = new.post_once(&finish, RETRY, json!({})).await.ok();
    assert_eq!((&finished["key_id"], &finished["previous"]), (&minted["key_id"], &Value::Null));
    for actor in [&old, &replica.bearing(bearer(&old))] {
        actor.get("/v1/auth/me").await.refused(401);
    }
    assert_eq!(new.post_once(&finish, RETRY, json!({})).await.ok(), finished);
    // A key without a previous secret stays as it is.
    assert_eq!(new.post(&finish, json!({})).await.ok(), finished);
    let actions = tenant.actions().await;
    assert_eq!(actions.iter().filter(|action| *action == "api_key.finish_rotation").count(), 1);
});

both!(a_key_has_one_previous_secret_at_a_time, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (first, second, minted) = rotated(&server, &tenant).await;
    let again = json!({ "duration_days": 50, "grace_seconds": 60 });
    first.post(&rotation(&tenant, &minted, ""), again.clone()).await.refused_as(403, "previous_secret");
    let third = second.post(&rotation(&tenant, &minted, ""), again).await.ok();
    let third = server.bearing(third.text("api_key"));
    first.get("/v1/auth/me").await.refused(401);
    second.get("/v1/auth/me").await.ok();
    let at_once = json!({ "duration_days": 50 });
    third.post(&rotation(&tenant, &minted, ""), at_once).await.ok();
    for actor in [&second, &third] {
        actor.get("/v1/auth/me").await.refused(401);
    }
});

both!(an_overlap_never_passes_an_expiry, async || {
    let (server, tenant) = Server::with_tenant().await;
    let week = 7 * 24 * 3600;
    for (before, after) in [(3, 50), (50, 3)] {
        let (old, minted) = tenant.key(json!({ "duration_days": before, "role": "viewer" })).await;
        let body = json!({ "duration_days": after, "grace_seconds": week });
        tenant.owner.post(&rotation(&tenant, &minted, ""), body).await.ok();
        let key = listed(&tenant, &minted).await;
        let end = time(&minted["expires_at"]).min(time(&key["expires_at"]));
        assert_eq!(time(&key["previous"]["ends_at"]), end, "{before} days, then {after}");
        old.get("/v1/auth/me").await.ok();
    }
    let (_, minted) = tenant.key(json!({ "duration_days": 1 })).await;
    server.clock.advance(HOUR * 25);
    let body = json!({ "duration_days": 1, "grace_seconds": week });
    tenant.owner.post(&rotation(&tenant, &minted, ""), body).await.ok();
    assert_eq!(listed(&tenant, &minted).await["previous"], Value::Null, "an expired secret stays expired");
});

both!(the_audit_has_one_line_a_minute_about_uses_of_an_old_secret, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    let (old, new, minted) = rotated(&server, &tenant).await;
    let elsewhere = replica.bearing(bearer(&old));
    let uses = async || {
        let page = tenant.get("/audit?action=api_key.previous_secret_used").await.ok();
        page.list("events").len()
    };
    server.clock.stop_at(server.clock.now());
    new.get("/v1/auth/me").await.ok();
    server.app.flush().await;
    assert_eq!(uses().await, 0, "the new secret is no old one");
    for minute in 1..=3 {
        for actor in [&old, &elsewhere, &old] {
            actor.get("/v1/auth/me").await.ok();
        }
        server.app.flush().await;
        replica.app.flush().await;
        assert_eq!(uses().await, minute);
        assert_ne!(listed(&tenant, &minted).await["previous"]["last_used_at"], Value::Null);
        server.clock.advance(Duration::from_mins(1));
    }
    // Each minute has its line, although one flush writes several.
    for _ in 4..=6 {
        for _ in 0..2 {
            old.get("/v1/auth/me").await.ok();
        }
        server.clock.advance(Duration::from_mins(1));
    }
    server.app.flush().await;
    assert_eq!(uses().await, 6);
});

both!(a_retry_of_a_rotation_with_either_secret_gets_the_same_answer, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (old, minted) = tenant.key(json!({ "duration_days": 5, "role": "admin" })).await;
    let path = rotation(&tenant, &minted, "");
    let body = json!({ "duration_days": 50, "grace_seconds": 60 });
    let first = old.post_once(&path, RETRY, body.clone()).await.ok();
    let new = server.bearing(first.text("api_key"));
    for actor in [&old, &new] {
        assert_eq!(actor.post_once(&path, RETRY, body.clone()).await.ok(), first);
    }
    server.clock.advance(Duration::from_secs(61));
    old.get("/v1/auth/me").await.refused(401);
    assert_eq!(old.post_once(&path, RETRY, body).await.ok(), first, "also after the overlap");
    let status = old.post(&path, json!({ "duration_days": 50 })).await.status;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
});

// An invitation lasts no longer than the secret that made it.
both!(an_old_secret_makes_nothing_that_outlives_it, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (old, new, minted) = rotated(&server, &tenant).await;
    let invite = json!({ "role": "viewer", "duration_days": 7 });
    let made = old.post(&tenant.workspace("/invitations"), invite.clone()).await.created();
    let ends_at = listed(&tenant, &minted).await["previous"]["ends_at"].clone();
    assert_eq!(made["expires_at"], ends_at);
    let made = new.post(&tenant.workspace("/invitations"), invite).await.created();
    assert!(time(&made["expires_at"]) > time(&ends_at));
});

both!(no_minute_of_an_old_secrets_use_is_lost_or_told_twice, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    let (old, new, minted) = rotated(&server, &tenant).await;
    let elsewhere = replica.bearing(bearer(&old));
    let uses = async || {
        let page = tenant.get("/audit?action=api_key.previous_secret_used&limit=100").await.ok();
        page.list("events").len()
    };
    server.clock.stop_at(server.clock.now());
    // The replica writes its minute after the server has written a later one.
    elsewhere.get("/v1/auth/me").await.ok();
    server.clock.advance(Duration::from_mins(1));
    old.get("/v1/auth/me").await.ok();
    server.app.flush().await;
    let last = listed(&tenant, &minted).await["previous"]["last_used_at"].clone();
    replica.app.flush().await;
    assert_eq!(uses().await, 2);
    assert_eq!(listed(&tenant, &minted).await["previous"]["last_used_at"], last, "it never goes back");
    // Both have used it in the next minute, and the later flush finds the other's event among others.
    server.clock.advance(Duration::from_mins(1));
    for actor in [&old, &elsewhere] {
        actor.get("/v1/auth/me").await.ok();
    }
    server.clock.advance(Duration::from_mins(1));
    old.get("/v1/auth/me").await.ok();
    server.app.flush().await;
    replica.app.flush().await;
    assert_eq!(uses().await, 4);
    // A use just before the end of the overlap, and one just before the next rotation, are not lost either.
    server.clock.advance(Duration::from_mins(1));
    elsewhere.get("/v1/auth/me").await.ok();
    new.post(&rotation(&tenant, &minted, "/finish"), json!({})).await.ok();
    replica.app.flush().await;
    assert_eq!(uses().await, 5);
    let overlap = json!({ "duration_days": 50, "grace_seconds": 600 });
    let rotate = rotation(&tenant, &minted, "");
    let third = new.post(&rotate, overlap.clone()).await.ok();
    server.clock.advance(Duration::from_mins(1));
    replica.bearing(bearer(&new)).get("/v1/auth/me").await.ok();
    server.bearing(third.text("api_key")).post(&rotate, overlap).await.ok();
    replica.app.flush().await;
    assert_eq!(uses().await, 6);
    let previous = listed(&tenant, &minted).await["previous"].clone();
    assert_eq!(previous["last_used_at"], Value::Null, "the secret of this rotation was not used yet");
});
