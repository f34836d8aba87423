//! Amendments of calls that the EHR has: once each, by the means of each connector, with former values kept sealed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ward::operator;
use ward_test::ehr::Act;
use ward_test::{Answer, Fields as _, both};

use crate::calls::{finished, put};
use crate::deliveries::{PATIENT, Scene};

/// A scene whose EHR has one call of the patient `p1`, and the id of its delivery.
async fn delivered(connector: &str) -> (Scene, String) {
    let scene = Scene::of(connector).await;
    let mut body = finished(PATIENT);
    body["patient_id"] = json!("p1");
    body["summary"] = json!("Asked for a refill.");
    let call = put(&scene.tenant, "CA1", body).await;
    let id = call["sync"].text("delivery_id").to_owned();
    amend(&scene, &id, json!({ "summary": "x" })).await.refused_as(409, "not_in_ehr");
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    (scene, id)
}

async fn amend(scene: &Scene, id: &str, body: Value) -> Answer {
    scene.tenant.post(&format!("/deliveries/{id}/amend"), body).await
}

pub fn text(attachment: &Value) -> String {
    let bytes = STANDARD.decode(attachment["data"].as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

both!(a_document_is_replaced_by_one_that_refers_to_it, async || {
    let (scene, id) = delivered("cerner").await;
    let answer = amend(&scene, &id, json!({ "summary": "Asked for two refills." })).await.ok();
    assert_eq!(answer, json!({ "id": id, "changed": ["summary"], "amendment": 1, "state": "pending" }));
    let waiting = scene.delivery(&id).await;
    let shown = ["state", "amendment", "amendments", "location"];
    assert_eq!(waiting.fields(shown), json!(["pending", 1, 0, "DocumentReference/1"]));
    // Until it has arrived, nothing else changes the call.
    amend(&scene, &id, json!({ "summary": "y" })).await.refused_as(409, "amendment_pending");
    let correct = scene.tenant.post("/calls/CA1/correct", json!({ "patient_id": "p2" })).await;
    correct.refused_as(409, "amendment_pending");
    let drop = scene.tenant.post(&format!("/deliveries/{id}/drop"), json!({ "reason": "x" })).await;
    drop.refused_as(409, "amendment_pending");
    // The answer to the first try is lost on its way, so a search comes before the second.
    scene.ehr.script([Act::TakeAndReset]);
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["state"], "pending");
    scene.hours(1).await;
    let done = scene.delivery(&id).await;
    assert_eq!(done.fields(shown), json!(["synced", null, 1, "DocumentReference/2"]));
    let kept = scene.ehr.kept();
    assert_eq!(kept.len(), 2, "{kept:?}");
    let first = kept[0]["identifier"][0].text("value").to_owned();
    assert_eq!(kept[1]["identifier"][0]["value"], format!("{first}.1"));
    let related = json!([{ "code": "replaces", "target": { "reference": "DocumentReference/1" } }]);
    assert_eq!(kept[1]["relatesTo"], related);
    assert!(text(&kept[1]["content"][0]["attachment"]).ends_with("\n\nAsked for two refills."));
    assert!(kept[0]["relatesTo"].is_null());
    // The next one replaces the second document.
    let next = amend(&scene, &id, json!({ "encounter_id": "e9", "summary": "" })).await.ok();
    assert_eq!(next.fields(["changed", "amendment"]), json!([["encounter_id", "summary"], 2]));
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await.fields(shown), json!(["synced", null, 2, "DocumentReference/3"]));
    let third = &scene.ehr.kept()[2];
    assert_eq!(third["relatesTo"][0]["target"]["reference"], "DocumentReference/2");
    assert_eq!(third["context"]["encounter"][0]["reference"], "Encounter/e9");
    // A document stays in its chart, and a repeat of known values writes nothing.
    amend(&scene, &id, json!({ "patient_id": "p2" })).await.refused_as(409, "patient_in_chart");
    let same = amend(&scene, &id, json!({ "patient_id": "p1", "encounter_id": "e9" })).await.ok();
    assert_eq!(same.fields(["changed", "amendment", "state"]), json!([[], null, "synced"]));
    scene.hours(2).await;
    assert!(scene.ehr.counts().values().all(|count| *count == 1), "{:?}", scene.ehr.counts());
    // The former and the new values are sealed beside the corrections; the audit names the fields only.
    let call = scene.tenant.get("/calls/CA1").await.ok();
    let first = json!({ "former": { "summary": "Asked for a refill." }, "new": { "summary": "Asked for two refills." } });
    assert_eq!(call["corrections"][1]["values"], first);
    let events = scene.tenant.audit().await;
    let noted: Vec<&Value> = events.iter().filter(|event| event["action"] == "delivery.amend").collect();
    assert_eq!(noted.len(), 2);
    assert!(
        noted
            .iter()
            .any(|event| event["metadata"].fields(["fields", "amendment"]) == json!([["summary"], 1]))
    );
    assert!(!json!(events).to_string().contains("refills"), "{events:?}");
});

