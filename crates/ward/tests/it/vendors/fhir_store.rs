//! Google's Cloud Healthcare API (`docs/connectors/fhir_store.md`): conditional creates go by identifier, literal
//! references must resolve, and a service account signs with RS256.

use serde_json::{Value, json};
use ward_test::vendor::{ClientAuth, Vendor, VendorAnswer, VendorRequest};
use ward_test::{Fields as _, both};

use super::{Practice, created, identified, outcome, searchset};

const ACCOUNT: &str = "ward@project.iam.gserviceaccount.com";

fn rules(asked: &VendorRequest, kept: &mut Vec<Value>) -> VendorAnswer {
    if asked.method == "GET" {
        return searchset(identified(asked, kept));
    }
    let resource = asked.json();
    let condition = asked.headers.get("if-none-exist").cloned().unwrap_or_default();
    if !condition.starts_with("identifier=") {
        return outcome(400, "invalid", "if-none-exist");
    }
    // The store knows one patient, and enforces referential integrity.
    let dangling =
        resource["subject"]["reference"].as_str().is_some_and(|reference| reference != "Patient/p1");
    if dangling { outcome(400, "invalid", "reference_not_found") } else { created(asked, kept) }
}

both!(a_communication_is_in_the_chart_of_a_reported_patient, async || {
    let vendor = Vendor::start(ClientAuth::Assertion { issuer: ACCOUNT }, rules).await;
    let account = json!({
        "type": "oauth2_jwt_bearer", "assertion_issuer": ACCOUNT, "assertion_algorithm": "RS256",
        "assertion_scopes_in_jwt": true, "scopes": ["https://www.googleapis.com/auth/cloud-healthcare"],
        "gcp_scopes": null,
    });
    let practice = Practice::of("fhir_store", vendor, account, json!({})).await;
    let delivery = practice.deliver("CA1", json!({ "patient_id": "p1", "encounter_id": "e1" })).await;
    assert_eq!(delivery["state"], "synced", "{delivery}");
    let unmatched = practice.deliver("CA2", json!({})).await;
    assert_eq!(unmatched["state"], "synced", "{unmatched}");
    let kept = practice.vendor.kept();
    assert_eq!(kept[0]["subject"], json!({ "type": "Patient", "reference": "Patient/p1" }));
    assert_eq!(kept[0]["encounter"]["reference"], "Encounter/e1");
    assert!(kept[1].get("subject").is_none());
    // A call with a length and a start has an end.
    let body = json!({ "duration_seconds": 90, "started_at": "2026-04-18T12:00:00Z", "patient_id": "p1" });
    practice.deliver("CA3", body).await;
    let written = practice.vendor.kept()[2].clone();
    assert_eq!(
        written.fields(["sent", "received"]),
        json!(["2026-04-18T12:00:00.000000Z", "2026-04-18T12:01:30.000000Z"])
    );
});
