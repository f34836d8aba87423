//! The resources written to FHIR servers, checked against FHIR R4's own schemas.

#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

use jsonschema::Validator;
use serde_json::{Value, json};
use ward_ehr::delivery::{CallNote, Filing, Form};
use ward_ehr::{fhir, hubspot};

const SCHEMA: &str = include_str!("fhir-r4.schema.json");

fn validator(resource: &str) -> Validator {
    let mut schema: Value = serde_json::from_str(SCHEMA).unwrap();
    schema["$ref"] = json!(format!("#/definitions/{resource}"));
    schema.as_object_mut().unwrap().shift_remove("id");
    jsonschema::options().build(&schema).unwrap()
}

/// Every kind of call: each direction and each end, with and without the optional fields.
fn notes() -> Vec<CallNote> {
    let mut notes = Vec::new();
    for status in ["completed", "busy", "no-answer", "failed", "canceled"] {
        for inbound in [true, false] {
            for known in [true, false] {
                let some = |text: &str| known.then(|| text.to_owned());
                notes.push(CallNote {
                    system: "urn:uuid:6ba7b810-9dad-41d1-80b4-00c04fd430c8".to_owned(),
                    id: "0198f3c0-0000-7000-8000-000000000001".to_owned(),
                    inbound,
                    status: status.to_owned(),
                    from: some("+15550100001"),
                    to: some("sip:front-desk@clinic.example"),
                    started_at: "2026-04-18T12:00:00.123456Z".to_owned(),
                    ended_at: some("2026-04-18T12:01:00.000000Z"),
                    duration_ms: known.then_some(60_000),
                    patient: some("pat-1"),
                    encounter: some("enc-1"),
                    replaces: some("DocumentReference/1"),
                    filing: Filing { preliminary: known, category: some("Front desk"), ..Filing::default() },
                    text: "Inbound call.\nEine Frage zu Ä, 語 und 🩺.".to_owned(),
                });
            }
        }
    }
    notes
}

#[test]
fn resources_are_valid_fhir_r4() {
    let communication = validator("Communication");
    let document_reference = validator("DocumentReference");
    for note in notes() {
        for (form, validator) in
            [(Form::Communication, &communication), (Form::DocumentReference, &document_reference)]
        {
            if form.needs_patient() && note.patient.is_none() {
                continue; // It is never sent: the delivery waits until a patient is known.
            }
            let resource = fhir::resource(form, &note);
            let problems: Vec<String> = validator
                .iter_errors(&resource)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(problems.is_empty(), "{resource:#}\n{problems:#?}");
        }
    }
    // These two show that it is the right schema and that it is applied.
    assert!(!communication.is_valid(&json!({ "resourceType": "Communication" , "status": 7 })));
    assert!(!communication.is_valid(&json!({ "resourceType": "Communication", "unknown": true })));
}

#[test]
fn what_hubspot_gets_are_texts() {
    for note in notes() {
        let object = hubspot::object(&note);
        assert!(object["properties"].as_object().unwrap().values().all(Value::is_string), "{object}");
        assert_eq!(object["properties"][hubspot::ID_PROPERTY], note.id);
    }
}
