//! Handovers: a link that shows a new secret once, within an hour.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward_db::Timestamp;
use ward_test::browser::Browser;
use ward_test::{Answer, Fields as _, Server, Tenant, both};

const OPEN: &str = "/v1/keys/handover";
const MICROSECOND: Duration = Duration::from_micros(1);

fn path(key: &Value) -> String {
    format!("/api-keys/{}/handover", key.text("key_id"))
}

async fn hand_over(tenant: &Tenant, key: &Value) -> Value {
    tenant.post(&path(key), json!({})).await.created()
}

async fn open(server: &Server, token: &str) -> Answer {
    server.anonymous().post(OPEN, json!({ "token": token })).await
}

/// The number of secrets that wait to be opened.
async fn waiting(server: &Server) -> i64 {
    server.count("SELECT count(*) FROM handovers").await
}

async fn event(tenant: &Tenant, action: &str) -> Value {
    let page = tenant.get(&format!("/audit?action={action}")).await.ok();
    let [event] = page.list("events").as_slice() else { panic!("one event {action}: {page}") };
    event.clone()
}

both!(a_link_shows_a_new_secret_once, async || {
    let server =
        Server::with(|config| config.public_url = Some("https://ward.example/base/".to_owned())).await;
    let tenant = server.tenant("handing").await;
    let replica = server.replica().await;
    let (creator, minted) = tenant.key(json!({ "duration_days": 30, "name": "ci", "role": "viewer" })).await;
    let made = hand_over(&tenant, &minted).await;
    assert_eq!(made["key_id"], minted["key_id"]);
    let token = made.text("token");
    assert_eq!(made["url"], format!("https://ward.example/base/v1/keys/handover#{token}"));
    // The secret that the creator saw has ended, and the new one waits sealed.
    creator.get("/v1/auth/me").await.refused(401);
    assert_eq!(waiting(&server).await, 1);
    // A copied link often has white space around it.
    let opened = open(&replica, &format!(" {token}\n")).await;
    assert_eq!(opened.header("cache-control"), "no-store");
    let key = opened.ok();
    assert_eq!(
        key.fields(["key_id", "workspace_id", "name", "role", "expires_at"]),
        json!([minted["key_id"], tenant.id, "ci", "viewer", minted["expires_at"]])
    );
    assert_ne!(key["api_key"], minted["api_key"]);
    assert_eq!(waiting(&server).await, 0);
    for server in [&server, &replica] {
        server.bearing(key.text("api_key")).get("/v1/auth/me").await.ok();
        open(server, token).await.refused_as(404, "handover_not_found");
    }
    let created = event(&tenant, "api_key.handover").await;
    assert_eq!(created["metadata"]["link_expires_at"], made["expires_at"]);
    let opened = event(&tenant, "api_key.handover_opened").await;
    assert_eq!(
        (&opened["metadata"]["key_id"], &opened["actor_entity_id"]),
        (&minted["key_id"], &Value::Null)
    );
    assert_eq!(opened["ip_address"], "127.0.0.1");
});

both!(no_part_of_a_link_or_its_secret_is_stored_in_the_clear, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (_, minted) = tenant.key(json!({ "duration_days": 30 })).await;
    let made = hand_over(&tenant, &minted).await;
    let token = made.text("token").to_owned();
    assert_eq!(made["url"], Value::Null, "without public_url");
    let stored = server.at_rest().await;
    let key = open(&server, &token).await.ok();
    let text = key.text("api_key");
    for secret in [token.as_str(), &text[27..70]] {
        assert!(!stored.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret}");
    }
});

both!(a_link_waits_an_hour_to_the_microsecond, async || {
    let (server, tenant) = Server::with_tenant().await;
    server.clock.stop_at(server.clock.now());
    let (_, early) = tenant.key(json!({ "duration_days": 30 })).await;
    let (_, late) = tenant.key(json!({ "duration_days": 30 })).await;
    let (early, late) = (hand_over(&tenant, &early).await, hand_over(&tenant, &late).await);
    let end: Timestamp = late.text("expires_at").parse().expect("a time");
    assert_eq!(end, server.clock.now().saturating_add(Duration::from_hours(1)));
    server.clock.advance(Duration::from_hours(1).saturating_sub(MICROSECOND));
    open(&server, early.text("token")).await.ok();
    server.app.sweep().await;
    assert_eq!(waiting(&server).await, 1);
    server.clock.advance(MICROSECOND);
    open(&server, late.text("token")).await.refused_as(404, "handover_not_found");
    server.app.sweep().await;
    assert_eq!(waiting(&server).await, 0, "the secret is deleted after the hour");
});

both!(a_key_in_use_is_not_handed_over, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (service, minted) = tenant.key(json!({ "duration_days": 30, "role": "admin" })).await;
    service.get("/v1/auth/me").await.ok();
    // A use counts before it is written, and for the key itself.
    tenant.post(&path(&minted), json!({})).await.refused_as(409, "key_in_use");
    service.post(&tenant.path(&path(&minted)), json!({})).await.refused_as(409, "key_in_use");
    server.app.flush().await;
    tenant.post(&path(&minted), json!({})).await.refused_as(409, "key_in_use");
    service.get("/v1/auth/me").await.ok();
    let (_, expired) = tenant.key(json!({ "duration_days": 1 })).await;
    server.clock.advance(Duration::from_hours(24));
    tenant.post(&path(&expired), json!({})).await.refused_as(409, "key_expired");
    tenant.post("/api-keys/nokey/handover", json!({})).await.refused_as(404, "api_key_not_found");
});

