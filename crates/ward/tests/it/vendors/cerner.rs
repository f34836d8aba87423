//! Oracle Health Millennium (`docs/connectors/cerner.md`): documents are `final`, dates have a time, and both the create
//! and the search need a scope.

use serde_json::{Value, json};
use ward_test::vendor::{ClientAuth, Vendor, VendorAnswer, VendorRequest};
use ward_test::{Fields as _, both};

use super::{Practice, created, identified, outcome, searchset, wrong_document};

const SCOPES: &[&str] =
    &["system/DocumentReference.read", "system/DocumentReference.write", "system/Encounter.read"];
const ACCESS: ClientAuth = ClientAuth::Smart { algorithms: &["RS384", "ES384"], scopes: SCOPES };

fn rules(asked: &VendorRequest, kept: &mut Vec<Value>) -> VendorAnswer {
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/DocumentReference") if asked.may(&["system/DocumentReference.read"]) => {
            searchset(identified(asked, kept))
        }
        ("POST", "/DocumentReference") if asked.may(&["system/DocumentReference.write"]) => {
            let document = asked.json();
            if asked.headers.get("content-type").map(String::as_str) != Some("application/fhir+json") {
                return outcome(415, "not-supported", "content-type");
            }
            if let Some(field) = wrong_document(&document) {
                return outcome(422, "required", field);
            }
            if document["docStatus"] != "final" || document["content"].as_array().unwrap().len() != 1 {
                return outcome(422, "business-rule", "docStatus");
            }
            if !document["context"]["period"].text("end").contains('T') {
                return outcome(422, "business-rule", "dates need a time");
            }
            let said = created(asked, kept);
            // The first answer is lost on its way.
            if kept.len() == 1 { outcome(504, "timeout", "gateway") } else { said }
        }
        _ => outcome(403, "forbidden", "scope"),
    }
}

both!(a_lost_answer_is_found_again_because_the_search_has_its_scope, async || {
    let practice = Practice::smart("cerner", Vendor::start(ACCESS, rules).await, json!({})).await;
    let delivery = practice.deliver("CA1", json!({ "patient_id": "12724066" })).await;
    assert_ne!(delivery["state"], "synced");
    for _ in 0..2 {
        practice.hour().await;
    }
    let delivery = practice.delivery(delivery.text("id")).await;
    assert_eq!(
        delivery.fields(["state", "location"]),
        json!(["synced", "DocumentReference/r1"]),
        "{delivery}"
    );
    assert_eq!(practice.vendor.kept().len(), 1);
    let delivery =
        practice.deliver("CA2", json!({ "patient_id": "12724066", "encounter_id": "97953477" })).await;
    assert_eq!(delivery["state"], "synced", "{delivery}");
    let written = practice.vendor.kept()[1].clone();
    assert_eq!(written["context"]["encounter"][0]["reference"], "Encounter/97953477");
});
