//! The operations that need a special scene, under the rule of `audit`: a change that cannot be recorded is not made.

use serde_json::json;
use ward_test::{Answer, Fields as _, Scanner, Server, both};

/// Sends the same request while no event can be written, which must change nothing, and then again.
async fn needs_its_event(server: &Server, what: &str, send: impl AsyncFn() -> Answer) {
    let before = server.dump().await;
    server.sql("ALTER TABLE audit_events RENAME TO hidden").await;
    let refused = send().await;
    server.sql("ALTER TABLE hidden RENAME TO audit_events").await;
    assert!([500, 503].contains(&refused.status.as_u16()), "{what}: {} {}", refused.status, refused.text);
    assert!(server.dump().await == before, "{what} left something behind");
    let done = send().await;
    assert!(done.status.is_success(), "{what}: {}", done.text);
    assert!(server.dump().await != before, "{what} changes something");
}

both!(no_key_ends_and_no_secret_is_shown_without_an_event, async || {
    let scanner = Scanner::new("a-scanner");
    let server = scanner.server().await;
    let tenant = server.tenant("acme").await;
    let minted = async || tenant.key(json!({ "duration_days": 9, "role": "viewer" })).await.1;
    let path = |key: &serde_json::Value, rest: &str| format!("/api-keys/{}/{rest}", key.text("key_id"));

    let key = minted().await;
    let overlap = json!({ "duration_days": 9, "grace_seconds": 600 });
    tenant.post(&path(&key, "rotate"), overlap).await.ok();
    needs_its_event(&server, "finish", async || tenant.post(&path(&key, "rotate/finish"), json!({})).await)
        .await;

    let key = minted().await;
    let link = tenant.post(&path(&key, "handover"), json!({})).await.created();
    let token = json!({ "token": link["token"] });
    let anyone = server.anonymous();
    needs_its_event(&server, "open", async || anyone.post("/v1/keys/handover", token.clone()).await).await;

    let key = minted().await;
    let text = json!({ "api_key": key["api_key"] });
    needs_its_event(&server, "revoke", async || anyone.post("/v1/keys/revoke", text.clone()).await).await;

    for action in ["revoke", "quarantine"] {
        tenant.owner.put(&tenant.path("/leaked-key-policy"), json!({ "action": action })).await.ok();
        let key = minted().await;
        needs_its_event(&server, action, async || scanner.report(&server, &[key.text("api_key")]).await)
            .await;
    }
});
