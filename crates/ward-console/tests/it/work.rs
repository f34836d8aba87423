//! The daily work of an operator: credentials of an integration, a queue that is held, and an export.

use serde_json::{Value, json};
use ward_test::{Fields as _, fresh_slug, sqlite_only};

use crate::desk::{self, Person};
use crate::scene;

sqlite_only!(a_secret_is_written_kept_and_replaced_and_never_read, async || {
    let server = desk::server().await;
    let tenant = server.tenant(&fresh_slug()).await;
    tenant.owner.patch(&tenant.workspace(""), json!({ "connector_type": "hubspot" })).await.ok();
    tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.ok();
    let auth = async || -> Value { tenant.get("/integrations").await.ok()["items"][0]["auth"].clone() };
    let Some(person) = Person::at(&server).await else { return };
    person.sign_in(tenant.claimed.text("api_key")).await;
    person.go(&format!("/w/{}/integrations", tenant.id)).await;
    person.press("HubSpot").await;
    person.sees("ward_call_id").await;
    person.fill("auth.bearer_token_value", "pat-first-secret").await;
    person.press("Save").await;
    person.sees("The changes are saved.").await;
    let first = auth().await["token_ssm_param_path"].clone();
    assert!(first.is_string(), "a secret is stored");
    person.sees("A secret is stored").await;
    let html = person.browser.run("return document.documentElement.outerHTML").await;
    assert!(!html.as_str().unwrap().contains("pat-first-secret"));

    // An empty field keeps the secret, and another value replaces it.
    person.fill("display_name", "HubSpot of the clinic").await;
    person.press("Save").await;
    person.sees("HubSpot of the clinic").await;
    assert_eq!(auth().await["token_ssm_param_path"], first);
    person.fill("auth.bearer_token_value", "pat-second-secret").await;
    person.press("Save").await;
    person.sees("The changes are saved.").await;
    let second = auth().await["token_ssm_param_path"].clone();
    assert!(second.is_string() && second != first);

    // Another kind of authentication has another form.
    person.choose("auth", "oauth2_client_credentials").await;
    person.press("Show its form").await;
    person.fill("auth.client_id", "clinic").await;
    person.fill("auth.token_url", "https://login.example.com/token").await;
    person.fill("auth.scopes", "calls.read calls.write").await;
    person.fill("auth.client_secret_value", "a-client-secret").await;
    person.press("Save").await;
    person.sees("The changes are saved.").await;
    let third = auth().await;
    assert_eq!(third["type"], "oauth2_client_credentials");
    assert_eq!(third["scopes"], json!(["calls.read", "calls.write"]));
    assert!(third["client_secret_ssm_param_path"].is_string() && third["token_ssm_param_path"].is_null());
    person.done().await;
});

sqlite_only!(a_queue_is_held_and_released_and_a_connection_is_tested, async || {
    let server = desk::server().await;
    let tenant = scene::busy(&server).await;
    let Some(person) = Person::at(&server).await else { return };
    person.sign_in(tenant.claimed.text("api_key")).await;
    let held = async || tenant.get("/sync").await.ok()["integrations"][0]["held"].clone();
    person.go(&format!("/w/{}/deliveries", tenant.id)).await;
    person.press("Hold").await;
    person.sees("The integration is held.").await;
    person.sees("A person holds it.").await;
    assert_eq!(held().await, true);
    person.press("Release").await;
    assert_eq!(held().await, false);
    person.press("Retry all failed").await;
    person.sees("The failed deliveries will be tried again.").await;
    person.choose("state", "pending").await;
    person.press("Filter").await;
    person.sees("2 deliveries").await;

    // The server's own client reaches no loopback address, and the page says so in words.
    person.go(&format!("/w/{}/integrations", tenant.id)).await;
    person.press("Google Cloud FHIR store").await;
    person.press("Test the connection").await;
    person.sees("Connection:").await;
    person.sees("Result").await;

    // An export is ordered and named.
    person.go(&format!("/w/{}/audit/exports", tenant.id)).await;
    person.browser.run("document.querySelector('[name=date_from]').value = '2026-01-01'").await;
    person.browser.run("document.querySelector('[name=date_to]').value = '2027-12-31'").await;
    person.press("Order an export").await;
    person.sees("The export is ordered.").await;
    person.sees("queued").await;
    person.done().await;
});

sqlite_only!(a_settings_page_archives_by_the_slug_only, async || {
    let server = desk::server().await;
    let tenant = server.tenant(&fresh_slug()).await;
    let Some(person) = Person::at(&server).await else { return };
    person.sign_in(tenant.claimed.text("api_key")).await;
    person.go(&format!("/w/{}/settings", tenant.id)).await;
    person.fill("slug", "another").await;
    person.press("Archive workspace").await;
    person.sees("Not accepted").await;
    tenant.owner.get(&tenant.workspace("")).await.ok();
    person.go(&format!("/w/{}/settings", tenant.id)).await;
    person.fill("slug", &tenant.slug).await;
    person.press("Archive workspace").await;
    tenant.owner.get(&tenant.workspace("")).await.refused_as(401, "unauthorized");
    assert_eq!(person.path().await, "/sign-in");
    person.done().await;
});
