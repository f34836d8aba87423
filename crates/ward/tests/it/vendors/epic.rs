//! Epic (`docs/connectors/epic.md`): a note needs a patient and an encounter of the same patient, keys come from a JWK
//! set only, and a `docStatus` of `preliminary` leaves it for review.

use serde_json::{Value, json};
use ward_test::vendor::{ClientAuth, Vendor, VendorAnswer, VendorRequest};
use ward_test::{Fields as _, both};

use super::{Practice, created, identified, outcome, searchset, wrong_document};
use crate::calls::{finished, put};
use crate::deliveries::PATIENT;

const ACCESS: ClientAuth = ClientAuth::Smart { algorithms: &["RS384", "ES384"], scopes: &[] };

fn rules(asked: &VendorRequest, kept: &mut Vec<Value>) -> VendorAnswer {
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/Encounter") => {
            let patient = format!("Patient/{}", asked.field("patient").unwrap_or_default());
            let of =
                |one: &&Value| one["resourceType"] == "Encounter" && one["subject"]["reference"] == patient;
            searchset(kept.iter().filter(of))
        }
        ("GET", "/DocumentReference") => searchset(identified(asked, kept)),
        ("POST", "/DocumentReference") => {
            let document = asked.json();
            if let Some(field) = wrong_document(&document) {
                return outcome(400, "required", field);
            }
            if !["preliminary", "final"].contains(&document.text("docStatus")) {
                return outcome(400, "value", "docStatus");
            }
            let Some(encounter) = document["context"]["encounter"][0]["reference"].as_str() else {
                return outcome(400, "required", "context.encounter");
            };
            let fits = |one: &Value| {
                one["resourceType"] == "Encounter"
                    && encounter == format!("Encounter/{}", one.text("id"))
                    && one["subject"] == json!({ "reference": document["subject"]["reference"] })
            };
            if !kept.iter().any(fits) {
                return outcome(400, "business-rule", "the encounter is not the patient's");
            }
            created(asked, kept)
        }
        _ => outcome(403, "forbidden", "not in the app's scope"),
    }
}

fn encounter(id: &str, patient: &str) -> Value {
    json!({ "resourceType": "Encounter", "id": id, "status": "in-progress",
            "subject": { "reference": format!("Patient/{patient}") } })
}

async fn practice(delivery: Value) -> Practice {
    let vendor = Vendor::start(ACCESS, rules).await;
    for (id, patient) in [("e1", "p1"), ("e2", "p2"), ("e3", "p2")] {
        vendor.keep(encounter(id, patient));
    }
    Practice::smart("epic", vendor, delivery).await
}

fn documents(vendor: &Vendor) -> Vec<Value> {
    vendor.kept().into_iter().filter(|one| one["resourceType"] == "DocumentReference").collect()
}

both!(a_note_has_the_reported_encounter_and_waits_for_review, async || {
    let practice = practice(json!({})).await;
    let delivery = practice.deliver("CA1", json!({ "patient_id": "p2", "encounter_id": "e3" })).await;
    assert_eq!(
        delivery.fields(["state", "location"]),
        json!(["synced", "DocumentReference/r4"]),
        "{delivery}"
    );
    let written = &documents(&practice.vendor)[0];
    assert_eq!(written["docStatus"], "preliminary");
    assert_eq!(written["context"]["encounter"][0]["reference"], "Encounter/e3");
    assert!(!practice.vendor.asked().iter().any(|asked| asked.path == "/Encounter"), "it was reported");
});

both!(one_encounter_during_the_call_is_taken_and_several_or_none_are_held, async || {
    let practice = practice(json!({ "document_status": "final" })).await;
    let delivery = practice.deliver("CA1", json!({ "patient_id": "p1" })).await;
    assert_eq!(delivery["state"], "synced", "{delivery}");
    let written = &documents(&practice.vendor)[0];
    assert_eq!(written["docStatus"], "final");
    assert_eq!(written["context"]["encounter"][0]["reference"], "Encounter/e1");
    let held = json!(["held", "unmatched_encounter"]);
    let several = practice.deliver("CA2", json!({ "patient_id": "p2" })).await;
    assert_eq!(several.fields(["state", "reason"]), held);
    let none = practice.deliver("CA3", json!({ "patient_id": "p3" })).await;
    assert_eq!(none.fields(["state", "reason"]), held);
    let nobody = practice.deliver("CA4", json!({})).await;
    assert_eq!(nobody.fields(["state", "reason"]), json!(["held", "unmatched_patient"]));
    assert_eq!(documents(&practice.vendor).len(), 1);
    // A later report names the encounter, and the delivery goes by itself.
    let mut report = finished(PATIENT);
    report["encounter_id"] = json!("e2");
    let call = put(&practice.tenant, "CA2", report).await;
    assert_eq!(call["encounter_id"], "e2");
    practice.worker.turn().await;
    assert_eq!(practice.delivery(several.text("id")).await["state"], "synced");
});

both!(where_encounters_must_be_reported_none_is_looked_up, async || {
    let practice = practice(json!({ "encounter": "reported" })).await;
    let delivery = practice.deliver("CA1", json!({ "patient_id": "p1" })).await;
    assert_eq!(delivery.fields(["state", "reason"]), json!(["held", "unmatched_encounter"]));
    assert_eq!(practice.vendor.asked().len(), 0);
});
