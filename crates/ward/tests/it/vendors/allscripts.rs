//! Veradigm (`docs/connectors/allscripts.md`): the server's smart-configuration names the token endpoint.

use serde_json::json;
use ward_test::both;
use ward_test::vendor::{ClientAuth, Vendor};

use super::{Practice, created, identified, outcome, searchset, wrong_document};

const SCOPES: &[&str] = &["system/DocumentReference.read", "system/DocumentReference.write"];
const ACCESS: ClientAuth = ClientAuth::Smart { algorithms: &["RS384", "ES384"], scopes: SCOPES };

both!(the_token_endpoint_is_discovered, async || {
    let vendor = Vendor::start(ACCESS, |asked, kept| match asked.method.as_str() {
        "POST" if asked.may(&["system/DocumentReference.write"]) => match wrong_document(&asked.json()) {
            Some(field) => outcome(400, "required", field),
            None => created(asked, kept),
        },
        _ => searchset(identified(asked, kept)),
    })
    .await;
    let practice = Practice::smart("allscripts", vendor, json!({})).await;
    let row = practice.tenant.owner.get(&practice.integration).await.ok();
    assert!(row["auth"].get("token_url").is_none(), "{}", row["auth"]);
    let delivery = practice.deliver("CA1", json!({ "patient_id": "p1" })).await;
    assert_eq!(delivery["state"], "synced", "{delivery}");
    assert_eq!(practice.vendor.kept()[0]["docStatus"], "preliminary");
});