both!(a_communication_is_updated_and_can_move_to_another_patient, async || {
    let (scene, id) = delivered("fhir_store").await;
    let answer = amend(&scene, &id, json!({ "patient_id": "p2", "summary": "For her son." })).await.ok();
    assert_eq!(answer["changed"], json!(["patient_id", "summary"]));
    // Another client changes the resource first, and then the answer is lost.
    scene.ehr.script([Act::Say(412, Value::Null, ""), Act::TakeAndReset]);
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await.fields(["state", "reason"]), json!(["pending", "conflict"]));
    scene.hours(1).await;
    scene.hours(1).await;
    let done = scene.delivery(&id).await;
    let shown = ["state", "amendment", "amendments", "location"];
    assert_eq!(done.fields(shown), json!(["synced", null, 1, "Communication/1"]), "{done}");
    let kept = scene.ehr.kept();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0]["subject"]["reference"], "Patient/p2");
    assert!(text(&kept[0]["payload"][0]["contentAttachment"]).ends_with("For her son."));
    assert_eq!(scene.tenant.get("/calls/CA1").await.ok()["patient_id"], "p2");
    // The EHR lost the resource: the amendment fails in the EHR's words, and no other one is written.
    amend(&scene, &id, json!({ "summary": "z" })).await.ok();
    scene.ehr.script([Act::Say(404, Value::Null, "")]);
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await.fields(["state", "reason"]), json!(["failed", "refused"]));
    scene.retry(&id).await.ok();
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await.fields(shown), json!(["synced", null, 2, "Communication/1"]));
    assert_eq!(scene.ehr.kept().len(), 1);
});

both!(a_call_of_hubspot_is_updated, async || {
    let (scene, id) = delivered("hubspot").await;
    let wanted = json!({ "summary": "Call back on Monday." }).as_object().unwrap().clone();
    let delivery = id.parse().map(ward::ids::DeliveryId).unwrap();
    let done =
        operator::amend_delivery(&scene.server.app, &scene.tenant.slug, delivery, wanted).await.unwrap();
    assert_eq!((done.amendment, done.state), (Some(1), "pending"));
    scene.server.clock.advance(std::time::Duration::from_secs(1));
    scene.worker.turn().await;
    let shown = scene.delivery(&id).await;
    assert_eq!(shown.fields(["state", "amendments", "location"]), json!(["synced", 1, "calls/1"]), "{shown}");
    let kept = scene.ehr.kept();
    assert_eq!(kept.len(), 1);
    assert!(kept[0]["properties"].text("hs_call_body").ends_with("Call back on Monday."));
    let patched = scene.ehr.asked().into_iter().filter(|asked| asked.method == "PATCH").count();
    assert_eq!(patched, 1);
});

both!(where_no_amendment_is_documented_a_person_makes_it, async || {
    let (scene, id) = delivered("fhir_store").await;
    let renamed = format!(
        "UPDATE integrations SET name = 'athenahealth' WHERE workspace_id = uuid '{}'",
        scene.tenant.id
    );
    assert_eq!(scene.server.sql(renamed).await, 1);
    amend(&scene, &id, json!({ "summary": "Call back on Monday." })).await.ok();
    let asked = scene.ehr.asked().len();
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await.fields(["state", "reason"]), json!(["held", "no_amendment"]));
    assert_eq!(scene.ehr.asked().len(), asked, "nothing was sent");
    let resolved =
        scene.tenant.post(&format!("/deliveries/{id}/resolve"), json!({ "in_ehr": true })).await.ok();
    assert_eq!(resolved["state"], "synced");
    let shown = scene.delivery(&id).await;
    assert_eq!(shown.fields(["state", "amendment", "amendments"]), json!(["synced", null, 1]));
    let other = scene.server.tenant("other").await;
    let theirs = other
        .owner
        .post(&scene.tenant.path(&format!("/deliveries/{id}/amend")), json!({ "summary": "x" }))
        .await;
    theirs.refused(404);
});