both!(only_a_caller_who_may_rotate_a_key_hands_it_over, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let (_, owners) = tenant.key(json!({ "duration_days": 30, "role": "owner" })).await;
    let admin = tenant.service("admin").await;
    admin.post(&tenant.path(&path(&owners)), json!({})).await.refused_as(403, "beyond_caller");
    let member = tenant.service("member").await;
    member.post(&tenant.path(&path(&owners)), json!({})).await.refused(403);
    let (_, personal) =
        tenant.key(json!({ "duration_days": 30, "role": "viewer", "speaks_for": "self" })).await;
    admin.post(&tenant.path(&path(&personal)), json!({})).await.refused_as(403, "not_your_key");
    hand_over(&tenant, &personal).await;
});

both!(a_later_link_a_rotation_and_a_revocation_end_a_link, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (_, minted) = tenant.key(json!({ "duration_days": 30 })).await;
    let first = hand_over(&tenant, &minted).await;
    let second = hand_over(&tenant, &minted).await;
    open(&server, first.text("token")).await.refused(404);
    let rotation = format!("/api-keys/{}/rotate", minted.text("key_id"));
    tenant.post(&rotation, json!({ "duration_days": 30 })).await.ok();
    open(&server, second.text("token")).await.refused_as(404, "handover_not_found");
    let third = hand_over(&tenant, &minted).await;
    tenant.delete(&format!("/api-keys/{}", minted.text("key_id"))).await.no_content();
    open(&server, third.text("token")).await.refused_as(404, "handover_not_found");
    assert_eq!(waiting(&server).await, 0, "what opens nothing does not wait");
});

both!(of_two_openers_at_once_one_sees_the_secret, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    for _ in 0..5 {
        let (_, minted) = tenant.key(json!({ "duration_days": 30 })).await;
        let made = hand_over(&tenant, &minted).await;
        let token = made.text("token");
        let (one, other) = tokio::join!(open(&server, token), open(&replica, token));
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404]);
    }
});

both!(a_retry_gets_the_same_link, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (_, minted) = tenant.key(json!({ "duration_days": 30 })).await;
    let retry = "a-retry-of-a-handover";
    let first = tenant.post_once(&path(&minted), retry, json!({})).await.created();
    assert_eq!(tenant.post_once(&path(&minted), retry, json!({})).await.created(), first);
    let key = open(&server, first.text("token")).await.ok();
    server.bearing(key.text("api_key")).get("/v1/auth/me").await.ok();
    // The replay shows a token that opens nothing any more, and the key keeps its secret.
    assert_eq!(tenant.post_once(&path(&minted), retry, json!({})).await.created(), first);
    open(&server, first.text("token")).await.refused(404);
    server.bearing(key.text("api_key")).get("/v1/auth/me").await.ok();
});

both!(wrong_tokens_are_charged_like_refused_credentials_and_write_nothing, async || {
    let chosen = |config: &mut ward::config::Config| {
        config.rates.enforced = true;
        config.rates.failed_credentials = ward::config::Rate { burst: 3, per_minute: 1 };
    };
    let server = Server::with(chosen).await;
    let tenant = server.tenant("guessed").await;
    let (_, minted) = tenant.key(json!({ "duration_days": 30 })).await;
    let made = hand_over(&tenant, &minted).await;
    let (refused, cost) = server.costs(open(&server, "ward_handover_unknown")).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    assert_eq!((cost.writes, cost.reads), (0, 1));
    for (token, status) in [("", 404), ("x", 404), ("y", 429), ("z", 429)] {
        assert_eq!(open(&server, token).await.status.as_u16(), status, "{token}");
    }
    open(&server, &"x".repeat(129)).await.refused(422);
    // A right token still works.
    open(&server, made.text("token")).await.ok();
});

both!(a_rotation_of_the_master_key_takes_waiting_secrets_along, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (_, minted) = tenant.key(json!({ "duration_days": 30 })).await;
    let made = hand_over(&tenant, &minted).await;
    let rotating = super::rotation::beside(&server, 8, &[7]);
    let rotated = ward::operator::rotate_secrets(&rotating, |_| {}).await.expect("a rotation");
    assert_eq!((rotated.done, rotated.left, rotated.unopened.len()), (1, 0, 0));
    let replaced = server.replica_with(super::rotation::keys(8, &[])).await;
    open(&replaced, made.text("token")).await.ok();
});

both!(the_page_opens_nothing_by_itself, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (_, minted) = tenant.key(json!({ "duration_days": 30, "name": "ci" })).await;
    let made = hand_over(&tenant, &minted).await;
    let page = server.anonymous().get(OPEN).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    for part in ["<script src", "<script>", "innerHTML", " onclick"] {
        assert_eq!(page.text.matches(part).count(), usize::from(part == "<script>"), "{part}");
    }
    assert_eq!(waiting(&server).await, 1);
    let Some(browser) = Browser::open(800, 600).await else { return };
    browser.go(&format!("{}{OPEN}#{}", server.url(), made.text("token"))).await;
    assert_eq!(waiting(&server).await, 1, "a look at the page opens nothing");
    browser.click("#open").await;
    let key = browser.until("return document.querySelector('#key').textContent").await;
    server.bearing(key.as_str().expect("a key")).get("/v1/auth/me").await.ok();
    assert_eq!(browser.run("return location.hash").await, "", "the token leaves the address");
    assert_eq!(browser.errors().await, Vec::<String>::new());
    browser.go(&format!("{}{OPEN}?again#{}", server.url(), made.text("token"))).await;
    browser.click("#open").await;
    let told = browser.until("return document.querySelector('#told').textContent").await;
    assert!(told.as_str().expect("text").contains("shows no key"), "{told}");
    browser.close().await;
});
