//! athenahealth (`docs/connectors/athenahealth.md`): a patient case is a form with department, provider, source and
//! subclass, and its note has at most 4,000 characters.

use serde_json::{Value, json};
use ward_test::vendor::{CLIENT, ClientAuth, Vendor, VendorAnswer, VendorRequest};
use ward_test::{Fields as _, both};

use super::Practice;

const ACCESS: ClientAuth =
    ClientAuth::Secret { secret: "the-secret-of-the-app", scopes: &["athena/service/Athenanet.MDP.*"] };

fn rules(asked: &VendorRequest, kept: &mut Vec<Value>) -> VendorAnswer {
    let refuse = |field: &str| {
        let body = json!({ "error": "Additional fields are required.", "missingfields": [field] });
        (400, Vec::new(), body)
    };
    let Some(patient) =
        asked.path.strip_prefix("/patients/").and_then(|rest| rest.strip_suffix("/documents/patientcase"))
    else {
        return (404, Vec::new(), json!({ "error": "The requested resource does not exist." }));
    };
    if asked.field("departmentid").is_none_or(|id| id.parse::<u32>().is_err()) {
        return refuse("departmentid");
    }
    if asked.method == "GET" {
        let of: Vec<&Value> = kept.iter().filter(|case| case["patientid"] == patient).collect();
        return (200, Vec::new(), json!({ "patientcases": of, "totalcount": of.len() }));
    }
    if asked.headers.get("content-type").map(String::as_str) != Some("application/x-www-form-urlencoded") {
        return (415, Vec::new(), json!({ "error": "Form bodies only." }));
    }
    for field in ["providerid", "documentsource", "documentsubclass"] {
        if asked.field(field).is_none_or(|value| value.is_empty()) {
            return refuse(field);
        }
    }
    let note = asked.field("internalnote").unwrap_or_default();
    if note.chars().count() > 4_000 {
        return (400, Vec::new(), json!({ "error": "internalnote is too long." }));
    }
    let id = kept.len() + 1;
    kept.push(json!({
        "patientcaseid": id, "patientid": patient, "internalnote": note, "subject": asked.field("subject"),
        "documentsource": asked.field("documentsource"), "providerid": asked.field("providerid"),
    }));
    // The first answer is lost on its way.
    if id == 1 {
        (503, Vec::new(), Value::Null)
    } else {
        (200, Vec::new(), json!({ "success": true, "patientcaseid": id }))
    }
}

async fn practice(delivery: Value) -> Practice {
    let secret = json!({ "client_id": CLIENT, "client_secret_value": { "value": "the-secret-of-the-app" } });
    Practice::of("athenahealth", Vendor::start(ACCESS, rules).await, secret, delivery).await
}

both!(a_call_becomes_one_patient_case_and_is_found_again, async || {
    let practice = practice(json!({ "department_id": "1", "provider_id": "71" })).await;
    let more = json!({ "patient_id": "31014", "summary": "S".repeat(5_000) });
    let delivery = practice.deliver("CA1", more).await;
    assert_ne!(delivery["state"], "synced");
    for _ in 0..2 {
        practice.hour().await;
    }
    let delivery = practice.delivery(delivery.text("id")).await;
    assert_eq!(delivery.fields(["state", "location"]), json!(["synced", "patientcase/1"]), "{delivery}");
    let delivery = practice.deliver("CA2", json!({ "patient_id": "31014", "summary": "Refill." })).await;
    assert_eq!(delivery.fields(["state", "location"]), json!(["synced", "patientcase/2"]), "{delivery}");
    let kept = practice.vendor.kept();
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[1].fields(["documentsource", "providerid"]), json!(["PATIENT", "71"]));
    assert!(kept[1].text("internalnote").contains("Refill."));
    let unmatched = practice.deliver("CA3", json!({})).await;
    assert_eq!(unmatched.fields(["state", "reason"]), json!(["held", "unmatched_patient"]));
});

both!(without_a_department_nothing_is_sent_and_the_queue_says_why, async || {
    let practice = practice(json!({ "provider_id": "71" })).await;
    let delivery = practice.deliver("CA1", json!({ "patient_id": "31014" })).await;
    assert_eq!(delivery["attempts"][0]["outcome"], "misconfigured", "{delivery}");
    assert!(delivery.to_string().contains("delivery.department_id"), "{delivery}");
    assert_eq!(practice.vendor.asked().len(), 0);
});
